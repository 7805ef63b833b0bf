"""Text, backgrounds and stickers, drawn with Pillow."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.tool_judge.draws import NAMES, Colour, Draws

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return the whole picture, as large as the box allows."""
    scale = min(width / image.width, height / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def filling(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return the middle of the picture, resized so that it fills the box."""
    scale = max(width / image.width, height / image.height)
    size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return image.resize(size, Image.Resampling.LANCZOS).crop((left, top, left + width, top + height))


def gradient(width: int, height: int, first: Colour, last: Colour, angle: float) -> Image.Image:
    """Return a gradient from one colour to another, along `angle` in degrees."""
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height))
    along = np.cos(math.radians(angle)) * x + np.sin(math.radians(angle)) * y
    along = ((along - along.min()) / max(float(np.ptp(along)), 1e-9))[..., None]
    return Image.fromarray((np.array(first) * (1 - along) + np.array(last) * along).round().astype(np.uint8))


def ground(image: Image.Image, width: int, height: int, draws: Draws) -> tuple[Image.Image, str]:
    """Return a background for a photo, and its kind: the photo enlarged and blurred, a gradient, or one colour."""
    kind = draws.one_of(("blurred", "blurred", "gradient", "plain"))
    if kind == "blurred":
        behind = filling(image, width, height).filter(ImageFilter.GaussianBlur(draws.number(8, 20)))
        return Image.eval(behind, lambda value: round(value * 0.75)), kind
    first = draws.colour()
    last = draws.colour() if kind == "gradient" else first
    return gradient(width, height, first, last, draws.number(0, 180)), kind


def text_block(text: str, width: int, size: int, colour: Colour, outline: Colour | None = None) -> Image.Image:
    """Return centred lines of text as an RGBA picture of this width, as high as they need."""
    font, stroke = ImageFont.load_default(size), 0 if outline is None else max(1, size // 14)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) < width - 2 * stroke - size * 0.3:
            lines[-1] = longer
        else:
            lines.append(word)
    step = round(size * 1.25)
    block = Image.new("RGBA", (width, step * len(lines) + 2 * stroke + size // 4))
    pen = ImageDraw.Draw(block)
    for row, line in enumerate(lines):
        place = (width / 2, stroke + row * step + step / 2)
        pen.text(place, line, colour, font, anchor="mm", stroke_width=stroke, stroke_fill=outline)
    return block


def caption(canvas: Image.Image, text: str, draws: Draws, size: int, middle: float) -> None:
    """Draw text across the canvas: bare, outlined or on a box; `middle` is its centre as a share of the height."""
    way = draws.one_of(("outlined", "box", "bare"))
    dark = draws.chance(0.5)
    colour, contrary = (BLACK, WHITE) if dark else (WHITE, BLACK)
    block = text_block(text, round(canvas.width * 0.9), size, colour, contrary if way == "outlined" else None)
    at = (canvas.width - block.width) // 2, round(canvas.height * middle - block.height / 2)
    if way == "box":
        box = (at[0] - 4, at[1] - 4, at[0] + block.width + 4, at[1] + block.height + 4)
        ImageDraw.Draw(canvas).rounded_rectangle(box, size // 3, draws.colour() if dark else contrary)
    canvas.paste(block, at, block)


def header(canvas: Image.Image, draws: Draws, *, height: int, top: int = 0, ground: Colour | None = None) -> None:
    """Draw a bar with a round portrait, a name, and a line below the name."""
    pen, name = ImageDraw.Draw(canvas), draws.one_of(NAMES)
    ink = WHITE if ground is None or sum(ground) < 380 else (30, 30, 30)
    if ground is not None:
        pen.rectangle((0, top, canvas.width, top + height), ground)
    pad = height // 6
    pen.ellipse((pad, top + pad, height - pad, top + height - pad), draws.colour(), ink)
    pen.text((height, top + height * 0.2), name, ink, ImageFont.load_default(max(8, round(height * 0.3))))
    small = ImageFont.load_default(max(7, round(height * 0.2)))
    pen.text((height, top + height * 0.58), f"{draws.whole(1, 23)} h", (140, 140, 140), small)


def sticker(draws: Draws, side: int) -> tuple[Image.Image, str]:
    """Return an RGBA sticker and its kind: a face, a heart, a star, an arrow, a bubble or a label."""
    kind = draws.one_of(("face", "heart", "star", "arrow", "bubble", "label"))
    layer = Image.new("RGBA", (side, side))
    pen, ink, s = ImageDraw.Draw(layer), draws.colour(), side
    edge = max(2, s // 25)
    if kind == "face":
        pen.ellipse((edge, edge, s - edge, s - edge), (255, draws.whole(190, 225), 50), (120, 80, 0), edge)
        for x in (0.34, 0.66):
            pen.ellipse((s * (x - 0.06), s * 0.3, s * (x + 0.06), s * 0.46), BLACK)
        pen.chord((s * 0.25, s * 0.4, s * 0.75, s * 0.82), 0, 180, (150, 30, 30), BLACK)
    elif kind == "heart":
        angle = np.linspace(0, 2 * math.pi, 60)
        across = 16 * np.sin(angle) ** 3
        up = 13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)
        points = [(s * (0.5 + float(a) / 36), s * (0.45 - float(b) / 36)) for a, b in zip(across, up, strict=True)]
        pen.polygon(points, (225, 30, 60), WHITE, edge)
    elif kind == "star":
        radii = [s * 0.48, s * 0.2] * 5
        points = [
            (s / 2 + r * math.sin(i * math.pi / 5), s / 2 - r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii)
        ]
        pen.polygon(points, (255, 205, 30), WHITE, edge)
    elif kind == "arrow":
        points = [(0.05, 0.4), (0.55, 0.4), (0.55, 0.2), (0.95, 0.5), (0.55, 0.8), (0.55, 0.6), (0.05, 0.6)]
        pen.polygon([(s * x, s * y) for x, y in points], (230, 30, 30), WHITE, edge)
    else:
        ground = (255, 255, 255) if kind == "bubble" else ink
        pen.rounded_rectangle((edge, s * 0.2, s - edge, s * 0.7), s // 8, ground, BLACK, edge)
        if kind == "bubble":
            pen.polygon([(s * 0.25, s * 0.68), (s * 0.45, s * 0.68), (s * 0.2, s * 0.92)], ground)
        shade = BLACK if sum(ground) > 380 else WHITE
        pen.text((s / 2, s * 0.45), draws.words(1, 1).upper(), shade, ImageFont.load_default(s // 5), anchor="mm")
    return layer, kind


def stick(canvas: Image.Image, draws: Draws, *, low: float, high: float) -> str:
    """Paste a rotated sticker somewhere on the canvas, and return its kind.

    Its side is a share of the canvas's shorter side, from `low` to `high`.
    """
    layer, kind = sticker(draws, max(16, round(draws.number(low, high) * min(canvas.size))))
    layer = layer.rotate(draws.number(-35, 35), Image.Resampling.BICUBIC, expand=True)
    at = draws.whole(0, max(0, canvas.width - layer.width)), draws.whole(0, max(0, canvas.height - layer.height))
    canvas.paste(layer, at, layer)
    return kind
