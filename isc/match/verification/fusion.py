"""The fusion of a pair's distance and local evidence into one probability that it is a copy.

It is a sum of curves (isc.evaluate.additive), in which more evidence never counts against a pair. A pair's probability
depends on that pair only, not on other queries or references.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.data.json_files import Fields
from isc.evaluate.additive import FALLS, FREE, RISES, Additive, fit_additive, logistic
from isc.match.verification.features import MAX_FEATURES
from isc.match.verification.quantities import EVIDENCE

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

GLOBAL = {"distance": FALLS}
ALIGNED = {  # quantities of a pair with an alignment, and the allowed direction of their curves
    "distance": FALLS,
    "inliers": RISES,
    "log_nfa": RISES,
    "inlier_share": RISES,
    "agreement": RISES,
    "agreeing_share": RISES,
    "contradiction": FALLS,
    "region_colours": FALLS,
    "flat": FALLS,
    "area_query": FREE,
    "area_reference": FREE,
    "spread_query": RISES,
    "spread_reference": RISES,
}
UNALIGNED = {"distance": FALLS, "features_query": FALLS, "features_reference": FALLS, "colour_difference": FALLS}
LOGARITHMIC = frozenset({"inliers", "log_nfa", "features_query", "features_reference"})
DISAGREEING = {  # a pair without an alignment whose pixels disagree as much as any can, as inputs of the curves
    "features_query": math.log1p(MAX_FEATURES),
    "features_reference": math.log1p(MAX_FEATURES),
    "colour_difference": 1.0,
}


@dataclass(frozen=True)
class Fusion:
    """The log-odds by distance alone, of pairs with an alignment, and of compared pairs without an alignment."""

    by_distance: Additive
    aligned: Additive
    unaligned: Additive

    def probability(self, distance: Floats, evidence: npt.NDArray[np.float32] | None = None) -> Floats:
        """Return the probability [P], 0…1, that each pair is a copy.

        `distance` [P] is squared; `evidence` is [P, len(EVIDENCE)], NaN for a pair that was not compared; None if no
        pair of the run was, and distance alone decides. A pair without an alignment is judged by its distance, its
        colours and the number of features: where there are few, as in plain and blurred pictures, their disagreement
        says little. Missing evidence never beats evidence: among pairs of one distance, one that was not compared has
        at most the probability of any that was.
        """
        columns = _columns(distance, evidence)
        odds = self.by_distance(columns)
        if evidence is None:
            return logistic(odds)
        least = self.unaligned(columns | {name: np.full(len(odds), value) for name, value in DISAGREEING.items()})
        compared = np.isfinite(evidence).all(axis=1)
        found = compared & (columns["inliers"] > 0)
        seen = np.maximum(np.where(found, self.aligned(columns), self.unaligned(columns)), least)
        return logistic(np.where(compared, seen, np.minimum(odds, least)))

    def as_dict(self) -> dict[str, Any]:
        """Return the values for JSON, which `from_dict` reads."""
        return {name: getattr(self, name).as_dict() for name in ("by_distance", "aligned", "unaligned")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | Fields) -> Fusion:
        """Build a fusion from `as_dict`. Raises ValueError for other values."""
        said = Fields.of(values)
        kinds = {"by_distance": GLOBAL, "aligned": ALIGNED, "unaligned": UNALIGNED}
        return cls(**{name: Additive.from_dict(said.fields(name), kind) for name, kind in kinds.items()})


def fit_fusion(distance: Floats, evidence: npt.NDArray[np.float32], copy: Flags) -> Fusion:
    """Fit the fusion by maximum likelihood on pairs: squared distances [P], evidence [P, F], `copy` flags [P].

    Raises ValueError if there are fewer than LEAST_COPIES copies or other pairs, with or without an alignment.
    """
    columns = _columns(distance, evidence)
    compared = np.isfinite(evidence).all(axis=1)
    found = compared & (columns["inliers"] > 0)
    return Fusion(
        by_distance=fit_additive(columns, copy, np.ones(len(copy), bool), GLOBAL),
        aligned=fit_additive(columns, copy, found, ALIGNED),
        unaligned=fit_additive(columns, copy, compared & ~found, UNALIGNED),
    )


def _columns(distance: Floats, evidence: npt.NDArray[np.float32] | None) -> dict[str, Floats]:
    """Return every quantity as the input of its curve: those over several decades as logarithms; NaN as 0."""
    columns = {"distance": np.asarray(distance, np.float64)}
    if evidence is not None:
        known = np.nan_to_num(evidence.astype(np.float64))
        columns |= {name: known[:, at] for at, name in enumerate(EVIDENCE)}
        columns |= {name: np.log1p(columns[name]) for name in LOGARITHMIC}
    return columns
