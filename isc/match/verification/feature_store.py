"""A store on disk for the local features of photos, kept from one run to the next.

`FOLDER/features.sqlite`, and `FOLDER/drawings/features.sqlite` for line drawings of photos, hold one row per photo: its
absolute path, the size and time of the file, the version of the algorithm, and the features as bytes, exactly as they
are in memory. A photo with 500 features takes about 84 KB: 72,000 bytes of points and descriptors, 12,288 of a
thumbnail of 128 × 96, 400 of description. So 100,000 photos take 8.4 GB.

A row is used while the file has the same size and time, and the algorithm the same version; else it is replaced. A
killed process leaves no partial row, and several processes may write: every batch is one transaction. The journal is
SQLite's rollback journal, not its write-ahead log: it writes large values once, and works in a network folder.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from isc.errors import InputError
from isc.match.verification.features import VERSION, LocalFeatures

log = logging.getLogger(__name__)
Value = TypeVar("Value")

DATABASE = "features.sqlite"
APPLICATION = 0x69736366  # marks the SQLite file as ours
LAYOUT = 1  # of the table and the bytes of a value; raise it when either changes
LOOKUP = 500  # photos in one statement, for SQLite's limit on variables
SPARE = 1 << 30  # bytes that are left free on the disk for others
WAIT = 60.0  # seconds for another process to finish its transaction
ALIGNMENT = 16  # bytes; arrays begin at multiples of it
TABLE = """CREATE TABLE IF NOT EXISTS features (path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL,
           mtime_ns INTEGER NOT NULL, version INTEGER NOT NULL, value BLOB NOT NULL)"""
PUT = "INSERT OR REPLACE INTO features (path, size, mtime_ns, version, value) VALUES (?, ?, ?, ?, ?)"
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@dataclass(frozen=True)
class PhotoKey:
    """The state of a file: its absolute path, size in bytes and modification time in nanoseconds."""

    path: Path
    size: int
    mtime_ns: int


def photo_key(path: Path) -> PhotoKey | None:
    """Return the key of a file in its present state, None if there is no file. Call it before the file is read."""
    try:
        state = path.stat()
    except OSError:
        return None
    return PhotoKey(path.absolute(), state.st_size, state.st_mtime_ns)


def num_bytes(features: LocalFeatures) -> int:
    """Return the bytes of memory that the features take; they take about as many on disk."""
    return sum(value.nbytes for _, value in _arrays(features))


class FeatureStore:
    """The features of photos in one folder, which is created if it is missing.

    If the disk cannot be written or is nearly full, or the database stays locked, one warning is logged; nothing is
    stored from then on, and reading goes on as long as it works. Raises InputError if the folder's path is a file, or
    the database is damaged or not ours. Only one thread at a time may use an object; a forked process opens the
    database again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._database: sqlite3.Connection | None = None
        self._owner = os.getpid()
        self._usable = self._writable = True
        if folder.exists() and not folder.is_dir():
            raise InputError(f"features={folder}: is a file; expected a folder to keep features in, or none yet")

    @property
    def path(self) -> Path:
        """The path of the database."""
        return self.folder / DATABASE

    @property
    def writable(self) -> bool:
        """Return whether no attempt to store has failed so far."""
        return self._usable and self._writable

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_database": None}

    def check(self) -> None:
        """Open the database now, so that its errors are reported before long work begins."""
        self._attempt(partial(_pragma, name="application_id"))

    def close(self) -> None:
        """Close the database, which is opened again when needed. Call this before processes are forked."""
        if self._database is not None and self._owner == os.getpid():
            self._database.close()
        self._database = None

    def get_many(self, photos: Iterable[PhotoKey]) -> dict[PhotoKey, LocalFeatures]:
        """Return the stored features by photo, as read-only arrays; photos without stored features are left out."""
        found = {}
        for key, value in self._rows(photos, "value"):
            features = unpack(value)
            if features is None:
                log.warning("%s: the features of %s are damaged; they are removed and made again", self.path, key.path)
                self._attempt(partial(_delete, path=os.fsencode(key.path)))
            else:
                found[key] = features
        return found

    def present(self, photos: Iterable[PhotoKey]) -> set[PhotoKey]:
        """Return those of the photos that are stored, without reading their features."""
        return {key for key, _ in self._rows(photos, "NULL")}

    def put_many(self, features: Mapping[PhotoKey, LocalFeatures]) -> bool:
        """Store all features or none, and replace those of the same files; return whether this was done."""
        if not features or not self.writable:
            return not features
        rows = [
            (os.fsencode(key.path), key.size, key.mtime_ns, VERSION, pack(value)) for key, value in features.items()
        ]
        return bool(self._attempt(partial(_insert, rows=rows, folder=self.folder)))

    @property
    def drawings(self) -> FeatureStore:
        """The store, inside this one's folder, of the features of line drawings of the photos."""
        return FeatureStore(self.folder / "drawings")

    def forget(self, paths: Sequence[Path]) -> None:
        """Remove the features of these files, which may be gone already, and of their drawings."""
        if self.path.is_file():
            for path in paths:
                self._attempt(partial(_delete, path=os.fsencode(path.absolute())))
        if self.drawings.path.is_file():
            drawings = self.drawings
            drawings.forget(paths)
            drawings.close()

    def _rows(self, photos: Iterable[PhotoKey], column: str) -> list[tuple[PhotoKey, Any]]:
        """Return (photo, value of `column`) for each photo that is stored in its present state and version."""
        rows: list[tuple[PhotoKey, Any]] = []
        remaining = iter(dict.fromkeys(photos))
        while self._usable and (some := {os.fsencode(key.path): key for key in islice(remaining, LOOKUP)}):
            found = self._attempt(partial(_select, paths=list(some), column=column))
            for path, size, mtime_ns, value in found or ():
                key = some[path]
                if (key.size, key.mtime_ns) == (size, mtime_ns):
                    rows.append((key, value))
        return rows

    def _attempt(self, action: Callable[[sqlite3.Connection], Value]) -> Value | None:
        """Return the result of an action on the database; None, after a warning, if the disk does not allow it.

        Raises InputError if the database is damaged.
        """
        try:
            return action(self._connected())
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                raise InputError(
                    f"{self.path}: is damaged ({error}); remove it, and its features are made again"
                ) from error
            self._warn(error)
        except OSError as error:
            self._warn(error)
        return None

    def _warn(self, error: Exception) -> None:
        if self.writable:
            told = (error.strerror if isinstance(error, OSError) else None) or error
            log.warning("%s: features cannot be kept there (%s); the run goes on without storing more", self.path, told)
        self._usable = self._usable and self._database is not None
        self._writable = False

    def _connected(self) -> sqlite3.Connection:
        if self._owner != os.getpid():
            self._database, self._owner = None, os.getpid()
        if self._database is None:
            if self._writable:
                self.folder.mkdir(parents=True, exist_ok=True)
            self._database = _open(self.path)
        return self._database


def _open(path: Path) -> sqlite3.Connection:
    """Connect to the database, which is created if missing. Without write permission it is only read.

    Raises InputError for a file of something else.
    """
    database = sqlite3.connect(path, isolation_level=None, timeout=WAIT, check_same_thread=False)
    try:
        if _pragma(database, name="application_id") == 0 and not _pragma(database, name="schema_version"):
            _create(database)
        layout = _pragma(database, name="application_id"), _pragma(database, name="user_version")
        if layout != (APPLICATION, LAYOUT):
            what = "an SQLite file of something else, or of another version of isc"
            raise InputError(f"{path}: {what}; give another folder, or remove it")
    except BaseException:
        database.close()
        raise
    return database


def _create(database: sqlite3.Connection) -> None:
    """Create the table and the marks of the file; if two processes do it at once, the second finds them."""
    database.execute("PRAGMA page_size = 16384")  # bytes: few pages for each large value
    database.execute("BEGIN IMMEDIATE")
    database.execute(TABLE)
    database.execute(f"PRAGMA application_id = {APPLICATION}")
    database.execute(f"PRAGMA user_version = {LAYOUT}")
    database.execute("COMMIT")


def _pragma(database: sqlite3.Connection, *, name: str) -> int:
    return int(database.execute(f"PRAGMA {name}").fetchone()[0])


def _insert(database: sqlite3.Connection, *, rows: Sequence[tuple[bytes, int, int, int, bytes]], folder: Path) -> bool:
    free = shutil.disk_usage(folder).free
    if free < SPARE:
        raise OSError(errno.ENOSPC, f"the disk has {free / 1e9:.2f} GB free, of which {SPARE / 1e9:.2f} GB are spared")
    database.execute("BEGIN IMMEDIATE")
    try:
        database.executemany(PUT, rows)
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    return True


def _delete(database: sqlite3.Connection, *, path: bytes) -> None:
    database.execute("DELETE FROM features WHERE path = ?", (path,))


def _select(database: sqlite3.Connection, *, paths: Sequence[bytes], column: str) -> list[tuple[bytes, int, int, Any]]:
    marks = ",".join("?" * len(paths))
    query = f"SELECT path, size, mtime_ns, {column} FROM features WHERE version = ? AND path IN ({marks})"
    return database.execute(query, (VERSION, *paths)).fetchall()


def pack(features: LocalFeatures) -> bytes:
    """Pack features into bytes: a checksum, the length of the description, the description as JSON, the arrays.

    `unpack` returns exactly the same values.
    """
    arrays = [(name, np.ascontiguousarray(value)) for name, value in _arrays(features)]
    plain = {one.name: getattr(features, one.name) for one in fields(features)}
    description = {
        "arrays": [[name, value.dtype.str, list(value.shape)] for name, value in arrays],
        "plain": {name: value for name, value in plain.items() if not isinstance(value, np.ndarray)},
    }
    text = json.dumps(description).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    parts = [len(text).to_bytes(4, "little"), text]
    for _, value in arrays:
        parts += [value.tobytes(), bytes(-value.nbytes % ALIGNMENT)]
    body = b"".join(parts)
    return zlib.crc32(body).to_bytes(4, "little") + body


def unpack(value: bytes) -> LocalFeatures | None:
    """Return the packed features, as views of the bytes in `value`; None if `pack` did not make them."""
    if len(value) < 8 or zlib.crc32(memoryview(value)[4:]) != int.from_bytes(value[:4], "little"):
        return None
    start = 8 + int.from_bytes(value[4:8], "little")
    description = json.loads(value[8:start])
    found: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one for name, one in description["plain"].items()
    }
    for name, kind, shape in description["arrays"]:
        array = np.frombuffer(value, np.dtype(kind), int(np.prod(shape)), start).reshape(shape)
        found[name] = array
        start += array.nbytes + -array.nbytes % ALIGNMENT
    return LocalFeatures(**found)


def _arrays(features: LocalFeatures) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """Return the fields that are arrays, with their names."""
    values = ((one.name, getattr(features, one.name)) for one in fields(features))
    return [(name, value) for name, value in values if isinstance(value, np.ndarray)]
