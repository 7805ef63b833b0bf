"""Features on disk: what goes in comes out, and nothing else does, whatever happened to process, file or disk."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from isc.errors import InputError
from isc.match.verification import feature_store as module
from isc.match.verification.feature_store import DATABASE, FeatureStore, num_bytes, pack, photo_key, unpack
from isc.match.verification.features import LocalFeatures, local_features
from isc.photos.decode import read_image
from isc.photos.folders import SAMPLE, list_images

PHOTOS = list(list_images(SAMPLE).values())[:6]
BLANK = local_features(np.full((40, 60, 3), 128, np.uint8))


@pytest.fixture(scope="module")
def described():
    return {photo_key(path): local_features(read_image(path)) for path in PHOTOS}


def same(one: LocalFeatures, two: LocalFeatures) -> bool:
    pairs = [(getattr(one, name.name), getattr(two, name.name)) for name in fields(one)]
    kinds = all(type(a) is type(b) and getattr(a, "dtype", None) == getattr(b, "dtype", None) for a, b in pairs)
    return kinds and all(np.array_equal(a, b) for a, b in pairs)


def rows(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / DATABASE)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return database.execute("SELECT count(*) FROM features").fetchone()[0]


def copied(folder: Path, source: Path = PHOTOS[0]) -> Path:
    path = folder / "photo.jpg"
    path.write_bytes(source.read_bytes())
    return path


@contextlib.contextmanager
def unprivileged():
    """Permissions do not hold root back."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def public():
    """A folder that everyone may reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


# --- what goes in comes out ------------------------------------------------------------------------------------------


def test_features_come_back_to_the_last_bit(described, tmp_path):
    assert FeatureStore(tmp_path / "a" / "b").put_many(described)
    found = FeatureStore(tmp_path / "a" / "b").get_many(described)
    assert found.keys() == described.keys()
    assert all(same(found[key], described[key]) for key in described)
    assert all(len(value) > 100 for value in found.values())


def test_features_of_a_blank_picture_are_there_though_empty(tmp_path):
    key = photo_key(PHOTOS[0])
    store = FeatureStore(tmp_path)
    store.put_many({key: BLANK})
    assert len(BLANK) == 0
    assert same(store.get_many([key])[key], BLANK)
    assert store.present([key]) == {key}


def test_no_more_bytes_than_said(described):
    for value in described.values():
        assert num_bytes(value) <= len(pack(value)) <= num_bytes(value) + 500
        assert num_bytes(value) == value.descriptors.size + 16 * len(value) + value.thumbnail.size + 768


def test_only_what_is_asked_for_comes_back(described, tmp_path):
    store = FeatureStore(tmp_path)
    keys = list(described)
    store.put_many({key: described[key] for key in keys[:4]})
    assert set(store.get_many(keys[2:])) == store.present(keys[2:]) == set(keys[2:4])
    assert store.get_many([]) == {}
    assert store.put_many({})


def test_more_photos_than_one_statement_takes(described, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOKUP", 2)
    store = FeatureStore(tmp_path)
    store.put_many(described)
    assert store.get_many([*described, *described]).keys() == described.keys()


def test_names_that_are_no_text(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9 'n\".jpg")
    path.write_bytes(PHOTOS[0].read_bytes())
    store = FeatureStore(tmp_path / "store")
    store.put_many({photo_key(path): BLANK})
    assert photo_key(path) in store.get_many([photo_key(path)])


def test_a_relative_path_means_the_same_photo(described, tmp_path, monkeypatch):
    path = copied(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert photo_key(Path("photo.jpg")) == photo_key(path)
    assert photo_key(Path("absent.jpg")) is None


# --- what is out of date ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["size", "time"])
def test_features_of_a_changed_file_are_not_used_and_are_replaced(change, described, tmp_path):
    path, store = copied(tmp_path), FeatureStore(tmp_path / "store")
    before = photo_key(path)
    store.put_many({before: BLANK})
    if change == "size":
        path.write_bytes(path.read_bytes() + b"\0")
        os.utime(path, ns=(before.mtime_ns, before.mtime_ns))
    else:
        os.utime(path, ns=(before.mtime_ns + 1, before.mtime_ns + 1))
    now = photo_key(path)
    assert now != before
    assert store.get_many([now]) == {}
    assert store.present([now]) == set()
    value = next(iter(described.values()))
    store.put_many({now: value})
    assert same(store.get_many([now])[now], value)
    assert rows(store.folder) == 1


def test_features_of_another_version_are_not_used_and_are_replaced(described, tmp_path, monkeypatch):
    store, key = FeatureStore(tmp_path), next(iter(described))
    store.put_many({key: BLANK})
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert store.get_many([key]) == {}
    store.put_many({key: described[key]})
    assert same(store.get_many([key])[key], described[key])
    assert rows(tmp_path) == 1


# --- what is damaged -------------------------------------------------------------------------------------------------


def test_no_part_of_a_value_reads_as_a_whole_one(described):
    whole = pack(next(iter(described.values())))
    assert unpack(whole) is not None
    for cut in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        assert unpack(whole[:cut]) is None
    for at in (0, 5, 40, len(whole) // 2, len(whole) - 1):
        assert unpack(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]) is None


def test_a_damaged_value_is_removed_with_a_warning(described, tmp_path, caplog):
    store = FeatureStore(tmp_path)
    store.put_many(described)
    store.close()
    bad = next(iter(described))
    with contextlib.closing(sqlite3.connect(store.path)) as database, database:
        database.execute("UPDATE features SET value = zeroblob(500) WHERE path = ?", (os.fsencode(bad.path),))
    assert store.get_many(described).keys() == described.keys() - {bad}
    assert [str(bad.path) in record.message for record in caplog.records] == [True]
    assert store.present(described) == described.keys() - {bad}


@pytest.mark.parametrize(("damage", "quick"), [("text", True), ("cut", False), ("holes", False)])
def test_a_damaged_database_is_refused_by_name(damage, quick, described, tmp_path):
    store = FeatureStore(tmp_path)
    store.put_many(described)
    store.close()
    content = store.path.read_bytes()
    damaged = {
        "text": b"no database at all, but more than a hundred bytes of text\n" * 3,
        "cut": content[: 3 * 16384],
        "holes": content[:16384] + b"\xff" * 16384 * 3 + content[4 * 16384 :],
    }
    store.path.write_bytes(damaged[damage])
    for action in (lambda: store.get_many(described), lambda: store.put_many(described), *[store.check] * quick):
        with pytest.raises(InputError, match=r"is damaged .*; remove it") as caught:
            action()
        assert str(caught.value).startswith(f"{store.path}: ")
        assert "\n" not in str(caught.value)
    store.path.unlink()
    assert FeatureStore(tmp_path).put_many(described)


def test_a_database_of_something_else_is_refused_and_left_alone(described, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as database, database:
        database.execute("CREATE TABLE features (mine TEXT)")
    content = (tmp_path / DATABASE).read_bytes()
    with pytest.raises(InputError, match="of something else"):
        FeatureStore(tmp_path).put_many(described)
    assert (tmp_path / DATABASE).read_bytes() == content


def test_another_layout_is_refused(described, tmp_path, monkeypatch):
    FeatureStore(tmp_path).put_many(described)
    monkeypatch.setattr(module, "LAYOUT", module.LAYOUT + 1)
    with pytest.raises(InputError, match="another version of isc; give another folder, or remove it"):
        FeatureStore(tmp_path).get_many(described)


def test_a_file_is_no_folder(tmp_path):
    path = copied(tmp_path)
    with pytest.raises(InputError, match=f"features={path}: is a file"):
        FeatureStore(path)


# --- where nothing can be stored -------------------------------------------------------------------------------------


def warned_once(caplog, store: FeatureStore) -> bool:
    return [str(store.path) in record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        True
    ]


def test_a_full_disk_costs_one_warning_and_what_is_there_stays_readable(described, tmp_path, monkeypatch, caplog):
    plain = module._open

    def small(path: Path) -> sqlite3.Connection:
        database = plain(path)
        database.execute("PRAGMA max_page_count = 24")
        return database

    monkeypatch.setattr(module, "_open", small)
    store, first = FeatureStore(tmp_path), next(iter(described))
    assert store.put_many({first: described[first]})
    assert not store.put_many(described)  # there is room for some of these
    assert not store.put_many(described)
    assert not store.writable
    assert warned_once(caplog, store)
    assert set(store.get_many(described)) == {first}
    store.close()
    assert rows(tmp_path) == 1


def test_room_is_left_on_the_disk(described, tmp_path, monkeypatch, caplog):
    store, first = FeatureStore(tmp_path), next(iter(described))
    assert store.put_many({first: described[first]})
    monkeypatch.setattr(module, "SPARE", shutil.disk_usage(tmp_path).total + 1)
    assert not store.put_many(described)
    assert not store.put_many(described)
    assert warned_once(caplog, store)
    assert set(store.get_many(described)) == {first}


def test_a_folder_that_cannot_be_made_costs_one_warning(described, public, caplog):
    store = FeatureStore(public / "store")
    with unprivileged():
        assert store.get_many(described) == {}
        assert not store.put_many(described)
        assert store.present(described) == set()
    assert warned_once(caplog, store)
    assert not store.folder.exists()


def test_a_store_that_may_only_be_read_is_read(described, public, caplog):
    some = dict(list(described.items())[:3])
    FeatureStore(public).put_many(some)
    with unprivileged():
        store = FeatureStore(public)
        assert set(store.get_many(described)) == set(some)
        assert not store.put_many(described)
        assert set(store.get_many(described)) == set(some)
        store.close()
        assert set(store.get_many(described)) == set(some)
    assert warned_once(caplog, store)


def test_a_database_that_stays_locked_costs_one_warning(described, tmp_path, monkeypatch, caplog):
    FeatureStore(tmp_path).put_many(described)
    monkeypatch.setattr(module, "WAIT", 0.05)
    store = FeatureStore(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not store.put_many(described)
        assert store.get_many(described).keys() == described.keys()
    assert not store.put_many(described)
    assert warned_once(caplog, store)


def test_a_database_that_cannot_be_read_for_a_while_costs_one_warning(described, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "WAIT", 0.05)
    store = FeatureStore(tmp_path)
    assert store.put_many(described)
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert store.get_many(described) == {}
        assert store.present(described) == set()
    assert warned_once(caplog, store)
    assert store.get_many(described).keys() == described.keys()


# --- several processes -----------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from isc.photos.folders import list_images, SAMPLE
from isc.photos.decode import read_image
from isc.match.verification.features import local_features
from isc.match.verification.feature_store import FeatureStore, photo_key
value = local_features(read_image(list(list_images(SAMPLE).values())[0]))
folder, photos, rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
keys = [photo_key(path) for path in sorted(photos.iterdir())]
store = FeatureStore(folder)
print("ready", flush=True)
for number in range(rounds):
    for start in range(0, len(keys), 8):
        assert store.put_many({key: value for key in keys[start : start + 8]})
    print("round", flush=True)
"""


def writer(folder: Path, photos: Path, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(photos), str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def many_photos(folder: Path) -> Path:
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.jpg").write_bytes(b"x")
    return folder


def test_two_processes_write_at_once(described, tmp_path):
    photos = many_photos(tmp_path / "photos")
    processes = [writer(tmp_path / "store", photos, 5) for _ in range(2)]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.stdout.close()
            process.wait()
    value = next(iter(described.values()))
    found = FeatureStore(tmp_path / "store").get_many(photo_key(path) for path in photos.iterdir())
    assert len(found) == rows(tmp_path / "store") == 40
    assert all(same(one, value) for one in found.values())


def test_a_killed_writer_leaves_whole_values(described, tmp_path):
    photos, value = many_photos(tmp_path / "photos"), next(iter(described.values()))
    for attempt in range(3):
        process = writer(tmp_path / "store", photos, 10_000)
        process.stdout.readline()
        if attempt:
            process.stdout.readline()
        time.sleep(0.003 + 0.011 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = FeatureStore(tmp_path / "store")
        found = store.get_many(photo_key(path) for path in photos.iterdir())
        assert all(same(one, value) for one in found.values())
        assert len(found) % 8 == 0
        assert store.put_many(described)
        store.close()
        assert rows(tmp_path / "store") == len(found) + len(described)


def test_a_forked_process_opens_the_database_anew(described, tmp_path):
    store = FeatureStore(tmp_path)
    store.put_many(described)
    here = store._database

    def in_child():
        found = store.get_many(described)
        sys.exit(0 if len(found) == len(described) and store._database is not here else 1)

    process = multiprocessing.get_context("fork").Process(target=in_child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert store._database is here
    assert pickle.loads(pickle.dumps(store))._database is None
