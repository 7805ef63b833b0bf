"""Follows through the attacks where each place of the attacked picture lies in the photo.

Attacks that move, cover or blend a picture answer linearly to its pixels. So two pictures whose colours are
coordinates, each the other's negative, go through the same attacks with the same draws: what they differ by afterwards
is the photo's part of each pixel, and where in the photo it comes from, whatever was laid around it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.photos.decode import Pixels

POINTS = 32  # a side of the grid of points that are followed
OPAQUE = 0.35  # the least part of a pixel that must be the photo's for its place to be known
NOWHERE = -1.0


@dataclass(frozen=True)
class Frame:
    """A part of a photo, in fractions of its height and width, perhaps mirrored."""

    top: float
    left: float
    height: float
    width: float
    mirrored: bool = False

    def inside(self, places: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Fractions (x, y) of the photo [..., 2] → fractions of this part; NOWHERE for what lies outside."""
        x, y = (places[..., 0] - self.left) / self.width, (places[..., 1] - self.top) / self.height
        x = 1 - x if self.mirrored else x
        within = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1) & (places[..., 0] >= 0)
        return np.where(within[..., None], np.stack([x, y], axis=-1), np.float32(NOWHERE))


class Trace:
    """Follow a picture [size, size] that shows `frame` of a photo."""

    def __init__(self, frame: Frame, *, size: int) -> None:
        steps = (np.arange(size) + 0.5) / size
        across, down = frame.left + steps * frame.width, frame.top + steps * frame.height
        positive = np.empty((size, size, 3), np.uint8)
        positive[..., 0] = np.rint(255 * across)[None, :]
        positive[..., 1] = np.rint(255 * down)[:, None]
        positive[..., 2] = 255
        self._pictures = [positive, 255 - positive]

    def follow(self, edit: Callable[[Pixels, np.random.Generator], Pixels], rng: np.random.Generator) -> None:
        """Apply the edit as it was, or will be, applied with this state of `rng`, which stays as it is."""
        self._pictures = [edit(picture, copy.deepcopy(rng)) for picture in self._pictures]

    def places(self) -> npt.NDArray[np.float32]:
        """Fractions (x, y) of the photo at POINTS × POINTS points of the picture, [P, P, 2]; NOWHERE beside it."""
        size = self._pictures[0].shape[0]
        at = (np.arange(POINTS) * size + size // 2) // POINTS
        one, two = (picture[at[:, None], at[None, :]].astype(np.float32) for picture in self._pictures)
        difference = one - two
        part = difference[..., 2:] / 255
        photo = np.clip((difference[..., :2] / np.maximum(255 * part, 1) + 1) / 2, 0, 1)
        return np.where(part >= OPAQUE, photo, np.float32(NOWHERE))
