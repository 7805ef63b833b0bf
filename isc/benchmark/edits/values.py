"""The result type of an edit, and the basic operations that the edits share."""

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
    """An edited picture, uint8 [H, W, 3] RGB, with the parameters of its edit.

    `matrix` [3, 3] maps homogeneous pixel coordinates (x, y, 1) of the input to those of the output; pixel centres are
    whole numbers. None means that no pixel moved.
    """

    pixels: Pixels
    params: Mapping[str, Param] = field(default_factory=dict)
    matrix: Matrix | None = None


EditFunction = Callable[[Pixels, np.random.Generator, Other], Edited]


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number in low…high, rounded to three decimals, so that the record is exactly the value used."""
    return round(float(rng.uniform(low, high)), 3)


def pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def any_colour(rng: np.random.Generator) -> Colour:
    """Draw black, white or a grey with probability 0.4, else any colour."""
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
    """Return the scaling about the picture's corner, half a pixel outside the centre of pixel (0, 0)."""
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]], dtype=np.float64)


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """Resize the picture to this size: area-averaged if a side shrinks, else bilinear."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = width < pixels.shape[1] or height < pixels.shape[0]
    return as_pixels(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def resize_matrix(pixels: Pixels, width: int, height: int) -> Matrix:
    """Return the matrix [3, 3] by which `resized` moves the pixels."""
    return stretch(width / pixels.shape[1], height / pixels.shape[0])


def warped(pixels: Pixels, matrix: Matrix, *, canvas: Pixels) -> Pixels:
    """Move the picture by `matrix` and lay it over `canvas`, with soft edges."""
    size = (canvas.shape[1], canvas.shape[0])
    moved = cv2.warpPerspective(pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = np.full(pixels.shape[:2], 255, np.uint8)
    alpha = cv2.warpPerspective(inside, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return blended(canvas, as_pixels(moved), np.asarray(alpha, np.float32) / np.float32(255))


def blended(below: Pixels, above: Pixels, alpha: npt.NDArray[np.float32] | float) -> Pixels:
    """Blend `above` over `below`; `alpha` 0…1 is one number or [H, W]."""
    weight = np.asarray(alpha, dtype=np.float32)[..., None]
    return as_pixels(below + (above.astype(np.float32) - below) * weight)


def stamped(pixels: Pixels, layer: Pixels, *, x: int, y: int) -> Pixels:
    """Lay `layer` [h, w, 4] RGBA on the picture, its upper left corner at (x, y); parts outside are cut off."""
    result = pixels.copy()
    left, top = max(0, x), max(0, y)
    right, bottom = min(pixels.shape[1], x + layer.shape[1]), min(pixels.shape[0], y + layer.shape[0])
    if left < right and top < bottom:
        part = layer[top - y : bottom - y, left - x : right - x]
        alpha = part[..., 3].astype(np.float32) / np.float32(255)
        result[top:bottom, left:right] = blended(pixels[top:bottom, left:right], part[..., :3], alpha)
    return result


def pasted(canvas: Pixels, pixels: Pixels, *, x: int, y: int) -> Pixels:
    """Return the canvas with the picture at (x, y); the picture must lie fully inside."""
    result = canvas.copy()
    result[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return result


def flat(width: int, height: int, colour: Colour) -> Pixels:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def blurred(pixels: Pixels, sigma: float) -> Pixels:
    return as_pixels(cv2.GaussianBlur(pixels, (0, 0), sigma))


def unit(pixels: Pixels) -> float:
    """Return the unit of lengths in the edits: the longer side / 320 in pixels, at least 0.25."""
    return float(max(0.25, pixels.shape[0] / 320, pixels.shape[1] / 320))


def size_within(pixels: Pixels, width: float, height: float) -> tuple[int, int]:
    """Return the largest (width, height) of the picture's proportions in this frame, at least 4 pixels per side."""
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    return max(4, math.floor(pixels.shape[1] * scale)), max(4, math.floor(pixels.shape[0] * scale))


def as_pixels(values: npt.NDArray[np.generic]) -> Pixels:
    """Round and clip the values to uint8."""
    if values.dtype == np.uint8:
        return np.asarray(values, dtype=np.uint8)
    return np.asarray(np.rint(np.clip(values, 0, 255)), dtype=np.uint8)
