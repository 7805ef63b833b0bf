"""Decoded training photos in one file: read, hashed and found in less than a tenth of the time that decoding takes.

A row holds a photo as the training edits it, shrunk to twice the training size: the hash of the file's bytes and the
longest side are its key, so a changed photo, or another size, is another row. A photo of 320 × 240 pixels takes 230 KB.
The file is SQLite with a rollback journal that is not synchronised: it may be lost, and is made again. Any number of
processes use it; each opens it for itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from isc.errors import InputError
from isc.photos.decode import Pixels, read_image
from isc.photos.listing import Listing
from isc.photos.resizing import fit_within

log = logging.getLogger(__name__)

CACHE_FILE = "photos.cache"  # in the run folder; may be deleted
SPARE = 1 << 30  # bytes that are left free on the disk for others
WAIT = 10.0  # seconds for another process to finish its transaction
TABLE = """CREATE TABLE IF NOT EXISTS photos (hash BLOB NOT NULL, longest INTEGER NOT NULL, height INTEGER NOT NULL,
           width INTEGER NOT NULL, crc INTEGER NOT NULL, pixels BLOB NOT NULL, PRIMARY KEY (hash, longest))"""
GET = "SELECT height, width, crc, pixels FROM photos WHERE hash = ? AND longest = ?"
PUT = "INSERT OR REPLACE INTO photos VALUES (?, ?, ?, ?, ?, ?)"


class PhotoCache:
    """Decoded photos in the file `path`, of at most `limit` bytes: when it is full, further photos are decoded."""

    def __init__(self, path: Path, *, limit: int) -> None:
        self.path, self.limit = path, limit
        self._database: sqlite3.Connection | None = None
        self._owner = os.getpid()
        self._full = False

    @classmethod
    def of(cls, run: Path, gigabytes: float) -> PhotoCache | None:
        """Return the cache in a run folder; None for a size of 0."""
        return cls(run / CACHE_FILE, limit=int(gigabytes * 1e9)) if gigabytes else None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_database": None}

    def photo(self, photos: Listing, number: int, *, longest: int) -> Pixels:
        """Return `fit_within(photos.read(number), longest)`, from the file if it is there.

        Raises InputError if the photo cannot be read, or if the cache's file is damaged or not a cache.
        """
        data = photos.data(number)
        digest = hashlib.blake2b(data, digest_size=16).digest()
        found = self._get(digest, longest)
        if found is None:
            found = fit_within(read_image(data, name=photos.where(number)), longest)
            self._put(digest, longest, found)
        return found

    def _get(self, digest: bytes, longest: int) -> Pixels | None:
        try:
            row = self._connected().execute(GET, (digest, longest)).fetchone()
        except sqlite3.Error as error:
            self._failed(error)
            return None
        if row is None:
            return None
        height, width, crc, data = row
        if len(data) != 3 * height * width or zlib.crc32(data) != crc:
            return None
        return np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()

    def _put(self, digest: bytes, longest: int, pixels: Pixels) -> None:
        if self._full:
            return
        data = np.ascontiguousarray(pixels).tobytes()
        try:
            database = self._connected()
            pages, page = (database.execute(f"PRAGMA page_{what}").fetchone()[0] for what in ("count", "size"))
            if pages * page + len(data) > self.limit or shutil.disk_usage(self.path.parent).free < SPARE:
                self._full = True
                return
            database.execute(PUT, (digest, longest, *pixels.shape[:2], zlib.crc32(data), data))
        except sqlite3.Error as error:
            self._failed(error)

    def _failed(self, error: sqlite3.Error) -> None:
        """Go on without storing more if the file is locked or cannot be written; raise InputError if it is damaged."""
        if isinstance(error, sqlite3.OperationalError):
            if not self._full:
                log.warning("%s: photos cannot be kept there (%s); the run goes on without", self.path, error)
            self._full = True
            return
        raise InputError(f"{self.path}: is damaged or no cache of photos ({error}); remove it") from error

    def _connected(self) -> sqlite3.Connection:
        if self._owner != os.getpid():  # a forked process must not share the connection
            self._database, self._owner = None, os.getpid()
        if self._database is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self.path, isolation_level=None, timeout=WAIT, check_same_thread=False)
            database.execute("PRAGMA page_size = 16384")  # few pages for each photo
            database.execute("PRAGMA synchronous = OFF")
            database.execute(TABLE)
            self._database = database
        return self._database
