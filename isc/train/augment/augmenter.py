"""The augmenter: a mild and a hard view of each photo. It opens no files, and every random generator is passed in.

Attacks that albumentations offers are taken from it; compositions, grounds of any colour and fonts are our own
transforms in its interface. The edits of `isc.benchmark` share no code with these attacks on purpose, so that a model
is never measured with the edits that it was trained on.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace
from functools import partial

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would look for a newer version on the network

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt

from isc.config.train import AugmentConfig
from isc.photos.decode import Pixels
from isc.train.augment.attack import OtherPhoto
from isc.train.augment.composition import Emoji, Meme, PasteOnPhoto, PastePhotoOn, Stripes, Text, Veil
from isc.train.augment.deferred import Edit, can_wait, edit_of
from isc.train.augment.geometry import Border, Pad, QuarterTurn, Squeeze, Tilt, Tiny, Turn, cut, random_frame
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

LEVELS = 20  # number of strength steps; the transforms of each step are made once
MILD_CROP, MILD_STRETCH, MILD_FLIP = 0.7, 1.25, 0.5
HARD_STRETCH = 2.0
OFTEN = 0.4, 1.6  # range of a random factor per view on the odds of its attacks: some views have few, some many
BLURS = (A.GaussianBlur, A.Blur, A.MedianBlur, A.MotionBlur, A.Downscale)
COARSE = (*BLURS, Pixelise, ShufflePixels, ShuffleTiles, *COARSE_PATTERNS)
# attacks that move, cover or blend the photo, linearly in its pixels; a trace follows them
TRACED = (
    A.HorizontalFlip, A.VerticalFlip, Turn, QuarterTurn, Tilt, Squeeze, Pad, Tiny, Border, PasteOnPhoto, PastePhotoOn,
    Screenshot, Text, Emoji, Meme, Stripes, Veil, ShuffleTiles, *TRACED_PATTERNS,
)  # fmt: skip


def families(strength: float = 1.0) -> dict[str, list[A.BasicTransform]]:
    """Return the attacks of each family by its probability's name in AugmentConfig, at p = 1.

    The attacks of a family are drawn with equal probability. `strength` 0…1 scales their size.
    """
    ours: dict[str, list[A.BasicTransform]] = {**_compositions(strength), **patterns(strength)}
    return {**_geometry(strength), **ours, **_colours(strength), **_qualities(strength)}


def _between(mildest: float, strongest: float, strength: float) -> tuple[float, float]:
    """Return (low, high) of the range from the mildest value to the strongest one that `strength` 0…1 allows."""
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
    """Return the gamma range in per cent; 100 is no change."""
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
    """The attack families of one strength, with their probabilities."""

    chances: npt.NDArray[np.float64]
    varied: npt.NDArray[np.bool_]  # families whose chance varies from view to view: all but mirroring
    attacks: list[list[A.BasicTransform]]
    least: float  # smallest area of the crop, as a share of the photo
    stretch: float


class Augmenter:
    """A maker of two kinds of views uint8 [S, S, 3] of a photo: mild, and hard (attacked with the odds of `config`)."""

    def __init__(self, config: AugmentConfig, *, size: int) -> None:
        self.size = size
        self._config = config
        self._flip = A.HorizontalFlip(p=1)
        self._levels: dict[int, _Level] = {}

    def mild(self, photo: Pixels, rng: np.random.Generator) -> Pixels:
        """Return a mild view: a crop of 70–100 % of the photo's area, mirrored with probability ½."""
        return self.framed(photo, rng)[0]

    def framed(self, photo: Pixels, rng: np.random.Generator) -> tuple[Pixels, Frame]:
        """Return a mild view, and the part of the photo that it shows."""
        frame = random_frame(photo.shape, rng, least=MILD_CROP, stretch=MILD_STRETCH)
        picture = cut(photo, frame, self.size)
        if rng.random() >= MILD_FLIP:
            return picture, frame
        return _apply(self._flip, picture, None, rng), replace(frame, mirrored=True)

    def hard(self, photo: Pixels, other: OtherPhoto, rng: np.random.Generator, *, strength: float = 1.0) -> Pixels:
        """Return a hard view: a crop, then random attacks in random order, recompression last with probability ½.
        Attacks that use another photo call `other`, at most once each. `strength` 0…1 (in steps of 1/20) scales the
        probability and the size of the attacks: 0 gives the edits of a mild view, 1 the configured probabilities,
        varied from view to view (`OFTEN`). A view gets at most one attack that shrinks the photo to a small part of the
        picture, and at most one that redraws it in lines, dots or two colours.
        """
        return self.attacked(photo, other, rng, strength=strength)[0]

    def attacked(
        self, photo: Pixels, other: OtherPhoto, rng: np.random.Generator, *, strength: float = 1.0, traced: bool = False
    ) -> tuple[Pixels, Trace | None]:
        """Return a hard view, and, if `traced`, the trace of its points back to the photo."""
        picture, trace, _ = self._edited(photo, other, rng, strength=strength, traced=traced, waiting=False)
        return picture, trace

    def begun(
        self, photo: Pixels, other: OtherPhoto, rng: np.random.Generator, *, strength: float = 1.0, traced: bool = False
    ) -> tuple[Pixels, Trace | None, list[Edit]]:
        """Return what `attacked` does without the last attacks of its chain that can wait, and these as edits."""
        return self._edited(photo, other, rng, strength=strength, traced=traced, waiting=True)

    def _edited(
        self,
        photo: Pixels,
        other: OtherPhoto,
        rng: np.random.Generator,
        *,
        strength: float,
        traced: bool,
        waiting: bool,
    ) -> tuple[Pixels, Trace | None, list[Edit]]:
        level = self._level(strength)
        frame = random_frame(photo.shape, rng, least=level.least, stretch=level.stretch)
        picture, trace = cut(photo, frame, self.size), Trace(frame, size=self.size) if traced else None
        chain, edits = _chain(level, rng), []
        made_here = max(
            (place for place, attack in enumerate(chain, 1) if not (waiting and can_wait(attack))), default=0
        )
        for place, attack in enumerate(chain):
            if trace is not None and isinstance(attack, TRACED):
                trace.follow(partial(_apply_to, attack, other), rng)
            if place < made_here:
                picture = _apply(attack, picture, other, rng)
            else:
                edits.append(edit_of(attack, picture, rng))
        return picture, trace, edits

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
    """Draw the attacks of one view, in their order.

    A random factor per view makes all families but mirroring more or less likely, so that the model learns to recognise
    a copy after one edit as well as after six. With probability ¾, coarse attacks come before the photo shrinks:
    blocks as large as the shrunken photo would leave nothing of it.
    """
    odds = rng.uniform(*OFTEN) ** level.varied * level.chances
    falls = rng.random(len(odds)) * (odds + 1 - level.chances) < odds  # chances of 0 and 1 stay 0 and 1
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
