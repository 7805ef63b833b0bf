"""match.py end to end: what it writes, what it refuses by file, row and id, and that it writes whole or not at all."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from isc.data.csv_files import read_ground_truth, read_predictions
from isc.data.descriptors import Descriptors
from isc.data.matches import GroundTruth, Matches
from isc.evaluate.bootstrap import bootstrap, intervals
from isc.evaluate.metrics import evaluate
from isc.evaluate.report.comparison import compare, read_run
from isc.match import outputs
from isc.match.inputs import DescriptorSets
from isc.match.outputs import write_views
from isc.match.verification.fusion_files import fusion_for
from isc.match.verification.quantities import EVIDENCE
from isc.search.multi_view import ImagePairs

QUERIES, REFERENCES, DIM = 6, 30, 8
Q = [f"Q{i:05d}" for i in range(QUERIES)]
R = [f"R{i:06d}" for i in range(REFERENCES)]
DESCRIPTORS = ("queries=q.h5", "references=r.h5")
SUBMISSION = ("submission=s.h5", "ground_truth=gt.csv")
CSV = ("submission=p.csv", "ground_truth=gt.csv")
OUT = "output=out"
VIEWED_FILES = {"predictions.csv", "views.csv", "match.json", "metrics.json", "report"}


@dataclass(frozen=True)
class Vectors:
    queries: np.ndarray
    references: np.ndarray


def unit_vectors(count, dim, rng):
    vectors = rng.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    references = unit_vectors(REFERENCES, DIM, rng)
    queries = unit_vectors(QUERIES, DIM, rng)
    queries[:3] = references[:3] + 0.05 * queries[:3]  # the first three are near copies
    return Vectors(queries / np.linalg.norm(queries, axis=1, keepdims=True), references)


@pytest.fixture
def scene(place, vectors):
    """q.h5, r.h5, t.h5, s.h5 (the submission of q and r), p.csv and gt.csv: three copies and three distractors."""
    place.hdf5("q.h5", vectors=vectors.queries, image_names=Q)
    place.hdf5("r.h5", vectors=vectors.references, image_names=R)
    place.hdf5(
        "t.h5", vectors=unit_vectors(40, DIM, np.random.default_rng(1)), image_names=[f"T{i}" for i in range(40)]
    )
    submission(place, vectors.queries, vectors.references)
    place.text("gt.csv", "query_id,reference_id\n" + "".join(f"{q},{R[i] if i < 3 else ''}\n" for i, q in enumerate(Q)))
    place.text("p.csv", "Q00000,R000000,0.9\nQ00003,R000004,0.8\nQ00001,R000001,0.7\n")
    return place


def submission(place, queries, references, query_ids=Q, reference_ids=R):
    place.hdf5("s.h5", query=queries, reference=references, query_ids=query_ids, reference_ids=reference_ids)


def rows_of(path: Path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def all_pairs(vectors):
    """The slow twin: every pair with its score, best first."""
    differences = vectors.queries[:, None].astype(np.float64) - vectors.references[None]
    distance = (differences**2).sum(axis=2)
    order = np.argsort(distance, axis=None, kind="stable")
    return [(Q[i // REFERENCES], R[i % REFERENCES], -distance.flat[i]) for i in order]


# --- what it writes --------------------------------------------------------------------------------------------------

KINDS = {
    "average_precision": float,
    "recall_at_p90": float,
    "threshold_at_p90": float,
    "recall_at_rank1": float,
    "recall_at_rank10": float,
    "num_predictions": int,
    "num_dropped": int,
    "num_positives": int,
    "tie_range": list,
    "intervals": dict,
}


@pytest.mark.slow
def test_a_run_writes_the_files_of_the_contract(scene, vectors):
    finished = scene.done("match", *DESCRIPTORS, "ground_truth=gt.csv", OUT)
    files = {p.relative_to(scene / "out").as_posix() for p in (scene / "out").rglob("*") if p.is_file()}
    assert files == {"predictions.csv", "submission.h5", "match.json", "metrics.json", "report/index.html"}

    header, *rows = rows_of(scene / "out" / "predictions.csv")
    assert header == ["query_id", "reference_id", "score"]
    expected = all_pairs(vectors)[: 10 * QUERIES]  # num_pairs where it is not given
    assert [tuple(row[:2]) for row in rows] == [pair[:2] for pair in expected]
    np.testing.assert_allclose([float(row[2]) for row in rows], [pair[2] for pair in expected], rtol=1e-6, atol=1e-9)

    with h5py.File(scene / "out" / "submission.h5") as file:
        assert {name: (file[name].shape, file[name].dtype) for name in file} == {
            "query": ((QUERIES, DIM), np.float32),
            "reference": ((REFERENCES, DIM), np.float32),
            "query_ids": ((QUERIES,), np.dtype("S6")),
            "reference_ids": ((REFERENCES,), np.dtype("S7")),
        }
        np.testing.assert_array_equal(file["query"], vectors.queries)
        np.testing.assert_array_equal(file["reference"], vectors.references)

    metrics = scene.json("out/metrics.json")
    assert {name: type(value) for name, value in metrics.items()} == KINDS
    assert metrics["average_precision"] == metrics["recall_at_p90"] == metrics["recall_at_rank1"] == 1.0
    assert metrics["tie_range"] == [1.0, 1.0]
    assert (metrics["num_predictions"], metrics["num_dropped"], metrics["num_positives"]) == (60, 0, 3)
    assert metrics["threshold_at_p90"] == float(rows[2][2])
    assert "1.0000" in finished.out


def test_a_run_says_what_made_its_scores(scene, vectors):
    made = {"weights": "gone", "weights_sha256": "ab" * 32}
    scene.hdf5("q.h5", made, vectors=vectors.queries, image_names=Q)
    scene.hdf5("r.h5", made, vectors=vectors.references, image_names=R)
    scene.done("match", *DESCRIPTORS, "training=t.h5", "normalize=pca:dim=5", "k=2", OUT, script=False)
    said = scene.json("out/match.json")
    assert said["format"] == "isc-match-1"
    assert (said["track"], said["scores"], said["k"]) == ("descriptor", "distance", 2)
    assert (said["queries"], said["references"], said["normalize"]) == (QUERIES, REFERENCES, "pca:dim=5")
    assert said["descriptors"]["weights_sha256"] == "ab" * 32


def test_figures_come_with_the_intervals_of_the_resamples(scene):
    finished = scene.done("match", *CSV, OUT, script=False)
    expected = intervals(bootstrap(read_predictions(scene / "p.csv"), read_ground_truth(scene / "gt.csv")))
    assert scene.json("out/metrics.json")["intervals"] == expected
    low, high = expected["average_precision"]
    assert low < high
    assert f"95 %: {low:.4f} … {high:.4f}" in finished.out


def test_many_predictions_are_judged_on_fewer_resamples(monkeypatch):
    monkeypatch.setattr(outputs, "MANY", 3)
    truth = GroundTruth(frozenset("abc"), frozenset({("a", "r")}))
    for count, resamples in ((2, 1000), (3, 200)):
        names = ["a", "b", "c"][:count]
        judgement = outputs.judge(Matches.from_ids(names, ["r"] * count, [0.5] * count), truth, other=None)
        assert len(judgement.resampled.recall) == resamples


def test_another_run_is_compared_with(scene, vectors):
    scene.done("match", *DESCRIPTORS, "ground_truth=gt.csv", "output=before", script=False)
    options = ("training=t.h5", "normalize=pca:dim=2", "ground_truth=gt.csv")
    finished = scene.done("match", *DESCRIPTORS, *options, "compare=before", OUT, script=False)
    truth = read_ground_truth(scene / "gt.csv")
    matches = read_predictions(scene / "out/predictions.csv")
    expected = compare(matches, truth, other=read_run(scene / "before", ground_truth=truth))
    assert scene.json("out/comparison.json") == json.loads(json.dumps(expected.as_dict()))
    assert expected.summary() in finished.out
    scene.done("match", *DESCRIPTORS, *options, OUT, script=False)
    assert not (scene / "out/comparison.json").exists()
    scene.done("match", *CSV, "compare=before", "output=judged", script=False)
    assert (scene / "judged/comparison.json").is_file()


def test_a_run_that_cannot_be_compared_with_is_refused(scene):
    scene.refused("match", *DESCRIPTORS, "compare=out", OUT, naming=("compare=out", "ground_truth=GT.csv"))
    scene.refused("match", *MATCH, "compare=nowhere", OUT, naming=("nowhere",))


def test_without_a_ground_truth_nothing_is_judged(scene):
    scene.done("match", *DESCRIPTORS, OUT)
    assert {p.name for p in (scene / "out").iterdir()} == {"predictions.csv", "submission.h5", "match.json", "report"}


@pytest.mark.parametrize(("option", "expected"), [("num_pairs=1", 1), ("num_pairs=17", 17), ("num_pairs=180", 180)])
def test_num_pairs_counts_over_all_queries_together(scene, vectors, option, expected):
    scene.done("match", *DESCRIPTORS, option, OUT, script=False)
    _, *rows = rows_of(scene / "out" / "predictions.csv")
    assert [tuple(row[:2]) for row in rows] == [pair[:2] for pair in all_pairs(vectors)[:expected]]


@pytest.mark.parametrize(
    ("option", "naming"),
    {
        "num_pairs=181": ("num_pairs=181", "180 pairs"),
        f"k={REFERENCES + 1}": (f"k={REFERENCES + 1}", f"{REFERENCES} references"),
        "memory_gb=1e-9": ("memory_gb=1e-09", "num_pairs=61 needs", "more memory"),
        "memory_gb=0": ("memory_gb=0", "expected a size above 0"),
        "engine=abacus": ("engine", "abacus", "numpy"),
    }.items(),
)
def test_more_than_there_is_is_refused(scene, option, naming):
    scene.refused("match", *DESCRIPTORS, option, OUT, naming=naming)


@pytest.mark.parametrize("engine", ["numpy", "torch", "torch_half", "faiss", "faiss_half"])
def test_every_engine_writes_the_same_predictions(scene, engine):
    scene.done("match", *DESCRIPTORS, OUT, script=False)
    scene.done("match", *DESCRIPTORS, f"engine={engine}", "memory_gb=0.5", "output=other", script=False)
    assert (scene / "other" / "predictions.csv").read_bytes() == (scene / "out" / "predictions.csv").read_bytes()


def test_an_approximate_index_that_looks_everywhere_is_exact(scene):
    rows = {}
    for name, *options in (("exact",), ("flat", "index=Flat"), ("ivf", "index=IVF4,Flat", "index_search=nprobe=4")):
        scene.done("match", *DESCRIPTORS, "training=t.h5", "k=3", *options, f"output={name}", script=False)
        rows[name] = (scene / name / "predictions.csv").read_bytes()
    assert rows["flat"] == rows["ivf"] == rows["exact"]
    scene.done("match", *DESCRIPTORS, "training=t.h5", "index=IVF4,Flat", "index_search=nprobe=4", OUT, script=False)
    scene.done("match", *DESCRIPTORS, "output=plain", script=False)
    assert (scene / "out" / "predictions.csv").read_bytes() == (scene / "plain" / "predictions.csv").read_bytes()


@pytest.mark.parametrize(
    ("options", "naming"),
    [
        (("index=IVF4,Flat",), ("index=IVF4,Flat", "training=T.h5")),
        (("index=Abacus", "training=t.h5"), ("index=Abacus", "expected one like")),
        (("index=IVF4,Flat", "training=t.h5", "index_search=nprobe"), ("nprobe", "NAME", "nprobe=32")[::2]),
        (("index_search=nprobe=3",), ("index_search=nprobe=3", "index=")),
        (("index=IVF4,Flat", "training=t.h5", "k=99"), ("k=99", "expected 1…")),
    ],
)
def test_an_index_that_cannot_be_is_refused(scene, options, naming):
    scene.refused("match", *DESCRIPTORS, *options, OUT, naming=naming)


def test_training_rows_that_are_references_are_refused_or_left_out(scene, vectors):
    with h5py.File(scene / "t.h5") as file, h5py.File(scene / "r.h5") as references:
        both = np.r_[file["vectors"][()], references["vectors"][()][2:3]]
        names = [f"T{i:02d}" for i in range(len(both))]
    scene.hdf5("mixed.h5", vectors=both, image_names=names)
    options = (*DESCRIPTORS, "training=mixed.h5", "normalize=whiten")
    naming = ("mixed.h5", f"row {len(both) - 1}", names[-1], "r.h5", "strict=false")
    scene.refused("match", *options, OUT, naming=naming)
    scene.done("match", *options, "strict=false", OUT, script=False)
    scene.done("match", *DESCRIPTORS, "training=t.h5", "normalize=whiten", "output=pure", script=False)
    assert (scene / "out" / "predictions.csv").read_bytes() == (scene / "pure" / "predictions.csv").read_bytes()


@pytest.mark.parametrize(("k", "expected"), [(1, 1), (4, 4), (REFERENCES, REFERENCES)])
def test_k_counts_for_each_query(scene, vectors, k, expected):
    scene.done("match", *DESCRIPTORS, f"k={k}", OUT, script=False)
    _, *rows = rows_of(scene / "out" / "predictions.csv")
    nearest = {q: [pair[:2] for pair in all_pairs(vectors) if pair[0] == q][:expected] for q in Q}
    assert len(rows) == QUERIES * expected
    assert {tuple(row[:2]) for row in rows} == {pair for pairs in nearest.values() for pair in pairs}
    assert [float(row[2]) for row in rows] == sorted((float(row[2]) for row in rows), reverse=True)


def test_a_submission_is_searched_again_to_the_same_predictions(scene):
    scene.done("match", *DESCRIPTORS, "ground_truth=gt.csv", OUT)
    scene.done("match", "submission=out/submission.h5", "ground_truth=gt.csv", "output=again", script=False)
    for name in ("predictions.csv", "metrics.json"):
        assert (scene / "again" / name).read_bytes() == (scene / "out" / name).read_bytes()
    assert not (scene / "again" / "submission.h5").exists()


@pytest.mark.parametrize(
    "method",
    ["pca:dim=5", "whiten", "subtract", "stretch", "score", "ssquare:neighbours=30", "whiten:dim=6+subtract+score"],
)
def test_a_normalised_submission_says_the_same_as_its_run(scene, method):
    options = ("training=t.h5", f"normalize={method}", "ground_truth=gt.csv")
    scene.done("match", *DESCRIPTORS, *options, OUT, script=False)
    scene.done("match", "submission=out/submission.h5", "ground_truth=gt.csv", "output=again", script=False)
    assert (scene / "again" / "predictions.csv").read_bytes() == (scene / "out" / "predictions.csv").read_bytes()
    scene.done("match", *DESCRIPTORS, "output=plain", script=False)
    assert (scene / "plain" / "predictions.csv").read_bytes() != (scene / "out" / "predictions.csv").read_bytes()


def test_the_halves_of_a_submission_are_descriptors_too(scene):
    scene.done("match", *DESCRIPTORS, OUT, script=False)
    scene.done("match", "queries=s.h5", "references=s.h5", "output=again", script=False)
    assert (scene / "again" / "predictions.csv").read_bytes() == (scene / "out" / "predictions.csv").read_bytes()


def test_rows_in_any_order_give_the_same_submission(scene, vectors):
    scene.done("match", *DESCRIPTORS, OUT, script=False)
    order = np.random.default_rng(2).permutation(REFERENCES)
    scene.hdf5("r.h5", vectors=vectors.references[order], image_names=[R[i] for i in order])
    scene.done("match", *DESCRIPTORS, "output=again", script=False)
    for name in ("predictions.csv", "submission.h5"):
        assert (scene / "again" / name).read_bytes() == (scene / "out" / name).read_bytes()


def test_predictions_judged_again_from_the_csv_give_the_same_figures(scene):
    scene.done("match", *DESCRIPTORS, "ground_truth=gt.csv", OUT)
    scene.done("match", "submission=out/predictions.csv", "ground_truth=gt.csv", "output=again")
    assert scene.json("again/metrics.json") == scene.json("out/metrics.json")
    assert {p.name for p in (scene / "again").iterdir()} == {"metrics.json", "report"}


def test_a_submission_is_judged_by_hand(scene):
    scene.done("match", *CSV, OUT, script=False)
    metrics = scene.json("out/metrics.json")  # right, wrong, right, and one pair never predicted
    assert metrics["average_precision"] == pytest.approx((1 + 2 / 3) / 3)
    assert metrics["recall_at_p90"] == pytest.approx(1 / 3)
    assert metrics["threshold_at_p90"] == 0.9
    assert metrics["recall_at_rank1"] == metrics["recall_at_rank10"] == pytest.approx(2 / 3)


def test_a_precision_never_reached_is_null(scene):
    scene.text("p.csv", "Q00003,R000004,0.8\nQ00001,R000001,0.7\n")
    scene.done("match", *CSV, OUT, script=False)
    metrics = scene.json("out/metrics.json")
    assert metrics["recall_at_p90"] == 0.0
    assert metrics["threshold_at_p90"] is None


def test_a_tie_that_matters_is_reported_with_both_cases(scene):
    scene.text("p.csv", "Q00000,R000000,0.5\nQ00003,R000004,0.5\nQ00004,R000004,0.5\n")
    scene.text("gt.csv", "Q00000,R000000\nQ00003,\nQ00004,\n")
    finished = scene.done("match", *CSV, OUT)
    metrics = scene.json("out/metrics.json")
    assert metrics["tie_range"] == pytest.approx([1 / 3, 1.0])
    assert metrics["average_precision"] == metrics["tie_range"][0]
    assert "0.3333" in finished.err
    assert "1.0000" in finished.err


def test_ties_of_identical_descriptors_are_reported(scene, vectors):
    """The challenge's own search finds nothing where all distances are equal."""
    same = np.tile(vectors.references[:1], (REFERENCES, 1))
    scene.hdf5("r.h5", vectors=same, image_names=R)
    scene.hdf5("q.h5", vectors=same[:QUERIES], image_names=Q)
    finished = scene.done("match", *DESCRIPTORS, "ground_truth=gt.csv", OUT)
    rows = rows_of(scene / "out" / "predictions.csv")[1:]
    assert len(rows) == 10 * QUERIES
    assert {float(row[2]) for row in rows} == {0.0}
    assert "equal scores" in finished.err


def test_predictions_of_unjudged_queries_are_dropped_and_counted(scene):
    scene.text("gt.csv", "Q00000,R000000\nQ00001,R000001\n")
    finished = scene.done("match", *CSV, OUT)
    metrics = scene.json("out/metrics.json")
    assert (metrics["num_predictions"], metrics["num_dropped"], metrics["average_precision"]) == (3, 1, 1.0)
    assert "1 prediction" in finished.err
    assert "dropped" in finished.err


def test_running_again_replaces_the_files_and_leaves_others(scene):
    scene.done("match", *CSV, OUT, script=False)
    before = scene.json("out/metrics.json")
    scene.text("out/notes.txt", "mine")
    scene.text("p.csv", "Q00000,R000000,0.9\n")
    scene.done("match", *CSV, OUT, script=False)
    assert scene.json("out/metrics.json") != before
    assert {p.name for p in (scene / "out").iterdir()} == {"metrics.json", "report", "notes.txt"}


def test_running_without_a_ground_truth_leaves_no_figures_of_an_earlier_run(scene):
    """metrics.json beside predictions that it does not judge would be a lie."""
    scene.done("match", *DESCRIPTORS, "ground_truth=gt.csv", OUT, script=False)
    scene.done("match", *DESCRIPTORS, "num_pairs=3", OUT, script=False)
    assert len(rows_of(scene / "out" / "predictions.csv")) == 4
    assert not (scene / "out" / "metrics.json").exists()


def test_the_matching_track_takes_longer_descriptors(scene):
    rng = np.random.default_rng(3)
    for name, ids in (("q.h5", Q), ("r.h5", R)):
        scene.hdf5(name, vectors=unit_vectors(len(ids), 257, rng), image_names=ids)
    scene.refused("match", *DESCRIPTORS, OUT, naming=("q.h5", "257", "256", "track=matching"))
    scene.done("match", *DESCRIPTORS, "track=matching", OUT, script=False)
    assert {p.name for p in (scene / "out").iterdir()} == {"predictions.csv", "match.json", "report"}
    assert len(rows_of(scene / "out" / "predictions.csv")) == 1 + 10 * QUERIES


def test_256_dimensions_are_allowed(scene):
    rng = np.random.default_rng(3)
    submission(scene, unit_vectors(QUERIES, 256, rng), unit_vectors(REFERENCES, 256, rng))
    scene.done("match", *SUBMISSION, OUT, script=False)


# --- what it refuses -------------------------------------------------------------------------------------------------


def lines(*rows):
    return lambda place, vectors: place.text("p.csv", "".join(f"{row}\n" for row in rows))


def truth(*rows):
    return lambda place, vectors: place.text("gt.csv", "".join(f"{row}\n" for row in rows))


def spoilt(name, row, value):
    """The descriptors of `name` with one number of one row replaced."""

    def edit(place, vectors):
        values = (vectors.queries if name == "q.h5" else vectors.references).copy()
        values[row, 2] = value
        place.hdf5(name, vectors=values, image_names=Q if name == "q.h5" else R)

    return edit


def ids(*names, count=QUERIES):
    return lambda place, vectors: place.hdf5("q.h5", vectors=vectors.queries[:count], image_names=list(names))


def cut(name, share):
    def edit(place, vectors):
        data = (place / name).read_bytes()
        (place / name).write_bytes(data[: int(len(data) * share)])

    return edit


def swapped(side):
    """The submission with the second and third row of one side exchanged."""

    def edit(place, vectors):
        order = [0, 2, 1]
        q, r = list(range(QUERIES)), list(range(REFERENCES))
        (q if side == "query" else r)[:3] = order
        submission(place, vectors.queries[q], vectors.references[r], [Q[i] for i in q], [R[i] for i in r])

    return edit


def narrower(name):
    return lambda place, vectors: place.hdf5(name, vectors=vectors.references[:, :4], image_names=R)


def nothing(place, vectors):
    """What is refused stands in the command."""


def wide(*names, dim):
    """Descriptors of `dim` dimensions and unit length under the ids of the queries and references."""

    def edit(place, vectors):
        for number, name in enumerate(names):
            ids = Q if name == "q.h5" else R
            rows = unit_vectors(len(ids), dim, np.random.default_rng(number))
            place.hdf5(name, vectors=rows, image_names=ids)

    return edit


def wide_submission(place, vectors):
    submission(place, np.zeros((QUERIES, 257), np.float32), np.zeros((REFERENCES, 257), np.float32))


def removed(name):
    return lambda place, vectors: (place / name).unlink()


def made_by(place, vectors):
    place.hdf5("q.h5", {"weights_sha256": "a" * 64}, vectors=vectors.queries, image_names=Q)
    place.hdf5("r.h5", {"weights_sha256": "b" * 64}, vectors=vectors.references, image_names=R)


KNOWN = (*CSV, *DESCRIPTORS)
MATCH = (*DESCRIPTORS, "ground_truth=gt.csv")
REFUSED = {
    # predictions
    "repeated pair": (
        lines("Q1,R1,.5", "Q1,R2,.4", "Q1,R1,.3"),
        CSV,
        ("p.csv", "row 3", "Q1,R1", "row 1", "expected"),
    ),
    "two fields": (lines("Q1,R1,.5", "Q1,R2"), CSV, ("p.csv", "row 2", "Q1,R2", "2 fields", "expected 3")),
    "four fields": (lines("Q1,R1,.5", "Q1,R2,.4,x"), CSV, ("p.csv", "row 2", "Q1,R2,.4,x", "expected 3")),
    "empty line": (lines("Q1,R1,.5", "", "Q1,R2,.4"), CSV, ("p.csv", "row 2", "expected 3")),
    "score in words": (lines("Q1,R1,.5", "Q1,R2,high"), CSV, ("p.csv", "row 2", "'high'", "Q1,R2", "expected")),
    "no score": (lines("Q1,R1,.5", "Q1,R2,"), CSV, ("p.csv", "row 2", "Q1,R2", "expected")),
    "NaN score": (lines("Q1,R1,.5", "Q1,R2,nan"), CSV, ("p.csv", "row 2", "'nan'", "Q1,R2", "finite")),
    "infinite score": (lines("Q1,R1,.5", "Q1,R2,-inf"), CSV, ("p.csv", "row 2", "'-inf'", "Q1,R2", "finite")),
    "blank before an id": (lines("Q1,R1,.5", " Q2,R2,.4"), CSV, ("p.csv", "row 2", "' Q2'", "blanks")),
    "blank after an id": (lines("Q1,R1,.5", "Q2,R2 ,.4"), CSV, ("p.csv", "row 2", "'R2 '", "blanks")),
    "empty id": (lines("Q1,R1,.5", ",R2,.4"), CSV, ("p.csv", "row 2", "empty")),
    "row counted with the header": (
        lines("query_id,reference_id,score", "Q1,R1,.5", "Q1,R1,.4"),
        CSV,
        ("p.csv", "row 3", "row 2"),
    ),
    "too many rows": (
        lines("Q1,R1,.5", "Q1,R2,.4", "Q9,R9,.3"),
        (*CSV, "max_predictions=2"),
        ("p.csv", "row 3", "Q9,R9", "2 predictions", "max_predictions"),
    ),
    "unknown query": (lines("Q00000,R000000,.5", "Q77,R000000,.4"), KNOWN, ("p.csv", "row 2", "query id 'Q77'")),
    "unknown reference": (
        lines("Q00000,R000000,.5", "Q00000,R77,.4"),
        KNOWN,
        ("p.csv", "row 2", "reference id 'R77'"),
    ),
    "no such predictions": (removed("p.csv"), CSV, ("p.csv", "expected")),
    "predictions are HDF5": (lambda p, v: (p / "s.h5").rename(p / "p.csv"), CSV, ("p.csv", "row 1", "UTF-8")),
    # ground truth
    "truth: three fields": (truth("Q00000,R000000", "Q00001,R000001,1"), CSV, ("gt.csv", "row 2", "expected 2")),
    "truth: blanks": (truth("Q00000,R000000", "Q00001, R000001"), CSV, ("gt.csv", "row 2", "' R000001'", "blanks")),
    "truth: distractors alone": (truth("Q00000,", "Q00001,"), CSV, ("gt.csv", "distractors", "expected")),
    "truth: empty": (truth(), CSV, ("gt.csv", "no rows", "expected")),
    "truth: missing": (removed("gt.csv"), CSV, ("gt.csv", "expected")),
    "truth: unknown query": (truth("Q00000,R000000", "Q9,R000000"), MATCH, ("gt.csv", "row 2", "query id 'Q9'")),
    "truth: unknown reference": (
        truth("Q00000,R000000", "Q00001,R9"),
        MATCH,
        ("gt.csv", "row 2", "reference id 'R9'"),
    ),
    "truth: unknown to the submission": (truth("Q00000,R9"), SUBMISSION, ("gt.csv", "row 1", "reference id 'R9'")),
    # descriptors
    "NaN descriptor": (spoilt("q.h5", 3, np.nan), DESCRIPTORS, ("q.h5", "row 3", Q[3], "expected finite")),
    "infinite descriptor": (spoilt("r.h5", 29, np.inf), DESCRIPTORS, ("r.h5", "row 29", R[29], "expected finite")),
    "repeated id": (ids("a", "b", "c", "d", "b", "f"), DESCRIPTORS, ("q.h5", "row 4", "'b'", "row 1", "expected")),
    "more ids than rows": (ids(*"abcdefg"), DESCRIPTORS, ("q.h5", "7", "6", "expected one id a row")),
    "fewer ids than rows": (ids("a", "b"), DESCRIPTORS, ("q.h5", "2", "6", "expected one id a row")),
    "blanks round an id": (ids("a", "b ", count=2), DESCRIPTORS, ("q.h5", "row 1", "'b '", "blanks")),
    "no rows": (
        lambda place, vectors: place.hdf5("q.h5", vectors=vectors.queries[:0], image_names=np.zeros(0, "S1")),
        DESCRIPTORS,
        ("q.h5", "expected"),
    ),
    "whole numbers": (
        lambda place, vectors: place.hdf5("q.h5", vectors=np.ones((2, 4), int), image_names=["a", "b"]),
        DESCRIPTORS,
        ("q.h5", "int64", "float32"),
    ),
    "queries and references differ": (narrower("r.h5"), DESCRIPTORS, ("q.h5", "8", "r.h5", "4", "expected")),
    "training differs": (narrower("t.h5"), (*DESCRIPTORS, "training=t.h5", "normalize=whiten"), ("t.h5", "8", "4")),
    "training is the queries": (
        nothing,
        (*DESCRIPTORS, "training=q.h5", "normalize=subtract"),
        ("q.h5: row 0", f"id {Q[0]!r} has the very descriptor of {Q[0]!r} in q.h5", "neither queries nor references"),
    ),
    "training is the references": (
        nothing,
        (*DESCRIPTORS, "training=r.h5", "normalize=none"),
        ("r.h5: row 0", R[0], "neither queries nor references"),
    ),
    "training has a reference": (
        lambda place, vectors: place.hdf5(
            "t.h5", vectors=np.r_[-vectors.references[:9], vectors.references[17:18]], image_names=list("abcdefghij")
        ),
        (*DESCRIPTORS, "training=t.h5", "normalize=stretch"),
        ("t.h5: row 9: id 'j'", f"{R[17]!r} in r.h5", "neither queries nor references"),
    ),
    "too little training": (
        lambda place, vectors: place.hdf5("t.h5", vectors=-vectors.references[:5], image_names=list("abcde")),
        (*DESCRIPTORS, "training=t.h5", "normalize=pca"),
        ("t.h5: 5 training descriptors span 4 dimensions", "pca expected 8", "pca:dim=4"),
    ),
    "too little training for neighbours": (
        nothing,
        (*DESCRIPTORS, "training=t.h5", "normalize=ssquare"),
        ("t.h5: 40 training descriptors", "expected at least 100", "fewer neighbours"),
    ),
    "score in 256 dimensions": (
        wide("q.h5", "r.h5", dim=256),
        (*DESCRIPTORS, "training=t.h5", "normalize=score"),
        ("normalize=score:weight=1,neighbours=3: gives 257 dimensions", "allows 256", "track=matching", "pca:dim=255"),
    ),
    "300 dimensions": (
        wide("q.h5", "r.h5", dim=300),
        (*DESCRIPTORS, "training=t.h5", "normalize=subtract"),
        ("q.h5: 300 dimensions", "allows 256", "track=matching", "pca:dim=256"),
    ),
    "a stored chain that is not there": (
        nothing,
        (*DESCRIPTORS, "training=t.h5", "normalize=found.json"),
        ("found.json", "No such file", "isc normalize search"),
    ),
    "a model that descriptors do not name": (
        nothing,
        (*DESCRIPTORS, "training=t.h5", "normalize=model"),
        ("normalize=model: q.h5", "weights", "extract.py", "normalize=FILE.json"),
    ),
    "not of unit length": (
        spoilt("q.h5", 3, 5.0),
        (*DESCRIPTORS, "training=t.h5", "normalize=stretch"),
        ("q.h5", "row 3", Q[3], "unit length"),
    ),
    "other weights": (made_by, DESCRIPTORS, ("q.h5", "r.h5", "aaaa", "bbbb", "expected the same")),
    "other layout": (
        lambda place, vectors: place.hdf5("q.h5", features=vectors.queries),
        DESCRIPTORS,
        ("q.h5", "'vectors'", "features", "expected"),
    ),
    "missing": (removed("r.h5"), DESCRIPTORS, ("r.h5", "no such file")),
    "cut in the middle": (cut("r.h5", 0.5), DESCRIPTORS, ("r.h5", "cut short")),
    "cut to nothing": (cut("r.h5", 0), DESCRIPTORS, ("r.h5", "not an HDF5 file")),
    "not HDF5": (lambda place, vectors: place.text("q.h5", "id,vector\n"), DESCRIPTORS, ("q.h5", "not an HDF5 file")),
    "a folder": (lambda p, v: (removed("q.h5")(p, v), (p / "q.h5").mkdir()), DESCRIPTORS, ("q.h5", "expected")),
    # submissions
    "queries not sorted": (swapped("query"), SUBMISSION, ("s.h5", "row 2", Q[1], Q[2], "sorted", "strict=false")),
    "references not sorted": (swapped("reference"), SUBMISSION, ("s.h5", "row 2", R[1], "sorted", "strict=false")),
    "257 dimensions": (wide_submission, SUBMISSION, ("s.h5", "257", "256")),
    "submission: dimensions differ": (
        lambda place, vectors: submission(place, vectors.queries, vectors.references[:, :4]),
        SUBMISSION,
        ("s.h5", "8", "4", "expected"),
    ),
    "submission: NaN": (
        lambda place, vectors: submission(place, vectors.queries, np.full_like(vectors.references, np.nan)),
        SUBMISSION,
        ("s.h5", "row 0", R[0], "expected finite"),
    ),
    "submission: cut": (cut("s.h5", 0.7), SUBMISSION, ("s.h5", "cut short")),
    "submission: one set alone": (
        lambda place, vectors: (place / "r.h5").replace(place / "s.h5"),
        SUBMISSION,
        ("s.h5", "'query'", "expected"),
    ),
    # where to
    "output is a file": (lambda place, vectors: place.text("out", "mine"), DESCRIPTORS, ("out", "expected a folder")),
    "output below a file": (
        lambda place, vectors: place.text("file", "mine"),
        (*DESCRIPTORS, "output=file/out"),
        ("file/out", "cannot be written"),
    ),
    # pictures
    "no such pictures": (
        lambda place, vectors: None,
        (*DESCRIPTORS, "query_images=a", "reference_images=b"),
        ("query_images=a", "no such folder"),
    ),
    "edits that are none": (
        lambda place, vectors: place.text("e.jsonl", "{}\n"),
        (*DESCRIPTORS, "edits=e.jsonl"),
        ("e.jsonl", "row 1", "expected"),
    ),
}


@pytest.mark.parametrize(("spoil", "arguments", "naming"), REFUSED.values(), ids=REFUSED)
def test_refused_by_file_row_and_id(scene, vectors, spoil, arguments, naming):
    spoil(scene, vectors)
    where = () if any(argument.startswith("output=") for argument in arguments) else (OUT,)
    scene.refused("match", *arguments, *where, naming=naming)


@pytest.mark.parametrize("case", ["repeated pair", "NaN descriptor", "cut in the middle", "truth: unknown query"])
def test_the_script_itself_says_so_in_one_line(scene, vectors, case):
    spoil, arguments, naming = REFUSED[case]
    spoil(scene, vectors)
    scene.refused("match", *arguments, OUT, naming=naming, script=True)


def test_a_refusal_leaves_an_earlier_output_as_it_was(scene, vectors):
    scene.done("match", *MATCH, OUT, script=False)
    spoilt("q.h5", 3, np.nan)(scene, vectors)
    scene.refused("match", *MATCH, OUT)  # compares all files, those of the first run among them


@pytest.mark.parametrize("side", ["query", "reference"])
def test_unsorted_rows_are_taken_where_one_does_not_insist(scene, vectors, side):
    scene.done("match", *SUBMISSION, OUT, script=False)
    swapped(side)(scene, vectors)
    scene.done("match", *SUBMISSION, "strict=false", "output=again", script=False)
    assert scene.json("again/metrics.json") == scene.json("out/metrics.json")


@pytest.mark.parametrize("row", ["Q9,R000000", "Q00000,R9"])
def test_unknown_ids_of_the_ground_truth_are_misses_where_one_does_not_insist(scene, row):
    scene.text("gt.csv", f"Q00001,R000001\n{row}\n")
    scene.done("match", *MATCH, "strict=false", OUT, script=False)
    metrics = scene.json("out/metrics.json")
    assert metrics["num_positives"] == 2
    assert metrics["recall_at_rank1"] == metrics["recall_at_rank10"] == 0.5


def test_the_cap_counts_rows_of_data_alone(scene):
    scene.text("p.csv", "query_id,reference_id,score\nQ00000,R000000,.5\nQ00001,R000001,.4\n\n")
    scene.done("match", *CSV, "max_predictions=2", OUT, script=False)


def test_known_ids_let_a_good_submission_pass(scene):
    scene.done("match", *KNOWN, OUT, script=False)
    assert scene.json("out/metrics.json")["num_predictions"] == 3


def test_repeated_lines_of_the_ground_truth_count_once(scene):
    scene.text("gt.csv", "Q00000,R000000\nQ00001,R000001\nQ00000,R000000\nQ00003,\n")
    finished = scene.done("match", *CSV, OUT)
    assert scene.json("out/metrics.json")["num_positives"] == 2
    assert "gt.csv repeats 1 pair" in finished.err


# --- views -----------------------------------------------------------------------------------------------------------

MATCHING = (*DESCRIPTORS, "track=matching")


@pytest.fixture
def viewed(scene, vectors):
    """Three views of every image of q.h5 and r.h5, view by view and in no order; the second query's copy is seen in its
    third view alone."""
    rng = np.random.default_rng(4)
    for name, one, ids in (("q.h5", vectors.queries, Q), ("r.h5", vectors.references, R)):
        rows = np.concatenate([one, *(unit_vectors(len(one), DIM, rng) for _ in range(2))])
        if name == "q.h5":
            rows[[1, 1 + 2 * QUERIES]] = rows[[1 + 2 * QUERIES, 1]]
        views = np.repeat(["whole", "flip", "rotate:90"], len(one))
        order = rng.permutation(len(rows))
        scene.hdf5(
            name,
            vectors=rows[order],
            image_names=[ids[row % len(ids)] for row in order],
            views=[str(view) for view in views[order]],
        )
    return scene


def read_rows(path):
    with h5py.File(path) as file:
        columns = [file[name][()] for name in ("image_names", "views", "vectors")]
    return [(name.decode(), view.decode(), vector) for name, view, vector in zip(*columns, strict=True)]


def best_views(place):
    """The slow twin: (distance, query, reference) of each pair of images, best first, and the views of the best."""
    best = {}
    for q, q_view, one in read_rows(place / "q.h5"):
        for r, r_view, other in read_rows(place / "r.h5"):
            distance = float(((one.astype(np.float64) - other) ** 2).sum())
            best[q, r] = min(best.get((q, r), (np.inf,)), (distance, q_view, r_view))
    return sorted((distance, q, r, *views) for (q, r), (distance, *views) in best.items())


@pytest.mark.parametrize("options", [(), ("num_pairs=1",), ("num_pairs=100",), ("num_pairs=180",)])
def test_a_pair_of_images_scores_as_its_best_views(viewed, options):
    finished = viewed.done("match", *MATCHING, *options, "ground_truth=gt.csv", OUT, script=False)
    assert {p.name for p in (viewed / "out").iterdir()} == VIEWED_FILES
    number = int(options[0].partition("=")[2]) if options else 10 * QUERIES
    expected = best_views(viewed)[:number]
    header, *rows = rows_of(viewed / "out" / "predictions.csv")
    assert [tuple(row[:2]) for row in rows] == [pair[1:3] for pair in expected]
    np.testing.assert_allclose([float(row[2]) for row in rows], [-pair[0] for pair in expected], rtol=1e-6)
    header, *rows = rows_of(viewed / "out" / "views.csv")
    assert header == ["query_id", "reference_id", "query_view", "reference_view"]
    assert [tuple(row) for row in rows] == [pair[1:] for pair in expected]
    assert ["Q00001", "R000001", "rotate:90", "whole"] in rows or number == 1
    if number >= 60:
        assert viewed.json("out/metrics.json")["recall_at_rank1"] == 1.0
    assert finished.out.count("μAP") == 1


@pytest.mark.parametrize("k", [1, 4, REFERENCES])
def test_k_counts_images_for_each_query_image(viewed, k):
    viewed.done("match", *MATCHING, f"k={k}", OUT, script=False)
    expected = [one for q in Q for one in [pair for pair in best_views(viewed) if pair[1] == q][:k]]
    rows = rows_of(viewed / "out" / "views.csv")[1:]
    assert [tuple(row) for row in rows] == [pair[1:] for pair in sorted(expected)]


def test_views_on_one_side_alone(viewed, vectors):
    viewed.hdf5("q.h5", vectors=vectors.queries, image_names=Q)
    viewed.done("match", *MATCHING, "num_pairs=20", OUT, script=False)
    rows = rows_of(viewed / "out" / "views.csv")[1:]
    assert len(rows) == 20
    assert {row[2] for row in rows} == {""}  # there is nothing to say
    assert {row[3] for row in rows} > {"whole"}


def test_an_index_over_views_that_looks_everywhere_is_exact(viewed):
    for k in ((), ("k=3",)):
        viewed.done("match", *MATCHING, *k, OUT, script=False)
        viewed.done("match", *MATCHING, *k, "training=t.h5", "index=Flat", "output=again", script=False)
        for name in ("predictions.csv", "views.csv"):
            assert (viewed / "again" / name).read_bytes() == (viewed / "out" / name).read_bytes()


def test_a_normalisation_is_of_rows_and_keeps_their_views(viewed):
    viewed.hdf5(
        "t.h5",
        vectors=unit_vectors(40, DIM, np.random.default_rng(5)),
        image_names=[f"T{i // 2}" for i in range(40)],
        views=["whole", "flip"] * 20,
    )
    viewed.done("match", *MATCHING, "training=t.h5", "normalize=whiten", OUT, script=False)
    viewed.done("match", *MATCHING, "output=plain", script=False)
    views = [rows_of(viewed / name / "views.csv")[1:] for name in ("out", "plain")]
    assert len(views[0]) == len(views[1]) == 60
    assert views[0] != views[1]


def test_shared_rows_of_a_training_set_with_views_are_left_out(viewed, vectors):
    training = unit_vectors(40, DIM, np.random.default_rng(5))
    training[7] = vectors.references[5]
    ids, views = [f"T{i // 2}" for i in range(40)], ["whole", "flip"] * 20
    viewed.hdf5("t.h5", vectors=training, image_names=ids, views=views)
    options = (*MATCHING, "training=t.h5", "normalize=whiten")
    viewed.refused("match", *options, OUT, naming=("t.h5: row 7: id 'T3'", "R000005", "strict=false"))
    viewed.done("match", *options, "strict=false", OUT, script=False)
    kept = [row for row in range(40) if row != 7]
    viewed.hdf5(
        "t.h5", vectors=training[kept], image_names=[ids[row] for row in kept], views=[views[row] for row in kept]
    )
    viewed.done("match", *options, "output=again", script=False)
    assert (viewed / "again" / "views.csv").read_bytes() == (viewed / "out" / "views.csv").read_bytes()


def test_no_views_or_submission_of_an_earlier_run_stay(viewed, vectors):
    viewed.done("match", *MATCHING, OUT, script=False)
    for name, one, ids in (("q2.h5", vectors.queries, Q), ("r2.h5", vectors.references, R)):
        viewed.hdf5(name, vectors=one, image_names=ids)
    viewed.done("match", "queries=q2.h5", "references=r2.h5", OUT, script=False)
    assert {p.name for p in (viewed / "out").iterdir()} == {"predictions.csv", "submission.h5", "match.json", "report"}
    viewed.done("match", *MATCHING, OUT, script=False)
    assert {p.name for p in (viewed / "out").iterdir()} == {"predictions.csv", "views.csv", "match.json", "report"}


@pytest.mark.parametrize(
    ("options", "naming"),
    [
        (DESCRIPTORS, ("q.h5: 18 views of 6 images", "one descriptor an image", "track=matching", "combine=average")),
        ((*MATCHING, "num_pairs=181"), ("num_pairs=181", "180 pairs")),
        ((*MATCHING, f"k={REFERENCES + 1}"), (f"k={REFERENCES + 1}", f"{REFERENCES} references")),
        ((*MATCHING, "memory_gb=1e-9"), ("best 61 pairs of images", "memory_gb=1e-09", "more memory")),
        ((*MATCHING, "ground_truth=gt.csv"), ("gt.csv: row 8", "query id 'Q9'", "6 query images")),
    ],
)
def test_views_do_not_change_what_is_refused(viewed, options, naming):
    with (viewed / "gt.csv").open("a") as file:
        file.write("Q9,\n")
    viewed.refused("match", *options, OUT, naming=naming)


def test_references_with_views_are_refused_by_their_file(viewed, vectors):
    viewed.hdf5("q.h5", vectors=vectors.queries, image_names=Q)
    viewed.refused("match", *DESCRIPTORS, OUT, naming=("r.h5: 90 views of 30 images", "track=matching"))


def test_views_are_written_in_the_order_of_the_predictions(place):
    ids = np.array(["a", "b"], dtype=object)
    sets = DescriptorSets(
        Descriptors(["b", "a", "b"], np.eye(3), ["whole", "flip", "turned"]), Descriptors(["x", "y"], np.eye(2, 3))
    )
    matches = Matches(ids, ids, np.array([0, 1, 0]), np.array([1, 1, 0]), np.array([0.5, 0.9, 0.5]))
    write_views(place / "views.csv", ImagePairs(matches, np.array([1, 2, 1]), np.array([1, 1, 0])), sets)
    assert rows_of(place / "views.csv")[1:] == [
        ["b", "b", "turned", ""],
        ["a", "a", "flip", ""],
        ["a", "b", "flip", ""],
    ]


def test_pixels_are_compared_once_a_pair_of_images(place, benchmark, descriptors):
    """The second view of each photo is the first, a little off; what tells of a pair is its nearest views."""
    rng = np.random.default_rng(0)
    for name, role in (("q.h5", "queries"), ("r.h5", "references")):
        with h5py.File(descriptors / f"{role}.h5") as file:
            vectors, ids = file["vectors"][()], [one.decode() for one in file["image_names"][()]]
        other = vectors + 0.02 * rng.standard_normal(vectors.shape).astype(np.float32)
        views = [view for view in ("whole", "flip") for _ in ids]
        place.hdf5(name, vectors=np.r_[vectors, other], image_names=ids * 2, views=views)
    pictures = (f"query_images={benchmark / 'queries'}", f"reference_images={benchmark / 'references'}")
    place.done("match", *MATCHING, *pictures, "num_pairs=60", "candidates=3", OUT, script=False)
    rows = rows_of(place / "out" / "predictions.csv")[1:]
    scores = {tuple(row[:2]): float(row[2]) for row in rows}
    assert len(scores) == len(rows) == 60
    seen = {(q, r): (distance, *views) for distance, q, r, *views in best_views(place)}
    nearest = {pair for q in {q for q, _ in seen} for pair in sorted((p for p in seen if p[0] == q), key=seen.get)[:3]}
    missing = np.full((len(scores), len(EVIDENCE)), np.nan, np.float32)
    by_distance = fusion_for("model", {})[0].probability(np.array([seen[pair][0] for pair in scores]), missing)
    alone = dict(zip(scores, by_distance, strict=True))
    assert 0 < len(set(scores) - nearest) < 60
    for pair, score in scores.items():
        assert 0 <= score <= 1
        assert score == pytest.approx(alone[pair], rel=1e-4) or pair in nearest
    assert any(scores[pair] > alone[pair] + 0.05 for pair in nearest & set(scores))
    lines = (place / "out" / "evidence.jsonl").read_text().splitlines()
    aligned = {(one["query_id"], one["reference_id"]) for one in map(json.loads, lines)}
    assert len(aligned) == len(lines) > 0
    assert aligned <= nearest & set(scores)
    views = [tuple(row) for row in rows_of(place / "out" / "views.csv")[1:]]
    assert views == [(*pair, *seen[pair][1:]) for pair in scores]
    assert {"whole", "flip"} <= {view for row in views for view in row[2:]}


# --- real photos -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_copies_of_real_photos_are_found(place, benchmark, descriptors):
    arguments = [f"{role}={descriptors / role}.h5" for role in ("queries", "references", "training")]
    arguments += [
        f"ground_truth={benchmark / 'ground_truth.csv'}",
        f"edits={benchmark / 'edits.jsonl'}",
        "num_pairs=60",
    ]
    arguments += [f"query_images={benchmark / 'queries'}", f"reference_images={benchmark / 'references'}"]
    place.done("match", *arguments, "normalize=subtract", OUT)
    metrics = place.json("out/metrics.json")
    assert (metrics["num_predictions"], metrics["num_dropped"], metrics["num_positives"]) == (60, 0, 12)
    assert 0.15 < metrics["average_precision"] <= 1  # by chance it would be about 0.03
    truth = read_ground_truth(benchmark / "ground_truth.csv")
    judged = evaluate(read_predictions(place / "out" / "predictions.csv"), truth)
    assert judged.as_dict() == {name: value for name, value in metrics.items() if name != "intervals"}
    page = (place / "out" / "report" / "index.html").read_text(encoding="utf-8")
    assert "data:image/jpeg;base64," in page
    assert "subtract" in page

    place.done("match", *arguments, "track=matching", "candidates=10", "output=matching")  # which is every pair
    judged = place.json("matching/metrics.json")
    assert judged["num_predictions"] == 60
    assert judged["average_precision"] > metrics["average_precision"]
    scores = [float(row[2]) for row in rows_of(place / "matching" / "predictions.csv")[1:]]
    assert all(0 <= score <= 1 for score in scores)
    assert (place / "matching" / "evidence.jsonl").read_text().count("\n") >= 5
    page = (place / "matching" / "report" / "index.html").read_text(encoding="utf-8")
    assert "<polygon" in page
    assert 'id="reliability"' in page


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


def test_interrupted_while_writing_leaves_nothing(place):
    rng = np.random.default_rng(0)
    names = [f"{i:06d}" for i in range(2000)]
    place.hdf5("q.h5", vectors=unit_vectors(2000, 16, rng), image_names=names)
    before = place.contents()
    finished = place.signalled(
        signal.SIGINT,
        "match",
        "queries=q.h5",
        "references=q.h5",
        "num_pairs=200000",
        OUT,
        when=lambda _: any(place.folder.glob(".*.part/*")),
    )
    assert finished.status == 130, finished.err
    assert finished.err.count("\n") == 1
    assert "interrupted" in finished.err
    assert place.contents() == before


def test_interrupted_while_searching_leaves_nothing(place):
    rng = np.random.default_rng(0)
    names = [f"{i:06d}" for i in range(8000)]
    place.hdf5("q.h5", vectors=unit_vectors(8000, 64, rng), image_names=names)
    before = place.contents()
    arguments = ("match", "queries=q.h5", "references=q.h5", "num_pairs=400000", OUT)
    started = time.monotonic()
    place.done(*arguments)
    whole = time.monotonic() - started
    shutil.rmtree(place / "out")
    started = time.monotonic()
    finished = place.signalled(signal.SIGINT, *arguments, when=lambda _: time.monotonic() > started + 0.4 * whole)
    assert finished.status == 130, finished.err
    assert "Traceback" not in finished.err
    assert place.contents() == before
