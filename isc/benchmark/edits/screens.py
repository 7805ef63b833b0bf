"""Screenshots: the picture inside a drawn post, browser, chat or gallery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from isc.benchmark.edits.drawing import lettering, phrase
from isc.benchmark.edits.values import Colour, Edited, Other, pasted, pick, shift
from isc.photos.decode import Pixels


@dataclass(frozen=True)
class Theme:
    """The colours of a screen."""

    paper: Colour
    bar: Colour
    ink: Colour
    faint: Colour
    accent: Colour


LIGHT = Theme((255, 255, 255), (240, 242, 245), (20, 20, 24), (200, 203, 210), (24, 119, 242))
DARK = Theme((18, 18, 20), (36, 37, 42), (235, 236, 240), (75, 77, 85), (60, 150, 255))


class Screen:
    """A canvas drawn at twice its size, for smooth edges; all measures are in pixels of the result."""

    def __init__(self, width: float, height: float, paper: Colour) -> None:
        self.width, self.height = round(width), round(height)
        self.image = Image.new("RGB", (2 * self.width, 2 * self.height), paper)
        self.pen = ImageDraw.Draw(self.image)

    def bar(self, x: float, y: float, width: float, height: float, fill: Colour, *, round_by: float = 0) -> None:
        if width >= 1 and height >= 1:
            self.pen.rounded_rectangle((2 * x, 2 * y, 2 * (x + width), 2 * (y + height)), 2 * round_by, fill=fill)

    def disc(self, x: float, y: float, radius: float, fill: Colour) -> None:
        self.pen.ellipse((2 * (x - radius), 2 * (y - radius), 2 * (x + radius), 2 * (y + radius)), fill=fill)

    def ring(self, x: float, y: float, radius: float, colour: Colour) -> None:
        box = (2 * (x - radius), 2 * (y - radius), 2 * (x + radius), 2 * (y + radius))
        self.pen.ellipse(box, outline=colour, width=max(2, round(radius / 3)))

    def heart(self, x: float, y: float, radius: float, fill: Colour) -> None:
        for side in (-1, 1):
            self.disc(x + side * radius / 2, y - radius / 4, radius / 1.8, fill)
        corners = [(x - radius, y), (x + radius, y), (x, y + radius)]
        self.pen.polygon([(2 * a, 2 * b) for a, b in corners], fill=fill)

    def label(self, words: str, x: float, y: float, height: float, colour: Colour, *, width: float) -> None:
        """Draw a line of text `height` pixels high with its upper left corner at (x, y), shrunk to fit the width."""
        mask = Image.fromarray(lettering(words, "aileron", 40))
        scale = min(2 * height / 40, 2 * width / mask.width)
        size = (max(1, round(mask.width * scale)), max(1, round(mask.height * scale)))
        self.image.paste(colour, (round(2 * x), round(2 * y)), mask.resize(size, Image.Resampling.BOX))

    def pixels(self) -> Pixels:
        return np.asarray(self.image.resize((self.width, self.height), Image.Resampling.BOX))


Layout = Callable[[float, float, np.random.Generator, Theme], tuple[Screen, float, float]]


def _avatar(screen: Screen, x: float, y: float, radius: float, rng: np.random.Generator) -> None:
    red, green, blue = (int(value) for value in rng.integers(60, 230, 3))
    screen.disc(x, y, radius, (red, green, blue))
    screen.disc(x, y - radius * 0.2, radius * 0.38, (245, 225, 205))
    screen.bar(x - radius * 0.55, y + radius * 0.3, radius * 1.1, radius * 0.45, (245, 225, 205), round_by=radius * 0.2)


def _lines(
    screen: Screen,
    rng: np.random.Generator,
    *,
    at: tuple[float, float],
    width: float,
    unit: float,
    fill: Colour,
    number: int = 1,
) -> None:
    """Draw bars as placeholders of text lines, `unit` high, 0.9 × `unit` apart, half to all of `width` long."""
    x, y = at
    for i in range(number):
        screen.bar(x, y + 1.9 * i * unit, width * float(rng.uniform(0.5, 1)), unit, fill, round_by=unit / 2)


def _status_bar(screen: Screen, unit: float, theme: Theme, rng: np.random.Generator) -> float:
    """Draw the status bar of a phone with time and battery, and return its height in pixels."""
    screen.bar(0, 0, screen.width, 6 * unit, theme.bar)
    clock = f"{rng.integers(24):02d}:{rng.integers(60):02d}"
    screen.label(clock, 4 * unit, 1.8 * unit, 3.4 * unit, theme.ink, width=16 * unit)
    screen.bar(screen.width - 11 * unit, 2 * unit, 7 * unit, 2.6 * unit, theme.ink, round_by=unit / 2)
    for i in range(3):
        screen.disc(screen.width - (15 + 3 * i) * unit, 3.2 * unit, unit, theme.faint)
    return 6 * unit


def _post(width: float, height: float, rng: np.random.Generator, theme: Theme) -> tuple[Screen, float, float]:
    """Draw a phone with a post: status bar, author, room for the picture, buttons, likes and comments.

    Returns the screen, and the left and top of the picture in pixels, as every Layout does.
    """
    u = width / 100
    margin = float(rng.choice([0, 3])) * u
    u = (width + 2 * margin) / 100
    comments = int(rng.integers(1, 5))
    top = 20 * u
    screen = Screen(width + 2 * margin, top + height + (26 + 4 * comments + 10) * u, theme.paper)
    y = _status_bar(screen, u, theme, rng)
    _avatar(screen, 9 * u, y + 7 * u, 4.6 * u, rng)
    screen.label(phrase(rng), 17 * u, y + 3.4 * u, 4 * u, theme.ink, width=50 * u)
    _lines(screen, rng, at=(17 * u, y + 8.6 * u), width=25 * u, unit=1.8 * u, fill=theme.faint)
    for i in range(3):
        screen.disc(93 * u, y + (4.5 + 2.5 * i) * u, 0.8 * u, theme.ink)
    y = top + height + 6 * u
    screen.heart(8 * u, y, 3.4 * u, (237, 73, 86) if rng.random() < 0.6 else theme.ink)
    screen.ring(20 * u, y, 3.2 * u, theme.ink)
    screen.pen.polygon([(2 * a * u, 2 * (y + b * u)) for a, b in ((29, -3), (36, -3), (32, 4))], fill=theme.ink)
    screen.bar(91 * u, y - 3.2 * u, 4 * u, 6.4 * u, theme.ink)
    screen.label(f"{int(rng.integers(2, 99999)):,} likes", 5 * u, y + 6 * u, 3.6 * u, theme.ink, width=60 * u)
    screen.label(phrase(rng), 5 * u, y + 11.5 * u, 3.6 * u, theme.ink, width=80 * u)
    _lines(screen, rng, at=(5 * u, y + 17 * u), width=85 * u, unit=2 * u, number=comments, fill=theme.faint)
    screen.bar(0, screen.height - 9 * u, screen.width, 9 * u, theme.bar)
    for i in range(5):
        screen.ring((10 + 20 * i) * u, screen.height - 4.5 * u, 2.2 * u, theme.ink)
    return screen, margin, top


def _browser(width: float, height: float, rng: np.random.Generator, theme: Theme) -> tuple[Screen, float, float]:
    """Draw a browser window: tabs, address bar, a headline over the picture, text below, at times a side column."""
    u = max(width, height) / 100
    beside = float(rng.choice([0, 0.35])) * width
    screen = Screen(width + beside + 16 * u, height + 55 * u, theme.paper)
    screen.bar(0, 0, screen.width, 7 * u, theme.faint)
    screen.bar(12 * u, 1.5 * u, 34 * u, 7 * u, theme.bar, round_by=1.5 * u)
    for i, colour in enumerate(((255, 95, 86), (255, 189, 46), (39, 201, 63))):
        screen.disc((2.5 + 3 * i) * u, 3.6 * u, u, colour)
    screen.label(phrase(rng), 15 * u, 3 * u, 2.6 * u, theme.ink, width=26 * u)
    screen.bar(0, 7 * u, screen.width, 8 * u, theme.bar)
    screen.bar(14 * u, 8.6 * u, screen.width - 22 * u, 4.8 * u, theme.paper, round_by=2.4 * u)
    screen.label("www.example.org/stories/today", 17 * u, 9.6 * u, 2.8 * u, theme.faint, width=screen.width - 30 * u)
    screen.label(phrase(rng), 8 * u, 18.5 * u, 6 * u, theme.ink, width=0.9 * width)
    _lines(screen, rng, at=(8 * u, 26 * u), width=0.6 * width, unit=1.4 * u, fill=theme.faint)
    top = 30 * u
    _lines(screen, rng, at=(8 * u, top + height + 4 * u), width=width, unit=1.7 * u, number=4, fill=theme.faint)
    screen.bar(8 * u, top + height + 17 * u, 20 * u, 4 * u, theme.accent, round_by=u)
    if beside:
        _lines(
            screen,
            rng,
            at=(width + 11 * u, top),
            width=beside - 3 * u,
            unit=1.7 * u,
            number=int(height / (4.5 * u)),
            fill=theme.faint,
        )
    return screen, 8 * u, top


def _chat(width: float, height: float, rng: np.random.Generator, theme: Theme) -> tuple[Screen, float, float]:
    """Draw a chat: a name at the top, messages left and right, the picture as one of them, an input line."""
    u = width / 75
    before = int(rng.integers(0, 3))
    left = rng.random() < 0.5
    top = (22 + 13 * before) * u
    screen = Screen(100 * u, top + height + 34 * u, theme.bar)
    y = _status_bar(screen, u, theme, rng)
    screen.bar(0, y, screen.width, 12 * u, theme.paper)
    _avatar(screen, 14 * u, y + 6 * u, 4.4 * u, rng)
    screen.label(phrase(rng), 22 * u, y + 4 * u, 4.2 * u, theme.ink, width=55 * u)
    for i in range(before):
        _message(screen, (22 + 13 * i) * u, u, rng, theme)
    x = 5 * u if left else 20 * u
    fill = theme.paper if left else theme.accent
    screen.bar(x - 1.5 * u, top - 1.5 * u, width + 3 * u, height + 3 * u, fill, round_by=2 * u)
    _message(screen, top + height + 5 * u, u, rng, theme)
    screen.bar(4 * u, screen.height - 12 * u, 78 * u, 9 * u, theme.paper, round_by=4.5 * u)
    screen.disc(91 * u, screen.height - 7.5 * u, 4.8 * u, theme.accent)
    return screen, x, top


def _message(screen: Screen, y: float, u: float, rng: np.random.Generator, theme: Theme) -> None:
    mine, width = rng.random() < 0.5, float(rng.uniform(35, 65)) * u
    x = screen.width - width - 5 * u if mine else 5 * u
    screen.bar(x, y, width, 9 * u, theme.accent if mine else theme.paper, round_by=4 * u)
    ink = (255, 255, 255) if mine else theme.ink
    screen.label(phrase(rng), x + 3 * u, y + 2.8 * u, 3.6 * u, ink, width=width - 6 * u)


def _gallery(width: float, height: float, rng: np.random.Generator, theme: Theme) -> tuple[Screen, float, float]:
    """Draw a phone gallery with the picture alone: bars above and below with a title, a date, and round buttons."""
    u = width / 100
    top = (20 + float(rng.uniform(0, 30))) * u
    screen = Screen(width, top + height + (20 + float(rng.uniform(0, 30))) * u, theme.paper)
    y = _status_bar(screen, u, theme, rng)
    screen.pen.line([(2 * 8 * u, 2 * (y + 4 * u)), (2 * 5 * u, 2 * (y + 7 * u)), (2 * 8 * u, 2 * (y + 10 * u))],
                    fill=theme.accent, width=max(2, round(2 * u)))  # fmt: skip
    screen.label(phrase(rng), 30 * u, y + 3 * u, 4 * u, theme.ink, width=40 * u)
    screen.label(
        f"{rng.integers(1, 29)}.{rng.integers(1, 13)}.2021", 42 * u, y + 8.5 * u, 3 * u, theme.faint, width=20 * u
    )
    for i in range(4):
        screen.ring((14 + 24 * i) * u, screen.height - 9 * u, 3.6 * u, theme.accent)
        screen.bar((12.6 + 24 * i) * u, screen.height - 10 * u, 2.8 * u, 2 * u, theme.accent)
    return screen, 0.0, top


LAYOUTS: dict[str, Layout] = {"post": _post, "browser": _browser, "chat": _chat, "gallery": _gallery}


def screenshot(pixels: Pixels, rng: np.random.Generator, _other: Other) -> Edited:
    """Show the picture unscaled on a drawn screen, light or dark: a post, a browser page, a chat or a gallery."""
    layout, theme = pick(rng, tuple(LAYOUTS)), pick(rng, ("light", "dark"))
    height, width = pixels.shape[:2]
    screen, left, top = LAYOUTS[layout](width, height, rng, LIGHT if theme == "light" else DARK)
    x, y = round(left), round(top)
    return Edited(pasted(screen.pixels(), pixels, x=x, y=y), {"layout": layout, "theme": theme}, shift(x, y))
