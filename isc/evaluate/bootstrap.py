"""The bootstrap of a run's metrics: the same evaluation on queries that are drawn again with replacement.

This is the percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). Queries
are drawn, distractors included, because the predictions of one query depend on each other; a query drawn twice counts
as two queries with the same predictions and true pairs. Only numpy is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.data.ids import IntArray
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.metrics import Curve, Flags, Scores, average_precision, ranks, recall_at_precision

Values = npt.NDArray[np.float64]

GRID = np.linspace(0.01, 1.0, 100)  # recalls at which the curve of a resample is kept


@dataclass(frozen=True)
class Resampled:
    """The metrics of B resamples, each [B] in 0…1; `threshold` is a score.

    With the same `seed`, the b-th resamples of two runs judged by one ground truth have the same queries. All values
    are NaN if no true pair was drawn; if the precision is never reached, `threshold` is NaN and `recall` is 0. `curve`
    [B, 100] is the precision at the recalls `GRID`, NaN for recalls that are not reached.
    """

    average_precision: Values
    recall: Values
    threshold: Values
    recall_at_rank1: Values
    recall_at_rank10: Values
    curve: Values
    seed: int


@dataclass(frozen=True)
class _Ordered:
    """The queries of correct [T] and wrong [W] predictions, as positions among the judged queries [n], best first.

    `wrong_until` [T] counts the wrong predictions that score as high as a correct one or higher; `in_first` and
    `in_ten` [T] say whether it is the first of its query, or of the first ten; `positives` [n] is the number of true
    pairs of each judged query.
    """

    correct: IntArray
    score: Scores
    in_first: Flags
    in_ten: Flags
    wrong: IntArray
    wrong_until: IntArray
    positives: IntArray


def bootstrap(
    matches: Matches, ground_truth: GroundTruth, *, precision: float = 0.9, resamples: int = 1000, seed: int = 0
) -> Resampled:
    """Compute the metrics of `evaluate` on `resamples` draws, each of as many queries as are judged.

    `recall` and `threshold` are those at this `precision`. The draws depend only on the sorted ids of the judged
    queries and on the seed: two runs judged by the same ground truth get the same draws, and a larger number of
    resamples begins with those of a smaller one. Raises InputError if there is no true pair, and for a precision
    outside 0…1 or no resample.
    """
    if not 0 < precision <= 1:
        raise InputError(f"precision={precision}; expected more than 0 and at most 1")
    if resamples < 1:
        raise InputError(f"resamples={resamples}; expected at least 1")
    if not ground_truth.pairs:
        raise InputError("the ground truth has no true pair, so there is nothing to resample; expected at least 1")
    ordered = _ordered(matches, ground_truth)
    figures = [_figures(ordered, weights, precision) for weights in draws(len(ordered.positives), resamples, seed=seed)]
    one, two, three, four, five = np.array([numbers for numbers, _ in figures]).T.copy()
    return Resampled(one, two, three, four, five, curve=np.array([curve for _, curve in figures]), seed=seed)


def bootstrap_at(
    matches: Matches, ground_truth: GroundTruth, precisions: Sequence[float], *, resamples: int = 1000, seed: int = 0
) -> list[tuple[Values, Values]]:
    """Compute `recall` and `threshold` of `bootstrap` at each of these precisions, on one series of draws."""
    ordered = _ordered(matches, ground_truth)
    found = np.full((len(precisions), 2, resamples), np.nan)
    for at, weights in enumerate(draws(len(ordered.positives), resamples, seed=seed)):
        curve = _curve(ordered, weights)
        if curve is not None:
            found[:, :, at] = [_numbers(*recall_at_precision(curve, precision)) for precision in precisions]
    return [(recall, threshold) for recall, threshold in found]


def draws(queries: int, resamples: int, *, seed: int) -> Iterator[IntArray]:
    """Yield, for each resample, how often each query [n] is drawn: n draws, each query with the same probability."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(0, queries, queries), minlength=queries)


def interval(values: Values, *, level: float = 0.95) -> tuple[float, float]:
    """Return the percentiles that enclose the share `level` of the values, NaN left out; (NaN, NaN) if all are NaN.

    Raises InputError for a level outside 0…1.
    """
    if not 0 < level < 1:
        raise InputError(f"level={level}; expected a share between 0 and 1")
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(resampled: Resampled, *, level: float = 0.95) -> dict[str, list[float] | None]:
    """Return the intervals of resamples at 90 % precision by the names of `Metrics`; None if all values are NaN."""
    figures = {
        "average_precision": resampled.average_precision,
        "recall_at_p90": resampled.recall,
        "threshold_at_p90": resampled.threshold,
        "recall_at_rank1": resampled.recall_at_rank1,
        "recall_at_rank10": resampled.recall_at_rank10,
    }
    found = {name: interval(values, level=level) for name, values in figures.items()}
    return {name: None if np.isnan(low) else [low, high] for name, (low, high) in found.items()}


def p_value(differences: Values) -> float:
    """Return the two-sided p-value of no difference, at least 2/(B + 1).

    p = min(1, 2 · (1 + min(|{d ≤ 0}|, |{d ≥ 0}|)) / (B + 1)) of the B paired differences d, NaN left out (Davison and
    Hinkley, "Bootstrap Methods and their Application", 1997, section 4.4). NaN where all are NaN.
    """
    known = differences[~np.isnan(differences)]
    if not len(known):
        return float("nan")
    fewer = min(int(np.sum(known <= 0)), int(np.sum(known >= 0)))
    return min(1.0, 2 * (1 + fewer) / (len(known) + 1))


def _ordered(matches: Matches, ground_truth: GroundTruth) -> _Ordered:
    queries = sorted(ground_truth.queries)
    place = dict(zip(queries, range(len(queries)), strict=True))
    kept = matches.take(ground_truth.judged(matches))
    table = np.array([place.get(name, -1) for name in kept.query_ids], np.int64)
    correct = ground_truth.correct(kept)
    order = np.argsort(-kept.score[correct], kind="stable")
    query, score = table[kept.query[correct]][order], kept.score[correct][order]
    wrong_score = kept.score[~correct]
    wrong_order = np.argsort(-wrong_score, kind="stable")
    until = len(wrong_order) - np.searchsorted(wrong_score[wrong_order][::-1], score, "left")
    reached = wrong_order[: int(until.max(initial=0))]  # wrong ones after the last correct one change no metric
    positives = np.bincount([place[name] for name, _ in ground_truth.pairs], minlength=len(queries))
    rank = ranks(kept, correct)[order]
    return _Ordered(
        correct=query,
        score=score,
        in_first=rank < 1,
        in_ten=rank < 10,
        wrong=table[kept.query[~correct][reached]],
        wrong_until=until,
        positives=positives,
    )


def _curve(ordered: _Ordered, weights: IntArray) -> Curve | None:
    """Return the curve of one resample at its correct predictions; None if no true pair was drawn."""
    num_positives = int(weights @ ordered.positives)
    if not num_positives:
        return None
    copies = weights[ordered.correct]
    before = np.zeros(len(ordered.wrong) + 1, np.int64)
    np.cumsum(weights[ordered.wrong], out=before[1:])
    num_right = np.arange(1, int(copies.sum()) + 1)
    return Curve(
        precision=num_right / (num_right + before[ordered.wrong_until].repeat(copies)),
        recall=num_right / num_positives,
        score=ordered.score.repeat(copies),
    )


def _figures(ordered: _Ordered, weights: IntArray, precision: float) -> tuple[list[float], Values]:
    """Return the metrics in the order of `Resampled`, and the precision at the recalls of `GRID`."""
    curve = _curve(ordered, weights)
    if curve is None:
        return [np.nan] * 5, np.full(len(GRID), np.nan)
    num_positives = int(weights @ ordered.positives)
    copies = weights[ordered.correct]
    within = [float(copies[first].sum() / num_positives) for first in (ordered.in_first, ordered.in_ten)]
    figures = [average_precision(curve), *_numbers(*recall_at_precision(curve, precision)), *within]
    return figures, _at_grid(curve, num_positives)


def _numbers(recall: float, threshold: float | None) -> tuple[float, float]:
    return recall, np.nan if threshold is None else threshold


def _at_grid(curve: Curve, num_positives: int) -> Values:
    """Return the precision at each recall of `GRID`; NaN if the recall is not reached."""
    place = np.ceil(GRID * num_positives - 1e-9).astype(np.int64) - 1
    return np.append(curve.precision, np.nan)[np.minimum(place, len(curve.precision))]
