"""An advisory file lock for one writer at a time; the system releases it when the writer dies."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from isc.errors import InputError

_held: set[int] = set()


def _let_go() -> None:
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)  # a loader process that outlives a killed writer must not hold its lock


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold the lock file `path` during the block; it lies in the folder that is written to.

    Raises InputError if the file cannot be written, or if another process holds it; the message names that process, its
    host and command.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(f"{path}: cannot be read or written ({error.strerror or error})") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{path.parent}: {_holder(handle)}; expected one writer at a time: wait for it") from error
        _held.add(handle)
        _sign(handle)
        yield
    finally:
        if handle in _held:
            os.ftruncate(handle, 0)
            _held.discard(handle)
        os.close(handle)


def _sign(handle: int) -> None:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
    since = datetime.now(UTC).isoformat(timespec="seconds")
    who = {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": since}
    with suppress(OSError):  # on a full disk the lock holds without a name
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(who).encode(), 0)


def _holder(handle: int) -> str:
    try:
        who = json.loads(os.pread(handle, 4096, 0))
        return f"process {who['pid']} on {who['host']} ({who['command']}) has been writing since {who['since']}"
    except (ValueError, KeyError, TypeError):  # it holds the lock but has not written its name yet
        return "another process is writing"
