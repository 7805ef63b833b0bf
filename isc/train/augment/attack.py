"""What our copy attacks have in common: albumentations transforms with a strength.

An attack draws one seed from the transform's own generator and makes every choice from it, so that albumentations'
replay and `set_random_state` work as for its own transforms. Attacks know images alone, no boxes or masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import albumentations as A
import cv2
import numpy as np

from isc.photos.decode import Pixels

Colour = tuple[int, int, int]
OtherPhoto = Callable[[], Pixels]  # another photo's pixels, decoded when it is called


class Attack(A.ImageOnlyTransform):  # type: ignore[misc]
    """uint8 [H, W, 3] → the same shape. `strength` 0…1: how far the attack may go, 1 = as far as the field does."""

    shrinks: ClassVar[bool] = False  # leaves the photo a small part of the picture; one such attack a chain is enough
    redraws: ClassVar[bool] = False  # leaves lines, dots or two colours of it; the same

    def __init__(self, *, strength: float = 1.0, p: float = 0.5) -> None:
        super().__init__(p=p)
        self.strength = strength

    def get_params(self) -> dict[str, Any]:
        return {"seed": int(self.random_generator.integers(1 << 62))}

    def apply(self, img: Pixels, *, seed: int, **_: Any) -> Pixels:
        """The edit that this seed chooses; albumentations calls it."""
        return self.edit(img, np.random.default_rng(seed))

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        """A new picture of the same shape."""
        raise NotImplementedError

    @property
    def mover(self) -> Attack:
        """What of the attack moves or covers the photo, with the same draws and linear in its pixels, for a trace."""
        return self

    def amount(self, rng: np.random.Generator, mildest: float, strongest: float) -> float:
        """Uniform from `mildest` to `strongest`, or to the part of that way that the strength allows."""
        return mildest + rng.random() * self.strength * (strongest - mildest)


class Composition(Attack):
    """An attack that takes another photo along: `transform(image=…, other=callable)`."""

    @property
    def targets_as_params(self) -> list[str]:
        return ["other"]

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        del params
        return {"other": data["other"]}

    def apply(self, img: Pixels, *, seed: int, **params: Any) -> Pixels:
        return self.compose(img, params["other"], np.random.default_rng(seed))

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        """A new picture of the same shape."""
        raise NotImplementedError


def scaled(picture: Pixels, width: int, height: int) -> Pixels:
    """The picture [height, width, 3]: area-averaged where it shrinks, bilinear where it grows."""
    full = picture.shape[:2]
    if full == (height, width):
        return picture
    how = cv2.INTER_AREA if height < full[0] or width < full[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (max(1, width), max(1, height)), interpolation=how), np.uint8)


def any_colour(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def plain_colour(picture: Pixels, rng: np.random.Generator) -> Colour:
    """White, black, a gray, the picture's mean or any colour."""
    kind = rng.random()
    if kind < 0.3:
        return 255, 255, 255
    if kind < 0.55:
        return 0, 0, 0
    if kind < 0.65:
        gray = int(rng.integers(256))
        return gray, gray, gray
    if kind < 0.75:
        red, green, blue = (round(channel) for channel in cv2.mean(picture)[:3])
        return red, green, blue
    return any_colour(rng)


def plain(shape: tuple[int, ...], colour: Colour) -> Pixels:
    """A picture [H, W, 3] of one colour."""
    row = np.full((shape[1], 3), colour, np.uint8)
    return np.repeat(row[None], shape[0], axis=0)


def blend(below: Pixels, above: Pixels, opacity: float) -> Pixels:
    """opacity · above + (1 − opacity) · below, of one shape."""
    return np.asarray(cv2.addWeighted(above, opacity, below, 1 - opacity, 0), np.uint8)


def put(ground: Pixels, patch: Pixels, *, top: int, left: int, opacity: float = 1.0) -> None:
    """Lays the patch on the ground, in place, cut where it leaves it."""
    y, x = max(0, top), max(0, left)
    place = ground[y : max(y, top + patch.shape[0]), x : max(x, left + patch.shape[1])]
    part = patch[y - top : y - top + place.shape[0], x - left : x - left + place.shape[1]]
    if place.size:
        place[:] = part if opacity >= 1 else blend(place, part, opacity)


def put_anywhere(ground: Pixels, patch: Pixels, rng: np.random.Generator, *, opacity: float = 1.0) -> None:
    """Lays a patch no larger than the ground somewhere wholly on it, in place."""
    top, left = (int(rng.integers(0, g - p + 1)) for g, p in zip(ground.shape[:2], patch.shape[:2], strict=True))
    put(ground, patch, top=top, left=left, opacity=opacity)
