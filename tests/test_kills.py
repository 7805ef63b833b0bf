"""Kills of each command at random moments, and before each rename and write to disk: outputs are whole or absent."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from isc.benchmark.make import make_benchmark
from isc.data.csv_files import read_predictions
from isc.data.hdf5 import read_descriptors
from isc.match.verification.feature_store import FeatureStore
from isc.search.index.index import Index
from tests.conftest import SAMPLE, SIZES

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("ISC_KILLS", "4"))  # of each command; ISC_KILLS=30 for a night
RUN = "import sys; from isc.cli.main import main; main(sys.argv[1:])"
# the same, killed before its Nth change of a name, or wait for the disk
COUNTED = """
import os, signal, sys
left = int(sys.argv.pop(1))
def counted(function):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
for name in ("rename", "replace", "link", "unlink", "fsync"):
    setattr(os, name, counted(getattr(os, name)))
from isc.data import swap
swap._exchange = counted(swap._exchange)
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kills") / "bench"
    make_benchmark(SAMPLE, folder, sizes=SIZES, seed=7, max_side=128, workers=1)
    return folder


@pytest.fixture(scope="module")
def described(bench) -> Path:
    for role in ("queries", "references"):
        subprocess.run(command("extract", f"images={bench / role}", f"output={bench / role}.h5"), check=True)
    return bench


def command(*arguments: object, moment: int | None = None) -> list[str]:
    given = [str(one) for one in arguments]
    return [sys.executable, "-c", RUN, *given] if moment is None else [
        sys.executable, "-c", COUNTED + RUN, str(moment), *given]  # fmt: skip


def quiet(line: list[str]) -> subprocess.Popen:
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def killed_at_random(line: list[str], longest: float, chance: random.Random) -> bool:
    """Run the command, kill its first process after a while, and return whether it was still running."""
    with quiet(line) as process:
        try:
            process.wait(timeout=chance.random() * longest)
        except subprocess.TimeoutExpired:
            process.kill()
        said = process.stderr.read().decode()
    assert "Traceback" not in said
    assert process.returncode in (0, -signal.SIGKILL), said
    return process.returncode != 0


def duration(line: list[str]) -> float:
    start = time.monotonic()
    subprocess.run(line, check=True, capture_output=True)
    return time.monotonic() - start


def through_kills(line, *, check, again, counted) -> None:
    """Kill a command KILLS times at random, then before each change of a name or wait for the disk.

    `check` comes after each kill, `again` before it.
    """
    chance = random.Random(5)
    again()
    longest = duration(line)
    check()
    kills = 0
    while kills < KILLS:
        kills += killed_at_random(line, longest, chance)
        check()
        if chance.random() < 0.3:
            again()
    moment = 0
    while True:
        again()
        done = subprocess.run(counted(moment), capture_output=True, check=False)
        check()
        if done.returncode == 0 or moment >= KILLS:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        moment += 1
    assert moment > 0
    subprocess.run(line, check=True, capture_output=True)
    check()


def test_extract(bench, tmp_path):
    output = tmp_path / "out.h5"
    arguments = ("extract", f"images={bench / 'queries'}", f"output={output}", "workers=2")
    subprocess.run(command(*arguments), check=True, capture_output=True)
    whole = read_descriptors(output)

    def check():
        if output.exists():
            found = read_descriptors(output)
            assert found.ids.tolist() == whole.ids.tolist()
            assert np.abs(found.vectors - whole.vectors).max() < 1e-6

    def again():
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    through_kills(
        command(*arguments), check=check, again=again, counted=lambda moment: command(*arguments, moment=moment)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_match_with_pixels_and_a_shared_store(described, tmp_path):
    output, store = tmp_path / "out", tmp_path / "features"
    arguments = (
        "match", f"queries={described / 'queries.h5'}", f"references={described / 'references.h5'}", f"output={output}",
        "track=matching", f"query_images={described / 'queries'}", f"reference_images={described / 'references'}",
        f"features={store}", "k=3", "candidates=5",
    )  # fmt: skip

    def check():
        if output.exists():
            assert len(read_predictions(output / "predictions.csv"))
            names = {path.name for path in output.iterdir()}
            assert {"predictions.csv", "match.json", "evidence.jsonl", "report"} <= names
            times = [path.stat().st_mtime for path in output.rglob("*") if path.is_file()]
            assert max(times) - min(times) < 60, "files of two runs side by side"
        if (store / "features.sqlite").exists():
            FeatureStore(store).check()

    def again():
        if output.exists():  # an earlier run, long ago, that the next replaces
            for path in output.rglob("*"):
                if path.is_file():
                    os.utime(path, (1_000_000_000, 1_000_000_000))

    through_kills(
        command(*arguments), check=check, again=again, counted=lambda moment: command(*arguments, moment=moment)
    )
    assert {path.name for path in tmp_path.iterdir()} == {"out", "features"}


def test_benchmark(tmp_path):
    output = tmp_path / "made"
    arguments = (
        "benchmark", f"images={SAMPLE}", f"output={output}", "queries=20", "references=20", "training=10",
        "max_side=96", "workers=2",
    )  # fmt: skip
    subprocess.run(command(*arguments), check=True, capture_output=True)
    whole = {path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()}

    def check():
        if output.exists():
            found = {path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()}
            assert found == whole

    def again():
        shutil.rmtree(output, ignore_errors=True)

    through_kills(
        command(*arguments), check=check, again=again, counted=lambda moment: command(*arguments, moment=moment)
    )


def test_index_sync(bench, tmp_path):
    path = tmp_path / "an.index"
    arguments = ("index", "sync", path, bench / "queries")
    subprocess.run(command("index", "create", path), check=True, capture_output=True)

    def check():
        with Index.open(path).snapshot() as now:
            now.verify()

    def again():
        shutil.rmtree(path)
        subprocess.run(command("index", "create", path), check=True, capture_output=True)

    through_kills(
        command(*arguments), check=check, again=again, counted=lambda moment: command(*arguments, moment=moment)
    )
    with Index.open(path).snapshot() as now:
        assert len(now) == len(list((bench / "queries").iterdir()))
