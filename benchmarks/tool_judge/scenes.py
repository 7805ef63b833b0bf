"""A photo of a screen that shows the picture, and a scan of a print of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from benchmarks.tool_judge.drawn import fitted, gradient
from benchmarks.tool_judge.draws import Draws, Made, Params

Floats = npt.NDArray[np.float32]

CELL = 4  # pixels of the drawn screen per pixel of the picture


def _photo_of_screen(image: Image.Image, draws: Draws) -> Made:
    """Show the picture on a screen and photograph it: grid, angle, edge, glare, colour cast and noise.

    The camera has fewer pixels than the grid of the screen, which causes the moiré.
    """
    lit = draws.whole(190, 300)
    shown = fitted(image, lit, lit)
    screen = _grid(np.asarray(shown, np.float32), draws.number(0.25, 0.7))
    bezel = round(draws.number(0.02, 0.1) * max(screen.shape))
    dark = draws.whole(8, 50)
    edge = ((bezel, bezel), (bezel, bezel), (0, 0))
    screen = np.pad(screen, edge, constant_values=dark)
    width, height = round(screen.shape[1] / CELL * draws.number(1.3, 1.7)), 0
    height = round(width * screen.shape[0] / screen.shape[1])
    desk = np.asarray(gradient(width, height, draws.colour(), draws.colour(), draws.number(0, 180)), np.float32)
    corners = _corners(width, height, draws)
    before = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * np.array(screen.shape[1::-1], np.float32)
    matrix = cv2.getPerspectiveTransform(before, corners)
    blurred = cv2.GaussianBlur(screen, (0, 0), draws.number(0.8, 1.6))
    seen = cv2.warpPerspective(blurred, matrix, (width, height), dst=desk.copy(), borderMode=cv2.BORDER_TRANSPARENT)
    glare = draws.number(0, 110) if draws.chance(0.7) else 0.0
    seen = seen + glare * _spot(width, height, draws)[..., None]
    cast = [draws.number(0.75, 1.2) for _ in range(3)]
    noise = draws.number(2, 12)
    grain = np.random.default_rng(draws.seed()).normal(0, noise, seen.shape)
    params = {"lit": lit, "bezel": bezel, "corners": np.round(corners, 1).tolist(), "glare": glare}
    return _picture(seen * np.array(cast) + grain), params | {"cast": cast, "noise": noise}


def _grid(pixels: Floats, depth: float) -> Floats:
    """Return every pixel as a cell of three coloured bars with a dark line below, at the same mean brightness."""
    height, width = pixels.shape[:2]
    cell = np.full((CELL, CELL, 3), 1 - depth, np.float32)
    for channel in range(3):
        cell[:-1, channel, channel] = 1 + depth
    cell[-1] *= 0.6
    cell /= cell.mean((0, 1))
    return np.repeat(np.repeat(pixels, CELL, 0), CELL, 1) * np.tile(cell, (height, width, 1))


def _corners(width: int, height: int, draws: Draws) -> Floats:
    """Return the screen's corners in the photo [4, 2]: slightly rotated and skewed, wholly or nearly visible."""
    angle, scale = math.radians(draws.number(-9, 9)), draws.number(0.78, 1.05)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    flat = (np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - 0.5) * [width, height] * scale
    askew = draws.rng.uniform(-0.06, 0.06, (4, 2)) * [width, height]
    return np.asarray(flat @ turn.T + askew + [width / 2, height / 2], np.float32)


def _spot(width: int, height: int, draws: Draws) -> Floats:
    """Return a soft light spot at a random place [H, W], 0…1."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    at, size = (draws.number(0, 1), draws.number(0, 1)), draws.number(0.15, 0.5)
    return np.asarray(np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * size**2)), np.float32)


def _scan_of_print(image: Image.Image, draws: Draws) -> Made:
    """Print the picture with a screen of dots and scan it: skew, fading, margins, dust and scratches."""
    grey, halftone = draws.chance(0.4), draws.chance(0.65)
    source = image.convert("L").convert("RGB") if grey else image
    ink = np.asarray(source, np.float32) / 255
    pitch, depth = draws.number(3, 5.5), draws.number(0.3, 0.8)
    if halftone:
        ink = np.clip(ink + depth * _dots(image.width, image.height, pitch, grey=grey), 0, 1)
        ink = np.asarray(cv2.GaussianBlur(ink, (0, 0), 0.7))
    darkest, paper = (
        draws.number(0.05, 0.35),
        [draws.number(0.86, 1), draws.number(0.84, 0.98), draws.number(0.72, 0.95)],
    )
    printed = _picture(255 * (darkest + ink * (np.array(paper) - darkest)))
    margins = [round(draws.number(0, 0.16) * min(image.size)) for _ in range(4)]
    blank = tuple(round(255 * value) for value in paper)
    size = image.width + margins[0] + margins[2], image.height + margins[1] + margins[3]
    sheet = Image.new("RGB", size, (blank[0], blank[1], blank[2]))
    sheet.paste(printed, (margins[0], margins[1]))
    skew = draws.number(-5, 5)
    lid = draws.one_of(((255, 255, 255), (235, 235, 235), (25, 25, 25)))
    sheet = sheet.rotate(skew, Image.Resampling.BICUBIC, expand=draws.chance(0.5), fillcolor=lid)
    specks = _dust(sheet, draws)
    roughness = draws.number(3, 12)
    params: Params = {
        "grey": grey,
        "halftone": [pitch, depth] if halftone else None,
        "darkest": darkest,
        "paper": paper,
    }
    params |= {"margins": margins, "skew": skew, "specks": specks, "roughness": roughness}
    return _picture(np.asarray(sheet, np.float32) + _texture(sheet, roughness, draws)[..., None]), params


def _dots(width: int, height: int, pitch: float, *, grey: bool) -> Floats:
    """Return the screens of the three inks [H, W, 3], −0.5…0.5, each at its own angle; one angle if grey."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    screens = []
    for degrees in (45, 45, 45) if grey else (15, 75, 45):
        along, across = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        u, v = (along * x + across * y) * 2 * math.pi / pitch, (along * y - across * x) * 2 * math.pi / pitch
        screens.append((np.sin(u) * np.sin(v)) / 2)
    return np.asarray(np.stack(screens, -1), np.float32)


def _dust(sheet: Image.Image, draws: Draws) -> int:
    """Draw specks and hairs, and return their number."""
    pen, number = ImageDraw.Draw(sheet), draws.whole(0, 40)
    for _ in range(number):
        x, y = draws.whole(0, sheet.width), draws.whole(0, sheet.height)
        shade = draws.one_of(((250, 250, 250), (40, 40, 40)))
        if draws.chance(0.2):
            pen.line((x, y, x + draws.whole(-40, 40), y + draws.whole(-40, 40)), shade)
        else:
            radius = draws.number(0.4, 1.6)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), shade)
    return number


def _texture(sheet: Image.Image, roughness: float, draws: Draws) -> Floats:
    """Return the fibres and clouds of paper [H, W], in levels."""
    rng = np.random.default_rng(draws.seed())
    size = sheet.height, sheet.width
    fine = cv2.GaussianBlur(rng.normal(0, 1, size).astype(np.float32), (0, 0), 0.8)
    coarse = cv2.GaussianBlur(rng.normal(0, 1, size).astype(np.float32), (0, 0), 12)
    return np.asarray(roughness * (fine / fine.std() + 0.6 * coarse / coarse.std()), np.float32)


def _picture(values: npt.NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))


SCENES: Mapping[str, Callable[[Image.Image, Draws], Made]] = MappingProxyType(
    {
        "photo_of_screen": _photo_of_screen,
        "scan_of_print": _scan_of_print,
    }
)
