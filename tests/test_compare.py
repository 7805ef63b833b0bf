"""Two runs: their differences on the same resamples, what was gained and lost, and which runs cannot be compared."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isc.data.csv_files import write_predictions
from isc.data.files import write_json
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.bootstrap import bootstrap, interval
from isc.evaluate.metrics import evaluate
from isc.evaluate.report.by_edit import EditChange, edit_changes, sign_test
from isc.evaluate.report.comparison import LABELS, Comparison, OtherRun, compare, read_run
from isc.evaluate.report.galleries import changed_sheets
from isc.evaluate.report.page import write_report


def rows(*pairs: tuple[str, str, float]) -> Matches:
    return Matches.from_ids(*zip(*pairs, strict=True)) if pairs else Matches.from_ids([], [], [])


def truth(*pairs: tuple[str, str], distractors: tuple[str, ...] = ()) -> GroundTruth:
    return GroundTruth(frozenset(distractors), frozenset(pairs))


def against(now: Matches, before: Matches, of: GroundTruth, **options) -> Comparison:
    return compare(now, of, other=OtherRun("old", before), **options)


@pytest.fixture
def two() -> tuple[Matches, Matches, GroundTruth]:
    """Now a, b and d are found, before a and c; c comes second now; b was never predicted before."""
    now = rows(("a", "A", 0.9), ("b", "B", 0.8), ("d", "D", 0.7), ("x", "A", 0.6), ("c", "X", 0.5), ("c", "C", 0.4))
    before = rows(("a", "A", -1.0), ("c", "C", -2.0), ("x", "A", -3.0), ("d", "D", -4.0))
    return now, before, truth(("a", "A"), ("b", "B"), ("c", "C"), ("d", "D"), distractors=("x",))


def many(seed: int, shift: float, *, copies: int = 300) -> tuple[Matches, GroundTruth]:
    """A query of each copy; its right reference scores `shift` above the wrong one on average."""
    rng = np.random.default_rng(seed)
    queries, correct = [f"q{i}" for i in range(copies)], rng.normal(shift, 1, copies)
    wrong = rng.normal(0, 1, copies)
    matches = Matches.from_ids(queries * 2, ["R"] * copies + ["X"] * copies, np.r_[correct, wrong])
    return matches, truth(*((query, "R") for query in queries))


# --- figures ---------------------------------------------------------------------------------------------------------


def test_every_figure_stands_beside_the_other_runs_with_the_difference(two):
    now, before, of = two
    found = {one.figure: one for one in against(now, before, of).differences}
    assert list(found) == list(LABELS)
    for figure, one in found.items():
        ours, theirs = getattr(evaluate(now, of), figure), getattr(evaluate(before, of), figure)
        assert (one.now, one.before, one.difference) == (ours, theirs, ours - theirs)
    assert found["recall_at_p90"].now == 0.75
    assert found["recall_at_p90"].before == 0.5


def test_intervals_are_those_of_the_paired_resamples():
    (now, of), (before, _) = many(1, 2.0), many(2, 1.5)
    one = against(now, before, of, resampled=bootstrap(now, of, resamples=200, seed=9)).differences[0]
    ours, theirs = (bootstrap(run, of, resamples=200, seed=9).average_precision for run in (now, before))
    assert one.interval == interval(ours - theirs)
    assert one.now_interval == interval(ours)
    assert one.before_interval == interval(theirs)


@pytest.mark.slow
def test_a_better_run_is_significantly_better_and_a_like_one_is_not():
    (now, of), (worse, _), (alike, _) = many(1, 2.5), many(2, 1.5), many(3, 2.5)
    better = against(now, worse, of).differences[0]
    assert better.p == pytest.approx(2 / 1001)
    assert better.significant
    assert better.interval[0] > 0
    assert "higher than in old" in better.in_words("old")
    assert better.in_words("old").endswith("p = 0.002), significant.")
    turned = against(worse, now, of).differences[0]
    assert turned.difference == -better.difference
    assert turned.interval == pytest.approx((-better.interval[1], -better.interval[0]))
    assert (turned.p, "lower than in old" in turned.in_words("old")) == (better.p, True)
    same = against(now, alike, of).differences[0]
    assert not same.significant
    assert same.interval[0] < 0 < same.interval[1]
    assert "not significant: chance alone could make it." in same.in_words("old")


def test_a_run_is_the_same_as_itself(two):
    now, _, of = two
    comparison = against(now, now, of)
    assert {(one.difference, one.p, one.interval) for one in comparison.differences} == {(0.0, 1.0, (0.0, 0.0))}
    assert comparison.differences[0].in_words("old") == "μAP is the same as in old."
    assert comparison.differences[1].in_words("old") == "Recall at 90 % precision is the same as in old."
    assert comparison.gained == comparison.lost == []


@pytest.mark.slow
def test_chance_alone_is_seldom_called_significant():
    """Of 40 pairs of like runs two have p < 0.05 on average; more than six happens once in two hundred such tests."""
    called = 0
    for seed in range(0, 80, 2):
        (now, of), (before, _) = (many(s, 1.5, copies=60) for s in (seed, seed + 1))
        resampled = bootstrap(now, of, resamples=200)
        called += against(now, before, of, resampled=resampled).differences[0].significant
    assert called <= 6


# --- gained and lost -------------------------------------------------------------------------------------------------


def test_gained_and_lost_are_by_each_runs_own_threshold(two):
    now, before, of = two
    comparison = against(now, before, of)
    assert comparison.gained == [("b", "B"), ("d", "D")]
    assert comparison.lost == [("c", "C")]
    gained, lost = changed_sheets(comparison.judged, comparison.before, "old")
    assert [(p.key, p.score, p.note, p.before) for p in gained.pairs] == [
        (("b", "B"), 0.8, "rank 1 of its query", "old: never predicted"),
        (("d", "D"), 0.7, "rank 1 of its query", "old: score −4.000, rank 1 of its query"),
    ]
    assert [(p.key, p.score, p.note, p.before) for p in lost.pairs] == [
        (("c", "C"), 0.4, "rank 2 of its query", "old: score −2.000, rank 1 of its query")
    ]
    assert (gained.total, lost.total) == (2, 1)


def test_lost_pairs_that_are_no_longer_predicted_say_so_and_come_in_the_other_runs_order():
    of = truth(("a", "A"), ("b", "B"), ("c", "C"))
    comparison = against(rows(("a", "A", 1.0)), rows(("a", "A", 9.0), ("b", "B", 7.0), ("c", "C", 8.0)), of)
    _, lost = changed_sheets(comparison.judged, comparison.before, "old")
    assert [(p.key, p.score, p.note) for p in lost.pairs] == [
        (("c", "C"), None, "never predicted here"),
        (("b", "B"), None, "never predicted here"),
    ]


def test_edits_in_which_something_changed_are_counted(two):
    comparison = against(*two)
    edits = {"a": ["blur 1 px"], "b": ["crop 10 %"], "c": ["crop 20 %", "turn 90°"], "d": ["crop 30 %"]}
    assert edit_changes(comparison.judged, comparison.before, edits) == [
        EditChange("any edit", 4, 3, 2, 2, 1, 1.0),
        EditChange("turn", 1, 0, 1, 0, 1, 1.0),
        EditChange("crop", 3, 2, 1, 2, 1, 1.0),  # and none of blur, which changed nothing
    ]
    assert edit_changes(comparison.judged, comparison.before, {}) == []


def test_sign_test_by_hand():
    assert sign_test(0, 0) == 1.0
    assert sign_test(5, 0) == sign_test(0, 5) == 2 / 32
    assert sign_test(8, 1) == pytest.approx(2 * (1 + 9) / 512)
    assert sign_test(3, 3) == 1.0
    exact = 2 * sum(math.comb(1002, k) for k in range(466)) / 2**1002
    assert sign_test(537, 465) == pytest.approx(exact, rel=0.01)  # the normal one, of more than a thousand


# --- what is written -------------------------------------------------------------------------------------------------


def test_comparison_json_holds_figures_and_pairs(two, tmp_path):
    now, before, of = two
    write_json(tmp_path / "comparison.json", against(now, before, of).as_dict())
    found = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert found["other"] == "old"
    assert found["gained"] == [["b", "B"], ["d", "D"]]
    assert found["lost"] == [["c", "C"]]
    assert found["metrics"]["average_precision"] == evaluate(before, of).average_precision
    assert [one["figure"] for one in found["differences"]] == list(LABELS)
    assert {"now", "before", "difference", "interval", "p", "significant"} <= found["differences"][0].keys()
    assert found["resamples"] == 1000


def test_a_figure_that_no_resample_has_is_null(two):
    now, before, of = two
    comparison = against(now, before, of)
    unknown = replace(comparison.differences[0], interval=(math.nan, math.nan), p=math.nan)
    first = replace(comparison, differences=(unknown,)).as_dict()["differences"][0]
    assert (first["interval"], first["p"], first["significant"]) == (None, None, False)


def test_the_terminal_is_told_the_verdict_and_the_counts(two):
    lines = against(*two).summary().splitlines()
    assert lines[0].startswith("μAP is ")
    assert lines[1].startswith("Recall at 90 % precision is 0.2500 higher than in old (95 % interval ")
    assert lines[2] == "2 true pairs gained, 1 lost at 90 % precision"


def test_the_page_shows_both_runs(two, tmp_path):
    now, before, of = two
    comparison = against(now, before, of)
    write_report(
        tmp_path / "page.html", now, title="new", ground_truth=of, edits={"b": ["crop 5 %"]}, compare=comparison
    )
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for said in (
        "Compared with old",
        "old: never predicted",
        'href="#gained"',
        'class="other"',
        "this run finds 2 true",
    ):
        assert said in text
    assert comparison.differences[0].in_words("old") in text
    assert text.index('<section id="gained"') < text.index('<section id="lost"') < text.index('<section id="found"')
    write_report(tmp_path / "alone.html", now, title="new", ground_truth=of)
    alone = (tmp_path / "alone.html").read_text(encoding="utf-8")
    assert "Compared" not in alone
    assert 'id="gained"' not in alone


def test_the_other_runs_name_stays_text(two, tmp_path):
    now, before, of = two
    comparison = compare(now, of, other=OtherRun('<b>&"old', before))
    write_report(tmp_path / "page.html", now, title="new", ground_truth=of, edits={"b": ["c 5"]}, compare=comparison)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b>&" not in text
    assert text.count("&lt;b&gt;&amp;&#34;old") > 8


# --- which runs can be compared --------------------------------------------------------------------------------------


def run_folder(path: Path, matches: Matches, of: GroundTruth | None) -> Path:
    write_predictions(path / "predictions.csv", matches)
    if of:
        write_json(path / "metrics.json", evaluate(matches, of).as_dict())
    return path


def test_a_run_is_read_from_its_folder_or_from_its_predictions(two, tmp_path):
    _, before, of = two
    folder = run_folder(tmp_path / "run", before, of)
    for path in (folder, folder / "predictions.csv"):
        run = read_run(path, ground_truth=of)
        assert run.name == path.name
        assert evaluate(run.matches, of) == evaluate(before, of)
    assert read_run(run_folder(tmp_path / "unjudged", before, None), ground_truth=of).name == "unjudged"


def test_scores_of_float32_are_judged_the_same_when_read(tmp_path):
    matches, of = many(0, 1.0)
    single = Matches(*(getattr(matches, name) for name in ("query_ids", "reference_ids", "query", "reference")),
                     matches.score.astype(np.float32))  # fmt: skip
    assert len(read_run(run_folder(tmp_path / "run", single, of), ground_truth=of).matches) == 600


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (truth(("a", "A"), ("c", "C"), distractors=("b", "d", "x")), "2 true pairs differ (4 there, 2 here)"),
        (
            truth(("a", "A"), ("b", "B"), ("c", "C"), ("d", "D")),
            "1 predictions differ in whether their query is judged",
        ),
        (
            truth(("a", "A"), ("b", "B"), ("c", "X"), ("d", "D"), distractors=("x",)),
            "as many true pairs, 4, but not the same: μAP 0.687500 there is",
        ),
    ],
)
def test_a_run_judged_by_another_ground_truth_is_refused(two, tmp_path, of, said):
    _, before, own = two
    folder = run_folder(tmp_path / "run", before, own)
    with pytest.raises(InputError) as error:
        read_run(folder, ground_truth=of)
    assert f"compare={folder}: judged by another ground truth: " in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_of_other_queries_is_refused_with_their_number(two):
    now, _, of = two
    other = rows(("a", "A", 1.0), ("y", "A", 0.5), ("z", "A", 0.5))
    with pytest.raises(InputError, match="compare=old: 2 of its 3 queries, 'y' for one, are not among"):
        against(now, other, of)
    known = rows(("y", "A", 0.1), ("z", "B", 0.1), ("a", "A", 1.0))  # not judged, but queries of this run as well
    assert against(known, other, of).metrics.num_dropped == 2


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda folder: (folder / "predictions.csv").unlink(), "predictions.csv is not there"),
        (lambda folder: (folder / "metrics.json").write_text("{}"), "cannot be read as the figures of a run"),
        (lambda folder: (folder / "metrics.json").write_text("no"), "cannot be read as the figures of a run"),
        (lambda folder: write_predictions(folder / "predictions.csv", rows(("a", "A", 1.0))), "counts 4 predictions"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(two, tmp_path, break_it, said):
    _, before, of = two
    folder = run_folder(tmp_path / "run", before, of)
    break_it(folder)
    with pytest.raises(InputError, match=said):
        read_run(folder, ground_truth=of)


def test_a_path_that_is_not_there_is_refused(two, tmp_path):
    with pytest.raises(InputError, match="missing is not there; expected a run's folder"):
        read_run(tmp_path / "missing", ground_truth=two[2])
