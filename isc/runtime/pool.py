"""Work shared out among processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import cv2
from threadpoolctl import threadpool_limits

from isc.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
Share = Callable[[Iterable[Item]], Iterator[Result]]


@contextmanager
def sharing(work: Callable[[Item], Result], *, workers: int) -> Iterator[Share[Item, Result]]:
    """A function that has items done and gives their results as they come, in any order; `work` must be picklable.

    Each process does one item at a time, with one thread of OpenCV and of BLAS; so does this one, which does all
    itself where `workers` is 1. An exception of `work` is raised here. At the end, whatever ends it, the processes are
    killed. Raises InputError where one of them ends by itself.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # before anything is forked: in a child OpenCV's threads hang
    try:
        if workers == 1:
            with threadpool_limits(1):
                yield lambda items: map(work, items)
        else:
            with _processes(work, workers) as pipes:
                yield lambda items: _shared_out(items, pipes)
    finally:
        cv2.setNumThreads(threads)


@contextmanager
def _processes(work: Callable[[Any], Any], count: int) -> Iterator[list[Connection]]:
    """This side's end of a pipe to each."""
    started: list[BaseProcess] = []
    pipes: list[Connection] = []
    try:
        for _ in range(count):
            here, there = multiprocessing.Pipe()
            pipes.append(here)
            process = multiprocessing.Process(target=_serve, args=(work, there, here), daemon=True)
            started.append(process)
            process.start()
            there.close()
        yield pipes
    finally:
        for one in started:
            if one.pid is not None:
                one.kill()
        for one in started:
            if one.pid is not None:
                one.join()
        for pipe in pipes:
            pipe.close()


@dataclass(frozen=True)
class _Raised:
    """An exception of the work."""

    error: BaseException


def _serve(work: Callable[[Any], Any], pipe: Connection, other_end: Connection) -> None:
    """What a process does until the pipe is closed at its other end, of which a fork has left a copy here.

    The last process that was forked has the only copy of its pipe's other end outside; when the first process dies, it
    sees that and ends, and with it go its copies of the others' ends.
    """
    other_end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)
    with threadpool_limits(1), suppress(EOFError, ConnectionError):
        while True:
            item = pipe.recv()
            try:
                result = work(item)
            except Exception as error:
                result = _Raised(error)
            pipe.send(result)


def _shared_out(items: Iterable[Any], pipes: list[Connection]) -> Iterator[Any]:
    """A process is sent its next item when its result is here, never before: both ends might wait to write."""
    remaining = iter(items)
    busy = {pipe for pipe in pipes if _send_next(pipe, remaining)}
    while busy:
        for pipe in wait(list(busy)):
            assert isinstance(pipe, Connection)
            result = _received(pipe)
            if not _send_next(pipe, remaining):
                busy.discard(pipe)
            if isinstance(result, _Raised):
                raise result.error
            yield result


def _send_next(pipe: Connection, remaining: Iterator[Any]) -> bool:
    """Whether there was one."""
    for item in remaining:
        with _naming_death():
            pipe.send(item)
        return True
    return False


def _received(pipe: Connection) -> Any:
    with _naming_death():
        return pipe.recv()


@contextmanager
def _naming_death() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise InputError(
            "a working process ended by itself; with too little memory? Try fewer workers=, and run the "
            "same command again"
        ) from error
