"""The steps of normalisation: each maps vectors to vectors, row by row; each docstring derives the ranking.

q, r and t are the vectors of a query, a reference and a training photo. Steps on unit vectors use ‖q − r‖² = 2 − 2 q·r,
so that distance and cosine rank alike; b(q) is the mean cosine of q to its nearest t.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np
import numpy.typing as npt

from isc.config.chain import AnyStep, Chain, Pca, Score, SSquare, Stretch, Subtract, Whiten
from isc.data.hdf5 import MAX_DIM
from isc.errors import InputError
from isc.runtime.progress import progress
from isc.search.exact import nearest

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SMOOTHING = 10  # neighbours averaged to smooth a training vector, itself included
SMOOTHING_POWER = 3
BLOCK_CELLS = 1 << 23  # numbers gathered at once, 64 MB
QUICK = 10**9  # comparisons below which no progress is shown


@dataclass(frozen=True, eq=False)
class Training:
    """Training set of a step: `vectors` [M, D], and cached results computed from them.

    With `keep`, the `keep` nearest neighbours are searched once and cached, for trials with several numbers of
    neighbours.
    """

    vectors: Vectors
    keep: int = 0
    kept: dict[int, tuple[Vectors, Floats, Rows]] = field(default_factory=dict, repr=False)

    def near(self, x: Vectors, k: int) -> tuple[Floats, Rows]:
        """Return cosines [N, k], largest first, and rows [N, k] of the nearest training vectors, for unit vectors."""
        self.require(k)
        if not self.keep:
            return self._search(x, k)
        if id(x) not in self.kept or self.kept[id(x)][2].shape[1] < k:
            self.kept[id(x)] = (x, *self._search(x, min(len(self.vectors), max(k, self.keep))))
        _, cosine, rows = self.kept[id(x)]
        return cosine[:, :k], rows[:, :k]

    def require(self, k: int) -> None:
        """Raise InputError if there are fewer than `k` training vectors."""
        if k > len(self.vectors):
            raise InputError(f"{len(self.vectors)} training descriptors; expected at least {k}, or fewer neighbours")

    def _search(self, x: Vectors, k: int) -> tuple[Floats, Rows]:
        quick = len(x) * len(self.vectors) < QUICK
        with nullcontext(None) if quick else progress("normalising", "descriptors") as report:
            rows, distance = nearest(x, self.vectors, k=k, progress=report)
        return 1 - distance / 2, rows

    @functools.cached_property
    def axes(self) -> tuple[Floats, Floats, Floats]:
        """Mean [D], variances [D], largest first, and their directions as columns [D, D]: C = V Λ Vᵀ."""
        mean = self.vectors.mean(axis=0, dtype=np.float64)
        covariance = np.zeros((len(mean), len(mean)))
        for block in _blocks(len(self.vectors), len(mean)):
            centred = self.vectors[block] - mean
            covariance += centred.T @ centred / max(1, len(self.vectors) - 1)
        values, directions = np.linalg.eigh(covariance)
        return mean, values[::-1].clip(min=0), directions[:, ::-1]

    @functools.cached_property
    def spanned(self) -> int:
        """The number of directions in which the vectors differ from their mean, rounding errors aside."""
        _, values, _ = self.axes
        return int(np.sum(values > 1e-10 * values[0]))

    @functools.cached_property
    def smoothed(self) -> Training:
        """The set t ← unit(Σ (t·tₙ)³ tₙ) over the ten nearest tₙ, t itself included (Yokoo, arXiv:2112.04323)."""
        cosine, rows = self._search(self.vectors, min(SMOOTHING, len(self.vectors)))
        return self.left(unit(weighted_sum(self.vectors, rows, cosine.clip(min=0) ** SMOOTHING_POWER)))

    def left(self, vectors: Vectors) -> Training:
        """Return the training set with the vectors that a step made of it."""
        return Training(vectors, self.keep)


@dataclass(frozen=True)
class FittedStep:
    """A fitted step: its maps of queries and of references [N, D], and the training set for the next step.

    The result of a row does not depend on the other rows.
    """

    queries: Callable[[Vectors], Vectors]
    references: Callable[[Vectors], Vectors]
    training: Callable[[], Training]


def form(step: AnyStep, training: Training) -> FittedStep:
    """Fit `step` on `training`. Raises InputError if the training set is too small for it."""
    training.require(max(getattr(step, "nearest", 0), getattr(step, "neighbours", 0)))
    match step:
        case Pca():
            return _alike(pca(step, training), training)
        case Whiten():
            return _alike(whiten(step, training), training)
        case Subtract():
            negatives = training.smoothed if step.smooth else training
            away = subtract(step, negatives)
            return FittedStep(
                away, away, lambda: training.left(subtract(step, negatives, unseen=True)(training.vectors))
            )
        case Score():
            return FittedStep(score(step, training), lambda r: np.pad(r, ((0, 0), (0, 1))), lambda: training)
        case Stretch():
            return FittedStep(stretch(step, training), lambda r: r, lambda: training)
        case SSquare():
            return FittedStep(ssquare(step, training), lambda r: r, lambda: training)
    assert_never(step)


def _alike(change: Callable[[Vectors], Vectors], training: Training) -> FittedStep:
    return FittedStep(change, change, lambda: training.left(change(training.vectors)))


def dim_after(step: AnyStep, dim: int) -> int:
    """Return the dimension after the step of vectors that have `dim` before it."""
    return (step.dim or min(dim, MAX_DIM)) if isinstance(step, Pca | Whiten) else dim + step.MORE


def dim_of(chain: Chain, dim: int) -> int:
    """Return the dimension after the chain of vectors that have `dim` before it."""
    return functools.reduce(lambda before, step: dim_after(step, before), chain.steps, dim)


def pca(step: Pca, training: Training) -> Callable[[Vectors], Vectors]:
    """Return x ← unit(Vᵀ(x − mean)), with V [D, dim] the training set's directions of most variance (Pearson, 1901).

    q' and r' are unit vectors, so distance ranks as the cosine of the centred, projected vectors; with all D
    directions, as the cosine of q − mean and r − mean.
    """
    mean, _, directions = _axes(step, training)
    return lambda x: _projected(x, mean, directions)


def whiten(step: Whiten, training: Training) -> Callable[[Vectors], Vectors]:
    """Return x ← unit((Λ + ridge · λ₁)^(−1/2) Vᵀ(x − mean)), PCA whitening (Jégou and Chum, ECCV 2012, section 3.1).

    q' and r' are unit vectors, so distance ranks as q'·r'. With all D directions that is the cosine in the metric A =
    (C + ridge · λ₁)⁻¹: (q − m)ᵀA(r − m) / √((q − m)ᵀA(q − m) · (r − m)ᵀA(r − m)).
    """
    mean, values, directions = _axes(step, training)
    projection = directions / np.sqrt(values + step.ridge * training.axes[1][0])
    return lambda x: _projected(x, mean, projection)


def score(step: Score, training: Training) -> Callable[[Vectors], Vectors]:
    """Return q ← [q, √(2β(b(q) + 1))], the score normalisation of SSCD (Pizzi et al., arXiv:2202.10261, section 4.4).

    References become [r, 0]. The formula is s(q, r) = q·r − β b(q), over all queries together. As a distance, ‖q' −
    r'‖² = 2 − 2 q·r + 2β(b(q) + 1) = 2 + 2β − 2 s(q, r), the same ranking; b ≥ −1 keeps the root real.

    The extra dimension is necessary: if ‖f(q) − g(r)‖² were an affine function of s in D dimensions, removing the means
    of rows and columns would leave f(q)·g(r) = c q·r, hence f affine in q, hence ‖f(q)‖² quadratic; a mean over
    neighbours is not quadratic.
    """
    return lambda q: np.c_[q, np.sqrt(2 * step.weight * (_bias(q, training, step.neighbours) + 1))].astype(np.float32)


def stretch(step: Stretch, training: Training) -> Callable[[Vectors], Vectors]:
    """Return q ← a q with a = factor · b(q), the score normalisation of BoT (Wang et al., arXiv:2112.02373).

    ‖aq − r‖² = a² + 1 − 2a q·r: the ranking is that of 2a q·r − a². A pair passes the threshold distance² ≤ τ if q·r ≥
    (a² + 1 − τ) / 2a, which rises with a as long as a² > 1 − τ: a query with near neighbours needs a larger cosine.
    """
    return lambda q: _float32(q * (step.factor * _bias(q, training, step.neighbours).clip(min=1e-3))[:, None])


def ssquare(step: SSquare, training: Training) -> Callable[[Vectors], Vectors]:
    """Return q ← q + λ √b(q) u(q), the normalisation of S-square (Papadakis and Addicam, arXiv:2112.03415).

    u = unit(mean of unit(q − t) over the query's neighbours). ‖q' − r‖² = ‖q − r‖² + λ² b(q) + 2λ √b(q) u·(q − r). The
    second term is that of SSCD with β = λ²/2; the third is zero for a copy, r ≈ q, and a penalty for an r near the
    query's neighbours.
    """

    def push(q: Vectors) -> Vectors:
        cosine, rows = training.near(q, max(step.nearest, step.neighbours))
        bias = cosine[:, : step.nearest].mean(axis=1).clip(min=0)
        closeness = 1 / np.sqrt(2 - 2 * cosine[:, : step.neighbours]).clip(min=1e-6)
        apart = q * closeness.sum(axis=1)[:, None] - weighted_sum(
            training.vectors, rows[:, : step.neighbours], closeness
        )
        return _float32(q + (step.push * np.sqrt(bias))[:, None] * unit(apart))

    return push


def subtract(step: Subtract, negatives: Training, *, unseen: bool = False) -> Callable[[Vectors], Vectors]:
    """Return x ← unit(x − weight · n(x)), negative embedding subtraction (Yokoo, arXiv:2112.04323, section 3.4).

    n(x) is the mean of the nearest training vectors; queries and references are treated alike. Yokoo smooths the
    training vectors first. q' and r' are unit vectors, so distance ranks as q'·r', which is, except for their lengths,
    q·r − w (n(q)·r + q·n(r)) + w² n(q)·n(r): what each shares with its neighbours is subtracted from the cosine.

    With `unseen`, row i of x is row i of the training set, and does not count as a neighbour of itself.
    """

    def away(x: Vectors) -> Vectors:
        _, rows = negatives.near(x, step.neighbours + unseen)
        if unseen:
            own = rows == np.arange(len(x))[:, None]
            rows = np.take_along_axis(rows, np.argsort(own, axis=1, kind="stable"), axis=1)[:, : step.neighbours]
        return unit(x - step.weight * weighted_sum(negatives.vectors, rows, np.full(rows.shape, 1 / rows.shape[1])))

    return away


def weighted_sum(vectors: Vectors, rows: Rows, weights: Floats) -> Floats:
    """Return Σₙ weights[i, n] · vectors[rows[i, n]], [N, D], computed in blocks."""
    result = np.empty((len(rows), vectors.shape[1]))
    for block in _blocks(len(rows), rows.shape[1] * vectors.shape[1]):
        result[block] = (weights[block, None] @ vectors[rows[block]].astype(np.float64))[:, 0]
    return result


def _projected(x: Vectors, mean: Floats, projection: Floats) -> Vectors:
    """Return unit((x − mean) · projection) [N, dim]."""
    result = np.empty((len(x), projection.shape[1]), np.float32)
    for block in _blocks(len(x), len(mean)):
        result[block] = unit((x[block] - mean) @ projection)
    return result


def _blocks(rows: int, cells: int) -> Iterator[slice]:
    """Return slices of the rows with at most BLOCK_CELLS numbers each, at `cells` numbers per row."""
    step = max(1, BLOCK_CELLS // cells)
    return (slice(start, start + step) for start in range(0, rows, step))


def unit(vectors: npt.NDArray[np.floating]) -> Vectors:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return _float32(vectors / np.maximum(length, 1e-12))


def _bias(q: Vectors, training: Training, neighbours: int) -> Floats:
    """Return b(q) [N], the mean cosine to the nearest training vectors, −1…1."""
    return np.asarray(training.near(q, neighbours)[0].mean(axis=1).clip(-1, 1))


def _axes(step: Pca | Whiten, training: Training) -> tuple[Floats, Floats, Floats]:
    """Return the mean, and the variances and directions that the step keeps. Raises InputError if there are too few."""
    mean, values, directions = training.axes
    dim = dim_after(step, len(mean))
    if dim > len(mean):
        raise InputError(f"{step.name}:dim={dim}: the descriptors have {len(mean)} dimensions; expected no more")
    if dim > training.spanned:
        fewer = f", or {step.name}:dim={training.spanned}" if training.spanned > 1 else ""
        raise InputError(
            f"{len(training.vectors)} training descriptors span {training.spanned} dimensions; {step.name} expected "
            f"{dim}: give more of them{fewer}"
        )
    return mean, values[:dim], directions[:, :dim]


def _float32(values: npt.NDArray[np.floating]) -> Vectors:
    return np.asarray(values, np.float32)
