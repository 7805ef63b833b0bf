"""Lines of text and emoji, and functions to lay them on a picture."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from isc.photos.decode import Pixels
from isc.train.augment.attack import Colour, any_colour
from isc.train.augment.fonts import CASED, SCRIPTS, emoji_picture, emoji_sizes, font_at, fonts_by_script

Mask = npt.NDArray[np.uint8]  # coverage [H, W], 0…255
SPRITE = 96  # longer side of a cached emoji, in pixels

# Unicode blocks that people use in posts: faces, gestures, food, animals, celebration, hearts, marks
EMOJI = tuple(
    chr(code)
    for first, last in (
        (0x1F600, 0x1F64F), (0x1F910, 0x1F917), (0x1F920, 0x1F92F), (0x1F970, 0x1F976), (0x1F440, 0x1F450),
        (0x1F330, 0x1F37F), (0x1F380, 0x1F393), (0x1F400, 0x1F43E), (0x1F493, 0x1F49F), (0x1F4A0, 0x1F4AF),
        (0x1F525, 0x1F525), (0x1F680, 0x1F68C), (0x2B50, 0x2B50), (0x26A1, 0x26A1), (0x2705, 0x2705), (0x274C, 0x274C),
    )
    for code in range(first, last + 1)
)  # fmt: skip


def some_font(rng: np.random.Generator, *, latin: float = 0.6) -> tuple[str, str]:
    """Draw (script, font file): Latin with probability `latin`, else any script that has a font.

    Without a Latin font, the script is "ascii"; without any font, its file is "", which means Pillow's own font.
    """
    found = fonts_by_script()
    if rng.random() < latin or not found:
        script = next((script for script in ("latin", "ascii") if script in found), "ascii")
    else:
        script = list(found)[rng.integers(len(found))]
    files = found.get(script, ("",))
    return script, files[rng.integers(len(files))]


def some_words(rng: np.random.Generator, script: str, *, most: int, capitals: float = 0.3) -> str:
    """Draw one to `most` words of the script; in capitals with probability `capitals`, if the script has them."""
    words = SCRIPTS[script]
    text = " ".join(words[i] for i in rng.integers(0, len(words), rng.integers(1, most + 1)))
    return text.upper() if script in CASED and rng.random() < capitals else text


def lettering(text: str, font: str, *, height: int, outline: int = 0) -> tuple[Mask, Mask]:
    """Draw one line as the masks (ink, ink with outline), cut to the drawn area.

    `height` is the font size and `outline` the width of the outline, in pixels. Font sizes are rounded, so that the
    cache stays small.
    """
    step = 2 if height < 24 else 6
    drawn = font_at(font, max(6, round(height / step) * step))
    left, top, right, bottom = drawn.getbbox(text, stroke_width=outline)
    size = max(1, math.ceil(right - left)), max(1, math.ceil(bottom - top))
    whole = Image.new("L", size)
    ImageDraw.Draw(whole).text((-left, -top), text, fill=255, font=drawn, stroke_width=outline)
    if not outline:
        return np.asarray(whole), np.asarray(whole)
    ink = Image.new("L", size)
    ImageDraw.Draw(ink).text((-left, -top), text, fill=255, font=drawn, stroke_width=0)
    return np.asarray(ink), np.asarray(whole)


def narrowed(mask: Mask, width: int) -> Mask:
    """Shrink the mask, if necessary, to at most this width in pixels; keep its proportions."""
    share = width / mask.shape[1]
    if share >= 1:
        return mask
    size = max(1, width), max(1, round(share * mask.shape[0]))
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.uint8)


def ink(picture: Pixels, mask: Mask, colour: Colour, *, top: int, left: int, opacity: float = 1.0) -> None:
    """Paint the colour through the mask, in place; parts outside the picture are cut off."""
    y, x = max(0, top), max(0, left)
    place = picture[y : max(y, top + mask.shape[0]), x : max(x, left + mask.shape[1])]
    cover = mask[y - top : y - top + place.shape[0], x - left : x - left + place.shape[1], None]
    if place.size:
        share = cover * np.float32(opacity / 255)
        place[:] = (place + (np.array(colour, np.float32) - place) * share + 0.5).astype(np.uint8)


def write(
    picture: Pixels, text: str, font: str, colour: Colour, *, top: int, left: int, height: int, width: int
) -> int:
    """Write one line in place, at most `width` pixels wide, and return the row below it."""
    mask = narrowed(lettering(text, font, height=height)[0], width)
    ink(picture, mask, colour, top=top, left=left)
    return top + int(mask.shape[0])


@lru_cache(maxsize=1)
def _sprites() -> dict[int, Pixels]:
    return {}


def sprite(number: int) -> Pixels:
    """Return the emoji of this number as premultiplied RGBA [96, 96, 4]."""
    kept = _sprites()
    number %= len(EMOJI)
    if number not in kept:
        font = emoji_sizes()
        image = emoji_picture(font, EMOJI[number]) if font else None
        kept[number] = _as_sprite(image or _drawn_face(number))
    return kept[number]


def _as_sprite(image: Image.Image) -> Pixels:
    """Centre the picture in a square, and multiply its colours by its coverage."""
    share = SPRITE / max(image.size)
    image = image.resize((max(1, round(share * image.width)), max(1, round(share * image.height))))
    square = Image.new("RGBA", (SPRITE, SPRITE))
    square.paste(image, ((SPRITE - image.width) // 2, (SPRITE - image.height) // 2))
    pixels = np.array(square)
    pixels[..., :3] = (pixels[..., :3].astype(np.uint16) * pixels[..., 3:] // 255).astype(np.uint8)
    return pixels


def _drawn_face(number: int) -> Image.Image:
    """Draw a round face or a plain disc, for machines without an emoji font."""
    rng = np.random.default_rng(number)
    image = Image.new("RGBA", (SPRITE, SPRITE))
    draw, r = ImageDraw.Draw(image), SPRITE / 2
    draw.ellipse(
        (0, 0, SPRITE - 1, SPRITE - 1), fill=(255, 205, 60) if number % 3 else any_colour(rng), outline=(90, 60, 10)
    )
    if number % 5:
        for eye in (-0.35, 0.35):
            draw.ellipse(((1 + eye - 0.1) * r, 0.65 * r, (1 + eye + 0.1) * r, 0.9 * r), fill=(60, 40, 10))
        start, end = ((20, 160), (200, 340), (0, 360))[number % 3]
        draw.arc((0.5 * r, 0.9 * r, 1.5 * r, 1.6 * r), start, end, fill=(120, 40, 20), width=5)
    return image


def put_sprite(picture: Pixels, image: Pixels, *, top: int, left: int, opacity: float = 1.0) -> None:
    """Lay a premultiplied RGBA picture on another picture, in place; parts outside are cut off."""
    y, x = max(0, top), max(0, left)
    place = picture[y : max(y, top + image.shape[0]), x : max(x, left + image.shape[1])]
    part = image[y - top : y - top + place.shape[0], x - left : x - left + place.shape[1]]
    if place.size:
        above = part * np.float32(opacity)
        mixed = place * (1 - above[..., 3:] / np.float32(255)) + above[..., :3]
        place[:] = np.minimum(mixed + 0.5, 255).astype(np.uint8)
