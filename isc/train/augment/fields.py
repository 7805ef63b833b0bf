"""Fields the size of a picture (noise, waves, gradients, masks), and edits by them. Fast: no loop over pixels."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from isc.photos.decode import Pixels
from isc.train.augment.attack import Colour, blend

Field = npt.NDArray[np.float32]  # one number per pixel [H, W]
NOISE = 512  # side of the noise that windows are cut from


@lru_cache(maxsize=1)
def _noise() -> Field:
    return np.random.default_rng(0).standard_normal((NOISE, NOISE), np.float32)


def grain(shape: tuple[int, ...], rng: np.random.Generator, *, size: float = 1.0) -> Field:
    """Return normal noise [H, W] of standard deviation 1, a window of a fixed field, with specks `size` pixels wide."""
    height, width = (math.ceil(side / size) for side in shape[:2])
    top, left = rng.integers(0, NOISE, 2)
    part = _noise().take(np.arange(top, top + height), axis=0, mode="wrap")
    part = part.take(np.arange(left, left + width), axis=1, mode="wrap")
    return part if size == 1 else stretched(part, shape)


def smooth(shape: tuple[int, ...], rng: np.random.Generator, *, cells: int = 4) -> Field:
    """Return smooth random clouds in −1…1, about `cells` along each side."""
    return stretched(rng.uniform(-1, 1, (cells, cells)).astype(np.float32), shape)


def stretched(field: Field, shape: tuple[int, ...]) -> Field:
    """Resize the field [h, w] to the height and width of `shape`."""
    return np.asarray(cv2.resize(field, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def wave(shape: tuple[int, ...], period: float, angle: float, phase: float = 0.0) -> Field:
    """Return a cosine wave −1…1 along the direction `angle` (radians); the period is in pixels."""
    turns = 2 * math.pi / period
    across = turns * math.cos(angle) * np.arange(shape[1], dtype=np.float32) + np.float32(phase)
    down = turns * math.sin(angle) * np.arange(shape[0], dtype=np.float32)
    return np.outer(np.cos(down), np.cos(across)) - np.outer(np.sin(down), np.sin(across))


def linear_gradient(shape: tuple[int, ...], angle: float) -> Field:
    """Return a linear gradient 0…1 across the picture, along the direction `angle` (radians)."""
    across = math.cos(angle) * np.linspace(-1, 1, shape[1], dtype=np.float32)
    down = math.sin(angle) * np.linspace(-1, 1, shape[0], dtype=np.float32)
    reach = abs(math.cos(angle)) + abs(math.sin(angle))
    return np.asarray(np.add.outer(down, across) / np.float32(2 * reach) + np.float32(0.5), np.float32)


def distance(shape: tuple[int, ...], y: float, x: float) -> Field:
    """Return each pixel's distance from (y, x), given in shares of height and width; 1 is half of the side."""
    across = np.linspace(0, 2, shape[1], dtype=np.float32) - np.float32(2 * x)
    down = np.linspace(0, 2, shape[0], dtype=np.float32) - np.float32(2 * y)
    return np.sqrt(np.add.outer(down * down, across * across), dtype=np.float32)


def mixed(below: Pixels, above: Pixels, share: Field) -> Pixels:
    """Return share · above + (1 − share) · below, with a share 0…1 per pixel."""
    return np.asarray(cv2.blendLinear(above, below, share, 1 - share), np.uint8)


def lit(picture: Pixels, factor: Field) -> Pixels:
    """Multiply each pixel by its factor."""
    return np.asarray(cv2.multiply(picture, cv2.merge([factor] * 3), dtype=cv2.CV_8U), np.uint8)


def added(picture: Pixels, field: Field | list[Field]) -> Pixels:
    """Add one field, or one field per channel, to the picture."""
    fields = field if isinstance(field, list) else [field] * 3
    return np.asarray(cv2.add(picture, cv2.merge(fields), dtype=cv2.CV_8U), np.uint8)


def tinted(
    picture: Pixels, factors: tuple[float, float, float], plus: tuple[float, float, float] = (0, 0, 0)
) -> Pixels:
    """Multiply each channel by its factor, and add its number from `plus`."""
    steps = np.arange(256, dtype=np.float32)[:, None] * np.array(factors, np.float32) + np.array(plus, np.float32)
    table = np.clip(steps + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(picture, table[None]), np.uint8)


def gray_of(picture: Pixels) -> Pixels:
    """Return the brightness [H, W]."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)


def three(gray: npt.NDArray[np.uint8]) -> Pixels:
    """Repeat a gray picture [H, W] into [H, W, 3]."""
    return np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), np.uint8)


def ramp_between(dark: Colour, bright: Colour, share: Field) -> Pixels:
    """Mix two colours by the share 0…1 of each pixel; 0 is `dark`."""
    channels = [np.float32(a) + share * np.float32(b - a) for a, b in zip(dark, bright, strict=True)]
    return np.asarray(cv2.merge(channels), np.float32).clip(0, 255).astype(np.uint8)


def rounded(height: int, width: int, radius: int) -> Field:
    """Return a mask: 1 inside a rectangle with round corners, 0 outside."""
    mask = np.zeros((height, width), np.uint8)
    radius = max(0, min(radius, (height - 1) // 2, (width - 1) // 2))
    cv2.rectangle(mask, (radius, 0), (width - 1 - radius, height - 1), 255, -1)
    cv2.rectangle(mask, (0, radius), (width - 1, height - 1 - radius), 255, -1)
    for x in (radius, width - 1 - radius):
        for y in (radius, height - 1 - radius):
            cv2.circle(mask, (x, y), radius, 255, -1, cv2.LINE_AA)
    return np.asarray(mask, np.float32) / np.float32(255)


def put_masked(ground: Pixels, patch: Pixels, mask: Field, *, top: int, left: int) -> None:
    """Lay the patch on the ground through its mask, in place; parts outside the ground are cut off."""
    y, x = max(0, top), max(0, left)
    place = ground[y : max(y, top + patch.shape[0]), x : max(x, left + patch.shape[1])]
    if place.size:
        rows, columns = slice(y - top, y - top + place.shape[0]), slice(x - left, x - left + place.shape[1])
        part, share = np.ascontiguousarray(patch[rows, columns]), np.ascontiguousarray(mask[rows, columns])
        place[:] = mixed(np.ascontiguousarray(place), part, share)


def partly(picture: Pixels, edited: Pixels, share: float) -> Pixels:
    """Return the edited picture, or, at a share below 1, its mix with the original."""
    return edited if share >= 1 else blend(picture, edited, share)
