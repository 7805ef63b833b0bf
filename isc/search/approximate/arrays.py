"""Arrays in the form that faiss takes, their division into parts, and the k nearest of each query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.data.descriptors import non_finite_row
from isc.data.groups import rank_in_group
from isc.errors import InputError

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]
Lists = tuple[Indices, Indices, Distances]
BLOCK = 1 << 16  # rows passed to faiss at once
SAMPLED = 64  # rows hashed of each doubling of a set


def checked(name: str, vectors: Vectors, dim: int | None = None) -> Vectors:
    """Return contiguous float32 [N, D]. Raises InputError for another shape, or NaN or infinite values."""
    if vectors.ndim != 2 or 0 in vectors.shape or (dim is not None and vectors.shape[1] != dim):
        raise InputError(f"{name} are {shape_text(vectors)}; expected N × {dim or 'D'} numbers, N ≥ 1")
    vectors = np.ascontiguousarray(vectors, np.float32)
    if (row := non_finite_row(vectors)) is not None:
        raise InputError(f"{name}: row {row} has NaN or infinite values; expected finite float32")
    return vectors


def shape_text(vectors: Vectors) -> str:
    return " × ".join(map(str, vectors.shape))


def hash_sample(hashed: Any, vectors: Vectors, first: int) -> None:
    """Hash a sample of the rows of a set; `vectors` are its rows from `first` on.

    64 rows of each doubling: about two thousand rows distinguish a billion from another set or another order.
    """
    end = first + len(vectors)
    octaves = (np.arange(1 << at, 2 << at, max(1, (1 << at) // SAMPLED)) for at in range(end.bit_length()))
    rows = np.concatenate([[0], *octaves])
    rows = rows[(rows >= first) & (rows < end)] - first
    hashed.update(np.ascontiguousarray(vectors[rows], np.float32).data)


def parts_of(blocks: Iterable[Vectors], rows: int) -> Iterator[Vectors]:
    for block in blocks:
        for start in range(0, len(block), rows):
            yield block[start : start + rows]


def k_nearest_of_each(query: Indices, row: Indices, distance: Distances, k: int) -> Lists:
    """Return the k nearest of each query, query by query; at equal distances the earlier row comes first."""
    order = np.lexsort((row, distance, query))
    query, row, distance = query[order], row[order], distance[order]
    first = rank_in_group(query) < k
    return query[first], row[first], distance[first]
