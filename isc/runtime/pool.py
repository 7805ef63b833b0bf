"""A pool of worker processes, which end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
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
from isc.runtime.parent import end_with

Item = TypeVar("Item")
Result = TypeVar("Result")
Share = Callable[[Iterable[Item]], Iterator[Result]]


@contextmanager
def sharing(work: Callable[[Item], Result], *, workers: int) -> Iterator[Share[Item, Result]]:
    """Yield a function that applies `work` to items in `workers` processes; its results come in any order.

    `work` must be picklable. Each process handles one item at a time, with one thread of OpenCV and of BLAS. With one
    worker, this process does the work in the same way. An exception of `work` is raised here. The processes are killed
    when the block ends for any reason. Raises InputError if a process ends by itself.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # before the fork: OpenCV's threads hang in a child process
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
    """Start `count` processes, and yield this process's end of the pipe to each of them."""
    started: list[BaseProcess] = []
    pipes: list[Connection] = []
    try:
        for _ in range(count):
            here, there = multiprocessing.Pipe()
            pipes.append(here)
            process = multiprocessing.Process(target=_serve, args=(work, there, here, os.getpid()), daemon=True)
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
    """An exception that the work raised."""

    error: BaseException


def _serve(work: Callable[[Any], Any], pipe: Connection, other_end: Connection, parent: int) -> None:
    """Work on items until the other end of the pipe is closed; `other_end` is the copy of it that the fork left here.

    The kernel ends the process with its `parent`, in the middle of an item too.
    """
    end_with(parent)
    other_end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the main process ends the others
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
    """Yield the results. A process gets its next item after its result is read, else both could wait to write."""
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
    """Send the next item; return False if there is none."""
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
