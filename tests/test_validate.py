"""Judging while training: the figures are match.py's on the same descriptors, and what is no benchmark is refused."""

from __future__ import annotations

import csv
import logging
import shutil

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from isc.config.choices import Engine, Precision
from isc.config.match import MatchConfig
from isc.data.csv_files import read_ground_truth
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import read_descriptors
from isc.errors import InputError
from isc.match.run import match
from isc.model.load import load_model
from isc.search.exact import best_pairs, nearest
from isc.train.neighbours import nearest_rows
from isc.train.validation import PAIRS_A_QUERY, Validation, _best_pairs

JUDGED = {"image_size": 64, "workers": 0, "precision": Precision.float32}


@pytest.fixture(scope="module")
def model():
    return load_model("imagenet")


def pairs_of(queries: Descriptors, references: Descriptors):
    return _best_pairs(queries.ids, references.ids, queries.vectors, references.vectors)


def test_best_pairs_are_those_of_the_exact_search(descriptors):
    queries, references = (read_descriptors(descriptors / f"{side}.h5") for side in ("queries", "references"))
    mine = pairs_of(queries, references)
    exact = best_pairs(queries, references, num_pairs=PAIRS_A_QUERY * len(queries), engine=Engine.numpy)
    assert len(mine) == PAIRS_A_QUERY * len(queries)
    for name in ("query", "reference", "score"):
        assert getattr(mine, name).tobytes() == getattr(exact, name).tobytes()


class Largest(TorchDispatchMode):
    """Notes the largest tensor that an operation makes."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        made = found if isinstance(found, tuple | list) else [found]
        self.number = max([self.number, *(one.numel() for one in made if isinstance(one, torch.Tensor))])
        return found


def test_no_tensor_holds_the_distances_of_all_pairs():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2500, 4)).astype(np.float32)
    ids = [str(row) for row in range(2500)]
    with Largest() as watch:
        found = pairs_of(Descriptors(ids, vectors), Descriptors(ids, vectors))
    assert (found.query[:2500] == found.reference[:2500]).all()
    assert 0 < watch.number < 2500 * 2500


@pytest.mark.parametrize("block", [7, 4096])
def test_the_nearest_other_rows_are_those_of_the_exact_search(descriptors, block):
    vectors = read_descriptors(descriptors / "queries.h5").vectors
    found = nearest_rows(torch.from_numpy(vectors), 5, block=block).numpy()
    row, distance = nearest(vectors, vectors, k=6)
    own = np.arange(len(vectors))[:, None]
    assert ((row == own).sum(axis=1) == 1).all()  # no two photos have the same descriptor
    assert found.shape == (len(vectors), 5)
    assert (found != own).all()
    assert (np.diff(np.sort(found, axis=1), axis=1) > 0).all()
    # rows whose distances differ by less than the rounding of float32 may change places
    there = ((vectors[own] - vectors[found]).astype(np.float64) ** 2).sum(axis=-1)
    np.testing.assert_allclose(there, distance[row != own].reshape(-1, 5), atol=1e-5)


def test_fewer_pairs_than_asked_for_are_all_of_them():
    queries = Descriptors(["a", "b"], np.eye(2, 4, dtype=np.float32))
    references = Descriptors(["c"], np.eye(1, 4, dtype=np.float32))
    found = pairs_of(queries, references)
    scores = {found.pair(row): found.score[row] for row in range(2)}
    assert scores == {"a,c": 0.0, "b,c": pytest.approx(-2.0)}


def test_the_figures_are_those_of_match(model, benchmark, descriptors, tmp_path):
    """isc.search's pairs of the same model's descriptors, judged by match.py: the same to 1e-6."""
    validation = Validation.of(str(benchmark))
    found = validation.judge(model, **JUDGED)
    told = match(
        MatchConfig(
            queries=str(descriptors / "queries.h5"),
            references=str(descriptors / "references.h5"),
            ground_truth=str(benchmark / "ground_truth.csv"),
            output=str(tmp_path / "out"),
        )
    )
    assert 0.05 < told.average_precision < 1  # there is something to compare
    for name in ("average_precision", "recall_at_p90", "recall_at_rank1", "recall_at_rank10"):
        assert getattr(found, name) == pytest.approx(getattr(told, name), abs=1e-6), name
    assert found.num_positives == told.num_positives
    assert found.num_dropped == 0


def test_judging_leaves_the_model_as_it_was(model, benchmark):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Validation.of(str(benchmark)).judge(model, **JUDGED)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.fixture
def copied(benchmark, tmp_path):
    for name in ("queries", "references"):
        shutil.copytree(benchmark / name, tmp_path / "made" / name)
    shutil.copy(benchmark / "ground_truth.csv", tmp_path / "made")
    return tmp_path / "made"


def test_unreadable_photos_are_left_out_and_named(model, copied, caplog):
    """A query that cannot be read has no prediction; its true pair is missed."""
    query, _ = next(iter(sorted(read_ground_truth(copied / "ground_truth.csv").pairs)))
    (copied / "queries" / f"{query}.jpg").write_bytes(b"no photo")
    with caplog.at_level(logging.WARNING):
        found = Validation.of(str(copied)).judge(model, **JUDGED)
    whole = read_ground_truth(copied / "ground_truth.csv")
    assert found.num_positives == len(whole.pairs)
    assert f"{query}.jpg" in caplog.text
    assert found.num_predictions == PAIRS_A_QUERY * (len(list((copied / "queries").iterdir())) - 1)


def test_nothing_readable_is_a_score_of_0(model, copied):
    for path in (copied / "references").iterdir():
        path.write_bytes(b"no photo")
    assert Validation.of(str(copied)).judge(model, **JUDGED).average_precision == 0


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", ["queries", "references", "ground_truth.csv"])
def test_a_folder_that_is_no_benchmark(copied, absent):
    (shutil.rmtree if (copied / absent).is_dir() else type(copied).unlink)(copied / absent)
    with pytest.raises(InputError, match=rf"validation=.*made: no {absent}; expected queries/, references/ and"):
        Validation.of(str(copied))


def test_a_folder_without_photos(copied):
    shutil.rmtree(copied / "queries")
    (copied / "queries").mkdir()
    with pytest.raises(InputError, match=r"validation=.*queries: holds no image"):
        Validation.of(str(copied))


@pytest.mark.parametrize(("row", "side"), [(["Q99999", ""], "queries"), (["Q00000", "R999999"], "references")])
def test_a_ground_truth_of_other_photos(copied, row, side):
    with (copied / "ground_truth.csv").open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(row)
    named = row[1] or row[0]
    with pytest.raises(InputError, match=rf"validation=.*ground_truth\.csv names '{named}', which is not in {side}/"):
        Validation.of(str(copied))
