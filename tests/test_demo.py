"""The sizes and the table of the demo, and what it refuses; tests/test_readme.py runs it."""

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
