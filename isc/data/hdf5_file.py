"""HDF5 files that are written, whole or with the system's error."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py


@contextmanager
def created(path: Path) -> Iterator[h5py.File]:
    """Create a file to write. Raises OSError at its end if any part of it could not be written."""
    import h5py

    with _KeptFile(path, "w+") as raw:
        with h5py.File(raw, "w") as file:
            yield file
        if raw.error is not None:
            raise raw.error


class _KeptFile(io.FileIO):
    """A file that keeps the first error of writing to itself, and from then on takes bytes and drops them.

    HDF5 cannot close a file that fails: it holds on to it, and the next file of the process may crash it.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        end = self.tell() + len(left)
        try:
            while self.error is None and len(left):
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        self.seek(end)
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size) if self.error is None else size or 0
        except OSError as error:
            self.error = error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        read = super().readinto(view) or 0
        if self.error is not None:  # what was dropped is zero
            view[read:] = bytes(len(view) - read)
            read = len(view)
        return read
