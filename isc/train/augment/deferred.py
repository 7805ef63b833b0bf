"""Attacks whose numbers are drawn here, and which a device makes later: those that end the chain of a view.

The chain of a view is drawn as always. Its last attacks, as far as they can be made from a few numbers, are not made by
the process that reads the photo but by the device that trains, in the same order (`on_device`). The numbers come from
the same draws as the edits of a CPU, so the distributions are the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt

from isc.photos.decode import Pixels
from isc.train.augment.attack import Attack
from isc.train.augment.geometry import QuarterTurn, Tilt, Turn
from isc.train.augment.pixels import EnhanceEdges, SwapChannels

KERNEL = 25  # largest side of a kernel: that of the strongest Gaussian blur
NUMBERS = KERNEL**2  # room for the numbers of any edit
POINTWISE = (A.RandomGamma, A.Posterize, A.Solarize, A.InvertImg)
LINEAR = (A.ToGray, A.ToSepia, SwapChannels)
KERNELS = (A.GaussianBlur, A.MotionBlur, A.Sharpen, A.Emboss, EnhanceEdges)
WARPS = (A.HorizontalFlip, A.VerticalFlip, Turn, QuarterTurn, Tilt)
DEFERRABLE = (*POINTWISE, *LINEAR, *KERNELS, *WARPS, A.Blur, A.ColorJitter, A.GaussNoise, A.SaltAndPepper)
KEPT = (A.MedianBlur,)  # subclasses of those that are not deferred
RAMP = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
GRAY = (0.299, 0.587, 0.114)


class Kind(IntEnum):
    """The kind of an edit, and its numbers."""

    warp = 1  # 3 × 3 from the pixels of the result to those of the view; 1 for a reflected border, else its colour
    kernel = 2  # KERNEL × KERNEL, correlated with a border that is reflected
    linear = 3  # 3 × 3 on the colours of a pixel
    table = 4  # 256 values
    jitter = 5  # factors of brightness, contrast, saturation and hue, and their order
    noise = 6  # standard deviation in grey levels
    specks = 7  # share of the pixels, and the part of these that is white


@dataclass(frozen=True)
class Edit:
    """An edit that is still to be made: its kind and at most NUMBERS numbers."""

    kind: Kind
    numbers: npt.NDArray[np.float32]


def can_wait(attack: A.BasicTransform) -> bool:
    """Return whether `edit_of` has a form for this attack."""
    return isinstance(attack, DEFERRABLE) and not isinstance(attack, KEPT)


def edit_of(attack: A.BasicTransform, picture: Pixels, rng: np.random.Generator) -> Edit:
    """Draw the numbers of an attack that `can_wait`, as it would be drawn for a `picture` [S, S, 3]."""
    attack.set_random_state(rng, random.Random(int(rng.integers(1 << 32))))
    if isinstance(attack, WARPS):
        return _warp(attack, picture)
    for kinds, kind, numbers in FORMS:
        if isinstance(attack, kinds):
            return Edit(kind, np.asarray(numbers(attack), np.float32).ravel())
    raise TypeError(f"{type(attack).__name__} cannot wait")


def _table(attack: A.BasicTransform) -> npt.NDArray[np.uint8]:
    """Return what an attack makes of each grey level; what it does to a pixel depends on that pixel alone."""
    return np.asarray(attack(image=RAMP)["image"][..., 0], np.uint8)


def _jitter(attack: A.ColorJitter) -> list[float]:
    drawn = attack.get_params()
    return [*(drawn[name] for name in ("brightness", "contrast", "saturation", "hue")), *drawn["order"]]


def _deviation(attack: A.GaussNoise) -> list[float]:
    return [255 * attack.py_random.uniform(*attack.std_range)]


def _shares(attack: A.SaltAndPepper) -> list[float]:
    return [attack.py_random.uniform(*attack.amount), attack.py_random.uniform(*attack.salt_vs_pepper)]


def _own_draws(attack: Attack) -> np.random.Generator:
    """Return the generator that an attack of ours edits with."""
    return np.random.default_rng(attack.get_params()["seed"])


def _colours(attack: A.BasicTransform) -> npt.NDArray[np.float64]:
    if isinstance(attack, SwapChannels):
        return np.eye(3)[list(attack.order(_own_draws(attack)))]
    return np.tile(GRAY, (3, 1)) if isinstance(attack, A.ToGray) else attack.sepia_transformation_matrix


def _kernel(attack: A.BasicTransform) -> npt.NDArray[np.floating[Any]]:
    if isinstance(attack, A.GaussianBlur):
        one = np.ravel(attack.get_params_dependent_on_data({}, {})["kernel"])
        return np.outer(one, one)
    if isinstance(attack, EnhanceEdges):
        return attack.kernel(_own_draws(attack))
    drawn = attack.get_params()
    if isinstance(attack, A.Sharpen):
        return np.asarray(drawn["sharpening_matrix"])
    if isinstance(attack, A.Emboss):
        return np.asarray(drawn["emboss_matrix"])
    if isinstance(attack, A.MotionBlur):
        return np.asarray(drawn["kernel"])
    side = drawn["kernel"]
    return np.full((side, side), 1 / side**2)


def _centred(kernel: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Return the kernel in the middle of KERNEL × KERNEL zeros."""
    edge = (KERNEL - len(kernel)) // 2
    return np.pad(kernel, edge)


def _warp(attack: A.BasicTransform, picture: Pixels) -> Edit:
    """Return the edit of an attack that moves the picture."""
    size = picture.shape[0]
    reflected, colour = False, (0, 0, 0)
    if isinstance(attack, Turn):
        matrix, mode, colour = attack.drawn(picture, _own_draws(attack))
        back, reflected = np.linalg.inv(np.vstack([matrix, [0, 0, 1]])), mode != cv2.BORDER_CONSTANT
    elif isinstance(attack, Tilt):
        forth, colour = attack.drawn(picture, _own_draws(attack))
        back = np.linalg.inv(forth)
    else:
        back = _flipped(attack, size - 1)
    return Edit(Kind.warp, np.array([*back.ravel(), float(reflected), *colour], np.float32))


def _flipped(attack: A.BasicTransform, end: int) -> npt.NDArray[np.float64]:
    """Return the map back of a mirroring or quarter turns, of pixels 0…end."""
    across = np.array([[-1, 0, end], [0, 1, 0], [0, 0, 1]], float)
    down = np.array([[1, 0, 0], [0, -1, end], [0, 0, 1]], float)
    if not isinstance(attack, QuarterTurn):
        return across if isinstance(attack, A.HorizontalFlip) else down
    quarter = np.array(
        [[0, -1, end], [1, 0, 0], [0, 0, 1]], float
    )  # the result at (x, y) shows the view at (end − y, x)
    return np.linalg.matrix_power(quarter, attack.quarters(_own_draws(attack)))


# the kind of each attack that can wait, and how its numbers are drawn
FORMS: tuple[tuple[tuple[type, ...], Kind, Callable[[Any], Any]], ...] = (
    (POINTWISE, Kind.table, _table),
    (LINEAR, Kind.linear, _colours),
    ((A.ColorJitter,), Kind.jitter, _jitter),
    ((A.GaussNoise,), Kind.noise, _deviation),
    ((A.SaltAndPepper,), Kind.specks, _shares),
    ((*KERNELS, A.Blur), Kind.kernel, lambda attack: _centred(_kernel(attack))),
)
