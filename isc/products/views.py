"""Training views: photos as other people would take them, and shop pictures as if they lay in front of a camera."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from isc.photos.decode import Pixels

Floats = npt.NDArray[np.float32]
WHITE = 245  # levels from which on a shop picture's ground counts as white


def photo_view(pixels: Pixels, size: int, rng: np.random.Generator, *, least: float = 0.3) -> Floats:
    """Return a view [S, S, 3] in 0…255 of a photo: a turned crop of `least` of its area or more, other light, a blur.

    At times a rectangle is covered, as by a hand.
    """
    height, width = pixels.shape[:2]
    area, aspect = rng.uniform(least, 1), math.exp(rng.uniform(-0.25, 0.25))
    high, wide = min(1, math.sqrt(area / aspect)), min(1, math.sqrt(area * aspect))
    middle = np.array([rng.uniform(wide / 2, 1 - wide / 2) * width, rng.uniform(high / 2, 1 - high / 2) * height])
    angle = math.radians(rng.uniform(-25, 25))
    scale = np.array([size / (wide * width) * (1 if rng.random() < 0.5 else -1), size / (high * height)])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = scale[:, None] * turn
    view = cv2.warpAffine(
        pixels, np.column_stack([matrix, size / 2 - matrix @ middle]), (size, size), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    ).astype(np.float32)  # fmt: skip
    return np.clip(_covered(_blurred(_other_light(view, rng), rng), rng), 0, 255)


def shop_view(pixels: Pixels, grounds: Sequence[Pixels], size: int, rng: np.random.Generator) -> Floats:
    """Return a view [S, S, 3] in 0…255 of a shop picture: seven times in ten in front of a blurred photo, turned."""
    if grounds and rng.random() < 0.7:
        pixels = _in_front(pixels, grounds[int(rng.integers(len(grounds)))], rng)
    return photo_view(pixels, size, rng, least=0.5)


def _in_front(pixels: Pixels, ground: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the picture without its white ground in front of a blurred photo, 35…100 % as large."""
    height, width = pixels.shape[:2]
    behind = cv2.GaussianBlur(cv2.resize(ground, (width, height)), (0, 0), rng.uniform(0.5, 6))
    scale = rng.uniform(0.35, 1)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-30, 30), scale)
    matrix[:, 2] += rng.uniform(-0.5, 0.5, 2) * (1 - scale) * np.array([width, height])
    shape = (pixels.min(axis=2) < WHITE).astype(np.float32)
    there = cv2.GaussianBlur(cv2.warpAffine(shape, matrix, (width, height)), (0, 0), 0.7)[..., None]
    front = cv2.warpAffine(pixels, matrix, (width, height))
    return np.asarray(front * there + behind * (1 - there), np.uint8)


def _other_light(view: Floats, rng: np.random.Generator) -> Floats:
    """Return the view with another brightness, contrast, saturation and cast."""
    view = view * rng.uniform(0.7, 1.35)
    mean = view.mean()
    view = (view - mean) * rng.uniform(0.7, 1.3) + mean
    grey = view.mean(axis=2, keepdims=True)
    return np.asarray((grey + (view - grey) * rng.uniform(0.7, 1.3)) * rng.uniform(0.92, 1.08, 3), np.float32)


def _blurred(view: Floats, rng: np.random.Generator) -> Floats:
    if rng.random() >= 0.25:
        return view
    return np.asarray(cv2.GaussianBlur(view, (0, 0), rng.uniform(0.4, 2)), np.float32)


def _covered(view: Floats, rng: np.random.Generator) -> Floats:
    """Cover a rectangle of an eighth to a half of either side with one colour, one time in four."""
    if rng.random() < 0.25:
        size = len(view)
        high, wide = rng.integers(size // 8, size // 2, 2)
        top, left = rng.integers(0, size - high), rng.integers(0, size - wide)
        view[top : top + high, left : left + wide] = rng.uniform(0, 255, 3)
    return view
