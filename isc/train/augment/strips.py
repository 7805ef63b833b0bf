"""Attacks that keep a strip or slices of the photo, or mix it with another photo."""

from __future__ import annotations

import math

import cv2
import numpy as np

from isc.photos.decode import Pixels
from isc.train.augment.attack import Composition, OtherPhoto, any_colour, blend, plain, plain_colour, put, scaled
from isc.train.augment.fields import Field, gray_of, linear_gradient, mixed, ramp_between, smooth, three
from isc.train.augment.geometry import ground_of


class Strip(Composition):
    """A strip of 15–60 % of one side, stretched to the picture, or laid on a ground or on another photo."""

    shrinks = True

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        axis, share = int(rng.integers(2)), self.amount(rng, 0.6, 0.15)
        part = max(1, round(share * picture.shape[axis]))
        start = int(rng.integers(0, picture.shape[axis] - part + 1))
        strip = picture[start : start + part] if axis == 0 else picture[:, start : start + part]
        strip = np.ascontiguousarray(strip)
        kind = rng.random()
        if kind < 0.4 and share >= 0.25:
            return scaled(strip, width, height).copy()
        result = ground_of(picture, rng) if kind < 0.75 else scaled(other(), width, height).copy()
        # the thin side may grow, to at most twice its size
        grown = min(picture.shape[axis], max(1, round(part * rng.uniform(1, 2))))
        strip = scaled(strip, width, grown) if axis == 0 else scaled(strip, grown, height)
        room = picture.shape[axis] - grown
        offset = room // 2 if rng.random() < 0.4 else int(rng.integers(0, room + 1))
        put(result, strip, top=offset * (axis == 0), left=offset * (axis == 1))
        return result


class Slices(Composition):
    """The photo cut into 3 to 9 strips, with gaps or strips of another photo between them; 45–90 % of it stays."""

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        axis, share = int(rng.integers(2)), self.amount(rng, 0.9, 0.45)
        edges = np.linspace(0, picture.shape[axis], int(rng.integers(3, 10)) + 1).round().astype(int)
        between = (
            scaled(other(), width, height) if rng.random() < 0.5 else plain(picture.shape, plain_colour(picture, rng))
        )
        result, squeezed = np.array(between), rng.random() < 0.5
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            kept = max(1, round(share * (last - first)))
            source = slice(first, max(last, first + 1)) if squeezed else slice(first, first + kept)
            strip = picture[source] if axis == 0 else picture[:, source]
            if strip.size:
                strip = scaled(np.ascontiguousarray(strip), *((width, kept) if axis == 0 else (kept, height)))
                put(result, strip, top=first * (axis == 0), left=first * (axis == 1))
        return result


def _other_part(picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
    """Return another photo, or two thirds of each side of it, at the picture's shape; mirrored with probability ½."""
    photo = other()
    if rng.random() < 0.5:
        part = [max(1, round(2 / 3 * side)) for side in photo.shape[:2]]
        top, left = (int(rng.integers(0, side - p + 1)) for side, p in zip(photo.shape[:2], part, strict=True))
        photo = photo[top : top + part[0], left : left + part[1]]
    photo = scaled(photo, picture.shape[1], picture.shape[0])
    return np.ascontiguousarray(photo[:, ::-1]) if rng.random() < 0.5 else np.ascontiguousarray(photo)


class MixPhotos(Composition):
    """Another photo over the whole photo at an opacity of 0.25–0.65, uniform or in clouds."""

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        above, opacity = _other_part(picture, other, rng), self.amount(rng, 0.25, 0.65)
        if rng.random() < 0.75:
            return blend(picture, above, opacity)
        cloud = opacity + smooth(picture.shape, rng, cells=int(rng.integers(2, 6))) * np.float32(0.35)
        return mixed(picture, above, np.clip(cloud, 0, 0.8).astype(np.float32))


class FadePhotos(Composition):
    """Another photo fading in from one side, hard or soft, over 15–65 % of the picture."""

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        angle = rng.integers(4) * math.pi / 2 if rng.random() < 0.7 else rng.uniform(0, 2 * math.pi)
        middle, soft = 1 - self.amount(rng, 0.15, 0.65), rng.uniform(0.05, 0.6)
        share: Field = (linear_gradient(picture.shape, angle) - np.float32(middle)) / np.float32(soft) + np.float32(0.5)
        return mixed(picture, _other_part(picture, other, rng), np.clip(share, 0, 1).astype(np.float32))


class ExposeTwice(Composition):
    """A double exposure: the screen, product, maximum or minimum of two photos, at times tinted; opacity 0.3–0.9."""

    def compose(self, picture: Pixels, other: OtherPhoto, rng: np.random.Generator) -> Pixels:
        above, kind = _other_part(picture, other, rng), int(rng.integers(4))
        if rng.random() < 0.3:
            above = three(gray_of(above))
        if rng.random() < 0.25:
            colours = ramp_between(
                any_colour(rng), any_colour(rng), linear_gradient(picture.shape, rng.uniform(0, 6.3))
            )
            above = blend(above, colours, 0.4)
        if kind == 0:
            both = 255 - cv2.multiply(255 - picture, 255 - above, scale=1 / 255)
        elif kind == 1:
            both = cv2.multiply(picture, above, scale=1 / 160)
        else:
            both = (cv2.max, cv2.min)[kind - 2](picture, above)
        return blend(picture, np.asarray(both, np.uint8), self.amount(rng, 0.3, 0.9))
