"""All that is known of a pair, its distance and its local evidence, as one probability that it is a copy.

A sum of curves, one for each quantity, goes through the logistic function: a generalised additive model (Hastie and
Tibshirani, Statistical Science 1986) of broken lines whose directions are given, so that more evidence never counts
against a pair. A pair's probability depends on that pair alone, never on other queries or references.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.match.verification.alignment import EVIDENCE

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

KNOTS = 8  # of a curve, at quantiles of what it was fitted on
RIDGE = 1.0  # keeps a curve flat where few pairs tell, in units of one pair's log-likelihood
FEW_FEATURES = 100  # of either picture: too few to say that the pictures differ
LEAST_COPIES = 20  # that a curve can be fitted on

RISES, FALLS, FREE = 1, -1, 0
GLOBAL = {"distance": FALLS}
ALIGNED = {  # quantities of a pair with an alignment, and where their curves may go
    "distance": FALLS,
    "inliers": RISES,
    "surprise": RISES,
    "inlier_share": RISES,
    "agreement": RISES,
    "agreeing_share": RISES,
    "area_query": FREE,
    "area_reference": FREE,
    "spread_query": RISES,
    "spread_reference": RISES,
}
UNALIGNED = {"distance": FALLS, "features_query": FALLS, "features_reference": FALLS}
LOGARITHMIC = frozenset({"inliers", "surprise", "features_query", "features_reference"})


@dataclass(frozen=True)
class Curve:
    """A broken line: 0 at the first knot [K], `rises` [K − 1] from each to the next; it goes on beyond either end, so
    that pairs beyond what it was fitted on keep their order."""

    knots: tuple[float, ...]
    rises: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = len(self.knots) >= 2 and np.all(np.diff(self.knots) > 0)
        if len(self.rises) != len(self.knots) - 1 or not rising or not np.isfinite([*self.knots, *self.rises]).all():
            raise ValueError(
                f"knots {self.knots}, rises {self.rises}; expected rising knots, one rise less, all finite"
            )

    def __call__(self, values: Floats) -> Floats:
        return np.asarray(_steps(values, np.array(self.knots)) @ np.array(self.rises), np.float64)


@dataclass(frozen=True)
class Additive:
    """`bias` plus a curve for each quantity: the log-odds of being a copy."""

    bias: float
    curves: Mapping[str, Curve]

    def __call__(self, columns: Mapping[str, Floats]) -> Floats:
        parts = [curve(columns[name]) for name, curve in self.curves.items()]
        return np.asarray(np.sum(parts, axis=0) + self.bias, np.float64)


@dataclass(frozen=True)
class Fusion:
    """Log-odds by distance alone, of pairs with an alignment, and of pairs that were compared in vain."""

    by_distance: Additive
    aligned: Additive
    unaligned: Additive

    def probability(self, distance: Floats, evidence: npt.NDArray[np.float32] | None = None) -> Floats:
        """Of each pair to be a copy, [P], 0…1: of its squared distance [P], and its evidence [P, len(EVIDENCE)] with
        NaN for a pair that could not be compared.

        Where local evidence is missing (a pair that was not compared, or either picture of which has fewer than
        FEW_FEATURES features, as when it is blurred or tiny) that is no less than by distance alone.
        """
        columns = _columns(distance, evidence)
        odds = self.by_distance(columns)
        if evidence is None:
            return _logistic(odds)
        compared = np.isfinite(evidence).all(axis=1)
        found = compared & (columns["inliers"] > 0)
        few = np.minimum(columns["features_query"], columns["features_reference"]) < np.log1p(FEW_FEATURES)
        seen = np.where(found, self.aligned(columns), self.unaligned(columns))
        return _logistic(np.where(compared, np.where(few, np.maximum(odds, seen), seen), odds))

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` makes the same of it."""
        return {name: _written(getattr(self, name)) for name in ("by_distance", "aligned", "unaligned")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fusion:
        """KeyError, TypeError or ValueError for what `as_dict` did not make."""
        kinds = {"by_distance": GLOBAL, "aligned": ALIGNED, "unaligned": UNALIGNED}
        return cls(**{name: _read(values[name], kind) for name, kind in kinds.items()})


def fit_fusion(distance: Floats, evidence: npt.NDArray[np.float32], copy: Flags) -> Fusion:
    """The fusion that makes what is known of these pairs likeliest: squared distances [P], evidence [P, F], and which
    of them are copies [P]. ValueError where fewer than LEAST_COPIES are, or are not, with and without an alignment.
    """
    columns = _columns(distance, evidence)
    compared = np.isfinite(evidence).all(axis=1)
    found = compared & (columns["inliers"] > 0)
    return Fusion(
        by_distance=_fitted(columns, copy, np.ones(len(copy), bool), GLOBAL),
        aligned=_fitted(columns, copy, found, ALIGNED),
        unaligned=_fitted(columns, copy, compared & ~found, UNALIGNED),
    )


def _columns(distance: Floats, evidence: npt.NDArray[np.float32] | None) -> dict[str, Floats]:
    """Every quantity as its curve takes it: those that run over decades by their logarithm; NaN is 0."""
    columns = {"distance": np.asarray(distance, np.float64)}
    if evidence is not None:
        known = np.nan_to_num(evidence.astype(np.float64))
        columns |= {name: known[:, at] for at, name in enumerate(EVIDENCE)}
        columns |= {name: np.log1p(columns[name]) for name in LOGARITHMIC}
    return columns


def _steps(values: Floats, knots: Floats) -> Floats:
    """[P, K − 1]: how much of the way from each knot to the next a value has gone, 0…1; the ends have no end."""
    least, most = np.zeros(len(knots) - 1), np.ones(len(knots) - 1)
    least[0], most[-1] = -np.inf, np.inf
    return np.asarray(((values[:, None] - knots[:-1]) / np.diff(knots)).clip(least, most), np.float64)


def _fitted(columns: Mapping[str, Floats], copy: Flags, rows: Flags, kind: Mapping[str, int]) -> Additive:
    """Penalised maximum likelihood: convex, so that there is one answer."""
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    copies, pairs = int(copy[rows].sum()), int(rows.sum())
    if min(copies, pairs - copies) < LEAST_COPIES:
        raise ValueError(f"{copies} copies among {pairs} pairs; expected {LEAST_COPIES} and as many others")
    label = copy[rows].astype(np.float64)
    knots = {name: _knots(columns[name][rows], copy[rows]) for name in kind}
    basis = np.hstack([_steps(columns[name][rows], at) for name, at in knots.items()])
    signs = np.concatenate([np.full(len(at) - 1, kind[name]) for name, at in knots.items()])
    bounds = [(0, None) if sign == RISES else (None, 0) if sign == FALLS else (None, None) for sign in signs]

    def loss(weights: Floats) -> tuple[float, Floats]:
        odds = basis @ weights[1:] + weights[0]
        missed = _logistic(odds) - label
        value = np.logaddexp(0, odds).sum() - label @ odds + RIDGE / 2 * weights[1:] @ weights[1:]
        return float(value), np.r_[missed.sum(), basis.T @ missed + RIDGE * weights[1:]]

    bounds = [(None, None), *bounds]
    found = minimize(loss, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 2000})
    rises = np.split(found.x[1:], np.cumsum([len(at) - 1 for at in knots.values()])[:-1])
    curves = {
        name: Curve(tuple(at.tolist()), tuple(float(rise) for rise in one))
        for (name, at), one in zip(knots.items(), rises, strict=True)
    }
    return Additive(float(found.x[0]), curves)


def _knots(values: Floats, copy: Flags) -> Floats:
    """Quantiles of the copies and of the others, for either may be few."""
    shares = np.linspace(0, 1, KNOTS // 2)
    at = np.unique(np.r_[np.quantile(values[copy], shares), np.quantile(values[~copy], shares)].round(6))
    return at if len(at) > 1 else np.array([at[0], at[0] + 1])


def _logistic(odds: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -odds)), np.float64)  # unlike tanh's, never 0: the unlikely keep order


def _written(model: Additive) -> dict[str, Any]:
    curves = {name: {"knots": list(one.knots), "rises": list(one.rises)} for name, one in model.curves.items()}
    return {"bias": model.bias, "curves": curves}


def _read(values: Mapping[str, Any], kind: Mapping[str, int]) -> Additive:
    given = dict(values["curves"])
    if set(given) != set(kind):
        raise ValueError(f"curves {', '.join(given)}; expected {', '.join(kind)}")
    curves = {
        name: Curve(tuple(map(float, one["knots"])), tuple(map(float, one["rises"]))) for name, one in given.items()
    }
    for name, curve in curves.items():
        if kind[name] != FREE and min(rise * kind[name] for rise in curve.rises) < 0:
            raise ValueError(
                f"curve {name} with rises {curve.rises}; expected none {'< 0' if kind[name] > 0 else '> 0'}"
            )
    bias = float(values["bias"])
    if not np.isfinite(bias):
        raise ValueError(f"bias {bias}; expected a finite number")
    return Additive(bias, curves)
