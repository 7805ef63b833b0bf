"""The copy attacks that the trainer learns to see through. No I/O; all randomness from the generator passed in.

Photometric and geometric edits are albumentations'; compositions (overlays, text, emoji, frames) are ours. The judge in
`isc.edits` is written apart from this on purpose: what is trained on is never what is measured with.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network for a newer version

import albumentations as A
import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from isc.config import AugmentConfig
from isc.images import Pixels, resize

Composition = Callable[[Pixels, Pixels, np.random.Generator], Pixels]  # (photo, another photo, randomness) → picture

WORDS = ("the", "of", "new", "photo", "today", "sale", "love", "best", "top", "wow", "free", "news", "2021", "follow",
         "share", "like", "why", "how", "when", "OMG")  # fmt: skip


class Augmenter:
    """Makes the two views of a photo, uint8 [S, S, 3]: a mild one and one attacked as `config` says."""

    def __init__(self, config: AugmentConfig, *, size: int) -> None:
        self.size = size
        self._flip = A.HorizontalFlip(p=0.5)
        self._compositions: list[tuple[float, Composition]] = [
            (config.overlay, _overlay),
            (config.emoji, _emoji),
            (config.text, _text),
            (config.frame, _frame),
        ]
        self._min_crop = config.min_crop
        self._attacks = _attacks(config)

    def mild(self, photo: Pixels, rng: np.random.Generator) -> Pixels:
        return _apply([self._flip], random_crop(photo, rng, size=self.size, least=0.7, stretch=1.25), rng)

    def hard(self, photo: Pixels, other: Pixels, rng: np.random.Generator) -> Pixels:
        """Crop, then compositions and attacks in random order, recompression last."""
        picture = random_crop(photo, rng, size=self.size, least=self._min_crop, stretch=2.0)
        steps: list[Callable[[Pixels], Pixels]] = [
            lambda p, make=make: make(p, other, rng)  # type: ignore[misc]
            for chance, make in self._compositions
            if rng.random() < chance
        ]
        steps += [lambda p, attack=attack: _apply([attack], p, rng) for attack in self._attacks[:-1]]  # type: ignore[misc]
        for i in rng.permutation(len(steps)):
            picture = steps[i](picture)
        return resize(_apply(self._attacks[-1:], picture, rng), self.size)


def random_crop(photo: Pixels, rng: np.random.Generator, *, size: int, least: float, stretch: float) -> Pixels:
    """A part of the photo, `least`…1 of its area, squeezed to [size, size, 3].

    Its aspect differs from the photo's own by up to a factor of `stretch`, where the area allows. (The aspect range of
    albumentations' RandomResizedCrop is absolute, which always cuts the same middle out of a panorama.)
    """
    share = rng.uniform(least, 1.0)
    factor = np.exp(rng.uniform(-1, 1) * min(np.log(stretch), -np.log(share)))  # neither side exceeds the photo's
    sides = np.sqrt([share / factor, share * factor])
    height, width = (max(1, round(side * full)) for side, full in zip(sides, photo.shape[:2], strict=True))
    top, left = (
        int(rng.integers(0, full - part + 1)) for full, part in zip(photo.shape, (height, width), strict=False)
    )
    return resize(photo[top : top + height, left : left + width], size)


def _apply(transforms: Sequence[A.BasicTransform], picture: Pixels, rng: np.random.Generator) -> Pixels:
    for transform in transforms:
        transform.set_random_state(rng, random.Random(int(rng.integers(1 << 32))))
        picture = transform(image=picture)["image"]
    return picture


def _attacks(config: AugmentConfig) -> list[A.BasicTransform]:
    """The edits of single pictures; the last is recompression."""
    filters = [A.Sharpen(), A.Emboss(), A.Posterize(num_bits=(2, 5)), A.Solarize(), A.ToSepia(), A.Equalize(),
               A.InvertImg(), A.RandomGridShuffle(grid=(3, 3)), A.ChannelShuffle()]  # fmt: skip
    return [
        A.HorizontalFlip(p=config.flip),
        A.VerticalFlip(p=config.flip / 5),
        A.Rotate(limit=180, border_mode=cv2.BORDER_CONSTANT, p=config.rotate),
        A.RandomRotate90(p=config.rotate / 3),
        A.Perspective(scale=(0.05, 0.2), p=config.perspective),
        A.ColorJitter(
            brightness=(0.5, 1.6), contrast=(0.5, 1.6), saturation=(0.2, 2.0), hue=(-0.15, 0.15), p=config.color
        ),
        A.ToGray(p=config.gray),
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.8, 3.5), p=config.blur),
        A.GaussNoise(std_range=(0.03, 0.2), p=config.noise),
        A.Downscale(
            scale_range=(0.12, 0.5),
            interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_NEAREST},
            p=config.pixelise,
        ),
        A.OneOf([*filters], p=config.filter),
        A.ImageCompression(quality_range=(5, 60), p=config.jpeg),
    ]


def _overlay(picture: Pixels, other: Pixels, rng: np.random.Generator) -> Pixels:
    """The picture on the other one (60 %), or the other way round; 35–75 % or 20–50 % of the side, opacity 0.5–1."""
    below = rng.random() < 0.6
    ground, patch = (resize(other, picture.shape[0]), picture) if below else (picture, other)
    side = picture.shape[0]
    low, high = (0.35, 0.75) if below else (0.2, 0.5)
    height, width = (int(side * share) for share in rng.uniform(low, high, 2))
    shrunk = np.asarray(cv2.resize(patch, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return _paste(ground, shrunk, rng, rng.uniform(0.5, 1.0))


def _paste(ground: Pixels, patch: Pixels, rng: np.random.Generator, opacity: float) -> Pixels:
    top, left = (int(rng.integers(0, g - p + 1)) for g, p in zip(ground.shape[:2], patch.shape[:2], strict=True))
    result = ground.copy()
    place = result[top : top + patch.shape[0], left : left + patch.shape[1]]
    place[:] = cv2.addWeighted(patch, opacity, place, 1 - opacity, 0)
    return result


def _text(picture: Pixels, _: Pixels, rng: np.random.Generator) -> Pixels:
    """One to four words in one colour, 8–30 % of the side high."""
    image = Image.fromarray(picture)
    side = picture.shape[0]
    font = ImageFont.load_default(size=side * rng.uniform(0.08, 0.3))
    words = " ".join(rng.choice(WORDS, size=rng.integers(1, 5)))
    ImageDraw.Draw(image).text(
        tuple(rng.uniform(-0.05, 0.6, 2) * side), words, fill=_color(rng), font=font,
        stroke_width=int(rng.integers(0, 3)), stroke_fill=_color(rng),
    )  # fmt: skip
    return np.asarray(image)


def _emoji(picture: Pixels, _: Pixels, rng: np.random.Generator) -> Pixels:
    """One to three round faces, discs or hearts of 12–45 % of the side."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    side = picture.shape[0]
    for _number in range(rng.integers(1, 4)):
        r = side * rng.uniform(0.06, 0.22)
        x, y = rng.uniform(0, side, 2)
        skin = (255, 205, 60) if rng.random() < 0.6 else _color(rng)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=skin, outline=(90, 60, 10))
        if rng.random() < 0.8:
            for eye in (-0.35, 0.35):
                draw.ellipse((x + (eye - 0.1) * r, y - 0.35 * r, x + (eye + 0.1) * r, y - 0.1 * r), fill=(60, 40, 10))
            box = (x - 0.5 * r, y - 0.2 * r, x + 0.5 * r, y + 0.6 * r)
            draw.arc(box, 20, 160, fill=(120, 40, 20), width=max(1, int(r / 8)))
    return np.asarray(image)


def _frame(picture: Pixels, _: Pixels, rng: np.random.Generator) -> Pixels:
    """Bars above, below and beside the picture in one colour, 0–35 % of the side each, with a line of text at times."""
    side = picture.shape[0]
    top, bottom = (int(share * side) for share in rng.uniform(0, 0.35, 2))
    left, right = (int(share * side) for share in rng.uniform(0, 0.25, 2) * (rng.random() < 0.5))
    color = [(255, 255, 255), (0, 0, 0), _color(rng)][rng.integers(3)]
    framed = np.asarray(
        cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_CONSTANT, value=color), np.uint8
    )
    if top > 0.1 * side and rng.random() < 0.7:
        image = Image.fromarray(framed)
        ink = (0, 0, 0) if sum(color) > 380 else (255, 255, 255)
        words = " ".join(rng.choice(WORDS, size=4))
        ImageDraw.Draw(image).text(
            (0.05 * side, 0.1 * top), words, fill=ink, font=ImageFont.load_default(size=0.6 * top)
        )
        framed = np.asarray(image)
    return resize(framed, side)


def _color(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue
