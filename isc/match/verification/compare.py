"""Comparison of the pixels of every candidate pair, on all cores."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from isc.data.csv_files import write_csv
from isc.data.ids import IntArray
from isc.data.matches import Matches
from isc.errors import InputError
from isc.match.verification import drawings, negatives
from isc.match.verification.alignment import Alignment
from isc.match.verification.device_compare import compared_on
from isc.match.verification.feature_store import FeatureStore, photo_key
from isc.match.verification.features import LocalFeatures
from isc.match.verification.quantities import EVIDENCE
from isc.match.verification.shelf import FeatureShelf
from isc.match.verification.tasks import (
    AS_DRAWINGS,
    AS_NEGATIVES,
    AS_PHOTOS,
    WITH_NEGATIVES,
    Compare,
    Compared,
    Describe,
    Described,
    Finish,
    Floats,
    Looks,
    PairWork,
    ReferenceFeatures,
)  # fmt: skip
from isc.photos.folders import path_of
from isc.runtime.cpus import cores
from isc.runtime.pool import Share, sharing
from isc.runtime.progress import Report, progress

Side = Literal["query", "reference", "pair"]
Bars = Callable[[str, str], AbstractContextManager[Report]]
PHOTOS = 4  # photos in one task of making features
LOOKUP = 10_000  # photos in one look-up in the store
NOT_COMPARED_COLUMNS = ("side", "id", "file", "reason", "pairs")


@dataclass(frozen=True)
class Problem:
    """The reason why pairs were not compared: a picture of one side, or two pictures together for the side "pair".

    The id of a pair is "QUERY,REFERENCE". `pairs` is the number of affected candidates; `file` is None for a pair, and
    for an id without a file.
    """

    side: Side
    id: str
    file: Path | None
    reason: str
    pairs: int


@dataclass(frozen=True)
class Verified:
    """The results of comparing the pixels of P candidates, in their order.

    evidence    float32 [P, len(EVIDENCE)], a row of NaN for a pair that was not compared
    alignments  by row, of the candidates whose pictures show the same
    problems    one per picture or pair, sorted; a pair with two faulty pictures counts in both
    drawings    numbers of the queries that may be drawings
    further     rows of the further pairs that the evidence has after those of the candidates, rising
    """

    evidence: Floats
    alignments: Mapping[int, Alignment]
    problems: tuple[Problem, ...]
    drawings: frozenset[int] = frozenset()
    further: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def not_compared(self) -> int:
        """The number of pairs without evidence."""
        return int(np.isnan(self.evidence).all(axis=1).sum())

    def joined(self, other: Verified) -> Verified:
        """Return the results of these pairs and after them those of other pairs of the same run."""
        start = len(self.evidence)
        later = {start + row: one for row, one in other.alignments.items()}
        reasons = {(one.side, one.id): one for one in self.problems}
        for one in other.problems:
            known = reasons.get((one.side, one.id))
            reasons[one.side, one.id] = one if known is None else replace(known, pairs=known.pairs + one.pairs)
        return Verified(
            np.concatenate([self.evidence, other.evidence]), {**self.alignments, **later},
            tuple(sorted(reasons.values(), key=lambda one: (one.side, one.id))), self.drawings | other.drawings,
            self.further,
        )  # fmt: skip


def verify(
    candidates: Matches,
    query_images: Mapping[str, Path],
    reference_images: Mapping[str, Path],
    *,
    further: Matches | None = None,
    store: FeatureStore | None = None,
    workers: int | None = None,
    on: str | None = None,
    bars: Bars = progress,
) -> Verified:
    """Compare every candidate pair; the result does not depend on the number of `workers` (None: one per core).

    First the local features of the references that are not in the `store` are made and stored, then each query is
    compared with its candidates. The nearest candidates of a query without an alignment are compared with its negative
    (`isc.match.verification.negatives`). Queries without one still that may be drawings are compared again, with line
    drawings of their references (`isc.match.verification.drawings`), and also with those of their `further` pairs,
    which are no candidates and have the same id tables: the answer holds those of them that align. Features that cannot
    be stored are held in memory, up to `HELD` bytes; beyond that they are made again for every query that needs them.
    `on` names a device of torch that searches for the maps of many pairs at once; its evidence agrees to rounding.
    `bars` makes the progress bars. A picture that cannot be read, or a candidate that cannot be compared, becomes a
    `Problem` and does not end the run. Raises InputError if `workers` is below 1, the store is damaged, or a process
    ends by itself.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers={workers}; expected at least 1 process")
    compared = partial(
        compare_pairs, query_images=query_images, reference_images=reference_images, workers=workers, on=on, bars=bars
    )
    verified = compared(candidates, looks=WITH_NEGATIVES if on is None else AS_PHOTOS, store=store)
    rows = negatives.rows_of_negatives(candidates, verified.evidence)
    if on is not None and len(rows):  # elsewhere a process does it with the features that it has
        seen = compared(candidates.take(rows), looks=AS_NEGATIVES, store=store)
        found = np.flatnonzero(drawings.counts(seen.evidence))
        verified = _with_changed(verified, seen, rows[found], found, negatives.AS_THEY_ARE)
    rows = drawings.rows_of_drawings(candidates, verified.evidence, verified.drawings)
    if not len(rows):
        return verified
    far = candidates.take(np.zeros(0, np.int64)) if further is None else further
    more = np.flatnonzero(np.isin(far.query, candidates.query[rows]))
    kept = store.drawings if store is not None and store.writable else None
    drawn = compared(candidates.take(rows).joined(far.take(more)), looks=AS_DRAWINGS, store=kept)
    found = np.flatnonzero(drawings.counts(drawn.evidence))
    own, new = found[found < len(rows)], more[found[found >= len(rows)] - len(rows)]
    as_photos = compared(far.take(new), looks=AS_PHOTOS, store=store)
    at = np.r_[rows[own], len(candidates) + np.arange(len(new))]
    every = replace(verified, evidence=np.concatenate([verified.evidence, as_photos.evidence]), further=new)
    return _with_changed(every, drawn, at, found, drawings.AS_THEY_ARE)


def _with_changed(
    verified: Verified, changed: Verified, rows: IntArray, found: IntArray, stay: Sequence[int]
) -> Verified:
    """Return the results with those of changed pictures that count, the pairs `found`, in these rows."""
    evidence = drawings.with_changed(verified.evidence, changed.evidence[found], rows, stay=stay)
    aligned = {row: changed.alignments[one] for row, one in zip(rows.tolist(), found.tolist(), strict=True)}
    return replace(verified, evidence=evidence, alignments=dict(sorted({**verified.alignments, **aligned}.items())))


def compare_pairs(
    candidates: Matches, *, query_images: Mapping[str, Path], reference_images: Mapping[str, Path], looks: Looks,
    store: FeatureStore | None, workers: int | None, on: str | None, bars: Bars,
) -> Verified:  # fmt: skip
    """Compare every pair once, by the features that the `looks` give its pictures; the arguments of `verify`."""
    plan = _planned(candidates, query_images, reference_images)
    answer = _Answer(candidates, plan)
    if plan.groups:
        count = min(workers or cores(), max(len(plan.groups), len(plan.references)))
        missing = _missing(plan, store)
        with sharing(PairWork(store, looks), workers=count) as share:
            held = _describe(missing, share, store, bars=bars, what=looks.making)
            answer.add_unreadable(held)
            with bars(looks.comparing, "queries") as report:
                tasks = plan.comparisons(held)
                results = share(tasks) if on is None else compared_on(on, tasks, share, store)
                for done, compared in enumerate(results, 1):
                    answer.add(compared)
                    report(done, len(plan.groups))
    return answer.verified()


def write_not_compared(path: Path, problems: Iterable[Problem]) -> None:
    """Write `side,id,file,reason,pairs`, one row per problem; a pair's id is in quotes, because it holds a comma."""
    rows = ((one.side, one.id, one.file or "", one.reason, one.pairs) for one in problems)
    write_csv(path, NOT_COMPARED_COLUMNS, rows)


@dataclass(frozen=True)
class _Plan:
    """The queries and references with a file, by number, and the rows of the candidates by query."""

    groups: Mapping[int, IntArray]
    reference: IntArray  # [P], the candidates' references
    queries: Mapping[int, Path]
    references: Mapping[int, Path]
    query_problems: Mapping[int, str]
    reference_problems: Mapping[int, str]

    def comparisons(self, held: Mapping[int, LocalFeatures | str]) -> Iterator[Compare]:
        """Yield one task per query, without the references that are known to be unreadable."""
        for query, rows in self.groups.items():
            found = (
                (number, held.get(number)) for number in self.reference[rows].tolist() if number in self.references
            )
            references = [
                ReferenceFeatures(number, self.references[number], features)
                for number, features in found
                if not isinstance(features, str)
            ]
            yield Compare(query, self.queries[query], references)


def _planned(candidates: Matches, queries: Mapping[str, Path], references: Mapping[str, Path]) -> _Plan:
    query_files, query_problems = _files(np.unique(candidates.query), candidates.query_ids, queries)
    order = np.lexsort((-candidates.score, candidates.query))  # the nearest references of a query first
    numbers, first = np.unique(candidates.query[order], return_index=True)
    groups = dict(zip(numbers.tolist(), np.split(order, first[1:]), strict=True)) if len(order) else {}
    usable = {query: rows for query, rows in groups.items() if query in query_files}
    wanted = np.unique(candidates.reference)
    reference_files, reference_problems = _files(wanted, candidates.reference_ids, references)
    return _Plan(usable, candidates.reference, query_files, reference_files, query_problems, reference_problems)


def _files(
    numbers: IntArray, ids: npt.NDArray[np.object_], images: Mapping[str, Path]
) -> tuple[dict[int, Path], dict[int, str]]:
    """Return the file of each image by number, and the reason for each image without a file."""
    files: dict[int, Path] = {}
    problems: dict[int, str] = {}
    for number in numbers.tolist():
        try:
            files[number] = path_of(images, ids[number])
        except InputError as error:
            problems[number] = str(error)
    return files, problems


def _missing(plan: _Plan, store: FeatureStore | None) -> list[tuple[int, Path]]:
    """Return the references without stored features, those of most candidates first."""
    rows = [plan.reference[rows] for rows in plan.groups.values()]
    uses = Counter(number for number in np.concatenate(rows).tolist() if number in plan.references)
    wanted = [(number, plan.references[number]) for number, _ in uses.most_common()]
    if store is None:
        return wanted
    missing: list[tuple[int, Path]] = []
    for start in range(0, len(wanted), LOOKUP):
        keys = {number: photo_key(file) for number, file in wanted[start : start + LOOKUP]}
        there = store.present(key for key in keys.values() if key is not None)
        missing += [(number, plan.references[number]) for number, key in keys.items() if key not in there]
    store.close()  # processes are forked next
    return missing


def _describe(
    missing: Sequence[tuple[int, Path]],
    share: Share[Describe | Compare | Finish, Described | Compared],
    store: FeatureStore | None,
    *,
    bars: Bars,
    what: str,
) -> dict[int, LocalFeatures | str]:
    """Make and store the missing features; return those held in memory, and the errors of unreadable files.

    Features that cannot be stored are held up to the memory limit.
    """
    if not missing:
        return {}
    shelf, done = FeatureShelf(store), 0
    chunks = (Describe(missing[start : start + PHOTOS]) for start in range(0, len(missing), PHOTOS))
    todo = itertools.takewhile(lambda _: not shelf.full, chunks)
    with bars(what, "photos") as report, ThreadPoolExecutor(1) as disk:
        for result in share(todo):
            assert isinstance(result, Described)
            shelf.put(result, disk)
            done += len(result.photos)
            report(done, len(missing))
        shelf.flush(disk)
    if store is not None:
        store.close()
    return shelf.held


class _Answer:
    """The results of the comparisons so far."""

    def __init__(self, candidates: Matches, plan: _Plan) -> None:
        self._candidates, self._plan = candidates, plan
        self._evidence = np.full((len(candidates), len(EVIDENCE)), np.nan, np.float32)
        self._alignments: dict[int, Alignment] = {}
        self._queries, self._references = dict(plan.query_problems), dict(plan.reference_problems)
        self._pairs: dict[int, str] = {}
        self._drawings: set[int] = set()

    def add_unreadable(self, held: Mapping[int, LocalFeatures | str]) -> None:
        self._references |= {number: why for number, why in held.items() if isinstance(why, str)}

    def add(self, compared: Compared | Described) -> None:
        assert isinstance(compared, Compared)
        if compared.query_problem is not None:
            self._queries[compared.query] = compared.query_problem
        elif compared.drawing:
            self._drawings.add(compared.query)
        self._references |= compared.reference_problems
        for row in self._plan.groups[compared.query].tolist():
            number = int(self._candidates.reference[row])
            if number in compared.found:
                self._evidence[row], alignment = compared.found[number]
                if alignment is not None:
                    self._alignments[row] = alignment
            elif number in compared.pair_problems:
                self._pairs[row] = compared.pair_problems[number]

    def verified(self) -> Verified:
        problems = [*self._of_side("query", self._queries), *self._of_side("reference", self._references)]
        problems += [Problem("pair", self._candidates.pair(row), None, why, 1) for row, why in self._pairs.items()]
        problems.sort(key=lambda one: (one.side, one.id))
        alignments = dict(sorted(self._alignments.items()))
        return Verified(self._evidence, alignments, tuple(problems), frozenset(self._drawings))

    def _of_side(self, side: Literal["query", "reference"], reasons: Mapping[int, str]) -> Iterator[Problem]:
        of_queries = side == "query"
        numbers = self._candidates.query if of_queries else self._candidates.reference
        ids = self._candidates.query_ids if of_queries else self._candidates.reference_ids
        files = self._plan.queries if of_queries else self._plan.references
        pairs = np.bincount(numbers, minlength=len(ids))
        for number, reason in reasons.items():
            yield Problem(side, ids[number], files.get(number), reason, int(pairs[number]))
