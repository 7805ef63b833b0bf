"""A function run in a process of its own, with limits on time and memory: for libraries that read strangers' files."""

from __future__ import annotations

import ctypes
import faulthandler
import math
import os
import pickle
import resource
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
PR_SET_PDEATHSIG = 1  # of Linux: the signal that a process gets when its parent ends
WAIT = 10  # a busy machine or a slow disk may make it wait
PIECE = 1 << 20  # bytes that are read from the child at a time


class StoppedError(Exception):
    """The reason why a limited function gave no answer: too long, or a crash."""


def limited(function: Callable[[], Result], *, seconds: float, memory: int) -> Result:
    """Return or raise what the function does in a forked process.

    It may use `seconds` of one CPU, WAIT times as long in all, and `memory` bytes more than this process; beyond that
    an allocation fails. Its result has to be picklable. Raises StoppedError if it takes longer or crashes.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            _limit(seconds, memory)
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(_outcome(function))
        finally:
            os._exit(0)
    os.close(writer)
    try:
        answer = _read_all(reader, WAIT * seconds)
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it has answered, or will not
        _, status = os.waitpid(child, 0)
    if answer is None or (not answer and -os.waitstatus_to_exitcode(status) == signal.SIGXCPU):
        raise StoppedError(f"took longer than {seconds:g} s")
    if not answer:
        raise StoppedError(f"crashed ({_signal_name(status)})")
    result, error = pickle.loads(answer)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def end_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends, whatever ends it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit(seconds: float, memory: int) -> None:
    faulthandler.disable()  # the parent says that it crashed
    end_with_parent()
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    for what, limit in (
        (resource.RLIMIT_AS, used + memory),
        (resource.RLIMIT_CPU, math.ceil(seconds)),
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(what)
        resource.setrlimit(what, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def _outcome(function: Callable[[], Result]) -> bytes:
    """Return the pickled (result, None) or (None, error)."""
    try:
        return pickle.dumps((function(), None))
    except Exception as error:  # raised again by the parent
        try:
            return pickle.dumps((None, error))
        except Exception:  # an error of a library that cannot be pickled
            return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))


def _read_all(reader: int, seconds: float) -> bytes | None:
    """Return what comes through the pipe until its end; None if that takes longer."""
    end, pieces = time.monotonic() + seconds, list[bytes]()
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        piece = os.read(reader, PIECE)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
    return None


def _signal_name(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return signal.Signals(-code).name if code < 0 else f"status {code}"
