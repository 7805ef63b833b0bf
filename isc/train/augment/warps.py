"""Attacks that bend the photo; their shifts are computed on a coarse grid and interpolated to the pixels."""

from __future__ import annotations

import math
from abc import abstractmethod

import cv2
import numpy as np

from isc.photos.decode import Pixels
from isc.train.augment.attack import Attack, plain_colour
from isc.train.augment.fields import Field, stretched

GRID = 33  # grid points per side


class Warp(Attack):
    """A warp: each pixel is sampled from a shifted position; the mirrored photo or one colour lies beyond the edge."""

    @abstractmethod
    def shifts(self, x: Field, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
        """Return the shifts (right, down) of the sampled positions on the grid, in half sides; x and y are in −1…1."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        line = np.linspace(-1, 1, GRID, dtype=np.float32)
        right, below = self.shifts(*np.meshgrid(line, line), rng)
        across = stretched(right.astype(np.float32), picture.shape) * np.float32(width / 2)
        down = stretched(below.astype(np.float32), picture.shape) * np.float32(height / 2)
        across += np.arange(width, dtype=np.float32)
        down += np.arange(height, dtype=np.float32)[:, None]
        mode = cv2.BORDER_REFLECT_101 if rng.random() < 0.5 else cv2.BORDER_CONSTANT
        colour = plain_colour(picture, rng)
        return np.asarray(cv2.remap(picture, across, down, cv2.INTER_LINEAR, None, mode, colour), np.uint8)


class Swirl(Warp):
    """A swirl by 20–130° around a point near the middle, weaker with the distance."""

    def shifts(self, x: Field, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
        x, y = x - np.float32(rng.uniform(-0.3, 0.3)), y - np.float32(rng.uniform(-0.3, 0.3))
        turn = math.radians(self.amount(rng, 20, 130)) * (1 if rng.random() < 0.5 else -1)
        angle = turn * np.clip(1 - np.hypot(x, y) / rng.uniform(0.7, 1.2), 0, 1) ** 2
        return x * np.cos(angle) - y * np.sin(angle) - x, x * np.sin(angle) + y * np.cos(angle) - y


class Lens(Warp):
    """A barrel or pincushion distortion of 5–30 % of the half side."""

    def shifts(self, x: Field, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
        bend = self.amount(rng, 0.05, 0.3) * (1 if rng.random() < 0.5 else -1)
        squared = (x * x + y * y) / 2
        if bend < 0:  # sampled towards the middle: keep the corners in the picture
            squared = squared - 1
        return np.asarray(x * squared * bend, np.float32), np.asarray(y * squared * bend, np.float32)


class Waves(Warp):
    """One to five waves across, along or both, or rings around the middle; shifts up to 8 % of the side."""

    def shifts(self, x: Field, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
        count = rng.uniform(1, 5)
        reach = self.amount(rng, 0.03, 0.16) / math.sqrt(count)
        phase = rng.uniform(0, 2 * math.pi, 2)
        if rng.random() < 0.3:
            radius = np.hypot(x, y) + 1e-3
            ring = reach * np.sin(math.pi * count * radius + phase[0]) / radius
            return np.asarray(x * ring, np.float32), np.asarray(y * ring, np.float32)
        both = rng.integers(3)
        right = reach * np.sin(math.pi * count * y + phase[0]) * (both != 1)
        below = reach * np.sin(math.pi * count * x + phase[1]) * (both != 0)
        return right.astype(np.float32), below.astype(np.float32)


class Bulge(Warp):
    """One to three areas that grow or shrink, each with a radius of 20–45 % of the side."""

    def shifts(self, x: Field, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
        right, below = np.zeros_like(x), np.zeros_like(y)
        for _ in range(int(rng.integers(1, 4))):
            dx, dy = x - np.float32(rng.uniform(-0.6, 0.6)), y - np.float32(rng.uniform(-0.6, 0.6))
            push = self.amount(rng, 0.2, 0.75) * (1 if rng.random() < 0.35 else -1)
            near = np.clip(1 - np.hypot(dx, dy) / rng.uniform(0.4, 0.9), 0, 1)
            right, below = right + dx * near * push, below + dy * near * push
        return right, below


class Shear(Warp):
    """A slant by 5–45 % of the side, or a wedge with one side wider than the other."""

    def shifts(self, x: Field, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
        slant = self.amount(rng, 0.05, 0.45) * (1 if rng.random() < 0.5 else -1)
        if rng.random() < 0.4:
            return slant * x * y, np.zeros_like(y)
        return (slant * y, np.zeros_like(y)) if rng.random() < 0.5 else (np.zeros_like(x), slant * x)


class Elastic(Warp):
    """Smooth random pulls in 3 to 7 cells per side, by at most about 9 % of the side."""

    def shifts(self, x: Field, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
        cells = int(rng.integers(3, 8))
        reach = self.amount(rng, 0.04, 0.3) / math.sqrt(cells)
        pulls = rng.uniform(-reach, reach, (2, cells, cells)).astype(np.float32)
        size = x.shape[1], y.shape[0]
        right, below = (cv2.resize(pull, size, interpolation=cv2.INTER_CUBIC) for pull in pulls)
        return np.asarray(right, np.float32), np.asarray(below, np.float32)
