"""Metrics of captions: BLEU-1…4 and CIDEr-D over lists of tokens, with bootstrap intervals over pictures.

BLEU: Papineni et al., ACL 2002, equations 1–3, over the whole corpus, with the reference of the closest length.
CIDEr-D: Vedantam et al., CVPR 2015, equations 1–3 and 6 (σ = 6, n = 1…4, times 10). Both give the values of
pycocoevalcap on the same tokens; METEOR and SPICE, which need Java, are not here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.errors import InputError
from isc.evaluate.bootstrap import draws, interval
from isc.words.ranking import Figure

Tokens = Sequence[str]
Gram = tuple[str, ...]
Counts = Counter[Gram]

ORDERS = 4
SIGMA = 6.0
TINY, SMALL = 1e-15, 1e-9  # of pycocoevalcap's BLEU, against a division by zero


@dataclass(frozen=True)
class CaptionFigures:
    """BLEU-1…4 in 0…1 and CIDEr-D in 0…10 of one caption a picture; `pictures` is their number."""

    bleu: tuple[Figure, Figure, Figure, Figure]
    cider: Figure
    pictures: int

    def as_dict(self) -> dict[str, list[float] | int]:
        named = {f"bleu_{order}": figure for order, figure in enumerate(self.bleu, start=1)} | {"cider_d": self.cider}
        return {**{name: figure.as_list() for name, figure in named.items()}, "pictures": self.pictures}


def grams(tokens: Tokens, order: int) -> Counts:
    """Return how often each run of `order` tokens occurs."""
    return Counter(tuple(tokens[at : at + order]) for at in range(len(tokens) - order + 1))


def bleu_counts(caption: Tokens, references: Sequence[Tokens]) -> npt.NDArray[np.float64]:
    """Return the counts [10] of a caption: of each order the right and the possible runs, its length, and the closest.

    A run is right as often as it occurs in the one reference that has it most.
    """
    counts: list[float] = []
    for order in range(1, ORDERS + 1):
        most: Counts = Counter()
        for reference in references:
            most |= grams(reference, order)
        ours = grams(caption, order)
        counts += [sum((ours & most).values()), max(0, len(caption) - order + 1)]
    closest = min((abs(len(one) - len(caption)), len(one)) for one in references)[1]
    return np.array([*counts, len(caption), closest], np.float64)


def bleu_of_counts(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return BLEU-1…4 [4] of the summed counts [10] of a corpus."""
    right, possible, (length, closest) = counts[0:8:2], counts[1:8:2], counts[8:]
    precision = (right + TINY) / (possible + SMALL)
    scores = np.cumprod(precision) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (length + TINY) / (closest + SMALL)
    return np.asarray(scores * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0))


class CiderD:
    """CIDEr-D with the document frequencies of one set of references: one list of references a picture.

    Raises InputError without references.
    """

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        if not references or not all(references):
            raise InputError("a picture without a reference caption; expected at least one for each")
        self._frequency: Counts = Counter()
        for several in references:
            self._frequency.update({gram for one in several for order in range(1, 5) for gram in grams(one, order)})
        self._log_documents = math.log(len(references))

    def score(self, caption: Tokens, references: Sequence[Tokens]) -> float:
        """Return the mean agreement, in 0…10, of a caption with its references."""
        return self.agreement(self.vector(caption), [self.vector(one) for one in references])

    def vector(self, tokens: Tokens) -> CiderVector:
        """Return the weights of all runs of a caption: count · log(documents / documents with the run)."""
        weights = [
            {
                gram: count * (self._log_documents - math.log(max(1, self._frequency[gram])))
                for gram, count in grams(tokens, order).items()
            }
            for order in range(1, ORDERS + 1)
        ]
        norms = [math.sqrt(sum(value * value for value in part.values())) for part in weights]
        return CiderVector(weights, norms, max(0, len(tokens) - 1))

    def agreement(self, ours: CiderVector, references: Sequence[CiderVector]) -> float:
        """Return CIDEr-D, in 0…10, of weighed captions."""
        return 10 * sum(_similarity(ours, one) for one in references) / (ORDERS * len(references))


@dataclass(frozen=True)
class CiderVector:
    """The weights of a caption's runs by order, their Euclidean norms, and its length in pairs of words."""

    weights: Sequence[dict[Gram, float]]
    norms: Sequence[float]
    length: int


def _similarity(ours: CiderVector, other: CiderVector) -> float:
    """Return the sum over the orders of the cosine with clipped weights, times the Gaussian of the lengths."""
    total = 0.0
    for mine, theirs, norm, their_norm in zip(ours.weights, other.weights, ours.norms, other.norms, strict=True):
        dot = sum(min(value, theirs[gram]) * theirs[gram] for gram, value in mine.items() if gram in theirs)
        total += dot / (norm * their_norm) if norm and their_norm else dot
    return total * math.exp(-((ours.length - other.length) ** 2) / (2 * SIGMA * SIGMA))


def cider_scores(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> npt.NDArray[np.float64]:
    """Return CIDEr-D of each caption [P], with document frequencies of these references."""
    judge = CiderD(references)
    return np.array([judge.score(ours, theirs) for ours, theirs in zip(captions, references, strict=True)])


def caption_figures(
    captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]], *, resamples: int = 1000, seed: int = 0
) -> CaptionFigures:
    """Return BLEU-1…4 and CIDEr-D of one caption a picture, with percentile intervals over resampled pictures.

    Raises InputError without a picture, or for one without a reference.
    """
    if not captions:
        raise InputError("no caption to judge; expected at least 1")
    cider = cider_scores(captions, references)
    counts = np.stack([bleu_counts(ours, theirs) for ours, theirs in zip(captions, references, strict=True)])
    weights = list(draws(len(captions), resamples, seed=seed))
    bleus = np.stack([bleu_of_counts(one @ counts) for one in weights])
    value = bleu_of_counts(counts.sum(axis=0))
    bleu = [Figure(float(value[at]), *interval(bleus[:, at])) for at in range(ORDERS)]
    drawn = np.array([one @ cider / len(cider) for one in weights])
    return CaptionFigures(
        bleu=(bleu[0], bleu[1], bleu[2], bleu[3]),
        cider=Figure(float(cider.mean()), *interval(drawn)),
        pictures=len(captions),
    )
