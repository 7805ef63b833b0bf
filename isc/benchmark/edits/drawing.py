"""Text and emoji, drawn only with the fonts of Pillow and OpenCV, so that they look the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from isc.benchmark.edits.values import Colour, any_colour, as_pixels, pick
from isc.photos.decode import Pixels

Mask = npt.NDArray[np.uint8]

# fmt: off
ASCII = (
    "so this happened today", "wait for it", "me on a monday", "best day ever!!", "#nofilter #mood", "sold out", "WOW",
    "@old.friend look at this", "WHO DID THIS", "nobody: ... me:", "LIMITED OFFER 50% OFF", "i can't even", "so cute",
    "Subscribe & follow", "breaking news", "the more you know", "do not repost", "(c) 2021", "GOOD MORNING", "no words",
    "when they say yes", "1 like = 1 wish", "how it started", "how it is going", "Happy Birthday Anna!", "too soon?",
)
SCRIPTS = (
    "сегодня был хороший день", "добро пожаловать", "καλημέρα σε όλους", "日本の夏", "今日はいい天気です", "美好的一天",
    "你好世界", "행복한 하루", "오늘의 사진", "mañana será otro día", "schöne Grüße aus Köln", "chúc mừng năm mới",
    "garçon très occupé", "žluťoučký kůň", "çok güzel bir gün",
)
# fmt: on
PHRASES = ASCII + SCRIPTS if int(cv2.__version__.split(".")[0]) >= 5 else ASCII  # OpenCV 4 draws only ASCII
FONTS = ("aileron", "aileron bold", "upright", "bold", "italic", "light italic")
_OPENCV_FONTS = {
    "upright": cv2.FONT_HERSHEY_SIMPLEX,
    "bold": cv2.FONT_HERSHEY_TRIPLEX,
    "italic": cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
    "light italic": cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
}


def phrase(rng: np.random.Generator) -> str:
    return pick(rng, PHRASES)


def lettering(text: str, font: str, height: int) -> Mask:
    """Draw one line of text as coverage [H, W], 0…255, cut to its ink; capitals are about 0.7 × `height` pixels."""
    if font.startswith("aileron") and text.isascii():
        drawn = ImageFont.load_default(max(6, height))
        stroke = max(1, height // 24) if font.endswith("bold") else 0
        box = drawn.getbbox(text, stroke_width=stroke)
        image = Image.new("L", (math.ceil(box[2] - box[0]) + 2, math.ceil(box[3] - box[1]) + 2))
        ImageDraw.Draw(image).text((1 - box[0], 1 - box[1]), text, fill=255, font=drawn, stroke_width=stroke)
        return cut_to_ink(np.asarray(image))
    face = _OPENCV_FONTS.get(font, cv2.FONT_HERSHEY_SIMPLEX)
    scale, thick = max(6, height) / 30, max(1, height // 24)
    (width, high), low = cv2.getTextSize(text, face, scale, thick)
    mask = np.zeros((2 * high + 2 * low + 8, width + 2 * high + 8), np.uint8)
    cv2.putText(mask, text, (high // 2, round(1.5 * high)), face, scale, 255, thick, cv2.LINE_AA)
    return cut_to_ink(mask)


def cut_to_ink(mask: Mask) -> Mask:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return mask
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def block(lines: Sequence[Mask], *, centred: bool) -> Mask:
    """Stack lines of text, with gaps and a margin of 30 % of the highest line's height."""
    gap = max(2, round(0.3 * max(line.shape[0] for line in lines)))
    width = max(line.shape[1] for line in lines) + 2 * gap
    result = np.zeros((sum(line.shape[0] + gap for line in lines) + gap, width), np.uint8)
    y = gap
    for line in lines:
        x = (width - line.shape[1]) // 2 if centred else gap
        result[y : y + line.shape[0], x : x + line.shape[1]] = line
        y += line.shape[0] + gap
    return result


def inked(mask: Mask, ink: Colour, *, style: str, paper: Colour) -> Pixels:
    """Colour the text as RGBA [H, W, 4]: "plain", "outlined" or "shadowed" in `paper`, or "boxed" on `paper`.

    Outlines and shadows are 2 pixels wide.
    """
    if style == "boxed":
        below = np.full_like(mask, 255)
    elif style == "outlined":
        below = as_pixels(cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))))
    elif style == "shadowed":
        below = np.zeros_like(mask)
        below[2:, 2:] = mask[:-2, :-2]
    else:
        below = np.zeros_like(mask)
    top = mask[..., None].astype(np.float32) / 255
    colours = np.array(paper, np.float32) * (1 - top) + np.array(ink, np.float32) * top if style != "plain" else ink
    rgb = np.broadcast_to(np.asarray(colours, np.float32), (*mask.shape, 3))
    return as_pixels(np.concatenate([rgb, np.maximum(mask, below)[..., None]], axis=2))


def scaled_layer(layer: Pixels, scale: float, degrees: float = 0.0) -> Pixels:
    """Resize and turn an RGBA layer; the canvas grows to hold it, and colours of transparent pixels do not bleed."""
    height, width = layer.shape[:2]
    cosine, sine = math.cos(math.radians(degrees)) * scale, math.sin(math.radians(degrees)) * scale
    w = max(2, math.ceil(abs(width * cosine) + abs(height * sine)))
    h = max(2, math.ceil(abs(width * sine) + abs(height * cosine)))
    x, y = (width - 1) / 2, (height - 1) / 2
    matrix = np.array([[cosine, sine, (w - 1) / 2 - cosine * x - sine * y],
                       [-sine, cosine, (h - 1) / 2 + sine * x - cosine * y]])  # fmt: skip
    weight = layer[..., 3:].astype(np.float32) / 255
    premultiplied = np.concatenate([layer[..., :3] * weight, layer[..., 3:].astype(np.float32)], axis=2)
    if scale < 1:
        premultiplied = np.asarray(cv2.GaussianBlur(premultiplied, (0, 0), 0.4 / scale))
    moved = cv2.warpAffine(premultiplied, matrix, (w, h), flags=cv2.INTER_LINEAR)
    rgb = moved[..., :3] / np.maximum(moved[..., 3:] / 255, 1e-3)
    return as_pixels(np.concatenate([rgb, moved[..., 3:]], axis=2))


# --- emoji, drawn on a square of 240 units, then scaled ---------------------------------------------------------------

Pen = ImageDraw.ImageDraw
SKIN: Colour = (255, 204, 51)
EDGE: Colour = (222, 150, 20)
DARK: Colour = (70, 45, 20)
RED: Colour = (226, 38, 56)
TEAR: Colour = (90, 180, 245)


def _ellipse(pen: Pen, x: float, y: float, *, radii: tuple[float, float], fill: Colour) -> None:
    rx, ry = radii
    pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)


def _curve(x: Callable[[float], float], y: Callable[[float], float], steps: int = 90) -> list[tuple[float, float]]:
    turns = [2 * math.pi * i / steps for i in range(steps)]
    return [(x(t), y(t)) for t in turns]


def _heart(pen: Pen, x: float, y: float, size: float, fill: Colour) -> None:
    """Draw a filled heart, `size` units from the middle to the side."""
    unit = size / 16
    pen.polygon(
        _curve(
            lambda t: x + 16 * unit * math.sin(t) ** 3,
            lambda t: y - unit * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)),
        ),
        fill=fill,
    )


def _star(pen: Pen, x: float, y: float, size: float, *, fill: Colour, points: int = 5) -> None:
    corners = [
        (x + r * math.sin(math.pi * i / points), y - r * math.cos(math.pi * i / points))
        for i in range(2 * points)
        for r in [size if i % 2 == 0 else 0.45 * size]
    ]
    pen.polygon(corners, fill=fill)


def _eyes(pen: Pen, kind: str) -> None:
    for x in (85, 155):
        if kind == "dots" or (kind == "wink" and x < 120) or kind == "tears":
            _ellipse(pen, x, 95, radii=(12, 18), fill=DARK)
        if kind == "tears":
            _ellipse(pen, x + (14 if x > 120 else -14), 145, radii=(13, 32), fill=TEAR)
        if kind == "closed":
            pen.arc((x - 20, 80, x + 20, 115), 180, 360, fill=DARK, width=9)
        if kind == "wink" and x > 120:
            pen.line((x - 20, 96, x + 20, 90), fill=DARK, width=10)
        if kind == "hearts":
            _heart(pen, x, 95, 30, RED)
        if kind == "stars":
            _star(pen, x, 95, 32, fill=(235, 90, 20))
        if kind == "crosses":
            pen.line((x - 16, 80, x + 16, 112), fill=DARK, width=9)
            pen.line((x - 16, 112, x + 16, 80), fill=DARK, width=9)
        if kind == "glasses":
            pen.rounded_rectangle((x - 34, 72, x + 34, 118), 20, fill=(20, 20, 25))
            pen.line((50, 80, 190, 80), fill=(20, 20, 25), width=12)


def _mouth(pen: Pen, kind: str) -> None:
    if kind == "smile":
        pen.arc((65, 90, 175, 190), 25, 155, fill=DARK, width=10)
    elif kind == "grin":
        pen.chord((62, 88, 178, 204), 0, 180, fill=DARK)
        pen.rectangle((72, 146, 168, 160), fill=(255, 255, 255))
    elif kind == "tongue":
        pen.chord((66, 96, 174, 196), 0, 180, fill=DARK)
        pen.rounded_rectangle((100, 165, 140, 220), 20, fill=(240, 90, 110))
    elif kind == "frown":
        pen.arc((75, 145, 165, 220), 205, 335, fill=DARK, width=10)
    elif kind == "open":
        _ellipse(pen, 120, 168, radii=(24, 30), fill=DARK)
    else:
        pen.line((85, 165, 155, 165), fill=DARK, width=10)


EYES = ("dots", "closed", "wink", "tears", "hearts", "stars", "crosses", "glasses")
MOUTHS = ("smile", "grin", "tongue", "frown", "open", "line")


def _face(pen: Pen, rng: np.random.Generator) -> str:
    eyes, mouth = pick(rng, EYES), pick(rng, MOUTHS)
    skin = SKIN if rng.random() < 0.8 else ((240, 110, 60), (150, 200, 80), (200, 170, 255))[int(rng.integers(3))]
    _ellipse(pen, 120, 120, radii=(112, 112), fill=EDGE)
    _ellipse(pen, 120, 118, radii=(106, 106), fill=skin)
    _mouth(pen, mouth)
    _eyes(pen, eyes)
    return f"face with {eyes} and {mouth}"


def _loose_heart(pen: Pen, rng: np.random.Generator) -> str:
    _heart(pen, 120, 112, 108, RED if rng.random() < 0.6 else any_colour(rng))
    return "heart"


def _loose_star(pen: Pen, _rng: np.random.Generator) -> str:
    _star(pen, 120, 125, 115, fill=EDGE)
    _star(pen, 120, 125, 104, fill=SKIN)
    return "star"


def _thumb(pen: Pen, _rng: np.random.Generator) -> str:
    for grow, fill in ((6, EDGE), (0, SKIN)):
        pen.rounded_rectangle((82 - grow, 100 - grow, 205 + grow, 220 + grow), 26, fill=fill)
        pen.polygon([(85 - grow, 125), (112 - grow, 20 - grow), (145 + grow, 20), (142 + grow, 120)], fill=fill)
    for y in (130, 160, 190):
        pen.line((140, y, 203, y), fill=EDGE, width=5)
    pen.rectangle((20, 105, 74, 222), fill=(60, 110, 210))
    return "thumb"


def _flame(pen: Pen, _rng: np.random.Generator) -> str:
    for size, fill in ((1.0, (235, 70, 25)), (0.66, (255, 150, 30)), (0.36, (255, 225, 90))):
        tip = [(120, 232 - 225 * size), (120 + 62 * size, 232 - 120 * size), (120 - 62 * size, 232 - 120 * size)]
        pen.polygon(tip, fill=fill)
        _ellipse(pen, 120, 232 - 85 * size, radii=(85 * size, 85 * size), fill=fill)
    return "flame"


def _flower(pen: Pen, rng: np.random.Generator) -> str:
    fill = any_colour(rng)
    for i in range(6):
        _ellipse(
            pen, 120 + 62 * math.cos(i * math.pi / 3), 120 + 62 * math.sin(i * math.pi / 3), radii=(46, 46), fill=fill
        )
    _ellipse(pen, 120, 120, radii=(42, 42), fill=SKIN)
    return "flower"


def _bubble(pen: Pen, _rng: np.random.Generator) -> str:
    pen.polygon([(70, 150), (50, 232), (130, 170)], fill=(255, 255, 255))
    pen.rounded_rectangle((10, 30, 230, 180), 60, fill=(255, 255, 255))
    for x in (70, 120, 170):
        _ellipse(pen, x, 105, radii=(15, 15), fill=(120, 120, 130))
    return "speech bubble"


def _cat(pen: Pen, _rng: np.random.Generator) -> str:
    fur: Colour = (245, 180, 90)
    pen.polygon([(20, 12), (40, 130), (115, 60)], fill=fur)
    pen.polygon([(220, 12), (200, 130), (125, 60)], fill=fur)
    _ellipse(pen, 120, 135, radii=(105, 95), fill=fur)
    for x in (80, 160):
        _ellipse(pen, x, 120, radii=(14, 20), fill=DARK)
        for slope in (-10, 8):
            pen.line((x - 5, 165, x + (70 if x > 120 else -70), 165 + slope), fill=DARK, width=4)
    pen.polygon([(106, 148), (134, 148), (120, 164)], fill=(230, 100, 110))
    pen.arc((92, 150, 121, 185), 0, 160, fill=DARK, width=6)
    pen.arc((119, 150, 148, 185), 20, 180, fill=DARK, width=6)
    return "cat"


def _sun(pen: Pen, _rng: np.random.Generator) -> str:
    _star(pen, 120, 120, 118, fill=(255, 170, 20), points=12)
    _ellipse(pen, 120, 120, radii=(74, 74), fill=SKIN)
    return "sun"


EMOJI = (_loose_heart, _loose_star, _thumb, _flame, _flower, _bubble, _cat, _sun)


def emoji(rng: np.random.Generator) -> tuple[str, Pixels]:
    """Draw an emoji as (name, RGBA [240, 240, 4]): with probability ½ one of 48 kinds of faces, else an object."""
    sketch = Image.new("RGBA", (240, 240))
    pen = ImageDraw.Draw(sketch)
    name = _face(pen, rng) if rng.random() < 0.5 else EMOJI[int(rng.integers(len(EMOJI)))](pen, rng)
    return name, np.asarray(sketch)
