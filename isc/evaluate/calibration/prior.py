"""The prior of a run: its share of copies and its number of references, and what they change in a probability.

At a given score, the number of copies grows with the share of queries that have one, and the number of wrong pairs that
chance makes with the number of references (isc.evaluate.calibration.chance). The odds of a fitted probability are
multiplied by both ratios (Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori
probabilities", Neural Computation 2002, equation 2.4). The share of a new run is found by their EM algorithm from the
run's own pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.data.json_files import Fields

Floats = npt.NDArray[np.float64]

ASSUMED = 10  # queries with the fitted share that are added to those of a run: a run of one query says nothing about it
ROUNDS, SETTLED = 200, 1e-6


@dataclass(frozen=True)
class Prior:
    """The expected number of copies per query, and the number of references; both above 0, else ValueError."""

    copies: float
    references: int

    def __post_init__(self) -> None:
        if not (0 < self.copies < math.inf and self.references >= 1):
            raise ValueError(f"{self.copies} copies a query, {self.references} references; expected both above 0")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | Fields) -> Prior:
        """Build a prior from `as_dict`. Raises ValueError for other values."""
        said = Fields.of(values)
        return cls(said.number("copies"), said.count("references"))


def shifted(probability: Floats, fitted: Prior, run: Prior, chance: Floats | float = 1.0) -> Floats:
    """Return probabilities [M] of the `fitted` prior as those of a run.

    `chance` [M] is the part, 0…1, that chance may have in each pair: the power to which the ratio of references counts.
    Fewer references than fitted do not raise a probability: small collections hold more pictures that look alike than
    chance gives them.
    """
    more = chance * math.log(max(run.references / fitted.references, 1.0))
    odds = np.log(probability) - np.log1p(-probability) + math.log(run.copies / fitted.copies) - more
    return np.asarray(np.exp(-np.logaddexp(0, -odds)), np.float64)


def estimated(
    probability: Floats, fitted: Prior, *, queries: int, references: int, chance: Floats | float = 1.0
) -> Prior:
    """Return the prior of a run with these pairs' fitted probabilities [M], each in 0…1 without the ends."""
    copies = fitted.copies
    for _ in range(ROUNDS):
        now = float(shifted(probability, fitted, Prior(copies, references), chance).sum())
        then, copies = copies, (now + ASSUMED * fitted.copies) / (queries + ASSUMED)
        if abs(copies - then) < SETTLED * then:
            break
    return Prior(copies, references)


def corrected(
    probability: Floats, fitted: Prior, *, queries: int, references: int, chance: Floats | float = 1.0
) -> tuple[Floats, Prior]:
    """Return a run's probabilities [M] under the prior that is estimated from them, and this prior."""
    run = estimated(probability, fitted, queries=queries, references=references, chance=chance)
    return shifted(probability, fitted, run, chance), run
