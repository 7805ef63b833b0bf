"""Attacks that put the photo into a layout: collage, picture in picture, story, two panels, demotivator."""

from __future__ import annotations

import math

import cv2
import numpy as np

from isc.photos.decode import Pixels
from isc.train.augment.attack import (
    Attack,
    Colour,
    Composition,
    OtherPhoto,
    any_colour,
    plain,
    plain_colour,
    put,
    scaled,
)
from isc.train.augment.drawing import EMOJI, ink, lettering, narrowed, put_sprite, some_font, some_words, sprite
from isc.train.augment.fields import linear_gradient, put_masked, ramp_between, rounded
from isc.train.augment.geometry import blurred

# (rows, columns); a higher strength allows more of the later, finer ones
GRIDS = ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (2, 3), (3, 2), (3, 3))


def filling(photo: Pixels, width: int, height: int, rng: np.random.Generator) -> Pixels:
    """Fit the photo to [height, width, 3]: squeezed, or with its sides cut off."""
    if rng.random() < 0.5:
        return scaled(photo, width, height)
    tall, wide = photo.shape[:2]
    share = min(wide / max(1, width), tall / max(1, height))
    part = min(tall, max(1, round(share * height))), min(wide, max(1, round(share * width)))
    top, left = (tall - part[0]) // 2, (wide - part[1]) // 2
    return scaled(np.ascontiguousarray(photo[top : top + part[0], left : left + part[1]]), width, height)


def some_ground(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Return a ground of the picture's shape: one colour, a gradient of two, or the blurred picture."""
    kind = rng.random()
    if kind < 0.3:
        return plain(picture.shape, plain_colour(picture, rng))
    if kind < 0.7:
        return ramp_between(
            any_colour(rng), any_colour(rng), linear_gradient(picture.shape, rng.uniform(0, 2 * math.pi))
        )
    return blurred(picture)


def line_of_text(
    picture: Pixels, rng: np.random.Generator, colour: Colour, *, top: float, height: float, most: int = 4
) -> None:
    """Write words in the middle of the width, in place; `top` and `height` are shares of the picture's height."""
    full, width = picture.shape[:2]
    script, font = some_font(rng, latin=0.75)
    mask = lettering(some_words(rng, script, most=most), font, height=max(6, round(height * full)))[0]
    mask = narrowed(mask, max(1, round(0.92 * width)))
    ink(picture, mask, colour, top=round(top * full), left=(width - mask.shape[1]) // 2)


def framed(ground: Pixels, patch: Pixels, rng: np.random.Generator, *, top: int, left: int) -> None:
    """Lay a patch on the ground, in place: plain, with a border, or with round corners and at times a shadow."""
    height, width = patch.shape[:2]
    edge = max(1, round(rng.uniform(0.01, 0.05) * max(height, width)))
    kind = rng.random()
    if kind < 0.25:
        put(ground, patch, top=top, left=left)
    elif kind < 0.55:
        colour = (255, 255, 255) if rng.random() < 0.6 else any_colour(rng)
        put(ground, plain((height + 2 * edge, width + 2 * edge), colour), top=top - edge, left=left - edge)
        put(ground, patch, top=top, left=left)
    else:
        mask = rounded(height, width, round(rng.uniform(0.05, 0.3) * min(height, width)))
        if rng.random() < 0.5:
            shadow = np.asarray(cv2.blur(mask, (edge * 2 + 1,) * 2), np.float32) * np.float32(0.6)
            put_masked(ground, np.zeros_like(patch), shadow, top=top + edge, left=left + edge)
        put_masked(ground, patch, mask, top=top, left=left)


class Collage(Composition):
    """The photo as one of 2, 3, 4, 6 or 9 tiles; the other tiles show parts of another photo."""

    shrinks = True

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        rows, columns = GRIDS[rng.integers(2 + round((len(GRIDS) - 2) * self.strength))]
        gap = round(rng.uniform(0.01, 0.04) * min(height, width)) if rng.random() < 0.5 else 0
        result = plain(picture.shape, plain_colour(picture, rng))
        neighbour, ours = other(), int(rng.integers(rows * columns))
        ys = np.linspace(0, height, rows + 1).round().astype(int)
        xs = np.linspace(0, width, columns + 1).round().astype(int)
        for number in range(rows * columns):
            row, column = divmod(number, columns)
            high = max(1, int(ys[row + 1] - ys[row]) - gap)
            wide = max(1, int(xs[column + 1] - xs[column]) - gap)
            tile = filling(picture if number == ours else _part(neighbour, rng), wide, high, rng)
            put(result, tile, top=int(ys[row]) + gap // 2, left=int(xs[column]) + gap // 2)
        return result


def _part(photo: Pixels, rng: np.random.Generator) -> Pixels:
    """Return a quarter to all of the photo, mirrored with probability ½."""
    share = rng.uniform(0.5, 1)
    part = [max(1, round(share * side)) for side in photo.shape[:2]]
    top, left = (int(rng.integers(0, side - p + 1)) for side, p in zip(photo.shape[:2], part, strict=True))
    cut = photo[top : top + part[0], left : left + part[1]]
    return np.ascontiguousarray(cut[:, ::-1] if rng.random() < 0.5 else cut)


class PictureInPicture(Composition):
    """The photo at 30–75 % of the side on another photo, mostly in a corner; border, shadow or round corners."""

    shrinks = True

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        neighbour = scaled(other(), width, height)
        result = blurred(neighbour) if rng.random() < 0.2 else np.array(neighbour)
        share = self.amount(rng, 0.75, 0.3)
        patch = scaled(picture, max(1, round(share * width)), max(1, round(share * height)))
        top, left = _corner(picture.shape, patch.shape, rng)
        framed(result, patch, rng, top=top, left=left)
        return result


class Inset(Composition):
    """Another photo on this one, mostly in a corner, 20–55 % of the side; border, shadow, round corners or ellipse."""

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        result, share = picture.copy(), self.amount(rng, 0.2, 0.55)
        patch = filling(other(), max(1, round(share * width)), max(1, round(share * height)), rng)
        top, left = _corner(picture.shape, patch.shape, rng)
        if rng.random() < 0.2:
            mask = rounded(patch.shape[0], patch.shape[1], max(patch.shape))
            put_masked(result, np.ascontiguousarray(patch), mask, top=top, left=left)
        else:
            framed(result, patch, rng, top=top, left=left)
        return result


def _corner(full: tuple[int, ...], part: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
    """Draw the (top, left) of a patch: in a corner with a margin of 4 %, in the middle, or anywhere."""
    room = [max(0, a - b) for a, b in zip(full[:2], part[:2], strict=True)]
    kind = rng.random()
    if kind < 0.65:
        margin = [min(space, round(0.04 * side)) for space, side in zip(room, full[:2], strict=True)]
        ends = rng.integers(2, size=2)
        top, left = (space - m if end else m for space, m, end in zip(room, margin, ends, strict=True))
        return top, left
    if kind < 0.75:
        return room[0] // 2, room[1] // 2
    return int(rng.integers(0, room[0] + 1)), int(rng.integers(0, room[1] + 1))


class Story(Attack):
    """A social-media story: ground, header, the photo at 50–95 % of the width, a caption on a label, stickers."""

    shrinks = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        result = some_ground(picture, rng)
        share = self.amount(rng, 0.95, 0.5)
        tall = max(1, round(share * rng.uniform(0.75, 1) * height))
        patch = scaled(picture, max(1, round(share * width)), tall)
        top, left = (height - tall) // 2, (width - patch.shape[1]) // 2
        corner = round(rng.choice([0.0, 0.04, 0.1]) * min(height, width))
        put_masked(result, np.ascontiguousarray(patch), rounded(tall, patch.shape[1], corner), top=top, left=left)
        if rng.random() < 0.6:
            self._header(result, rng)
        if rng.random() < 0.6:
            self._chip(result, rng)
        for _ in range(int(rng.integers(0, 3))):
            side = max(2, round(self.amount(rng, 0.08, 0.22) * min(height, width)))
            y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
            put_sprite(result, scaled(sprite(int(rng.integers(len(EMOJI)))), side, side), top=y, left=x)
        return result

    def _header(self, screen: Pixels, rng: np.random.Generator) -> None:
        """Draw a progress bar, an avatar and a name, in place."""
        height, width = screen.shape[:2]
        thick = max(1, height // 90)
        screen[height // 50 : height // 50 + thick, width // 30 : width - width // 30] = 235
        centre, radius = (round(0.09 * width), round(0.085 * height)), max(1, round(0.04 * height))
        cv2.circle(screen, centre, radius, any_colour(rng), -1, cv2.LINE_AA)
        script, font = some_font(rng, latin=1.0)
        mask = lettering(some_words(rng, script, most=2), font, height=max(6, round(0.06 * height)))[0]
        mask = narrowed(mask, max(1, round(0.5 * width)))
        ink(screen, mask, (255, 255, 255), top=round(0.06 * height), left=round(0.15 * width))

    def _chip(self, screen: Pixels, rng: np.random.Generator) -> None:
        """Write words on a rounded label below the middle, in place."""
        height, width = screen.shape[:2]
        script, font = some_font(rng, latin=0.75)
        mask = lettering(some_words(rng, script, most=3), font, height=max(6, round(rng.uniform(0.06, 0.1) * height)))[
            0
        ]
        mask = narrowed(mask, max(1, round(0.8 * width)))
        pad = max(1, round(0.02 * height))
        size = mask.shape[0] + 2 * pad, mask.shape[1] + 4 * pad
        dark = rng.random() < 0.5
        colour, words = ((0, 0, 0), (255, 255, 255)) if dark else ((255, 255, 255), (20, 20, 20))
        top, left = round(rng.uniform(0.5, 0.85) * height), (width - size[1]) // 2
        put_masked(screen, plain(size, colour), rounded(*size, size[0] // 2), top=top, left=left)
        ink(screen, mask, words, top=top + pad, left=left + 2 * pad)


class TwoPanels(Composition):
    """A meme of two panels, the photo and another photo, with or without a caption."""

    shrinks = True

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        white = rng.random() < 0.7
        result = plain(picture.shape, (255, 255, 255) if white else (0, 0, 0))
        words = (15, 15, 15) if white else (245, 245, 245)
        share = 1 - self.amount(rng, 0.3, 0.55)  # of the panel with this photo
        band = rng.uniform(0.1, 0.2) if rng.random() < 0.6 else 0.0
        panels = [picture, other()] if rng.random() < 0.5 else [other(), picture]
        first = share if panels[0] is picture else 1 - share
        room = round((1 - band) * height)
        if rng.random() < 0.5:  # one above the other
            cut = max(1, round(first * room))
            put(result, filling(panels[0], width, cut, rng), top=height - room, left=0)
            put(result, filling(panels[1], width, max(1, room - cut), rng), top=height - room + cut, left=0)
        else:
            cut = max(1, round(first * width))
            put(result, filling(panels[0], cut, max(1, room), rng), top=height - room, left=0)
            put(result, filling(panels[1], max(1, width - cut), max(1, room), rng), top=height - room, left=cut)
        if band:
            line_of_text(result, rng, words, top=0.15 * band, height=0.7 * band)
        return result


class Demotivator(Attack):
    """A wide black or white frame, a thin line around the photo, and words below; 55–90 % of the side stays."""

    shrinks = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        ground: Colour = (0, 0, 0) if rng.random() < 0.6 else (255, 255, 255)
        line: Colour = (255 - ground[0],) * 3
        result = plain(picture.shape, ground)
        share = self.amount(rng, 0.9, 0.55)
        patch = scaled(picture, max(1, round(share * width)), max(1, round(share * 0.95 * height)))
        top, left = max(0, round((height - patch.shape[0]) * 0.3)), (width - patch.shape[1]) // 2
        edge = max(2, height // 60)
        if rng.random() < 0.8:
            corner = left + patch.shape[1] + edge - 1, top + patch.shape[0] + edge - 1
            cv2.rectangle(result, (left - edge, top - edge), corner, line, 1)
        put(result, patch, top=top, left=left)
        below = (top + patch.shape[0] + 2 * edge) / height
        title = min(0.14, 0.55 * (1 - below))
        if title > 0.03:
            line_of_text(result, rng, line, top=below, height=title, most=3)
            if rng.random() < 0.6:
                line_of_text(result, rng, line, top=below + 1.15 * title, height=0.5 * title, most=6)
        return result
