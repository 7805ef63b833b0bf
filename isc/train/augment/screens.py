"""Screenshots drawn by code, light and dark: a browser window, a phone app, a post in a social network.

Each has the shape of the photo, and shows the photo squeezed into it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from isc.photos.decode import Pixels
from isc.train.augment.attack import Attack, Colour, any_colour, plain, put, scaled
from isc.train.augment.drawing import EMOJI, put_sprite, some_font, some_words, sprite, write

LIGHT: tuple[Colour, Colour, Colour] = (255, 255, 255), (236, 238, 241), (30, 32, 36)  # ground, bar, ink
DARK: tuple[Colour, Colour, Colour] = (21, 24, 28), (40, 43, 50), (232, 234, 237)
FAINT: Colour = (134, 142, 150)


@dataclass
class Screen:
    """A screen [H, W, 3] being drawn; the photo takes about the share `share` of its width and height."""

    pixels: Pixels
    photo: Pixels
    rng: np.random.Generator
    share: float
    bar: Colour
    ink: Colour

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    def box(self, top: float, left: float, bottom: float, right: float, colour: Colour) -> None:
        """Draw a filled rectangle; its edges are shares of height and width."""
        y, x = round(top * self.height), round(left * self.width)
        self.pixels[y : round(bottom * self.height), x : round(right * self.width)] = colour

    def disc(self, y: float, x: float, radius: float, colour: Colour, *, thickness: int = -1) -> None:
        centre, r = (round(x * self.width), round(y * self.height)), max(1, round(radius * self.height))
        cv2.circle(self.pixels, centre, r, colour, thickness, cv2.LINE_AA)

    def line(
        self, text: str, font: str, *, top: float, left: float, size: float, width: float, faint: bool = False
    ) -> None:
        write(
            self.pixels, text, font, FAINT if faint else self.ink, top=round(top * self.height),
            left=round(left * self.width), height=round(size * self.height), width=round(width * self.width),
        )  # fmt: skip

    def words(self, *, top: float, left: float, size: float, width: float, most: int = 6, faint: bool = False) -> None:
        script, font = some_font(self.rng, latin=0.7)
        text = some_words(self.rng, script, most=most)
        self.line(text, font, top=top, left=left, size=size, width=width, faint=faint)

    def place_photo(self, top: float, left: float, bottom: float, right: float) -> None:
        y, x = round(top * self.height), round(left * self.width)
        size = round(right * self.width) - x, round(bottom * self.height) - y
        put(self.pixels, scaled(self.photo, max(1, size[0]), max(1, size[1])), top=y, left=x)


def browser(screen: Screen) -> None:
    """Draw a browser window: a tab, an address bar, a heading, the photo and lines of text."""
    rng = screen.rng
    script, font = some_font(rng, latin=1.0)
    screen.box(0, 0, 0.15, 1, screen.bar)
    screen.box(0.02, 0.16, 0.08, 0.45, towards(screen.bar, screen.ink, 0.08))
    screen.line("photo", font, top=0.035, left=0.19, size=0.045, width=0.2)
    for number, colour in enumerate(((237, 106, 94), (245, 191, 79), (98, 197, 84))):
        screen.disc(0.045, 0.03 + 0.04 * number, 0.013, colour)
    screen.box(0.09, 0.12, 0.14, 0.93, towards(screen.bar, screen.ink, 0.05))
    screen.line(f"www.{some_words(rng, script, most=1).lower()}.com/p/{rng.integers(9999)}", font, top=0.1, left=0.15,
                size=0.04, width=0.6, faint=True)  # fmt: skip
    screen.words(top=0.18, left=0.06, size=0.08, width=0.88)
    left = float(rng.choice([0.06, max(0.06, (1 - screen.share) / 2), max(0.06, 0.94 - screen.share)]))
    right, bottom = min(0.97, left + screen.share), min(0.98, 0.28 + screen.share)
    screen.place_photo(0.28, left, bottom, right)
    for top in np.arange(bottom + 0.04, 0.97, 0.05):
        screen.box(top, 0.06, top + 0.015, 0.06 + rng.uniform(0.5, 0.88), FAINT)
    if right < 0.7:
        for top in np.arange(0.3, bottom, 0.05):
            screen.box(top, right + 0.04, top + 0.015, rng.uniform(right + 0.1, 0.96), FAINT)


def phone(screen: Screen) -> None:
    """Draw a phone app: status bar with clock and battery, title, the photo over the whole width, icons, bottom bar."""
    rng = screen.rng
    _, font = some_font(rng, latin=1.0)
    screen.line(f"{rng.integers(24)}:{rng.integers(60):02d}", font, top=0.012, left=0.06, size=0.045, width=0.2)
    screen.box(0.015, 0.86, 0.04, 0.94, screen.ink)
    for bar in range(4):
        screen.box(0.036 - 0.006 * bar, 0.74 + 0.022 * bar, 0.04, 0.755 + 0.022 * bar, screen.ink)
    screen.box(0.06, 0, 0.14, 1, screen.bar)
    screen.words(top=0.08, left=0.12, size=0.06, width=0.6, most=2)
    screen.box(0.095, 0.04, 0.105, 0.09, screen.ink)
    tall = 0.72 * screen.share
    top = float(rng.choice([0.14, 0.14 + (0.74 - tall) / 2]))
    screen.place_photo(top, 0, top + tall, 1)
    for x in (0.07, 0.17, 0.27, 0.93):
        screen.disc(top + tall + 0.045, x, 0.018, screen.ink, thickness=1)
    if top + tall < 0.75:
        screen.words(top=top + tall + 0.08, left=0.05, size=0.05, width=0.85, faint=True)
    screen.box(0.92, 0, 1, 1, screen.bar)
    for x in (0.2, 0.5, 0.8):
        screen.disc(0.96, x, 0.015, screen.ink, thickness=1)


def post(screen: Screen) -> None:
    """Draw a post: an avatar, a name, a line of text, at times an emoji, the photo, and counters."""
    rng = screen.rng
    script, font = some_font(rng, latin=1.0)
    left = float(rng.choice([0.05, 0.16]))
    screen.disc(0.09, 0.09, 0.055, any_colour(rng))
    name = some_words(rng, script, most=2)
    screen.line(name.title(), font, top=0.04, left=0.18, size=0.06, width=0.45)
    handle = f"@{name.split()[0].lower()} - {rng.integers(1, 24)}h"
    screen.line(handle, font, top=0.1, left=0.18, size=0.045, width=0.4, faint=True)
    screen.words(top=0.17, left=left, size=0.065, width=0.9 - left, most=7)
    if rng.random() < 0.4:
        side = max(4, round(0.07 * screen.height))
        small = scaled(sprite(int(rng.integers(len(EMOJI)))), side, side)
        put_sprite(screen.pixels, small, top=round(0.05 * screen.height), left=round(0.85 * screen.width))
    bottom = min(0.88, 0.26 + screen.share)
    screen.place_photo(0.26, left, bottom, min(0.95, left + max(screen.share, 0.5)))
    for x in (0.1, 0.35, 0.6, 0.85):
        screen.disc(bottom + 0.055, x, 0.017, FAINT, thickness=1)
        if x < 0.7:
            count = f"{rng.integers(1, 999)}{'K' if rng.random() < 0.3 else ''}"
            screen.line(count, font, top=bottom + 0.035, left=x + 0.035, size=0.045, width=0.12, faint=True)


def towards(a: Colour, b: Colour, share: float) -> Colour:
    """Move colour a towards colour b by this share 0…1."""
    red, green, blue = (round(x + share * (y - x)) for x, y in zip(a, b, strict=True))
    return red, green, blue


class Screenshot(Attack):
    """The photo in a browser, an app or a post, at about 35–90 % of the screen's width or height."""

    shrinks = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        ground, bar, ink = LIGHT if rng.random() < 0.6 else DARK
        share = self.amount(rng, 0.9, 0.35)
        screen = Screen(plain(picture.shape, ground), picture, rng, share, bar, ink)
        (browser, phone, post)[rng.integers(3)](screen)
        return screen.pixels
