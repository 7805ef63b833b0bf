"""Layouts of posts in social media: stories, memes, screenshots, stickers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from PIL import Image, ImageDraw, ImageFont

from benchmarks.tool_judge.drawn import BLACK, WHITE, caption, filling, fitted, ground, header, stick, text_block
from benchmarks.tool_judge.draws import Draws, Made


def _story(image: Image.Image, draws: Draws) -> Made:
    """Put the photo on an upright background, with captions, stickers and a header."""
    width, height = 360, draws.one_of((640, 600, 480))
    canvas, behind = ground(image, width, height, draws)
    share, middle = draws.number(0.65, 1.0), draws.number(0.42, 0.58)
    photo = fitted(image, round(width * share), round(height * 0.75))
    angle = draws.number(-8, 8) if draws.chance(0.3) else 0.0
    layer = photo.convert("RGBA").rotate(angle, Image.Resampling.BICUBIC, expand=True)
    canvas.paste(layer, ((width - layer.width) // 2, round(height * middle - layer.height / 2)), layer)
    with_header, captions, stickers = draws.chance(0.6), draws.whole(0, 2), draws.whole(0, 2)
    if with_header:
        pen, parts = ImageDraw.Draw(canvas), draws.whole(1, 5)
        for part in range(parts):
            left = 6 + part * (width - 12) / parts
            pen.rectangle((left, 6, left + (width - 12) / parts - 4, 8), WHITE)
        header(canvas, draws, height=46, top=12)
    for where in draws.rng.permutation([0.2, 0.8, 0.9])[:captions]:
        caption(canvas, draws.words(1, 6), draws, draws.whole(18, 36), float(where))
    stuck = [stick(canvas, draws, low=0.12, high=0.28) for _ in range(stickers)]
    params = {"ground": behind, "share": share, "middle": middle, "angle": angle, "header": with_header}
    return canvas, params | {"captions": captions, "stickers": stuck}


def _meme(image: Image.Image, draws: Draws) -> Made:
    """Write text on the photo above and below, or on bands: one above the photo, or one above and one below."""
    way = draws.one_of(("on_photo", "band", "bands"))
    size = round(draws.number(0.07, 0.13) * image.width)
    texts = [draws.words(2, 7) for _ in range(2)]
    if way == "on_photo":
        canvas = image.copy()
        blocks = [text_block(text.upper(), image.width, size, WHITE, BLACK) for text in texts]
        canvas.paste(blocks[0], (0, 2), blocks[0])
        canvas.paste(blocks[1], (0, image.height - blocks[1].height - 2), blocks[1])
        return canvas, {"way": way, "texts": texts, "size": size}
    ink, paper = (BLACK, WHITE) if draws.chance(0.75) else (WHITE, BLACK)
    bands = [text_block(text, image.width, size, ink) for text in texts[: 2 if way == "bands" else 1]]
    heights = [band.height + size // 2 for band in bands]
    canvas = Image.new("RGB", (image.width, image.height + sum(heights)), paper)
    canvas.paste(image, (0, heights[0]))
    for band, top in zip(bands, (size // 4, heights[0] + image.height + size // 4), strict=False):
        canvas.paste(band, (0, top), band)
    return canvas, {"way": way, "texts": texts, "size": size}


def _two_panels(image: Image.Image, draws: Draws) -> Made:
    """Put the photo beside or above another one, with or without captions."""
    name, other = draws.other()
    upright, first, text = draws.chance(0.5), draws.chance(0.5), draws.chance(0.6)
    other = filling(other, *image.size)
    panels = [image.copy(), other] if first else [other, image.copy()]
    for panel in panels if text else ():
        caption(panel, draws.words(1, 5), draws, round(0.09 * image.width), draws.one_of((0.12, 0.85)))
    gap = draws.whole(0, 8)
    step = (0, image.height + gap) if upright else (image.width + gap, 0)
    canvas = Image.new("RGB", (image.width + step[0], image.height + step[1]), draws.one_of((WHITE, BLACK)))
    for number, panel in enumerate(panels):
        canvas.paste(panel, (step[0] * number, step[1] * number))
    return canvas, {"photo": name, "upright": upright, "first": first, "text": text, "gap": gap}


def _screenshot(image: Image.Image, draws: Draws) -> Made:
    """Show the photo as a post in a program: on a phone, in a chat, or in a browser window."""
    way, dark = draws.one_of(("post", "chat", "window")), draws.chance(0.4)
    paper, ink, line = ((18, 18, 20), (235, 235, 235), (60, 60, 64)) if dark else (WHITE, (20, 20, 20), (215, 215, 220))
    width, height = (560, 400) if way == "window" else (360, draws.one_of((560, 640, 700)))
    canvas = Image.new("RGB", (width, height), paper)
    pen, small = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    pen.text((14, 5), f"{draws.whole(0, 23)}:{draws.whole(10, 59)}", ink, small)
    pen.rounded_rectangle((width - 40, 8, width - 14, 18), 3, None, ink)
    pen.rectangle((width - 38, 10, width - 38 + draws.whole(5, 22), 16), ink)
    if way == "window":
        pen.rectangle((0, 26, width, 62), line)
        for number, colour in enumerate(((240, 90, 80), (245, 190, 60), (100, 200, 90))):
            pen.ellipse((12 + 18 * number, 38, 24 + 18 * number, 50), colour)
        pen.rounded_rectangle((90, 34, width - 30, 54), 10, paper)
        pen.text(
            (104, 36), f"www.{draws.one_of(('photos', 'news', 'forum'))}.example/{draws.whole(100, 9999)}", ink, small
        )
        photo = fitted(image, round(width * draws.number(0.5, 0.75)), height - 90)
        canvas.paste(photo, (20, 74))
        left, top = 20 + photo.width + 16, 84
        bottom = height - 10
    else:
        header(canvas, draws, height=46, top=28, ground=paper)
        share = 1.0 if way == "post" else draws.number(0.6, 0.8)
        photo = fitted(image, round(width * share), round(height * 0.6))
        left = 0 if way == "post" else draws.one_of((10, width - photo.width - 10))
        if way == "chat":
            pen.rounded_rectangle((left - 4, 86, left + photo.width + 4, 94 + photo.height), 8, line)
        canvas.paste(photo, (left if way == "chat" else (width - photo.width) // 2, 90))
        left, top, bottom = 14, 90 + photo.height + 14, height - 34
        for number in range(4):
            at = 20 + number * (width - 60) // 3
            pen.ellipse((at, height - 26, at + 16, height - 10), None, ink, 2)
    while top + 16 < bottom and left < width - 60:
        pen.rounded_rectangle((left, top, left + draws.number(0.4, 1) * (width - left - 14), top + 7), 3, line)
        if draws.chance(0.4):
            pen.text((left, top + 9), draws.words(2, 4), ink, small)
            top += 20
        top += 16
    return canvas, {"way": way, "dark": dark, "width": photo.width, "height": photo.height}


def _stickers(image: Image.Image, draws: Draws) -> Made:
    """Put two to five stickers and a line of text on the photo."""
    canvas = image.copy()
    stuck = [stick(canvas, draws, low=0.15, high=0.4) for _ in range(draws.whole(2, 5))]
    text = draws.words(2, 6)
    caption(canvas, text, draws, round(draws.number(0.07, 0.12) * image.width), draws.number(0.15, 0.85))
    return canvas, {"stickers": stuck, "text": text}


LAYOUTS: Mapping[str, Callable[[Image.Image, Draws], Made]] = MappingProxyType(
    {
        "story": _story,
        "meme": _meme,
        "two_panels": _two_panels,
        "screenshot": _screenshot,
        "stickers": _stickers,
    }
)
