"""Datasets and loaders: the same samples whatever reads them, each photo once an epoch, unreadable ones named."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from isc import data
from isc.augment import Augmenter
from isc.config import AugmentConfig
from isc.data import Photos, TrainingViews, photo_loader, training_loader, worker_count
from isc.images import list_images, read_image, resize

PATHS = list(list_images(Path(data.__file__).parent / "sample").values())[:7]
SIZE = 32
PLAIN = AugmentConfig(min_crop=1.0, **{name: 0.0 for name in vars(AugmentConfig()) if name != "min_crop"})


@pytest.fixture(autouse=True)
def no_opencv_threads():
    """A worker forked from OpenCV's threads may wait for ever: `test_workers_start_after_opencv` asks that."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def views(paths: list[Path] = PATHS, *, seed: int = 0, config: AugmentConfig | None = None) -> TrainingViews:
    return TrainingViews(paths, Augmenter(config or AugmentConfig(), size=SIZE), seed=seed)


def equal(a: object, b: object) -> bool:
    return a.instance == b.instance and (a.mild == b.mild).all() and (a.hard == b.hard).all()


@pytest.fixture
def some_torn(tmp_path) -> list[Path]:
    """Seven photos, of which numbers 2 and 3 cannot be read."""
    paths = [tmp_path / path.name for path in PATHS]
    for source, target in zip(PATHS, paths, strict=True):
        shutil.copy(source, target)
    paths[2].write_bytes(b"not a picture")
    paths[3].unlink()
    return paths


# --- training --------------------------------------------------------------------------------------------------------


def test_a_sample_depends_on_seed_and_number_alone():
    numbers = [0, 3, 6, 7, 20, 3]
    first = views()
    forward = [first[n] for n in numbers]
    backward = [first[n] for n in reversed(numbers)][::-1]  # back and forth between epochs
    fresh = [views()[n] for n in numbers]
    assert all(equal(a, b) and equal(a, c) for a, b, c in zip(forward, backward, fresh, strict=True))
    assert equal(forward[1], forward[5])
    other = [views(seed=1)[n] for n in numbers]
    assert not all(equal(a, b) for a, b in zip(forward, other, strict=True))


def test_the_same_photo_is_edited_otherwise_in_the_next_epoch():
    samples = [views()[n] for n in range(14)]
    for instance in range(7):
        one, two = (sample for sample in samples if sample.instance == instance)
        assert not np.array_equal(one.hard, two.hard)


@pytest.mark.parametrize("seed", range(3))
def test_each_epoch_visits_each_photo_once_in_its_own_order(seed):
    dataset = views(seed=seed, config=PLAIN)
    epochs = [[dataset[7 * epoch + i].instance for i in range(7)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4


def test_the_views_show_the_photo_of_their_number():
    """Without attacks the hard view is the photo itself, up to how it is resampled."""
    for n in range(7):
        sample = views(config=PLAIN)[n]
        distance = [np.abs(sample.hard.astype(float) - resize(read_image(p), SIZE)).mean() for p in PATHS]
        assert int(np.argmin(distance)) == sample.instance


def batches(dataset: TrainingViews, workers: int, first: int = 0, last: int = 4) -> list[data.Batch]:
    return list(training_loader(dataset, batch_size=3, first_step=first, last_step=last, workers=workers))


def test_workers_change_nothing(some_torn):
    for here, there in zip(batches(views(some_torn), 0), batches(views(some_torn), 2), strict=True):
        assert torch.equal(here.views, there.views)
        assert torch.equal(here.instances, there.instances)
        assert here.failures == there.failures


def test_batches_by_hand():
    dataset, found = views(), batches(views(), 0)
    assert len(found) == 4
    for step, batch in enumerate(found):
        samples = [views()[3 * step + i] for i in range(3)]
        assert batch.views.shape == (6, 3, SIZE, SIZE)
        assert batch.views.dtype == torch.uint8
        assert batch.instances.tolist() == [sample.instance for sample in samples] * 2
        for i, sample in enumerate(samples):
            assert (batch.views[i].permute(1, 2, 0).numpy() == sample.mild).all()
            assert (batch.views[3 + i].permute(1, 2, 0).numpy() == sample.hard).all()
    assert len(dataset.paths) == 7


def test_a_run_goes_on_where_it_was():
    whole, rest = batches(views(), 0, 0, 5), batches(views(), 0, 3, 5)
    assert len(rest) == 2
    assert all(torch.equal(a.views, b.views) for a, b in zip(whole[3:], rest, strict=True))


def test_unreadable_photos_are_replaced_by_the_next_and_reported(some_torn):
    dataset = views(some_torn)
    samples = [dataset[n] for n in range(21)]
    assert sorted(s.instance for s in samples[:7]) == [0, 1, 4, 4, 4, 5, 6]
    failures = [failure for sample in samples for failure in sample.failures]
    assert {path for path, _ in failures} == {str(some_torn[2]), str(some_torn[3])}
    assert all(Path(path).name in reason for path, reason in failures)
    whole = [views()[n] for n in range(21)]  # samples of readable photos do not suffer
    untouched = [(a, b) for a, b in zip(samples, whole, strict=True) if not a.failures]
    assert untouched
    assert all(equal(a, b) for a, b in untouched)
    reported = [failure for batch in batches(dataset, 0, 0, 7) for failure in batch.failures]
    assert reported == failures


def test_the_last_photo_is_replaced_by_the_first(tmp_path):
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(b"")
    dataset = views([PATHS[0], PATHS[1], torn])
    assert sorted(dataset[n].instance for n in range(3)) == [0, 0, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_where_no_photo_can_be_read_all_are_reported(workers, tmp_path):
    """The trainer stops on this; an error raised here would come through a worker with its traceback."""
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for batch in batches(views(paths), workers):
        assert {Path(path) for path, _ in batch.failures} == set(paths)


def test_one_photo_is_enough():
    assert [views(PATHS[:1])[n].instance for n in range(3)] == [0, 0, 0]


# --- extraction ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_photos_come_in_order_and_failures_by_row(workers, batch_size, some_torn):
    found = list(photo_loader(Photos(some_torn, size=SIZE), batch_size=batch_size, workers=workers))
    assert len(found) == -(-7 // batch_size)
    rows = [row for batch in found for row in batch.rows]
    assert rows == [0, 1, 4, 5, 6]
    failures = [failure for batch in found for failure in batch.failures]
    assert [row for row, _ in failures] == [2, 3]
    assert all(some_torn[row].name in reason for row, reason in failures)
    for batch in found:
        assert batch.pixels.dtype == torch.uint8
        assert len(batch.pixels) == len(batch.rows)
        for row, pixels in zip(batch.rows, batch.pixels, strict=True):
            assert (pixels.permute(1, 2, 0).numpy() == resize(read_image(some_torn[row]), SIZE)).all()


def test_a_batch_without_any_readable_photo(tmp_path):
    (found,) = photo_loader(Photos([tmp_path / "a.jpg", tmp_path / "b.jpg"], size=SIZE), batch_size=5, workers=0)
    assert (len(found.pixels), found.rows, [row for row, _ in found.failures]) == (0, [], [0, 1])


def test_no_photos():
    assert list(photo_loader(Photos([], size=SIZE), batch_size=5, workers=2)) == []


def test_worker_count(monkeypatch):
    for cores, expected in ((1, 1), (3, 3), (8, 8), (64, 8)):
        monkeypatch.setattr(data, "cores", lambda cores=cores: cores)
        assert worker_count(-1) == expected
        assert (worker_count(0), worker_count(5), worker_count(20)) == (0, 5, 20)


AFTER_OPENCV = """
import sys
import numpy as np
from pathlib import Path
from isc.data import Photos, photo_loader
from isc.images import resize
paths = [Path(path) for path in sys.argv[1:]]
resize(np.zeros((3000, 3000, 3), np.uint8), 500)
for _ in range(25):
    rows = [row for batch in photo_loader(Photos(paths, size=32), batch_size=1, workers=2) for row in batch.rows]
    assert rows == list(range(len(paths)))
"""


def test_workers_start_after_opencv():
    """OpenCV was used by the process, with its threads, before the workers are started: they must not hang."""
    with subprocess.Popen([sys.executable, "-c", AFTER_OPENCV, *map(str, PATHS)], start_new_session=True) as run:
        try:
            assert run.wait(timeout=25) == 0
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)  # with its workers
            raise
