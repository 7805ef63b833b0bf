"""HDF5 files that are written, and what h5py says if the disk is full."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py

ROOM = 65536  # bytes; a disk with less is full


@contextmanager
def created(path: Path) -> Iterator[h5py.File]:
    """Create a file to write. Raises OSError if it cannot be written, also at its end: h5py raises RuntimeError."""
    import h5py

    _silence_objects_of_h5py()
    try:
        with h5py.File(path, "w") as file:
            yield file
    except (RuntimeError, OSError) as error:
        full = shutil.disk_usage(path.parent).free < ROOM
        number = errno.ENOSPC if full or "errno = 28" in str(error) else errno.EIO
        raise OSError(number, os.strerror(number)) from error


@functools.cache
def _silence_objects_of_h5py() -> None:
    """Let h5py's objects of a file that could not be written go without a traceback each.

    Cython prints one by sys.excepthook, and then tells sys.unraisablehook.
    """
    excepted, unraised = sys.excepthook, sys.unraisablehook

    def except_quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not _is_of_an_object(error):
            excepted(kind, error, trace)

    def unraise_quietly(told: sys.UnraisableHookArgs) -> None:
        if not _is_of_an_object(told.exc_value):
            unraised(told)

    sys.excepthook, sys.unraisablehook = except_quietly, unraise_quietly


def _is_of_an_object(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and "id ref count" in str(error)
