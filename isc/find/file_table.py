"""The files of an index of photos: their states when they were described, in an SQLite table beside the index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from isc.data.sqlite_files import require_tables_alone
from isc.errors import InputError
from isc.find.photos import FileState

FILES = "photos.sqlite"
TABLE = (
    "CREATE TABLE IF NOT EXISTS photos (id TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, "
    "sha256 TEXT NOT NULL, reason TEXT)"
)


def read_states(folder: Path) -> dict[str, FileState]:
    """Return the state of each described photo, by id."""
    rows = _selected(folder, "SELECT id, size, mtime_ns, sha256 FROM photos WHERE reason IS NULL ORDER BY id")
    return {name: FileState(*state) for name, *state in rows}


def read_unreadable(folder: Path) -> dict[str, tuple[FileState, str]]:
    """Return the state of each photo that could not be read, and the reason, by id."""
    rows = _selected(folder, "SELECT id, size, mtime_ns, sha256, reason FROM photos WHERE reason IS NOT NULL")
    return {name: (FileState(size, time, digest), why) for name, size, time, digest, why in rows}


def write_states(folder: Path, states: Mapping[str, FileState], *, reasons: Mapping[str, str] | None = None) -> None:
    """Store the states of photos; those with a reason could not be read."""
    told = reasons or {}
    rows = ((name, s.size, s.mtime_ns, s.sha256, told.get(name)) for name, s in states.items())
    with _database(folder) as database:
        database.executemany("INSERT OR REPLACE INTO photos VALUES (?, ?, ?, ?, ?)", rows)


def forget(folder: Path, photos: Iterable[str]) -> None:
    """Remove the states of these photos."""
    with _database(folder) as database:
        database.executemany("DELETE FROM photos WHERE id = ?", ((name,) for name in photos))


def _selected(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query; none if no photo was ever added. Nothing is written: the folder may be read-only."""
    path = folder / FILES
    if not path.is_file():
        return []
    with (
        _named(path),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=60)) as database,
    ):
        require_tables_alone(database, ("photos",))
        rows = database.execute(query).fetchall()
        for row in rows:
            _require_types(row)
        return rows


def _require_types(row: tuple[Any, ...]) -> None:
    """Raise sqlite3.DataError unless a row is (id, size, time, digest) or (id, size, time, digest, reason)."""
    kinds = (str, int, int, str, str)
    if not all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=False)):
        raise sqlite3.DataError(f"the photo {row[0]!r} has the state {row[1:]!r}; expected numbers and texts")


@contextmanager
def _database(folder: Path) -> Iterator[sqlite3.Connection]:
    path = folder / FILES
    with _named(path), closing(sqlite3.connect(path, timeout=60)) as database, database:
        require_tables_alone(database, ("photos",))
        database.execute(TABLE)
        yield database


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise InputError(
            f"{path}: cannot be used ({error}); free space, or remove the index and make it again"
        ) from error
