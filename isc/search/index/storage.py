"""The files of an index: names, durable writes, the SQLite table of ids, and the file of vectors.

Row i of `vectors-G.f32`, with generation G, is the descriptor of the image whose `row` is i, as little-endian float32.
Rows without an image are dead. Rows from `State.rows` on were left by a killed writer; the next writer removes them.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from isc.data.sqlite_files import require_tables_alone
from isc.errors import InputError

Value = TypeVar("Value")

MANIFEST, DATABASE, LOCK, VECTORS = "manifest.json", "index.sqlite", "writer.lock", "vectors-*.f32"
FLOAT = np.dtype("<f4")
APPLICATION = 0x69736331  # marks the SQLite file as ours
LOOKUP = 10_000  # ids or rows in one SQL statement
TABLE = "CREATE TABLE {} (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE)"


@dataclass(frozen=True)
class State:
    """The committed state: `rows` of this generation's file of vectors, of which `live` belong to an image.

    Raises InputError for counts below 0, for more live rows than rows, and for values of other types.
    """

    generation: int
    rows: int
    live: int
    changed: str  # UTC

    def __post_init__(self) -> None:
        counts = (self.generation, self.rows, self.live)
        if not all(type(count) is int and count >= 0 for count in counts) or self.live > self.rows:
            raise InputError(f"generation {self.generation!r} with {self.live!r} live of {self.rows!r} rows")
        if not isinstance(self.changed, str):
            raise InputError(f"changed at {self.changed!r}")

    @property
    def dead(self) -> int:
        return self.rows - self.live


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def vectors_path(folder: Path, generation: int) -> Path:
    return folder / VECTORS.replace("*", str(generation))


def sync(path: Path) -> None:
    """Wait until this file, or the list of this folder's entries, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def named(folder: Path) -> Iterator[None]:
    """Raise errors of the disk and of SQLite as InputError that names the index."""
    try:
        yield
    except sqlite3.Error as error:
        raise InputError(
            f"{folder / DATABASE}: cannot be used ({error}); free space, or restore it from a copy"
        ) from error
    except UnicodeDecodeError as error:  # a damaged text, which SQLite repeats in its message
        raise InputError(f"{folder / DATABASE}: damaged ({error}); restore it from a copy") from error
    except FileNotFoundError as error:
        raise InputError(f"{error.filename or folder}: no such file; restore it from a copy") from error
    except OSError as error:
        where = error.filename or folder
        raise InputError(f"{where}: cannot be read or written ({error.strerror or error})") from error


def create_database(folder: Path) -> None:
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        with transaction(database):
            database.execute(TABLE.format("images"))
            database.execute("CREATE TABLE state (generation INTEGER, rows INTEGER, live INTEGER, changed TEXT)")
            database.execute("INSERT INTO state VALUES (?, ?, ?, ?)", astuple(State(0, 0, 0, now())))
    sync(folder / DATABASE)


@contextmanager
def connect(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the table of ids; each commit waits for the disk. Raises InputError if the file is missing or damaged."""
    path = folder / DATABASE
    if not path.is_file():
        raise InputError(f"{path}: no such file; restore it from a copy")
    with named(folder):
        database = _open(path)
    with closing(database):
        yield database


def _open(path: Path) -> sqlite3.Connection:
    """Open the database for reading and writing, or as immutable if only that is possible.

    Readers also write to SQLite's -shm file. In a folder that this user may not write to, and without the -wal file of
    a writer, the database is opened as one that does not change.
    """
    try:
        return _checked(path, "mode=rw")
    except sqlite3.OperationalError:
        if os.access(path.parent, os.W_OK) or path.with_name(f"{path.name}-wal").exists():
            raise
        return _checked(path, "mode=ro&immutable=1")


def _checked(path: Path, options: str) -> sqlite3.Connection:
    database = sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True, isolation_level=None, timeout=60)
    try:
        (application,) = database.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION:
            raise InputError(f"{path}: an SQLite file of something else; restore it from a copy")
        require_tables_alone(database, ("images", "state"))
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA cache_size = -65536")  # KiB
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Run all statements in the block, or none."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def read_state(folder: Path, database: sqlite3.Connection) -> State:
    found = database.execute("SELECT generation, rows, live, changed FROM state LIMIT 2").fetchall()
    try:
        (values,) = found
        return State(*values)
    except (ValueError, InputError) as error:
        what = f"its state is {found}, not one row" if len(found) != 1 else str(error)
        raise InputError(f"{folder / DATABASE}: damaged ({what}); restore it from a copy") from error


def write_state(database: sqlite3.Connection, state: State) -> None:
    """Write the state; call it within a transaction."""
    database.execute("UPDATE state SET generation = ?, rows = ?, live = ?, changed = ?", astuple(state))


def present(database: sqlite3.Connection, ids: Iterable[str]) -> set[str]:
    """Return the ids that are in the index."""
    query = "SELECT id FROM images WHERE id IN (SELECT value FROM json_each(?))"
    return {name for part in _parts(ids) for (name,) in database.execute(query, (json.dumps(part),))}


def rows_of(database: sqlite3.Connection, ids: Iterable[str]) -> dict[str, int]:
    """Return {id: row} of those that are in the index."""
    query = "SELECT id, row FROM images WHERE id IN (SELECT value FROM json_each(?))"
    return {name: row for part in _parts(ids) for name, row in database.execute(query, (json.dumps(part),))}


def names_of(database: sqlite3.Connection, rows: Sequence[int]) -> dict[int, str]:
    """Return {row: id} of the live rows among these."""
    query = "SELECT row, id FROM images WHERE row IN (SELECT value FROM json_each(?))"
    found = {row: name for part in _parts(rows) for row, name in database.execute(query, (json.dumps(part),))}
    require_texts(found.values())
    return found


def require_texts(names: Iterable[object]) -> None:
    """Raise sqlite3.DataError for an id that is not text, which SQLite would let be."""
    if wrong := next(([name] for name in names if not isinstance(name, str)), None):
        raise sqlite3.DataError(f"the id {wrong[0]!r} is of type {type(wrong[0]).__name__}, not text")


def live_rows(database: sqlite3.Connection, state: State) -> npt.NDArray[np.int64]:
    """Return the rows that belong to an image, rising [live]. Raises sqlite3.DataError if they do not fit the state.

    A damaged table may give them in another order, or twice.
    """
    rows = [row for (row,) in database.execute("SELECT row FROM images ORDER BY row")]
    if wrong := [row for row in rows if type(row) is not int]:
        raise sqlite3.DataError(f"the row {wrong[0]!r} is no whole number")
    found = np.array(rows, np.int64)
    if len(rows) != state.live or (rows and not 0 <= found.min() <= found.max() < state.rows):
        held = f"{len(rows):,} images in rows {found.min()}…{found.max()}" if rows else "no images"
        raise sqlite3.DataError(f"{held}; expected {state.live:,} in rows 0…{state.rows - 1}")
    if (np.diff(found) <= 0).any():
        raise sqlite3.DataError("its rows are not in order")
    return found


def put_names(database: sqlite3.Connection, first: int, ids: Sequence[str]) -> None:
    """Assign the rows from `first` on to these ids, which lose their older rows.

    As JSON, this takes a quarter of executemany's time.
    """
    database.execute("INSERT OR REPLACE INTO images SELECT key + ?, value FROM json_each(?)", (first, json.dumps(ids)))


def _parts(values: Iterable[Value]) -> Iterator[list[Value]]:
    remaining = iter(values)
    while part := list(islice(remaining, LOOKUP)):
        yield part


def map_vectors(folder: Path, state: State, dim: int) -> npt.NDArray[np.float32]:
    """Map the committed rows [rows, dim]; they are read from disk on access.

    Raises FileNotFoundError if the generation is gone, InputError if the file is shorter than its committed rows.
    """
    path = vectors_path(folder, state.generation)
    with path.open("rb") as file:
        size, expected = os.fstat(file.fileno()).st_size, state.rows * dim * FLOAT.itemsize
        if size < expected:
            raise InputError(
                f"{path}: {size:,} bytes; expected at least {expected:,} for {state.rows:,} rows of {dim} numbers: it "
                "was cut short; restore it from a copy"
            )
        if not state.rows:
            return np.zeros((0, dim), FLOAT)
        return np.asarray(np.memmap(file, FLOAT, "r", shape=(state.rows, dim)))
