"""The demo end to end on the sample photos, with a training of two steps, and what it leaves behind."""

import json
import subprocess
import sys

import pytest

from isc.benchmark.sizes import sizes_for
from isc.cli.demo import table
from isc.errors import InputError
from isc.photos.folders import SAMPLE, list_images

SHIPPED, FINETUNED, VERIFIED = (
    "isc_small, as shipped", "isc_small, fine-tuned here", "fine-tuned + local verification"
)  # fmt: skip
COLUMNS = ("average_precision", "recall_at_p90", "recall_at_rank1")


@pytest.fixture(scope="session")
def finished_demo(tmp_path_factory):
    """(the demo's folder, what it printed)"""
    cwd = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "isc.cli.demo", "demo", "--steps", "2"]
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert [path.name for path in cwd.iterdir()] == ["demo"]
    return cwd / "demo", run.stdout


def test_the_printed_table_is_what_the_metrics_say(finished_demo):
    folder, printed = finished_demo
    rows = json.loads((folder / "demo.json").read_text())
    assert {"ImageNet, before any training", SHIPPED, FINETUNED, VERIFIED} <= set(rows)
    for name, metrics in rows.items():
        line = next(line for line in printed.splitlines() if line.startswith(name + "  "))
        assert line.split()[-3:] == [f"{metrics[column]:.3f}" for column in COLUMNS]
    for made in ("imagenet", "shipped", "finetuned", "matching"):
        metrics = json.loads((folder / made / "metrics.json").read_text())
        assert metrics in rows.values()
        assert metrics["num_positives"] == 120


def test_the_report_that_is_named_shows_pictures_and_edits(finished_demo):
    folder, printed = finished_demo
    report = folder / "finetuned" / "report" / "index.html"
    assert str(report.relative_to(folder.parent)) in printed
    page = report.read_text()
    assert page.count("data:image/jpeg;base64,") > 40
    assert "Wrong" in page
    assert "screenshot" in page
    assert (folder / "matching" / "evidence.jsonl").read_text().count("\n") > 10
    verified = (folder / "matching" / "report" / "index.html").read_text()
    assert verified.count("<polygon") > 20
    assert 'id="reliability"' in verified


def test_what_the_pixels_confirm_finds_more_copies(finished_demo):
    rows = json.loads((finished_demo[0] / "demo.json").read_text())
    assert rows[VERIFIED]["average_precision"] > rows[FINETUNED]["average_precision"] + 0.03


def test_the_shipped_model_is_well_ahead_of_its_start(finished_demo):
    rows = json.loads((finished_demo[0] / "demo.json").read_text())
    assert rows[SHIPPED]["average_precision"] > rows["ImageNet, before any training"]["average_precision"] + 0.1


def test_training_photos_are_no_query_and_no_reference(finished_demo):
    benchmark = finished_demo[0] / "benchmark"
    split = dict(line.split(",") for line in (benchmark / "photos.csv").read_text().splitlines()[1:])
    training = {photo for name, photo in split.items() if name.startswith("T")}
    queried = {json.loads(line)["source"] for line in (benchmark / "edits.jsonl").read_text().splitlines()}
    assert len(training) == 54
    assert not training & queried
    assert not training & {photo for name, photo in split.items() if name.startswith("R")}


def test_sizes_fit_any_number_of_photos():
    assert sizes_for(len(list_images(SAMPLE))).photos == 118
    for photos in (12, 13, 20, 1000, 17381, 10**6):
        sizes = sizes_for(photos)
        assert sizes.photos == photos
        assert sizes.distractor_queries == 4 * sizes.positive_queries
    with pytest.raises(InputError, match="11 photos"):
        sizes_for(11)


def test_it_runs_on_photos_of_ones_own(tmp_path):
    (tmp_path / "my-photos").mkdir()
    for path in list(list_images(SAMPLE).values())[::8]:
        (tmp_path / "my-photos" / path.name).symlink_to(path)
    (tmp_path / "my-photos" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")  # is left out
    command = [sys.executable, "-m", "isc.cli.demo", "my-demo", "--images", "my-photos", "--steps", "1"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "12 edited copies among 60 queries" in run.stdout
    assert "torn.jpg" in (tmp_path / "my-demo" / "benchmark" / "unreadable.csv").read_text()
    assert (tmp_path / "my-demo" / "matching" / "report" / "index.html").exists()


def test_a_folder_without_photos_is_refused_in_one_line(tmp_path):
    command = [sys.executable, "-m", "isc.cli.demo", "demo", "--images", "nowhere"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "nowhere" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.iterdir())


def test_table_aligns():
    from isc.cli.demo import Row

    metrics = dict.fromkeys(COLUMNS, 0.5)
    lines = table([Row("a", metrics), Row("a longer name", metrics)]).splitlines()[2:]
    assert len({len(line) for line in lines}) == 1
