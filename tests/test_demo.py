"""The demo on photos of the user, and what it refuses. tests/test_readme.py runs it on the sample photos."""

import subprocess
import sys

import pytest

from isc.benchmark.sizes import sizes_for
from isc.cli.demo import table
from isc.errors import InputError
from isc.photos.folders import SAMPLE, list_images


def test_sizes_fit_any_number_of_photos():
    assert sizes_for(len(list_images(SAMPLE))).photos == 118
    for photos in (12, 13, 20, 1000, 17381, 10**6):
        sizes = sizes_for(photos)
        assert sizes.photos == photos
        assert sizes.distractor_queries == 4 * sizes.positive_queries
    with pytest.raises(InputError, match="11 photos"):
        sizes_for(11)


@pytest.mark.slow
def test_it_runs_on_photos_of_ones_own(tmp_path):
    (tmp_path / "my-photos").mkdir()
    for path in list(list_images(SAMPLE).values())[::8]:
        (tmp_path / "my-photos" / path.name).symlink_to(path)
    (tmp_path / "my-photos" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")  # is left out
    command = [sys.executable, "-m", "isc.cli.main", "demo", "my-demo", "--images", "my-photos", "--steps", "1"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "12 edited copies among 60 queries" in run.stdout
    assert "torn.jpg" in (tmp_path / "my-demo" / "benchmark" / "unreadable.csv").read_text()
    assert (tmp_path / "my-demo" / "matching" / "report" / "index.html").exists()


def test_a_folder_without_photos_is_refused_in_one_line(tmp_path):
    command = [sys.executable, "-m", "isc.cli.main", "demo", "demo", "--images", "nowhere"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "nowhere" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.iterdir())


def test_table_aligns():
    from isc.cli.demo import Row

    metrics = dict.fromkeys(("average_precision", "recall_at_p90", "recall_at_rank1"), 0.5)
    lines = table([Row("a", metrics), Row("a longer name", metrics)]).splitlines()[2:]
    assert len({len(line) for line in lines}) == 1
