"""The distribution shift between the scores of a run and those of a calibration's fit.

The best scores of the queries are compared, by the largest distance between both distribution functions (Kolmogorov and
Smirnov). It reacts to more or fewer copies among the queries, other edits, other photos, and more references.
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

QUANTILES = 200  # number that is kept of the best scores; the rounding changes the distance by 1/400 at most
LEAST_QUERIES = 20  # with fewer, the distance is mostly chance
FAR = 0.1  # least distance that matters: as if a tenth of the queries had been replaced
CHANCE = 0.001  # p-value below which a warning is given: users would ignore warnings that are mostly wrong
TIMES = 3.0  # more or fewer references by this factor change the probabilities noticeably


@dataclass(frozen=True)
class Best:
    """The best score of each of `queries` queries, rising [N], or evenly spaced quantiles of the scores.

    `floor` is the lowest score of all kept pairs if some queries have no pair: they count with that score, and nothing
    is known below it. It is None if each query has a pair. Raises ValueError if the scores fall.
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
        """Build the best scores from `as_dict`. Raises KeyError, TypeError or ValueError for other values."""
        floor = values["floor"]
        scores = tuple(map(float, values["scores"]))
        return cls(int(values["queries"]), scores, None if floor is None else float(floor))


@dataclass(frozen=True)
class Shift:
    """The Kolmogorov–Smirnov `distance`, 0…1, its p-value `chance`, and the median best scores of run and fit."""

    distance: float
    chance: float
    median: float
    fitted_median: float

    @property
    def matters(self) -> bool:
        return self.distance >= FAR and self.chance < CHANCE


def best_scores(matches: Matches, queries: int) -> Best | None:
    """Return the best scores of `queries` queries, those without a pair included; None if there is no pair."""
    if not len(matches):
        return None
    best = np.full(len(matches.query_ids), -np.inf)
    np.maximum.at(best, matches.query, matches.score.astype(np.float64))
    best = best[np.isfinite(best)]
    missing, floor = queries - len(best), float(matches.score.min())
    kept = np.sort(np.r_[np.full(missing, floor), best])
    return Best(queries, tuple(_thinned(kept).tolist()), floor if missing else None)


def shift(run: Best, fitted: Best) -> Shift:
    """Compare the best scores of the run and of the fit, above the higher of their floors."""
    from scipy.special import kolmogorov  # type: ignore[import-untyped]

    known = max((one.floor for one in (run, fitted) if one.floor is not None), default=-math.inf)
    here, there = (np.maximum(np.array(one.scores), known) for one in (run, fitted))
    at = np.r_[here, there]
    distance = float(np.abs(_share(here, at) - _share(there, at)).max())
    effective = run.queries * fitted.queries / (run.queries + fitted.queries)
    chance = float(kolmogorov(math.sqrt(effective) * distance))
    return Shift(distance, chance, float(np.median(here)), float(np.median(there)))


def _share(rising: Floats, at: Floats) -> Floats:
    """Return the share of the values at or below each value of `at`."""
    return np.asarray(np.searchsorted(rising, at, side="right") / len(rising), np.float64)


def _thinned(rising: Floats) -> Floats:
    if len(rising) <= QUANTILES:
        return rising
    return rising[((np.arange(QUANTILES) + 0.5) * len(rising) / QUANTILES).astype(np.int64)]
