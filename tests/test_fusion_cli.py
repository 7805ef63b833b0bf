"""isc fusion: what it fits and prints, how honestly, where the file is kept and found, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from isc.cli import fusion as fusion_cli
from isc.cli.fusion import BINS, Pairs, cross_fitted, summary
from isc.cli.main import main
from isc.data.hdf5 import read_descriptors
from isc.data.matches import GroundTruth, Matches
from isc.data.model_files import SHIPPED, beside_model, require_model
from isc.errors import InputError
from isc.evaluate.metrics import evaluate
from isc.match.verification.compare import Problem, Verified
from isc.match.verification.fusion import fit_fusion
from isc.match.verification.fusion_files import fusion_for, read_fusion
from isc.match.verification.quantities import EVIDENCE
from isc.photos.folders import SAMPLE, list_images

QUERIES, COPIES, REFERENCES, DIM = 240, 160, 200, 16
WEIGHTS = "ab" * 32
Q = [f"Q{i:03}" for i in range(QUERIES)]
R = [f"R{i:03}" for i in range(REFERENCES)]
IMAGES = ("--query-images", "photos", "--reference-images", "photos")
FILES = ("--queries", "q.h5", "--references", "r.h5", *IMAGES, "--ground-truth", "gt.csv")
FIT = ("fit", *FILES, "--candidates", "5")


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def drawn(matches: Matches, seed: int = 0) -> np.ndarray:
    """Evidence as of pictures: more than half of the copies are aligned by many points, few others by few points."""
    rng = np.random.default_rng(seed)
    query, reference = matches.query_ids[matches.query], matches.reference_ids[matches.reference]
    copy = np.array([q[1:] == r[1:] for q, r in zip(query, reference, strict=True)])
    aligned = rng.random(len(copy)) < np.where(copy, 0.6, 0.15)
    inliers = np.where(aligned, np.where(copy, rng.integers(5, 80, len(copy)), rng.integers(4, 8, len(copy))), 0)
    values = {name: np.where(aligned, rng.random(len(copy)), 0.0) for name in EVIDENCE}
    values |= {"inliers": inliers, "log_nfa": inliers * 2.0, "inlier_share": inliers / 100}
    values |= {f"features_{side}": rng.integers(20, 500, len(copy)) for side in ("query", "reference")}
    return np.stack([values[name] for name in EVIDENCE], axis=1).astype(np.float32)


@dataclass
class Asked:
    """What was to be compared, in place of comparing it."""

    matches: Matches | None = None
    images: tuple = ()
    store: object = None
    problems: tuple[Problem, ...] = ()

    def verify(self, matches, query_images, reference_images, *, store=None) -> Verified:
        self.matches, self.images, self.store = matches, (query_images, reference_images), store
        evidence = drawn(matches)
        for problem in self.problems:
            evidence[matches.query_ids[matches.query] == problem.id] = np.nan
        return Verified(evidence, {}, self.problems)


@pytest.fixture
def asked(monkeypatch) -> Asked:
    one = Asked()
    monkeypatch.setattr("isc.match.verification.compare.verify", one.verify)
    return one


@pytest.fixture
def scene(place):
    """q.h5, r.h5 and gt.csv: query i is a copy of reference i, or of none from COPIES on; a folder of photos, and one
    of a model."""
    rng = np.random.default_rng(3)
    references = unit(rng.standard_normal((REFERENCES, DIM)))
    queries = unit(rng.standard_normal((QUERIES, DIM)))
    queries[:COPIES] = unit(references[:COPIES] + 1.1 * queries[:COPIES])
    made = {"model": "tiny", "weights": "run", "weights_sha256": WEIGHTS}
    place.hdf5("q.h5", made, vectors=queries, image_names=Q)
    place.hdf5("r.h5", made, vectors=references, image_names=R)
    rows = "".join(f"{q},{R[i] if i < COPIES else ''}\n" for i, q in enumerate(Q))
    place.text("gt.csv", "query_id,reference_id\n" + rows)
    for name in ("photos", "run"):
        (place / name).mkdir()
    shutil.copy(next(iter(list_images(SAMPLE).values())), place / "photos" / "Q000.jpg")
    place.text("run/model.safetensors", "weights")
    return place


def called(place, *arguments):
    """(status, stdout, stderr) of isc fusion in this process."""
    return place.called(main, "fusion", *arguments)


def fitted(place, *arguments: str) -> str:
    status, out, err = called(place, *FIT, *arguments)
    assert status == 0, err
    return out


# --- what is fitted --------------------------------------------------------------------------------------------------


def pairs_of(asked: Asked) -> Pairs:
    """What was fitted, put together by hand."""
    matches = asked.matches
    query, reference = matches.query_ids[matches.query], matches.reference_ids[matches.reference]
    copy = np.array([q[1:] == r[1:] and int(q[1:]) < COPIES for q, r in zip(query, reference, strict=True)])
    return Pairs(matches, -matches.score.astype(np.float64), drawn(matches), copy)


def test_the_file_holds_the_fusion_of_all_nearest_pairs(scene, asked):
    fitted(scene, "--output", "f.json")
    queries, references = (read_descriptors(scene / name).vectors.astype(np.float64) for name in ("q.h5", "r.h5"))
    distance = ((queries[:, None] - references[None]) ** 2).sum(axis=2)
    nearest = {(q, r) for q in range(QUERIES) for r in np.argsort(distance[q])[:5].tolist()}
    assert set(zip(asked.matches.query.tolist(), asked.matches.reference.tolist(), strict=True)) == nearest
    np.testing.assert_allclose(
        -asked.matches.score, distance[asked.matches.query, asked.matches.reference], rtol=1e-4, atol=1e-5
    )
    pairs = pairs_of(asked)
    stored = read_fusion(scene / "f.json")
    assert stored.fusion == fit_fusion(pairs.distance, pairs.evidence, pairs.copy)
    values = scene.json("f.json")
    assert (values["pairs"], values["copies"]) == (5 * QUERIES, int(pairs.copy.sum()))
    assert (stored.weights_sha256, stored.normalize, values["model"]) == (WEIGHTS, "none", "tiny")
    assert [sorted(image) for image in asked.images] == [["Q000"]] * 2
    assert asked.store is None


def test_what_is_printed_is_of_queries_that_were_not_fitted_on(scene, asked):
    out = fitted(scene, "--output", "f.json")
    pairs = pairs_of(asked)
    truth = GroundTruth(frozenset(Q), frozenset(zip(Q[:COPIES], R[:COPIES], strict=True)))
    even = pairs.matches.query % 2 == 0
    crossed = np.zeros(len(even))
    for own in (even, ~even):
        other = fit_fusion(pairs.distance[~own], pairs.evidence[~own], pairs.copy[~own])
        crossed[own] = other.probability(pairs.distance[own], pairs.evidence[own])
    np.testing.assert_array_equal(cross_fitted(pairs), crossed)
    assert summary(pairs, crossed, truth) in out
    figures = []
    for score in (-pairs.distance, crossed):
        one = Matches(
            pairs.matches.query_ids, pairs.matches.reference_ids, pairs.matches.query, pairs.matches.reference, score
        )
        figures.append(evaluate(one, truth))
        assert (
            f"μAP {figures[-1].average_precision:.4f}, recall at 90 % precision {figures[-1].recall_at_p90:.4f}" in out
        )
    assert figures[1].average_precision > figures[0].average_precision + 0.02
    assert f"1,200 pairs, {pairs.copy.sum()} of 160 copies among them" in out
    assert "wrote f.json" in out
    said = scene.json("f.json")["reliability"]
    assert sum(one["pairs"] for one in said) == 5 * QUERIES
    assert all(one["low"] in BINS and one["high"] in BINS for one in said)
    for one in said:  # each bin as it was drawn
        inside = (crossed >= one["low"]) & (crossed < one["high"])
        assert (one["pairs"], one["correct"]) == (inside.sum(), pytest.approx(pairs.copy[inside].mean()))
        assert f"{one['pairs']:9,} {one['mean']:7.4f} {one['correct']:7.4f}" in out


def test_probabilities_are_near_what_is_true(scene, asked):
    fitted(scene, "--output", "f.json")
    said = [one for one in scene.json("f.json")["reliability"] if one["pairs"] >= 40]
    assert len(said) >= 2
    for one in said:
        assert abs(one["mean"] - one["correct"]) < 4 * np.sqrt(0.25 / one["pairs"])


def test_pairs_that_could_not_be_compared_are_left_out_and_said(scene, asked):
    asked.problems = (Problem("query", "Q007", None, "has no image file", 5),)
    out = fitted(scene, "--output", "f.json")
    assert "left out: query Q007: has no image file" in out
    assert scene.json("f.json")["pairs"] == 5 * QUERIES - 5
    assert np.isfinite(scene.json("f.json")["fusion"]["by_distance"]["bias"])


def test_queries_that_are_not_judged_are_not_compared(scene, asked):
    rows = "".join(f"{q},{R[i] if i < COPIES else ''}\n" for i, q in enumerate(Q[:200]))
    scene.text("gt.csv", rows)
    fitted(scene, "--output", "f.json")
    assert scene.json("f.json")["pairs"] == 1000
    assert asked.matches.query.max() < 200


def test_more_candidates_than_references_are_all_of_them(scene, asked):
    status, _, err = called(scene, "fit", *FILES, "--candidates", "999", "--output", "f.json")
    assert status == 0, err
    assert scene.json("f.json")["pairs"] == QUERIES * REFERENCES


def test_local_features_are_kept_where_asked_for(scene, asked):
    fitted(scene, "--output", "f.json", "--features", "kept")
    assert asked.store.folder.name == "kept"


# --- where it is kept ------------------------------------------------------------------------------------------------


def test_kept_with_the_model_it_is_found_by_its_descriptors(scene, asked, monkeypatch):
    assert "wrote run/fusion.json" in fitted(scene, "--model", "run")
    monkeypatch.chdir(scene.folder)
    fusion, note = fusion_for("model", {"weights": "run", "weights_sha256": WEIGHTS})
    assert (fusion, note) == (read_fusion(scene / "run" / "fusion.json").fusion, None)
    _, note = fusion_for("model", {"weights": "run", "weights_sha256": "c" * 64})
    assert "run/fusion.json was fitted on descriptors of weights_sha256 abab" in note
    fitted(scene, "--model", "run/model.safetensors")
    assert {path.name for path in (scene / "run").iterdir()} == {"model.safetensors", "fusion.json"}


@pytest.mark.parametrize("option", ["fusion=f.json", "fusion=model"])
def test_match_takes_what_was_fitted(scene, asked, option):
    fitted(scene, "--output", "f.json")
    fitted(scene, "--model", "run")
    done = scene.done(
        "match", "queries=q.h5", "references=r.h5", "track=matching", "query_images=photos", "reference_images=photos",
        "query_views=whole", "features=none", "candidates=2", "num_pairs=300", option, "output=out",
    )  # fmt: skip
    assert "rough" not in done.err
    rows = [line.split(",") for line in (scene / "out" / "predictions.csv").read_text().splitlines()[1:]]
    queries, references = (read_descriptors(scene / name) for name in ("q.h5", "r.h5"))
    vector = dict(zip([*queries.ids, *references.ids], [*queries.vectors, *references.vectors], strict=True))
    distance = np.array([((vector[q] - vector[r]) ** 2).sum() for q, r, _ in rows], np.float64)
    expected = read_fusion(scene / "f.json").fusion.probability(
        distance, np.full((len(distance), len(EVIDENCE)), np.nan, np.float32)
    )
    np.testing.assert_allclose([float(score) for *_, score in rows], expected, rtol=1e-4)


def test_a_fusion_is_written_anew_whole(scene, asked):
    fitted(scene, "--output", "f.json")
    before = (scene / "f.json").read_bytes()
    fitted(scene, "--output", "f.json")
    assert (scene / "f.json").read_bytes() == before
    assert {path.name for path in scene.folder.iterdir()} == {"q.h5", "r.h5", "gt.csv", "photos", "run", "f.json"}


def test_the_file_beside_a_model(tmp_path):
    (tmp_path / "run").mkdir()
    run = str(tmp_path / "run")
    for missing, named in ((run, "model.safetensors"), (str(tmp_path / "none.onnx"), "none.onnx")):
        with pytest.raises(InputError, match=f"{named} is not there"):
            require_model(missing)
    (tmp_path / "run" / "model.safetensors").touch()
    require_model(run)
    assert beside_model(run, "fusion.json") == tmp_path / "run" / "fusion.json"
    assert beside_model(f"{run}/model.safetensors", "fusion.json") == tmp_path / "run" / "fusion.json"
    assert beside_model(f"{run}/mine.onnx", "fusion.json") == tmp_path / "run" / "mine.fusion.json"
    require_model("isc_small")
    assert beside_model("isc_small", "fusion.json") == SHIPPED / "isc_small.fusion.json"
    assert read_fusion(SHIPPED / "isc_small.fusion.json").normalize == "none"


# --- what it refuses -------------------------------------------------------------------------------------------------

OUT = ("--output", "f.json")


def changed(option: str, value: str) -> tuple[str, ...]:
    words = [*FIT, *OUT]
    words[words.index(option) + 1] = value
    return tuple(words)


REFUSED = {
    "no verb": ((), ("no command", "--help")),
    "unknown verb": (("find",), ("find",)),
    "no files": (("fit", *OUT), ("--queries", "--help")),
    "unknown option": ((*FIT, *OUT, "--many"), ("--many",)),
    "nowhere to keep it": (FIT, ("--output", "--model")),
    "both places": ((*FIT, *OUT, "--model", "run"), ("--output", "--model")),
    "not JSON": ((*FIT, "--output", "f.txt"), ("--output f.txt", ".json")),
    "no such model": ((*FIT, "--model", "nowhere"), ("--model nowhere", "run folder")),
    "a folder without a model": ((*FIT, "--model", "photos"), ("--model photos", "run folder")),
    "no candidate": (changed("--candidates", "0"), ("--candidates", "0 is not in the range x>=1")),
    "candidates in words": (changed("--candidates", "many"), ("--candidates", "many")),
    "no such descriptors": (changed("--queries", "none.h5"), ("none.h5",)),
    "no such ground truth": (changed("--ground-truth", "none.csv"), ("none.csv",)),
    "no such folder": (changed("--query-images", "nowhere"), ("nowhere",)),
    "a folder without pictures": (changed("--reference-images", "run"), ("run", "holds no image")),
}


@pytest.mark.parametrize(("arguments", "naming"), REFUSED.values(), ids=REFUSED)
def test_the_command_refuses_in_one_line(scene, arguments, naming):
    refused(scene, arguments, naming)


def refused(place, arguments, naming) -> None:
    before = place.contents()
    status, out, err = called(place, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert place.contents() == before
    for part in naming:
        assert part in err, err


SPOILT = {
    "no copies": ("".join(f"{q},\n" for q in Q), ("gt.csv: holds distractors alone",)),
    "few copies": (
        "".join(f"{q},{R[i] if i < 30 else ''}\n" for i, q in enumerate(Q)),
        ("gt.csv: ", " copies and ", "expected at least 20 of each"),
    ),
    "an unknown query": ("Q000,R000\nQ999,R000\n", ("gt.csv: row 2", "Q999")),
    "an unknown reference": ("Q000,R999\n", ("gt.csv: row 1", "R999")),
}


@pytest.mark.parametrize(("rows", "naming"), SPOILT.values(), ids=SPOILT)
def test_a_ground_truth_that_tells_too_little_is_refused(scene, asked, rows, naming):
    scene.text("gt.csv", rows)
    scene.text("f.json", "an earlier one")
    before = scene.contents()
    status, out, err = called(scene, *FIT, *OUT)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert scene.contents() == before
    for part in naming:
        assert part in err


def test_descriptors_of_two_models_are_refused(scene):
    references = read_descriptors(scene / "r.h5")
    names = [str(name) for name in references.ids]
    scene.hdf5("r.h5", {"weights_sha256": "cd" * 32}, vectors=references.vectors, image_names=names)
    refused(scene, (*FIT, *OUT), ("r.h5: made with weights_sha256 cdcd", "q.h5", "abab"))


@pytest.mark.slow
def test_real_photos_that_are_too_few_are_compared_and_then_refused(place, benchmark):
    """Nothing stands in for the pixels here; 12 copies are too few for any fit."""
    rng = np.random.default_rng(0)
    for name, role in (("q.h5", "queries"), ("r.h5", "references")):
        names = list(list_images(benchmark / role))
        place.hdf5(name, vectors=unit(rng.standard_normal((len(names), 4))), image_names=names)
    images = ("--query-images", str(benchmark / "queries"), "--reference-images", str(benchmark / "references"))
    truth = ("--ground-truth", str(benchmark / "ground_truth.csv"))
    command = ("fit", "--queries", "q.h5", "--references", "r.h5", *images, *truth, "--candidates", "4", *OUT)
    words = [sys.executable, "-m", "isc.cli.main", "fusion", *command]
    done = subprocess.run(words, cwd=place.folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "ground_truth.csv: " in done.stderr.splitlines()[-1]
    assert "expected at least 20 of each" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert set(place.contents()) == {"q.h5", "r.h5"}


def test_interrupted_it_leaves_nothing(scene, asked, monkeypatch):
    def interrupt(pairs):
        raise KeyboardInterrupt

    monkeypatch.setattr(fusion_cli, "cross_fitted", interrupt)
    before = scene.contents()
    status, _, err = called(scene, *FIT, *OUT)
    assert status == 130
    assert "interrupted; nothing was left half written" in err
    assert scene.contents() == before


def test_the_command_explains_itself():
    words = [sys.executable, "-m", "isc.cli.main", "fusion", "fit", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "isc fusion fit --queries q.h5" in done.stdout
    assert "training photos" in done.stdout


def test_the_shipped_file_is_what_the_command_writes(scene, asked):
    fitted(scene, "--output", "f.json")
    shipped = json.loads((SHIPPED / "isc_small.fusion.json").read_text())
    assert list(scene.json("f.json")) == list(shipped)
    assert list(scene.json("f.json")["fusion"]) == list(shipped["fusion"])
