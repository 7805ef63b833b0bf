"""Attacks that cover parts of the photo: patches, bars, mosaic, watermarks, grids, scribbles, and cut-out shapes."""

from __future__ import annotations

import math

import cv2
import numpy as np

from isc.photos.decode import Pixels
from isc.train.augment.attack import Attack, Colour, Composition, OtherPhoto, any_colour, plain, plain_colour, scaled
from isc.train.augment.drawing import Mask, lettering, narrowed, some_font, some_words
from isc.train.augment.fields import Field, grain, mixed, rounded
from isc.train.augment.geometry import ground_of


def some_box(shape: tuple[int, ...], rng: np.random.Generator, high: float, wide: float) -> tuple[slice, slice]:
    """Draw a rectangle of about these shares of height and width, inside the picture, as (rows, columns)."""
    sides = [min(full, max(1, round(share * full))) for full, share in zip(shape[:2], (high, wide), strict=True)]
    top, left = (int(rng.integers(0, full - side + 1)) for full, side in zip(shape[:2], sides, strict=True))
    return slice(top, top + sides[0]), slice(left, left + sides[1])


class Patches(Composition):
    """Three to thirty rectangles of one colour, noise or another photo, each up to 8–25 % of the side."""

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        result, kind = picture.copy(), rng.random()
        if kind < 0.4:
            cover = scaled(other(), picture.shape[1], picture.shape[0])
        elif kind < 0.85:
            cover = plain(picture.shape, plain_colour(picture, rng))
        else:
            noise = grain(picture.shape, rng) * np.float32(60) + np.float32(127)
            cover = np.asarray(cv2.cvtColor(noise.clip(0, 255).astype(np.uint8), cv2.COLOR_GRAY2RGB), np.uint8)
        largest = self.amount(rng, 0.08, 0.25)
        count = max(3, round(self.amount(rng, 0.1, 0.5) / (0.7 * largest) ** 2))
        for high, wide in rng.uniform(0.5, 1, (min(30, count), 2)) * largest:
            box = some_box(picture.shape, rng, high, wide)
            result[box] = cover[box]
        return result


class Tiles(Composition):
    """A board of 3 × 3 to 10 × 10 tiles, 10–50 % of them filled with one colour or another photo."""

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        down, across = rng.integers(3, 11, 2)
        tiles = (rng.random((down, across)) < self.amount(rng, 0.1, 0.5)).astype(np.uint8)
        tiles[rng.integers(down), rng.integers(across)] = 1
        mask = cv2.resize(tiles, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        if rng.random() < 0.4:
            cover = np.ascontiguousarray(scaled(other(), picture.shape[1], picture.shape[0]))
        else:
            cover = plain(picture.shape, plain_colour(picture, rng))
        result = picture.copy()
        cv2.copyTo(cover, mask, result)
        return result


class Censor(Attack):
    """One to four bars, mosaics or blurred areas, 6–60 % of the side long."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        result, bars = picture.copy(), rng.random() < 0.5
        for _ in range(int(rng.integers(1, 3 + round(2 * self.strength)))):
            long, thick = self.amount(rng, 0.2, 0.6), self.amount(rng, 0.06, 0.16 if bars else 0.5)
            box = some_box(picture.shape, rng, *((thick, long) if rng.random() < 0.7 else (long, thick)))
            if bars:
                result[box] = (0, 0, 0) if rng.random() < 0.6 else any_colour(rng)
                continue
            part = np.ascontiguousarray(result[box])
            blocks = [max(1, round(side * rng.uniform(0.04, 0.1) / 0.35)) for side in (10, 10)]
            small = cv2.resize(part, (blocks[1], blocks[0]), interpolation=cv2.INTER_AREA)
            how = cv2.INTER_NEAREST if rng.random() < 0.7 else cv2.INTER_LINEAR
            result[box] = cv2.resize(small, part.shape[1::-1], interpolation=how)
        return result


class Watermark(Attack):
    """The same words all over the picture, level or slanted, 6–15 % of the side high, opacity 0.2–0.8."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        script, font = some_font(rng, latin=0.85)
        size = max(6, round(self.amount(rng, 0.06, 0.15) * height))
        word = lettering(some_words(rng, script, most=2), font, height=size)[0]
        word = narrowed(word, max(8, round(0.7 * width)))
        space = max(2, round(rng.uniform(0.2, 1.0) * size))
        line = np.pad(word, ((space // 2, space - space // 2), (space, space)))
        line = np.hstack([line] * min(40, math.ceil(1.5 * width / line.shape[1]) + 1))
        rows = min(60, math.ceil(1.5 * height / line.shape[0]) + 1)
        step = line.shape[1] // 3 if rng.random() < 0.5 else 0
        mask: Mask = np.vstack([np.roll(line, step * number, axis=1) for number in range(rows)])
        angle = float(rng.choice([0.0, 30.0, -30.0, 45.0, rng.uniform(-60, 60)]))
        matrix = cv2.getRotationMatrix2D((mask.shape[1] / 2, mask.shape[0] / 2), angle, 1.0)
        matrix[:, 2] += (width - mask.shape[1]) / 2, (height - mask.shape[0]) / 2
        whole = np.asarray(cv2.warpAffine(mask, matrix, (width, height), borderMode=cv2.BORDER_WRAP), np.uint8)
        colour: Colour = (255, 255, 255) if rng.random() < 0.5 else any_colour(rng)
        share = whole * np.float32(self.amount(rng, 0.2, 0.8) / 255)
        return mixed(picture, plain(picture.shape, colour), share)


class Grid(Attack):
    """Lines, dots or the cuts of a jigsaw over the whole photo, 4 to 20 along the side, opacity 0.5–1."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        mask = np.zeros((height, width), np.uint8)
        step = max(4, round(max(height, width) / rng.integers(4, 21)))
        thick = max(1, round(self.amount(rng, 0.02, 0.22) * step))
        kind = rng.random()
        if kind < 0.35:
            start = int(rng.integers(step))
            for place in range(start, max(height, width), step):
                mask[place : place + thick] = 255
                mask[:, place : place + thick] = 255
        elif kind < 0.7:
            for row, y in enumerate(range(step // 2, height, step)):
                for x in range(step // 2 + (row % 2) * step // 2, width, step):
                    cv2.circle(mask, (x, y), max(1, round(0.7 * thick)), 255, -1, cv2.LINE_AA)
        else:
            self._jigsaw(mask, max(step, max(height, width) // 8), rng)
        colour = plain_colour(picture, rng) if rng.random() < 0.6 else any_colour(rng)
        share = mask * np.float32((1.0 if rng.random() < 0.5 else self.amount(rng, 0.5, 1)) / 255)
        return mixed(picture, plain(picture.shape, colour), share)

    def _jigsaw(self, mask: Mask, step: int, rng: np.random.Generator) -> None:
        """Draw grid lines with a knob between every two crossings, in place."""
        height, width = mask.shape
        for place in range(step, max(height, width), step):
            cv2.line(mask, (0, place), (width, place), 255, 1)
            cv2.line(mask, (place, 0), (place, height), 255, 1)
            for other in range(step // 2, max(height, width), step):
                side = step // 8 * (1 if rng.random() < 0.5 else -1)
                cv2.circle(mask, (other, place + side), max(1, step // 6), 255, 1, cv2.LINE_AA)
                cv2.circle(mask, (place + side, other), max(1, step // 6), 255, 1, cv2.LINE_AA)


class Scribble(Attack):
    """One to six scribbles, arrows, circles or crosses, drawn by hand in one or more colours."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        result, side = picture.copy(), min(height, width)
        colour = any_colour(rng)
        for _ in range(int(rng.integers(1, 3 + round(4 * self.strength)))):
            if rng.random() < 0.4:
                colour = any_colour(rng)
            thick = max(1, round(self.amount(rng, 0.01, 0.05) * side))
            start, end = ((rng.random(2) * (width, height)).round().astype(int).tolist() for _ in range(2))
            kind = int(rng.integers(4))
            if kind == 0:
                cv2.arrowedLine(result, start, end, colour, thick, cv2.LINE_AA, 0, 0.25)
            elif kind == 1:
                axes = [max(1, round(v)) for v in rng.uniform(0.08, 0.35, 2) * (width, height)]
                cv2.ellipse(result, start, axes, rng.uniform(0, 180), 0, 360, colour, thick, cv2.LINE_AA)
            elif kind == 2:
                steps = rng.normal(0, 0.12, (int(rng.integers(6, 25)), 2)).cumsum(axis=0)
                points = (steps * side + start).round().astype(np.int32)
                cv2.polylines(result, [points[:, None]], False, colour, thick, cv2.LINE_AA)
            else:
                cv2.line(result, start, end, colour, thick, cv2.LINE_AA)
                cv2.line(result, (start[0], end[1]), (end[0], start[1]), colour, thick, cv2.LINE_AA)
        return result


class CutOut(Attack):
    """The photo cut to a rounded rectangle, an ellipse, a star or a polygon on a ground; or with this shape missing."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        missing = rng.random() < 0.3
        size = self.amount(rng, 0.2, 0.45) if missing else self.amount(rng, 1.05, 0.75)
        shape = self._shape(max(2, round(size * height)), max(2, round(size * width)), rng)
        mask: Field = np.zeros((height, width), np.float32)
        room = height - shape.shape[0], width - shape.shape[1]
        top, left = (int(rng.uniform(min(0, space), max(0, space)) if missing else space // 2) for space in room)
        y, x = max(0, top), max(0, left)
        place = mask[y : y + shape.shape[0] - (y - top), x : x + shape.shape[1] - (x - left)]
        place[:] = shape[y - top : y - top + place.shape[0], x - left : x - left + place.shape[1]]
        ground = ground_of(picture, rng)
        return mixed(picture, ground, mask if missing else 1 - mask)

    def _shape(self, height: int, width: int, rng: np.random.Generator) -> Field:
        """Draw a random shape [height, width]: 1 inside, 0 outside."""
        kind = int(rng.integers(3))
        if kind == 0:
            return rounded(height, width, round(rng.uniform(0.15, 0.5) * min(height, width)))
        mask = np.zeros((height, width), np.uint8)
        if kind == 1:
            cv2.ellipse(mask, (width // 2, height // 2), (width // 2, height // 2), 0, 0, 360, 255, -1, cv2.LINE_AA)
        else:
            corners, depth = int(rng.integers(4, 13)), rng.uniform(0.6, 1)
            turn = np.arange(corners) * 2 * math.pi / corners + rng.uniform(0, 6.3)
            reach = np.where(np.arange(corners) % 2, depth, 1.0) * 1.1
            points = np.stack([width / 2 * (1 + reach * np.cos(turn)), height / 2 * (1 + reach * np.sin(turn))], axis=1)
            cv2.fillPoly(mask, [points.round().astype(np.int32)], 255, cv2.LINE_AA)
        return np.asarray(mask, np.float32) / np.float32(255)
