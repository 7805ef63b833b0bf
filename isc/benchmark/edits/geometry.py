"""Edits that move the picture; their matrix maps each pixel to its new position."""

from __future__ import annotations

import math

import cv2
import numpy as np

from isc.benchmark.edits.values import (
    NAMED_COLOURS,
    Edited,
    EditFunction,
    Matrix,
    Other,
    Param,
    any_colour,
    blurred,
    flat,
    hex_of,
    pick,
    resize_matrix,
    resized,
    shift,
    uniform,
    unit,
    warped,
)
from isc.photos.decode import Pixels


def crop(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Crop to 15–60 % of the area, anywhere, with the aspect ratio changed by a factor of up to 2.2."""
    height, width = pixels.shape[:2]
    area = uniform(rng, 0.15, 0.6)
    limit = math.log(min(2.2, 1 / area))
    ratio = math.exp(rng.uniform(-limit, limit))
    w = min(width, max(8, round(width * math.sqrt(area * ratio))))
    h = min(height, max(8, round(height * math.sqrt(area / ratio))))
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    percent = round(100 * w * h / (width * height), 1)
    return Edited(pixels[y : y + h, x : x + w].copy(), {"area_percent": percent}, shift(-x, -y))


def rotate(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Rotate by 5–45° either way (1 time in 4: by up to 175°), anticlockwise positive.

    The corners are black, white or a blurred copy; the canvas keeps its size or grows to hold the whole picture.
    """
    height, width = pixels.shape[:2]
    angle = uniform(rng, 5, 175 if rng.random() < 0.25 else 45) * (1 if rng.random() < 0.5 else -1)
    corners, canvas = pick(rng, ("black", "white", "blurred")), pick(rng, ("kept", "grown"))
    radians = math.radians(angle)
    cosine, sine = math.cos(radians), math.sin(radians)
    w, h = width, height
    if canvas == "grown":
        w = math.ceil(abs(width * cosine) + abs(height * sine))
        h = math.ceil(abs(width * sine) + abs(height * cosine))
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    matrix = shift((w - 1) / 2, (h - 1) / 2) @ turn @ shift(-(width - 1) / 2, -(height - 1) / 2)
    params: dict[str, Param] = {"angle_degrees": angle, "corners": corners, "canvas": canvas}
    return Edited(warped(pixels, matrix, canvas=_backdrop(pixels, w, h, corners)), params, matrix)


def _backdrop(pixels: Pixels, width: int, height: int, kind: str) -> Pixels:
    """Return a canvas of one colour, or of the picture blurred beyond recognition."""
    if kind in NAMED_COLOURS:
        return flat(width, height, NAMED_COLOURS[kind])
    return blurred(resized(pixels, width, height), 12 * unit(pixels))


def quarter_turn(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Rotate by 90°, 180° or 270° anticlockwise."""
    turns = int(rng.integers(1, 4))
    height, width = pixels.shape[:2]
    matrix: Matrix = np.eye(3)
    for turn in range(turns):
        side = (width, height)[turn % 2]
        matrix = np.array([[0.0, 1, 0], [-1, 0, side - 1], [0, 0, 1]]) @ matrix
    return Edited(np.ascontiguousarray(np.rot90(pixels, turns)), {"angle_degrees": 90 * turns}, matrix)


def flip_horizontal(pixels: Pixels, _rng: np.random.Generator, _other: Other) -> Edited:
    """Swap left and right."""
    matrix = np.array([[-1.0, 0, pixels.shape[1] - 1], [0, 1, 0], [0, 0, 1]])
    return Edited(pixels[:, ::-1].copy(), {}, matrix)


def flip_vertical(pixels: Pixels, _rng: np.random.Generator, _other: Other) -> Edited:
    """Swap top and bottom."""
    matrix = np.array([[1.0, 0, 0], [0, -1, pixels.shape[0] - 1], [0, 0, 1]])
    return Edited(pixels[::-1].copy(), {}, matrix)


def perspective(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Move each corner inwards by 0–30 % of both sides, at least one corner by at least 12 %."""
    height, width = pixels.shape[:2]
    inwards = rng.uniform(0, 0.3, (4, 2))
    inwards[int(rng.integers(4))] = rng.uniform(0.12, 0.3, 2)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float64)
    moved = corners + inwards * np.where(corners > 0, -1, 1)
    size = np.array([width - 1, height - 1])
    raw = cv2.getPerspectiveTransform((corners * size).astype(np.float32), (moved * size).astype(np.float32))
    matrix = np.asarray(raw, dtype=np.float64)
    corner = pick(rng, ("black", "white", "blurred"))
    params: dict[str, Param] = {"depth_percent": round(100 * float(inwards.max()), 1), "corners": corner}
    return Edited(warped(pixels, matrix, canvas=_backdrop(pixels, width, height, corner)), params, matrix)


def squeeze(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Squeeze one axis to 40–75 % of its length."""
    height, width = pixels.shape[:2]
    factor, axis = uniform(rng, 0.4, 0.75), pick(rng, ("width", "height"))
    w = max(8, round(width * factor)) if axis == "width" else width
    h = max(8, round(height * factor)) if axis == "height" else height
    params: dict[str, Param] = {"axis": axis, "length_percent": round(100 * factor, 1)}
    return Edited(resized(pixels, w, h), params, resize_matrix(pixels, w, h))


def pad(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Add bars of 5–45 % of the side in any colour: left and right, above and below, or on all four sides."""
    height, width = pixels.shape[:2]
    where = pick(rng, ("left and right", "above and below", "all round"))
    left, top, right, bottom = (float(value) for value in rng.uniform(0.05, 0.45, 4))
    x, x2 = (0, 0) if where == "above and below" else (math.ceil(left * width), math.ceil(right * width))
    y, y2 = (0, 0) if where == "left and right" else (math.ceil(top * height), math.ceil(bottom * height))
    colour = any_colour(rng)
    canvas = flat(width + x + x2, height + y + y2, colour)
    result = canvas.copy()
    result[y : y + height, x : x + width] = pixels
    return Edited(result, {"where": where, "colour": hex_of(colour)}, shift(x, y))


GEOMETRY: dict[str, EditFunction] = {
    "crop": crop,
    "rotate": rotate,
    "quarter_turn": quarter_turn,
    "flip_horizontal": flip_horizontal,
    "flip_vertical": flip_vertical,
    "perspective": perspective,
    "squeeze": squeeze,
    "pad": pad,
}
