"""The values that travel between the stages. They check themselves, so one that exists is right."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from isc.errors import InputError

Ids = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]


_USABLE_ID = re.compile(r"(?!\s)[^,\n\r\0\ud800-\udfff]+(?<!\s)")


def as_ids(ids: Iterable[str], *, what: str = "id") -> Ids:
    """Ids as a one-dimensional object array of `str`, order kept.

    Raises InputError for an id that is empty, has blanks round it, or holds a comma or a line break: such an id would
    not come back from a CSV file as it went in. `what` is what the message calls an id.
    """
    names = list(ids)
    if not all_usable(names):
        row, problem = next((row, problem) for row, name in enumerate(names) if (problem := id_problem(name)))
        raise InputError(f"row {row}: {what} {names[row]!r} {problem}")
    return np.array(names, dtype=object)


def all_usable(names: Sequence[str]) -> bool:
    """Whether `id_problem` has nothing against any of these; one look at all of them together."""
    try:
        text = ",".join(names)
        text.encode()
    except (TypeError, UnicodeEncodeError):
        return False
    if not names:
        return True
    if text.count(",") != len(names) - 1 or ",," in f",{text}," or any(letter in text for letter in "\n\r\0"):
        return False
    return text.split(maxsplit=1) == [text] or all(map(operator.eq, map(str.strip, names), names))


def id_problem(name: object) -> str | None:
    """What is wrong with an id, or None."""
    if isinstance(name, str) and _USABLE_ID.fullmatch(name):
        return None
    if not isinstance(name, str):
        return f"is of type {type(name).__name__}; expected text"
    problems = {
        "is empty; expected a name": not name,
        "has blanks round it; expected none": name != name.strip(),
        "holds a comma or a line break; rename it": any(letter in name for letter in ",\n\r"),
        "holds a NUL; rename it": "\0" in name,
    }
    return next((problem for problem, holds in problems.items() if holds), "is not UTF-8 text; rename it")


def first_repeat(names: Sequence[str] | Ids) -> tuple[int, int] | None:
    """Positions (first, second) of the first value that occurs twice, or None."""
    if len(set(names)) == len(names):  # the usual case, and a million names take a while one by one
        return None
    seen: dict[str, int] = {}
    for row, name in enumerate(names):
        if name in seen:
            return seen[name], row
        seen[name] = row
    return None


def numbered(names: Sequence[str], keys: npt.NDArray[np.uint64] | None = None) -> tuple[Ids, IntArray]:
    """Each name once, in order of first appearance, and for each of `names` its position there.

    `keys` [M], numbers that are equal exactly where the names are, spare looking at half a million pieces of text.
    """
    if keys is None:
        position = {name: i for i, name in enumerate(dict.fromkeys(names))}
        at = np.fromiter(map(position.__getitem__, names), np.int64, len(names))
        return np.array(list(position), dtype=object), at
    _, first, at = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return np.array([names[row] for row in first[order].tolist()], dtype=object), place[at]


def _lookup(ids: Ids, rows: IntArray, table: Ids) -> IntArray:
    """For each of these rows of `ids` the position of its id in the table, −1 where it is not there."""
    position = dict(zip(table.tolist(), range(len(table)), strict=True)).get
    found = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), 4096):  # few enough that the text of an id, once fetched, is still in the cache
        block = slice(start, start + 4096)
        found[block] = list(map(position, ids[rows[block]].tolist(), itertools.repeat(-1)))
    return found


@dataclass(frozen=True)
class Descriptors:
    """One set of images: `ids` [N] unique strings, `vectors` [N, D] finite float32, row i belongs to id i.

    With `views` [N], strings that say what of its image each row shows, an image may have several rows: ids repeat, and
    no pair of id and view does. The rows have any order; those of an image need not stand together.
    """

    ids: Ids
    vectors: npt.NDArray[np.float32]
    views: Ids | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", as_ids(self.ids))
        object.__setattr__(self, "vectors", _as_vectors(self.vectors))
        if not len(self.ids):
            raise InputError("holds no descriptors; expected at least one row")
        if len(self.ids) != len(self.vectors):
            raise InputError(f"{len(self.ids)} ids for {len(self.vectors)} rows of vectors; expected one id a row")
        if self.views is not None:
            object.__setattr__(self, "views", as_ids(self.views, what="view"))
        repeat = first_repeated_row(self.ids, self.views)
        if repeat:
            view = "" if self.views is None else f" with view {self.views[repeat[0]]!r}"
            raise InputError(f"rows {repeat[0]} and {repeat[1]}: id {self.ids[repeat[0]]!r}{view} occurs twice")
        bad = non_finite_row(self.vectors)
        if bad is not None:
            raise InputError(f"row {bad}: id {self.ids[bad]!r} has NaN or infinite values; expected finite float32")

    def __len__(self) -> int:
        """Rows; images are `len(self.images)`."""
        return len(self.ids)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def images(self) -> Ids:
        """Each id once, in order of first appearance."""
        return self.ids if self.views is None else numbered(self.ids.tolist())[0]

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Descriptors:
        """These rows alone, in this order."""
        return Descriptors(self.ids[rows], self.vectors[rows], None if self.views is None else self.views[rows])

    def sorted(self) -> Descriptors:
        """The same set with its rows in the order of their ids (by code point, as the challenge sorts), those of one
        image in the order they had."""
        if all(one <= two for one, two in itertools.pairwise(self.ids)):
            return self
        return self.take(np.argsort(self.ids, kind="stable"))


def first_repeated_row(ids: Sequence[str] | Ids, views: Sequence[str] | Ids | None) -> tuple[int, int] | None:
    """Rows (first, second) of the first id that occurs twice, with `views` of the first id and view; or None.

    InputError where there are not as many views as ids.
    """
    if views is None:
        return first_repeat(ids)
    if len(views) != len(ids):
        raise InputError(f"{len(views)} views for {len(ids)} ids; expected one view a row")
    return first_repeat([f"{name},{view}" for name, view in zip(ids, views, strict=True)])  # no id holds a comma


def _as_vectors(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"vectors have shape {array.shape}; expected [N, D] with D ≥ 1")
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"vectors have type {array.dtype}; expected float32")
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite and is refused by row
        return np.ascontiguousarray(array, dtype=np.float32)


def non_finite_row(vectors: npt.NDArray[np.float32]) -> int | None:
    """The first row of [N, D] that holds a NaN or an infinity, or None."""
    for start in range(0, len(vectors), 65536):
        finite = np.isfinite(vectors[start : start + 65536]).all(axis=1)
        if not finite.all():
            return start + int(np.argmin(finite))
    return None


@dataclass(frozen=True)
class Matches:
    """Scored query-reference pairs; a higher score means more alike.

    `query` and `reference` [M] are positions in `query_ids` and `reference_ids`; `score` [M] is finite. No pair occurs
    twice. The order of the rows carries no meaning.
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
        """One number a pair [M]: equal exactly where query and reference are."""
        return self.query * len(self.reference_ids) + self.reference

    def pair(self, row: int) -> str:
        return f"{self.query_ids[self.query[row]]},{self.reference_ids[self.reference[row]]}"

    def order(self) -> IntArray:
        """Positions of the pairs by falling score; at equal scores by query, then reference position."""
        return np.lexsort((self.reference, self.query, -self.score)).astype(np.int64)

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Matches:
        """These rows alone, with the same id tables."""
        tables = self.query_ids, self.reference_ids
        return self._of_sound_tables(*tables, self.query[rows], self.reference[rows], self.score[rows])

    @classmethod
    def from_ids(cls, query: Sequence[str], reference: Sequence[str], score: npt.ArrayLike) -> Matches:
        """Pairs given by their ids; the id tables hold each id once, in order of first appearance."""
        return cls.from_numbered(numbered(query), numbered(reference), score)

    @classmethod
    def from_numbered(
        cls, query: tuple[Ids, IntArray], reference: tuple[Ids, IntArray], score: npt.ArrayLike
    ) -> Matches:
        """The same of ids that went through `numbered` before."""
        tables = query[0], reference[0]
        return cls._of_sound_tables(*tables, query[1], reference[1], np.asarray(score, dtype=np.float64))

    @classmethod
    def _of_sound_tables(
        cls, query_ids: Ids, reference_ids: Ids, query: IntArray, reference: IntArray, score: FloatArray
    ) -> Matches:
        """Without looking for repeats in tables of up to a million ids, and with positions that lie within them."""
        matches = object.__new__(cls)
        values = (query_ids, reference_ids, query, reference, score)
        vars(matches).update(zip((one.name for one in fields(cls)), values, strict=True))
        matches._check_lengths()
        matches._check_rows()
        return matches


def repeated_key(keys: IntArray) -> tuple[int, int] | None:
    """Positions (first, second) of a value that occurs twice, the earliest such second position, or None."""
    rising = np.sort(keys)
    if not (rising[1:] == rising[:-1]).any():
        return None
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    at = twice[np.argmin(order[twice + 1])]
    return int(order[at]), int(order[at + 1])


@dataclass(frozen=True)
class GroundTruth:
    """Which queries are judged, and the true pairs among them.

    `queries` holds every query of the file, distractors included; `pairs` the distinct (query id, reference id).
    """

    queries: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    num_repeated: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "queries", self.queries | {query for query, _ in self.pairs})

    def right(self, matches: Matches) -> npt.NDArray[np.bool_]:
        """For each match [M] whether it is a true pair."""
        queries, query = numbered([query for query, _ in self.pairs])
        references, reference = numbered([reference for _, reference in self.pairs])
        true_query = _lookup(matches.query_ids, np.arange(len(matches.query_ids)), queries)
        rows = np.flatnonzero((true_query >= 0)[matches.query])
        # of a table of up to a million references, only those that such a query predicts are looked up
        predicted = np.zeros(len(matches.reference_ids), bool)
        predicted[matches.reference[rows]] = True
        true_reference = np.full(len(matches.reference_ids), -1)
        true_reference[predicted] = _lookup(matches.reference_ids, np.flatnonzero(predicted), references)
        rows = rows[(true_reference >= 0)[matches.reference[rows]]]
        keys = true_query[matches.query[rows]] * len(references) + true_reference[matches.reference[rows]]
        right = np.zeros(len(matches), bool)
        right[rows] = np.isin(keys, query * len(references) + reference)
        return right

    def judged(self, matches: Matches) -> npt.NDArray[np.bool_]:
        """For each match [M] whether its query occurs in the ground truth."""
        names = matches.query_ids.tolist()
        return np.fromiter(map(self.queries.__contains__, names), bool, len(names))[matches.query]
