"""isc calibrate: what it prints and keeps, where it is found, what match.py makes of it, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isc.benchmark.make import make_benchmark
from isc.benchmark.sizes import Sizes
from isc.cli.main import main
from isc.data.csv_files import read_predictions
from isc.evaluate.calibration.files import read_calibration
from isc.evaluate.calibration.prior import corrected
from isc.photos.folders import SAMPLE
from tests.conftest import Workplace

QUERIES, COPIES, REFERENCES, DIM = 160, 100, 120, 16
WEIGHTS = "ab" * 32
Q, R = [f"Q{i:03}" for i in range(QUERIES)], [f"R{i:03}" for i in range(REFERENCES)]
MATCH = ("match", "queries=q.h5", "references=r.h5")
FIT = ("--run", "labelled", "--ground-truth", "gt.csv")


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def vectors(seed: int, *, copies: int = COPIES, noise: float = 1.1):
    """Descriptors of references, and of queries the first of which are copies."""
    rng = np.random.default_rng(seed)
    references = unit(rng.standard_normal((REFERENCES, DIM)))
    queries = unit(rng.standard_normal((QUERIES, DIM)))
    queries[:copies] = unit(references[:copies] + noise * queries[:copies])
    return queries, references


def descriptors(place, seed: int, *, weights: str = WEIGHTS, **how) -> None:
    """q.h5 and r.h5 by the model in the folder run."""
    made = {"model": "tiny", "weights": "run", "weights_sha256": weights}
    queries, references = vectors(seed, **how)
    place.hdf5("q.h5", made, vectors=queries, image_names=Q)
    place.hdf5("r.h5", made, vectors=references, image_names=R)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the run `labelled`, its ground truth gt.csv, and a model's folder."""
    place = Workplace(tmp_path_factory.mktemp("labelled"))
    descriptors(place, 0)
    rows = "".join(f"{q},{R[i] if i < COPIES else ''}\n" for i, q in enumerate(Q))
    place.text("gt.csv", "query_id,reference_id\n" + rows)
    (place / "run").mkdir()
    place.text("run/model.safetensors", "weights")
    place.done(*MATCH, "output=labelled", script=False)
    return place.folder


@pytest.fixture
def scene(place, made):
    shutil.copytree(made, place.folder, dirs_exist_ok=True)
    return place


def called(place, *arguments):
    """(status, stdout, stderr) of isc calibrate in this process."""
    return place.called(main, "calibrate", *arguments)


def calibrated(place, *arguments: str) -> str:
    status, out, err = called(place, *FIT, *arguments)
    assert status == 0, err
    return out


def probabilities(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- what is kept and printed ----------------------------------------------------------------------------------------


def test_what_was_fitted_is_printed_and_kept(scene):
    out = calibrated(scene, "--output", "c.json")
    found = read_calibration(scene / "c.json").calibration
    (run,) = found.runs
    assert (run.queries, run.with_copies, found.pairs) == (QUERIES, COPIES, 10 * QUERIES)
    assert f"{10 * QUERIES:,} pairs, {found.copies} of them copies" in out
    assert f"labelled: {QUERIES} queries, {COPIES} with a copy, {REFERENCES} references" in out
    assert f"precision {run.precision:.3f}, recall {run.recall:.3f}" in out
    assert f"{found.wanted.threshold:.4f}" in out
    assert out.count("← wanted") == 1
    assert "wrote c.json" in out
    kept = scene.json("c.json")
    assert kept["prior"] == {"copies": COPIES / QUERIES, "references": REFERENCES}
    assert kept["made"]["references"] == REFERENCES
    assert kept["made"]["descriptors"]["weights_sha256"] == WEIGHTS
    assert set(kept["held_out_log_likelihood"]) == {"isotonic", "logistic"}
    assert max(kept["held_out_log_likelihood"], key=kept["held_out_log_likelihood"].get) == kept["map"]["form"]
    assert [one["precision"] for one in kept["thresholds"]] == [0.5, 0.8, 0.9, 0.95, 0.99]
    for one in kept["thresholds"]:
        assert one["interval"][0] <= one["threshold"] <= one["interval"][1]


def test_the_wanted_precision_may_be_another(scene):
    calibrated(scene, "--precision", "0.75", "--output", "c.json")
    kept = scene.json("c.json")
    assert kept["wanted"]["precision"] == 0.75
    assert kept["wanted"] in kept["thresholds"]


def test_the_same_run_gives_the_same_file(scene):
    calibrated(scene, "--output", "c.json")
    calibrated(scene, "--output", "again.json")
    assert (scene / "c.json").read_bytes() == (scene / "again.json").read_bytes()


# --- what match.py makes of it ---------------------------------------------------------------------------------------


def test_match_writes_the_probabilities_of_the_model_that_made_the_descriptors(scene):
    calibrated(scene, "--model", "run")
    kept = read_calibration(scene / "run/calibration.json").calibration
    before = (scene / "labelled/predictions.csv").read_bytes()
    descriptors(scene, 1)
    finished = scene.done(*MATCH, "ground_truth=gt.csv", "output=out")
    rows = probabilities(scene / "out/probabilities.csv")
    predicted = read_predictions(scene / "out/predictions.csv")
    order = predicted.order()
    assert [row["score"] for row in rows] == [str(np.float32(score)) for score in predicted.score[order]]
    fitted = kept.fitted(predicted.score[order], None, None)
    expected, _ = corrected(fitted, kept.prior, queries=QUERIES, references=REFERENCES)
    np.testing.assert_allclose([float(row["probability"]) for row in rows], expected, rtol=1e-4)
    accepted = expected >= kept.wanted.threshold
    assert [row["accepted"] for row in rows] == ["true" if one else "false" for one in accepted]
    assert f"{accepted.sum()} of {len(rows):,} pairs reach the threshold for 90 % precision" in finished.out
    assert f"judged: of {accepted.sum()} accepted" in finished.out
    assert finished.err == ""  # a run like the fitted one
    assert 'id="reliability"' in (scene / "out/report/index.html").read_text(encoding="utf-8")
    assert 'id="reliability"' not in (scene / "labelled/report/index.html").read_text(encoding="utf-8")
    assert (scene / "labelled/predictions.csv").read_bytes() == before


def test_probabilities_change_no_figure(scene):
    calibrated(scene, "--model", "run")
    scene.done(*MATCH, "ground_truth=gt.csv", "output=with", script=False)
    scene.done(*MATCH, "ground_truth=gt.csv", "output=without", "calibration=none", script=False)
    for name in ("predictions.csv", "metrics.json", "match.json"):
        assert (scene / "with" / name).read_bytes() == (scene / "without" / name).read_bytes()
    assert (scene / "with/probabilities.csv").is_file()
    assert not (scene / "without/probabilities.csv").exists()


def test_running_again_without_leaves_no_probabilities_of_before(scene):
    calibrated(scene, "--model", "run")
    scene.done(*MATCH, "output=out", script=False)
    assert (scene / "out/probabilities.csv").is_file()
    scene.done(*MATCH, "calibration=none", "output=out", script=False)
    assert not (scene / "out/probabilities.csv").exists()


def test_a_model_without_one_changes_nothing(scene):
    finished = scene.done(*MATCH, "output=out")
    assert finished.err == ""
    assert "probabilit" not in finished.out
    assert not (scene / "out/probabilities.csv").exists()


def test_a_submission_in_hdf5_says_what_made_it(scene):
    calibrated(scene, "--output", "c.json")
    again = ("submission=labelled/submission.h5", "ground_truth=gt.csv")
    scene.done("match", *again, "calibration=c.json", "output=out", script=False)
    assert len(probabilities(scene / "out/probabilities.csv")) == 10 * QUERIES


@pytest.mark.parametrize(
    ("how", "options", "named"),
    [
        ({"weights": "cd" * 32}, (), "weights_sha256 abababababab, this run's cdcdcdcdcdcd"),
        ({}, ("k=3",), "k none, this run's 3"),
        ({}, ("normalize=pca:dim=8", "training=t.h5"), "normalize none, this run's pca:dim=8"),
    ],
)
def test_scores_made_otherwise_get_none_and_are_told_why(scene, how, options, named):
    calibrated(scene, "--model", "run")
    descriptors(scene, 1, **how)
    made = {"weights_sha256": how.get("weights", WEIGHTS)}
    training = unit(np.random.default_rng(9).standard_normal((200, DIM)))
    scene.hdf5("t.h5", made, vectors=training, image_names=[f"T{i}" for i in range(200)])
    finished = scene.done(*MATCH, *options, "output=out")
    assert f"run/calibration.json is not applied, so no probabilities are written: it was fitted on {named}" in (
        finished.err
    )
    assert finished.err.count("\n") == 1
    assert not (scene / "out/probabilities.csv").exists()


def test_fewer_copies_lower_the_probabilities(scene):
    calibrated(scene, "--model", "run")
    descriptors(scene, 1, copies=10)
    finished = scene.done(*MATCH, "ground_truth=gt.csv", "output=out")
    kept = read_calibration(scene / "run/calibration.json").calibration
    rows = probabilities(scene / "out/probabilities.csv")
    fitted = kept.map(np.array([float(row["score"]) for row in rows]))
    probability = np.array([float(row["probability"]) for row in rows])
    assert (probability < fitted).all()
    assert re.search(r"about 0\.\d+ copies a query are expected", finished.out)


@pytest.mark.slow
def test_several_runs_and_unrelated_pictures(scene):
    descriptors(scene, 1, noise=0.6)
    scene.done(*MATCH, "output=second", script=False)
    (scene / "q.h5").rename(scene / "q2.h5")
    descriptors(scene, 0)
    made = {"model": "tiny", "weights": "run", "weights_sha256": WEIGHTS}
    scene.hdf5("u.h5", made, vectors=vectors(7)[1], image_names=R)
    both = (*FIT, "--run", "second", "--ground-truth", "gt.csv")
    more = ("--unrelated", "u.h5", "--queries", "q.h5", "--queries", "q2.h5")
    status, out, err = called(scene, *both, *more, "--model", "run")
    assert status == 0, err
    assert "labelled: 160 queries" in out
    assert "second: 160 queries" in out
    kept = read_calibration(scene / "run/calibration.json").calibration
    assert kept.unrelated.shape == (REFERENCES, DIM)
    finished = scene.done(*MATCH, "ground_truth=gt.csv", "output=out")
    assert "pairs reach the threshold for 90 % precision" in finished.out
    given = ("submission=labelled/predictions.csv", "ground_truth=gt.csv", "output=csv")
    scene.done("match", *given)
    assert not (scene / "csv/probabilities.csv").exists()
    for wrong in (both, (*both, *more[:4]), (*FIT, *more), (*FIT, "--queries", "q.h5")):
        arguments = wrong if wrong is not both else (*FIT, "--run", "second")
        status, _, err = called(scene, *arguments, "--output", "c.json")
        assert status == 2
        assert "expected one --ground-truth for each --run" in err
    scene.hdf5("few.h5", made, vectors=vectors(7)[0][:5], image_names=Q[:5])
    status, _, err = called(scene, *FIT, "--unrelated", "u.h5", "--queries", "few.h5", "--output", "c.json")
    assert status == 2
    assert "--queries few.h5: expected one descriptor of each query of labelled, 'Q" in err


# --- what is refused -------------------------------------------------------------------------------------------------

REFUSED = {
    "no run": (("--run", "none", *FIT[2:]), ("none/predictions.csv is not there", "match.py")),
    "no truth": ((*FIT[:3], "no.csv"), ("no.csv", "expected")),
    "precision of 1": ((*FIT, "--precision", "1"), ("--precision", "1.0 is not in the range 0.5<=x<1")),
    "precision of 40 %": ((*FIT, "--precision", "0.4"), ("0.4 is not in the range",)),
    "precision in words": ((*FIT, "--precision", "high"), ("--precision", "'high'")),
    "precision of nothing": ((*FIT, "--precision", "nan"), ("nan is not a finite number",)),
    "few copies": ((*FIT[:2], "--ground-truth", "few.csv"), ("labelled", "19 copies among", "at least 20", "label")),
    "no copies": ((*FIT[:2], "--ground-truth", "none.csv"), ("none.csv", "distractors alone")),
    "another truth": ((*FIT[:2], "--ground-truth", "other.csv"), ("other.csv: none of its 100 query ids",)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_fitted_is_refused(scene, reason):
    arguments, naming = REFUSED[reason]
    scene.text("none.csv", "".join(f"{q},\n" for q in Q))
    scene.text("few.csv", "".join(f"{q},{R[i] if 30 <= i < 49 else ''}\n" for i, q in enumerate(Q)))
    scene.text("other.csv", "".join(f"X{q},{R[i]}\n" for i, q in enumerate(Q[:COPIES])))
    before = scene.contents()
    status, out, err = called(scene, *arguments, "--output", "c.json")
    assert (status, out) == (2, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in naming:
        assert part in err
    assert scene.contents() == before


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        (("--output", "c.txt"), ("--output c.txt", ".json")),
        (("--model", "nowhere"), ("--model nowhere", "expected a run folder")),
        (("--model", "run", "--output", "c.json"), ("--output and --model exclude each other",)),
        ((), ("--output", "--model", "required")),
    ],
)
def test_a_place_where_nothing_would_find_it_is_refused(scene, arguments, naming):
    status, _, err = called(scene, *FIT, *arguments)
    assert status == 2
    for part in naming:
        assert part in err


def test_a_run_that_does_not_say_what_made_it_is_refused(scene):
    (scene / "labelled/match.json").unlink()
    status, _, err = called(scene, *FIT, "--output", "c.json")
    assert status == 2
    assert "labelled/match.json is not there" in err
    assert "run it again" in err
    scene.text("labelled/match.json", "{}")
    status, _, err = called(scene, *FIT, "--output", "c.json")
    assert status == 2
    assert "labelled/match.json: no format; expected what match.py wrote" in err


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda values: values.pop("map"), "no map"),
        (lambda values: values.update(format="isc-fusion-1"), "format 'isc-fusion-1'"),
        (lambda values: values["map"].update(form="spline"), "form 'spline'"),
        (lambda values: values["wanted"].update(threshold="high"), 'wanted.threshold is "high"'),
        (lambda values: values["prior"].update(copies=-1), "-1.0 copies a query"),
        (lambda values: values["runs"][0].update(copies=10**6), "1000000 of 1600 pairs"),
        (lambda values: values.update(unrelated={"rows": 2, "dim": 2, "float16": "AAAA"}), "expected 2 × 2 float16"),
        (lambda values: values["made"].update(queries=0), "0 queries"),
    ],
)
def test_a_spoilt_file_is_refused_before_the_search(scene, spoil, reason):
    calibrated(scene, "--output", "c.json")
    values = scene.json("c.json")
    spoil(values)
    scene.text("c.json", json.dumps(values))
    err = scene.refused(*MATCH, "calibration=c.json", "output=out", naming=("c.json", reason, "isc calibrate"))
    assert "Traceback" not in err


def test_a_calibration_for_what_a_csv_does_not_say_is_refused(scene):
    calibrated(scene, "--output", "c.json")
    given = ("submission=labelled/predictions.csv", "ground_truth=gt.csv", "calibration=c.json")
    scene.refused("match", *given, "output=out", naming=("calibration=c.json", "does not say what made its scores"))
    scene.refused(*MATCH, "calibration=no.json", "output=out", naming=("no.json", "No such file", "isc calibrate"))


def test_the_command_by_its_module(scene):
    command = [sys.executable, "-m", "isc.cli.main", "calibrate", *FIT, "--output", "c.json"]
    done = subprocess.run(command, cwd=scene.folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "held-out log-likelihood" in done.stdout
    help = subprocess.run([*command[:4], "--help"], capture_output=True, text=True, timeout=100, check=True).stdout
    assert "isc calibrate --run labelled" in help


# --- real photos -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A benchmark of sample photos with enough copies, and its descriptors by the untrained start at 64 pixels."""
    from isc.config.extract import ExtractConfig
    from isc.extract.run import extract

    folder = tmp_path_factory.mktemp("real")
    sizes = Sizes(references=30, copied=28, distractors=30, training=10, positive_queries=56, distractor_queries=56)
    make_benchmark(SAMPLE, folder / "bench", sizes=sizes, seed=3, max_side=96, workers=1)
    for role in ("queries", "references"):
        images, output = str(folder / "bench" / role), str(folder / f"{role}.h5")
        extract(ExtractConfig(images=images, output=output, model="imagenet", image_size=64, workers=0))
    return folder


def test_probabilities_hold_for_other_copies_of_real_photos(place, real):
    """Fitted on every other query, judged on the rest."""
    pairs = [line.split(",") for line in (real / "bench/ground_truth.csv").read_text().splitlines()[1:]]
    for name, rows in (("one.csv", pairs[::2]), ("two.csv", pairs[1::2])):
        place.text(name, "".join(f"{q},{r}\n" for q, r in rows))
    files = (f"queries={real / 'queries.h5'}", f"references={real / 'references.h5'}", "num_pairs=3360")  # all
    place.done("match", *files, "output=labelled", "calibration=none", script=False)
    status, _, err = called(place, "--run", "labelled", "--ground-truth", "one.csv", "--output", "c.json")
    assert status == 0, err
    place.done("match", *files, "calibration=c.json", "output=out", script=False)
    copies = {(q, r) for q, r in pairs[1::2] if r}
    judged = {q for q, _ in pairs[1::2]}
    rows = [row for row in probabilities(place / "out/probabilities.csv") if row["query_id"] in judged]
    probability = np.array([float(row["probability"]) for row in rows])
    right = np.array([(row["query_id"], row["reference_id"]) in copies for row in rows])
    assert probability.mean() == pytest.approx(right.mean(), abs=0.02)
    likely = probability > 0.5
    assert likely.sum() >= 5
    assert right[likely].mean() > 0.5 > right[~likely].mean() + 0.3
