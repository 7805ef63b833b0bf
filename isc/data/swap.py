"""Replacement of a folder by another in one step, so that a kill at any moment leaves the one or the other."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

AT_FDCWD = -100  # of Linux: paths are relative to the working directory
RENAME_EXCHANGE = 2
REMAINS = ".part"
_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EBUSY, errno.EPERM}


def replace_folder(path: Path, new: Path, *, owned: Sequence[str]) -> None:
    """Make `new` the folder `path`; files of `path` that are neither `owned` nor in `new` come along.

    `new` lies in `staging_place(path)`, and afterwards holds what was replaced. If the two cannot change places (`path`
    is a mount point, this process works in it, the file system cannot do it), the files that are replaced are moved out
    first, and then the new ones in: a kill then leaves files out, but never new ones beside old ones.
    """
    if not path.exists():
        new.rename(path)
        return
    written = [str(one.relative_to(new)) for one in sorted(new.rglob("*")) if one.is_symlink() or not one.is_dir()]
    if new.parent == path:
        _move_in(path, new, written, owned)
        return
    shutil.copystat(path, new)
    _bring(path, new, leave_out=frozenset(owned))
    try:
        _exchange(path, new)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        _move_in(path, new, written, owned)


def staging_place(path: Path) -> Path:
    """Return the folder to prepare the next `path` in: the nearest above it, or itself if it cannot be exchanged.

    It cannot if it is a mount point, lies in a folder without write permission, or holds the working directory.
    """
    above = next((folder for folder in path.parents if folder.is_dir()), path)
    if not path.is_dir():
        return above
    fixed = os.path.ismount(path) or not os.access(above, os.W_OK) or Path.cwd().is_relative_to(path)
    return path if fixed else above


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which ends with the process; `remove_remains` leaves such folders alone."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def remove_remains(parent: Path, name: str) -> None:
    """Remove the temporary folders of `name` that killed processes left."""
    for remains in parent.glob(f".{_escaped(name)}.????????{REMAINS}"):
        with suppress(OSError):
            handle = os.open(remains, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(remains, ignore_errors=True)
            finally:
                os.close(handle)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _bring(old: Path, new: Path, *, leave_out: frozenset[str] = frozenset()) -> None:
    """Link or copy into `new` what `old` has besides."""
    for entry in os.scandir(old):
        there = new / entry.name
        if entry.name in leave_out:
            continue
        if entry.is_dir(follow_symlinks=False):
            if not there.exists():
                there.mkdir()
                shutil.copystat(entry.path, there)
            if there.is_dir():
                _bring(Path(entry.path), there)
        elif not os.path.lexists(there):
            try:
                os.link(entry.path, there, follow_symlinks=False)
            except OSError:  # a file system without links, or another owner's file
                shutil.copy2(entry.path, there, follow_symlinks=False)


def _exchange(one: Path, two: Path) -> None:
    """Let two paths change places in one step. Raises OSError if the system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if library.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(two), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))


def _move_in(path: Path, new: Path, written: Sequence[str], owned: Sequence[str]) -> None:
    """Move the files of `path` that are replaced into a folder of `new`, and then the written files of `new` in."""
    for name in {*owned, *written}:
        if os.path.lexists(path / name):
            _move(path / name, new / "before" / name)
    for name in written:
        _move(new / name, path / name)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
