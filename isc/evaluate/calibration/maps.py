"""Maps from scores to probabilities in three forms, and the choice of the form that is best on held-out queries.

Isotonic: the rising steps of maximum likelihood (pool adjacent violators; Zadrozny and Elkan, KDD 2002). Logistic:
log-odds that are linear in the score (Platt, "Probabilistic outputs for support vector machines", 1999). Additive: a
rising curve of the score and one of the margin to the query's next references (isc.evaluate.additive). None gives a
higher score a lower probability.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from isc.data.json_files import Fields
from isc.evaluate.additive import LEAST_COPIES, RISES, Additive, fit_additive, logistic

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.floating]

FOLDS = 5
HALF = 0.5  # weight of an added copy below all scores and of a wrong pair above them: no probability is 0 or 1
NEAR = 1e-12  # least distance of a probability from 0 and from 1
SEEN = {"score": RISES, "margin": RISES}  # columns of the additive form

On = Literal["score", "log-odds"]


class Map(Protocol):
    """A map from scores [M], or scores and margins [M, 2], to probabilities [M] above 0 and below 1.

    They never fall when an input rises; forms of one input take the score.
    """

    def __call__(self, score: Scores) -> Floats: ...
    def as_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Isotonic:
    """Linear interpolation of `probabilities` [K] at the rising `scores` [K], constant beyond the ends.

    Raises ValueError if scores do not rise, or probabilities fall or leave 0…1.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        rises = np.all(np.diff(self.scores) > 0) and np.all(np.diff(self.probabilities) >= 0)
        inside = all(0 < one < 1 for one in self.probabilities)
        if not (
            len(self.scores) == len(self.probabilities) > 0 and rises and inside and np.isfinite(self.scores).all()
        ):
            raise ValueError("scores or probabilities that do not rise; expected rising ones, the latter within 0…1")

    def __call__(self, score: Scores) -> Floats:
        return np.asarray(np.interp(_first(score), self.scores, self.probabilities), np.float64)

    def as_dict(self) -> dict[str, Any]:
        return {"form": "isotonic", "scores": list(self.scores), "probabilities": list(self.probabilities)}


@dataclass(frozen=True)
class Logistic:
    """The map 1 / (1 + exp(−(bias + slope · x))); x is the score, or the log-odds of a score in 0…1.

    Raises ValueError for a negative slope or values that are not finite.
    """

    bias: float
    slope: float
    on: On

    def __post_init__(self) -> None:
        if not (np.isfinite([self.bias, self.slope]).all() and self.slope >= 0 and self.on in ("score", "log-odds")):
            raise ValueError(
                f"bias {self.bias}, slope {self.slope} on {self.on!r}; expected a finite slope, not below 0"
            )

    def __call__(self, score: Scores) -> Floats:
        return _logistic(self.bias + self.slope * _abscissa(score, self.on))

    def as_dict(self) -> dict[str, Any]:
        return {"form": "logistic", "bias": self.bias, "slope": self.slope, "on": self.on}


@dataclass(frozen=True)
class ByMargin:
    """The map of scores and margins [M, 2] through a rising curve for each; `on` as in `Logistic`.

    Raises ValueError for another `on`.
    """

    curves: Additive
    on: On

    def __post_init__(self) -> None:
        if self.on not in ("score", "log-odds"):
            raise ValueError(f"on {self.on!r}; expected score or log-odds")

    def __call__(self, score: Scores) -> Floats:
        return logistic(self.curves(_columns(score, self.on))).clip(NEAR, 1 - NEAR)

    def as_dict(self) -> dict[str, Any]:
        return {"form": "additive", "on": self.on, **self.curves.as_dict()}


def read_map(values: Mapping[str, Any] | Fields) -> Map:
    """Build a map from `as_dict`. Raises ValueError for other values."""
    said = Fields.of(values)
    form = said.text("form")
    if form == "logistic":
        return Logistic(said.number("bias"), said.number("slope"), said.value("on"))
    if form == "isotonic":
        return Isotonic(said.numbers("scores"), said.numbers("probabilities"))
    if form == "additive":
        return ByMargin(Additive.from_dict(said, SEEN), said.value("on"))
    raise ValueError(f"form {form!r}; expected additive, isotonic or logistic")


@dataclass(frozen=True)
class Chosen:
    """The map fitted on all pairs, of the form with the higher held-out likelihood.

    `held_out` is, by form, the mean log-likelihood of a pair (natural logarithm) under the map fitted on the other
    folds' queries. `probability` [M] are these held-out probabilities of the chosen form.
    """

    map: Map
    held_out: Mapping[str, float]
    probability: Floats


def choose(score: Scores, correct: Flags, fold: npt.NDArray[np.int64], *, on: On) -> Chosen:
    """Choose and fit the best form for scores [M], or scores and margins [M, 2]; `correct` [M] marks the copies.

    `fold` [M] are the folds.
    Whole queries are held out, not single pairs, because the pairs of one query depend on each other.
    """
    forms: dict[str, Callable[[Scores, Flags], Map]] = {
        "isotonic": fit_isotonic,
        "logistic": functools.partial(fit_logistic, on=on),
    }
    if score.ndim == 2 and all(_enough(correct[fold != one]) for one in np.unique(fold)):
        forms["additive"] = functools.partial(fit_by_margin, on=on)
    foretold = {name: np.zeros(len(score)) for name in forms}
    for one in np.unique(fold):
        seen, unseen = fold != one, fold == one
        for name, fit in forms.items():
            foretold[name][unseen] = fit(score[seen], correct[seen])(score[unseen])
    held_out = {name: log_likelihood(probability, correct) for name, probability in foretold.items()}
    best = max(held_out, key=held_out.__getitem__)
    return Chosen(forms[best](score, correct), held_out, foretold[best])


def folds(query: npt.NDArray[np.int64], correct: Flags, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return each pair's fold [M], 0…FOLDS − 1, from the position of its query [M].

    Queries with a correct pair are spread evenly over the folds, and so are the other queries.
    """
    queries, at = np.unique(query, return_inverse=True)
    has_copy = np.bincount(at, weights=correct, minlength=len(queries)) > 0
    shuffled = np.random.default_rng(seed).permutation(len(queries))
    order = shuffled[np.argsort(~has_copy[shuffled], kind="stable")]
    place = np.empty(len(queries), np.int64)
    place[order] = np.arange(len(queries)) % FOLDS
    return np.asarray(place[at], np.int64)


def fit_by_margin(score: Scores, correct: Flags, *, on: On) -> ByMargin:
    """Fit a rising curve of the score and one of the margin [M, 2], by penalised maximum likelihood."""
    return ByMargin(fit_additive(_columns(score, on), correct, np.ones(len(correct), bool), SEEN), on)


def _enough(correct: Flags) -> bool:
    return LEAST_COPIES <= int(correct.sum()) <= len(correct) - LEAST_COPIES


def fit_isotonic(score: Scores, correct: Flags) -> Isotonic:
    """Fit shares of copies that rise with the score, by maximum likelihood.

    HALF a copy below the lowest score and HALF a wrong pair above the highest are added, so that the ends come near 0
    and 1 but do not reach them.
    """
    from scipy.optimize import isotonic_regression  # type: ignore[import-untyped]

    values, at = np.unique(_first(score), return_inverse=True)
    pairs = np.bincount(at).astype(np.float64)
    copies = np.bincount(at, weights=correct)
    means, weights = np.r_[1.0, copies / pairs, 0.0], np.r_[HALF, pairs, HALF]
    fitted = isotonic_regression(means, weights=weights).x[1:-1].clip(NEAR, 1 - NEAR)
    step = np.diff(fitted) != 0
    ends = np.r_[True, step] | np.r_[step, True]  # keep the first and the last score of each constant piece
    return Isotonic(tuple(values[ends].tolist()), tuple(fitted[ends].tolist()))


def fit_logistic(score: Scores, correct: Flags, *, on: On) -> Logistic:
    """Fit a line of log-odds by maximum likelihood.

    The targets are Platt's (N₊ + 1)/(N₊ + 2) and 1/(N₋ + 2) instead of 1 and 0, so that the slope is finite even if a
    score separates copies and wrong pairs.
    """
    from scipy.optimize import minimize

    x = _abscissa(score, on)
    middle, width = float(x.mean()), float(x.std()) or 1.0
    z = (x - middle) / width
    copies, others = int(correct.sum()), int((~correct).sum())
    target = np.where(correct, (copies + 1) / (copies + 2), 1 / (others + 2))

    def loss(line: Floats) -> tuple[float, Floats]:
        odds = line[0] + line[1] * z
        missed = _logistic(odds) - target
        return float(np.mean(np.logaddexp(0, odds) - target * odds)), np.array([missed.mean(), (missed * z).mean()])

    bounds = [(None, None), (0, None)]
    options = {"ftol": 1e-14, "gtol": 1e-10, "maxiter": 1000}
    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    slope = float(found[1] / width)
    return Logistic(float(found[0] - slope * middle), slope, on)


def log_likelihood(probability: Floats, correct: Flags) -> float:
    """Return the mean of ln p of the copies and ln (1 − p) of the wrong pairs; at best 0."""
    p = probability.clip(NEAR, 1 - NEAR)
    return float(np.where(correct, np.log(p), np.log1p(-p)).mean())


def _abscissa(score: Scores, on: On) -> Floats:
    x = _first(score)
    if on == "score":
        return x
    p = x.clip(NEAR, 1 - NEAR)
    return np.asarray(np.log(p) - np.log1p(-p), np.float64)


def _logistic(odds: Floats) -> Floats:
    return logistic(odds).clip(NEAR, 1 - NEAR)


def _first(score: Scores) -> Floats:
    """Return the score, or of several columns the first."""
    return (score if score.ndim == 1 else score[:, 0]).astype(np.float64)


def _columns(score: Scores, on: On) -> dict[str, Floats]:
    return {"score": _abscissa(score, on), "margin": score[:, 1].astype(np.float64)}
