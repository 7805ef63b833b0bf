"""Metrics of a ranking with right texts: NDCG@5, recall at 1, 5 and 10, mean reciprocal rank, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.data.ids import IntArray
from isc.errors import InputError
from isc.evaluate.bootstrap import draws, interval

ABSENT = np.iinfo(np.int64).max  # the rank of a right text that was not found


@dataclass(frozen=True)
class Figure:
    """A metric in 0…1 (or of any size), with the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def as_list(self) -> list[float]:
        return [self.value, self.low, self.high]


@dataclass(frozen=True)
class RankingFigures:
    """The metrics of one ranking per query; `queries` is their number."""

    ndcg_at_5: Figure
    recall_at_1: Figure
    recall_at_5: Figure
    recall_at_10: Figure
    reciprocal_rank: Figure
    queries: int

    def as_dict(self) -> dict[str, list[float] | int]:
        names = ("ndcg_at_5", "recall_at_1", "recall_at_5", "recall_at_10", "reciprocal_rank")
        return {name: getattr(self, name).as_list() for name in names} | {"queries": self.queries}


def gain(rank: IntArray, *, beyond: int = 5) -> npt.NDArray[np.float64]:
    """Return the NDCG of each query with one right text at `rank` [Q], from 0: 1 / log₂(rank + 2), 0 from `beyond` on.

    With one right text the ideal gain is 1 (Järvelin and Kekäläinen, TOIS 2002), so this is the competition's NDCG@5.
    """
    place = np.minimum(rank, beyond)
    return np.where(rank < beyond, 1 / np.log2(place + 2.0), 0.0)


def ranks_of_right(scores: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> IntArray:
    """Return the rank, from 0, of the best right text of each query; both are [Q, T], a higher score is better.

    rank = number of wrong texts that score as high or higher: ties count against the ranking. ABSENT without a right
    text.
    """
    best = np.where(right, scores, -np.inf).max(axis=1)
    rank = (~right & (scores >= best[:, None])).sum(axis=1).astype(np.int64)
    return np.where(right.any(axis=1), rank, ABSENT)


def ranks_in_lists(found: Sequence[Sequence[str]], right: Sequence[str]) -> IntArray:
    """Return the rank, from 0, of the right text in the list of each query; ABSENT if it is not there."""
    return np.array(
        [list(texts).index(wanted) if wanted in texts else ABSENT for texts, wanted in zip(found, right, strict=True)],
        np.int64,
    )


def ranking_figures(rank: IntArray, *, resamples: int = 1000, seed: int = 0) -> RankingFigures:
    """Return the metrics of the ranks [Q], from 0, with percentile intervals over resampled queries.

    Raises InputError without a query.
    """
    if not len(rank):
        raise InputError("no query to judge; expected at least 1")
    values = np.stack(
        [gain(rank), rank < 1, rank < 5, rank < 10, np.where(rank == ABSENT, 0.0, 1 / (np.minimum(rank, 1 << 60) + 1))]
    ).astype(np.float64)
    drawn = np.stack([values @ weights / len(rank) for weights in draws(len(rank), resamples, seed=seed)], axis=1)
    figures = [Figure(float(one.mean()), *interval(many)) for one, many in zip(values, drawn, strict=True)]
    ndcg, first, fifth, tenth, reciprocal = figures
    return RankingFigures(ndcg, first, fifth, tenth, reciprocal, queries=len(rank))
