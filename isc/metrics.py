"""Judging: micro-average precision, recall at 90 % precision, ranks. numpy alone.

The measure is that of the image similarity challenge (Douze et al., "The 2021 Image Similarity Dataset and Challenge",
arXiv:2106.09672, section 4): all predictions of all queries are sorted together by falling score.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from isc.descriptors import GroundTruth, Matches
from isc.errors import InputError

Scores = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Curve:
    """Precision and recall after each prediction, best score first; `precision`, `recall`, `score` are [M]."""

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    score: Scores


@dataclass(frozen=True)
class Metrics:
    """The figures of one run. Precisions and recalls lie in 0…1; a threshold is None where the precision is not met.

    `num_predictions` counts all predictions given, `num_dropped` those of them whose query is not in the ground truth.
    `tie_range` is μAP with the right pairs last and first among equal scores; `average_precision` is the former.
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
    score: Scores, right: Flags, num_positives: int, *, ties: Literal["worst", "best"] = "worst"
) -> Curve:
    """The curve of predictions `score` [M] of which `right` [M] are true pairs, in any order.

    precision_i = right_i / i and recall_i = right_i / P after the i best predictions. Among equal scores the wrong
    pairs come first (`ties="worst"`, the challenge's rule) or last (`ties="best"`).
    """
    if num_positives < 1:
        raise InputError(
            "the ground truth has no true pair, so precision and recall are undefined; expected at least 1"
        )
    if ties not in ("worst", "best"):
        raise InputError(f"ties={ties!r}; expected 'worst' or 'best'")
    order = np.lexsort((right if ties == "worst" else ~right, -score))
    true = np.cumsum(right[order], dtype=np.int64)
    return Curve(
        precision=true / np.arange(1, len(true) + 1), recall=true / num_positives, score=np.asarray(score)[order]
    )


def average_precision(curve: Curve) -> float:
    """Σ (recall_i − recall_{i−1}) · precision_i over the curve, without interpolation."""
    return float(np.sum(np.diff(curve.recall, prepend=0.0) * curve.precision))


def recall_at_precision(curve: Curve, precision: float) -> tuple[float, float | None]:
    """The largest recall at any point with at least this precision, also after a dip, and the score at that point.

    Of several points with that recall the one with the highest score counts. (0.0, None) where no true pair is found
    at this precision.
    """
    recall = np.where(curve.precision >= precision, curve.recall, 0.0)
    if not len(recall) or recall.max() == 0.0:
        return 0.0, None
    best = int(np.argmax(recall))
    return float(recall[best]), float(str(curve.score[best]))  # the decimals that predictions.csv gives it


def ranks(matches: Matches, right: Flags) -> npt.NDArray[np.int64]:
    """For each right prediction [number right], how many others of its query score as high or higher (0 = first).

    rank = |{predictions of the query with score ≥ the pair's score}| − 1, so ties count against the pair.
    """
    if not len(matches):
        return np.zeros(0, np.int64)
    order = np.lexsort((-matches.score, matches.query))
    query, score = matches.query[order], matches.score[order]
    at = np.arange(len(order))
    new_query = np.r_[True, query[1:] != query[:-1]]
    first_of_query = np.maximum.accumulate(np.where(new_query, at, 0))
    new_score = new_query | np.r_[True, score[1:] != score[:-1]]
    run_ends = np.r_[np.flatnonzero(new_score)[1:], len(order)] - 1  # the last position with the same query and score
    last_of_run = run_ends[np.cumsum(new_score) - 1]
    rank = np.empty(len(order), np.int64)
    rank[order] = last_of_run - first_of_query
    return rank[right]


def evaluate(matches: Matches, ground_truth: GroundTruth) -> Metrics:
    """Judge predictions against the ground truth.

    P is the number of distinct true pairs; a true pair that was never predicted is a miss. Predictions whose query
    does not occur in the ground truth are dropped and counted. Raises InputError where there is no true pair.
    """
    judged = ground_truth.judged(matches)
    kept = matches if judged.all() else matches.take(judged)
    right = ground_truth.right(kept)
    num_positives = len(ground_truth.pairs)
    curve = precision_recall(kept.score, right, num_positives)
    recall, threshold = recall_at_precision(curve, 0.9)
    rank = ranks(kept, right)
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
        tie_range=(worst, average_precision(precision_recall(kept.score, right, num_positives, ties="best"))),
    )
