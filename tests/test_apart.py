"""The judges' photos and the training photos are apart: by number, and by what they show."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

import isc
from benchmarks import apart
from benchmarks.judge import part_of, split
from isc.data.csv_files import write_csv

SAMPLE = Path(isc.__file__).parent / "sample"


def test_every_number_is_in_one_part():
    parts = [part_of(f"T{number:06d}") for number in range(24)]
    assert parts == parts[:12] * 2
    assert (parts.count("dev"), parts.count("test"), parts.count("training")) == (2, 2, 20)


def test_a_kept_list_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "KEPT", tmp_path / "apart.csv")
    assert apart.left_out() == frozenset()
    write_csv(apart.KEPT, apart.COLUMNS, iter([("T000012", "T000015", "0.1", 40, "0.9")]))
    assert apart.left_out() == {"T000012"}


def test_a_split_leaves_out_what_the_training_photos_show(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, path in enumerate(sorted(SAMPLE.glob("*.jpg"))[:26]):
        (photos / f"T{number:06d}.jpg").write_bytes(path.read_bytes())
    monkeypatch.setattr(apart, "left_out", lambda: frozenset({"T000012", "T000001"}))
    counts = split(photos, tmp_path / "split")
    listed = {part: {path.stem for path in (tmp_path / "split" / part).iterdir()} for part in counts}
    assert listed["dev"] == {"T000000", "T000024"}
    assert listed["test"] == {"T000013", "T000025"}
    assert not listed["training"] & {"T000012", "T000001"}
    assert sum(counts.values()) == 24


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A split whose dev holds a crop of a training photo, a recompressed one, and two that are nowhere else."""
    root = tmp_path_factory.mktemp("apart")
    paths = sorted(SAMPLE.glob("*.jpg"))[:30]
    for part in ("dev", "training"):
        (root / "split" / part).mkdir(parents=True)
    for path in paths[:28]:
        (root / "split" / "training" / path.name).write_bytes(path.read_bytes())
    for path in paths[28:]:
        (root / "split" / "dev" / path.name).write_bytes(path.read_bytes())
    picture = cv2.imread(str(paths[3]))
    high, wide = picture.shape[:2]
    cv2.imwrite(str(root / "split" / "dev" / "cropped.jpg"), picture[high // 10 :, : wide - wide // 10])
    cv2.imwrite(str(root / "split" / "dev" / "saved.jpg"), cv2.imread(str(paths[7])), [cv2.IMWRITE_JPEG_QUALITY, 40])
    return paths, list(apart.same_in(root / "split", "dev", root / "work"))


def test_photos_that_show_the_same_are_found_and_no_others(found):
    paths, rows = found
    assert {(row[0], row[1]) for row in rows} == {("cropped", paths[3].stem), ("saved", paths[7].stem)}
    assert all(float(row[2]) < 0.9 and row[3] >= 12 and float(row[4]) >= 0.4 for row in rows)
