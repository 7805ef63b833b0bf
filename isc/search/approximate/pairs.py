"""The best pairs over all queries together, by an approximate index."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from isc.data.descriptors import Descriptors
from isc.data.hdf5 import check_same_dim
from isc.data.matches import Matches
from isc.errors import InputError
from isc.runtime.progress import Report
from isc.search.approximate.arrays import Indices, Lists
from isc.search.approximate.index import FACTOR, Approximate

log = logging.getLogger(__name__)
_REMEDY = ": the index looks at a part of the references; index_search=nprobe=, or efSearch=, makes it look further"


def approximate_pairs(
    queries: Descriptors,
    references: Descriptors,
    *,
    index: Approximate,
    num_pairs: int | None = None,
    k: int | None = None,
    search: str = "",
    factor: int = FACTOR,
    progress: Report | None = None,
) -> Matches:
    """Return the best `num_pairs` over all queries together, or the best `k` of each query, that the index finds.

    Scores are exact, −‖q − r‖². Pairs that the index misses are missing; if so many miss that there are
    fewer than requested, a warning says so. With
    `num_pairs`, every list that may have cut off a pair of the answer is searched again, four times as long. Raises
    InputError unless exactly one of `num_pairs` and `k` is given and that many exist.
    """
    check_same_dim(queries, references)
    if (num_pairs is None) == (k is None):
        raise InputError(f"num_pairs={num_pairs} and k={k}; expected one of them")
    asked, exist = (k, len(references)) if num_pairs is None else (num_pairs, len(queries) * len(references))
    if asked is None or not 1 <= asked <= exist:
        raise InputError(f"{'num_pairs' if k is None else 'k'}={asked}: expected 1…{exist}, as many as there are")

    def lists(rows: Indices, length: int) -> Lists:
        query, row, distance = index.knn(
            queries.vectors[rows], k=length, search=search, vectors=references.vectors, factor=factor, progress=progress
        )
        return rows[query], row, distance

    if k is not None:
        query, row, distance = lists(np.arange(len(queries)), k)
        short = int(np.sum(np.bincount(query, minlength=len(queries)) < k))
        if short:
            log.warning("%d of %d queries have fewer than k=%d pairs%s", short, len(queries), k, _REMEDY)
    else:
        query, row, distance = _best(lists, len(queries), len(references), asked)
        if len(query) < asked:
            log.warning("%d pairs found, num_pairs=%d asked for%s", len(query), asked, _REMEDY)
    order = np.lexsort((row, query, distance))
    score = (0.0 - distance[order]).astype(np.float32)
    return Matches(queries.ids, references.ids, query[order], row[order], score)


def _best(lists: Any, num_queries: int, num_references: int, num_pairs: int) -> Lists:
    query, row, distance = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    unfinished = np.arange(num_queries)
    length = min(num_references, 2 * -(-num_pairs // num_queries))
    while len(unfinished):
        kept = ~np.isin(query, unfinished)  # pairs of the others come again with their longer lists
        q, r, d = lists(unfinished, length)
        reached = np.bincount(q, minlength=num_queries) == length  # a full list: maybe cut off
        end = np.zeros(num_queries)
        np.maximum.at(end, q, d)
        query, row, distance = np.r_[query[kept], q], np.r_[row[kept], r], np.r_[distance[kept], d]
        best = np.lexsort((row, query, distance))[:num_pairs]
        query, row, distance = query[best], row[best], distance[best]
        bound = distance[-1] if len(distance) == num_pairs else np.inf
        unfinished = np.flatnonzero(reached & (end <= bound)) if length < num_references else np.zeros(0, np.int64)
        length = min(num_references, 4 * length)
    return query, row, distance
