"""Shared fixtures: a workplace to run the three verbs in, and one small real benchmark."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: sums have one order, here and in subprocesses
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 starves its workers beside the tests of another worker

import contextlib
import gc
import io
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import hypothesis
import numpy as np
import pytest

import isc
from isc.benchmark.make import make_benchmark
from isc.benchmark.sizes import Sizes
from isc.cli import verbs as cli
from tests import forked, huge_pages
from tests.forked import Finished

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one takes longer than 200 ms now and then
hypothesis.settings.load_profile("any machine")

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE = Path(isc.__file__).parent / "sample"
# files of half a minute and more, the longest first
LONG = tuple(
    f"test_{name}"
    for name in ("readme", "kills", "serve_faults", "cluster", "gpu_run", "serve_page", "install", "extract")
)
SIZES = Sizes(references=10, copied=8, distractors=6, training=10, positive_queries=12, distractor_queries=28)


def _end(process: ForkServerProcess) -> None:
    """Kill the process group of a command that still runs."""
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()


def _status(process: ForkServerProcess) -> int:
    assert process.exitcode is not None
    return process.exitcode


@dataclass(frozen=True)
class Workplace:
    """A folder in which the verbs run, as a user would run them."""

    folder: Path

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def run(self, verb: str, *arguments: str, script: bool = True, cold: bool = False) -> Finished:
        """Run `python verb.py arguments…` with the folder as working directory.

        The process is forked from one that has loaded the libraries; with `cold` it is a new one. Without `script` the
        same entry point is called inside this process; warnings that are logged are then not part of `err`.
        """
        if not script:
            return self._call(verb, *arguments)
        if cold:
            command = [sys.executable, str(REPOSITORY / f"{verb}.py"), *arguments]
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False)
            return Finished(done.returncode, done.stdout, done.stderr)
        process, out, err = self._started(verb, *arguments)
        process.join(timeout=300)
        _end(process)
        return Finished(_status(process), out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))

    def _started(self, verb: str, *arguments: str) -> tuple[ForkServerProcess, Path, Path]:
        # outside the folder, so that they are not part of its contents
        out, err = (self.folder.parent / f"{self.folder.name}.{name}" for name in ("stdout", "stderr"))
        for path in (out, err):
            path.write_text("", encoding="utf-8")
        script = REPOSITORY / f"{verb}.py"
        return forked.start(script, arguments, folder=self.folder, out=out, err=err), out, err

    def _call(self, verb: str, *arguments: str) -> Finished:
        with (
            mock.patch.object(sys, "argv", [str(REPOSITORY / f"{verb}.py"), *arguments]),
            mock.patch.dict(os.environ),
        ):
            return Finished(*self.called(lambda _: getattr(cli, verb)()))

    def called(self, main: Callable[[Sequence[str]], None], *arguments: str) -> tuple[int, str, str]:
        """Return (status, stdout, stderr) of a command's function, called in this process inside the folder.

        Hydra closes all log handlers of its process, and some close their stream with them (absl's, which OpenVINO
        loads): of pytest's own stream no test would recover. So it sees none of those that were there before.
        """
        out, err, status = io.StringIO(), io.StringIO(), 0
        with (
            mock.patch.object(logging, "_handlerList", []),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main(arguments)
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
            assert Path.cwd() == self.folder.resolve()
        return status, out.getvalue(), err.getvalue()

    def done(self, verb: str, *arguments: str, script: bool = True) -> Finished:
        """Run a command that must succeed."""
        finished = self.run(verb, *arguments, script=script)
        assert finished.status == 0, finished.err
        return finished

    def refused(self, verb: str, *arguments: str, naming: Sequence[str] = (), script: bool = False) -> str:
        """Run a command that must be refused, and return its error line.

        The command exits with status 2, prints only this line, and leaves every file as it was.
        """
        before = self.contents()
        finished = self.run(verb, *arguments, script=script, cold=True)
        assert finished.status == 2, (finished.out, finished.err)
        assert finished.err.startswith("error: ")
        assert finished.err.endswith("\n")
        assert finished.err.count("\n") == 1, finished.err
        assert finished.out == ""
        assert "Traceback" not in finished.err
        assert self.contents() == before
        for part in naming:
            assert part in finished.err, f"{part!r} is not in {finished.err!r}"
        return finished.err

    def signalled(
        self, which: signal.Signals, verb: str, *arguments: str, when: Callable[[str], bool], expected: bool = True
    ) -> Finished:
        """Run a command, and send `which` to its process group as soon as `when(all printed so far)` is true.

        With `expected`, fail if the command ends before that moment.
        """
        process, told, log = self._started(verb, *arguments)
        try:
            deadline = time.monotonic() + 120
            while process.is_alive() and not when(told.read_text() + log.read_text()):
                assert time.monotonic() < deadline, "the moment never came"
                time.sleep(0.002)
            assert process.is_alive() or not expected, told.read_text() + log.read_text()
            if process.is_alive():
                os.killpg(process.pid, which)
            process.join(timeout=120)
        finally:
            _end(process)
        return Finished(_status(process), told.read_text(), log.read_text(encoding="utf-8"))

    def contents(self) -> dict[str, bytes | None]:
        """Return every file below the folder with its bytes, and every folder with None; hidden ones too."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes() if path.is_file() else None
            for path in self.folder.rglob("*")
        }

    def text(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content, encoding="utf-8")
        return path

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def hdf5(self, name: str, attributes: Mapping[str, str] | None = None, **datasets: Any) -> Path:
        """Write an HDF5 file without the library's own checks; lists of str become byte strings."""
        path = self.folder / name
        with h5py.File(path, "w") as file:
            for key, values in datasets.items():
                file[key] = np.array([v.encode() for v in values]) if isinstance(values, list) else values
            file.attrs.update(attributes or {})
        return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process waits for another one's at the end."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """Take what was imported out of the garbage collector's rounds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def forks_are_quick() -> None:
    """Keep the memory in huge pages, for the many forks of the readers of files."""
    huge_pages.collapse()


@pytest.fixture(autouse=True)
def no_handler_is_left() -> Iterator[None]:
    """Take away the log handlers of commands and libraries that ran here: they hold the streams of that test."""
    yield
    root = logging.getLogger()
    for handler in [one for one in root.handlers if not type(one).__module__.startswith("_pytest.")]:
        root.removeHandler(handler)


@pytest.fixture(autouse=True)
def boards_count_from_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Number TensorBoard's files anew: it reads those of one second and process in the order of texts, 10 before 9."""
    if writer := sys.modules.get("tensorboard.summary.writer.event_file_writer"):
        monkeypatch.setattr(writer, "_global_uid", writer.AtomicCounter(0))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a temporary cache folder instead of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], Any]]:
    """Return a function that gives the database server of a kind; each starts once, when it is first asked for."""
    from tests.serving import server

    running: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:

        def of(kind: str) -> Any:
            if kind not in running:
                running[kind] = stack.enter_context(contextlib.contextmanager(server)(kind))
            return running[kind]

        yield of


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("mariadb", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest, servers: Callable[[str], Any], tmp_path: Path) -> str:
    """Return the URL of an empty database with the tables of a service: the same test runs on all three."""
    from tests.serving import make_tables

    own = f"sqlite:///{tmp_path}/serve.sqlite"
    url = own if request.param == "sqlite" else servers(request.param).new_database()
    make_tables(url)
    return url


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    folder = tmp_path / "workplace"
    folder.mkdir()
    return Workplace(folder)


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of edited sample photos in the challenge's layout, small enough for every run."""
    folder = tmp_path_factory.mktemp("benchmark") / "made"
    make_benchmark(SAMPLE, folder, sizes=SIZES, seed=7, max_side=128, workers=1)
    return folder


@pytest.fixture(scope="session")
def descriptors(benchmark: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with queries.h5, references.h5 and training.h5 of the benchmark, by `imagenet` at 64 pixels."""
    from isc.config.extract import ExtractConfig
    from isc.extract.run import extract

    folder = tmp_path_factory.mktemp("descriptors")
    for role in ("queries", "references", "training"):
        images, output = str(benchmark / role), str(folder / f"{role}.h5")
        extract(ExtractConfig(images=images, output=output, model="imagenet", image_size=64, workers=0))
    return folder
