"""Resampled figures against judging queries that are repeated for real, and against what theory says of intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.bootstrap import GRID, Resampled, bootstrap, draws, interval, intervals, p_value
from isc.evaluate.metrics import evaluate, precision_recall, recall_at_precision

QUERIES = [f"q{i}" for i in range(6)]
REFERENCES = [f"r{i}" for i in range(12)]  # more than ten, so that rank 10 can be missed
PAIRS = st.sets(st.tuples(st.sampled_from(QUERIES), st.sampled_from(REFERENCES)), min_size=1, max_size=7)
SCORES = st.dictionaries(
    st.tuples(st.sampled_from([*QUERIES, "stranger"]), st.sampled_from(REFERENCES)), st.integers(0, 4), max_size=40
)


def matches_of(scores: dict[tuple[str, str], float], dtype: type = np.float64) -> Matches:
    names = list(scores)
    values = np.array([scores[name] for name in names], dtype)
    return Matches.from_ids([q for q, _ in names], [r for _, r in names], values)


def repeated(matches: Matches, truth: GroundTruth, times: dict[str, int]) -> tuple[Matches, GroundTruth]:
    """Each judged query as often as it was drawn, under a name of its own, with its predictions and true pairs."""
    rows = [
        (f"{query}#{copy}", reference, score)
        for query, reference, score in zip(
            matches.query_ids[matches.query], matches.reference_ids[matches.reference], matches.score, strict=True
        )
        for copy in range(times.get(query, 0))
    ]
    pairs = frozenset((f"{q}#{copy}", r) for q, r in truth.pairs for copy in range(times[q]))
    queries = frozenset(f"{q}#{copy}" for q in truth.queries for copy in range(times[q]))
    query, reference, score = zip(*rows, strict=True) if rows else ((), (), ())
    return Matches.from_ids(query, reference, score), GroundTruth(queries, pairs)


def twin(matches: Matches, truth: GroundTruth, *, precision: float, resamples: int, seed: int) -> np.ndarray:
    """[B, 5] by `evaluate` and the whole curve of the repeated queries."""
    names, figures = sorted(truth.queries), []
    for weights in draws(len(names), resamples, seed=seed):
        again, of = repeated(matches, truth, dict(zip(names, weights.tolist(), strict=True)))
        if not of.pairs:
            figures.append([math.nan] * 5)
            continue
        metrics = evaluate(again, of)
        curve = precision_recall(again.score, of.correct(again), len(of.pairs))
        recall, threshold = recall_at_precision(curve, precision)
        figures.append(
            [
                metrics.average_precision,
                recall,
                math.nan if threshold is None else threshold,
                metrics.recall_at_rank1,
                metrics.recall_at_rank10,
            ]
        )
    return np.array(figures)


def table(resampled: Resampled) -> np.ndarray:
    ranks = resampled.recall_at_rank1, resampled.recall_at_rank10
    return np.stack([resampled.average_precision, resampled.recall, resampled.threshold, *ranks], axis=1)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(SCORES, PAIRS, st.sets(st.sampled_from(QUERIES)), st.sampled_from([0.9, 0.5, 1.0]), st.integers(0, 5))
def test_resampling_is_judging_repeated_queries(scores, pairs, distractors, precision, seed):
    matches, truth = matches_of(scores), GroundTruth(frozenset(distractors), frozenset(pairs))
    options = {"precision": precision, "resamples": 6, "seed": seed}
    np.testing.assert_allclose(
        table(bootstrap(matches, truth, **options)), twin(matches, truth, **options), rtol=1e-12, equal_nan=True
    )


def test_a_resample_may_hold_no_true_pair_and_says_nothing_then():
    truth = GroundTruth(frozenset({"b", "c", "d"}), frozenset({("a", "A")}))
    found = bootstrap(matches_of({("a", "A"): 1.0, ("b", "B"): 0.5}), truth, resamples=200)
    empty = np.isnan(found.average_precision)
    assert 0 < empty.sum() < 200
    assert (np.isnan(found.recall) == empty).all()
    assert np.isnan(found.curve[empty]).all()
    assert interval(found.average_precision) == (1.0, 1.0)
    assert math.isnan(interval(np.full(3, math.nan))[0])


def test_every_draw_has_as_many_queries_as_are_judged_and_more_draws_begin_with_those_of_fewer():
    many = list(draws(17, 50, seed=3))
    assert {int(weights.sum()) for weights in many} == {17}
    assert len({weights.tobytes() for weights in many}) == 50
    assert all((a == b).all() for a, b in zip(draws(17, 20, seed=3), many, strict=False))
    assert any((a != b).any() for a, b in zip(draws(17, 20, seed=4), many, strict=False))
    counts = np.concatenate(list(draws(1000, 50, seed=0)))  # nearly Poisson of mean 1
    assert counts.mean() == 1.0
    assert counts.var() == pytest.approx(1.0, abs=0.03)
    assert (counts == 0).mean() == pytest.approx(math.exp(-1), abs=0.005)


def test_runs_of_one_ground_truth_are_paired_in_whatever_order_they_come():
    truth = GroundTruth(frozenset({"d1", "d2"}), frozenset({("a", "A"), ("b", "B"), ("c", "C")}))
    scores = {("a", "A"): 0.9, ("d1", "X"): 0.8, ("b", "B"): 0.7, ("c", "X"): 0.6, ("c", "C"): 0.5}
    one, other = matches_of(scores), matches_of(dict(reversed(scores.items())))
    np.testing.assert_array_equal(table(bootstrap(one, truth)), table(bootstrap(other, truth)))
    # a prediction more of a query that is not judged changes nothing
    stranger = matches_of(scores | {("z", "X"): 1.0})
    np.testing.assert_array_equal(table(bootstrap(one, truth)), table(bootstrap(stranger, truth)))


def test_the_interval_of_rank_one_is_that_of_a_share():
    """A query in four wrong at rank 1: the share's standard error is √(p (1 − p) / n)."""
    count, pairs = 400, frozenset((f"q{i}", "R") for i in range(400))
    scores = {(f"q{i}", "R" if i % 4 else "X"): 1.0 - i / 1000 for i in range(count)}
    low, high = interval(bootstrap(matches_of(scores), GroundTruth(frozenset(), pairs), resamples=2000).recall_at_rank1)
    wide = 1.96 * math.sqrt(0.75 * 0.25 / count)
    assert (low, high) == (pytest.approx(0.75 - wide, abs=0.006), pytest.approx(0.75 + wide, abs=0.006))


def test_the_curve_is_the_precision_at_which_each_recall_is_reached():
    """Nothing varies where all queries are alike: right, wrong in turn, so precision is k / (2k − 1)."""
    truth = GroundTruth(frozenset({"a"}), frozenset({("a", f"R{i}") for i in range(4)}))
    scores = {("a", f"R{i}"): 1.0 - i / 10 for i in range(3)} | {("a", f"X{i}"): 0.95 - i / 10 for i in range(3)}
    curve = bootstrap(matches_of(scores), truth, resamples=2).curve[0]
    assert curve[GRID <= 0.25] == pytest.approx(1.0)
    assert curve[(GRID > 0.251) & (GRID <= 0.5)] == pytest.approx(2 / 3)
    assert curve[(GRID > 0.501) & (GRID <= 0.75)] == pytest.approx(3 / 5)
    assert np.isnan(curve[GRID > 0.751]).all()


def test_scores_of_float32_keep_their_decimals_in_the_threshold():
    truth = GroundTruth(frozenset({"a"}), frozenset({("a", "A")}))
    matches = matches_of({("a", "A"): -0.84753865})
    single = Matches(
        matches.query_ids, matches.reference_ids, matches.query, matches.reference, matches.score.astype(np.float32)
    )
    assert set(bootstrap(single, truth, resamples=3).threshold) == {-0.84753865}


def test_interval_is_the_middle_share_of_the_values():
    values = np.r_[np.arange(1001.0), np.nan]
    assert interval(values) == pytest.approx((25.0, 975.0))
    assert interval(values, level=0.5) == pytest.approx((250.0, 750.0))


def test_intervals_bear_the_names_of_the_metrics():
    truth = GroundTruth(frozenset(), frozenset({("a", "A"), ("b", "B")}))
    resampled = bootstrap(matches_of({("a", "A"): 0.5, ("b", "X"): 0.9}), truth, resamples=50)
    found = intervals(resampled)
    assert found.keys() <= vars(evaluate(matches_of({}), truth)).keys()
    assert found["average_precision"] == [0.0, 1.0]
    assert found["threshold_at_p90"] == [0.5, 0.5]  # where it is reached at all
    assert intervals(bootstrap(matches_of({}), truth, resamples=5))["threshold_at_p90"] is None


def test_p_value_by_hand():
    assert p_value(np.ones(99)) == 0.02  # the least that 99 resamples can say
    assert p_value(-np.ones(99)) == 0.02
    assert p_value(np.zeros(99)) == 1.0
    assert p_value(np.r_[np.full(4, -1.0), np.ones(95), np.nan]) == pytest.approx(0.1)
    assert math.isnan(p_value(np.full(2, np.nan)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": 0.0}, "precision=0.0"),
        ({"precision": 1.1}, "precision=1.1"),
        ({"resamples": 0}, "resamples=0"),
    ],
)
def test_impossible_options_are_refused(options, said):
    truth = GroundTruth(frozenset(), frozenset({("a", "A")}))
    with pytest.raises(InputError, match=said):
        bootstrap(matches_of({("a", "A"): 1.0}), truth, **options)


def test_without_a_true_pair_or_with_an_impossible_level_it_is_refused():
    with pytest.raises(InputError, match="no true pair"):
        bootstrap(matches_of({("a", "A"): 1.0}), GroundTruth(frozenset({"a"}), frozenset()))
    with pytest.raises(InputError, match=r"level=1\.0"):
        interval(np.zeros(3), level=1.0)


def test_without_any_prediction_nothing_is_found():
    found = bootstrap(matches_of({}), GroundTruth(frozenset(), frozenset({("a", "A")})), resamples=3)
    assert found.average_precision.tolist() == [0.0] * 3
    assert found.recall.tolist() == [0.0] * 3
    assert np.isnan(found.threshold).all()
