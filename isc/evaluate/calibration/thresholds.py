"""Score thresholds for a wanted precision, and the uncertainty of both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.data.json_files import Fields
from isc.data.matches import GroundTruth, Matches
from isc.evaluate.bootstrap import Values, bootstrap_at, interval
from isc.evaluate.metrics import precision_recall, recall_at_precision, wilson

PRECISIONS = (0.5, 0.8, 0.9, 0.95, 0.99)  # thresholds for these are always found, besides the wanted one
RESAMPLES = 1000

Interval = tuple[float, float]


@dataclass(frozen=True)
class Threshold:
    """The threshold for a wanted `precision`: the score of largest recall at that precision, None if never reached.

    `best` is the highest precision at any score, `best_score` that score. `interval` and `recall_interval` are 95 %
    bootstrap intervals of the threshold and the recall; a share `reached` of the resamples reaches the precision, and
    only these count for `interval`. `held_out` is the share of copies among the `held_out_pairs` at or above a
    threshold that was found without their queries, with its interval: the precision to expect on similar queries. It is
    None if there is no such pair.
    """

    precision: float
    threshold: float | None
    interval: Interval | None
    reached: float
    recall: float
    recall_interval: Interval | None
    pairs: int
    held_out: float | None
    held_out_interval: Interval | None
    held_out_pairs: int
    best: float
    best_score: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __post_init__(self) -> None:
        shares = (self.precision, self.reached, self.recall, self.best, self.held_out or 0.0)
        spans = [span for span in (self.interval, self.recall_interval, self.held_out_interval) if span]
        if not all(0 <= share <= 1 for share in shares) or min(self.pairs, self.held_out_pairs) < 0:
            raise ValueError(f"precision {self.precision}, {self.pairs} pairs: a share outside 0…1, or a count below 0")
        if any(low > high for low, high in spans):
            raise ValueError(f"precision {self.precision}: an interval that ends before it begins")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | Fields) -> Threshold:
        """Build a threshold from `as_dict`. Raises ValueError for other values."""
        said = Fields.of(values)
        return cls(
            precision=said.number("precision"),
            threshold=said.number_or_none("threshold"),
            interval=_span(said, "interval"),
            reached=said.number("reached"),
            recall=said.number("recall"),
            recall_interval=_span(said, "recall_interval"),
            pairs=said.count("pairs"),
            held_out=said.number_or_none("held_out"),
            held_out_interval=_span(said, "held_out_interval"),
            held_out_pairs=said.count("held_out_pairs"),
            best=said.number("best"),
            best_score=said.number("best_score"),
        )


def find_thresholds(
    matches: Matches, truth: GroundTruth, fold: npt.NDArray[np.int64], *, precisions: Sequence[float], seed: int = 0
) -> list[Threshold]:
    """Find the thresholds on these pairs, all of judged queries; `fold` [M] is the fold of each pair."""
    resampled = bootstrap_at(matches, truth, precisions, resamples=RESAMPLES, seed=seed)
    return [
        _found(matches, truth, fold, precision=precision, recalls=recalls, thresholds=thresholds)
        for precision, (recalls, thresholds) in zip(precisions, resampled, strict=True)
    ]


def _found(
    matches: Matches,
    truth: GroundTruth,
    fold: npt.NDArray[np.int64],
    *,
    precision: float,
    recalls: Values,
    thresholds: Values,
) -> Threshold:
    correct = truth.correct(matches)
    curve = precision_recall(matches.score, correct, len(truth.pairs))
    recall, threshold = recall_at_precision(curve, precision)
    accepted, copies = held_out(matches, correct, fold, precision=precision)
    at = int(np.argmax(np.where(curve.recall > 0, curve.precision, -1)))
    reached = threshold is not None
    return Threshold(
        precision=precision,
        threshold=threshold,
        interval=_known(interval(thresholds)) if reached else None,
        reached=float(np.mean(~np.isnan(thresholds))),
        recall=recall,
        recall_interval=_known(interval(recalls)) if reached else None,
        pairs=int(np.sum(matches.score >= threshold)) if threshold is not None else 0,
        held_out=copies / accepted if accepted else None,
        held_out_interval=wilson(copies, accepted) if accepted else None,
        held_out_pairs=accepted,
        best=float(curve.precision[at]),
        best_score=float(str(curve.score[at])),
    )


def held_out(
    matches: Matches, correct: npt.NDArray[np.bool_], fold: npt.NDArray[np.int64], *, precision: float
) -> tuple[int, int]:
    """Count the pairs at or above the threshold of the other folds' queries, and the copies among them.

    On the pairs of its own fit a threshold reaches the precision by construction; on held-out pairs it may not.
    """
    accepted = copies = 0
    for one in np.unique(fold):
        seen = fold != one
        if not correct[seen].any():
            continue
        curve = precision_recall(matches.score[seen], correct[seen], int(correct[seen].sum()))
        threshold = recall_at_precision(curve, precision)[1]
        if threshold is not None:
            kept = ~seen & (matches.score >= threshold)
            accepted, copies = accepted + int(kept.sum()), copies + int(correct[kept].sum())
    return accepted, copies


def _known(span: Interval) -> Interval | None:
    return None if math.isnan(span[0]) else span


def _span(said: Fields, name: str) -> Interval | None:
    if said.value(name) is None:
        return None
    ends = said.numbers(name)
    if len(ends) != 2:
        raise ValueError(f"{said.where}{name} has {len(ends)} numbers; expected two")
    return ends[0], ends[1]
