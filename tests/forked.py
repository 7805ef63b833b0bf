"""Commands as processes that need not load their libraries: each is forked from a server that has loaded them.

A cold start of a verb takes seconds of CPU; a fork takes milliseconds. Signals, working directory, environment,
standard streams and exit codes are those of a process started by a shell.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest import mock

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.forked_libraries"])
STARTING = threading.Lock()  # two threads that change the environment at once would leave it changed


@dataclass(frozen=True)
class Finished:
    """Exit status and output of a command."""

    status: int
    out: str
    err: str


def run(script: Path, arguments: Sequence[str], *, folder: Path, kill_after: float | None = None) -> Finished:
    """Run a script as `start` does, to its end, or kill its first process after so many seconds."""
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place) / "out", Path(place) / "err"
        for path in (out, err):  # one that is killed at once opens neither
            path.touch()
        process = start(script, arguments, folder=folder, out=out, err=err)
        if kill_after is not None:
            process.join(kill_after)
            process.kill()
        process.join()
        assert process.exitcode is not None
        return Finished(process.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def start(script: Path, arguments: Sequence[str], *, folder: Path, out: Path, err: Path) -> ForkServerProcess:
    """Start `python script arguments…` with `folder` as working directory, in a session of its own.

    Standard output and error go into the files `out` and `err`.
    """
    with STARTING:
        _ensure_server()
        process = CONTEXT.Process(
            target=_run, args=([str(script), *arguments], str(folder), dict(os.environ), str(out), str(err))
        )
        process.start()
    return process


def start_ranks(work: Callable[..., None], arguments: tuple[object, ...], count: int) -> None:
    """Call `work(rank, *arguments)` in `count` processes, as `torch.multiprocessing.spawn` does, and wait for them."""
    from torch.multiprocessing import start_processes

    with STARTING:
        _ensure_server()
    start_processes(work, arguments, nprocs=count, start_method="forkserver")


def _ensure_server() -> None:
    with mock.patch.dict(os.environ, PYTHONPATH=str(Path(__file__).parent.parent)):  # where it finds what it loads
        forkserver.ensure_running()


def _run(argv: Sequence[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    with contextlib.suppress(PermissionError):  # it is a session leader already
        os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # the default in a process that a shell started
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, path, mode in ((0, os.devnull, os.O_RDONLY), (1, out, flags), (2, err, flags)):
        opened = os.open(path, mode)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = list(argv)
    sys.path.insert(0, str(Path(argv[0]).parent))
    status = _status_of(argv[0])
    with contextlib.suppress(KeyboardInterrupt):
        threading._shutdown()  # waits for threads, as the interpreter does at its end
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    if status is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status or 0)


def _status_of(script: str) -> int | None:
    """Run the script and return its exit status; None if Ctrl-C ended it."""
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return None
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
