"""Edits that compose the picture with photos, text, emoji, frames and screen elements."""

from __future__ import annotations

import math

import cv2
import numpy as np

from isc.benchmark.edits.drawing import FONTS, block, emoji, inked, lettering, phrase, scaled_layer
from isc.benchmark.edits.screens import screenshot
from isc.benchmark.edits.values import (
    Edited,
    EditFunction,
    Other,
    Param,
    any_colour,
    as_pixels,
    blended,
    flat,
    hex_of,
    pasted,
    pick,
    resize_matrix,
    resized,
    shift,
    size_within,
    stamped,
    uniform,
)
from isc.photos.decode import Pixels

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def overlay_on_photo(pixels: Pixels, rng: np.random.Generator, other: Other) -> Edited:
    """Lay the picture on another photo, over 30–75 % of one of its sides; 1 time in 4 at 50–90 % opacity."""
    canvas = other()
    side, opacity = uniform(rng, 0.3, 0.75), uniform(rng, 0.5, 0.9) if rng.random() < 0.25 else 1.0
    grow = max(1.0, min(1.5, 0.8 * max(pixels.shape) / (side * max(canvas.shape))))  # keeps the picture's detail
    canvas = resized(canvas, round(canvas.shape[1] * grow), round(canvas.shape[0] * grow))
    height, width = canvas.shape[:2]
    w, h = size_within(pixels, width * side, height * side)
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    small = blended(canvas[y : y + h, x : x + w], resized(pixels, w, h), opacity)
    params: dict[str, Param] = {"side_percent": round(100 * side, 1), "opacity_percent": round(100 * opacity, 1)}
    return Edited(pasted(canvas, small, x=x, y=y), params, shift(x, y) @ resize_matrix(pixels, w, h))


def photo_on_top(pixels: Pixels, rng: np.random.Generator, other: Other) -> Edited:
    """Lay another photo on 8–45 % of the picture's area; 1 time in 4 at 50–90 % opacity."""
    height, width = pixels.shape[:2]
    area, opacity = uniform(rng, 0.08, 0.45), uniform(rng, 0.5, 0.9) if rng.random() < 0.25 else 1.0
    above = other()
    shape = above.shape[1] / above.shape[0]
    w = min(width, max(4, round(math.sqrt(area * width * height * shape))))
    h = min(height, max(4, round(math.sqrt(area * width * height / shape))))
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    part = blended(pixels[y : y + h, x : x + w], resized(above, w, h), opacity)
    percent = round(100 * w * h / (width * height), 1)
    return Edited(pasted(pixels, part, x=x, y=y), {"area_percent": percent, "opacity_percent": round(100 * opacity, 1)})


def text(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Write 1–4 lines of up to 6–18 % of the height in one of 6 fonts and 4 styles; 1 time in 3 turned by up to 25°."""
    height, width = pixels.shape[:2]
    lines, font = [phrase(rng) for _ in range(int(rng.integers(1, 5)))], pick(rng, FONTS)
    line_height = uniform(rng, 0.06, 0.18) * height
    style, ink = pick(rng, ("plain", "outlined", "shadowed", "boxed")), any_colour(rng)
    paper = WHITE if sum(ink) < 384 else BLACK
    mask = block([lettering(line, font, 48) for line in lines], centred=rng.random() < 0.5)
    scale = min(line_height / 48, 0.96 * width / mask.shape[1], 0.96 * height / mask.shape[0])
    angle = uniform(rng, -25, 25) if rng.random() < 0.33 else 0.0
    layer = scaled_layer(inked(mask, ink, style=style, paper=paper), scale, angle)
    x = int(rng.integers(min(0, width - layer.shape[1]), max(0, width - layer.shape[1]) + 1))
    y = int(rng.integers(min(0, height - layer.shape[0]), max(0, height - layer.shape[0]) + 1))
    params: dict[str, Param] = {
        "lines": len(lines),
        "font": font,
        "style": style,
        "colour": hex_of(ink),
        "angle_degrees": angle,
    }
    return Edited(stamped(pixels, layer, x=x, y=y), params)


def meme_caption(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Add a white or black band with 1–3 lines of text above the picture, below it, or both, each ≤ 40 % as high."""
    where, font = pick(rng, ("above", "below", "above and below")), pick(rng, FONTS)
    paper, ink = (WHITE, BLACK) if rng.random() < 0.75 else (BLACK, WHITE)
    above = _band(pixels, rng, font, paper, ink) if "above" in where else pixels[:0]
    below = _band(pixels, rng, font, paper, ink) if "below" in where else pixels[:0]
    params: dict[str, Param] = {"where": where, "font": font, "paper": hex_of(paper)}
    return Edited(np.concatenate([above, pixels, below]), params, shift(0, above.shape[0]))


def _band(
    pixels: Pixels, rng: np.random.Generator, font: str, paper: tuple[int, int, int], ink: tuple[int, int, int]
) -> Pixels:
    height, width = pixels.shape[:2]
    mask = block([lettering(phrase(rng), font, 48) for _ in range(int(rng.integers(1, 4)))], centred=rng.random() < 0.7)
    scale = min(0.96 * width / mask.shape[1], 0.4 * height / mask.shape[0], uniform(rng, 0.07, 0.16) * width / 48)
    layer = scaled_layer(inked(mask, ink, style="plain", paper=paper), scale)
    x = int(rng.integers(max(0, width - layer.shape[1]) + 1)) if rng.random() < 0.3 else (width - layer.shape[1]) // 2
    return stamped(flat(width, layer.shape[0], paper), layer, x=x, y=0)


def add_emoji(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Put 1–3 emoji of 15–45 % of the shorter side anywhere, each turned by up to 30°."""
    height, width = pixels.shape[:2]
    number = int(rng.integers(1, 4))
    result, names = pixels, []
    for _ in range(number):
        name, layer = emoji(rng)
        side = uniform(rng, 0.15, 0.45) * min(height, width)
        layer = scaled_layer(layer, side / layer.shape[0], uniform(rng, -30, 30))
        x, y = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
        result = stamped(result, layer, x=x, y=y)
        names.append(name)
    return Edited(result, {"number": number, "kinds": ", ".join(names)})


def stripes(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Draw 3–14 parallel stripes of one colour, at any angle and 40–100 % opacity, over 15–45 % of the area."""
    height, width = pixels.shape[:2]
    number, share, angle = int(rng.integers(3, 15)), uniform(rng, 0.15, 0.45), uniform(rng, 0, 180)
    opacity, colour = uniform(rng, 0.4, 1), any_colour(rng)
    y, x = np.mgrid[:height, :width]
    along = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    phase = (along - along.min()) / (np.ptp(along) + 1e-6) * number + rng.random()
    alpha = cv2.GaussianBlur((phase % 1 < share).astype(np.float32), (0, 0), 0.5) * opacity
    params: dict[str, Param] = {"number": number, "angle_degrees": angle, "colour": hex_of(colour)}
    return Edited(blended(pixels, flat(width, height, colour), alpha), params)


def border(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Add a frame of one colour, 2–12 % of the shorter side thick, at times with a thin inner frame of a second one."""
    outer, inner = any_colour(rng), any_colour(rng)
    thick = max(2, round(uniform(rng, 0.02, 0.12) * min(pixels.shape[:2])))
    thin = max(1, thick // 3) if rng.random() < 0.4 else 0
    result = cv2.copyMakeBorder(pixels, thin, thin, thin, thin, cv2.BORDER_CONSTANT, value=inner)
    result = cv2.copyMakeBorder(result, thick, thick, thick, thick, cv2.BORDER_CONSTANT, value=outer)
    return Edited(
        as_pixels(result), {"thickness_px": thick + thin, "colour": hex_of(outer)}, shift(*2 * [thick + thin])
    )


COMPOSITION: dict[str, EditFunction] = {
    "overlay_on_photo": overlay_on_photo,
    "photo_on_top": photo_on_top,
    "text": text,
    "meme_caption": meme_caption,
    "emoji": add_emoji,
    "screenshot": screenshot,
    "stripes": stripes,
    "border": border,
}
