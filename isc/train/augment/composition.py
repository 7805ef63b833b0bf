"""Attacks that compose the photo with another photo, text, emoji, captions, stripes or a veil."""

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
    blend,
    plain,
    plain_colour,
    put,
    put_anywhere,
    scaled,
)
from isc.train.augment.drawing import EMOJI, Mask, ink, lettering, narrowed, put_sprite, some_font, some_words, sprite

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)


class PasteOnPhoto(Composition):
    """The photo on another photo: 20–80 % of each side, aspect changed by up to 1.3, opacity 0.4–1 (mostly 1)."""

    shrinks = True

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        result = scaled(other(), width, height).copy()
        share, stretch = self.amount(rng, 0.8, 0.2), math.exp(rng.uniform(-0.13, 0.13))
        sides = min(height, max(1, round(share * stretch * height))), min(width, max(1, round(share / stretch * width)))
        opacity = 1.0 if rng.random() < 0.6 else self.amount(rng, 1.0, 0.4)
        put_anywhere(result, scaled(picture, sides[1], sides[0]), rng, opacity=opacity)
        return result


class PastePhotoOn(Composition):
    """Another photo on the photo: 15–55 % of each side, opacity 0.4–1; or (1 in 6) over all of it, opacity 0.15–0.5."""

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        if rng.random() < 1 / 6:
            return blend(picture, scaled(other(), width, height), self.amount(rng, 0.15, 0.5))
        result = picture.copy()
        sides = [max(1, round(self.amount(rng, 0.15, 0.55) * side)) for side in (height, width)]
        opacity = 1.0 if rng.random() < 0.6 else self.amount(rng, 1.0, 0.4)
        put_anywhere(result, scaled(other(), sides[1], sides[0]), rng, opacity=opacity)
        return result


class Emoji(Attack):
    """One to four emoji of 10–50 % of the side, at times rotated, half transparent or partly outside."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        result = picture.copy()
        for _ in range(int(rng.integers(1, 2 + round(3 * self.strength)))):
            image = sprite(int(rng.integers(len(EMOJI))))
            if rng.random() < 0.3:
                centre = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
                matrix = cv2.getRotationMatrix2D(centre, rng.uniform(-60, 60), 1.0)
                image = np.asarray(cv2.warpAffine(image, matrix, image.shape[1::-1]), np.uint8)
            side = max(2, round(self.amount(rng, 0.1, 0.5) * min(picture.shape[:2])))
            image = scaled(image, side, side)
            top, left = (int(rng.uniform(-0.3 * side, full - 0.7 * side)) for full in picture.shape[:2])
            opacity = 1.0 if rng.random() < 0.8 else rng.uniform(0.5, 1.0)
            put_sprite(result, image, top=top, left=left, opacity=opacity)
        return result


class Text(Attack):
    """One to three lines of text in a font of this machine, each 8–30 % of the side high; outlined, boxed or turned."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        result = picture.copy()
        outline = int(rng.integers(1, 3)) if rng.random() < 0.4 else 0
        inked, edged = self._lines(picture.shape[0], rng, outline=outline)
        if rng.random() < 0.15:
            inked, edged = np.ascontiguousarray(np.rot90(inked)), np.ascontiguousarray(np.rot90(edged))
        colour, edge = (any_colour(rng), any_colour(rng)) if rng.random() < 0.6 else (WHITE, BLACK)
        opacity = 1.0 if rng.random() < 0.75 else rng.uniform(0.5, 1.0)
        # anywhere on the picture; text larger than the picture is cut on both sides
        top, left = (
            int(rng.uniform(min(0, room) - 0.05 * full, max(0, room) + 0.05 * full))
            for full, room in ((full, full - part) for full, part in zip(picture.shape, inked.shape, strict=False))
        )
        if rng.random() < 0.15:
            put(result, plain(edged.shape, edge), top=top, left=left, opacity=opacity)
        elif outline:
            ink(result, edged, edge, top=top, left=left, opacity=opacity)
        ink(result, inked, colour, top=top, left=left, opacity=opacity)
        return result

    def _lines(self, side: int, rng: np.random.Generator, *, outline: int) -> tuple[Mask, Mask]:
        """Draw a block of one to three lines, mostly one, as the masks (ink, ink with outline)."""
        script, font = some_font(rng)
        height = max(6, round(self.amount(rng, 0.08, 0.3) * side))
        count = int(rng.integers(1, 4)) if rng.random() < 0.3 else 1
        lines = [lettering(some_words(rng, script, most=4), font, height=height, outline=outline) for _ in range(count)]
        wide = max(inked.shape[1] for inked, _ in lines)
        inked, edged = (
            np.vstack([np.pad(line[which], ((0, height // 6), (0, wide - line[which].shape[1]))) for line in lines])
            for which in (0, 1)
        )
        return inked, edged


class Meme(Attack):
    """A meme caption above, below or both: large words on white or black bands of 8–30 %, or outlined on the photo."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        band = max(6, round(self.amount(rng, 0.08, 0.3) * height))
        above = rng.random() < 0.7
        below = not above or rng.random() < 0.4
        if rng.random() < 0.55:
            ground, colour = (WHITE, BLACK) if rng.random() < 0.7 else (BLACK, WHITE)
            result, outline = plain(picture.shape, ground), 0
            put(result, scaled(picture, width, max(1, height - (above + below) * band)), top=band * above, left=0)
        else:
            result, outline, colour = picture.copy(), max(1, height // 80), WHITE
        script, font = some_font(rng, latin=0.75)
        for top in [0] * above + [height - band] * below:
            words = some_words(rng, script, most=6, capitals=0.8)
            masks = lettering(words, font, height=round(0.75 * band), outline=outline)
            _caption(result, masks, colour, top=top, height=band, outlined=outline > 0)
        return result


def _caption(
    picture: Pixels, masks: tuple[Mask, Mask], colour: Colour, *, top: int, height: int, outlined: bool
) -> None:
    """Draw the lettering in the middle of the `height` rows from `top`, in place, at most 94 % of the width wide."""
    width = picture.shape[1]
    inked, edged = (narrowed(mask, round(0.94 * width)) for mask in masks)
    where = {"top": top + (height - inked.shape[0]) // 2, "left": (width - inked.shape[1]) // 2}
    if outlined:
        ink(picture, edged, BLACK, **where)
    ink(picture, inked, colour, **where)


class Stripes(Attack):
    """Parallel lines of one colour over the photo, at any angle, covering 10–45 % of it, opacity 0.3–1."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        angle = float(rng.choice([0.0, math.pi / 2, math.pi / 4, -math.pi / 4, rng.uniform(0, math.pi)]))
        period = max(3.0, rng.uniform(0.05, 0.3) * max(height, width))
        thick = max(1.0, self.amount(rng, 0.1, 0.45) * period)
        across, down = (np.arange(side, dtype=np.float32) for side in (width, height))
        along = np.add.outer(np.float32(math.sin(angle)) * down, np.float32(math.cos(angle)) * across)
        turns = (along + np.float32(rng.uniform(0, period))) / np.float32(period)
        lines = turns - np.floor(turns) < thick / period
        colour = any_colour(rng) if rng.random() < 0.4 else plain_colour(picture, rng)
        opacity = 1.0 if rng.random() < 0.5 else self.amount(rng, 0.3, 0.8)
        result = picture.copy()
        cv2.copyTo(blend(picture, plain(picture.shape, colour), opacity), lines.astype(np.uint8), result)
        return result


class Veil(Attack):
    """One colour over the whole photo at an opacity of 0.1–0.6."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        colour = any_colour(rng) if rng.random() < 0.4 else plain_colour(picture, rng)
        return blend(picture, plain(picture.shape, colour), self.amount(rng, 0.1, 0.6))
