"""Attacks of printing and rephotographing: halftone, a scanned print, a photocopy, a photographed screen."""

from __future__ import annotations

import math
from abc import abstractmethod

import cv2
import numpy as np

from isc.photos.decode import Pixels
from isc.train.augment.attack import Attack, Colour, any_colour, plain, put, scaled
from isc.train.augment.fields import (
    Field,
    added,
    distance,
    grain,
    gray_of,
    linear_gradient,
    lit,
    partly,
    smooth,
    stretched,
    three,
    tinted,
    wave,
)

ANGLES = (0.26, 1.31, 0.0)  # of each ink's dots in radians, so that the inks do not cover each other


def dots(channel: Pixels, period: float, angle: float, hardness: float) -> Pixels:
    """Convert one channel [H, W] to dots whose size shows the brightness; `period` in pixels, `angle` in radians."""
    # the sum of two crossed waves, scaled so that each brightness covers about its own share of the area
    screen = wave(channel.shape, period, angle) + wave(channel.shape, period, angle + math.pi / 2)
    level = channel.astype(np.float32) / np.float32(255) * 2 - 1
    ink = (level - screen * np.float32(0.5)) * np.float32(hardness * 127) + np.float32(127)
    return np.asarray(np.clip(ink, 0, 255), np.uint8)


def halftone(picture: Pixels, rng: np.random.Generator, period: float, hardness: float) -> Pixels:
    """Convert the picture to printing dots, in gray or with one angle per channel; `period` in pixels."""
    start = rng.uniform(0, math.pi / 2)
    if rng.random() < 0.4:
        return three(dots(gray_of(picture), period, start, hardness))
    inks = [
        dots(np.asarray(channel, np.uint8), period, start + angle, hardness)
        for channel, angle in zip(cv2.split(picture), ANGLES, strict=True)
    ]
    return np.asarray(cv2.merge(inks), np.uint8)


def paper_colour(rng: np.random.Generator) -> Colour:
    """Draw a paper colour from white to cream."""
    bright, warm = int(rng.integers(215, 256)), int(rng.integers(0, 28))
    return bright, bright - warm // 3, bright - warm


def dusted(picture: Pixels, rng: np.random.Generator, count: int) -> Pixels:
    """Draw `count` dark or bright specks, hairs and scratches, in place, and return the picture."""
    height, width = picture.shape[:2]
    for _ in range(count):
        colour = (250, 250, 248) if rng.random() < 0.6 else (40, 38, 36)
        x, y = int(rng.integers(width)), int(rng.integers(height))
        if rng.random() < 0.75:
            cv2.circle(picture, (x, y), int(rng.integers(0, max(1, height // 90) + 1)), colour, -1)
        else:
            reach = rng.uniform(0.1, 0.5) * height
            angle = rng.normal(math.pi / 2, 0.5)
            end = round(x + reach * math.cos(angle)), round(y + reach * math.sin(angle))
            cv2.line(picture, (x, y), end, colour, 1, cv2.LINE_AA)
    return picture


class Halftone(Attack):
    """Printing dots 1.5–4 % of the side apart, gray or coloured; mixed with the photo by 40–100 %."""

    redraws = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        period = max(2.0, self.amount(rng, 0.015, 0.04) * max(picture.shape[:2]))
        printed = halftone(picture, rng, period, rng.uniform(0.8, 3))
        if rng.random() < 0.5:
            printed = np.asarray(cv2.blur(printed, (3, 3) if period > 3 else (2, 2)), np.uint8)
        return partly(picture, printed, self.amount(rng, 0.4, 1.4))


class Posed(Attack):
    """An attack that also moves the photo: `pose` draws from the generator's first child, so a trace can repeat it."""

    @property
    def mover(self) -> Attack:
        return _Pose(self)

    @abstractmethod
    def pose(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        """Move the picture to its place in the result, without a change of its colours."""


class _Pose(Attack):
    """The pose of another attack without the attack's other edits."""

    def __init__(self, whole: Posed) -> None:
        super().__init__(strength=whole.strength, p=whole.p)
        self._whole = whole

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        return self._whole.pose(picture, rng.spawn(1)[0])


class PrintScan(Posed):
    """A scanned print: faded ink, fine dots, paper, dust, rotated by up to 6° with margins of up to about 10 %."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        result = three(gray_of(picture)) if rng.random() < 0.35 else picture
        if rng.random() < 0.6:
            period = rng.uniform(2, 3.2)
            result = partly(result, halftone(result, rng, period, 0.7), self.amount(rng, 0.15, 0.6))
        result = self.pose(self._inked(result, rng), rng.spawn(1)[0])
        if rng.random() < 0.4:
            result = np.asarray(cv2.GaussianBlur(result, (0, 0), self.amount(rng, 0.4, 1.1)), np.uint8)
        fibre = grain(picture.shape, rng, size=rng.uniform(1, 2.5)) * np.float32(self.amount(rng, 2, 11))
        shade = smooth(picture.shape, rng, cells=3) * np.float32(self.amount(rng, 3, 16))
        return dusted(added(result, fibre + shade), rng, int(rng.integers(0, 1 + round(10 * self.strength))))

    def pose(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        """Rotate and shrink the picture, on paper."""
        height, width = picture.shape[:2]
        paper = paper_colour(rng)
        shrink = 1 - self.amount(rng, 0.02, 0.2)
        degrees = self.amount(rng, 0.3, 6) * (1 if rng.random() < 0.5 else -1)
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, shrink)
        for axis, side in enumerate((width, height)):
            matrix[axis, 2] += rng.uniform(-0.4, 0.4) * (1 - shrink) * side
        return np.asarray(cv2.warpAffine(picture, matrix, (width, height), borderValue=paper), np.uint8)

    def _inked(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        """Fade the colours: lift black, lower white, and weaken each channel by up to 15 %."""
        black, white = self.amount(rng, 5, 70), 255 - self.amount(rng, 0, 35)
        gain = (white - black) / 255
        weak = [gain * (1 - self.amount(rng, 0, 0.15)) for _ in range(3)]
        lift = [black + (gain - one) * 100 for one in weak]
        return tinted(picture, (weak[0], weak[1], weak[2]), (lift[0], lift[1], lift[2]))


class Photocopy(Attack):
    """A gray, high-contrast photocopy with lost toner, streaks and specks; mixed with the photo by 50–100 %."""

    redraws = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        gray = gray_of(picture).astype(np.float32)
        soft = stretched(np.asarray(cv2.resize(gray, (8, 8), interpolation=cv2.INTER_AREA), np.float32), gray.shape)
        local = rng.uniform(0, 0.6)  # copiers lose large areas and keep edges
        hard = (gray - soft * np.float32(local) - np.float32(110 * (1 - local))) * np.float32(self.amount(rng, 1.2, 3))
        hard += np.float32(rng.uniform(130, 185)) + grain(gray.shape, rng) * np.float32(self.amount(rng, 4, 28))
        if rng.random() < 0.5:
            hard += stretched(rng.normal(0, 14, (1, max(2, gray.shape[1] // 4))).astype(np.float32), gray.shape)
        copied = three(np.clip(hard, 0, 255).astype(np.uint8))
        return dusted(partly(picture, copied, self.amount(rng, 0.5, 1.5)), rng, int(rng.integers(0, 8)))


class PhotographedScreen(Posed):
    """A photographed screen: moiré, lines, glare, colour cast, noise, bezel, and corners moved by up to 15 %."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        result = added(picture, self._moire(picture.shape, rng))
        if rng.random() < 0.6:
            lines = wave(picture.shape, rng.uniform(2, 4.5), (math.pi / 2, 0.0)[rng.integers(2)])
            result = lit(result, 1 + lines * np.float32(self.amount(rng, 0.03, 0.25)))
        result = self.pose(result, rng.spawn(1)[0])
        cast = np.exp(rng.normal(0, self.amount(rng, 0.03, 0.16), 3)) * rng.uniform(0.75, 1.15)
        result = tinted(result, (cast[0], cast[1], cast[2]), (self.amount(rng, 0, 25),) * 3)
        if rng.random() < 0.6:
            result = added(result, self._glare(picture.shape, rng))
        return added(result, grain(picture.shape, rng) * np.float32(self.amount(rng, 1, 12)))

    def _moire(self, shape: tuple[int, ...], rng: np.random.Generator) -> list[Field]:
        """Return bent bands per channel, shifted between red, green and blue: the moiré of two pixel grids."""
        side = max(shape[:2])
        period, angle = rng.uniform(0.03, 0.16) * side, rng.uniform(0, math.pi)
        coarse = (math.ceil(shape[0] / 2), math.ceil(shape[1] / 2))  # bands are wide enough for half the resolution
        across = math.cos(angle) * np.arange(coarse[1], dtype=np.float32)
        down = math.sin(angle) * np.arange(coarse[0], dtype=np.float32)
        phase = np.add.outer(down, across) * np.float32(4 * math.pi / period)
        phase += smooth(coarse, rng, cells=3) * np.float32(rng.uniform(0, 6))
        depth = np.full(coarse, self.amount(rng, 6, 42), np.float32)
        cosine, sine = cv2.polarToCart(depth, np.ascontiguousarray(phase))
        shifts = np.arange(3) * rng.uniform(0.2, 2.1)
        bands = [cosine * np.float32(math.cos(d)) - sine * np.float32(math.sin(d)) for d in shifts]
        if rng.random() < 0.4:
            bands = [bands[0]] * 3
        return [stretched(band, shape) for band in bands]

    def pose(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        """Put the picture in a bezel, at an angle, in a dark or coloured room; 1 time in 4 leave it unchanged."""
        if rng.random() < 0.25:
            return picture.copy()
        height, width = picture.shape[:2]
        bezel = 15 + int(rng.integers(30)) if rng.random() < 0.7 else int(rng.integers(256))
        framed = plain(picture.shape, (bezel,) * 3)
        edge = [round(self.amount(rng, 0.0, 0.06) * side) for side in (height, width)]
        inside = scaled(picture, max(1, width - 2 * edge[1]), max(1, height - 2 * edge[0]))
        put(framed, inside, top=edge[0], left=edge[1])
        corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * (width, height)
        moved = corners + inwards * (rng.random((4, 2)) * 1.3 - 0.3) * self.amount(rng, 0.02, 0.15)
        matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
        room = any_colour(rng) if rng.random() < 0.4 else (int(rng.integers(60)),) * 3
        return np.asarray(cv2.warpPerspective(framed, matrix, (width, height), borderValue=room), np.uint8)

    def _glare(self, shape: tuple[int, ...], rng: np.random.Generator) -> Field:
        bright = np.float32(self.amount(rng, 10, 130))
        if rng.random() < 0.5:
            return np.clip(linear_gradient(shape, rng.uniform(0, 2 * math.pi)) * 2 - 1, 0, 1) * bright
        far = distance(shape, rng.random(), rng.random())
        return np.asarray(np.clip(1 - far / np.float32(rng.uniform(0.3, 0.9)), 0, 1) * bright, np.float32)
