"""The copy attacks that the trainer learns to see through. No photo is opened here; all randomness is passed in.

What albumentations has is albumentations'; compositions, grounds of any colour and fonts are ours, written as
transforms of its kind. The edits of `isc.benchmark` are written apart from this on purpose: what is trained on
is never what is measured with.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace
from functools import partial

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network for a newer version

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt

from isc.config.train import AugmentConfig
from isc.photos.decode import Pixels
from isc.train.augment.attack import Attack, Composition, OtherPhoto
from isc.train.augment.composition import Emoji, Meme, PasteOnPhoto, PastePhotoOn, Stripes, Text, Veil
from isc.train.augment.fonts import fonts_used
from isc.train.augment.geometry import Border, Pad, QuarterTurn, Squeeze, Tilt, Tiny, Turn, cut, random_frame
from isc.train.augment.mix import cutmix, mixup
from isc.train.augment.patterns import COARSE as COARSE_PATTERNS
from isc.train.augment.patterns import TRACED as TRACED_PATTERNS
from isc.train.augment.patterns import patterns
from isc.train.augment.pixels import (
    CameraNoise,
    Contour,
    EnhanceEdges,
    Pixelise,
    Recompress,
    ShufflePixels,
    ShuffleTiles,
    SwapChannels,
)
from isc.train.augment.screens import Screenshot
from isc.train.augment.trace import Frame, Trace

__all__ = ["Attack", "Augmenter", "Composition", "cutmix", "families", "fonts_used", "mixup"]

LEVELS = 20  # of strength: transforms are made once for each
MILD_CROP, MILD_STRETCH, MILD_FLIP = 0.7, 1.25, 0.5
HARD_STRETCH = 2.0
OFTEN = 0.4, 1.6  # how often attacks come in one view, as a factor of their odds: some views have few, some many
BLURS = (A.GaussianBlur, A.Blur, A.MedianBlur, A.MotionBlur, A.Downscale)
COARSE = (*BLURS, Pixelise, ShufflePixels, ShuffleTiles, *COARSE_PATTERNS)
# what moves, covers or blends the photo, linearly in its pixels: what a trace follows
TRACED = (
    A.HorizontalFlip, A.VerticalFlip, Turn, QuarterTurn, Tilt, Squeeze, Pad, Tiny, Border, PasteOnPhoto, PastePhotoOn,
    Screenshot, Text, Emoji, Meme, Stripes, Veil, ShuffleTiles, *TRACED_PATTERNS,
)  # fmt: skip


def families(strength: float = 1.0) -> dict[str, list[A.BasicTransform]]:
    """The attacks behind each probability of AugmentConfig, by its name, at p = 1; each is as likely as its neighbours.

    `strength` 0…1 scales how far they go.
    """
    ours: dict[str, list[A.BasicTransform]] = {**_compositions(strength), **patterns(strength)}
    return {**_geometry(strength), **ours, **_colours(strength), **_qualities(strength)}


def _between(mildest: float, strongest: float, strength: float) -> tuple[float, float]:
    """The range from the mildest value to what the strength allows, the smaller first."""
    end = mildest + strength * (strongest - mildest)
    return min(mildest, end), max(mildest, end)


def _geometry(s: float) -> dict[str, list[A.BasicTransform]]:
    return {
        "flip": [A.HorizontalFlip(p=1)] * 5 + [A.VerticalFlip(p=1)],
        "rotate": [Turn(strength=s, p=1)] * 3 + [QuarterTurn(strength=s, p=1)],
        "perspective": [Tilt(strength=s, p=1)],
        "aspect": [Squeeze(strength=s, p=1)],
        "pad": [Pad(strength=s, p=1)],
        "tiny": [Tiny(strength=s, p=1)],
        "frame": [Border(strength=s, p=1)],
    }


def _compositions(s: float) -> dict[str, list[A.BasicTransform]]:
    return {
        "overlay": [PasteOnPhoto(strength=s, p=1)] * 3 + [PastePhotoOn(strength=s, p=1)] * 2,
        "screenshot": [Screenshot(strength=s, p=1)],
        "text": [Text(strength=s, p=1)],
        "emoji": [Emoji(strength=s, p=1)],
        "meme": [Meme(strength=s, p=1)],
        "stripes": [Stripes(strength=s, p=1)],
        "opacity": [Veil(strength=s, p=1)],
    }


def _colours(s: float) -> dict[str, list[A.BasicTransform]]:
    jitter = A.ColorJitter(
        brightness=(1 - 0.5 * s, 1 + 0.6 * s), contrast=(1 - 0.5 * s, 1 + 0.6 * s),
        saturation=(1 - 0.8 * s, 1 + s), hue=(-0.15 * s, 0.15 * s), p=1,
    )  # fmt: skip
    far = 0.2 + 0.8 * s
    extremes = [
        A.ColorJitter(brightness=around, contrast=(1, 1), saturation=(1, 1), hue=(0, 0), p=1)
        for around in ((1 - 0.7 * far, 1 - 0.4 * far), (1 + 0.5 * far, 1 + 1.2 * far))
    ]
    extremes += [
        A.ColorJitter(brightness=(1, 1), contrast=around, saturation=(1, 1), hue=(0, 0), p=1)
        for around in ((1 - 0.75 * far, 1 - 0.4 * far), (1 + 0.5 * far, 1 + 1.5 * far))
    ]
    extremes += [
        A.ColorJitter(brightness=(1, 1), contrast=(1, 1), saturation=around, hue=(0, 0), p=1)
        for around in ((1 - far, 1 - 0.5 * far), (1 + far, 1 + 3 * far))
    ]
    return {
        "color": [jitter] * 9 + extremes + [A.RandomGamma(gamma_limit=_gammas(s), p=1)] * 3,
        "gray": [A.ToGray(p=1)],
        "filter": [
            A.Posterize(num_bits=(max(1, round(5 - 3 * s)), 5), p=1),
            A.Solarize(threshold_range=_between(0.9, 0.3, s), p=1),
            A.InvertImg(p=1),
            A.ToSepia(p=1),
            A.Equalize(p=1),
            SwapChannels(strength=s, p=1),
        ],
        "edge": [
            A.Sharpen(alpha=_between(0.3, 0.9, s), p=1),
            A.Emboss(alpha=_between(0.3, 0.9, s), p=1),
            EnhanceEdges(strength=s, p=1),
            Contour(strength=s, p=1),
        ],
    }


def _gammas(s: float) -> tuple[float, float]:
    """Per cent: 100 is no change."""
    return 100 * 0.4**s, 100 * 2.5**s


def _qualities(s: float) -> dict[str, list[A.BasicTransform]]:
    def odd(strongest: int) -> tuple[int, int]:
        return 3, 3 + 2 * round(s * (strongest - 3) / 2)

    small = _between(0.6, 0.1, s)
    smooth = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}
    return {
        "blur": [
            A.GaussianBlur(blur_limit=0, sigma_limit=_between(0.8, 3.5, s), p=1),
            A.GaussianBlur(blur_limit=0, sigma_limit=_between(0.8, 3.5, s), p=1),
            A.Blur(blur_limit=odd(9), p=1),
            A.MedianBlur(blur_limit=odd(7), p=1),
            A.MotionBlur(blur_limit=odd(13), p=1),
        ],
        "noise": [
            A.GaussNoise(std_range=_between(0.03, 0.25, s), p=1),
            A.SaltAndPepper(amount=_between(0.01, 0.15, s), p=1),
            CameraNoise(strength=s, p=1),
        ],
        "pixelise": [Pixelise(strength=s, p=1)],
        "shuffle": [ShufflePixels(strength=s, p=1)] * 2 + [ShuffleTiles(strength=s, p=1)],
        "downscale": [A.Downscale(scale_range=small, interpolation_pair=smooth, p=1)],
        "jpeg": [Recompress(strength=s, p=1)],
    }


@dataclass(frozen=True)
class _Level:
    """What one strength needs: how likely each family is, and its attacks."""

    chances: npt.NDArray[np.float64]
    varied: npt.NDArray[np.bool_]  # whether a chance is higher in some views than in others; mirroring is not
    attacks: list[list[A.BasicTransform]]
    least: float  # area of the crop
    stretch: float


class Augmenter:
    """Makes the two views of a photo, uint8 [S, S, 3]: a mild one and one attacked as `config` says."""

    def __init__(self, config: AugmentConfig, *, size: int) -> None:
        self.size = size
        self._config = config
        self._flip = A.HorizontalFlip(p=1)
        self._levels: dict[int, _Level] = {}

    def mild(self, photo: Pixels, rng: np.random.Generator) -> Pixels:
        """70–100 % of the photo, mirrored half of the time."""
        return self.framed(photo, rng)[0]

    def framed(self, photo: Pixels, rng: np.random.Generator) -> tuple[Pixels, Frame]:
        """A mild view, and the part of the photo that it shows."""
        frame = random_frame(photo.shape, rng, least=MILD_CROP, stretch=MILD_STRETCH)
        picture = cut(photo, frame, self.size)
        if rng.random() >= MILD_FLIP:
            return picture, frame
        return _apply(self._flip, picture, None, rng), replace(frame, mirrored=True)

    def hard(self, photo: Pixels, other: OtherPhoto, rng: np.random.Generator, *, strength: float = 1.0) -> Pixels:
        """A crop, then the attacks whose coins fall so, in random order; recompression comes last half of the time.

        `other` is called by the attacks that take another photo along, at most once each. `strength` 0…1 (in steps of
        1/20) scales how likely the attacks are and how far they go: 0 leaves the edits of the mild view, 1 is what
        the configuration says, more or less often from view to view (`OFTEN`). Of the attacks that leave the photo a
        small part of the picture one at most comes, and one of those that redraw it in lines, dots or two colours.
        """
        return self.attacked(photo, other, rng, strength=strength)[0]

    def attacked(
        self, photo: Pixels, other: OtherPhoto, rng: np.random.Generator, *, strength: float = 1.0, traced: bool = False
    ) -> tuple[Pixels, Trace | None]:
        """A hard view, and, where it is to be `traced`, what says where its places lie in the photo."""
        level = self._level(strength)
        frame = random_frame(photo.shape, rng, least=level.least, stretch=level.stretch)
        picture, trace = cut(photo, frame, self.size), Trace(frame, size=self.size) if traced else None
        for attack in _chain(level, rng):
            if trace is not None and isinstance(attack, TRACED):
                trace.follow(partial(_apply_to, attack, other), rng)
            picture = _apply(attack, picture, other, rng)
        return picture, trace

    def _level(self, strength: float) -> _Level:
        if not 0 <= strength <= 1:
            raise ValueError(f"strength={strength}: expected a share in 0…1")
        step = round(strength * LEVELS)
        if step not in self._levels:
            self._levels[step] = self._made(step / LEVELS)
        return self._levels[step]

    def _made(self, s: float) -> _Level:
        made = families(s)
        chances = {name: s * getattr(self._config, name) for name in made}
        chances["flip"] += (1 - s) * MILD_FLIP
        if s == 0:
            made["flip"] = [self._flip]
        return _Level(
            chances=np.array(list(chances.values())),
            varied=np.array([name != "flip" for name in made]),
            attacks=list(made.values()),
            least=_between(MILD_CROP, self._config.min_crop, s)[self._config.min_crop > MILD_CROP],
            stretch=MILD_STRETCH * (HARD_STRETCH / MILD_STRETCH) ** s,
        )


def _chain(level: _Level, rng: np.random.Generator) -> list[A.BasicTransform]:
    """The attacks of one view, in their order.

    A view has more or fewer of them than the chances say, all families but mirroring alike: one edit must be seen
    through as well as six. Mostly the coarse ones come before the photo shrinks: pixels as large as what is left of it
    would leave nothing.
    """
    odds = rng.uniform(*OFTEN) ** level.varied * level.chances
    falls = rng.random(len(odds)) * (odds + 1 - level.chances) < odds  # certain stays certain, and never stays never
    drawn = [family[rng.integers(len(family))] for family, came in zip(level.attacks, falls, strict=True) if came]
    chain = [drawn[i] for i in rng.permutation(len(drawn))]
    if rng.random() < 0.5:
        chain.sort(key=lambda attack: isinstance(attack, Recompress))
    for once in ("shrinks", "redraws"):
        spare = [attack for attack in chain if getattr(attack, once, False)][1:]
        chain = [attack for attack in chain if attack not in spare]
    if not any(getattr(attack, "shrinks", False) for attack in chain) or rng.random() >= 0.75:
        return chain
    return sorted(chain, key=lambda attack: not isinstance(attack, COARSE))


def _apply(attack: A.BasicTransform, picture: Pixels, other: OtherPhoto | None, rng: np.random.Generator) -> Pixels:
    attack.set_random_state(rng, random.Random(int(rng.integers(1 << 32))))
    edited: Pixels = attack(image=picture, other=other)["image"]
    return edited


def _apply_to(attack: A.BasicTransform, other: OtherPhoto, picture: Pixels, rng: np.random.Generator) -> Pixels:
    return _apply(getattr(attack, "mover", attack), picture, other, rng)
