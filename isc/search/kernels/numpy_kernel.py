"""The interface of all kernels, and the kernel for CPUs, which uses numpy's matrix product.

A kernel scores a block of queries against a block of references, s(q, r) = q·r − ‖q‖²/2 − ‖r‖²/2 = −‖q − r‖²/2. It
bounds its own error and returns only the pairs whose score may reach a threshold of the search. The exactness of the
search is proved in `exact`, which relies on these bounds only.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from isc.errors import InputError
from isc.runtime.cpus import cores

Vectors = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]

U32 = 2.0**-24  # unit roundoff of float32
NARROW = 1e-3  # if all ‖r‖²/2 differ by less, a tile is filtered with the least of them


class Tile(Protocol):
    """Scores of n queries and m references; every returned score errs by at most `error`."""

    error: float

    def nth(self, count: int) -> float | None:
        """Return a score that at least `count` pairs reach, near the largest such; None if there are fewer pairs."""

    def nth_of_rows(self, count: int) -> Scores | None:
        """Return such a score for the pairs of each query [n]; None if there are fewer references."""

    def above(self, least: Scores) -> tuple[Indices, Indices, Scores]:
        """Return query rows, reference rows and scores [M] of all pairs that reach their query's threshold `least` [n].

        Some pairs below the threshold may be among them. Thresholds of ±∞ are allowed.
        """


class Kernel(Protocol):
    """Scorer of the loaded queries against prepared blocks of references.

    Up to `workers` threads may call it at a time, each with its own number. A worker must read a tile before it
    requests the next one, which may use the same memory.
    """

    workers: int
    columns: int  # references per block

    def session(self, workers: int, /) -> AbstractContextManager[object]:
        """Return a context that sets up the libraries while `workers` workers run."""

    def load(self, queries: Vectors) -> None: ...

    def rows(self, columns: int, /) -> int:
        """Return the number of queries to score at once against `columns` references."""

    def prepare(self, references: Vectors, worker: int, /) -> Any: ...

    def tile(self, queries: slice, prepared: Any, worker: int, /) -> Tile: ...


def gamma(terms: int, unit: float = U32) -> float:
    """Return γ_n = n·u / (1 − n·u), the relative error of a sum of n products in any order.

    Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., eq. 3.5.
    """
    return terms * unit / (1 - terms * unit)


def expansion_error(dim: int, query_length: float, reference_length: float) -> float:
    """Return a bound on |computed − true| score when float32 evaluates q·r − ‖q‖²/2 − ‖r‖²/2.

    The vectors have at most these lengths. Each of the three sums of `dim` products errs by at most γ_dim times its
    Cauchy-Schwarz bound, and each addition by u: γ_{dim+3} · (‖q‖ + ‖r‖)² / 2. Raises InputError if the vectors are too
    long for float32.
    """
    longest = query_length + reference_length
    if not longest**2 <= float(np.finfo(np.float32).max):
        raise InputError(f"descriptors are {longest / 2:.1e} long, too much for float32 distances; scale them down")
    return gamma(dim + 3) * longest**2 / 2


def half_squares(vectors: Vectors) -> Scores:
    """Return ‖v‖² / 2 of each row [N]."""
    with np.errstate(over="ignore"):  # `expansion_error` refuses what overflows
        return np.asarray(np.einsum("nd,nd->n", vectors, vectors) * np.float32(0.5))


def max_length(half: Scores) -> float:
    return float(np.sqrt(2 * half.max().astype(np.float64)))


class NumpyKernel:
    """Kernel whose workers multiply on one core each, `cells` scores at a time; they share only the vectors.

    The product, the comparison and the search for passing scores release Python's global lock.
    """

    def __init__(self, *, workers: int, cells: int) -> None:
        self.workers = workers
        self.columns = max(1, min(1024, cells))
        self._cells = cells
        self._memory = [(np.empty(cells, np.float32), np.empty(cells, bool)) for _ in range(workers)]

    def session(self, workers: int) -> AbstractContextManager[object]:
        limit: AbstractContextManager[object] = _libraries().limit(limits=None if workers == 1 else 1, user_api="blas")
        return limit

    def load(self, queries: Vectors) -> None:
        self._queries, self._half = queries, half_squares(queries)
        # few queries: longer blocks, so that a product is worth the overhead of its call
        self.columns = max(1, min(self._cells, max(1024, min(65536, self._cells // len(queries)))))

    def rows(self, columns: int) -> int:
        return max(1, self._cells // columns)

    def prepare(self, references: Vectors, _worker: int) -> tuple[Vectors, Scores]:
        return references, half_squares(references)

    def tile(self, queries: slice, prepared: tuple[Vectors, Scores], worker: int) -> NumpyTile:
        references, half = prepared
        chosen = self._queries[queries]
        shape = (len(chosen), len(references))
        product, mask = self._memory[worker]
        product = product[: shape[0] * shape[1]].reshape(shape)
        mask = mask[: product.size].reshape(shape)
        np.matmul(chosen, references.T, out=product)
        own = self._half[queries]
        error = expansion_error(chosen.shape[1], max_length(own), max_length(half))
        return NumpyTile(product, mask, own, half, error)


@functools.cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@dataclass
class NumpyTile:
    """Scores [n, m]; `scores` holds the products q·r until `finish` subtracts ‖q‖²/2 and ‖r‖²/2."""

    scores: Scores
    mask: npt.NDArray[np.bool_]
    query_half: Scores
    reference_half: Scores
    error: float
    finished: bool = False

    def finish(self) -> Scores:
        if not self.finished:
            np.subtract(self.scores, self.query_half[:, None], out=self.scores)
            np.subtract(self.scores, self.reference_half, out=self.scores)
            self.finished = True
        return self.scores

    def nth(self, count: int) -> float | None:
        flat = self.finish().reshape(-1)
        return float(np.partition(flat, len(flat) - count)[-count]) if count <= len(flat) else None

    def nth_of_rows(self, count: int) -> Scores | None:
        columns = self.scores.shape[1]
        return np.partition(self.finish(), columns - count, axis=1)[:, -count] if count <= columns else None

    def above(self, least: Scores) -> tuple[Indices, Indices, Scores]:
        offset: Scores | float = 0.0
        if not self.finished:
            # for references of one length the product alone decides which pairs can pass
            if self.reference_half.max() - self.reference_half.min() <= NARROW:
                offset = self.query_half + float(self.reference_half.min()) - self.error
            else:
                self.finish()
        bound = np.nextafter((least + offset).astype(np.float32), np.float32(-np.inf))
        np.greater_equal(self.scores, bound[:, None], out=self.mask)
        row, column = np.divmod(np.flatnonzero(self.mask), self.scores.shape[1])
        score = self.scores[row, column]
        if not self.finished:
            score -= self.query_half[row]
            score -= self.reference_half[column]
        return row, column, score


def squared_distances(queries: Vectors, references: Vectors, query: Indices, reference: Indices) -> Distances:
    """Return ‖q − r‖² of the given pairs [M], from the differences, in float64.

    The second half of the squares is added to the first, until one number is left: the same additions in the same
    order on every device, so that the bits are equal too.
    """
    result = np.empty(len(query))
    step = max(1, (1 << 18) // queries.shape[1])  # 2 MB, in a core's cache

    def some(start: int) -> None:
        rows = slice(start, start + step)
        square = queries[query[rows]].astype(np.float64)
        square -= references[reference[rows]]
        square *= square
        while (width := square.shape[1]) > 1:
            half = (width + 1) // 2
            square[:, : width - half] += square[:, half:]
            square = square[:, :half]
        result[rows] = square[:, 0]

    if len(query) <= 4 * step:
        for start in range(0, len(query), step):
            some(start)
    else:
        with ThreadPoolExecutor(cores()) as threads:
            list(threads.map(some, range(0, len(query), step)))
    return result
