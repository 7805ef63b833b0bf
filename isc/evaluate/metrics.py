"""Metrics: micro-average precision, recall at 90 % precision, ranks. Only numpy is needed.

The metrics are those of the image similarity challenge (Douze et al., "The 2021 Image Similarity Dataset and
Challenge", arXiv:2106.09672, section 4): all predictions of all queries are sorted together by falling score.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError

Scores = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]

TENTHS = tuple(tenth / 10 for tenth in range(11))


@dataclass(frozen=True)
class Curve:
    """Precision and recall after each prediction, best score first; `precision`, `recall`, `score` are [M]."""

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    score: Scores


@dataclass(frozen=True)
class Metrics:
    """The metrics of one run. Precisions and recalls lie in 0…1; a threshold is None if the precision is not reached.

    `num_predictions` counts all predictions, `num_dropped` those whose query is not in the ground truth. `tie_range` is
    μAP with the correct pairs last and first among equal scores; `average_precision` is the former.
    """

    average_precision: float
    recall_at_p90: float
    threshold_at_p90: float | None
    recall_at_rank1: float
    recall_at_rank10: float
    num_predictions: int
    num_dropped: int
    num_positives: int
    tie_range: tuple[float, float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"tie_range": list(self.tie_range)}

    @property
    def ties_matter(self) -> bool:
        return self.tie_range[1] - self.tie_range[0] > 1e-12


def precision_recall(
    score: Scores, correct: Flags, num_positives: int, *, ties: Literal["worst", "best"] = "worst"
) -> Curve:
    """Return the curve of predictions in any order; `correct` marks the true pairs, both `score` and `correct` are [M].

    precision_i = right_i / i and recall_i = right_i / P after the i best predictions. Among equal scores the wrong
    pairs come first (`ties="worst"`, the challenge's rule) or last (`ties="best"`). Raises InputError if P is below 1.
    """
    _require_positives(num_positives)
    if ties not in ("worst", "best"):
        raise InputError(f"ties={ties!r}; expected 'worst' or 'best'")
    every, true = np.sort(score)[::-1], np.sort(score[correct])[::-1]
    is_right = np.zeros(len(every), np.int64)
    is_right[_wrong_before(every, true, ties) + np.arange(len(true))] = 1
    num_right = np.cumsum(is_right)
    return Curve(precision=num_right / np.arange(1, len(every) + 1), recall=num_right / num_positives, score=every)


def _require_positives(num_positives: int) -> None:
    if num_positives < 1:
        raise InputError(
            "the ground truth has no true pair, so precision and recall are undefined; expected at least 1"
        )


def _curve_at_right(every: Scores, true: Scores, num_positives: int, *, ties: Literal["worst", "best"]) -> Curve:
    """Return only the points of the curve at correct predictions; both lists of scores are best first.

    `average_precision` and `recall_at_precision` have the same value on them: at a wrong prediction the recall stays
    and the precision falls.
    """
    num_right = np.arange(1, len(true) + 1)
    precision = num_right / (num_right + _wrong_before(every, true, ties))
    return Curve(precision=precision, recall=num_right / num_positives, score=true)


def _wrong_before(every: Scores, true: Scores, ties: Literal["worst", "best"]) -> npt.NDArray[np.int64]:
    """Return the number of wrong predictions before each correct one; all scores are best first.

    It is the number of all predictions that score higher (with `ties="worst"`: or equal) minus the number of correct
    ones that do, so the order among equal scores is not needed.
    """
    side: Literal["left", "right"] = "left" if ties == "worst" else "right"
    rising, rising_true = every[::-1], true[::-1]
    not_before = np.searchsorted(rising, rising_true, side) - np.searchsorted(rising_true, rising_true, side)
    return (len(every) - len(true) - not_before)[::-1]


def average_precision(curve: Curve) -> float:
    """Return Σ (recall_i − recall_{i−1}) · precision_i over the curve, without interpolation."""
    steps = curve.recall.copy()
    steps[1:] -= curve.recall[:-1]
    return float(np.sum(steps * curve.precision))


def recall_at_precision(curve: Curve, precision: float) -> tuple[float, float | None]:
    """Return the largest recall at any point with at least this precision, and the score at that point.

    The precision may be lower before that point. Of several points with that recall the one with the highest score
    counts. Returns (0.0, None) if no true pair is found at this precision.
    """
    recall = np.where(curve.precision >= precision, curve.recall, 0.0)
    if not len(recall) or recall.max() == 0.0:
        return 0.0, None
    best = int(np.argmax(recall))
    return float(recall[best]), float(str(curve.score[best]))  # the decimals in predictions.csv


def ranks(matches: Matches, correct: Flags) -> npt.NDArray[np.int64]:
    """Return, for each correct prediction [T], how many others of its query score as high or higher (0 = first).

    rank = |{predictions of the query with score ≥ the pair's score}| − 1, so ties count against the pair.
    """
    query, score = matches.query, matches.score
    true = np.flatnonzero(correct)
    num_right = np.bincount(query[true], minlength=len(matches.query_ids))
    alone = num_right[query[true]] == 1
    rank = np.empty(len(true), np.int64)
    # most queries have one correct prediction: its rank is a count of scores, and needs no sort
    one = true[alone]
    least = np.zeros(len(matches.query_ids), score.dtype)
    least[query[one]] = score[one]
    reaches = (num_right == 1)[query] & (score >= least[query])
    rank[alone] = np.bincount(query[reaches], minlength=len(matches.query_ids))[query[one]] - 1
    several = np.flatnonzero((num_right > 1)[query])
    rank[~alone] = _ranks_in_query(query[several], score[several])[correct[several]]
    return rank


def _ranks_in_query(query: npt.NDArray[np.int64], score: Scores) -> npt.NDArray[np.int64]:
    """Return the rank of every prediction [M] within its query."""
    if not len(query):
        return np.zeros(0, np.int64)
    order = np.lexsort((-score, query))
    query, score = query[order], score[order]
    at = np.arange(len(order))
    new_query = np.r_[True, query[1:] != query[:-1]]
    first_of_query = np.maximum.accumulate(np.where(new_query, at, 0))
    new_score = new_query | np.r_[True, score[1:] != score[:-1]]
    run_ends = np.r_[np.flatnonzero(new_score)[1:], len(order)] - 1  # the last position with the same query and score
    last_of_run = run_ends[np.cumsum(new_score) - 1]
    rank = np.empty(len(order), np.int64)
    rank[order] = last_of_run - first_of_query
    return rank


def evaluate(matches: Matches, ground_truth: GroundTruth) -> Metrics:
    """Judge predictions against the ground truth.

    P is the number of distinct true pairs; a true pair that was never predicted is a miss. Predictions whose query
    does not occur in the ground truth are dropped and counted. Raises InputError if there is no true pair.
    """
    judged = ground_truth.judged(matches)
    kept = matches if judged.all() else matches.take(judged)
    correct = ground_truth.correct(kept)
    num_positives = len(ground_truth.pairs)
    _require_positives(num_positives)
    every, true = np.sort(kept.score)[::-1], np.sort(kept.score[correct])[::-1]
    curve = _curve_at_right(every, true, num_positives, ties="worst")
    recall, threshold = recall_at_precision(curve, 0.9)
    rank = ranks(kept, correct)
    worst = average_precision(curve)
    return Metrics(
        average_precision=worst,
        recall_at_p90=recall,
        threshold_at_p90=threshold,
        recall_at_rank1=float(np.sum(rank < 1) / num_positives),
        recall_at_rank10=float(np.sum(rank < 10) / num_positives),
        num_predictions=len(matches),
        num_dropped=len(matches) - len(kept),
        num_positives=num_positives,
        tie_range=(worst, average_precision(_curve_at_right(every, true, num_positives, ties="best"))),
    )


def wilson(found: int, of: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the interval, in 0…1, of the share `found` / `of` (Wilson, JASA 1927); valid also for few, none or all.

    Returns (0, 1) if `of` is 0. Raises InputError for a level outside 0…1.
    """
    if not 0 < level < 1:
        raise InputError(f"level={level}; expected a share between 0 and 1")
    if of == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, shrink = found / of, 1 + z * z / of
    middle = (share + z * z / (2 * of)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return 0.0 if found == 0 else middle - half, 1.0 if found == of else middle + half


@dataclass(frozen=True)
class Bin:
    """The pairs with probabilities in low…high: their number, mean probability, and share of correct pairs."""

    low: float
    high: float
    pairs: int
    mean: float
    correct: float


def reliability(probability: Scores, correct: Flags, *, edges: Sequence[float] = TENTHS) -> list[Bin]:
    """Return the non-empty bins between the `edges`, which rise from 0 to 1.

    For good probabilities the mean of each bin is near its share of correct pairs (DeGroot and Fienberg, The
    Statistician 1983).
    """
    place = np.digitize(probability, edges[1:-1])
    bins = []
    for at, (low, high) in enumerate(itertools.pairwise(edges)):
        rows = place == at
        if rows.any():
            bins.append(Bin(low, high, int(rows.sum()), float(probability[rows].mean()), float(correct[rows].mean())))
    return bins
