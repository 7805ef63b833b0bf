"""Edits of colour, sharpness and compression; pixels stay in place, except for `shuffle_blocks` and `downscale`."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from isc.benchmark.edits.values import (
    Edited,
    EditFunction,
    Other,
    Param,
    any_colour,
    as_pixels,
    blended,
    blurred,
    flat,
    hex_of,
    pick,
    resize_matrix,
    resized,
    uniform,
    unit,
)
from isc.photos.decode import Pixels, encode_jpeg

Luma = npt.NDArray[np.float32]

DUOTONES = {  # the colours of black and of white
    "sepia": ((38, 22, 8), (255, 236, 200)),
    "blue": ((10, 12, 70), (200, 240, 255)),
    "magenta": ((60, 0, 70), (255, 220, 120)),
    "green": ((0, 35, 25), (225, 255, 190)),
    "red": ((50, 0, 0), (255, 215, 200)),
    "night": ((20, 0, 60), (80, 255, 220)),
}
KERNELS = {
    "sharpen": ((-1, -1, -1), (-1, 9, -1), (-1, -1, -1)),
    "edge enhance": ((-2, -2, -2), (-2, 17, -2), (-2, -2, -2)),
    "emboss": ((-2, -1, 0), (-1, 1, 1), (0, 1, 2)),
}


def luma(pixels: Pixels) -> Luma:
    """Return the brightness [H, W], 0…255."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.float32)


def jitter(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Change one to four of brightness (× 0.4–1.7), contrast (× 0.4–1.9), saturation (× 0–3) and hue (± 20–90°)."""
    chosen = rng.random(4) < 0.5
    chosen[int(rng.integers(4))] = True
    brightness = uniform(rng, 1.25, 1.7) if rng.random() < 0.5 else uniform(rng, 0.4, 0.75)
    contrast = uniform(rng, 1.3, 1.9) if rng.random() < 0.5 else uniform(rng, 0.4, 0.7)
    saturation = uniform(rng, 1.6, 3) if rng.random() < 0.5 else uniform(rng, 0, 0.5)
    hue = int(rng.integers(20, 91)) * (1 if rng.random() < 0.5 else -1)
    values, params = pixels, dict[str, Param]()
    if chosen[3]:
        values, params["hue_degrees"] = _turn_hue(values, hue), hue
    if chosen[2]:
        grey = np.repeat(luma(values)[..., None], 3, axis=2)
        values, params["saturation"] = as_pixels(grey + (values - grey) * np.float32(saturation)), saturation
    if chosen[1]:
        mean = float(luma(values).mean())
        values, params["contrast"] = as_pixels(mean + (values.astype(np.float32) - mean) * contrast), contrast
    if chosen[0]:
        values, params["brightness"] = as_pixels(values.astype(np.float32) * brightness), brightness
    return Edited(values, dict(reversed(params.items())))


def _turn_hue(pixels: Pixels, degrees: int) -> Pixels:
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + degrees // 2) % 180
    return as_pixels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def grayscale(pixels: Pixels, _rng: np.random.Generator, _other: Other) -> Edited:
    """Remove the colour."""
    return Edited(np.repeat(as_pixels(luma(pixels))[..., None], 3, axis=2))


def duotone(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Map brightness to a ramp between two colours, such as sepia, at 60–100 % strength."""
    name, strength = pick(rng, tuple(DUOTONES)), uniform(rng, 0.6, 1)
    dark, light = (np.array(colour, np.float32) for colour in DUOTONES[name])
    toned = as_pixels(dark + (light - dark) * luma(pixels)[..., None] / 255)
    return Edited(blended(pixels, toned, strength), {"tone": name, "strength_percent": round(100 * strength, 1)})


def invert(pixels: Pixels, _rng: np.random.Generator, _other: Other) -> Edited:
    """Invert all levels, as in a photographic negative."""
    return Edited(255 - pixels)


def posterise(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Reduce each channel to 2–6 levels."""
    levels = int(rng.integers(2, 7))
    steps = np.floor(np.arange(256) * levels / 256) * 255 / (levels - 1)
    return Edited(as_pixels(steps)[pixels], {"levels": levels})


def blur(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Apply a Gaussian blur of σ 1–4 pixels for a 320-pixel picture, in proportion for others, at least 0.5 pixels."""
    sigma = round(max(0.5, uniform(rng, 1, 4) * unit(pixels)), 3)
    return Edited(blurred(pixels, sigma), {"sigma_px": sigma})


def motion_blur(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Blur along a line at any angle, 8–24 pixels for a 320-pixel picture, in proportion for others, at least 3."""
    length, angle = max(3, round(uniform(rng, 8, 24) * unit(pixels))), uniform(rng, 0, 180)
    side = length | 1
    level = np.zeros((side, side), np.float32)
    level[side // 2] = 1
    turn = cv2.getRotationMatrix2D((side // 2, side // 2), angle, 1.0)
    kernel = np.asarray(cv2.warpAffine(level, turn, (side, side)))
    result = as_pixels(cv2.filter2D(pixels, -1, kernel / kernel.sum()))
    return Edited(result, {"length_px": length, "angle_degrees": angle})


def noise(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Add Gaussian noise of σ 12–45 levels, grey or coloured, or turn 2–12 % of the pixels black or white."""
    height, width = pixels.shape[:2]
    kind = pick(rng, ("grey", "colour", "salt and pepper"))
    if kind == "salt and pepper":
        share = uniform(rng, 0.02, 0.12)
        chance = rng.random((height, width))
        result = pixels.copy()
        result[chance < share] = 0
        result[chance < share / 2] = 255
        return Edited(result, {"kind": kind, "amount": round(100 * share, 1)})
    sigma = uniform(rng, 12, 45)
    grain = rng.normal(0, sigma, (height, width, 1 if kind == "grey" else 3)).astype(np.float32)
    return Edited(as_pixels(pixels + grain), {"kind": kind, "amount": sigma})


def pixelise(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Replace the picture by cells of one colour, 20–56 along the longer side."""
    height, width = pixels.shape[:2]
    cells = min(int(rng.integers(20, 57)), max(height, width) // 2)
    cell = max(height, width) / cells
    small = cv2.resize(
        pixels, (max(2, round(width / cell)), max(2, round(height / cell))), interpolation=cv2.INTER_AREA
    )
    return Edited(as_pixels(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)), {"cells": cells})


def sharpen(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Apply a 3 × 3 filter at 40–100 % strength: sharpen, edge enhance or emboss."""
    kind, strength = pick(rng, tuple(KERNELS)), uniform(rng, 0.4, 1)
    filtered = as_pixels(cv2.filter2D(pixels, -1, np.array(KERNELS[kind], np.float32)))
    return Edited(blended(pixels, filtered, strength), {"kind": kind, "strength_percent": round(100 * strength, 1)})


def shuffle_blocks(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Cut the picture into 2–4 × 2–4 equal blocks and move 2 to all of them; a remainder at the edges stays."""
    rows, columns = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    h, w = pixels.shape[0] // rows, pixels.shape[1] // columns
    number = int(rng.integers(2, rows * columns + 1))
    chosen = rng.permutation(rows * columns)[:number]
    result = pixels.copy()
    for to, come in zip(chosen, np.roll(chosen, 1), strict=True):
        (y, x), (y2, x2) = divmod(int(to), columns), divmod(int(come), columns)
        result[y * h : (y + 1) * h, x * w : (x + 1) * w] = pixels[y2 * h : (y2 + 1) * h, x2 * w : (x2 + 1) * w]
    return Edited(result, {"rows": rows, "columns": columns, "moved": number})


def fade(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Blend the picture with one colour at 20–60 %."""
    strength, colour = uniform(rng, 0.2, 0.6), any_colour(rng)
    result = blended(pixels, flat(pixels.shape[1], pixels.shape[0], colour), strength)
    return Edited(result, {"strength_percent": round(100 * strength, 1), "colour": hex_of(colour)})


def downscale(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Shrink to 20–50 % of the side, the shorter side to at least 16 pixels."""
    height, width = pixels.shape[:2]
    factor = max(uniform(rng, 0.2, 0.5), 16 / min(height, width))
    w, h = max(1, round(width * factor)), max(1, round(height * factor))
    return Edited(resized(pixels, w, h), {"side_percent": round(100 * factor, 1)}, resize_matrix(pixels, w, h))


def jpeg(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Compress as JPEG of quality 3–30."""
    quality = int(rng.integers(3, 31))
    return Edited(_decoded(encode_jpeg(pixels, quality=quality)), {"quality": quality})


def webp(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Compress as WebP of quality 3–30."""
    quality = int(rng.integers(3, 31))
    _, data = cv2.imencode(".webp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, quality])
    return Edited(_decoded(bytes(data)), {"quality": quality})


def _decoded(data: bytes) -> Pixels:
    picture = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    return as_pixels(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


DEGRADATION: dict[str, EditFunction] = {
    "jitter": jitter,
    "grayscale": grayscale,
    "duotone": duotone,
    "invert": invert,
    "posterise": posterise,
    "blur": blur,
    "motion_blur": motion_blur,
    "noise": noise,
    "pixelise": pixelise,
    "sharpen": sharpen,
    "shuffle_blocks": shuffle_blocks,
    "fade": fade,
    "downscale": downscale,
}
RECOMPRESSION: dict[str, EditFunction] = {"jpeg": jpeg, "webp": webp}
