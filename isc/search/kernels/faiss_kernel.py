"""The faiss kernel: lists of the k nearest instead of all scores, on GPUs, or on a CPU as a check of the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from isc.errors import needing
from isc.search.kernels.numpy_kernel import (
    Indices,
    NumpyKernel,
    NumpyTile,
    Scores,
    Tile,
    Vectors,
    expansion_error,
    half_squares,
    max_length,
)

GPU_MAX_K = 2048  # the longest list of faiss on a GPU
HALF_LEAST = 2.0**-24  # the least float16 above 0


def faiss_gpus() -> int:
    """Return the number of GPUs that faiss sees; 0 without faiss."""
    try:
        import faiss
    except ModuleNotFoundError:
        return 0
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


class FaissKernel:
    """Kernel on faiss's lists of the k nearest: on all GPUs, each with a share of the references, else on the CPU.

    A list that ends above the threshold is searched again with a larger k; beyond faiss's limit numpy computes all
    scores. With `half`, GPUs hold the references as float16.
    """

    workers = 1

    def __init__(self, *, half: bool, cells: int, memory: int) -> None:
        with needing("engine=faiss", extra="approximate"):
            import faiss

        self._faiss, self._half, self._cells, self._memory = faiss, half, cells, memory
        self._gpus = faiss_gpus()
        self.columns = 1

    def session(self, _workers: int) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def load(self, queries: Vectors) -> None:
        self._queries = queries
        self.columns = max(1, self._memory // queries[0].nbytes)

    def rows(self, _columns: int) -> int:
        return max(1, self._cells // 256)

    def prepare(self, references: Vectors, _worker: int) -> tuple[Any, Vectors]:
        index: Any = self._faiss.IndexFlatL2(references.shape[1])
        index.add(references)
        if self._gpus:
            options = self._faiss.GpuMultipleClonerOptions()
            options.shard, options.useFloat16 = True, self._half
            index = self._faiss.index_cpu_to_all_gpus(index, co=options)
        return index, references

    def tile(self, queries: slice, prepared: tuple[Any, Vectors], _worker: int) -> Tile:
        index, references = prepared
        chosen = np.ascontiguousarray(self._queries[queries])
        lengths = [max_length(half_squares(part)) for part in (chosen, references)]
        error = expansion_error(chosen.shape[1], *lengths)
        rounding = 2 * error  # GPUs may truncate instead of rounding
        if self._gpus and self._half:  # a number errs by 2⁻¹¹ of itself, or half the least float16
            dim = chosen.shape[1]
            rounding += 2.1 * 2.0**-11 * lengths[0] * lengths[1] + HALF_LEAST * dim**0.5 * sum(lengths)
        longest = min(len(references), GPU_MAX_K if self._gpus else len(references))
        return FaissTile(index, chosen, references, error, rounding, longest, self._cells)


@dataclass
class FaissTile:
    index: Any
    queries: Vectors
    references: Vectors
    error: float
    rounding: float  # error bound of faiss's own score
    longest: int  # the longest list that faiss may return
    cells: int

    def nth(self, count: int) -> float | None:
        k = -(-count // len(self.queries))
        if k > self.longest:
            return self._nth_of_all(count)
        distance, _ = self.index.search(self.queries, k)
        return float(-np.partition(distance.reshape(-1), count - 1)[count - 1] / 2 - self.rounding - self.error)

    def nth_of_rows(self, count: int) -> Scores | None:
        if count > len(self.references):
            return None
        if count > self.longest:
            tiles = (self._by_numpy(rows)[1].nth_of_rows(count) for rows in self._row_parts())
            return np.concatenate([least for least in tiles if least is not None])
        distance, _ = self.index.search(self.queries, count)
        return np.asarray(-distance[:, -1] / 2 - self.rounding - self.error, np.float32)

    def above(self, least: Scores) -> tuple[Indices, Indices, Scores]:
        found: list[tuple[Indices, Indices, Scores]] = []
        waiting, k = np.arange(len(self.queries)), min(16, self.longest)
        while len(waiting):
            distance, column = self.index.search(self.queries[waiting], k)
            ended = -distance[:, -1] / 2 + self.rounding + self.error < least[waiting]
            ended |= k == len(self.references)
            row = np.repeat(waiting[ended], k)
            found.append(self._scored(row, column[ended].reshape(-1).astype(np.int64), least))
            waiting = waiting[~ended]
            if k == self.longest:
                found += [self._product(rows, least) for rows in _parts(waiting, self.cells // len(self.references))]
                break
            k = min(8 * k, self.longest)
        row, column, score = (np.concatenate(part) for part in zip(*found, strict=True))
        return row, column, score

    def _scored(self, row: Indices, column: Indices, least: Scores) -> tuple[Indices, Indices, Scores]:
        """Return the pairs whose float32 score, from the differences, reaches the threshold `least` of their query."""
        score = np.empty(len(row), np.float32)
        for part in _parts(np.arange(len(row)), 1 << 14):
            difference = self.queries[row[part]] - self.references[column[part]]
            score[part] = np.einsum("nd,nd->n", difference, difference) * np.float32(-0.5)
        high = score >= least[row]
        return row[high], column[high], score[high]

    def _nth_of_all(self, count: int) -> float | None:
        """Return the largest score that `count` pairs reach, from all scores by numpy; None if there are fewer pairs.

        The best `count` scores so far are kept, so that memory does not grow with the number of pairs.
        """
        best = np.zeros(0, np.float32)
        for rows in self._row_parts():
            best = np.concatenate([best, self._by_numpy(rows)[0].reshape(-1)])
            if len(best) > count:
                best = np.partition(best, len(best) - count)[-count:]
        return float(best.min()) if len(best) == count else None

    def _row_parts(self) -> Iterator[Indices]:
        return _parts(np.arange(len(self.queries)), self.cells // len(self.references))

    def _by_numpy(self, rows: Indices) -> tuple[Scores, NumpyTile]:
        """Return the scores [n, m] of these queries, and the tile that holds them."""
        kernel = NumpyKernel(workers=1, cells=len(rows) * len(self.references))
        kernel.load(self.queries[rows])
        tile = kernel.tile(slice(0, len(rows)), kernel.prepare(self.references, 0), 0)
        return tile.finish(), tile

    def _product(self, rows: Indices, least: Scores) -> tuple[Indices, Indices, Scores]:
        """Return the pairs of these queries above the threshold, from all scores by numpy."""
        row, column, score = self._by_numpy(rows)[1].above(least[rows])
        return rows[row], column, score


def _parts(values: Indices, size: int) -> Iterator[Indices]:
    for start in range(0, len(values), max(1, size)):
        yield values[start : start + max(1, size)]
