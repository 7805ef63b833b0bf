"""Changes to an index: each is complete and on disk when its function returns, or has not happened."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.descriptors import Descriptors
from isc.errors import InputError
from isc.runtime.locks import sole_writer
from isc.runtime.progress import Report
from isc.search.index.manifest import Manifest, require_one_row_each
from isc.search.index.storage import (
    FLOAT,
    LOCK,
    TABLE,
    VECTORS,
    State,
    connect,
    live_rows,
    map_vectors,
    named,
    now,
    present,
    put_names,
    read_state,
    sync,
    transaction,
    vectors_path,
    write_state,
)

BATCH = 50_000  # rows that become durable together: 50 MB at 256 numbers
WORTH_COMPACTING = 1024  # rows below which dead ones cost nothing


@dataclass(frozen=True)
class Added:
    """The numbers of images that an `add` added as new, replaced and skipped."""

    new: int
    replaced: int
    skipped: int


@dataclass(frozen=True)
class Writer:
    """The only process that may change the index; see `Index.writer`."""

    path: Path
    manifest: Manifest
    database: sqlite3.Connection

    @property
    def state(self) -> State:
        with named(self.path):
            return read_state(self.path, self.database)

    def present(self, ids: Iterable[str]) -> set[str]:
        """Return the ids that are in the index."""
        with named(self.path):
            return present(self.database, ids) if self.state.live else set()

    def add(
        self,
        descriptors: Descriptors,
        *,
        provenance: Mapping[str, str],
        replace: bool = False,
        skip_existing: bool = False,
        progress: Report | None = None,
    ) -> Added:
        """Add images in batches of BATCH; each batch is atomic, and `progress` is called when it is on disk.

        `replace` and `skip_existing` decide about ids that are already in the index. Raises InputError, and adds
        nothing, if there are such ids without either option, or for descriptors with views, of another model or of
        another dimension.
        """
        if replace and skip_existing:
            raise InputError("replace and skip_existing exclude one another; expected one of them")
        self.manifest.check("descriptors", descriptors.dim, provenance)
        require_one_row_each(descriptors)
        known = self.present(descriptors.ids)
        if known and not (replace or skip_existing):
            raise InputError(f"{self.path}: {already_there(descriptors.ids, known)}")
        for start in range(0, len(descriptors), BATCH):
            ids, vectors = descriptors.ids[start : start + BATCH].tolist(), descriptors.vectors[start : start + BATCH]
            replaced = sum(name in known for name in ids) if known else 0
            if replaced and skip_existing:
                rows = [row for row, name in enumerate(ids) if name not in known]
                ids, vectors, replaced = [ids[row] for row in rows], vectors[rows], 0
            if ids:
                self._append(ids, vectors, replaced=replaced)
            if progress:
                progress(min(start + BATCH, len(descriptors)), len(descriptors))
        self._compact_where_worthwhile()
        there = len(known)
        return Added(len(descriptors) - there, there * replace, there * skip_existing)

    def remove(self, ids: Iterable[str], *, missing_ok: bool = False) -> int:
        """Remove these images, all or none, and return their number.

        Raises InputError for an unknown id unless `missing_ok`.
        """
        names = list(dict.fromkeys(ids))
        known = self.present(names)
        if len(known) < len(names) and not missing_ok:
            first = next(name for name in names if name not in known)
            more = f" and {len(names) - len(known) - 1:,} more" if len(names) - len(known) > 1 else ""
            raise InputError(f"{self.path}: id {first!r}{more} not in the index; nothing was removed")
        with named(self.path), transaction(self.database):
            state = read_state(self.path, self.database)
            self.database.executemany("DELETE FROM images WHERE id = ?", ((name,) for name in known))
            write_state(self.database, State(state.generation, state.rows, state.live - len(known), now()))
        self._compact_where_worthwhile()
        return len(known)

    def compact(self, *, progress: Report | None = None) -> int:
        """Copy the live rows to a file of the next generation, and return the number of dead rows removed.

        Readers keep the file they have open. The next writer removes the file that a killed compaction leaves.
        """
        state = self.state
        if not state.dead:
            return 0
        after = State(state.generation + 1, state.live, state.live, now())
        with named(self.path):
            try:
                self._copy_live_rows(state, vectors_path(self.path, after.generation), progress)
                with transaction(self.database):
                    self.database.execute(TABLE.format("fresh"))
                    self.database.execute(
                        "INSERT INTO fresh SELECT row_number() OVER (ORDER BY row) - 1, id FROM images ORDER BY row"
                    )
                    self.database.execute("DROP TABLE images")
                    self.database.execute("ALTER TABLE fresh RENAME TO images")
                    write_state(self.database, after)
            finally:
                self.tidy()
        return state.dead

    def tidy(self) -> None:
        """Remove the remains of killed writers: files of other generations, and rows beyond the committed ones."""
        with named(self.path):
            state = self.state
            current = vectors_path(self.path, state.generation)
            for path in self.path.glob(VECTORS):
                if path != current:
                    path.unlink()
            committed = state.rows * self.manifest.dim * FLOAT.itemsize
            if current.stat().st_size > committed:
                os.truncate(current, committed)

    def _append(self, ids: list[str], vectors: npt.NDArray[np.float32], *, replaced: int) -> None:
        """Append the vectors, then the ids: vectors are on disk before an id refers to them."""
        with named(self.path):
            state = self.state
            first = state.rows
            with vectors_path(self.path, state.generation).open("r+b", buffering=0) as file:
                file.seek(first * self.manifest.dim * FLOAT.itemsize)
                _write_all(file.fileno(), vectors)
            with transaction(self.database):
                put_names(self.database, first, ids)
                live = state.live + len(ids) - replaced
                write_state(self.database, State(state.generation, first + len(ids), live, now()))

    def _copy_live_rows(self, state: State, path: Path, progress: Report | None) -> None:
        source = map_vectors(self.path, state, self.manifest.dim)
        rows = live_rows(self.database, state)
        with path.open("wb", buffering=0) as file:
            for start in range(0, len(rows), BATCH):
                _write_all(file.fileno(), source[rows[start : start + BATCH]], wait=start + BATCH >= len(rows))
                if progress:
                    progress(min(start + BATCH, len(rows)), len(rows))
        sync(self.path)

    def _compact_where_worthwhile(self) -> None:
        state = self.state
        if state.dead > state.live and state.rows >= WORTH_COMPACTING:
            self.compact()


def already_there(ids: Iterable[str], known: set[str]) -> str:
    """Return the message about those of `ids` that are already in the index."""
    first = next(name for name in ids if name in known)
    more = f" and {len(known) - 1:,} more of those given are" if len(known) > 1 else " is"
    remedy = "--replace puts the new descriptors in their place, --skip-existing leaves them"
    return f"id {first!r}{more} in the index already; expected new ids ({remedy})"


def _write_all(handle: int, vectors: npt.NDArray[np.float32], *, wait: bool = True) -> None:
    """Write the rows at the current position of the file; with `wait`, return when they are on disk."""
    data = np.ascontiguousarray(vectors, FLOAT).data.cast("B")
    while data:
        data = data[os.write(handle, data) :]
    if wait:
        os.fsync(handle)


@contextmanager
def writing(path: Path, manifest: Manifest) -> Iterator[Writer]:
    with sole_writer(path / LOCK), connect(path) as database:
        writer = Writer(path, manifest, database)
        with named(path):
            map_vectors(path, writer.state, manifest.dim)  # rejects a damaged index before anything is written
        writer.tidy()
        yield writer
