"""Edits that combine a photo with others, or keep only a part of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from PIL import Image, ImageOps

from benchmarks.tool_judge.drawn import filling, fitted
from benchmarks.tool_judge.draws import Draws, Made

GRIDS = ((2, 1), (1, 2), (2, 2), (2, 2), (3, 2), (2, 3), (3, 3))  # columns and rows


def _collage(image: Image.Image, draws: Draws) -> Made:
    """Make a collage of 2, 4, 6 or 9 tiles: the photo and others."""
    columns, rows = draws.one_of(GRIDS)
    side = round(540 / max(columns, rows))
    width, height = side, max(32, round(side * draws.number(0.75, 1.3)))
    gap, place = draws.whole(0, 10), draws.whole(0, columns * rows - 1)
    names, tiles = draws.others(columns * rows - 1)
    tiles.insert(place, image)
    ground = draws.colour()
    canvas = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), ground)
    for number, tile in enumerate(tiles):
        at = gap + number % columns * (width + gap), gap + number // columns * (height + gap)
        canvas.paste(filling(tile, width, height), at)
    return canvas, {"columns": columns, "rows": rows, "place": place, "gap": gap, "photos": names}


def _inset(image: Image.Image, draws: Draws) -> Made:
    """Paste the photo, small and with a border, into another one."""
    name, other = draws.other()
    canvas = fitted(other, 480, 480)
    share, border = draws.number(0.35, 0.6), draws.whole(0, 6)
    small = fitted(image, round(canvas.width * share), round(canvas.height * share))
    _paste_in_corner(canvas, ImageOps.expand(small, border, draws.colour()), draws)
    return canvas, {"photo": name, "share": share, "border": border}


def _covered(image: Image.Image, draws: Draws) -> Made:
    """Paste another photo, small and with a border, over the photo."""
    name, other = draws.other()
    share, border = draws.number(0.35, 0.65), draws.whole(0, 6)
    canvas = image.copy()
    small = fitted(other, round(canvas.width * share), round(canvas.height * share))
    _paste_in_corner(canvas, ImageOps.expand(small, border, draws.colour()), draws)
    return canvas, {"photo": name, "share": share, "border": border}


def _paste_in_corner(canvas: Image.Image, small: Image.Image, draws: Draws) -> None:
    """Paste near one of the corners, or one time in four anywhere."""
    room = max(0, canvas.width - small.width), max(0, canvas.height - small.height)
    margin = round(draws.number(0, 0.05) * min(canvas.size))
    at = [draws.one_of((min(margin, free), max(0, free - margin))) for free in room]
    if draws.chance(0.25):
        at = [draws.whole(0, free) for free in room]
    canvas.paste(small, (at[0], at[1]))


def _strip(image: Image.Image, draws: Draws) -> Made:
    """Keep only a strip of the photo, from edge to edge."""
    share, upright = draws.number(0.2, 0.45), draws.chance(0.5)
    start = draws.number(0, 1 - share)
    if upright:
        box = (round(start * image.width), 0, round((start + share) * image.width), image.height)
    else:
        box = (0, round(start * image.height), image.width, round((start + share) * image.height))
    return image.crop(box), {"share": share, "start": start, "upright": upright}


def _cut_strips(image: Image.Image, draws: Draws) -> Made:
    """Cut the photo into strips, with gaps or with strips of another photo between them."""
    number, upright, mixed = draws.whole(3, 8), draws.chance(0.5), draws.chance(0.5)
    name, other = draws.other() if mixed else (None, None)
    length = image.width if upright else image.height
    step = length / number
    gap = round(step) if mixed else round(step * draws.number(0.15, 0.7))
    size = (image.width + gap * number, image.height) if upright else (image.width, image.height + gap * number)
    canvas = Image.new("RGB", size, draws.colour())
    behind = None if other is None else filling(other, *image.size)
    for i in range(number):
        low, high = round(i * step), round((i + 1) * step)
        box = (low, 0, high, image.height) if upright else (0, low, image.width, high)
        at = (low + gap * i, 0) if upright else (0, low + gap * i)
        canvas.paste(image.crop(box), at)
        if behind is not None:
            after = (at[0] + high - low, 0) if upright else (0, at[1] + high - low)
            canvas.paste(behind.crop(box), after)
    return canvas, {"number": number, "upright": upright, "gap": gap, "photo": name}


def _blend(image: Image.Image, draws: Draws) -> Made:
    """Blend another photo in, evenly or increasing towards one side."""
    name, other = draws.other()
    other, share, way = filling(other, *image.size), draws.number(0.3, 0.6), draws.one_of(("even", "even", "ramp"))
    if way == "even":
        return Image.blend(image, other, share), {"photo": name, "share": share, "way": way}
    angle = draws.one_of((0, 90, 180, 270))
    mask = Image.linear_gradient("L").rotate(angle).resize(image.size)
    mask = Image.eval(mask, lambda value: round(value * min(1.0, 1.6 * share)))
    return Image.composite(other, image, mask), {"photo": name, "share": share, "way": way, "angle": angle}


def _mirrored_crop(image: Image.Image, draws: Draws) -> Made:
    """Keep a quarter to three fifths of the area, mirrored."""
    area, stretch = draws.number(0.25, 0.6), draws.number(0.75, 1.33)
    width, height = (min(1.0, math.sqrt(area) * factor) for factor in (stretch, 1 / stretch))
    x, y = draws.number(0, 1 - width), draws.number(0, 1 - height)
    box = (x * image.width, y * image.height, (x + width) * image.width, (y + height) * image.height)
    part = image.crop((round(box[0]), round(box[1]), round(box[2]), round(box[3])))
    return ImageOps.mirror(part), {"box": [x, y, round(x + width, 4), round(y + height, 4)]}


PARTS: Mapping[str, Callable[[Image.Image, Draws], Made]] = MappingProxyType(
    {
        "strip": _strip,
        "mirrored_crop": _mirrored_crop,
    }
)
COMBINED: Mapping[str, Callable[[Image.Image, Draws], Made]] = MappingProxyType(
    {
        "collage": _collage,
        "inset": _inset,
        "covered": _covered,
        "cut_strips": _cut_strips,
        "blend": _blend,
    }
)
