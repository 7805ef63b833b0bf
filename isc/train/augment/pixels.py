"""Attacks on pixel values that albumentations lacks or implements too slowly."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from isc.photos.decode import Pixels
from isc.train.augment.attack import Attack
from isc.train.augment.fields import added, grain, gray_of


class ShufflePixels(Attack):
    """A random exchange of 2–40 % of the pixels with each other."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        result = np.ascontiguousarray(picture).copy()
        flat = result.reshape(-1, 3)
        some = rng.permutation(len(flat))[: max(2, round(self.amount(rng, 0.02, 0.4) * len(flat)))]
        flat[some] = flat[np.roll(some, 1)]
        return result


class ShuffleTiles(Attack):
    """The photo cut into 2 to 6 rows and columns, with its tiles in random order."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        down, across = (min(side, int(rng.integers(2, 3 + round(4 * self.strength)))) for side in (height, width))
        high, wide = height // down, width // across
        result = picture.copy()
        places = [(high * row, wide * column) for row in range(down) for column in range(across)]
        for (top, left), number in zip(places, rng.permutation(len(places)), strict=True):
            y, x = places[number]
            result[top : top + high, left : left + wide] = picture[y : y + high, x : x + wide]
        return result


class SwapChannels(Attack):
    """The colour channels in another order."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        return np.ascontiguousarray(picture[..., self.order(rng)])

    def order(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Draw the channel that each of the three becomes."""
        orders = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
        return orders[rng.integers(len(orders))]


class Pixelise(Attack):
    """A mosaic of 40 down to 8 blocks along the side."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        blocks = round(self.amount(rng, 40, 8))
        small = cv2.resize(picture, (blocks, blocks), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


class Contour(Attack):
    """Dark outlines on white, mixed with the photo by 30–100 %."""

    redraws = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        lines = 255 - cv2.convertScaleAbs(cv2.Laplacian(picture, cv2.CV_16S, ksize=1), alpha=rng.uniform(1, 4))
        share = self.amount(rng, 0.3, 1.3)
        return np.asarray(cv2.addWeighted(lines, min(1, share), picture, max(0, 1 - share), 0), np.uint8)


class EnhanceEdges(Attack):
    """Enhanced edges: the photo plus 0.5–3 times its own edges."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        return np.asarray(cv2.filter2D(picture, -1, self.kernel(rng)), np.uint8)

    def kernel(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Draw the kernel [3, 3]."""
        kernel = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], np.float32) * (self.amount(rng, 0.5, 3) / 4)
        kernel[1, 1] += 1
        return kernel


class Recompress(Attack):
    """Compression as JPEG (3 in 4) or WebP, at quality 70 down to 3."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        quality = round(self.amount(rng, 70, 3))
        kind, key = (".jpg", cv2.IMWRITE_JPEG_QUALITY) if rng.random() < 0.75 else (".webp", cv2.IMWRITE_WEBP_QUALITY)
        data = cv2.imencode(kind, picture[..., ::-1], [key, quality])[1]
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1].copy()


class CameraNoise(Attack):
    """Sensor noise in poor light: gray and weaker coloured specks, deviation about 8–45, weaker in bright areas."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        dark = np.float32(1.2) - gray_of(picture).astype(np.float32) / np.float32(255)
        dark *= np.float32(self.amount(rng, 8, 45))
        luma = grain(picture.shape, rng) * np.float32(0.8)
        return added(picture, [(luma + grain(picture.shape, rng, size=1.5) * np.float32(0.5)) * dark for _ in range(3)])
