"""The trace of a hard view: the position in the photo of each point of the attacked picture.

Attacks that move, cover or blend a picture are linear in its pixels. Therefore two pictures whose colours are
coordinates, one the negative of the other, go through the same attacks with the same random draws. Their difference
afterwards gives the share of the photo in each pixel and the position of this pixel in the photo, independently of
everything that was laid around or over it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.photos.decode import Pixels

POINTS = 32  # followed points per side of the grid
OPAQUE = 0.35  # least share of the photo in a pixel for a valid position
NOWHERE = -1.0


@dataclass(frozen=True)
class Frame:
    """A part of a photo, in fractions of the photo's height and width, optionally mirrored."""

    top: float
    left: float
    height: float
    width: float
    mirrored: bool = False

    def inside(self, places: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Convert positions (x, y) [..., 2] in 0…1 of the photo to 0…1 of this part; NOWHERE if outside."""
        x, y = (places[..., 0] - self.left) / self.width, (places[..., 1] - self.top) / self.height
        x = 1 - x if self.mirrored else x
        within = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1) & (places[..., 0] >= 0)
        return np.where(within[..., None], np.stack([x, y], axis=-1), np.float32(NOWHERE))


class Trace:
    """The trace of a picture [size, size] that shows `frame` of a photo."""

    def __init__(self, frame: Frame, *, size: int) -> None:
        steps = (np.arange(size) + 0.5) / size
        across, down = frame.left + steps * frame.width, frame.top + steps * frame.height
        positive = np.empty((size, size, 3), np.uint8)
        positive[..., 0] = np.rint(255 * across)[None, :]
        positive[..., 1] = np.rint(255 * down)[:, None]
        positive[..., 2] = 255
        self._pictures = [positive, 255 - positive]

    def follow(self, edit: Callable[[Pixels, np.random.Generator], Pixels], rng: np.random.Generator) -> None:
        """Apply the edit to the trace with copies of `rng`, whose state stays unchanged for the edit of the picture."""
        self._pictures = [edit(picture, copy.deepcopy(rng)) for picture in self._pictures]

    def places(self) -> npt.NDArray[np.float32]:
        """Return the positions (x, y) in 0…1 of the photo for P × P points, [P, P, 2]; NOWHERE if a point has none."""
        size = self._pictures[0].shape[0]
        at = (np.arange(POINTS) * size + size // 2) // POINTS
        one, two = (picture[at[:, None], at[None, :]].astype(np.float32) for picture in self._pictures)
        difference = one - two
        part = difference[..., 2:] / 255
        photo = np.clip((difference[..., :2] / np.maximum(255 * part, 1) + 1) / 2, 0, 1)
        return np.where(part >= OPAQUE, photo, np.float32(NOWHERE))
