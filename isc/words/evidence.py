"""Evidence for captions of a picture, and the fusion that ranks them and says how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize  # type: ignore[import-untyped]

from isc.errors import InputError
from isc.words.caption_metrics import Tokens
from isc.words.retrieval import Array, Neighbours, Retriever, consensus

NAMES = ("consensus", "text_cosine", "log_probability", "length", "likeness", "matching")
Floats = npt.NDArray[np.float64]


def evidence(
    retriever: Retriever, near: Neighbours, text: Array, captions: Sequence[Tokens], *,
    log_probability: Floats | None, likeness: float, matching: Floats | None = None,
) -> Floats:  # fmt: skip
    """Return the evidence [N, 6] for captions of one picture, in the order of NAMES.

    consensus        agreement with the captions of the nearest training pictures, 0…1
    text_cosine      cosine of the caption's text vector and `text` [D], the one that the picture leads to
    log_probability  mean log-probability of a word by the network; 0 without one
    length           words, in tens
    likeness         mean likeness of the nearest pictures, the same for all captions of the picture
    matching         log-odds of fitting the picture by the transformer's matching head; 0 without one
    """
    none = np.zeros(len(captions))
    cosine = retriever.vectors(captions) @ text
    length = np.array([len(one) / 10 for one in captions])
    columns = (
        consensus(retriever, near, captions), cosine, none if log_probability is None else log_probability, length,
        np.full(len(captions), likeness), none if matching is None else matching,
    )  # fmt: skip
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1)


@dataclass(frozen=True)
class CaptionFusion:
    """A weighted sum of the evidence, the expected CIDEr-D, and the probability that a caption is a good one.

    expected = bias + weights · evidence; probability = 1 / (1 + exp(−(slope · expected + offset))). A caption is good
    if its CIDEr-D is at least `good`. Raises InputError for numbers that are not finite.
    """

    weights: tuple[float, ...]
    bias: float
    slope: float
    offset: float
    good: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(float(one) for one in self.weights))
        numbers = (*self.weights, self.bias, self.slope, self.offset, self.good)
        if len(self.weights) != len(NAMES) or not np.isfinite(numbers).all():
            raise InputError(f"a fusion of {len(self.weights)} weights; expected {len(NAMES)} finite numbers")

    def expected(self, rows: Floats) -> Floats:
        """Return the expected CIDEr-D of each row of evidence [N, 6]."""
        return np.asarray(rows @ np.array(self.weights) + self.bias)

    def probability(self, rows: Floats) -> Floats:
        """Return the probability, 0…1, that each caption is good."""
        return np.asarray(1 / (1 + np.exp(-(self.slope * self.expected(rows) + self.offset))))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def fit_fusion(
    rows: Sequence[Floats], cider: Sequence[Floats], *, good: float, use: Sequence[str] = NAMES, ridge: float = 1e-3
) -> CaptionFusion:
    """Fit the fusion to captions of known CIDEr-D: evidence [N, 6] and values [N] for each picture.

    Evidence that is not in `use` has no weight.
    The weights are those of least squares with a small ridge on standardised evidence. Slope and offset are Platt's
    (1999), fitted on the best caption of each picture alone, because that is the one that is shown. Raises InputError
    without a picture.
    """
    if not rows:
        raise InputError("no pictures with captions of known quality; expected at least 1")
    every, value = np.concatenate(rows), np.concatenate(cider)
    center, spread = every.mean(axis=0), np.maximum(every.std(axis=0), 1e-9)
    unused = (every.std(axis=0) < 1e-9) | np.array([name not in use for name in NAMES])
    spread = np.where(unused, np.inf, spread)  # what is always the same has no weight either
    scaled = (every - center) / spread
    gram = scaled.T @ scaled + ridge * len(every) * np.eye(len(NAMES))
    weights = np.linalg.solve(gram, scaled.T @ (value - value.mean())) / spread
    bias = float(value.mean() - weights @ center)
    expected = [one @ weights + bias for one in rows]
    best = np.array([one.max() for one in expected])
    right = np.array([values[one.argmax()] >= good for one, values in zip(expected, cider, strict=True)])
    slope, offset = _platt(best, right)
    return CaptionFusion(tuple(weights), bias, slope, offset, good)


def _platt(score: Floats, right: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and offset of the logistic curve, with Platt's targets, which never reach 0 and 1."""
    positives, negatives = int(right.sum()), int((~right).sum())
    target = np.where(right, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(values: Floats) -> float:
        logit = values[0] * score + values[1]
        return float(np.mean(np.logaddexp(0, logit) - target * logit))

    found = optimize.minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
    return float(found[0]), float(found[1])
