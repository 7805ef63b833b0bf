"""Exact Euclidean search: the best pairs over all queries together, or the best k of each. The only module with faiss.

The score of a pair is −‖q − r‖². faiss proposes candidates in float32 by the expansion ‖q‖² + ‖r‖² − 2 q·r, whose
rounding error is bounded (`expansion_error`); every candidate's distance is then computed again from the differences in
float64, so the result does not depend on blocks, threads or device, and identical vectors score exactly 0.
"""

from __future__ import annotations

import functools
from types import ModuleType

import numpy as np
import numpy.typing as npt

from isc.descriptors import Descriptors, Matches
from isc.errors import InputError
from isc.io import check_same_dim
from isc.progress import Report

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]

GPU_MAX_K = 2048  # faiss keeps no longer lists on a GPU
BLOCK_PAIRS = 1 << 31  # (query, reference) pairs compared at once: seconds of work
LIST_CELLS = 1 << 24  # (query, neighbour) cells held at once: 200 MB of distances and positions


def knn(queries: Descriptors, references: Descriptors, *, k: int, progress: Report | None = None) -> Matches:
    """The `k` nearest references of each query (all of them where there are fewer), exact.

    At equal distances the earlier reference comes first.
    """
    check_same_dim(queries, references)
    _require_positive("k", k)
    wide = min(len(references), k + 8)  # a margin for ties and rounding; lists it cannot settle are searched wider
    query, reference, distance = _complete_lists(queries.vectors, references.vectors, k, wide, progress)
    return _matches(queries, references, query, reference, distance)


def best_pairs(
    queries: Descriptors, references: Descriptors, *, num_pairs: int, progress: Report | None = None
) -> Matches:
    """The `num_pairs` nearest (query, reference) pairs over all queries together, exact; all pairs where fewer exist.

    At equal distances the earlier query comes first, then the earlier reference.

    Any `num_pairs` pairs bound the answer: the last pair of the answer is no farther than the farthest of them. So a
    query whose list of k neighbours reaches beyond that bound has nothing more to give; the others are searched again
    with longer lists, until every list reaches beyond.
    """
    check_same_dim(queries, references)
    _require_positive("num_pairs", num_pairs)
    num_pairs = min(num_pairs, len(queries) * len(references))
    error = expansion_error(queries.vectors, references.vectors)
    k = min(len(references), max(2, -(-num_pairs // len(queries))))
    unfinished = np.arange(len(queries))
    searched = 0
    query, reference, distance = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    while len(unfinished):
        # what these queries gave before is given again by their longer lists
        done = ~np.isin(query, unfinished)
        query, reference, distance = query[done], reference[done], distance[done]
        reach = np.empty(len(unfinished))  # no unseen pair of a query is nearer than this
        step = _block(k, len(references))
        for start in range(0, len(unfinished), step):
            block = unfinished[start : start + step]
            q, r, d, reach[start : start + step] = _neighbours(queries.vectors, references.vectors, block, k, error)
            query, reference, distance = np.r_[query, q], np.r_[reference, r], np.r_[distance, d]
            best = np.lexsort((reference, query, distance))[:num_pairs]
            query, reference, distance = query[best], reference[best], distance[best]
            if progress:
                progress(searched + start + len(block), searched + len(unfinished))
        searched += len(unfinished)
        if k == len(references):
            break
        if len(distance) == num_pairs:
            # an unseen pair at the very distance of the last kept one still wins if its query comes no later
            unfinished = unfinished[(reach < distance[-1]) | ((reach <= distance[-1]) & (unfinished <= query[-1]))]
        k = min(len(references), 4 * k)
    return _matches(queries, references, query, reference, distance)


def expansion_error(queries: Vectors, references: Vectors) -> float:
    """A bound on |computed − true| squared distance when float32 evaluates ‖q‖² + ‖r‖² − 2 q·r.

    Each of the three sums of D products has an error of at most γ_D · ‖q‖ · ‖r‖ with γ_n = n·u / (1 − n·u) and
    u = 2⁻²⁴, whatever the order of summation (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., eq.
    3.5); together with the two additions: γ_{D+3} · (‖q‖ + ‖r‖)².
    """
    n = (queries.shape[1] + 3) * 2.0**-24
    longest = sum(float(np.sqrt(np.max(np.einsum("nd,nd->n", v, v, dtype=np.float64)))) for v in (queries, references))
    if longest**2 > np.finfo(np.float32).max:
        raise InputError(f"a descriptor is {longest:.1e} long, too much for float32 distances; scale them down")
    return float(n / (1 - n) * longest**2)


def squared_distances(queries: Vectors, references: Vectors, query: Indices, reference: Indices) -> Distances:
    """‖q − r‖² of the given pairs [M], from the differences, in float64."""
    result = np.empty(len(query))
    step = max(1, (1 << 22) // queries.shape[1])
    for start in range(0, len(query), step):
        rows = slice(start, start + step)
        difference = queries[query[rows]].astype(np.float64) - references[reference[rows]]
        result[rows] = np.einsum("md,md->m", difference, difference)
    return result


def _complete_lists(
    queries: Vectors, references: Vectors, k: int, wide: int, progress: Report | None
) -> tuple[Indices, Indices, Distances]:
    """The k nearest of every query, each list settled: nothing unseen could be as near as its kth."""
    error = expansion_error(queries, references)
    k = min(k, len(references))
    found: list[tuple[Indices, Indices, Distances]] = []
    unfinished = np.arange(len(queries))
    while len(unfinished):
        again: list[Indices] = []
        step = _block(wide, len(references))
        for start in range(0, len(unfinished), step):
            block = unfinished[start : start + step]
            q, r, d, reach = _neighbours(queries, references, block, wide, error)
            order = np.lexsort((r, d, q))
            shape = (len(block), wide)  # every list has `wide` entries, and `block` rises
            q, r, d = q[order].reshape(shape)[:, :k], r[order].reshape(shape)[:, :k], d[order].reshape(shape)[:, :k]
            settled = (reach > d[:, -1]) | (wide == len(references))
            found.append((q[settled].ravel(), r[settled].ravel(), d[settled].ravel()))
            again.append(block[~settled])
            if progress:
                progress(sum(len(f[0]) for f in found) // k, len(queries))
        unfinished = np.concatenate(again)
        wide = min(len(references), 4 * wide)
    query, reference, distance = zip(*found, strict=True)
    return np.concatenate(query), np.concatenate(reference), np.concatenate(distance)


def _block(k: int, num_references: int) -> int:
    """How many queries to search at once: lists that fit in memory, and not minutes without a sign of progress."""
    return max(1, min(LIST_CELLS // k, BLOCK_PAIRS // num_references))


def _neighbours(
    queries: Vectors, references: Vectors, block: Indices, k: int, error: float
) -> tuple[Indices, Indices, Distances, Distances]:
    """Pairs (query, reference, distance) [len(block) · k] of the k nearest of each query in `block`, and each query's
    reach [len(block)]: no reference outside its list is nearer."""
    distance, reference = _faiss_knn(queries[block], references, k)
    flat_query, flat_reference = np.repeat(block, k), reference.ravel()
    exact = squared_distances(queries, references, flat_query, flat_reference)
    return flat_query, flat_reference, exact, distance[:, -1].astype(np.float64) - error


def _faiss_knn(queries: Vectors, references: Vectors, k: int) -> tuple[Vectors, Indices]:
    faiss = _faiss()
    if faiss.get_num_gpus() > 0 and k <= GPU_MAX_K:
        distance, reference = faiss.knn_gpu(_gpu_resources(), queries, references, k)
    else:
        distance, reference = faiss.knn(queries, references, k)
    return distance, reference.astype(np.int64)


def _faiss() -> ModuleType:
    import faiss

    loaded: ModuleType = faiss
    return loaded


@functools.cache
def _gpu_resources() -> object:
    """faiss's scratch memory on the GPU, made once a process."""
    return _faiss().StandardGpuResources()


def _matches(
    queries: Descriptors, references: Descriptors, query: Indices, reference: Indices, distance: Distances
) -> Matches:
    order = np.lexsort((reference, query, distance))
    score = (0.0 - distance[order]).astype(np.float32)
    return Matches(queries.ids, references.ids, query[order], reference[order], score)


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name}={value}; expected at least 1")
