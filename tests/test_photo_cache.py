"""The cache of decoded training photos: the same pixels, each decoded once, within its bound."""

from __future__ import annotations

import dataclasses
import multiprocessing
import shutil
import sqlite3
import time

import numpy as np
import pytest
import safetensors.torch
import torch

from isc.config.train import AugmentConfig
from isc.errors import InputError
from isc.photos.resizing import fit_within
from isc.photos.sources import list_photos
from isc.train import photo_cache as module
from isc.train.augment.augmenter import Augmenter
from isc.train.dataset import Source, TrainingViews
from isc.train.photo_cache import CACHE_FILE, PhotoCache
from isc.train.run import train
from tests.conftest import SAMPLE
from tests.test_train import TINY, config, names, rows_of

LONGEST = 96


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for source in sorted(SAMPLE.glob("*.jpg"))[:8]:
        shutil.copy(source, folder)
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """The number of pictures decoded so far."""
    counted, read_image = [], module.read_image
    monkeypatch.setattr(module, "read_image", lambda data, name: counted.append(name) or read_image(data, name=name))
    return counted


def cache_in(folder, gigabytes=1.0) -> PhotoCache:
    made = PhotoCache.of(folder, gigabytes)
    assert made is not None
    return made


def test_each_photo_is_decoded_once_and_has_the_pixels_of_no_cache(photos, tmp_path, decoded):
    listed = list_photos([str(photos)])
    for _ in range(2):  # the second time by a new object, as in a resumed run
        cache = cache_in(tmp_path)
        for number in range(len(listed)):
            found = cache.photo(listed, number, longest=LONGEST)
            np.testing.assert_array_equal(found, fit_within(listed.read(number), LONGEST))
            found[:] = 0  # a picture of its own, which may be edited
    assert len(decoded) == len(listed) == 8


def test_another_size_and_a_changed_photo_are_decoded_anew(photos, tmp_path, decoded):
    listed, cache = list_photos([str(photos)]), cache_in(tmp_path)
    cache.photo(listed, 0, longest=LONGEST)
    cache.photo(listed, 0, longest=LONGEST // 2)
    shutil.copy(photos / "S001.jpg", photos / "S000.jpg")  # of the same name
    changed = cache.photo(listed, 0, longest=LONGEST)
    np.testing.assert_array_equal(changed, fit_within(listed.read(1), LONGEST))
    cache.photo(listed, 1, longest=LONGEST)  # the same content under another name
    assert len(decoded) == 3


def test_views_are_the_same_bytes(photos, tmp_path):
    source, augmenter = Source(list_photos([str(photos)])), Augmenter(AugmentConfig(), size=48)
    plain, cached = (TrainingViews(source, augmenter, seed=3, cache=one) for one in (None, cache_in(tmp_path)))
    for number in (0, 1, 5, 0):
        one, other = plain[number], cached[number]
        np.testing.assert_array_equal(one.mild, other.mild)
        np.testing.assert_array_equal(one.hard[0].pixels, other.hard[0].pixels)


@pytest.mark.slow
def test_a_run_with_the_cache_is_the_run_without_and_goes_on_with_another_size(photos, tmp_path):
    train(config(photos, tmp_path / "plain"))
    train(config(photos, tmp_path / "cached", photo_cache_gb=0.5))
    one, two = (safetensors.torch.load_file(tmp_path / run / "model.safetensors") for run in ("plain", "cached"))
    assert all(torch.equal(one[name], two[name]) for name in one.keys() | two.keys())
    logs = [[row[:-1] for row in rows_of(tmp_path / run / "log.csv")] for run in ("plain", "cached")]
    assert logs[0] == logs[1]
    assert names(tmp_path / "cached") - names(tmp_path / "plain") == {CACHE_FILE}
    longer = dataclasses.replace(TINY, steps=5)
    train(config(photos, tmp_path / "cached", photo_cache_gb=0.1, resume=True, train=longer))


def test_the_file_stays_within_its_bound(photos, tmp_path, decoded):
    listed, limit = list_photos([str(photos)]), 150_000
    cache = cache_in(tmp_path, limit / 1e9)
    for number in (*range(len(listed)), *range(len(listed))):
        found = cache.photo(listed, number, longest=LONGEST)
        np.testing.assert_array_equal(found, fit_within(listed.read(number), LONGEST))
    assert 50_000 < (tmp_path / CACHE_FILE).stat().st_size <= limit + 2 * 16384
    assert len(listed) < len(decoded) < 2 * len(listed)


def test_a_nearly_full_disk_is_left_alone(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 10**10, 1000))
    cache_in(tmp_path).photo(list_photos([str(photos)]), 0, longest=LONGEST)
    assert sqlite3.connect(tmp_path / CACHE_FILE).execute("SELECT count(*) FROM photos").fetchone() == (0,)


def test_spoiled_pixels_are_decoded_again(photos, tmp_path, decoded):
    listed, cache = list_photos([str(photos)]), cache_in(tmp_path)
    expected = cache.photo(listed, 0, longest=LONGEST)
    sqlite3.connect(tmp_path / CACHE_FILE, isolation_level=None).execute("UPDATE photos SET crc = crc + 1")
    np.testing.assert_array_equal(cache_in(tmp_path).photo(listed, 0, longest=LONGEST), expected)
    assert len(decoded) == 2


def test_a_damaged_file_is_named(photos, tmp_path):
    (tmp_path / CACHE_FILE).write_bytes(b"no database" * 3000)
    with pytest.raises(InputError, match=r"photos\.cache: is damaged or no cache of photos .*; remove it"):
        cache_in(tmp_path).photo(list_photos([str(photos)]), 0, longest=LONGEST)


def test_a_place_that_cannot_be_written_costs_a_warning_alone(photos, tmp_path, caplog):
    (tmp_path / CACHE_FILE).mkdir()
    listed, cache = list_photos([str(photos)]), cache_in(tmp_path)
    for number in (0, 1):
        np.testing.assert_array_equal(
            cache.photo(listed, number, longest=LONGEST), fit_within(listed.read(number), LONGEST)
        )
    assert ["cannot be kept there" in record.message for record in caplog.records] == [True]


def test_an_unreadable_photo_is_refused_as_without_a_cache(photos, tmp_path):
    (photos / "S000.jpg").write_bytes((photos / "S000.jpg").read_bytes()[:900])
    listed = list_photos([str(photos)])
    with pytest.raises(InputError) as cached:
        cache_in(tmp_path).photo(listed, 0, longest=LONGEST)
    with pytest.raises(InputError) as plain:
        listed.read(0)
    assert str(cached.value) == str(plain.value)


def _read_all(photos, folder, failures) -> None:
    listed, cache = list_photos([str(photos)]), cache_in(folder)
    for number in (*range(len(listed)), *range(len(listed))):
        if (cache.photo(listed, number, longest=LONGEST) != fit_within(listed.read(number), LONGEST)).any():
            failures.put(number)


def test_processes_share_the_file(photos, tmp_path):
    context = multiprocessing.get_context("fork")
    failures = context.SimpleQueue()
    processes = [context.Process(target=_read_all, args=(photos, tmp_path, failures)) for _ in range(3)]
    for one in processes:
        one.start()
    for one in processes:
        one.join(timeout=120)
    assert [one.exitcode for one in processes] == [0, 0, 0]
    assert failures.empty()
    assert sqlite3.connect(tmp_path / CACHE_FILE).execute("SELECT count(*) FROM photos").fetchone() == (8,)


def test_a_size_below_zero_is_refused(photos, tmp_path):
    with pytest.raises(InputError, match="photo_cache_gb=-1: expected a finite size, at least 0"):
        config(photos, tmp_path, photo_cache_gb=-1)


def test_reading_is_faster_than_decoding(tmp_path):
    """Of photos that are larger than their views, as most are."""
    from isc.photos.decode import encode_jpeg

    folder, rng = tmp_path / "large", np.random.default_rng(0)
    folder.mkdir()
    for number in range(4):
        grain = rng.integers(0, 40, (1200, 1600, 3), np.uint8)
        grain += np.linspace(0, 200, 1600).astype(np.uint8)[:, None]
        (folder / f"{number}.jpg").write_bytes(encode_jpeg(grain, quality=90))
    listed, cache = list_photos([str(folder)]), cache_in(tmp_path)
    taken = []
    for _ in range(3):
        start = time.thread_time()
        for number in range(4):
            cache.photo(listed, number, longest=320)
        taken.append(time.thread_time() - start)
    assert 3 * min(taken[1:]) < taken[0]
