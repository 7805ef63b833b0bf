"""Attacks that draw, paint or emboss the photo, or change its palette."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from isc.photos.decode import Pixels
from isc.train.augment.attack import Attack, Colour, any_colour, scaled
from isc.train.augment.fields import Field, grain, gray_of, partly, ramp_between, three, wave
from isc.train.augment.prints import paper_colour

CUBE = 16  # steps of each channel in the table of nearest colours
BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], np.float32) / 16 - np.float32(0.47)


class Paint(Attack):
    """Oil paint: patches of one colour with sharpened borders."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        share = min(1.0, 110 / self.amount(rng, 1.0, 2.0) / max(height, width))
        small = scaled(picture, max(1, round(share * width)), max(1, round(share * height)))
        small = np.asarray(cv2.medianBlur(np.ascontiguousarray(small), 5 if rng.random() < 0.6 else 3), np.uint8)
        how = cv2.INTER_CUBIC if rng.random() < 0.7 else cv2.INTER_LINEAR
        large = np.asarray(cv2.resize(small, (width, height), interpolation=how), np.uint8)
        soft = cv2.blur(large, (5, 5))
        return np.asarray(cv2.addWeighted(large, 2.2, soft, -1.2, 0), np.uint8)


class Sketch(Attack):
    """A pencil or charcoal drawing, gray or coloured; mixed with the photo by 40–100 %."""

    redraws = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        coloured = rng.random() < 0.3
        given = picture if coloured else gray_of(picture)
        width = rng.uniform(1.2, 4)
        soft = cv2.GaussianBlur(given, (0, 0), width)
        drawn = np.asarray(cv2.divide(given, np.maximum(soft, 1), scale=250), np.uint8)
        dark = rng.uniform(1, 3)  # charcoal is darker
        table = (255 * (np.arange(256) / 255) ** dark).astype(np.uint8)
        drawn = np.asarray(cv2.LUT(drawn, table), np.uint8)
        whole = drawn if coloured else three(drawn)
        if rng.random() < 0.3:
            whole = np.asarray(cv2.multiply(whole, np.full_like(whole, paper_colour(rng)), scale=1 / 255), np.uint8)
        return partly(picture, whole, self.amount(rng, 0.4, 1.5))


class Cartoon(Attack):
    """A cartoon: smooth areas in 4 to 10 levels with dark lines between them; mixed with the photo by 40–100 %."""

    redraws = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        flat = np.asarray(cv2.medianBlur(np.ascontiguousarray(picture), 5), np.uint8)
        step = 256 / rng.integers(4, 11)
        table = np.clip((np.arange(256) // step + 0.5) * step, 0, 255).astype(np.uint8)
        flat = np.asarray(cv2.LUT(flat, table), np.uint8)
        gray = cv2.blur(gray_of(picture), (3, 3))
        block = int(rng.choice([7, 9, 13]))
        kind = cv2.ADAPTIVE_THRESH_MEAN_C
        lines = cv2.adaptiveThreshold(gray, 255, kind, cv2.THRESH_BINARY, block, rng.uniform(4, 9))
        return partly(
            picture,
            np.asarray(cv2.bitwise_and(flat, three(np.asarray(lines, np.uint8))), np.uint8),
            self.amount(rng, 0.4, 1.5),
        )


class Relief(Attack):
    """A relief embossed from one of eight directions, gray or coloured; mixed with the photo by 50–100 %."""

    redraws = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        angle = rng.integers(8) * math.pi / 4
        kernel = np.add.outer(np.arange(-1.0, 2) * math.sin(angle), np.arange(-1.0, 2) * math.cos(angle))
        kernel *= self.amount(rng, 0.4, 1.4)
        kind = rng.random()
        if kind < 0.3:  # keep the photo's own brightness
            kernel[1, 1] += 1
            embossed = np.asarray(cv2.filter2D(picture, -1, kernel), np.uint8)
        elif kind < 0.75:
            embossed = three(np.asarray(cv2.filter2D(gray_of(picture), -1, kernel, delta=128), np.uint8))
        else:
            embossed = np.asarray(cv2.filter2D(picture, -1, kernel, delta=128), np.uint8)
        return partly(picture, embossed, self.amount(rng, 0.5, 1.6))


class GlowingEdges(Attack):
    """Bright edges on black, or dark edges on white, gray or coloured; mixed with the photo by 35–100 %."""

    redraws = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        given = picture if rng.random() < 0.5 else gray_of(picture)
        if rng.random() < 0.5:
            given = np.asarray(cv2.blur(given, (3, 3)), np.uint8)
        shape = cv2.MORPH_RECT if rng.random() < 0.5 else cv2.MORPH_CROSS
        edges = cv2.morphologyEx(given, cv2.MORPH_GRADIENT, cv2.getStructuringElement(shape, (3, 3)))
        bright = np.asarray(cv2.convertScaleAbs(edges, alpha=rng.uniform(1.5, 4)), np.uint8)
        drawn = bright if bright.ndim == 3 else three(bright)
        if rng.random() < 0.35:
            drawn = np.asarray(cv2.bitwise_not(drawn), np.uint8)
        return partly(picture, drawn, self.amount(rng, 0.35, 1.6))


class Hatching(Attack):
    """Ink hatching, crossed in dark areas; mixed with the photo by 50–100 %."""

    redraws = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        gray = np.asarray(cv2.equalizeHist(gray_of(picture)), np.float32)
        period = max(2.5, rng.uniform(0.018, 0.035) * max(gray.shape))
        start, limits = rng.uniform(0, math.pi), (200, 130, 70)
        drawn = np.full(gray.shape, 250, np.float32)
        for number, limit in enumerate(limits):
            lines = wave(gray.shape, period, start + number * math.pi / 3)
            deep = np.clip((limit - gray) / np.float32(50), 0, 1)
            drawn -= np.clip(lines + deep * np.float32(0.9) - np.float32(0.4), 0, 1) * deep * 220
        inked = np.clip(drawn, 0, 255).astype(np.uint8)
        colours = three(inked)
        if rng.random() < 0.4:
            colours = ramp_between(any_dark(rng), paper_colour(rng), inked.astype(np.float32) / np.float32(255))
        return partly(picture, colours, self.amount(rng, 0.5, 1.5))


def any_dark(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.integers(0, 110, 3).tolist()
    return red, green, blue


class Duotone(Attack):
    """Brightness mapped to a gradient of two to five random colours; mixed with the photo by 50–100 %."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        count = int(rng.integers(2, 6)) if rng.random() < 0.5 else 2
        stops = rng.integers(0, 256, (count, 3)).astype(np.float64)
        if rng.random() < 0.7:  # from dark to bright
            stops = stops[np.argsort(stops.sum(axis=1))]
        stops[0] *= 0.4
        stops[-1] = 255 - (255 - stops[-1]) * 0.4
        places = np.linspace(0, 255, count)
        table = np.stack([np.interp(np.arange(256), places, stops[:, i]) for i in range(3)], axis=1)
        mapped = cv2.LUT(three(gray_of(picture)), table.astype(np.uint8)[None])
        return partly(picture, np.asarray(mapped, np.uint8), self.amount(rng, 0.5, 1.6))


class FewColours(Attack):
    """The photo in 24 down to 3 of its own colours, at times changed ones, plain or dithered."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        count = round(24 * (3 / 24) ** (rng.random() * self.strength))
        pixels = picture.reshape(-1, 3)
        sample = pixels[rng.integers(0, len(pixels), 400)].astype(np.float32)
        palette = _clusters(sample, count, rng)
        if rng.random() < 0.2:  # colours that the photo does not have
            palette += rng.normal(0, 40, palette.shape).astype(np.float32)
        return _nearest(dithered(picture, rng, 160 / count ** (1 / 2)), palette)


def _clusters(sample: npt.NDArray[np.float32], count: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return `count` colours [count, 3] of the sample by four rounds of k-means."""
    centres = sample[rng.permutation(len(sample))[:count]].copy()
    for _ in range(4):
        away = (centres * centres).sum(axis=1) - 2 * sample @ centres.T
        belongs = np.eye(count, dtype=np.float32)[away.argmin(axis=1)]
        size = belongs.sum(axis=0)[:, None]
        centres = np.where(size > 0, belongs.T @ sample / np.maximum(size, 1), centres)
    return np.asarray(centres, np.float32)


def _nearest(picture: Pixels, palette: npt.NDArray[np.float32]) -> Pixels:
    """Replace each pixel by about the nearest colour of the palette, by a lookup in a coarse colour cube."""
    line = (np.arange(CUBE, dtype=np.float32) + np.float32(0.5)) * np.float32(256 / CUBE)
    cube = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    number = ((palette * palette).sum(axis=1) - 2 * cube @ palette.T).argmin(axis=1)
    table = np.clip(palette, 0, 255).astype(np.uint8)[number]
    red, green, blue = cv2.split(picture // (256 // CUBE))
    cell = (red.astype(np.int32) * CUBE + green) * CUBE + blue
    return np.asarray(table.take(cell, axis=0), np.uint8)


def dithered(picture: Pixels, rng: np.random.Generator, reach: float) -> Pixels:
    """Add an ordered pattern, noise or nothing to the picture; the pattern spans `reach` gray levels."""
    kind = rng.random()
    if kind < 0.4:
        return picture
    if kind < 0.75:
        high, wide = (math.ceil(side / 4) for side in picture.shape[:2])
        board = np.tile(BAYER, (high, wide))[: picture.shape[0], : picture.shape[1]]
        pattern: Field = np.asarray(board * np.float32(reach), np.float32)
    else:
        pattern = np.asarray(grain(picture.shape, rng) * np.float32(reach / 4), np.float32)
    return np.asarray(cv2.add(picture, cv2.merge([np.ascontiguousarray(pattern)] * 3), dtype=cv2.CV_8U), np.uint8)


class Levels(Attack):
    """The photo in 2 to 6 levels per channel, or of gray, plain or dithered."""

    redraws = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        steps = round(self.amount(rng, 6, 2))
        given = three(gray_of(picture)) if rng.random() < 0.25 else picture
        table = np.clip(np.round(np.arange(256) / 255 * (steps - 1)) * (255 / (steps - 1)), 0, 255).astype(np.uint8)
        return np.asarray(cv2.LUT(dithered(given, rng, 255 / steps), table), np.uint8)


class Threshold(Attack):
    """Two colours, mostly black and white, by a local or global threshold, at times dithered; mixed by 50–100 %."""

    redraws = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        gray, kind = gray_of(picture), rng.random()
        if kind < 0.4:
            near = cv2.blur(gray, (max(3, gray.shape[1] // 3),) * 2)
            two = cv2.compare(gray, cv2.convertScaleAbs(near, alpha=rng.uniform(0.9, 1.05)), cv2.CMP_GE)
        else:
            limit = float(np.mean(gray)) * rng.uniform(0.8, 1.2)
            ready = dithered(three(gray), rng, 190)[..., 0] if kind > 0.6 else gray
            two = cv2.threshold(np.ascontiguousarray(ready), limit, 255, cv2.THRESH_BINARY)[1]
        share = np.asarray(two, np.float32) / np.float32(255)
        coloured = rng.random() < 0.25
        drawn = ramp_between(any_dark(rng), any_colour(rng), share) if coloured else three(np.asarray(two, np.uint8))
        return partly(picture, drawn, self.amount(rng, 0.5, 1.5))
