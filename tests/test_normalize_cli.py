"""isc normalize: what it chooses, that it is not chance, where it is kept, and what match.py makes of it."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from isc.cli.main import main
from isc.config.chain import parse
from isc.config.extract import ExtractConfig
from isc.data.csv_files import write_ground_truth
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import read_descriptors, read_provenance, write_descriptors
from isc.data.matches import GroundTruth, Matches
from isc.data.model_files import beside_model
from isc.errors import InputError
from isc.evaluate.metrics import evaluate
from isc.extract.run import extract
from isc.search.exact import best_pairs
from isc.search.normalize.fitted import fit
from isc.search.normalize.transforms import unit
from isc.search.normalize.tune import CHAINS, Bench, choose, standard_error
from tests.conftest import REPOSITORY

FEW = ("subtract", "stretch", "score", "pca:dim=4+score")


def crowded(seed, *, queries=120, training=400, dim=16):
    """A validation set in which score normalisation is right: distractors and training photos lie in a crowd, where
    everything is alike; copies, outside, are far from their originals."""
    rng = np.random.default_rng(seed)
    middle = np.eye(dim)[0]

    def crowd_of(count):
        return unit(0.8 * middle + 0.6 * rng.normal(size=(count, dim)) / math.sqrt(dim))

    originals = unit(rng.normal(size=(queries // 2, dim)))
    copies = unit(originals + 1.12 * rng.normal(size=originals.shape) / math.sqrt(dim))
    truth = GroundTruth(
        frozenset(f"Q{i:03}" for i in range(queries)), frozenset((f"Q{i:03}", f"R{i:03}") for i in range(len(copies)))
    )
    return Bench(
        Descriptors([f"Q{i:03}" for i in range(queries)], np.r_[copies, crowd_of(queries - len(copies))]),
        Descriptors([f"R{i:03}" for i in range(queries)], np.r_[originals, crowd_of(queries - len(copies))]),
        Descriptors(
            [f"T{i:03}" for i in range(training)],
            np.r_[crowd_of(training // 2), unit(rng.normal(size=(training // 2, dim)))],
        ),
        truth,
    )


def noise(seed):
    """A validation set in which nothing helps: queries, references and training photos in any direction."""
    rng = np.random.default_rng(seed)
    sets = [Descriptors([f"{p}{i:03}" for i in range(80)], unit(rng.normal(size=(80, 8)))) for p in "QRT"]
    queries = Descriptors(sets[0].ids, unit(sets[1].vectors + 0.45 * rng.normal(size=(80, 8))))
    truth = GroundTruth(frozenset(sets[0].ids), frozenset(zip(sets[0].ids[:40], sets[1].ids[:40], strict=True)))
    return Bench(queries, *sets[1:], truth)


# --- choosing --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chosen():
    return choose(crowded(0), [parse(text) for text in FEW])


def test_what_helps_is_chosen_and_helps_on_other_queries(chosen):
    assert chosen.chosen == chosen.best
    assert chosen.gain > 2 * chosen.standard_error > 0
    other = crowded(1)
    assert other.trial(chosen.chosen.chain).average_precision > other.trial(parse("none")).average_precision + 0.02


def test_what_helps_by_chance_alone_is_not_chosen():
    for seed in range(4):
        choice = choose(noise(seed), [parse(text) for text in ("subtract", "stretch", "score")])
        assert choice.best.average_precision >= choice.plain.average_precision
        assert str(choice.chosen.chain) == "none"
        assert choice.gain <= choice.standard_error


def test_the_choice_is_the_best_of_all_trials_and_was_tried_once(chosen):
    assert chosen.best == max(chosen.trials, key=lambda trial: trial.average_precision)
    assert len({trial.chain for trial in chosen.trials}) == len(chosen.trials)
    assert [trial.chain.steps[-1].name for trial in chosen.kinds] == ["subtract", "stretch", "score", "score"]
    for kind in chosen.kinds:  # no worse than where it began
        start = next(
            trial for trial in chosen.trials if str(trial.chain).split(":")[0] == str(kind.chain).split(":")[0]
        )
        assert kind.average_precision >= start.average_precision


def test_a_half_is_judged_by_what_the_other_half_chose(chosen):
    bench = crowded(0)
    for half, crossed in enumerate(chosen.crossed):
        assert crossed.other_half == bench.trial(crossed.chain).halves[1 - half]
        assert crossed.plain == bench.trial(parse("none")).halves[1 - half]
        assert bench.trial(crossed.chain).halves[half] >= bench.trial(parse("none")).halves[half]
        assert crossed.chain in {trial.chain for trial in chosen.trials}
    one, two = chosen.crossed
    assert chosen.gain == pytest.approx(np.mean([one.other_half - one.plain, two.other_half - two.plain]))


def test_the_halves_share_no_query_and_forget_none():
    bench = crowded(0)
    one, two = bench.halves
    assert one.queries | two.queries == bench.truth.queries
    assert not one.queries & two.queries
    assert one.pairs | two.pairs == bench.truth.pairs
    assert 0.3 < len(one.queries) / len(bench.truth.queries) < 0.7


def test_a_trial_is_what_match_py_would_find():
    bench = crowded(2)
    chain = parse("whiten:dim=9+score")
    fitted = fit(chain, bench.training)
    pairs = best_pairs(fitted.queries(bench.queries), fitted.references(bench.references), num_pairs=1200)
    metrics = evaluate(pairs, bench.truth)
    trial = bench.trial(chain)
    assert trial.average_precision == pytest.approx(metrics.average_precision, abs=1e-9)
    assert trial.recall_at_p90 == pytest.approx(metrics.recall_at_p90)
    assert trial.dim == 10


def test_a_trial_with_views_is_of_images():
    """A far second view of each photo changes nothing; the first, given as the second, neither."""
    plain, rng = crowded(2), np.random.default_rng(0)
    sets = []
    for one in (plain.queries, plain.references):
        far = Descriptors(one.ids, unit(rng.normal(size=one.vectors.shape)) * 100)
        names = np.r_[np.full(len(one), "whole", object), np.full(len(one), "flip", object)]
        sets.append(Descriptors(np.r_[one.ids, one.ids], np.r_[far.vectors, one.vectors], names))
    bench = Bench(*sets, plain.training, plain.truth)
    viewed, trial = bench.trial(parse("none")), plain.trial(parse("none"))
    assert len(bench.matches(parse("none"))) == len(plain.matches(parse("none")))
    assert viewed.average_precision == trial.average_precision
    assert viewed.halves == trial.halves


def test_the_standard_error_is_that_of_queries_drawn_anew():
    """The slow twin draws queries, repeats their predictions under new ids, and judges each draw from scratch."""
    bench = crowded(3, queries=30, training=40)
    one, two = bench.matches(parse("stretch")), bench.matches(parse("none"))
    ids = sorted(bench.truth.queries)
    true = dict(bench.truth.pairs)
    rng = np.random.default_rng(1)

    def judged(matches, drawn):
        query, reference, score, pairs = [], [], [], set()
        for number, name in enumerate(drawn):
            rows = np.flatnonzero(matches.query_ids[matches.query] == name)
            query += [f"{number}"] * len(rows)
            reference += matches.reference_ids[matches.reference[rows]].tolist()
            score += matches.score[rows].tolist()
            pairs |= {(f"{number}", true[name])} if name in true else set()
        truth = GroundTruth(frozenset(map(str, range(len(drawn)))), frozenset(pairs))
        return evaluate(Matches.from_ids(query, reference, score), truth).average_precision

    differences = []
    for _ in range(150):
        drawn = rng.choice(ids, len(ids))
        differences.append(judged(one, drawn) - judged(two, drawn))
    assert standard_error(one, two, bench.truth) == pytest.approx(np.std(differences), rel=0.25)
    assert standard_error(one, one, bench.truth) == 0


def test_a_chain_too_long_for_the_track_is_shown_and_not_chosen():
    rng = np.random.default_rng(0)
    sets = [Descriptors([f"{p}{i}" for i in range(300)], unit(rng.normal(size=(300, 256)))) for p in "QRT"]
    truth = GroundTruth(frozenset(sets[0].ids), frozenset(zip(sets[0].ids, sets[1].ids, strict=True)))
    bench = Bench(Descriptors(sets[0].ids, unit(sets[1].vectors + 0.1 * rng.normal(size=(300, 256)))), *sets[1:], truth)
    choice = choose(bench, [parse("score:neighbours=1"), parse("pca+score")])
    assert [trial.legal for trial in choice.kinds] == [False, True]
    assert choice.kinds[0].dim == 257
    assert choice.best.legal
    assert choose(bench, [parse("score")], any_dim=True).best.average_precision >= choice.kinds[0].average_precision


def test_longer_descriptors_are_held_against_pca():
    rng = np.random.default_rng(0)
    sets = [Descriptors([f"{p}{i}" for i in range(320)], unit(rng.normal(size=(320, 300)))) for p in "QRT"]
    truth = GroundTruth(frozenset(sets[0].ids), frozenset(zip(sets[0].ids, sets[1].ids, strict=True)))
    choice = choose(Bench(*sets, truth), [parse("whiten")])
    assert str(choice.plain.chain) == "pca:dim=256"
    assert choice.chosen.legal


def test_one_true_pair_is_too_little_to_cross():
    bench = crowded(0)
    alone = GroundTruth(bench.truth.queries, frozenset(sorted(bench.truth.pairs)[:1]))
    with pytest.raises(InputError, match="1 true pairs, all in one half"):
        choose(Bench(bench.queries, bench.references, bench.training, alone), [parse("score")])


# --- the command, on real photos -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(benchmark, tmp_path_factory):
    """A model's folder, and descriptors that it made of the benchmark."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "run").mkdir()
    shutil.copy(
        beside_model("isc_small", "normalize.json").with_name("isc_small.safetensors"),
        folder / "run" / "model.safetensors",
    )
    with contextlib.chdir(folder):
        for role in ("queries", "references", "training"):
            images, output = str(benchmark / role), f"{role}.h5"
            extract(ExtractConfig(images=images, output=output, model="run", image_size=64, workers=0))
    return folder


@pytest.fixture
def scene(place, made, benchmark):
    shutil.copytree(made, place.folder, dirs_exist_ok=True)
    shutil.copy(benchmark / "ground_truth.csv", place / "gt.csv")
    return place


FILES = (
    "--queries",
    "queries.h5",
    "--references",
    "references.h5",
    "--training",
    "training.h5",
    "--ground-truth",
    "gt.csv",
)
QUICK = ("--chains", "stretch:neighbours=3 subtract")
MATCHED = ("queries=queries.h5", "references=references.h5", "training=training.h5", "ground_truth=gt.csv")


def called(place, *arguments):
    """(status, stdout, stderr) of isc normalize in this process."""
    return place.called(main, "normalize", *arguments)


def test_search_prints_a_table_and_match_takes_what_it_keeps(scene):
    command = [sys.executable, "-m", "isc.cli.main", "normalize", "search", *FILES, *QUICK, "--output", "found.json"]
    done = subprocess.run(command, cwd=scene.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for part in ("μAP", "R@P90", "descriptor", "none", "stretch:", "chosen: ", "standard error", "wrote found.json"):
        assert part in done.stdout
    found = scene.json("found.json")
    assert found["format"] == "isc-normalize-1"
    assert found["training_rows"] == 10
    assert len(found["weights_sha256"]) == len(found["inputs_sha256"]["ground_truth"]) == 64
    assert [trial["chain"].split(":")[0] for trial in found["best_of_each_kind"]] == ["none", "stretch", "subtract"]
    assert found["tried"] >= 3

    scene.done("match", *MATCHED, "normalize=found.json", "output=a", script=False)
    scene.done("match", *MATCHED, f"normalize={found['normalize']}", "output=b", script=False)
    metrics = scene.json("a/metrics.json")
    assert (scene / "a" / "predictions.csv").read_bytes() == (scene / "b" / "predictions.csv").read_bytes()
    tried = next(trial for trial in found["best_of_each_kind"] if trial["chain"] == found["normalize"])
    assert metrics["average_precision"] == pytest.approx(tried["average_precision"], abs=1e-9)
    assert metrics["recall_at_p90"] == pytest.approx(tried["recall_at_p90"])


def test_what_is_kept_with_the_model_is_found_by_its_descriptors(scene):
    status, out, err = called(scene, "search", *FILES, *QUICK, "--model", "run")
    assert status == 0, err
    assert "wrote run/normalize.json" in out
    kept = scene.json("run/normalize.json")
    scene.text("run/normalize.json", json.dumps(kept | {"normalize": "subtract:neighbours=4+stretch:neighbours=5"}))
    scene.done("match", *MATCHED, "normalize=model", "output=a", script=False)
    scene.done("match", *MATCHED, "normalize=subtract:neighbours=4+stretch:neighbours=5", "output=b", script=False)
    assert (scene / "a" / "submission.h5").exists()
    assert (scene / "a" / "predictions.csv").read_bytes() == (scene / "b" / "predictions.csv").read_bytes()
    page = (scene / "a" / "report" / "index.html").read_text(encoding="utf-8")
    assert "subtract:weight=0.35,neighbours=4,smooth=true+stretch:factor=2.5,neighbours=5" in page


def test_a_file_and_what_lies_beside_it(tmp_path):
    (tmp_path / "run").mkdir()
    assert beside_model(str(tmp_path / "run"), "normalize.json") == tmp_path / "run" / "normalize.json"
    assert (
        beside_model(str(tmp_path / "run" / "model.safetensors"), "normalize.json")
        == tmp_path / "run" / "normalize.json"
    )
    assert beside_model("x/sscd.torchscript.pt", "normalize.json").as_posix() == "x/sscd.torchscript.normalize.json"
    assert beside_model("isc_small", "normalize.json").name == "isc_small.normalize.json"
    assert beside_model("isc_small", "normalize.json").parent.name == "weights"


def test_other_training_photos_than_it_was_found_with_are_noted(scene):
    stored = {"format": "isc-normalize-1", "normalize": "none", "weights_sha256": None, "training_rows": 14483}
    scene.text("found.json", json.dumps(stored))
    finished = scene.done("match", *MATCHED, "normalize=found.json", "output=out")
    assert "found.json: found with 14,483 training photos, training=training.h5 holds 10" in finished.err


STORED = {"format": "isc-normalize-1", "normalize": "stretch", "weights_sha256": None, "training_rows": 10}
SPOILT = {
    "no JSON": ("{", "found.json: not JSON, or cut short (Expecting property name"),
    "a list": ("[]", "found.json: "),
    "empty": ("", "found.json: not JSON, or cut short (Expecting value"),
    "not UTF-8": (b"\xff{}", "found.json: "),
    "other format": (json.dumps(STORED | {"format": "x"}), "format 'x'; expected isc-normalize-1"),
    "no chain": (json.dumps({k: v for k, v in STORED.items() if k != "normalize"}), "no normalize"),
    "unknown chain": (json.dumps(STORED | {"normalize": "magic"}), "unknown step 'magic'"),
    "other weights": (json.dumps(STORED | {"weights_sha256": "f" * 64}), "found for weights ffffffffffff, queries.h5"),
}


@pytest.mark.parametrize("key", SPOILT)
def test_a_stored_chain_that_cannot_be_used_is_refused_in_one_line(scene, key):
    content, expected = SPOILT[key]
    (scene / "found.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    scene.refused("match", *MATCHED, "normalize=found.json", "output=out", naming=("found.json", expected, "expected"))


def test_a_model_without_a_stored_chain_is_refused_with_the_remedy(scene):
    naming = (
        "normalize=model: run/normalize.json is not there",
        "isc normalize search --model run",
        "normalize=FILE.json",
    )
    scene.refused("match", *MATCHED, "normalize=model", "output=out", naming=naming)


def test_a_chain_of_another_model_is_refused(scene):
    scene.text("run/normalize.json", json.dumps(STORED | {"weights_sha256": "0" * 64}))
    naming = (
        "run/normalize.json: found for weights 000000000000",
        "queries.h5",
        "isc normalize search",
        "stretch:factor",
    )
    scene.refused("match", *MATCHED, "normalize=model", "output=out", naming=naming)


SEARCHES = {
    "no verb": ((), ("no command", "--help")),
    "unknown verb": (("find",), ("find",)),
    "no files": (("search",), ("--queries", "--help")),
    "unknown option": (("search", *FILES, "--many"), ("--many",)),
    "unknown chain": (("search", *FILES, "--chains", "stretch witen"), ("normalize=witen", "did you mean whiten")),
    "both places": (("search", *FILES, "--output", "a.json", "--model", "run"), ("--output", "--model")),
    "not JSON": (("search", *FILES, "--output", "found.txt"), ("--output found.txt", ".json")),
    "no such model": (("search", *FILES, "--model", "nowhere"), ("--model nowhere", "run folder")),
    "a folder without a model": (("search", *FILES, "--model", "."), ("--model .", "model.safetensors")),
    "no such file": (("search", *FILES[:-1], "none.csv"), ("none.csv",)),
    "training is the references": (
        ("search", *FILES[:5], "references.h5", *FILES[6:]),
        ("references.h5: row 0", "neither queries nor references"),
    ),
    "two choices of directions": (
        ("search", *FILES, "--chains", "pca+whiten"),
        ("pca+whiten", "one of pca and whiten"),
    ),
    "too little training": (
        ("search", *FILES, "--chains", "pca:dim=200"),
        ("error: training.h5: 10 training descriptors span 9", "pca:dim=9"),
    ),
}


@pytest.mark.parametrize(("arguments", "naming"), SEARCHES.values(), ids=SEARCHES)
def test_the_command_refuses_in_one_line(scene, arguments, naming):
    before = scene.contents()
    status, out, err = called(scene, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert scene.contents() == before
    for part in naming:
        assert part in err


def test_vectors_of_other_lengths_are_named_by_file_and_row(scene):
    descriptors = read_descriptors(scene / "training.h5")
    longer = descriptors.vectors.copy()
    longer[4] *= 3
    write_descriptors(scene / "training.h5", Descriptors(descriptors.ids, longer), {})
    status, _, err = called(scene, "search", *FILES, "--chains", "stretch")
    assert status == 2
    assert f"training.h5: row 4: id {descriptors.ids[4]!r} has length 3; expected unit length" in err


def test_the_default_chains_are_all_that_the_method_names():
    chains = [parse(text) for text in CHAINS]
    assert len(set(chains)) == len(CHAINS)
    assert {step.name for chain in chains for step in chain.steps} == {
        "pca",
        "whiten",
        "subtract",
        "stretch",
        "ssquare",
        "score",
    }


@pytest.mark.slow
def test_the_commands_of_the_page_run(place, made, benchmark):
    """The extraction at 64 pixels; what follows on descriptors of as many training photos as 255 directions need."""
    page = (REPOSITORY / "docs" / "normalization.md").read_text(encoding="utf-8")
    commands = [
        shlex.split(line) for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()
    ]
    assert [words[1] for words in commands] == ["extract", *["match"] * 3, *["normalize", "match"] * 2]
    shutil.copytree(made / "run", place / "runs" / "mine")
    (place / "photos").symlink_to(benchmark)
    place.done("extract", *commands[0][2:], "image_size=64", "workers=0", script=False)
    provenance = read_provenance(place / "training.h5")
    bench = crowded(0, dim=256)
    for name in ("queries", "references", "training"):
        write_descriptors(place / f"{name}.h5", getattr(bench, name), provenance)
    write_ground_truth(
        place / "gt.csv", sorted(bench.truth.pairs) + [(q, "") for q in sorted(bench.truth.queries)[60:]]
    )
    with mock.patch("isc.search.normalize.tune.CHAINS", ("stretch",)):
        for _, verb, *words in commands[1:]:
            if verb == "normalize":
                assert called(place, *words)[0] == 0
            else:
                place.done("match", *words, script=False)


def test_interrupted_search_leaves_nothing(scene):
    with mock.patch("isc.search.normalize.tune.choose", side_effect=KeyboardInterrupt):
        before = scene.contents()
        status, _, err = called(scene, "search", *FILES, "--output", "found.json")
    assert status == 130
    assert err == "interrupted; nothing was left half written\n"
    assert scene.contents() == before
