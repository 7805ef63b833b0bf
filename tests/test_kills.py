"""Kills of each command at random moments, and before each rename and write to disk: outputs are whole or absent.

The pictures are few and small: what is killed is how a command writes, not how long it computes.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks import save
from isc.benchmark.make import make_benchmark
from isc.benchmark.sizes import Sizes
from isc.data.csv_files import read_predictions
from isc.data.hdf5 import read_descriptors
from isc.match.verification.feature_store import FeatureStore
from isc.search.index.index import Index
from tests import forked
from tests.conftest import SAMPLE
from tests.forked import Finished

pytestmark = [pytest.mark.slow, pytest.mark.timeout(6 * 3600)]  # each step of each command is a run of it
KILLS = int(os.environ.get("ISC_KILLS", "4"))  # of each command at random moments; ISC_KILLS=30 for a night
FEW = Sizes(references=5, copied=3, distractors=3, training=2, positive_queries=4, distractor_queries=4)
STEPS, ONE_OF_TWO = "before a change of a name or a wait for the disk", "match, one of two runs with one store"
COUNTS: list[dict[str, object]] = []  # of this run, by command
SMALL = "image_size=64"
SCRIPT = Path(__file__).parent / "isc_command.py"


@pytest.fixture(scope="module", autouse=True)
def published():
    """Write the counts for docs/reliability.md if ISC_SAVE is set."""
    yield
    if os.environ.get("ISC_SAVE"):
        save("kills", COUNTS)


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kills") / "bench"
    make_benchmark(SAMPLE, folder, sizes=FEW, seed=7, max_side=128, workers=1)
    return folder


@pytest.fixture(scope="module")
def described(bench) -> Path:
    for role in ("queries", "references"):
        assert run("extract", f"images={bench / role}", f"output={bench / role}.h5", SMALL).status == 0
    return bench


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "isc.cli.main", *map(str, arguments)]


def run(*arguments: object, before: int = -1, folder: Path = Path("/"), after: float | None = None) -> Finished:
    """Fork a command; kill its first process `before` that change of a name below `folder`, or `after` some seconds."""
    given = [str(before), str(folder), *map(str, arguments)]
    done = forked.run(SCRIPT, given, folder=Path(tempfile.gettempdir()), kill_after=after)
    assert done.status in (0, -signal.SIGKILL), done.err
    assert "Traceback" not in done.err
    return done


def duration(*arguments: object) -> float:
    start = time.monotonic()
    assert run(*arguments).status == 0
    return time.monotonic() - start


def through_kills(*arguments: object, folder: Path, check, again, quicker: tuple[str, ...] = ()) -> None:
    """Kill a command KILLS times at random, then before every change of a name and wait for the disk, to its end.

    Names are those below `folder`, in which the command writes; with `quicker` options it writes the same files in less
    time, and is killed so at its changes of names. `again` comes before each kill, `check`, with what the command has
    printed, after it.
    """
    chance = random.Random(5)
    again()
    duration(*arguments)  # the first loads and fills what later ones find
    check("")
    again()
    longest = duration(*arguments)
    check("")
    kills = 0
    while kills < KILLS:
        done = run(*arguments, after=chance.random() * longest)
        kills += done.status != 0
        check(done.out)
        if chance.random() < 0.3:
            again()
    moment = 0
    while True:
        again()
        done = run(*arguments, *quicker, before=moment, folder=folder)
        check(done.out)
        if done.status == 0:
            break
        moment += 1
    assert moment > 0
    subprocess.run(command(*arguments), check=True, capture_output=True)  # as a shell starts it
    check("")
    COUNTS.append({"command": arguments[0], "at random moments": kills, STEPS: moment})


def test_extract(bench, tmp_path):
    output = tmp_path / "out.h5"
    arguments = ("extract", f"images={bench / 'queries'}", f"output={output}", "workers=2", SMALL)
    whole = None  # the descriptors of the first run, which nobody kills

    def check(_said: str) -> None:
        nonlocal whole
        if output.exists():
            found = read_descriptors(output)
            whole = whole or found
            assert found.ids.tolist() == whole.ids.tolist()
            assert np.abs(found.vectors - whole.vectors).max() < 1e-6

    def again():
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    through_kills(*arguments, folder=tmp_path, check=check, again=again)
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_match_with_pixels_and_a_shared_store(described, tmp_path):
    output, store = tmp_path / "out", tmp_path / "features"
    arguments = (
        "match", f"queries={described / 'queries.h5'}", f"references={described / 'references.h5'}", f"output={output}",
        "track=matching", f"query_images={described / 'queries'}", f"reference_images={described / 'references'}",
        f"features={store}", "k=3", "candidates=5",
    )  # fmt: skip

    def check(_said: str) -> None:
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

    quicker = ("query_views=whole",)  # without a process that extracts, and writes elsewhere
    through_kills(*arguments, folder=tmp_path, check=check, again=again, quicker=quicker)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "features"}


def test_one_of_two_runs_of_the_matching_track_that_share_a_store(described, tmp_path):
    """The other ends well, with the bytes of a run alone, and the store is whole."""
    store, chance = tmp_path / "features", random.Random(7)

    def line(name: str) -> tuple[object, ...]:
        return (
            "match", f"queries={described / 'queries.h5'}", f"references={described / 'references.h5'}",
            f"output={tmp_path / name}", "track=matching", f"query_images={described / 'queries'}",
            f"reference_images={described / 'references'}", f"features={store}", "k=3", "candidates=5",
            "query_views=whole",
        )  # fmt: skip

    longest = duration(*line("alone"))
    whole = (tmp_path / "alone" / "predictions.csv").read_bytes()
    kills = 0
    while kills < KILLS:
        if chance.random() < 0.5:
            shutil.rmtree(store, ignore_errors=True)
        for name in ("killed", "other"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(run, *line("other"))
            killed = run(*line("killed"), after=chance.random() * 2 * longest).status != 0
        kills += killed
        assert other.result().status == 0, other.result().err
        assert (tmp_path / "other" / "predictions.csv").read_bytes() == whole
        if not killed or (tmp_path / "killed").exists():
            assert (tmp_path / "killed" / "predictions.csv").read_bytes() == whole
        FeatureStore(store).check()
    COUNTS.append({"command": ONE_OF_TWO, "at random moments": kills, STEPS: "–"})


def test_benchmark(tmp_path):
    photos, output = tmp_path / "photos", tmp_path / "made"
    photos.mkdir()
    for path in sorted(SAMPLE.glob("*.jpg"))[::8]:
        shutil.copy(path, photos)
    arguments = (
        "benchmark", f"images={photos}", f"output={output}", "queries=10", "references=6", "training=2",
        "max_side=96", "workers=2",
    )  # fmt: skip
    whole = {}  # the files of the first run, which nobody kills

    def check(_said: str) -> None:
        if output.exists():
            found = {path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()}
            whole.update(found if not whole else {})
            assert found == whole

    def again():
        shutil.rmtree(output, ignore_errors=True)

    through_kills(*arguments, folder=tmp_path, check=check, again=again)


def test_index_sync(bench, tmp_path):
    """What it has said to be on the disk is there after a kill."""
    path, photos = tmp_path / "an.index", len(list((bench / "queries").iterdir()))
    before = 0

    def check(said: str) -> None:
        nonlocal before
        told = [int(line.split(" of ")[0]) for line in said.splitlines() if line.endswith("are on the disk")]
        with Index.open(path).snapshot() as now:
            now.verify()
            assert len(now) >= before + (told[-1] if told else 0)
            before = len(now)

    def again():
        nonlocal before
        before = 0
        shutil.rmtree(path, ignore_errors=True)
        assert run("index", "create", path).status == 0

    through_kills("index", "sync", path, bench / "queries", folder=tmp_path, check=check, again=again)
    with Index.open(path).snapshot() as now:
        assert len(now) == photos
