"""DISC21: the experiments, every command of its page on a small stand-in, and the check at full size, in small."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from benchmarks.disc21 import __main__ as program
from benchmarks.disc21 import checks, costs, made, parts
from benchmarks.disc21.processes import Cost, measured
from benchmarks.score import plain_evaluate
from isc.cli.keys import CONF
from isc.cli.main import main
from isc.data.csv_files import read_ground_truth
from isc.data.hdf5 import read_descriptors
from tests.conftest import REPOSITORY, Workplace

pytestmark = pytest.mark.slow

PAGE = (REPOSITORY / "docs" / "disc21.md").read_text(encoding="utf-8")
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("disc21_*.yaml"))
VERB = {"train": "train", "extract": "extract", "descriptor": "match", "matching": "match"}
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines() if "disc21" in line
]
RUN = [command for command in COMMANDS if not command.startswith(("torchrun", "python -m"))]
QUICK = {  # added to the page's commands, so that they take a second each
    "train": ["train.steps=2", "train.batch_size=4", "train.stages=[]", "train.image_size=64", "model.image_size=64",
              "model.background=0", "model.whiten=0", "workers=0"],
    "extract": ["workers=0"],
    "match": ["workers=1"],
}  # fmt: skip
SIZE = made.Size(30, 60)


def verb_of(experiment):
    return VERB[experiment.split("_")[1]]


@pytest.fixture(autouse=True, scope="module")
def no_folder_of_the_user():
    """Whoever has the challenge's images may have named their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DISC21", raising=False)
        yield


# --- the experiments -------------------------------------------------------------------------------------------------


def test_there_are_experiments_for_every_step_and_the_page_names_them_all():
    assert len(EXPERIMENTS) == 13
    named = set(re.findall(r"experiment=(disc21_\w+)", PAGE))
    assert named == set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_a_configuration_below_the_folder_named(place, monkeypatch, name):
    place.refused(verb_of(name), f"experiment={name}", naming=("disc21/", "no such"))
    monkeypatch.setenv("DISC21", "some where, [else]")
    place.refused(verb_of(name), f"experiment={name}", naming=("some where, [else]/", "no "))


WRONG = [
    (verb, name)
    for name in (
        "demo",
        "disc21_train_small",
        "disc21_extract_phase2",
        "disc21_descriptor_dev1",
        "disc21_matching_phase1",
    )
    for verb in ("train", "extract", "match")
    if verb != ("train" if name == "demo" else verb_of(name))
]


@pytest.mark.parametrize(("verb", "name"), WRONG)
def test_an_experiment_of_another_command_is_refused_by_name(place, verb, name):
    right = "train" if name == "demo" else verb_of(name)
    line = place.refused(verb, f"experiment={name}", "output=out", naming=(f"experiment={name}: sets ",))
    assert f"which {verb}.py does not take; it is for {right}.py; those for {verb}.py: " in line
    told = line.rpartition(": ")[2].strip().split(", ")
    assert {one for one in told if one.startswith("disc21")} == {one for one in EXPERIMENTS if verb_of(one) == verb}


def test_training_takes_training_photos_alone(place):
    for name in (one for one in EXPERIMENTS if verb_of(one) == "train"):
        shown = place.done("train", f"experiment={name}", "--cfg", "job", "--resolve", script=False).out
        assert "images:\n- disc21/images/train\n" in shown
        assert "pairs: null\n" in shown


# --- the page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def challenge(benchmark, tmp_path_factory):
    """Laid out like the challenge: 40 queries a phase, 20 of them dev I; 10 references, 10 training photos."""
    folder = tmp_path_factory.mktemp("challenge")
    disc21 = folder / "disc21"
    names = {"references": "references", "training": "train", "queries": "queries"}
    for role, name in names.items():
        (disc21 / "images").mkdir(parents=True, exist_ok=True)
        (disc21 / "images" / name).symlink_to(benchmark / role)
    (disc21 / "images" / "final_queries").mkdir()
    for photo in sorted((benchmark / "queries").iterdir()):
        (disc21 / "images" / "final_queries" / photo.name.replace("Q0", "Q5")).symlink_to(photo)
    with (benchmark / "ground_truth.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["query_id", "reference_id"]
    assert sum(bool(reference) for _, reference in rows[:20]) >= 3

    def write(name, lines):
        (disc21 / name).write_text("".join(f"{','.join(line)}\n" for line in lines))

    write("public_ground_truth.csv", [header, *rows[:20]])
    write("dev_queries_groundtruth.csv", rows)  # without a header, as it is published
    write("test_queries_groundtruth.csv", [header, *([q.replace("Q0", "Q5"), r] for q, r in rows)])
    return Workplace(folder)


def run_as_written(challenge, command):
    program_name, *words = shlex.split(command)
    if program_name == "isc":
        at = words.index("--chains") + 1
        words[at] = words[at].replace("pca:dim=255+score", "stretch")  # ten training photos have not so many directions
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(challenge.folder)
            main(words)
        return
    assert program_name == "python"
    verb = words[0].removesuffix(".py")
    extra = [] if any(word.startswith("submission=") for word in words) else list(QUICK[verb])
    if "matching_phase" in command and "submission=" not in command:
        extra.append("query_views=whole")  # dev I's are looked at in the way of the page
    challenge.done(verb, *words[1:], *extra, script=False)


@pytest.fixture(scope="module")
def finished(challenge):
    """After every command of the page, and its Python, in their order. (Forty seconds.)"""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for command in RUN:
        if command.startswith("python match.py experiment=disc21_descriptor_dev1"):
            few = code.replace("% 10 ==", "% 1 ==")  # a tenth of ten is one
            done = subprocess.run(
                [sys.executable, "-c", few], cwd=challenge.folder, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
        run_as_written(challenge, command)
    return challenge


def test_every_command_of_the_page_is_run_here_or_is_for_gpus():
    left = [command for command in COMMANDS if command not in RUN]
    assert left == [
        "torchrun --nproc_per_node=8 train.py experiment=disc21_train",
        "torchrun --nproc_per_node=8 train.py experiment=disc21_train_sscd",
        "python -m benchmarks.disc21 --work rates --rates",
    ]
    assert len(RUN) == 15


def test_the_page_leads_to_the_files_and_scores_of_both_tracks(finished):
    read = {name: finished.json(f"disc21/{name}/metrics.json") for name in (
        "descriptor_dev1", "descriptor_phase1", "descriptor_phase2", "normalised_phase2", "matching_dev1",
        "matching_phase1", "matching_phase2", "judged", "judged_matching",
    )}  # fmt: skip
    assert all(0 < one["average_precision"] <= 1 for one in read.values())
    assert read["judged"] == read["descriptor_phase2"]
    assert read["judged_matching"] == read["matching_phase2"]
    assert read["matching_phase2"]["average_precision"] > read["descriptor_phase2"]["average_precision"]
    for phase, first, queries in (("dev1", 0, 20), ("phase1", 0, 40), ("phase2", 50_000, 40)):
        official = {
            "queries": [f"Q{first + number:05d}" for number in range(queries)],
            "references": [f"R{number:06d}" for number in range(10)],
        }
        for track in ("descriptor", "matching"):
            folder = finished / f"disc21/{track}_{phase}"
            assert checks.problems_of_predictions(folder / "predictions.csv", **official) == []
        assert checks.problems_of_submission(finished / f"disc21/descriptor_{phase}/submission.h5", **official) == []
    scores = [score for *_, score in checks.predictions_of(finished / "disc21/matching_phase2/predictions.csv")]
    assert 0 <= min(scores) <= max(scores) <= 1


def test_dev_1_is_what_the_evaluator_makes_of_the_whole_phase(finished):
    """It takes the queries that the ground truth names, then the ten best pairs a query among them."""
    truth = checks.ground_truth_of(finished / "disc21/public_ground_truth.csv")
    with h5py.File(finished / "disc21/descriptor_phase1/submission.h5") as file:
        ids, references = (file[f"{side}_ids"][:].astype(str).tolist() for side in ("query", "reference"))
        one, two = (file[side][:].astype(np.float64) for side in ("query", "reference"))
    pairs = sorted(
        (-float(((one[row] - two[column]) ** 2).sum()), query, reference)
        for (row, query), (column, reference) in itertools.product(enumerate(ids), enumerate(references))
        if query in truth[0]
    )
    kept = [(query, reference, score) for score, query, reference in pairs[::-1][: 10 * len(truth[0])]]
    expected = plain_evaluate(kept, *truth)["average_precision"]
    assert finished.json("disc21/descriptor_dev1/metrics.json")["average_precision"] == pytest.approx(expected)


def test_the_parts_of_the_page_are_those_meant(finished):
    dev1 = read_descriptors(finished / "disc21/dev1.h5")
    truth = read_ground_truth(finished / "disc21/public_ground_truth.csv")
    assert set(dev1.ids) == truth.queries
    whole = read_descriptors(finished / "disc21/phase1.h5")
    np.testing.assert_array_equal(dev1.vectors, whole.vectors[:20])


def test_a_query_that_cannot_be_read_ends_the_extraction(challenge, monkeypatch, tmp_path):
    photos = tmp_path / "images" / "queries"
    photos.mkdir(parents=True)
    (photos / "Q00000.jpg").write_bytes(b"\xff\xd8\xff")
    (photos / "Q00001.jpg").symlink_to(challenge / "disc21/images/queries/Q00001.jpg")
    monkeypatch.setenv("DISC21", str(tmp_path))
    command = ("experiment=disc21_extract_phase1", "model=imagenet", "workers=0")
    finished = challenge.run("extract", *command, script=False)
    assert (finished.status, "Q00000.jpg" in finished.err) == (2, True)
    assert not (tmp_path / "phase1.h5").exists()


# --- the check at full size, in small --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work(descriptors, tmp_path_factory):
    """A folder in which all parts of the check were run, in this process."""
    folder = tmp_path_factory.mktemp("check")
    real = np.concatenate([read_descriptors(descriptors / f"{role}.h5").vectors for role in ("queries", "references")])
    place = Workplace(folder)
    for name, command in program.commands(folder, SIZE, None).items():
        if name == "make":
            made.make(folder, SIZE, real)
        elif name in program.OWN:
            program.OWN[name](folder, SIZE)
        else:
            place.done("match", *command[2:], script=False)
    return folder


def test_all_figures_agree_and_the_tables_show_them(work):
    found = program.figures(work)
    assert 0 < found["descriptor"]["average_precision"] < 1
    assert found["judge_matching"]["average_precision"] > found["descriptor"]["average_precision"]
    assert {row["predictions"] for row in program.score_rows(found)} == {"300"}
    cost = dict.fromkeys(program.commands(work, SIZE, None), Cost(2.0, 3.0, 0.5))
    rows = program.cost_rows(work, SIZE, cost)
    assert [row["ratio"] for row in rows if row["what"].startswith("match.py: desc")] != []
    assert all(row.keys() == rows[0].keys() for row in rows)


def test_a_figure_that_differs_is_told(work, tmp_path):
    for name in ("check_descriptor.json", "check_matching.json", "descriptor", "judged"):
        (tmp_path / name).symlink_to(work / name)
    (tmp_path / "check_matching.json").unlink()
    plain = json.loads((work / "check_matching.json").read_text())
    (tmp_path / "check_matching.json").write_text(json.dumps(plain | {"recall_at_rank1": 0.25}))
    with pytest.raises(SystemExit, match=r"judge_matching: recall_at_rank1 is .* in plain Python 0\.25"):
        program.figures(tmp_path)


def test_what_is_made_is_the_same_every_time_and_holds_the_copies(work, descriptors, tmp_path):
    real = np.concatenate([read_descriptors(descriptors / f"{role}.h5").vectors for role in ("queries", "references")])
    made.make(tmp_path, SIZE, real)
    for name in (made.QUERIES, made.REFERENCES, made.GROUND_TRUTH):
        assert (tmp_path / name).read_bytes() == (work / name).read_bytes()
    queries, references = (read_descriptors(tmp_path / name) for name in (made.QUERIES, made.REFERENCES))
    np.testing.assert_allclose(np.linalg.norm(queries.vectors, axis=1), 1, atol=1e-6)
    names, pairs = checks.ground_truth_of(tmp_path / made.GROUND_TRUTH)
    assert (len(names), len(pairs), len({reference for _, reference in pairs})) == (30, 6, 6)
    rows = [(int(query[1:]), int(reference[1:])) for query, reference in pairs]
    distance = [((queries.vectors[q] - references.vectors[r]) ** 2).sum() for q, r in rows]
    assert 0 < min(distance) < max(distance) < 1.83


def test_parts_that_are_done_are_not_run_again(tmp_path, monkeypatch):
    ran = []

    def stopped_at_the_third(command):
        ran.append(command)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return Cost(1.0, 1.0, 1.0)

    monkeypatch.setattr(program, "measured", stopped_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        program.run_parts(tmp_path, SIZE, None)
    every = list(program.commands(tmp_path, SIZE, None).values())
    assert ran == every[:3]
    assert list(program.run_parts(tmp_path, SIZE, None).values()) == [Cost(1.0, 1.0, 1.0)] * len(every)
    assert ran == every[:3] + every[2:]
    program.run_parts(tmp_path, replace(SIZE, queries=31), None)
    assert len(ran) == len(every) + 1 + len(every)


def test_a_process_is_measured_and_one_that_fails_ends_the_run():
    held = measured([sys.executable, "-c", "import time; b = bytearray(300_000_000); time.sleep(0.2)"])
    assert held.seconds > 0.2
    assert 0.3 < held.gb < 3
    with pytest.raises(SystemExit, match="3"):
        measured([sys.executable, "-c", "raise SystemExit(3)"])


def test_what_starts_the_processes_is_small():
    """A process is held to have had the memory of the one that started it."""
    code = "import sys, benchmarks.disc21.__main__; sys.exit(bool({'torch', 'faiss'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def rewritten(source, target, change):
    with h5py.File(source) as file:
        values = {name: file[name][:] for name in file}
    change(values)
    with h5py.File(target, "w") as file:
        for name, value in values.items():
            file[name] = value


BROKEN = {
    "float64": lambda v: v.update(query=v["query"].astype(np.float64)),
    "257 dims": lambda v: [v.update({s: np.pad(v[s], ((0, 0), (0, 257 - v[s].shape[1])))}) for s in checks.SIDES],
    "other dims": lambda v: v.update(query=v["query"][:, 1:]),
    "nan": lambda v: v["reference"].__setitem__((3, 2), np.nan),
    "unsorted": lambda v: v.update(query_ids=v["query_ids"][::-1]),
    "repeated": lambda v: v["reference_ids"].__setitem__(1, v["reference_ids"][0]),
    "longer ids": lambda v: v.update(query_ids=v["query_ids"].astype("S9")),
    "other ids": lambda v: v["query_ids"].__setitem__(0, b"X00000"),
    "missing": lambda v: [v.update({n: v[n][1:]}) for n in ("query", "query_ids")],
    "fewer ids": lambda v: v.update(query_ids=v["query_ids"][1:]),
    "more datasets": lambda v: v.update(extra=np.zeros(1)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_submission_is_seen(work, tmp_path, what):
    official = parts._official(SIZE)
    assert checks.problems_of_submission(work / "descriptor/submission.h5", **official) == []
    rewritten(work / "descriptor/submission.h5", tmp_path / "broken.h5", BROKEN[what])
    assert checks.problems_of_submission(tmp_path / "broken.h5", **official)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("query_id,reference_id,score\n", ""),
        ("query_id,", "query,"),
        ("\n", "\r\n"),
        ("\nQ", "\nX"),
        (",R0", ",R9"),
        (",-0.", ",nan"),
        (",-0.", ",-0_1."),
        (",-0.", ",-9."),
        ("\nQ", ",\nQ"),
    ],
)
def test_broken_predictions_are_seen(work, tmp_path, old, new):
    official, text = parts._official(SIZE), (work / "descriptor/predictions.csv").read_text()
    assert checks.problems_of_predictions(work / "descriptor/predictions.csv", **official) == []
    assert old in text
    (tmp_path / "broken.csv").write_text(text.replace(old, new, 1), newline="")
    assert checks.problems_of_predictions(tmp_path / "broken.csv", **official)
    header, *rows = text.splitlines(keepends=True)
    (tmp_path / "broken.csv").write_text("".join([header, rows[0], *rows]))
    assert checks.problems_of_predictions(tmp_path / "broken.csv", **official) == ["a pair occurs twice"]


def test_brute_force_sees_a_pair_that_was_left_out_or_kept_or_scored_wrongly(work):
    submission = work / "descriptor/submission.h5"
    right = checks.predictions_of(work / "descriptor/predictions.csv")

    def problems(predictions):
        return checks.problems_of_search(submission, predictions, sample=30, seed=0)

    assert problems(right) == []
    (told,) = problems([*right[:5], *right[6:]])
    assert "was left out" in told
    query, reference, score = right[5]
    assert "by brute force" in problems([*right[:5], (query, reference, score - 1e-4), *right[6:]])[0]
    assert "are no references" in problems([*right[:5], (query, "R999999", score), *right[6:]])[-1]


def test_hours_are_sums_of_measured_rates():
    rows = {row["step"]: row for row in costs.table()}
    (hours,) = [key for key in next(iter(rows.values())) if key.startswith("hours, ")]
    search = json.loads((REPOSITORY / "benchmarks/results/search.json").read_text())
    seconds = next(row["seconds"] for row in search if row["what"].startswith("best 100,000 of 10,000 × 1,000,000"))
    assert float(rows["the search of disc21_descriptor_*"][hours]) == pytest.approx(5 * seconds / 3600, rel=0.05)
    small = json.loads((CONF / "experiment").joinpath("disc21_train_small.yaml").read_text().split("steps: ")[1])
    assert small * 64 == costs.TRAINING
    for mark in ("disc21", "disc21_scores", "disc21_rates", "disc21_costs"):
        assert f"<!-- {mark} -->" in PAGE
        assert f"<!-- /{mark} -->" in PAGE


def test_costs_stages_are_those_of_the_recipe():
    import yaml

    recipe = yaml.safe_load((CONF / "experiment" / "isc_small.yaml").read_text(encoding="utf-8"))["train"]["stages"]
    assert [(stage["share"] / 100, stage["image_size"]) for stage in recipe] == list(costs.STAGES)
    assert all(stage["freeze_blocks"] == 3 for stage in recipe)  # as the measured rate
