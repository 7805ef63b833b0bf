"""Sums of curves, one for each quantity of a pair, that go through the logistic function to a probability.

A generalised additive model (Hastie and Tibshirani, Statistical Science 1986) of piecewise linear curves with given
directions, so that more evidence never counts against a pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.data.json_files import Fields

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

KNOTS = 8  # of a curve, at quantiles of the pairs of its fit
RIDGE = 1.0  # penalty that keeps a curve flat where there are few pairs, in units of one pair's log-likelihood
LEAST_COPIES = 20  # least number of copies, and of other pairs, to fit a curve on

RISES, FALLS, FREE = 1, -1, 0


@dataclass(frozen=True)
class Curve:
    """A piecewise linear curve: 0 at the first of the `knots` [K], `rises` [K − 1] from each knot to the next.

    It continues beyond both ends, so that pairs outside the range of the fit keep their order. Raises ValueError if the
    knots do not rise or a value is not finite.
    """

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
    """The log-odds of a copy: `bias` plus a curve for each quantity."""

    bias: float
    curves: Mapping[str, Curve]

    def __call__(self, columns: Mapping[str, Floats]) -> Floats:
        parts = [curve(columns[name]) for name, curve in self.curves.items()]
        return np.asarray(np.sum(parts, axis=0) + self.bias, np.float64)

    def as_dict(self) -> dict[str, Any]:
        """Return the values for JSON, which `from_dict` reads."""
        curves = {name: {"knots": list(one.knots), "rises": list(one.rises)} for name, one in self.curves.items()}
        return {"bias": self.bias, "curves": curves}

    @classmethod
    def from_dict(cls, said: Fields, kind: Mapping[str, int]) -> Additive:
        """Build a sum of curves of these names and directions from `as_dict`. Raises ValueError for other values."""
        given = said.fields("curves")
        if set(given.values) != set(kind):
            raise ValueError(f"curves {', '.join(given.values)}; expected {', '.join(kind)}")
        stored = {name: given.fields(name) for name in given.values}
        curves = {name: Curve(one.numbers("knots"), one.numbers("rises")) for name, one in stored.items()}
        for name, curve in curves.items():
            if kind[name] != FREE and min(rise * kind[name] for rise in curve.rises) < 0:
                raise ValueError(
                    f"curve {name} with rises {curve.rises}; expected none {'< 0' if kind[name] > 0 else '> 0'}"
                )
        return cls(said.number("bias"), curves)


def fit_additive(columns: Mapping[str, Floats], copy: Flags, rows: Flags, kind: Mapping[str, int]) -> Additive:
    """Fit one model by penalised maximum likelihood; the problem is convex and has one solution.

    `columns` are the quantities [P] of the pairs, `copy` [P] marks the copies, `rows` [P] the pairs of the fit; `kind`
    names the quantities that have a curve, and its direction.

    Raises ValueError if there are fewer than LEAST_COPIES copies or other pairs.
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    copies, pairs = int(copy[rows].sum()), int(rows.sum())
    if min(copies, pairs - copies) < LEAST_COPIES:
        raise ValueError(f"{copies} copies and {pairs - copies} other pairs; expected at least {LEAST_COPIES} of each")
    label = copy[rows].astype(np.float64)
    knots = {name: _knots(columns[name][rows], copy[rows]) for name in kind}
    basis = np.hstack([_steps(columns[name][rows], at) for name, at in knots.items()])
    signs = np.concatenate([np.full(len(at) - 1, kind[name]) for name, at in knots.items()])
    bounds = [(0, None) if sign == RISES else (None, 0) if sign == FALLS else (None, None) for sign in signs]

    def loss(weights: Floats) -> tuple[float, Floats]:
        odds = basis @ weights[1:] + weights[0]
        missed = logistic(odds) - label
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


def logistic(odds: Floats) -> Floats:
    """Return 1 / (1 + e^−x) of log-odds [P]; never 0, unlike with tanh, so that pairs keep their order."""
    return np.asarray(np.exp(-np.logaddexp(0, -odds)), np.float64)


def _steps(values: Floats, knots: Floats) -> Floats:
    """Return the share, 0…1, of each interval between knots below a value, [P, K − 1]; the end intervals are open."""
    least, most = np.zeros(len(knots) - 1), np.ones(len(knots) - 1)
    least[0], most[-1] = -np.inf, np.inf
    return np.asarray(((values[:, None] - knots[:-1]) / np.diff(knots)).clip(least, most), np.float64)


def _knots(values: Floats, copy: Flags) -> Floats:
    """Return quantiles of the copies and of the other pairs as knots, because either may be few."""
    shares = np.linspace(0, 1, KNOTS // 2)
    at = np.unique(np.r_[np.quantile(values[copy], shares), np.quantile(values[~copy], shares)].round(6))
    return at if len(at) > 1 else np.array([at[0], at[0] + 1])
