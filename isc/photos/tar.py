"""Photos inside tar shards, read in place without unpacking."""

from __future__ import annotations

import functools
import os

from isc.errors import InputError
from isc.photos.decode import MAX_BYTES
from isc.photos.place import Place

OPEN_TARS = 32  # per process


def tar_stamp(state: os.stat_result) -> tuple[int, ...]:
    """Return what tells a tar from a changed one: its size in bytes and its modification time in nanoseconds."""
    return state.st_size, state.st_mtime_ns


class _OpenTar:
    """A tar file that threads and forked processes read at any offset; they share no file position."""

    def __init__(self, place: Place) -> None:
        self._file = os.open(place.path, os.O_RDONLY)

    def stamp(self) -> tuple[int, ...]:
        """Return the file's present size and modification time, as `Place.stamp` holds those of the listing."""
        return tar_stamp(os.fstat(self._file))

    def read(self, offset: int, size: int) -> bytes:
        pieces, left = [], size
        while left and (piece := os.pread(self._file, left, offset + size - left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


_open_tar = functools.lru_cache(maxsize=OPEN_TARS)(_OpenTar)  # a tar in use stays open after it leaves the cache


def read_member(place: Place, offset: int, size: int, *, name: str) -> bytes:
    """Read `size` bytes from `offset` of a tar. Raises InputError if it cannot be read or is not as it was listed."""
    if size > MAX_BYTES:
        raise InputError(f"{name}: {size:,} bytes; expected at most {MAX_BYTES:,}")
    try:
        tar = _open_tar(place)
        if tar.stamp() != place.stamp:
            raise InputError(f"{name}: the tar file has changed since it was listed; start again")
        data = tar.read(offset, size)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({type(error).__name__}: {error.strerror})") from error
    if len(data) < size:
        raise InputError(f"{name}: the tar file ends after {len(data):,} of its {size:,} bytes; fetch it again")
    return data
