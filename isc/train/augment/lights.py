"""Attacks of light, weather, camera faults and repeated compression."""

from __future__ import annotations

import math

import cv2
import numpy as np

from isc.photos.decode import Pixels
from isc.train.augment.attack import Attack, any_colour, blend, scaled
from isc.train.augment.fields import (
    added,
    distance,
    grain,
    gray_of,
    linear_gradient,
    lit,
    mixed,
    ramp_between,
    smooth,
    tinted,
)


class LocalContrast(Attack):
    """Contrast raised in each tile of a grid of 2 × 2 to 6 × 6, as in high-dynamic-range photos."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        tiles = int(rng.integers(2, 7))
        enhancer = cv2.createCLAHE(self.amount(rng, 1.5, 9), (tiles, tiles))
        luma, red, blue = cv2.split(cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb))
        return np.asarray(cv2.cvtColor(cv2.merge([enhancer.apply(luma), red, blue]), cv2.COLOR_YCrCb2RGB), np.uint8)


class Vignette(Attack):
    """Darker or (1 in 5) brighter corners, by up to 25–95 %."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        y, x = rng.uniform(0.35, 0.65, 2)
        far = distance(picture.shape, y, x)
        deep = np.float32(self.amount(rng, 0.25, 0.95))
        share = np.clip((far - np.float32(rng.uniform(0.2, 0.6))) / np.float32(0.8), 0, 1) * deep
        if rng.random() < 0.2:
            return mixed(picture, np.full_like(picture, 255), share)
        return lit(picture, 1 - share)


class Cast(Attack):
    """A warm, cold or random colour cast, at times with shadows of another colour."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        size = self.amount(rng, 0.1, 0.5)
        warm = size * (1 if rng.random() < 0.5 else -1)
        gains = (1 + warm, 1 + 0.2 * abs(warm), 1 - warm) if rng.random() < 0.6 else 1 + rng.uniform(-size, size, 3)
        lift = rng.uniform(-60, 60, 3) * size if rng.random() < 0.5 else np.zeros(3)
        return tinted(picture, (gains[0], gains[1], gains[2]), (lift[0], lift[1], lift[2]))


class FilmGrain(Attack):
    """Film grain, gray or coloured, one to three pixels wide, stronger in dark areas."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        size, deep = rng.uniform(1, 3), np.float32(self.amount(rng, 8, 38))
        dark = 1.3 - gray_of(picture).astype(np.float32) / np.float32(255)
        if rng.random() < 0.6:
            return added(picture, grain(picture.shape, rng, size=size) * dark * deep)
        return added(picture, [grain(picture.shape, rng, size=size) * dark * deep for _ in range(3)])


class LightLeak(Attack):
    """Coloured light from one side, or a lens flare with up to two ghosts."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        bright = self.amount(rng, 50, 230)
        colour = np.array([1.0, rng.uniform(0.2, 0.9), rng.uniform(0, 0.6)])[rng.permutation(3)]
        if rng.random() < 0.5:
            field = np.clip(
                linear_gradient(picture.shape, rng.uniform(0, 6.3)) * 2 - np.float32(rng.uniform(0.7, 1.2)), 0, 1
            )
            field *= 1 + smooth(picture.shape, rng, cells=3) * np.float32(0.4)
        else:
            y, x = rng.uniform(0, 1, 2)
            field = np.clip(1 - distance(picture.shape, y, x) / np.float32(rng.uniform(0.4, 1)), 0, 1) ** 2
            for _ in range(int(rng.integers(0, 3))):  # ghosts lie on the line through the middle
                along = rng.uniform(0.3, 1.2)
                ghost = distance(picture.shape, y + along * (1 - 2 * y), x + along * (1 - 2 * x))
                field += (ghost < rng.uniform(0.05, 0.2)).astype(np.float32) * np.float32(0.25)
        return added(picture, [field * np.float32(bright * part) for part in colour])


class SplitChannels(Attack):
    """Red and blue shifted against green, in opposite directions, by 1–6 % of the side."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        reach, angle = self.amount(rng, 0.01, 0.06), rng.uniform(0, 2 * math.pi)
        x, y = (
            math.copysign(max(1.0, abs(v)), v)
            for v in (reach * width * math.cos(angle), reach * height * math.sin(angle))
        )
        red, green, blue = cv2.split(picture)
        moved = [
            cv2.warpAffine(
                channel, np.array([[1, 0, d * x], [0, 1, d * y]]), (width, height), borderMode=cv2.BORDER_REPLICATE
            )
            for channel, d in ((red, 1), (blue, -1))
        ]
        return np.asarray(cv2.merge([moved[0], green, moved[1]]), np.uint8)


class Fog(Attack):
    """A pale haze in clouds, at times denser towards one side, opacity about 0.2–0.85."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        pale = int(rng.integers(190, 250))
        dense = np.float32(self.amount(rng, 0.25, 0.75))
        share = smooth(picture.shape, rng, cells=int(rng.integers(3, 7))) * np.float32(0.25) + dense
        if rng.random() < 0.5:
            share *= linear_gradient(picture.shape, rng.uniform(0, 6.3)) + np.float32(0.4)
        return mixed(picture, np.full_like(picture, pale), np.clip(share, 0, 0.85).astype(np.float32))


class Specks(Attack):
    """Rain or snow: bright parallel streaks, or soft dots."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        size = rng.uniform(1, 3)
        field = np.clip(grain(picture.shape, rng, size=size) - np.float32(2.4 - self.amount(rng, 0.1, 1.1)), 0, 1)
        if rng.random() < 0.5:
            long = int(rng.integers(5, 13))
            kernel, angle = np.zeros((long, long), np.float32), rng.normal(0, 0.3)
            reach = long / 2 * math.tan(angle)
            ends = (round(long / 2 - reach), 0), (round(long / 2 + reach), long - 1)
            cv2.line(kernel, *ends, 1.0, 1)
            field = np.asarray(cv2.filter2D(field, -1, kernel / max(1, kernel.sum()) * 3), np.float32)
        return added(picture, np.minimum(field * np.float32(350), 230))


class GradientVeil(Attack):
    """A gradient of two colours over the whole photo, opacity 0.15–0.6."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        colours = ramp_between(any_colour(rng), any_colour(rng), linear_gradient(picture.shape, rng.uniform(0, 6.3)))
        return blend(picture, colours, self.amount(rng, 0.15, 0.6))


def as_jpeg(picture: Pixels, quality: int) -> Pixels:
    """Compress the picture as JPEG and decode it; RGB and BGR pictures keep their channel order."""
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def shifted(picture: Pixels, top: int, left: int) -> Pixels:
    """Move the picture down and to the right by pixels, negative for up and left; repeat its edge in the gap."""
    high, wide = max(0, top), max(0, left)
    bordered = cv2.copyMakeBorder(picture, high, max(0, -top), wide, max(0, -left), cv2.BORDER_REPLICATE)
    y, x = max(0, -top), max(0, -left)
    return np.ascontiguousarray(bordered[y : y + picture.shape[0], x : x + picture.shape[1]])


class Resaves(Attack):
    """Saved as JPEG two to six times, at quality 85 down to 16, each time resized and shifted by up to 2 pixels."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        result = np.ascontiguousarray(picture[..., ::-1])
        for _ in range(int(rng.integers(2, 3 + round(4 * self.strength)))):
            share = self.amount(rng, 0.95, 0.55)
            result = scaled(result, max(1, round(share * width)), max(1, round(share * height)))
            top, left = rng.integers(-2, 3, 2).tolist()
            result = as_jpeg(shifted(result, top, left), round(self.amount(rng, 85, 16)))
        return np.ascontiguousarray(scaled(result, width, height)[..., ::-1])


class VideoFrame(Attack):
    """A frame of a poor video: low resolution, coarse colours, shifted blocks, at times ringing or interlacing."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        share = self.amount(rng, 0.8, 0.45)
        small = scaled(
            np.ascontiguousarray(picture[..., ::-1]), max(1, round(share * width)), max(1, round(share * height))
        )
        top, left = rng.integers(-4, 5, 2).tolist()
        small = as_jpeg(small, round(self.amount(rng, 50, 13)))
        small = shifted(as_jpeg(shifted(small, top, left), round(self.amount(rng, 60, 15))), -top, -left)
        large = np.ascontiguousarray(scaled(small, width, height)[..., ::-1])
        luma, red, blue = cv2.split(cv2.cvtColor(large, cv2.COLOR_RGB2YCrCb))
        step = rng.integers(2, 9)
        coarse = width // step, height // step
        red, blue = (scaled(scaled(np.asarray(part, np.uint8), *coarse), width, height) for part in (red, blue))
        ringing = cv2.addWeighted(luma, 2.2, cv2.blur(luma, (5, 5)), -1.2, 0) if rng.random() < 0.5 else luma
        result = np.asarray(cv2.cvtColor(cv2.merge([ringing, red, blue]), cv2.COLOR_YCrCb2RGB), np.uint8)
        if rng.random() < 0.2:
            result[1::2] = shifted(result, 0, int(rng.integers(1, 5)))[1::2]
        return result
