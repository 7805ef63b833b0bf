"""What an edit returns, and the few moves that all of them are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from isc.photos.decode import Pixels

Matrix = npt.NDArray[np.float64]
Colour = tuple[int, int, int]
Other = Callable[[], Pixels]
Param = float | int | str

NAMED_COLOURS: dict[str, Colour] = {"black": (0, 0, 0), "white": (255, 255, 255)}


@dataclass(frozen=True)
class Edited:
    """An edited picture, uint8 [H, W, 3] RGB, and how it came about.

    `matrix` [3, 3] maps homogeneous pixel coordinates (x, y, 1) of the input to those of the output, pixel centres
    being whole numbers; None where nothing moved.
    """

    pixels: Pixels
    params: Mapping[str, Param] = field(default_factory=dict)
    matrix: Matrix | None = None


EditFunction = Callable[[Pixels, np.random.Generator, Other], Edited]


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number in low…high with at most three decimals, so that what is written down is what was done."""
    return round(float(rng.uniform(low, high)), 3)


def pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def any_colour(rng: np.random.Generator) -> Colour:
    """Black, white or a grey in two draws of five, else anything."""
    if rng.random() < 0.4:
        grey = (0, 0, 255, 255, int(rng.integers(256)))[int(rng.integers(5))]
        return grey, grey, grey
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def hex_of(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def shift(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def stretch(x: float, y: float) -> Matrix:
    """Scaling about the picture's corner, which lies half a pixel outside the centre of pixel (0, 0)."""
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]], dtype=np.float64)


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """The picture at this size: area-averaged where it shrinks, bilinear where it grows."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = width < pixels.shape[1] or height < pixels.shape[0]
    return as_pixels(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def resize_matrix(pixels: Pixels, width: int, height: int) -> Matrix:
    """Where `resized` moves the pixels."""
    return stretch(width / pixels.shape[1], height / pixels.shape[0])


def warped(pixels: Pixels, matrix: Matrix, *, canvas: Pixels) -> Pixels:
    """The picture moved by `matrix` and laid over `canvas`, with soft edges."""
    size = (canvas.shape[1], canvas.shape[0])
    moved = cv2.warpPerspective(pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = np.full(pixels.shape[:2], 255, np.uint8)
    alpha = cv2.warpPerspective(inside, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return blended(canvas, as_pixels(moved), np.asarray(alpha, np.float32) / np.float32(255))


def blended(below: Pixels, above: Pixels, alpha: npt.NDArray[np.float32] | float) -> Pixels:
    """`above` over `below`; `alpha` 0…1, one number or [H, W]."""
    weight = np.asarray(alpha, dtype=np.float32)[..., None]
    return as_pixels(below + (above.astype(np.float32) - below) * weight)


def stamped(pixels: Pixels, layer: Pixels, *, x: int, y: int) -> Pixels:
    """The picture with `layer` [h, w, 4] RGBA on it, its upper left corner at (x, y); what overhangs is cut off."""
    result = pixels.copy()
    left, top = max(0, x), max(0, y)
    right, bottom = min(pixels.shape[1], x + layer.shape[1]), min(pixels.shape[0], y + layer.shape[0])
    if left < right and top < bottom:
        part = layer[top - y : bottom - y, left - x : right - x]
        alpha = part[..., 3].astype(np.float32) / np.float32(255)
        result[top:bottom, left:right] = blended(pixels[top:bottom, left:right], part[..., :3], alpha)
    return result


def pasted(canvas: Pixels, pixels: Pixels, *, x: int, y: int) -> Pixels:
    """The canvas with the picture at (x, y), which must lie inside."""
    result = canvas.copy()
    result[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return result


def flat(width: int, height: int, colour: Colour) -> Pixels:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def blurred(pixels: Pixels, sigma: float) -> Pixels:
    return as_pixels(cv2.GaussianBlur(pixels, (0, 0), sigma))


def unit(pixels: Pixels) -> float:
    """The size of a pixel of a 320-pixel picture in this one, at least 0.25: lengths in the edits are given in it."""
    return float(max(0.25, pixels.shape[0] / 320, pixels.shape[1] / 320))


def size_within(pixels: Pixels, width: float, height: float) -> tuple[int, int]:
    """The largest (width, height) of the picture's proportions inside this frame, at least 4 pixels a side."""
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    return max(4, math.floor(pixels.shape[1] * scale)), max(4, math.floor(pixels.shape[0] * scale))


def as_pixels(values: npt.NDArray[np.generic]) -> Pixels:
    """Rounded and clipped to uint8."""
    if values.dtype == np.uint8:
        return np.asarray(values, dtype=np.uint8)
    return np.asarray(np.rint(np.clip(values, 0, 255)), dtype=np.uint8)
