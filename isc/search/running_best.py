"""Running top-k of candidate pairs during an exact search."""

from __future__ import annotations

import abc
import threading

import numpy as np
import numpy.typing as npt

from isc.data.groups import rank_in_group
from isc.search.kernels.numpy_kernel import Scores, Tile, squared_distances

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class RunningBest(abc.ABC):
    """Pairs that may belong to the answer: settled pairs with exact distances, and waiting pairs with computed scores.

    Settled pairs are in the order of the answer. At most `capacity` pairs wait; all are of the current queries.
    """

    def __init__(self, wanted: int, capacity: int) -> None:
        self.query, self.reference, self.distance = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        self.error = 0.0
        self.lock = threading.Lock()
        self._capacity = capacity
        self._enough = min(capacity, max(2 * wanted, 1 << 16))  # waiting pairs above which a filter pays off
        self._limit = self._enough
        self._waiting: list[tuple[Indices, Indices, Scores]] = []
        self._number = 0

    @abc.abstractmethod
    def learn(self, tile: Tile, rows: slice, /) -> None:
        """Find a first score threshold for these queries in a tile of theirs."""

    @abc.abstractmethod
    def least_scores(self, rows: slice, column: int) -> Scores:
        """Return for each query the smallest computed score that may matter, for references from `column` on."""

    @abc.abstractmethod
    def _learn(self, query: Indices, score: Scores, /) -> None:
        """Raise the score thresholds from the waiting and the settled pairs."""

    @abc.abstractmethod
    def _in_time(self, query: Indices, reference: Indices) -> Flags:
        """Return for each pair whether it comes early enough to enter a full list that ends at distance 0."""

    @abc.abstractmethod
    def _select(self, query: Indices, reference: Indices, distance: Distances) -> None:
        """Settle the best of these pairs."""

    def begin(self, first: int, queries: Vectors, references: Vectors) -> None:
        """Start with new queries, the first of which has number `first`; all pairs offered from now on are of them."""
        self._first, self._queries, self._references = first, queries, references

    def offer(self, query: Indices, reference: Indices, score: Scores) -> None:
        """Add candidate pairs; `query` counts from the first of the current queries."""
        self._waiting.append((query, reference, score))
        self._number += len(query)
        if self._number > self._limit:
            self._drop()
            if self._number > self._capacity // 2:  # computed scores cannot separate so close pairs
                self.settle()
            self._limit = min(self._capacity, max(self._enough, 2 * self._number))

    def settle(self) -> None:
        """Score the waiting pairs again in float64, from the differences, and keep the best."""
        query, reference, _ = self._drop()
        self._waiting, self._number = [], 0
        distance = squared_distances(self._queries, self._references, query, reference)
        query = np.r_[self.query, query + self._first]
        self._select(query, np.r_[self.reference, reference], np.r_[self.distance, distance])

    def join(self, query: Indices, reference: Indices, distance: Distances) -> None:
        """Settle the best pairs of further queries, which are in the order of the answer.

        Their exact distances are known; `query` counts from the first of all queries.
        """
        if not len(self.query):
            self.query, self.reference, self.distance = query, reference, distance
            return
        query, reference = np.r_[self.query, query], np.r_[self.reference, reference]
        self._select(query, reference, np.r_[self.distance, distance])

    def _drop(self) -> tuple[Indices, Indices, Scores]:
        """Drop the waiting pairs that cannot belong to the answer, and return the others."""
        empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
        query, reference, score = (np.concatenate(part) for part in zip(empty, *self._waiting, strict=True))
        self._learn(query, score)
        stays = (score >= self.least_scores(slice(0, len(self._queries)), 0)[query]) & self._in_time(query, reference)
        self._waiting = [(query[stays], reference[stays], score[stays])]
        self._number = len(self._waiting[0][0])
        return self._waiting[0]


class BestPairs(RunningBest):
    """The best pairs over all queries together."""

    def __init__(self, num_pairs: int, capacity: int) -> None:
        super().__init__(num_pairs, capacity)
        self._wanted = num_pairs
        self._score = -np.inf  # num_pairs pairs have this computed score or more

    def learn(self, tile: Tile, _rows: slice) -> None:
        if self._score == -np.inf and (score := tile.nth(self._wanted)) is not None:
            self._score = max(self._score, score)

    def least_scores(self, rows: slice, column: int) -> Scores:
        least_scores = np.full(rows.stop - rows.start, self._score - 2 * self.error, np.float32)
        least_scores = np.nextafter(least_scores, np.float32(-np.inf))
        if self._full and self.distance[-1] == 0:  # no pair is nearer, so only an earlier pair can enter
            number = np.arange(rows.start, rows.stop) + self._first
            least_scores[(number > self.query[-1]) | ((number == self.query[-1]) & (column > self.reference[-1]))] = (
                np.inf
            )
        return least_scores

    @property
    def _full(self) -> bool:
        return len(self.distance) == self._wanted

    def _learn(self, _query: Indices, score: Scores) -> None:
        known = np.r_[score, self.distance * -0.5]
        if len(known) >= self._wanted:
            at = len(known) - self._wanted
            self._score = max(self._score, float(np.partition(known, at)[at]))

    def _in_time(self, query: Indices, reference: Indices) -> Flags:
        if not (self._full and self.distance[-1] == 0):
            return np.ones(len(query), bool)
        last = self.query[-1] - self._first
        return np.asarray((query < last) | ((query == last) & (reference < self.reference[-1])))

    def _select(self, query: Indices, reference: Indices, distance: Distances) -> None:
        if len(distance) > self._wanted:
            near = distance <= np.partition(distance, self._wanted - 1)[self._wanted - 1]
            query, reference, distance = query[near], reference[near], distance[near]
        order = np.lexsort((reference, query, distance))[: self._wanted]
        self.query, self.reference, self.distance = query[order], reference[order], distance[order]
        if self._full:
            self._score = max(self._score, float(distance[order[-1]]) * -0.5)


class BestOfEach(RunningBest):
    """The best k pairs of each of `num_queries` queries; once settled, sorted by query, distance, reference."""

    def __init__(self, k: int, capacity: int, num_queries: int) -> None:
        super().__init__(k * num_queries, capacity)
        self._k = k
        self._score = np.full(num_queries, -np.inf, np.float32)
        self._last = np.full(num_queries, np.iinfo(np.int64).max)  # the kth reference if its distance is 0

    def learn(self, tile: Tile, rows: slice) -> None:
        if (self._score[rows] == -np.inf).any() and (score := tile.nth_of_rows(self._k)) is not None:
            self._score[rows] = np.maximum(self._score[rows], score)

    def least_scores(self, rows: slice, column: int) -> Scores:
        least_scores = (self._score[rows].astype(np.float64) - 2 * self.error).astype(np.float32)
        least_scores = np.nextafter(least_scores, np.float32(-np.inf))
        return np.where(self._last[rows] < column, np.float32(np.inf), least_scores)

    def _learn(self, query: Indices, score: Scores) -> None:
        known, owner = np.r_[score, (self.distance * -0.5).astype(np.float32)], np.r_[query, self.query]
        order = np.argsort(_keys(owner, known))
        count = np.bincount(owner, minlength=len(self._score))
        enough = np.flatnonzero(count >= self._k)
        kth = order[(np.cumsum(count) - count)[enough] + self._k - 1]
        self._score[enough] = np.maximum(self._score[enough], known[kth])

    def _in_time(self, query: Indices, reference: Indices) -> Flags:
        return np.asarray(reference < self._last[query])

    def _select(self, query: Indices, reference: Indices, distance: Distances) -> None:
        order = np.lexsort((reference, distance, query))
        query, reference, distance = query[order], reference[order], distance[order]
        rank = rank_in_group(query)
        stays = rank < self._k
        full = stays & (rank == self._k - 1) & (distance == 0)
        self._last[query[full]] = reference[full]
        self.query, self.reference, self.distance = query[stays], reference[stays], distance[stays]


def _keys(query: Indices, score: Scores) -> npt.NDArray[np.uint64]:
    """Return keys [M] that sort pairs by query, then by falling score, in a single sort."""
    bits = score.view(np.uint32)
    falling = np.where(bits >> 31 == 1, bits, bits ^ np.uint32(0x7FFFFFFF))  # a float is sign and magnitude
    return query.astype(np.uint64) << np.uint64(32) | falling
