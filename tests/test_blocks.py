"""An extraction on its way: blocks are whole or absent, and belong to one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import isc.extract.blocks
from isc.errors import InputError
from isc.extract.blocks import (
    Block,
    Run,
    block_path,
    block_size,
    joined,
    open_store,
    parts_folder,
    read_block,
    write_block,
)
from isc.extract.run import regrouped

MADE_BY = {"model": "m", "image_size": "64"}


def block(rows, failures=(), views=1, dim=3):
    """Vectors that say which photo and view they are of."""
    rows = np.array(rows, np.int64)
    vectors = np.zeros((len(rows), views, dim), np.float32)
    vectors[:] = rows[:, None, None] + np.arange(views)[None, :, None] / 10
    return Block(rows, vectors, {row: f"photo {row} is torn" for row in failures})


def same(one, two):
    np.testing.assert_array_equal(one.rows, two.rows)
    np.testing.assert_array_equal(one.vectors, two.vectors)
    assert one.failures == two.failures
    assert (one.regions is None) == (two.regions is None)
    if one.regions is not None:
        np.testing.assert_array_equal(one.regions, two.regions)


def with_regions(one):
    return replace(one, regions=np.arange(8.0 * len(one.rows)).reshape(-1, 2, 4))


@pytest.fixture
def output(tmp_path):
    return tmp_path / "made" / "d.h5"


def opened(output, *, count=10, size=4, provenance=MADE_BY, row_bytes=100, overwrite=False):
    return open_store(output, Run(count, size, provenance), row_bytes=row_bytes, overwrite=overwrite)


# --- one block -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "failures"), [([0, 2, 3], [1]), ([], [0, 1]), ([5], [])])
def test_a_block_comes_back_as_it_was(tmp_path, rows, failures):
    for one in (block(rows, failures, views=2), with_regions(block(rows, failures, views=2))):
        write_block(tmp_path, 7, one)
        same(read_block(tmp_path, 7), one)
    assert {path.name for path in tmp_path.iterdir()} == {"00000007.npz"}


def test_a_block_of_another_shape_cannot_be_built():
    with pytest.raises(ValueError, match="expected \\[P, V, D\\]"):
        Block(np.arange(2), np.zeros((3, 1, 4), np.float32), {})
    for shape in ((3, 2, 4), (2, 4), (2, 2, 3)):
        with pytest.raises(ValueError, match="expected \\[P, K, 4\\]"):
            Block(np.arange(2), np.zeros((2, 1, 4), np.float32), {}, np.zeros(shape))


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-9], lambda data: b"\0" * len(data)])
def test_a_damaged_block_is_refused_by_file_and_made_again(output, damage):
    with opened(output) as store:
        for number in range(3):
            write_block(store.folder, number, block(store.run.rows(number)))
        path = block_path(store.folder, 1)
        path.write_bytes(damage(path.read_bytes()))
        assert store.missing() == [1]
        with pytest.raises(InputError, match=r"00000001\.npz: cannot be read.*run the same command again"):
            list(store.blocks())
        with pytest.raises(InputError, match=r"00000001\.npz"):
            store.failures()


# --- the run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4, 5, 8, 10])
def test_the_blocks_are_all_photos_once(count):
    run = Run(count, 4, {})
    assert [row for number in range(len(run)) for row in run.rows(number)] == list(range(count))
    assert all(len(run.rows(number)) for number in range(len(run)))


@pytest.mark.parametrize(
    ("count", "size"), [(1, 256), (262_144, 256), (262_145, 512), (10_000_000, 16_384), (10**9, 16_384)]
)
def test_blocks_are_small_where_little_is_lost_and_few_where_there_are_millions(count, size):
    assert block_size(count) == size


def test_what_is_missing_is_what_was_not_written(output):
    with opened(output) as store:
        assert store.missing() == [0, 1, 2]
        write_block(store.folder, 1, block([4, 6, 7], [5]))
        assert store.missing() == [0, 2]
    with opened(output) as store:
        assert store.missing() == [0, 2]
        for number in (0, 2):
            write_block(store.folder, number, block(store.run.rows(number)))
        assert [found.rows.tolist() for found in store.blocks()] == [[0, 1, 2, 3], [4, 6, 7], [8, 9]]
        assert store.failures() == {5: "photo 5 is torn"}
        store.remove()
    assert list(output.parent.iterdir()) == []


def test_a_folder_in_which_nothing_was_finished_goes(output):
    with opened(output) as store:
        assert parts_folder(output).is_dir()
        assert store.missing()
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"provenance": {**MADE_BY, "image_size": "96"}}, "image_size=64, now image_size=96"),
        ({"provenance": {"model": "m"}}, "image_size=64, now image_size=None"),
        ({"provenance": {**MADE_BY, "views": "flip"}}, "views=None, now views=flip"),
        ({"count": 11}, "images=10, now images=11"),
        ({"size": 8}, "block=4, now block=8"),
    ],
)
def test_blocks_of_another_run_are_refused_unless_overwritten(output, change, named):
    with opened(output) as store:
        write_block(store.folder, 0, block([0, 1, 2, 3]))
    with (
        pytest.raises(InputError, match=rf"d\.h5\.parts: was begun with {named}.*overwrite=true"),
        opened(output, **change),
    ):
        pass
    assert block_path(parts_folder(output), 0).exists()
    with opened(output, overwrite=True) as store:  # of the same run, so there is nothing to throw away
        assert store.missing() == [1, 2]
    with opened(output, overwrite=True, **change) as store:
        assert 0 in store.missing()


def test_a_damaged_run_file_is_refused_unless_overwritten(output):
    with opened(output) as store:
        write_block(store.folder, 0, block([0, 1, 2, 3]))
    (parts_folder(output) / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json: cannot be read.*overwrite=true"), opened(output):
        pass
    with opened(output, overwrite=True) as store:
        assert store.missing() == [0, 1, 2]


# --- disks -----------------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output=.*file/d\.h5: cannot be written"), opened(tmp_path / "file" / "d.h5"):
        pass


def test_a_disk_without_room_is_refused_at_once(output, monkeypatch):
    """Twice the rows, and what a disk should have left."""
    room = 10 * 1_000_000 * 2 + isc.extract.blocks.SPARE
    monkeypatch.setattr(
        isc.extract.blocks.shutil, "disk_usage", lambda path: os.terminal_size((0, room - 1)) and _Free(room - 1)
    )
    with (
        pytest.raises(InputError, match=r"0\.09 GB free; expected at least 0\.09 GB for 10 photos"),
        opened(output, row_bytes=1_000_000),
    ):
        pass
    monkeypatch.setattr(isc.extract.blocks.shutil, "disk_usage", lambda path: _Free(room))
    with opened(output, row_bytes=1_000_000) as store:
        write_block(store.folder, 0, block([0, 1, 2, 3]))
    monkeypatch.setattr(isc.extract.blocks.shutil, "disk_usage", lambda path: _Free(room - 4_000_000))
    with opened(output, row_bytes=1_000_000) as store:  # the block that is there needs no more room
        assert store.missing() == [1, 2]


class _Free:
    def __init__(self, free):
        self.free = free


# --- one process at a time -------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from isc.extract.blocks import Run, open_store
with open_store(Path(sys.argv[1]), Run(10, 4, {"model": "m", "image_size": "64"}), row_bytes=100, overwrite=False):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_do_not_lead_one_run(output):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(output)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"process {holder.pid} on .* has been writing since"), opened(output):
            pass
    finally:
        holder.kill()
        holder.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with opened(output) as store:  # the lock died with its holder
                assert json.loads((store.folder / "run.json").read_text()) == {**MADE_BY, "images": "10", "block": "4"}
            return
        except InputError:
            time.sleep(0.1)
    pytest.fail("the lock of a killed process is still held")


# --- pieces into blocks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("missing", [[0, 1, 2, 3], [1, 3], [0], [3], [2, 3]])
def test_pieces_of_any_size_become_the_blocks_wanted(piece, missing):
    """Unreadable photos stand at the edges of blocks and in the middle."""
    run, torn = Run(14, 4, {}), {0, 3, 4, 5, 6, 7, 13}
    rows = [row for number in missing for row in run.rows(number)]
    parts = [rows[start : start + piece] for start in range(0, len(rows), piece)]
    pieces = [block([r for r in part if r not in torn], [r for r in part if r in torn], views=2) for part in parts]
    found = list(regrouped(pieces, [(number, run.rows(number)) for number in missing]))
    assert [number for number, _ in found] == missing
    for number, made in found:
        wanted = run.rows(number)
        same(made, block([r for r in wanted if r not in torn], [r for r in wanted if r in torn], views=2))


def test_joining_keeps_the_order():
    same(joined([block([0], [1]), block([2, 4], [3])]), block([0, 2, 4], [1, 3]))


def test_regions_stay_with_their_photos():
    whole = with_regions(block([0, 2, 4], [1, 3]))
    early, late = (
        whole.part(whole.rows < 3, {1: "photo 1 is torn"}),
        whole.part(whole.rows >= 3, {3: "photo 3 is torn"}),
    )
    assert late.regions.tolist() == whole.regions[2:].tolist()
    same(joined([early, late]), whole)
    run = Run(5, 3, MADE_BY)
    (_, first), (_, second) = regrouped([whole], [(number, run.rows(number)) for number in (0, 1)])
    same(first, early)
    same(second, late)
