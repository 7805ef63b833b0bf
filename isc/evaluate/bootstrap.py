"""How far the figures of a run could differ by chance: the same judgement on queries drawn anew, with replacement.

The percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). What is drawn are
queries, distractors included, as predictions of one query hang together; a query drawn twice counts as two queries
with the same predictions and true pairs. numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.data.ids import IntArray
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.metrics import Curve, Scores, average_precision, ranks, recall_at_precision

Values = npt.NDArray[np.float64]

GRID = np.linspace(0.01, 1.0, 100)  # recalls at which a resample's curve is kept


@dataclass(frozen=True)
class Resampled:
    """The figures of B resamples, each [B] in 0…1, of scores `threshold`; of the same `seed` those of two runs judged
    by one ground truth belong together, the b-th to the b-th.

    All are NaN where no true pair was drawn; `threshold` also where the precision is never reached, `recall` is 0
    there. `curve` [B, 100] is the precision at which the recalls `GRID` are reached, NaN where they are not.
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
    """Predictions best first: the right ones [T], the wrong ones [W]; queries are positions among the judged [n].

    `wrong_until` [T] is how many wrong ones score as high as a right one or higher; `rank` [T] counts from 0 within
    their query; `positives` [n] is the number of true pairs of each judged query.
    """

    right: IntArray
    score: Scores
    rank: IntArray
    wrong: IntArray
    wrong_until: IntArray
    positives: IntArray


def bootstrap(
    matches: Matches, ground_truth: GroundTruth, *, precision: float = 0.9, resamples: int = 1000, seed: int = 0
) -> Resampled:
    """The figures of `evaluate` on `resamples` draws of as many queries as are judged; `recall` and `threshold` are
    those at this `precision`.

    Which queries are drawn depends on the sorted ids of the judged queries and the seed alone, so that two runs judged
    by the same ground truth are judged on the same draws, and more resamples begin with those of fewer. Raises
    InputError where there is no true pair, and for a precision outside 0…1 or no resample.
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


def draws(queries: int, resamples: int, *, seed: int) -> Iterator[IntArray]:
    """For each resample how often each query [n] is drawn, n in all: multinomial, each query as likely as any other."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(0, queries, queries), minlength=queries)


def interval(values: Values, *, level: float = 0.95) -> tuple[float, float]:
    """The percentiles between which lies this share of the values, NaN left out; (NaN, NaN) where all are NaN."""
    if not 0 < level < 1:
        raise InputError(f"level={level}; expected a share between 0 and 1")
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(resampled: Resampled, *, level: float = 0.95) -> dict[str, list[float] | None]:
    """Of resamples at 90 % precision, by the names of `Metrics`, for metrics.json; None where none has the figure."""
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
    """How often chance alone would make a difference as far from 0 as this, either way; 2/(B + 1) at the least.

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
    right = ground_truth.right(kept)
    order = np.argsort(-kept.score[right], kind="stable")
    query, score = table[kept.query[right]][order], kept.score[right][order]
    wrong_score = kept.score[~right]
    wrong_order = np.argsort(-wrong_score, kind="stable")
    until = len(wrong_order) - np.searchsorted(wrong_score[wrong_order][::-1], score, "left")
    reached = wrong_order[: int(until.max(initial=0))]  # those after the last right one matter to no figure
    positives = np.bincount([place[name] for name, _ in ground_truth.pairs], minlength=len(queries))
    return _Ordered(
        right=query,
        score=score,
        rank=ranks(kept, right)[order],
        wrong=table[kept.query[~right][reached]],
        wrong_until=until,
        positives=positives,
    )


def _figures(ordered: _Ordered, weights: IntArray, precision: float) -> tuple[list[float], Values]:
    """The figures in the order of `Resampled`, and the precision at the recalls of `GRID`."""
    num_positives = int(weights @ ordered.positives)
    if not num_positives:
        return [np.nan] * 5, np.full(len(GRID), np.nan)
    copies = weights[ordered.right]
    wrong_before = np.concatenate(([0], np.cumsum(weights[ordered.wrong])))[ordered.wrong_until]
    num_right = np.arange(1, int(copies.sum()) + 1)
    curve = Curve(
        precision=num_right / (num_right + np.repeat(wrong_before, copies)),
        recall=num_right / num_positives,
        score=np.repeat(ordered.score, copies),
    )
    recall, threshold = recall_at_precision(curve, precision)
    within = [float(copies[ordered.rank < k].sum() / num_positives) for k in (1, 10)]
    figures = [average_precision(curve), recall, np.nan if threshold is None else threshold, *within]
    return figures, _at_grid(curve, num_positives)


def _at_grid(curve: Curve, num_positives: int) -> Values:
    """The precision where as many right ones are found as each recall of `GRID` takes; NaN where they are not."""
    place = np.ceil(GRID * num_positives - 1e-9).astype(np.int64) - 1
    return np.append(curve.precision, np.nan)[np.minimum(place, len(curve.precision))]
