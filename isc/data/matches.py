"""Matches and ground truth: scored and true pairs of queries and references, checked when they are built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from isc.data.ids import FloatArray, Ids, IntArray, first_repeat, numbered, positions_in, repeated_key
from isc.errors import InputError


@dataclass(frozen=True)
class Matches:
    """Scored query-reference pairs; a higher score means more similar.

    `query` and `reference` [M] are positions in `query_ids` and `reference_ids`; `score` [M] is finite. No pair occurs
    twice. The order of the rows has no meaning. Raises InputError for other values.
    """

    query_ids: Ids
    reference_ids: Ids
    query: IntArray
    reference: IntArray
    score: FloatArray

    def __post_init__(self) -> None:
        self._check_lengths()
        for name in ("query", "reference"):
            object.__setattr__(self, name, np.asarray(getattr(self, name)).astype(np.int64, copy=False))
        for what, positions, ids in (
            ("query", self.query, self.query_ids),
            ("reference", self.reference, self.reference_ids),
        ):
            if len(set(ids)) < len(ids) and (twice := first_repeat(ids)):
                raise InputError(f"{what} ids {twice[0]} and {twice[1]}: {ids[twice[0]]!r} occurs twice; expected once")
            if len(positions) and not 0 <= positions.min() <= positions.max() < len(ids):
                raise InputError(f"a {what} position lies outside 0…{len(ids) - 1}")
        self._check_rows()

    def _check_lengths(self) -> None:
        if not len(self.query) == len(self.reference) == len(self.score):
            raise InputError(f"{len(self.query)} queries, {len(self.reference)} references, {len(self.score)} scores")

    def _check_rows(self) -> None:
        if not np.isfinite(self.score).all():
            row = int(np.argmin(np.isfinite(self.score)))
            raise InputError(f"row {row}: score {self.score[row]} of {self.pair(row)}; expected a finite number")
        repeat = repeated_key(self.keys())
        if repeat:
            raise InputError(f"rows {repeat[0]} and {repeat[1]}: the pair {self.pair(repeat[1])} occurs twice")

    def __len__(self) -> int:
        return len(self.score)

    def keys(self) -> IntArray:
        """Return one number per pair [M]; numbers are equal if and only if query and reference are."""
        return self.query * len(self.reference_ids) + self.reference

    def ids(self, row: int) -> tuple[str, str]:
        """Return the ids of a pair's query and reference."""
        return self.query_ids[self.query[row]], self.reference_ids[self.reference[row]]

    def pair(self, row: int) -> str:
        return f"{self.query_ids[self.query[row]]},{self.reference_ids[self.reference[row]]}"

    def order(self) -> IntArray:
        """Return the rows by falling score; rows of equal score by query, then reference position."""
        return np.lexsort((self.reference, self.query, -self.score)).astype(np.int64)

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Matches:
        """Return the matches in these rows, with the same id tables."""
        tables = self.query_ids, self.reference_ids
        return self._of_sound_tables(*tables, self.query[rows], self.reference[rows], self.score[rows])

    def joined(self, other: Matches) -> Matches:
        """Return these matches and after them those of `other`, which has the same id tables."""
        columns = ("query", "reference", "score")
        both = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in columns)
        return self._of_sound_tables(self.query_ids, self.reference_ids, *both)

    @classmethod
    def from_ids(cls, query: Sequence[str], reference: Sequence[str], score: npt.ArrayLike) -> Matches:
        """Build matches from ids; the id tables hold each id once, in order of first appearance."""
        return cls.from_numbered(numbered(query), numbered(reference), score)

    @classmethod
    def from_numbered(
        cls, query: tuple[Ids, IntArray], reference: tuple[Ids, IntArray], score: npt.ArrayLike
    ) -> Matches:
        """Build matches from queries and references as `numbered` returns them."""
        tables = query[0], reference[0]
        return cls._of_sound_tables(*tables, query[1], reference[1], np.asarray(score, dtype=np.float64))

    @classmethod
    def _of_sound_tables(
        cls, query_ids: Ids, reference_ids: Ids, query: IntArray, reference: IntArray, score: FloatArray
    ) -> Matches:
        """Build matches without a check for repeated ids, which is slow, or for positions outside the id tables."""
        matches = object.__new__(cls)
        values = (query_ids, reference_ids, query, reference, score)
        vars(matches).update(zip((one.name for one in fields(cls)), values, strict=True))
        matches._check_lengths()
        matches._check_rows()
        return matches


@dataclass(frozen=True)
class GroundTruth:
    """The judged queries and their true pairs.

    `queries` holds every query of the file, distractors included; `pairs` holds the distinct (query id, reference id);
    `num_repeated` counts the repeated rows.
    """

    queries: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    num_repeated: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "queries", self.queries | {query for query, _ in self.pairs})

    def correct(self, matches: Matches) -> npt.NDArray[np.bool_]:
        """Return, for each match [M], whether it is a true pair."""
        queries, query = numbered([query for query, _ in self.pairs])
        references, reference = numbered([reference for _, reference in self.pairs])
        true_query = positions_in(matches.query_ids, np.arange(len(matches.query_ids)), queries)
        rows = np.flatnonzero((true_query >= 0)[matches.query])
        # the table may hold a million references: look up only those predicted for a query with a true pair
        predicted = np.zeros(len(matches.reference_ids), bool)
        predicted[matches.reference[rows]] = True
        true_reference = np.full(len(matches.reference_ids), -1)
        true_reference[predicted] = positions_in(matches.reference_ids, np.flatnonzero(predicted), references)
        rows = rows[(true_reference >= 0)[matches.reference[rows]]]
        keys = true_query[matches.query[rows]] * len(references) + true_reference[matches.reference[rows]]
        correct = np.zeros(len(matches), bool)
        correct[rows] = np.isin(keys, query * len(references) + reference)
        return correct

    def judged(self, matches: Matches) -> npt.NDArray[np.bool_]:
        """Return, for each match [M], whether its query occurs in the ground truth."""
        names = matches.query_ids.tolist()
        return np.fromiter(map(self.queries.__contains__, names), bool, len(names))[matches.query]
