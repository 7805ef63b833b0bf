"""isc benchmark as it is typed: what it refuses, what it writes and says, and that it goes on after a kill."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from isc.benchmark import near_duplicates
from isc.benchmark.edits.chain import EDITS
from isc.benchmark.work_folder import part_of
from isc.cli.keys import keys
from isc.config.benchmark import BenchmarkConfig
from isc.data.csv_files import read_ground_truth
from isc.photos.decode import encode_jpeg, read_image
from isc.photos.folders import SAMPLE, list_images

REPOSITORY = Path(__file__).resolve().parent.parent
COMMAND = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[0] = 'isc benchmark'; "
    "from isc.cli.verbs import benchmark; benchmark()"
)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def photos(place):
    """Sixteen sample photos, a smaller one of one of them, and a file that is torn."""
    folder = place / "photos"
    folder.mkdir()
    for path in list(list_images(SAMPLE).values())[20:36]:
        shutil.copy(path, folder)
    small = cv2.resize(read_image(folder / "S025.jpg"), None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    (folder / "A small one.jpg").write_bytes(encode_jpeg(small, quality=80))
    (folder / "torn.jpg").write_bytes((folder / "S026.jpg").read_bytes()[:3000])
    return folder


def started(place, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=place.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        ((), ["images= is missing"]),
        (("images=photos",), ["output= is missing"]),
        (("images=nowhere", "output=out"), ["images=nowhere: no such folder"]),
        (("images=photos", "output=out", "presett=hard"), ["presett", "did you mean preset?"]),
        (
            ("images=photos", "output=out", "preset=melt"),
            ["preset=melt: no such preset", "easy, challenge, hard, each"],
        ),
        (("images=photos", "output=out", "preset=crop", "strength=mild"), ["strength=mild", "light, medium, strong"]),
        (("images=photos", "output=out", "strength=light"), ["strength=light", "one kind of edit"]),
        (("images=photos", "output=out", "edits=theirs"), ["edits", "theirs", "own"]),
        (("images=photos", "output=out", "seed=-1"), ["seed=-1"]),
        (("images=photos", "output=out", "distractor_share=1"), ["distractor_share=1", "below 1"]),
        (("images=photos", "output=out", "queries=1"), ["queries=1"]),
        (("images=photos", "output=out", "references=100"), ["18 photos", "references"]),
        (("images=photos", "output=out", "queries=20", "hard_negatives=17"), ["hard_negatives=17", "at most", "16"]),
        (("images=photos", "output=photos"), ["output=photos: exists but is no benchmark"]),
        (("images=photos", "output=out", "near_duplicates=maybe"), ["near_duplicates", "maybe"]),
    ],
)
def test_what_cannot_be_is_refused_at_the_door(place, photos, arguments, naming):
    place.refused("benchmark", *arguments, naming=naming)


def test_help_lists_every_key_and_examples(place):
    done = place.done("benchmark", "--help", script=False)
    for key in keys(BenchmarkConfig):
        assert f"\n  {key}=" in done.out
    assert "Examples:\n" in done.out


def test_the_page_names_every_key_and_kind_of_edit():
    page = (REPOSITORY / "docs" / "benchmark.md").read_text(encoding="utf-8")
    for key in keys(BenchmarkConfig):
        assert f"{key}=" in page, key
    for name, edit in EDITS.items():
        assert f"| `{name}` | {' '.join((edit.__doc__ or '').split())} |" in page


@pytest.mark.slow
def test_photos_that_show_the_same_are_named_and_then_left_out(place, photos, monkeypatch):
    """Refused first; what was found is not sought again by the run that leaves one of them out, nor by one that keeps
    both."""
    refused = place.run("benchmark", "images=photos", "output=out", "near_duplicates=refuse", script=False)
    assert refused.status == 2
    assert refused.err.count("\n") == 1
    assert "A small one.jpg and S025.jpg; out.near_duplicates.csv lists them" in refused.err
    assert not (place / "out").exists()
    with (place / "out.near_duplicates.csv").open(newline="", encoding="utf-8") as file:
        listed = [(row["file_a"], row["file_b"], row["group"]) for row in csv.DictReader(file)]
    assert listed == [("A small one.jpg", "S025.jpg", "1")]
    described = part_of(place / "out") / "photos.h5"
    assert described.exists()
    shutil.copytree(described.parent, part_of(place / "kept"))
    monkeypatch.setattr(near_duplicates, "run_extract", None)  # whoever describes the photos again fails

    place.done("benchmark", "images=photos", "output=out", "queries=20", script=False)
    assert {path.name for path in (place / "out").iterdir()} == {
        *("references", "queries", "training", "ground_truth.csv", "edits.jsonl", "photos.csv", "benchmark.json"),
        *("near_duplicates.csv", "unreadable.csv"),
    }
    text = (place / "out" / "photos.csv").read_text() + (place / "out" / "edits.jsonl").read_text()
    assert "A small one.jpg" not in text
    assert "torn.jpg" not in text
    assert place.json("out/benchmark.json")["made"]["near_duplicates"] == {
        "pairs": 1, "groups": 1, "photos": 2, "left_out": 1,
    }  # fmt: skip
    assert len(read_ground_truth(place / "out" / "ground_truth.csv").pairs) == 4  # of 20 queries a fifth
    assert not (place / "out.near_duplicates.csv").exists()
    assert not part_of(place / "out").exists()

    kept = ("images=photos", "output=kept", "near_duplicates=keep", "references=10", "hard_negatives=3")
    place.done("benchmark", *kept, script=False)
    names = [line for line in (place / "kept" / "photos.csv").read_text().splitlines() if "small" in line]
    names += [line for line in (place / "kept" / "edits.jsonl").read_text().splitlines() if '"A small one.jpg"' in line]
    assert names
    edits = (place / "kept" / "edits.jsonl").read_text()
    assert edits.count('"neighbour": "R0000') == 3
    hard = place.json("kept/benchmark.json")["made"]["hard_negatives"]
    assert all(one["file"] in edits and one["reference_id"].startswith("R") for one in hard)


@pytest.mark.slow
def test_a_finished_one_is_left_and_another_configuration_is_refused(place, photos):
    place.done("benchmark", "images=photos", "output=out", "queries=10", script=False)
    before = {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*")}
    place.done("benchmark", "images=photos", "output=out", "queries=10", "workers=1", script=False)
    assert {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*")} == before
    place.refused("benchmark", "images=photos", "output=out", "queries=12", naming=["queries 10 there, 12 asked for"])
    place.refused(
        *("benchmark", "images=photos", "output=out", "queries=10", "preset=hard"),
        naming=["preset challenge there, hard asked for"],
    )


@pytest.mark.slow
@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_the_same_command_goes_on(place, photos, which):
    arguments = ("images=photos", "output=out", "queries=400")
    process, part = started(place, *arguments), part_of(place / "out")
    try:
        deadline = time.monotonic() + 120
        while len(finished := list(part.glob("benchmark/queries/Q*.jpg"))) < 30:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, which)  # the first process alone: the others end with it
        said = process.communicate(timeout=60)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == (130 if which == signal.SIGINT else -signal.SIGKILL)
    assert which == signal.SIGKILL or "the same command goes on from there" in said
    assert "Traceback" not in said
    assert not (place / "out").exists()
    journal = {line[14:20] for line in (part / "journal.jsonl").read_text().splitlines()}
    told = {path.name: path.stat().st_ino for path in finished if path.stem in journal}
    assert len(told) >= 20
    place.done("benchmark", *arguments, script=False)
    inodes = {path.name: path.stat().st_ino for path in (place / "out" / "queries").iterdir()}
    assert told.items() <= inodes.items()  # what was finished was not made again
    assert len(inodes) == 400
    if which == signal.SIGINT:
        return
    shutil.move(place / "out", place / "resumed")
    place.done("benchmark", *arguments, "workers=1", script=False)
    assert contents(place / "out") == contents(place / "resumed")
