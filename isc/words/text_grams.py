"""Texts as hashed runs of characters, for a text tower that needs no vocabulary and knows every script."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]

from isc.words.names import plain

BUCKETS = 1 << 15
SIZES = (2, 3, 4)  # characters of a run; whole words count as well
LONGEST = 400  # characters of a text that are read


def buckets_of(text: str) -> list[int]:
    """Return the buckets of a text's words and of the runs of 2 to 4 characters inside them, ends marked."""
    found = []
    for word in plain(text[:LONGEST].replace("[SEP]", " ")).split():
        marked = f"<{word}>"
        runs = [marked, *(marked[at : at + size] for size in SIZES for at in range(len(marked) - size + 1))]
        found += [zlib.crc32(run.encode()) % BUCKETS for run in dict.fromkeys(runs)]
    return found or [0]


def gram_counts(texts: Sequence[str]) -> sparse.csr_matrix:
    """Return how often each bucket occurs in each text, sparse float32 [N, BUCKETS]."""
    rows = [buckets_of(text) for text in texts]
    ends = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    columns = np.concatenate([np.array(row, np.int64) for row in rows]) if rows else np.zeros(0, np.int64)
    counts = sparse.csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=(len(rows), BUCKETS))
    counts.sum_duplicates()
    return counts


def rarity(counts: sparse.csr_matrix) -> npt.NDArray[np.float32]:
    """Return log((1 + texts) / (1 + texts with the bucket)) of each bucket [BUCKETS]."""
    with_it = np.bincount(counts.indices, minlength=BUCKETS)
    return np.asarray(np.log((1 + counts.shape[0]) / (1 + with_it)), np.float32)


def weighed(counts: sparse.csr_matrix, weights: npt.NDArray[np.float32]) -> sparse.csr_matrix:
    """Return the rows times the weights, with dampened counts, at unit length: TF-IDF."""
    damped = counts.copy()
    damped.data = (1 + np.log(damped.data)) * weights[damped.indices]
    norm = np.sqrt(np.asarray(damped.multiply(damped).sum(axis=1))).ravel()
    return sparse.csr_matrix(sparse.diags((1 / np.maximum(norm, 1e-12)).astype(np.float32)) @ damped)
