"""Scores made probabilities: both forms against slow twins, thresholds with intervals, priors."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import calibration as measured
from isc.data.files import write_json
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.bootstrap import bootstrap, interval
from isc.evaluate.calibration.apply import apply, judged, precision_of_cut, warning, write_probabilities
from isc.evaluate.calibration.chance import by_alignment, by_distance
from isc.evaluate.calibration.files import Calibration, CalibrationFile, calibration_for, read_calibration
from isc.evaluate.calibration.fit import LabelledRun, fit
from isc.evaluate.calibration.maps import (
    FOLDS,
    HALF,
    NEAR,
    ByMargin,
    Isotonic,
    Logistic,
    choose,
    fit_isotonic,
    fit_logistic,
    folds,
    log_likelihood,
    read_map,
)
from isc.evaluate.calibration.margins import LEAST, NEXT, gaps_and_margins, log_odds, probabilities_and_margins
from isc.evaluate.calibration.prior import ASSUMED, Prior, estimated, shifted
from isc.evaluate.calibration.score_origin import DISTANCE, PROBABILITY, ScoreOrigin
from isc.evaluate.calibration.thresholds import PRECISIONS, Threshold, find_thresholds, held_out
from isc.evaluate.metrics import evaluate, wilson
from isc.find.verdicts import judge_of
from isc.match.verification.alignment import compare
from isc.match.verification.features import local_features
from isc.photos.decode import read_image
from isc.search.unrelated import NEAREST, unrelated_distance
from tests.conftest import SAMPLE

QUERIES, COPIES, PER_QUERY = 150, 90, 6
MADE = ScoreOrigin(
    DISTANCE, DISTANCE, "none", None, QUERIES, 200, descriptors={"weights_sha256": "ab" * 32, "image_size": "192"}
)


def labelled(seed: int = 0, *, queries: int = QUERIES, copies: int = COPIES, parted: float = 1.0):
    """Predictions of queries, of which the first `copies` have one right pair that scores higher on the average."""
    rng = np.random.default_rng(seed)
    ids = [f"Q{i:04}" for i in range(queries)]
    reference = np.array([rng.permutation(np.arange(1, 200))[:PER_QUERY] for _ in range(queries)])
    reference[:copies, 0] = 0
    score = rng.normal(0, 1, (queries, PER_QUERY)) - 2
    score[:copies, 0] += 4 * parted
    matches = Matches.from_ids(
        np.repeat(ids, PER_QUERY).tolist(), [f"R{i:04}" for i in reference.ravel()], score.ravel().round(3)
    )
    return matches, GroundTruth(frozenset(ids), frozenset((q, "R0000") for q in ids[:copies]))


def run_of(matches, truth, made=MADE, *, name="run", unrelated=None) -> LabelledRun:
    return LabelledRun(name, matches, truth, made, unrelated)


def applied_to(calibration, matches, *, references=200, **options):
    return apply(
        CalibrationFile(Path("c.json"), calibration), matches, queries=QUERIES, references=references, **options
    )


def drawn(count: int, seed: int = 0):
    """Scores, rounded so that many are equal, and labels of which the higher ones are right more often."""
    rng = np.random.default_rng(seed)
    score = rng.normal(0, 1, count).round(1)
    return score, rng.random(count) < 1 / (1 + np.exp(1 - 2 * score))


# --- the two forms ---------------------------------------------------------------------------------------------------


def max_min(score, correct):
    """The slow twin: at each place the largest, of all blocks that begin before, of the least mean of those that end
    after (Barlow et al. 1972, theorem 1.4.4), pseudo pairs included."""
    values = np.unique(score)
    means = np.r_[1, [correct[score == v].mean() for v in values], 0]
    weights = np.r_[HALF, [np.sum(score == v) for v in values], HALF]

    def mean(a, b):
        return np.average(means[a : b + 1], weights=weights[a : b + 1])

    count = len(means)
    fitted = [max(min(mean(a, b) for b in range(i, count)) for a in range(i + 1)) for i in range(count)]
    return values, np.array(fitted[1:-1])


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (2, 1), (30, 2), (200, 3)])
def test_isotonic_is_the_max_min_formula(count, seed):
    score, correct = drawn(count, seed)
    values, expected = max_min(score, correct)
    np.testing.assert_allclose(fit_isotonic(score, correct)(values), expected, atol=1e-12)


def test_isotonic_keeps_the_ends_open_by_half_a_pair():
    found = fit_isotonic(np.arange(10.0), np.arange(10) >= 6)
    np.testing.assert_allclose(found(np.array([-5.0, 0, 5])), HALF / (6 + HALF))
    np.testing.assert_allclose(found(np.array([6.0, 9, 99])), 4 / (4 + HALF))
    assert found(np.array([5.5])) == pytest.approx((HALF / 6.5 + 4 / 4.5) / 2)  # half-way between two knots
    assert len(found.scores) == 4  # of each level piece its ends


def test_isotonic_never_falls_and_stays_inside():
    score, correct = drawn(500, 4)
    at = np.linspace(-9, 9, 1001)
    probability = fit_isotonic(score, correct)(at)
    assert (np.diff(probability) >= 0).all()
    assert 0 < probability.min() < probability.max() < 1


@pytest.mark.parametrize("on", ["score", "log-odds"])
def test_logistic_finds_the_line_that_made_the_labels(on):
    rng = np.random.default_rng(5)
    odds = rng.normal(0, 2, 40_000)
    score = odds if on == "score" else 1 / (1 + np.exp(-odds))
    correct = rng.random(len(odds)) < 1 / (1 + np.exp(-(-1 + 1.5 * odds)))
    found = fit_logistic(score, correct, on=on)
    assert (found.bias, found.slope) == pytest.approx((-1, 1.5), abs=0.06)


def test_logistic_is_the_likeliest_line():
    score, correct = drawn(400, 6)
    found = fit_logistic(score, correct, on="score")
    copies, others = correct.sum(), (~correct).sum()
    target = np.where(correct, (copies + 1) / (copies + 2), 1 / (others + 2))

    def likelihood(bias, slope):
        p = Logistic(bias, slope, "score")(score)
        return np.sum(target * np.log(p) + (1 - target) * np.log1p(-p))

    best = likelihood(found.bias, found.slope)
    for step in (0.01, -0.01):
        assert likelihood(found.bias + step, found.slope) < best
        assert likelihood(found.bias, found.slope + step) < best


def test_logistic_of_parted_scores_is_finite():
    found = fit_logistic(np.arange(20.0), np.arange(20) >= 10, on="score")
    probability = found(np.array([0.0, 9, 10, 19]))
    assert (np.diff(probability) > 0).all()
    assert 1 / 100 < probability[0] < 1 / 10
    assert found.slope < 10


def test_a_score_that_misleads_never_lowers_a_probability():
    found = fit_logistic(np.arange(20.0), np.arange(20) < 8, on="score")
    assert found.slope == 0
    assert found(np.array([3.0])) == pytest.approx(8 / 20, abs=0.03)


def test_log_odds_take_scores_of_0_and_1():
    found = Logistic(0.0, 1.0, "log-odds")
    probability = found(np.array([0.0, 0.25, 1.0]))
    assert probability == pytest.approx([0, 0.25, 1], abs=1e-9)
    assert 0 < probability[0] <= probability[2] < 1


def test_a_steep_line_stays_inside_0_and_1():
    found = Logistic(0.0, 100.0, "score")
    probability = found(np.array([-1e4, -10.0, -1.0, 0.0, 1.0, 10.0, 1e4]))
    assert (np.diff(probability) >= 0).all()
    assert 0 < probability[0] < probability[-1] < 1
    assert probability[3] == 0.5


@pytest.mark.parametrize("map", [Isotonic((0.0, 1.5), (0.25, 0.5)), Logistic(-1.0, 2.5, "log-odds")])
def test_a_map_comes_back_from_what_is_written(map):
    assert read_map(map.as_dict()) == map


@pytest.mark.parametrize(
    "wrong",
    [
        {"form": "spline"},
        {"form": "logistic", "bias": 0, "slope": -1, "on": "score"},
        {"form": "logistic", "bias": float("nan"), "slope": 1, "on": "score"},
        {"form": "logistic", "bias": 0, "slope": 1, "on": "rank"},
        {"form": "isotonic", "scores": [0, 0], "probabilities": [0.1, 0.2]},
        {"form": "isotonic", "scores": [0, 1], "probabilities": [0.2, 0.1]},
        {"form": "isotonic", "scores": [0, 1], "probabilities": [0.0, 0.1]},
        {"form": "isotonic", "scores": [0, 1], "probabilities": [0.1]},
        {"form": "isotonic", "scores": [], "probabilities": []},
    ],
)
def test_a_map_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        read_map(wrong)


# --- held out --------------------------------------------------------------------------------------------------------


def test_folds_keep_queries_together_and_share_the_copies():
    matches, truth = labelled(queries=53, copies=12)
    correct = truth.correct(matches)
    fold = folds(matches.query, correct)
    for query in range(53):
        assert len(set(fold[matches.query == query])) == 1
    of_query = fold[::PER_QUERY]
    assert sorted(np.bincount(of_query, minlength=FOLDS)) == [10, 10, 11, 11, 11]
    assert sorted(np.bincount(of_query[:12], minlength=FOLDS)) == [2, 2, 2, 3, 3]


def test_a_held_out_probability_does_not_know_its_own_labels():
    matches, truth = labelled()
    correct = truth.correct(matches)
    fold = folds(matches.query, correct)
    before = choose(matches.score, correct, fold, on="score").probability
    other = correct ^ (fold == 2)  # all labels of one fold the other way round
    forms = {"isotonic": fit_isotonic, "logistic": lambda s, r: fit_logistic(s, r, on="score")}
    seen = fold != 2
    refitted = {name: one(matches.score[seen], other[seen])(matches.score[~seen]) for name, one in forms.items()}
    assert any(np.allclose(before[fold == 2], one, atol=1e-12) for one in refitted.values())


def test_the_form_that_foretells_better_is_chosen():
    score, correct = drawn(300, 8)
    fold = np.arange(300) % FOLDS
    straight = choose(score, correct, fold, on="score")
    assert isinstance(straight.map, Logistic)
    steps = np.random.default_rng(9).random(300) < np.where(score > 0.5, 0.9, np.where(score > -0.5, 0.5, 0.45))
    stepped = choose(score, steps, fold, on="score")
    assert isinstance(stepped.map, Isotonic)
    for one, labels in ((straight, correct), (stepped, steps)):
        assert max(one.held_out.values()) == log_likelihood(one.probability, labels)


def test_log_likelihood_by_hand():
    assert log_likelihood(np.array([0.8, 0.5, 0.25]), np.array([True, True, False])) == pytest.approx(
        (np.log(0.8) + np.log(0.5) + np.log(0.75)) / 3
    )
    assert log_likelihood(np.array([0.0]), np.array([True])) == pytest.approx(np.log(NEAR))


# --- thresholds -------------------------------------------------------------------------------------------------------


def test_the_cut_is_the_one_that_metrics_tell_with_the_interval_of_the_resamples():
    matches, truth = labelled()
    correct = truth.correct(matches)
    fold = folds(matches.query, correct)
    (found,) = find_thresholds(matches, truth, fold, precisions=[0.9])
    metrics = evaluate(matches, truth)
    assert (found.threshold, found.recall) == (metrics.threshold_at_p90, metrics.recall_at_p90)
    resampled = bootstrap(matches, truth)
    assert found.interval == interval(resampled.threshold)
    assert found.recall_interval == interval(resampled.recall)
    assert found.interval[0] <= found.threshold <= found.interval[1]
    assert correct[matches.score >= found.threshold].mean() >= 0.9
    assert found.pairs == np.sum(matches.score >= found.threshold)
    assert Threshold.from_dict(found.as_dict()) == found


def test_the_kept_out_precision_counts_pairs_above_the_other_folds_cuts():
    matches, truth = labelled(3)
    correct = truth.correct(matches)
    fold = folds(matches.query, correct)
    pairs = copies = 0
    for one in range(FOLDS):
        queries = frozenset(matches.query_ids[np.unique(matches.query[fold != one])])
        others = GroundTruth(queries, frozenset(pair for pair in truth.pairs if pair[0] in queries))
        threshold = evaluate(matches, others).threshold_at_p90
        rows = (fold == one) & (matches.score >= threshold)
        pairs, copies = pairs + rows.sum(), copies + correct[rows].sum()
    (found,) = find_thresholds(matches, truth, fold, precisions=[0.9])
    assert (found.held_out_pairs, found.held_out) == (pairs, copies / pairs)
    assert found.held_out_interval == wilson(int(copies), int(pairs))
    assert held_out(matches, correct, fold, precision=0.9) == (pairs, copies)


def test_a_cut_found_on_chance_is_found_out():
    """Scores that say nothing: on the pairs themselves some threshold reaches 30 %, on others it does not."""
    precisions = []
    for seed in range(20):
        matches, truth = labelled(seed, copies=QUERIES, parted=0)
        (found,) = find_thresholds(matches, truth, folds(matches.query, truth.correct(matches)), precisions=[0.3])
        if found.threshold is not None and found.held_out_pairs:
            assert found.recall > 0
            precisions.append((found.held_out, found.held_out_pairs))
    share, pairs = np.array(precisions).T
    assert pairs.sum() > 20
    assert np.average(share, weights=pairs) < 0.23  # one pair in six is right


def test_a_precision_never_reached_tells_the_best():
    matches = Matches.from_ids(list("abcde"), ["r"] * 5, [5.0, 4.0, 3.0, 2.0, 1.0])
    truth = GroundTruth(frozenset("abcde"), frozenset({("b", "r"), ("c", "r"), ("e", "r")}))
    (found,) = find_thresholds(matches, truth, np.array([0, 1, 0, 1, 0]), precisions=[0.9])
    assert (found.threshold, found.interval, found.recall, found.pairs) == (None, None, 0.0, 0)
    assert (found.best, found.best_score) == (pytest.approx(2 / 3), 3.0)
    assert Threshold.from_dict(found.as_dict()) == found


def test_draws_that_never_reach_the_precision_are_counted():
    """A wrong pair before two right ones: two thirds at best, no threshold where its query is drawn more than once."""
    matches = Matches.from_ids(list("abc"), ["r"] * 3, [3.0, 2.0, 1.0])
    truth = GroundTruth(frozenset("abc"), frozenset({("b", "r"), ("c", "r")}))
    (found,) = find_thresholds(matches, truth, np.array([0, 1, 0]), precisions=[0.6])
    resampled = bootstrap(matches, truth, precision=0.6)
    assert found.reached == np.isfinite(resampled.threshold).mean()
    assert 0.3 < found.reached < 1


# --- the prior of a run ----------------------------------------------------------------------------------------------


def world(copies: int, *, queries: int = 400, references: int = 200, seed: int = 0):
    """All pairs' scores of queries, the first `copies` of which have one; copies and others from a normal law each."""
    rng = np.random.default_rng(seed)
    score = rng.normal(0, 1, (queries, references))
    score[:copies, 0] += 4.5
    correct = np.zeros(score.shape, bool)
    correct[:copies, 0] = True
    return score.ravel(), correct.ravel()


def by_bayes(score, prior):
    """The right probability: the ratio of both laws' densities times the odds of a copy among all pairs."""
    odds = np.exp(4.5 * score - 4.5**2 / 2) * prior.copies / (prior.references - prior.copies)
    return odds / (1 + odds)


def test_the_correction_is_bayes_rule():
    fitted, run = Prior(0.5, 200), Prior(0.01, 2000)
    score, _ = world(0)
    expected = by_bayes(score, run)
    np.testing.assert_allclose(shifted(by_bayes(score, fitted), fitted, run), expected, rtol=5e-3)


@pytest.mark.parametrize(("copies", "references"), [(390, 200), (200, 200), (40, 800), (4, 800), (0, 200)])
def test_the_share_of_copies_is_found_and_probabilities_hold(copies, references):
    fitted = Prior(0.5, 200)
    score, correct = world(copies, references=references, seed=1)
    probability = by_bayes(score, fitted)
    run = estimated(probability, fitted, queries=400, references=references)
    assert run.copies == pytest.approx((copies + ASSUMED * 0.5) / (400 + ASSUMED), abs=0.05)
    corrected = shifted(probability, fitted, run)
    likely = corrected > 0.5
    assert correct[likely].sum() == pytest.approx(corrected[likely].sum(), abs=5 + 0.1 * copies)
    assert correct.sum() == pytest.approx(corrected.sum(), abs=10 + 0.05 * copies)


def test_one_query_keeps_about_the_fitted_share():
    fitted = Prior(0.5, 200)
    found = estimated(np.full(10, 1e-9), fitted, queries=1, references=200)
    assert 0.4 < found.copies < 0.5


def test_few_references_raise_no_probability_and_many_lower_them():
    fitted, probability = Prior(0.5, 200), np.array([0.2, 0.9])
    np.testing.assert_allclose(shifted(probability, fitted, Prior(0.5, 3)), probability)
    assert (shifted(probability, fitted, Prior(0.5, 2000)) < probability).all()


def test_many_references_lower_only_what_chance_can_make():
    fitted, many, probability = Prior(0.5, 200), Prior(0.5, 200_000_000), np.array([0.99] * 4)
    chance = by_alignment(np.array([np.nan, 4.0, 8.0, 12.0]))
    assert chance.tolist() == [1, 1, 0.5, 0]
    found = shifted(probability, fitted, many, chance)
    odds = found / (1 - found) / 99
    np.testing.assert_allclose(odds, [1e-6, 1e-6, 1e-3, 1])
    np.testing.assert_allclose(by_distance(np.array([0.1, 0.6, 0.9, 1.2, 2.0]), np.full(5, 1.5)), [0, 0, 0.5, 1, 1])


def test_a_sure_copy_is_one_among_a_million_photos_too():
    """The prior of each photo more made it "perhaps, 0.67" at a million, and "none" at ten million."""
    judge, own = judge_of("isc_small"), local_features(read_image(SAMPLE / "S003.jpg"))
    told, _ = compare(local_features(read_image(SAMPLE / "S003.jpg")[20:, 30:]), own)
    options = {"unrelated": np.array([1.5]), "suspect": np.array([0]), "suspects": 1}
    for photos in (1_000, 1_000_000, 1_000_000_000):
        assert judge.probabilities(np.array([0.8]), told[None], photos=photos, **options)[0] > 0.95
        assert judge.probabilities(np.array([0.2]), photos=photos, **options)[0] > 0.95
    far, near = (judge.probabilities(np.array([1.1]), photos=photos, **options)[0] for photos in (1_000_000, 1_000))
    assert far < 0.1 < near


@pytest.mark.parametrize("wrong", [(0, 5), (-1, 5), (float("nan"), 5), (float("inf"), 5), (0.5, 0)])
def test_a_prior_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="expected both above 0"):
        Prior(*wrong)


# --- stored and applied ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    return fit([run_of(*labelled())], precision=0.9)


def test_a_calibration_comes_back_from_its_file(fitted, tmp_path):
    write_json(tmp_path / "c.json", fitted.as_dict())
    assert read_calibration(tmp_path / "c.json") == CalibrationFile(tmp_path / "c.json", fitted)
    assert [one.precision for one in fitted.thresholds] == list(PRECISIONS)
    (run,) = fitted.runs
    assert (run.queries, run.with_copies, run.references, run.pairs, run.copies) == (150, 90, 200, 900, 90)
    assert (fitted.pairs, fitted.copies, fitted.prior) == (900, 90, Prior(90 / 150, 200))


def test_queries_that_are_not_judged_are_left_out(fitted):
    matches, truth = labelled()
    more = Matches.from_ids(
        [*matches.query_ids[matches.query], *["other"] * 50],
        [*matches.reference_ids[matches.reference], *(f"R{i:04}" for i in range(50))],
        [*matches.score, *[3.0] * 50],
    )
    again = fit([run_of(more, truth, dataclasses.replace(MADE, queries=151))], precision=0.9)
    assert dataclasses.replace(again, made=MADE) == fitted


def test_a_wanted_precision_beside_the_usual_ones():
    found = fit([run_of(*labelled())], precision=0.7)
    assert [one.precision for one in found.thresholds] == [0.5, 0.7, 0.8, 0.9, 0.95, 0.99]
    assert found.wanted == found.thresholds[1]


def reasons():
    matches, truth = labelled()
    few = GroundTruth(truth.queries, frozenset(sorted(truth.pairs)[:19]))
    correct = truth.correct(matches)
    alone = matches.take(correct | (np.cumsum(~correct) <= 19))
    level = dataclasses.replace(matches, score=np.ones(len(matches)))
    return {
        "few copies": (matches, few, MADE, "19 copies among 900 judged predictions; expected at least 20"),
        "few others": (alone, truth, MADE, "19 wrong pairs among 109 judged predictions; expected at least 20"),
        "level": (level, truth, MADE, "all 900 judged predictions score 1"),
        "no probabilities": (matches, truth, dataclasses.replace(MADE, scores=PROBABILITY), "expected probabilities"),
        "another truth": (
            matches,
            GroundTruth(frozenset("a"), frozenset({("a", "r")})),
            MADE,
            "0 copies among 0 judged",
        ),
    }


@pytest.mark.parametrize("reason", reasons())
def test_what_cannot_be_fitted_is_refused(reason):
    matches, truth, made, message = reasons()[reason]
    with pytest.raises(InputError, match=message):
        fit([run_of(matches, truth, made)], precision=0.9)


def test_thresholds_are_those_of_the_run_that_needs_the_highest():
    easy, hard = run_of(*labelled(0, parted=2.0), name="easy"), run_of(*labelled(1, parted=1.1), name="hard")
    alone, both = fit([easy], precision=0.9), fit([easy, hard], precision=0.9)
    assert both.wanted.threshold > alone.wanted.threshold
    assert [run.name for run in both.runs] == ["easy", "hard"]
    assert all(run.precision >= 0.9 for run in both.runs)
    assert (both.pairs, both.copies) == (1800, 180)


def test_thresholds_are_found_where_copies_are_rare_too(monkeypatch):
    """Wrong pairs stay while copies are left out, so that the same probability is right less often."""
    matches, truth = labelled(1, queries=1000, copies=500, parted=0.5)
    run = run_of(matches, truth)
    found = fit([run], precision=0.8)
    monkeypatch.setattr("isc.evaluate.calibration.fit.SHARE", 0.9)  # more than there are: no run is thinned
    as_it_is = fit([run], precision=0.8)
    assert found.wanted.threshold > as_it_is.wanted.threshold
    assert found.map == as_it_is.map


def test_copies_are_left_out_until_the_share_is_left():
    matches, truth = labelled(3, queries=800, copies=400)
    part = run_of(matches, truth).with_share(0.1, seed=0)
    copied = {query for query, _ in part.truth.pairs}
    assert len(part.truth.queries) == 444  # 400 that are no copies, and a ninth of them that are
    assert len(copied) == 44
    assert set(part.matches.query_ids[part.matches.query].tolist()) <= part.truth.queries
    assert part.truth.queries - copied == truth.queries - {query for query, _ in truth.pairs}
    assert copied != {query for query, _ in run_of(matches, truth).with_share(0.1, seed=1).truth.pairs}


def test_runs_of_scores_of_different_origin_are_refused():
    one, other = run_of(*labelled()), run_of(*labelled(1), dataclasses.replace(MADE, k=3), name="other")
    with pytest.raises(InputError, match="other and run: scores of different origin: k none, this run's 3"):
        fit([one, other], precision=0.9)
    with pytest.raises(InputError, match="no run"):
        fit([], precision=0.9)


def test_queries_that_come_near_anything_are_seen_beside_unrelated_pictures(tmp_path):
    """In half of the queries all scores are higher by 4: there a high score says nothing."""
    matches, truth = labelled(2)
    near = (matches.query % 2 == 0) * 4.0
    matches = dataclasses.replace(matches, score=matches.score + near)
    blind = fit([run_of(matches, truth)], precision=0.9)
    vectors = np.arange(6, dtype=np.float16).reshape(2, 3)
    seeing = fit([run_of(matches, truth, unrelated=-near)], precision=0.9, unrelated=vectors)
    assert seeing.runs[0].recall > blind.runs[0].recall + 0.1
    write_json(tmp_path / "c.json", seeing.as_dict())
    again = read_calibration(tmp_path / "c.json").calibration
    assert (again.unrelated == vectors).all()
    assert again.unrelated.dtype == np.float16
    with pytest.raises(ValueError, match="goes with a calibration that has some"):
        again.fitted(matches.score, None, matches.query)
    with pytest.raises(ValueError, match="goes with a calibration that has some"):
        blind.fitted(matches.score, -near, matches.query)
    lower = applied_to(again, matches, unrelated=-near).probability
    np.testing.assert_array_equal(lower, applied_to(seeing, matches, unrelated=-near).probability)


@given(
    pairs=st.lists(st.tuples(st.integers(0, 4), st.floats(0, 4, width=32)), min_size=1, max_size=30),
    apart=st.lists(st.floats(0, 4, width=32), min_size=5, max_size=5),
)
def test_margins_are_to_the_next_of_the_same_query(pairs, apart):
    """The slow twin looks at every other pair of the query."""
    query = np.array([one for one, _ in pairs])
    distance = np.array([one for _, one in pairs])
    unrelated = np.array(apart)[query]
    expected = []
    for at, (number, own) in enumerate(pairs):
        others = sorted(one for place, (of, one) in enumerate(pairs) if of == number and place != at)[:NEXT]
        others += [apart[number]] * (NEXT - len(others))
        expected.append((apart[number] - own, np.mean(np.minimum(others, apart[number])) - own))
    found = gaps_and_margins(-distance, unrelated, query)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found[:, 1] <= found[:, 0] + 1e-9).all()
    alone = gaps_and_margins(-distance, unrelated, None)
    assert (alone[:, 0] == alone[:, 1]).all()


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1)), min_size=1, max_size=20))
def test_margins_of_probabilities_are_those_of_their_log_odds(pairs):
    query = np.array([one for one, _ in pairs])
    probability = np.array([one for _, one in pairs])
    found = probabilities_and_margins(probability, query)
    odds = log_odds(probability)
    for at, number in enumerate(query):
        others = sorted((odds[place] for place in np.flatnonzero(query == number) if place != at), reverse=True)[:NEXT]
        others += [-np.inf] * (NEXT - len(others))
        expected = odds[at] - np.maximum(others, math.log(LEAST / (1 - LEAST))).mean()
        np.testing.assert_allclose(found[at], (probability[at], expected), atol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.floats(0, 1)), min_size=1, max_size=20))
def test_versions_of_one_picture_count_as_one_and_not_against_one_another(pairs):
    """The slow twin takes the best version of every other picture."""
    query, picture, probability = (np.array(column) for column in zip(*pairs, strict=True))
    found = probabilities_and_margins(probability, query, picture)
    odds = log_odds(probability)
    for at in range(len(pairs)):
        best: dict[int, float] = {}
        for place in np.flatnonzero((query == query[at]) & (picture != picture[at])):
            best[picture[place]] = max(best.get(picture[place], -np.inf), odds[place])
        others = [*sorted(best.values(), reverse=True)[:NEXT], *[-np.inf] * NEXT][:NEXT]
        expected = odds[at] - np.maximum(others, math.log(LEAST / (1 - LEAST))).mean()
        np.testing.assert_allclose(found[at], (probability[at], expected), atol=1e-6)


def test_a_reference_among_many_that_look_alike_is_less_probably_the_copy(tmp_path):
    """Half of the queries have several references as near as a copy would be; none of them is one."""
    rng = np.random.default_rng(5)
    queries, each = 400, 6
    distance = rng.uniform(1.2, 1.6, (queries, each))
    distance[:100, 0] = rng.uniform(0.3, 0.9, 100)
    distance[200:] = rng.uniform(0.3, 0.9, (200, each))
    ids = [f"Q{at:03}" for at in range(queries)]
    reference = [f"R{place}" for _ in ids for place in range(each)]
    matches = Matches.from_ids(np.repeat(ids, each).tolist(), reference, -distance.ravel())
    truth = GroundTruth(frozenset(ids), frozenset((one, "R0") for one in ids[:100]))
    run = run_of(matches, truth, unrelated=np.full(len(matches), 1.5))
    found = fit([run], precision=0.9, unrelated=np.zeros((1, 2), np.float16))
    assert isinstance(found.map, ByMargin)
    told = found.fitted(matches.score, run.unrelated, matches.query)
    copy, alike = truth.correct(matches), matches.query >= 200
    assert np.quantile(told[copy], 0.1) > 0.5 > np.quantile(told[alike], 0.9)
    alone = found.fitted(matches.score, run.unrelated, None)
    assert alone[alike].mean() > told[alike].mean()
    write_json(tmp_path / "c.json", found.as_dict())
    assert read_calibration(tmp_path / "c.json").calibration.map == found.map


def test_the_distance_to_unrelated_pictures_is_the_mean_of_the_nearest():
    rng = np.random.default_rng(3)
    queries, others = (rng.normal(size=(count, 8)).astype(np.float32) for count in (7, 40))
    squared = np.sort(((queries[:, None].astype(float) - others) ** 2).sum(axis=2), axis=1)
    np.testing.assert_allclose(unrelated_distance(queries, others), squared[:, :NEAREST].mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"normalize": "whiten"}, "normalize none, this run's whiten"),
        ({"k": 3}, "k none, this run's 3"),
        ({"scores": PROBABILITY}, "scores distance, this run's probability"),
        ({"fusion_sha256": "cd" * 32}, "fusion_sha256 none, this run's cdcdcdcdcdcd"),
        ({"descriptors": {"weights_sha256": "cd" * 32}}, "weights_sha256 abababababab, this run's cdcdcdcdcdcd"),
        ({"descriptors": {}}, "weights_sha256 abababababab, this run's none"),
        ({"descriptors": {**MADE.descriptors, "image_size": "96"}}, "image_size 192, this run's 96"),
        ({"descriptors": {**MADE.descriptors, "views": "flip"}}, "views none, this run's flip"),
    ],
)
def test_scores_made_otherwise_get_no_probabilities(fitted, tmp_path, change, named):
    write_json(tmp_path / "c.json", fitted.as_dict())
    made = dataclasses.replace(MADE, **change)
    stored, note = calibration_for(str(tmp_path / "c.json"), made)
    assert stored is None
    assert f"c.json is not applied, so no probabilities are written: it was fitted on {named}; isc calib" in note


def test_the_number_of_queries_or_references_does_not_forbid(fitted, tmp_path):
    write_json(tmp_path / "c.json", fitted.as_dict())
    silent = {"weights_sha256": "ab" * 32}  # of the size, which makes no difference then
    made = dataclasses.replace(MADE, queries=7, references=7, track="matching", descriptors=silent)
    assert calibration_for(str(tmp_path / "c.json"), made) == (CalibrationFile(tmp_path / "c.json", fitted), None)


def test_the_model_has_one_file_for_each_kind_of_score(fitted, tmp_path):
    made = dataclasses.replace(MADE, descriptors={**MADE.descriptors, "weights": str(tmp_path)})
    assert calibration_for("model", made) == (None, None)
    write_json(tmp_path / "calibration.json", fitted.as_dict())
    assert calibration_for("model", made)[0].path == tmp_path / "calibration.json"
    assert calibration_for("none", made) == (None, None)
    assert calibration_for("model", MADE) == (None, None)  # descriptors that do not name their model
    probable = dataclasses.replace(made, scores=PROBABILITY)
    assert calibration_for("model", probable) == (None, None)
    write_json(tmp_path / "calibration.matching.json", dataclasses.replace(fitted, made=probable).as_dict())
    assert calibration_for("model", probable)[0].path == tmp_path / "calibration.matching.json"


def test_probabilities_are_written_in_the_order_of_the_predictions(fitted, tmp_path):
    matches, _ = labelled(1)
    applied = applied_to(fitted, matches)
    write_probabilities(tmp_path / "p.csv", applied)
    header, *rows = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()]
    assert header == ["query_id", "reference_id", "score", "probability", "accepted"]
    assert [float(row[2]) for row in rows] == sorted(matches.score.tolist(), reverse=True)
    probability = np.array([float(row[3]) for row in rows])
    assert (np.diff(probability) <= 0).all()
    score = np.array([float(row[2]) for row in rows])
    expected = shifted(fitted.map(score), fitted.prior, applied.prior)
    np.testing.assert_allclose(probability, expected, rtol=1e-5)
    assert [row[4] for row in rows] == ["true" if p >= fitted.wanted.threshold else "false" for p in expected]


def test_what_is_said_of_the_cut_and_of_the_truth(fitted):
    matches, truth = labelled(1)
    applied = applied_to(fitted, matches)
    accepted = applied.probability >= fitted.wanted.threshold
    assert (applied.accepted == accepted).all()
    said = precision_of_cut(applied)
    assert said.startswith(f"{accepted.sum()} of 900 pairs reach the threshold for 90 % precision, probability ≥ 0.")
    assert f"expected precision {applied.probability[accepted].mean():.3f}" in said
    assert f"about {applied.prior.copies:.2g} copies a query" in said
    correct = truth.correct(matches)[accepted].mean()
    assert f"of {accepted.sum()} accepted {correct:.3f} are copies, of all 0.100" in judged(applied, truth)


def test_the_worst_run_of_the_fit_is_named():
    runs = [run_of(*labelled(1), name="easy"), run_of(*labelled(2, parted=0.6), name="hard")]
    found = fit(runs, precision=0.9)
    hard = next(one.precision for one in found.runs if one.name == "hard")
    said = precision_of_cut(applied_to(found, labelled(3)[0]))
    worst = min(found.runs, key=lambda one: one.precision)
    assert f" ({worst.precision:.3f} on {worst.name}, the worst of the 2 runs of the fit); about" in said
    assert hard == worst.precision


def test_what_is_said_where_the_precision_was_never_reached(fitted):
    wanted = dataclasses.replace(fitted.wanted, threshold=None, best=0.75, best_score=0.4)
    applied = applied_to(dataclasses.replace(fitted, wanted=wanted), labelled()[0])
    assert not applied.accepted.any()
    assert "90 % precision was never reached, at best 0.750 at probability ≥ 0.4000" in precision_of_cut(applied)


@pytest.mark.parametrize("copies", [140, 90, 15])
def test_what_was_promised_holds_for_other_shares_of_copies(fitted, copies):
    accepted = right = 0
    for seed in range(5, 15):
        matches, truth = labelled(seed, copies=copies)
        applied = applied_to(fitted, matches)
        accepted += applied.accepted.sum()
        right += truth.correct(matches)[applied.accepted].sum()
    assert right / accepted > 0.82


def test_a_run_like_the_fitted_one_is_not_warned_of(fitted):
    assert warning(applied_to(fitted, labelled(1)[0])) is None
    assert warning(applied_to(fitted, labelled(1, copies=5)[0])) is None


def test_look_alikes_and_far_more_references_are_warned_of(fitted):
    matches, _ = labelled(1)
    alike = dataclasses.replace(matches, score=np.where(matches.query < 30, 4.0, matches.score))
    said = warning(applied_to(fitted, alike))
    assert said.startswith("probabilities may not hold: 151 of ")
    assert "accepted pictures are further ones of a query" in said
    assert "isc calibrate" in said
    said = warning(applied_to(fitted, matches, references=50_000))
    assert "50,000 references, fitted with 200 (c.json)" in said
    assert "\n" not in said


# --- the benchmark of it ---------------------------------------------------------------------------------------------


def test_the_benchmark_counts_what_is_accepted(fitted):
    matches, truth = labelled(4)
    run = measured.Run("run", matches, truth, MADE, CalibrationFile(Path("c.json"), fitted), None)
    row, applied = measured.row(run, None), applied_to(fitted, matches)
    correct = truth.correct(matches)[applied.accepted]
    assert row["accepted"] == str(len(correct))
    assert row["precision"].startswith(f"{correct.mean():.3f} (")
    assert row["recall"] == f"{correct.sum() / 90:.3f}"
    few = run.with_share(0.1, 0)
    assert len(few.truth.pairs) == round(60 / 9)
    assert len(few.truth.queries) == 60 + len(few.truth.pairs)
    assert measured.row(run, 0.1)["copies a query"] == f"{7 / 67:.3f}"
