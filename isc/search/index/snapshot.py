"""One consistent state of an index to read, independent of concurrent writers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.descriptors import Descriptors, non_finite_row
from isc.data.ids import Ids, IntArray, id_problem
from isc.data.matches import Matches
from isc.errors import InputError
from isc.runtime.progress import Report
from isc.search.index.manifest import Manifest, require_one_row_each
from isc.search.index.storage import (
    DATABASE,
    State,
    connect,
    live_rows,
    map_vectors,
    named,
    names_of,
    read_state,
    require_texts,
    rows_of,
    vectors_path,
)

MARGIN = 8  # neighbours requested beyond k, for ties
CELLS = 1 << 22  # (query, neighbour) pairs held at once
ATTEMPTS = 100  # to open a generation before a writer removes it


@dataclass(frozen=True)
class Snapshot:
    """One state of an index.

    `vectors` [rows, D] maps the file with its dead rows, and is valid while the snapshot is open.
    """

    path: Path
    manifest: Manifest
    state: State
    vectors: npt.NDArray[np.float32]
    database: sqlite3.Connection

    def __len__(self) -> int:
        return self.state.live

    def descriptors(self) -> Descriptors:
        """Return the descriptors of all images, sorted by id. Raises InputError if there are none."""
        if not len(self):
            raise InputError(f"{self.path}: holds no images; expected at least one")
        with named(self.path):
            live = live_rows(self.database, self.state)
            names, rows = zip(*self.database.execute("SELECT id, row FROM images ORDER BY id"), strict=True)
            require_texts(names)
            if sorted(rows) != live.tolist():
                raise sqlite3.DataError("its ids are of other rows than its images")
        return Descriptors(np.array(names, dtype=object), self.vectors[np.array(rows)])

    def knn(
        self, queries: Descriptors, *, k: int, provenance: Mapping[str, str], progress: Report | None = None
    ) -> Matches:
        """Return the exact `k` nearest images of each query (all images if there are fewer), with the score −‖q − r‖².

        At equal distances the id that sorts first comes first, so that the answer depends on the content of the index,
        not on its history. `reference_ids` holds only the images found, sorted. Raises InputError for k < 1, and for
        queries with views or of another model.
        """
        self.manifest.check("queries", queries.dim, provenance)
        require_one_row_each(queries)
        if k < 1:
            raise InputError(f"k={k}; expected at least 1")
        found = self._search(queries.vectors, min(k, len(self)), progress)
        query, row, distance = (np.concatenate(column) for column in zip(*found, strict=True))
        rows, at = np.unique(row, return_inverse=True)
        names, rank = _ranked(self.names(rows), rows)
        if (rank < 0).any():
            raise InputError(
                f"{self.path / DATABASE}: damaged (a row that was found has no id); restore it from a copy"
            )
        score = (0.0 - distance).astype(np.float32)
        return Matches(queries.ids, names, query, rank[at], score)

    def rows(self, ids: Iterable[str]) -> IntArray:
        """Return the row of each image in `vectors`. Raises InputError for an id that is not there."""
        wanted = list(ids)
        with named(self.path):
            found = rows_of(self.database, wanted)
        if missing := [name for name in wanted if name not in found]:
            raise InputError(f"{self.path}: holds no image {missing[0]!r}")
        return np.array([found[name] for name in wanted], np.int64)

    def names(self, rows: IntArray) -> dict[int, str]:
        """Return {row: id} of the live rows among these."""
        with named(self.path):
            return names_of(self.database, rows.tolist())

    def _search(
        self, queries: npt.NDArray[np.float32], wanted: int, progress: Report | None
    ) -> list[tuple[IntArray, IntArray, npt.NDArray[np.float64]]]:
        """Return (query, row, distance) of the `wanted` nearest live rows of every query.

        A list of neighbours is settled if enough of its live rows are nearer than its last row: rows outside the list
        can then neither precede nor tie. The other queries are searched again with longer lists. Raises InputError if
        the table of ids has fewer live rows than its state says, or a vector has values that are not finite.
        """
        from isc.search.exact import nearest

        found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
        ask = -(-(wanted + MARGIN) * self.state.rows // max(1, len(self)))
        unfinished = np.arange(len(queries) if wanted else 0)
        while len(unfinished):
            ask = min(ask, self.state.rows)
            again = []
            step = max(1, CELLS // ask)
            for start in range(0, len(unfinished), step):
                block = unfinished[start : start + step]
                report = _part_of(progress, len(queries) - len(unfinished) + start, len(block), len(queries))
                try:
                    row, distance = nearest(queries[block], self.vectors, k=ask, progress=report)
                except InputError as error:
                    self._require_finite()
                    raise InputError(f"{self.path}: {error}") from error
                rows, at = np.unique(row, return_inverse=True)
                rank = _ranked(self.names(rows), rows)[1][at].reshape(row.shape)
                beyond = np.inf if ask == self.state.rows else distance[:, -1:]
                settled = ((rank >= 0) & (distance < beyond)).sum(axis=1) >= wanted
                distance = np.where(rank >= 0, distance, np.inf)
                best = np.lexsort((rank, distance))[settled, :wanted]
                row = np.take_along_axis(row[settled], best, axis=1)
                distance = np.take_along_axis(distance[settled], best, axis=1)
                found.append((np.repeat(block[settled], wanted), row.ravel(), distance.ravel()))
                again.append(block[~settled])
            unfinished = np.concatenate(again)
            if len(unfinished) and ask == self.state.rows:
                raise InputError(
                    f"{self.path / DATABASE}: damaged (fewer than {wanted:,} of its {len(self):,} images have a row "
                    f"among {self.state.rows:,}); restore it from a copy"
                )
            ask *= 4
        return found

    def verify(self) -> None:
        """Raise InputError for the first error in the index; everything is read once."""
        path, state = self.path / DATABASE, self.state
        with named(self.path):
            (problem,) = self.database.execute("PRAGMA integrity_check(1)").fetchone()
            count, first, last = self.database.execute("SELECT count(*), min(row), max(row) FROM images").fetchone()
            names = [name for (name,) in self.database.execute("SELECT id FROM images")]
        if problem != "ok":
            raise InputError(f"{path}: {' '.join(problem.split())}; restore it from a copy")
        numbers = type(first) is type(last) is int
        if count != state.live or (count and not (numbers and 0 <= first <= last < state.rows)):
            held = f"{count:,} images in rows {first}…{last}"
            raise InputError(f"{path}: {held}; expected {state.live:,} in rows 0…{state.rows - 1}: restore a copy")
        for name in names:
            if problem := id_problem(name):
                raise InputError(f"{path}: id {name!r} {problem}")
        self._require_finite()

    def _require_finite(self) -> None:
        """Raise InputError for the first row with a value that is not finite."""
        if (row := non_finite_row(self.vectors)) is not None:
            owner = self.names(np.array([row])).get(row)
            what = "a dead row" if owner is None else f"id {owner!r}"
            file = vectors_path(self.path, self.state.generation)
            raise InputError(f"{file}: row {row}: {what} has NaN or infinite values; restore it from a copy")


def _ranked(names: Mapping[int, str], rows: IntArray) -> tuple[Ids, IntArray]:
    """Return the names, sorted, and for each of `rows` the position of its name among them, −1 without a name."""
    table = np.array(sorted(names.values()), dtype=object)
    place = {name: i for i, name in enumerate(table)}
    return table, np.array([place[names[row]] if row in names else -1 for row in rows.tolist()], np.int64)


def _part_of(progress: Report | None, before: int, part: int, total: int) -> Report | None:
    """Return a report for the search of `part` queries, which converts any unit of progress to queries of the whole."""
    return progress and (lambda done, of: progress(before + part * done // of, total))


@contextmanager
def snapshot(path: Path, manifest: Manifest) -> Iterator[Snapshot]:
    with connect(path) as database:
        with named(path):
            state, vectors = _begin(path, database, manifest.dim)
        yield Snapshot(path, manifest, state, vectors, database)


def _begin(path: Path, database: sqlite3.Connection, dim: int) -> tuple[State, npt.NDArray[np.float32]]:
    """Begin a read transaction and map its vectors; repeat both if a compaction removed the vectors in between.

    Raises InputError if the vectors are missing for another reason.
    """
    generation = -1
    for _ in range(ATTEMPTS):
        database.execute("BEGIN")
        state = read_state(path, database)
        try:
            return state, map_vectors(path, state, dim)
        except FileNotFoundError:
            if state.generation == generation:
                break
            generation = state.generation
            database.execute("ROLLBACK")
    raise InputError(f"{vectors_path(path, generation)}: no such file; restore it from a copy")
