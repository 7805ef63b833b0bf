"""Descriptors that are read a block at a time."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from isc.descriptors import Descriptors
from isc.errors import InputError
from isc.io import descriptor_blocks, read_descriptors, write_descriptors, write_submission
from isc.search import best_pairs


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return tuple(
        Descriptors([f"{a}{i:02d}" for i in range(n)], rng.normal(size=(n, 6))) for a, n in (("Q", 23), ("R", 31))
    )


@pytest.mark.parametrize("rows", [1, 5, 22, 23, 24, 1000])
def test_blocks_together_are_the_file(sets, rows, tmp_path):
    write_descriptors(tmp_path / "q.h5", sets[0], {})
    blocks = list(descriptor_blocks(tmp_path / "q.h5", rows=rows))
    assert [len(block) for block in blocks] == [min(rows, 23 - start) for start in range(0, 23, rows)]
    assert np.concatenate([block.vectors for block in blocks]).tobytes() == sets[0].vectors.tobytes()
    assert [name for block in blocks for name in block.ids] == list(sets[0].ids)


def test_blocks_of_a_submission_by_role(sets, tmp_path):
    write_submission(tmp_path / "s.h5", *sets, {})
    for role, expected in zip(("query", "reference"), sets, strict=True):
        blocks = list(descriptor_blocks(tmp_path / "s.h5", rows=7, role=role))
        assert np.concatenate([block.vectors for block in blocks]).tobytes() == expected.vectors.tobytes()


def test_a_search_in_blocks_is_the_search(sets, tmp_path):
    write_descriptors(tmp_path / "q.h5", sets[0], {})
    whole = best_pairs(read_descriptors(tmp_path / "q.h5"), sets[1], num_pairs=99)
    split = best_pairs(descriptor_blocks(tmp_path / "q.h5", rows=4), sets[1], num_pairs=99)
    assert (split.query == whole.query).all()
    assert (split.reference == whole.reference).all()
    assert split.score.tobytes() == whole.score.tobytes()


def test_errors_count_rows_from_the_start_of_the_file(sets, tmp_path):
    path = tmp_path / "q.h5"
    write_descriptors(path, sets[0], {})
    with h5py.File(path, "a") as file:
        file["vectors"][17, 2] = np.nan
    blocks = descriptor_blocks(path, rows=5)
    assert [len(next(blocks)) for _ in range(3)] == [5, 5, 5]
    with pytest.raises(InputError, match=r"q\.h5: 'vectors' row 17: id 'Q17' has NaN"):
        next(blocks)
    with h5py.File(path, "a") as file:
        file["image_names"][12] = b" Q"
    with pytest.raises(InputError, match=r"q\.h5: image_names row 12: id ' Q' has blanks"):
        list(descriptor_blocks(path, rows=5))
    with h5py.File(path, "a") as file:
        file["image_names"][12] = file["image_names"][11]
    with pytest.raises(InputError, match=r"row 12: id 'Q11' was already given in row 11"):
        list(descriptor_blocks(path, rows=5))


def test_an_id_in_two_blocks_is_refused_by_the_search(sets, tmp_path):
    path = tmp_path / "q.h5"
    write_descriptors(path, sets[0], {})
    with h5py.File(path, "a") as file:
        file["image_names"][12] = file["image_names"][2]
    with pytest.raises(InputError, match=r"query ids 2 and 12: 'Q02' occurs twice"):
        best_pairs(descriptor_blocks(path, rows=5), sets[1], num_pairs=9)


def test_refusals(tmp_path, sets):
    with pytest.raises(InputError, match=r"none\.h5: no such file"):
        list(descriptor_blocks(tmp_path / "none.h5", rows=5))
    write_descriptors(tmp_path / "q.h5", sets[0], {})
    with pytest.raises(InputError, match="rows=0; expected at least 1"):
        list(descriptor_blocks(tmp_path / "q.h5", rows=0))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["other"] = 1
    with pytest.raises(InputError, match="has no dataset 'vectors'"):
        list(descriptor_blocks(tmp_path / "other.h5", rows=5))
