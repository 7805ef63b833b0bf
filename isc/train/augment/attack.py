"""The base classes and helpers of our copy attacks: albumentations transforms with a strength.

An attack draws one seed from the transform's own generator and derives every random choice from it, so that
albumentations' replay and `set_random_state` work as for its own transforms. Attacks edit images only, not boxes or
masks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import albumentations as A
import cv2
import numpy as np

from isc.photos.decode import Pixels

Colour = tuple[int, int, int]
OtherPhoto = Callable[[], Pixels]  # decodes another photo at the call, and returns its pixels


class BaseAttack(A.ImageOnlyTransform):  # type: ignore[misc]
    """An edit uint8 [H, W, 3] → the same shape. `strength` 0…1 limits its size; 1 allows the full range."""

    shrinks: ClassVar[bool] = False  # the photo keeps a small part of the picture; at most one such attack per view
    redraws: ClassVar[bool] = False  # only lines, dots or two colours of the photo stay; at most one per view

    def __init__(self, *, strength: float = 1.0, p: float = 0.5) -> None:
        super().__init__(p=p)
        self.strength = strength

    def get_params(self) -> dict[str, Any]:
        return {"seed": int(self.random_generator.integers(1 << 62))}

    @property
    def mover(self) -> BaseAttack:
        """Return the attack that moves or covers the photo in the same way, linear in its pixels, for a trace."""
        return self

    def amount(self, rng: np.random.Generator, mildest: float, strongest: float) -> float:
        """Draw uniformly from `mildest` to `mildest` + `self.strength` · (`strongest` − `mildest`)."""
        return mildest + rng.random() * self.strength * (strongest - mildest)


class Attack(BaseAttack):
    """An attack that uses the photo alone."""

    def apply(self, img: Pixels, *, seed: int, **_: Any) -> Pixels:
        """Return the edit that this seed determines; called by albumentations."""
        return self.edit(img, np.random.default_rng(seed))

    @abstractmethod
    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        """Return a new picture of the same shape."""


class Composition(BaseAttack):
    """An attack that uses another photo: `transform(image=…, other=callable)`."""

    @property
    def targets_as_params(self) -> list[str]:
        return ["other"]

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        del params
        return {"other": data["other"]}

    def apply(self, img: Pixels, *, seed: int, **params: Any) -> Pixels:
        return self.compose(img, params["other"], np.random.default_rng(seed))

    @abstractmethod
    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        """Return a new picture of the same shape."""


def scaled(picture: Pixels, width: int, height: int) -> Pixels:
    """Resize the picture to [height, width, 3]: area-averaged if a side shrinks, else bilinear."""
    full = picture.shape[:2]
    if full == (height, width):
        return picture
    how = cv2.INTER_AREA if height < full[0] or width < full[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (max(1, width), max(1, height)), interpolation=how), np.uint8)


def any_colour(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def plain_colour(picture: Pixels, rng: np.random.Generator) -> Colour:
    """Draw white, black, a gray, the picture's mean or any colour."""
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
    """Return a picture [H, W, 3] of one colour."""
    row = np.full((shape[1], 3), colour, np.uint8)
    return np.repeat(row[None], shape[0], axis=0)


def blend(below: Pixels, above: Pixels, opacity: float) -> Pixels:
    """Return opacity · above + (1 − opacity) · below; both of one shape."""
    return np.asarray(cv2.addWeighted(above, opacity, below, 1 - opacity, 0), np.uint8)


def put(ground: Pixels, patch: Pixels, *, top: int, left: int, opacity: float = 1.0) -> None:
    """Lay the patch on the ground, in place; parts outside the ground are cut off."""
    y, x = max(0, top), max(0, left)
    place = ground[y : max(y, top + patch.shape[0]), x : max(x, left + patch.shape[1])]
    part = patch[y - top : y - top + place.shape[0], x - left : x - left + place.shape[1]]
    if place.size:
        place[:] = part if opacity >= 1 else blend(place, part, opacity)


def put_anywhere(ground: Pixels, patch: Pixels, rng: np.random.Generator, *, opacity: float = 1.0) -> None:
    """Lay the patch at a random position fully inside the ground, in place; the patch is at most as large."""
    top, left = (int(rng.integers(0, g - p + 1)) for g, p in zip(ground.shape[:2], patch.shape[:2], strict=True))
    put(ground, patch, top=top, left=left, opacity=opacity)
