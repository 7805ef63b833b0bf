"""Whether the scores of a run are distributed like those a calibration was fitted on.

What is compared is each query's best score, by the largest distance between both distribution functions (Kolmogorov and
Smirnov). More or fewer copies among the queries, other edits, other photos, more references: all move it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.data.matches import Matches

Floats = npt.NDArray[np.float64]

QUANTILES = 200  # that are kept of the best scores; what they leave out moves the distance by 1/400 at most
LEAST_QUERIES = 20  # below which chance alone moves the distance too far to tell
FAR = 0.1  # a distance that matters: as if a tenth of the queries had been exchanged
CHANCE = 0.001  # how often chance alone may go as far: a warning that is mostly wrong would not be read
TIMES = 3.0  # references more or fewer by this factor move the probabilities noticeably


@dataclass(frozen=True)
class Best:
    """The best score of each of so many queries, rising [N], or evenly spaced quantiles of them.

    `floor` is the lowest score that was kept, where queries had no pair left: those count as if they had that, and
    nothing is known below it. None where each query has a pair.
    """

    queries: int
    scores: tuple[float, ...]
    floor: float | None

    def __post_init__(self) -> None:
        if not (self.queries >= len(self.scores) > 0 and np.all(np.diff(self.scores) >= 0)):
            raise ValueError(f"{len(self.scores)} best scores of {self.queries} queries; expected rising ones")

    def as_dict(self) -> dict[str, Any]:
        return {"queries": self.queries, "scores": list(self.scores), "floor": self.floor}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Best:
        """KeyError, TypeError or ValueError for what `as_dict` did not make."""
        floor = values["floor"]
        scores = tuple(map(float, values["scores"]))
        return cls(int(values["queries"]), scores, None if floor is None else float(floor))


@dataclass(frozen=True)
class Shift:
    """`distance` 0…1; `chance`, how often two samples of one distribution are as far apart or farther; the median best
    scores of the run and of the fit."""

    distance: float
    chance: float
    median: float
    fitted_median: float

    @property
    def matters(self) -> bool:
        return self.distance >= FAR and self.chance < CHANCE


def best_scores(matches: Matches, queries: int) -> Best | None:
    """Of so many queries, those without a pair included; None where no pair is left at all."""
    if not len(matches):
        return None
    best = np.full(len(matches.query_ids), -np.inf)
    np.maximum.at(best, matches.query, matches.score.astype(np.float64))
    best = best[np.isfinite(best)]
    missing, floor = queries - len(best), float(matches.score.min())
    kept = np.sort(np.r_[np.full(missing, floor), best])
    return Best(queries, tuple(_thinned(kept).tolist()), floor if missing else None)


def shift(run: Best, fitted: Best) -> Shift:
    """How far the run's best scores are from those of the fit, above the lowest score that both know of."""
    from scipy.special import kolmogorov  # type: ignore[import-untyped]

    known = max((one.floor for one in (run, fitted) if one.floor is not None), default=-math.inf)
    here, there = (np.maximum(np.array(one.scores), known) for one in (run, fitted))
    at = np.r_[here, there]
    distance = float(np.abs(_share(here, at) - _share(there, at)).max())
    effective = run.queries * fitted.queries / (run.queries + fitted.queries)
    chance = float(kolmogorov(math.sqrt(effective) * distance))
    return Shift(distance, chance, float(np.median(here)), float(np.median(there)))


def _share(rising: Floats, at: Floats) -> Floats:
    """The share of the values at or below each of `at`."""
    return np.asarray(np.searchsorted(rising, at, side="right") / len(rising), np.float64)


def _thinned(rising: Floats) -> Floats:
    if len(rising) <= QUANTILES:
        return rising
    return rising[((np.arange(QUANTILES) + 0.5) * len(rising) / QUANTILES).astype(np.int64)]
