"""The judge against hand-worked values and two slow twins: one from the definitions, one in the challenge's manner."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.metrics import (
    Bin,
    average_precision,
    evaluate,
    precision_recall,
    ranks,
    recall_at_precision,
    reliability,
    wilson,
)

Prediction = tuple[str, str, float]
Line = tuple[str, str]  # of a ground-truth file; a distractor's reference id is empty
NINE_TENTHS = Fraction(9, 10)


def matches_of(predictions: Sequence[Prediction], dtype: type = np.float64) -> Matches:
    query, reference, score = zip(*predictions, strict=True) if predictions else ((), (), ())
    return Matches.from_ids(query, reference, np.array(score, dtype=dtype))


def truth_of(lines: Sequence[Line]) -> GroundTruth:
    return GroundTruth(frozenset(q for q, _ in lines), frozenset((q, r) for q, r in lines if r))


# --- a twin from the definitions alone -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Twin:
    average_precision: Fraction
    recall_at_p90: Fraction
    threshold_at_p90: float | None
    recall_at_rank1: Fraction
    recall_at_rank10: Fraction
    num_dropped: int
    num_positives: int


def average_precision_of(ordered: Sequence[bool], num_positives: int) -> Fraction:
    """Σ (recall_i − recall_{i−1}) · precision_i over right-or-wrong flags, best first."""
    total, previous, correct = Fraction(0), Fraction(0), 0
    for i, flag in enumerate(ordered, 1):
        correct += flag
        recall = Fraction(correct, num_positives)
        total += (recall - previous) * Fraction(correct, i)
        previous = recall
    return total


def recall_at_nine_tenths(ordered: Sequence[tuple[float, bool]], num_positives: int) -> tuple[Fraction, float | None]:
    best, threshold, correct = Fraction(0), None, 0
    for i, (score, flag) in enumerate(ordered, 1):
        correct += flag
        if Fraction(correct, i) >= NINE_TENTHS and Fraction(correct, num_positives) > best:
            best, threshold = Fraction(correct, num_positives), score
    return best, threshold


def twin_of(predictions: Sequence[Prediction], lines: Sequence[Line]) -> Twin:
    queries = {q for q, _ in lines}
    pairs = {(q, r) for q, r in lines if r != ""}
    kept = [p for p in predictions if p[0] in queries]
    ordered = sorted(((s, (q, r) in pairs) for q, r, s in kept), key=lambda item: (-item[0], item[1]))
    recall, threshold = recall_at_nine_tenths(ordered, len(pairs))
    found: list[int] = []
    for q, r in pairs:
        for other_q, other_r, score in kept:
            if (other_q, other_r) == (q, r):
                found.append(sum(p[0] == q and p[2] >= score for p in kept) - 1)
    return Twin(
        average_precision=average_precision_of([flag for _, flag in ordered], len(pairs)),
        recall_at_p90=recall,
        threshold_at_p90=threshold,
        recall_at_rank1=Fraction(sum(rank < 1 for rank in found), len(pairs)),
        recall_at_rank10=Fraction(sum(rank < 10 for rank in found), len(pairs)),
        num_dropped=len(predictions) - len(kept),
        num_positives=len(pairs),
    )


# --- a second twin, in the manner of the challenge's evaluator -------------------------------------------------------


def challenge_manner(predictions: Sequence[Prediction], lines: Sequence[Line]) -> tuple[float, float, float | None]:
    """(μAP, recall at p90, threshold): sort, accumulate, stop at full recall, take the argmax among precise points."""
    pairs = {(q, r) for q, r in lines if r}
    queries = {q for q, _ in lines}
    judged = [(score, (q, r) in pairs) for q, r, score in predictions if q in queries]
    judged.sort(key=lambda item: (item[0], not item[1]), reverse=True)
    precision, recall, score = [], [], []
    correct = 0
    for seen, (value, is_right) in enumerate(judged, 1):
        correct += is_right
        precision.append(correct / seen)
        recall.append(correct / len(pairs))
        score.append(value)
        if correct == len(pairs):
            break
    mean = sum((r - before) * p for r, before, p in zip(recall, [0.0, *recall], precision, strict=False))
    masked = [r if p >= 0.9 else 0.0 for r, p in zip(recall, precision, strict=True)]
    if not masked or max(masked) == 0.0:
        return mean, 0.0, None
    at = masked.index(max(masked))
    return mean, masked[at], score[at]


# --- cases -----------------------------------------------------------------------------------------------------------

QUERIES = [f"Q{i}" for i in range(5)]
REFERENCES = [f"R{i}" for i in range(8)]
TIED_SCORES = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 0.5, 1.0])
FREE_SCORES = st.floats(-1e6, 1e6, allow_nan=False)


SCORES = st.sampled_from([TIED_SCORES, FREE_SCORES])


@st.composite
def cases(draw: st.DrawFn, most: int = 24) -> tuple[list[Prediction], list[Line]]:
    """Predictions without repeated pairs, and the lines of a ground truth with at least one true pair.

    How many predictions are right, whether scores tie, and whether a query is missing from the ground truth are drawn
    too, so that high precision, ties and dropped queries all come up.
    """
    some_pair = st.tuples(st.sampled_from(QUERIES), st.sampled_from(REFERENCES))
    row = st.tuples(some_pair, draw(SCORES), st.integers(1, 10))
    rows = draw(st.lists(row, unique_by=lambda item: item[0], max_size=most))
    likely, unjudged = draw(st.tuples(st.sampled_from([1, 5, 9, 10]), st.sampled_from([*QUERIES, ""])))
    lines = [pair for pair, _, luck in rows if luck <= likely]
    lines += draw(st.lists(some_pair, max_size=3))  # misses, and lines that repeat
    lines += [(q, "") for q in draw(st.lists(st.sampled_from([*QUERIES, "D0", "D1"]), max_size=3))]
    lines = [line for line in lines + lines[:2] if line[0] != unjudged]
    if not any(r for _, r in lines):
        lines.append(("Q0", "R0"))
    return [(q, r, score) for (q, r), score, _ in rows], lines


def flags(text: str) -> np.ndarray:
    """Right (R) and wrong (w) predictions, best first."""
    return np.array([letter == "R" for letter in text], dtype=bool)


def falling(length: int) -> np.ndarray:
    return np.arange(length, 0, -1) / 100.0


# --- hand examples ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "score", "num_positives", "expected"),
    [
        ("wRR", [0.95, 0.9, 0.8], 2, (1 / 2 + 2 / 3) / 2),  # 0.583333
        ("Rww", [0.5, 0.5, 0.5], 1, 1 / 3),  # 0.333333
        ("RwR", [0.9, 0.8, 0.7], 3, (1 + 2 / 3) / 3),  # 0.555556
        ("R", [0.1], 1, 1.0),
        ("R", [0.1], 4, 1 / 4),
        ("w", [0.1], 1, 0.0),
        ("", [], 1, 0.0),
        ("RRR", [3.0, 2.0, 1.0], 3, 1.0),
        ("RRRww", [3.0, 2.0, 1.0, 0.5, 0.0], 3, 1.0),  # nothing below full recall counts
        ("wwwR", [4.0, 3.0, 2.0, 1.0], 1, 1 / 4),
        ("RwwR", [0.9, 0.5, 0.4, 0.5], 2, (1 + 2 / 3) / 2),  # the tie at .5 puts the wrong one before the right one
        ("RRww", [1.0, 1.0, 1.0, 1.0], 2, (1 / 3 + 2 / 4) / 2),
        ("Rw", [-0.0, 0.0], 1, 1 / 2),  # the two zeros are equal
        ("wR", [-2.0, -1.0], 1, 1.0),  # negative squared distances
    ],
)
def test_average_precision_by_hand(text, score, num_positives, expected):
    curve = precision_recall(np.array(score), flags(text), num_positives)
    assert average_precision(curve) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("a", "x"), ("b", "y")], 0.583333),
        ([("a", "x"), ("b", "y"), ("c", "")], 0.583333),
        ([("a", "x"), ("b", "y"), ("b", "y")], 0.583333),  # a repeated line is one pair
        ([("a", "x"), ("b", "y"), ("e", "v")], 0.388889),  # a pair nobody predicted
    ],
)
def test_evaluate_by_hand(lines, expected):
    metrics = evaluate(matches_of([("a", "z", 0.95), ("a", "x", 0.9), ("b", "y", 0.8)]), truth_of(lines))
    assert metrics.average_precision == pytest.approx(expected, abs=1e-6)


def test_every_figure_by_hand():
    predictions = [
        ("a", "x", 0.9),  # right, alone at the top
        ("b", "y", 0.8),  # right, but level with b,z
        ("b", "z", 0.8),  # wrong
        ("d", "x", 0.7),  # a distractor's: wrong
        ("n", "x", 9.9),  # not in the ground truth: dropped
        ("a", "w", 0.1),  # right, second of its query
    ]
    lines = [("a", "x"), ("a", "w"), ("b", "y"), ("c", "v"), ("d", "")]
    metrics = evaluate(matches_of(predictions), truth_of(lines))
    assert metrics.as_dict() == {
        "average_precision": pytest.approx((1 + 2 / 3 + 3 / 5) / 4),
        "recall_at_p90": 0.25,
        "threshold_at_p90": 0.9,
        "recall_at_rank1": 0.25,
        "recall_at_rank10": 0.75,
        "num_predictions": 6,
        "num_dropped": 1,
        "num_positives": 4,
        "tie_range": [pytest.approx((1 + 2 / 3 + 3 / 5) / 4), pytest.approx((1 + 1 + 3 / 5) / 4)],
    }
    assert metrics.ties_matter
    assert json.loads(json.dumps(metrics.as_dict(), allow_nan=False)) == metrics.as_dict()


def test_repeated_lines_of_the_ground_truth_do_not_count():
    truth = GroundTruth(frozenset(), frozenset({("a", "x")}), num_repeated=3)
    assert evaluate(matches_of([("a", "x", 1.0)]), truth).average_precision == 1.0


def test_the_curve_is_that_of_the_definition():
    curve = precision_recall(np.array([0.1, 0.9, 0.5, 0.5]), flags("RRRw"), 5)
    assert curve.score.tolist() == [0.9, 0.5, 0.5, 0.1]
    assert curve.precision.tolist() == [1, 1 / 2, 2 / 3, 3 / 4]
    assert curve.recall.tolist() == [1 / 5, 1 / 5, 2 / 5, 3 / 5]


def test_predictions_and_arguments_are_left_as_they_were():
    matches = matches_of([("a", "x", 0.1), ("b", "y", 0.9), ("n", "x", 0.5)])
    before = [matches.query.copy(), matches.reference.copy(), matches.score.copy()]
    evaluate(matches, truth_of([("a", "x"), ("b", "")]))
    for old, new in zip(before, [matches.query, matches.reference, matches.score], strict=True):
        np.testing.assert_array_equal(old, new)


# --- recall at 90 % precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "num_positives", "recall", "at"),
    [
        ("R" * 9 + "ww" + "R" * 11, 20, 1.0, 21),  # 9 / 11 dips below .9, 20 / 22 lies above: recall after the dip
        ("R" * 9 + "ww" + "R" * 6, 20, 0.45, 8),  # 15 / 17 = .882: the curve has not come back yet
        ("R" * 9 + "ww" + "R" * 9, 20, 0.9, 19),  # 18 / 20 is .9 to the last bit, and .9 is enough
        ("w" + "R" * 9, 10, 0.9, 9),  # 9 / 10 likewise; no earlier point reaches it
        ("w" + "R" * 8, 10, 0.0, None),  # 8 / 9 = .889
        ("R" * 9 + "w", 9, 1.0, 8),  # 9 / 10 at the wrong one too: the higher score counts
        ("R", 1, 1.0, 0),
        ("w", 1, 0.0, None),
        ("", 3, 0.0, None),
        ("wR", 1, 0.0, None),
        ("Rw" + "R" * 5, 6, 1 / 6, 0),
    ],
)
def test_recall_at_nine_tenths_by_hand(text, num_positives, recall, at):
    score = falling(len(text))
    found, threshold = recall_at_precision(precision_recall(score, flags(text), num_positives), 0.9)
    assert found == pytest.approx(recall, abs=1e-12)
    assert threshold == (None if at is None else score[at])


def test_a_tie_at_the_threshold_counts_against_us():
    score = np.array([1.0, 1.0])
    assert recall_at_precision(precision_recall(score, flags("Rw"), 1), 0.9) == (0.0, None)
    assert recall_at_precision(precision_recall(score, flags("Rw"), 1, ties="best"), 0.9) == (1.0, 1.0)


@given(
    st.lists(st.sampled_from([True] * 12 + [False]), max_size=60),
    st.integers(0, 5),
    st.sampled_from([1, 4, 1000]),
)
def test_recall_at_nine_tenths_is_the_twins(correct, missed, levels):
    num_positives = sum(correct) + missed
    if num_positives == 0:
        return
    score = [-float(i * levels // 1000) if levels < 1000 else -float(i) for i in range(len(correct))]
    ordered = sorted(zip(score, correct, strict=True), key=lambda item: (-item[0], item[1]))
    recall, threshold = recall_at_nine_tenths(ordered, num_positives)
    curve = precision_recall(np.array(score), np.array(correct, dtype=bool), num_positives)
    found, at = recall_at_precision(curve, 0.9)
    assert found == pytest.approx(float(recall), abs=1e-12)
    assert at == threshold


# --- ranks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "rank"),
    [
        ([0.9, 0.8, 0.7], 0),
        ([0.8, 0.9, 0.7], 1),
        ([0.8, 0.8, 0.7], 1),  # a tie counts against the pair
        ([0.8, 0.8, 0.8], 2),
        ([0.1, 0.8, 0.8], 2),
        ([0.5], 0),
    ],
)
def test_rank_of_the_first_prediction_by_hand(score, rank):
    predictions = [("q", f"r{i}", s) for i, s in enumerate(score)]
    others = [("p", "r0", 7.0), ("s", "r0", 7.0)]  # other queries do not count
    correct = np.array([True] + [False] * (len(score) - 1) + [False] * 2)
    assert ranks(matches_of(predictions + others), correct).tolist() == [rank]


def test_ten_predictions_fit_in_rank_ten_and_eleven_do_not():
    for better, expected in ((9, 1.0), (10, 0.0)):
        predictions = [("q", f"w{i}", 2.0) for i in range(better)] + [("q", "right", 1.0)]
        assert evaluate(matches_of(predictions), truth_of([("q", "right")])).recall_at_rank10 == expected


@settings(max_examples=100, deadline=None)
@given(cases())
def test_ranks_are_the_twins(case):
    predictions, lines = case
    pairs = {line for line in lines if line[1]}
    correct = [(q, r) in pairs for q, r, _ in predictions]
    slow = [sum(p[0] == q and p[2] >= s for p in predictions) - 1 for q, r, s in predictions if (q, r) in pairs]
    assert ranks(matches_of(predictions), np.array(correct, dtype=bool)).tolist() == slow


# --- the whole judge against its twins -------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(cases())
@example(([], [("Q0", "R0")]))
@example(([("Q0", "R0", 1.0)], [("Q0", ""), ("Q1", "R0")]))  # a distractor's row keeps the query
@example(([("Q0", "R0", 1.0)], [("Q1", "R0")]))  # every prediction is dropped
@example(([("Q0", f"R{i}", 1.0) for i in range(8)], [("Q0", f"R{i}") for i in range(8)]))  # many references per query
@example(([("Q0", "R0", -0.0), ("Q0", "R1", 0.0)], [("Q0", "R0"), ("Q0", "R0")]))
def test_evaluate_is_the_twin(case):
    predictions, lines = case
    metrics, twin = evaluate(matches_of(predictions), truth_of(lines)), twin_of(predictions, lines)
    assert metrics.average_precision == pytest.approx(float(twin.average_precision), abs=1e-12)
    assert metrics.recall_at_p90 == pytest.approx(float(twin.recall_at_p90), abs=1e-12)
    assert metrics.threshold_at_p90 == twin.threshold_at_p90
    assert metrics.recall_at_rank1 == pytest.approx(float(twin.recall_at_rank1), abs=1e-12)
    assert metrics.recall_at_rank10 == pytest.approx(float(twin.recall_at_rank10), abs=1e-12)
    assert metrics.num_predictions == len(predictions)
    assert metrics.num_dropped == twin.num_dropped
    assert metrics.num_positives == twin.num_positives
    assert metrics.tie_range[0] == metrics.average_precision


@settings(max_examples=200, deadline=None)
@given(cases())
def test_evaluate_agrees_with_the_challenges_manner(case):
    predictions, lines = case
    metrics = evaluate(matches_of(predictions), truth_of(lines))
    mean, recall, threshold = challenge_manner(predictions, lines)
    assert metrics.average_precision == pytest.approx(mean, abs=1e-6)
    assert metrics.recall_at_p90 == pytest.approx(recall, abs=1e-6)
    assert metrics.threshold_at_p90 == threshold


def test_both_twins_agree_on_a_larger_run():
    random = np.random.default_rng(20210607)
    lines = [(f"Q{i}", f"R{i}" if i < 60 else "") for i in range(300)]
    predictions = [
        (f"Q{q}", f"R{r}", float(round(random.normal() + 3 * (q == r), 1)))
        for q in range(320)
        for r in {int(x) for x in random.integers(0, 400, 4)} | ({q} if random.random() < 0.8 else set())
    ]
    metrics, twin = evaluate(matches_of(predictions), truth_of(lines)), twin_of(predictions, lines)
    mean, recall, threshold = challenge_manner(predictions, lines)
    assert 0.1 < metrics.average_precision < 0.9
    assert metrics.average_precision == pytest.approx(float(twin.average_precision), abs=1e-12)
    assert metrics.average_precision == pytest.approx(mean, abs=1e-6)
    assert metrics.recall_at_p90 == pytest.approx(recall, abs=1e-6) == pytest.approx(float(twin.recall_at_p90))
    assert metrics.threshold_at_p90 == threshold == twin.threshold_at_p90
    assert metrics.num_dropped == sum(int(q[1:]) >= 300 for q, _, _ in predictions) > 0


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(cases())
def test_evaluate_has_the_figures_of_the_whole_curve(case):
    matches, truth = matches_of(case[0]), truth_of(case[1])
    kept = matches.take(truth.judged(matches))
    metrics, correct = evaluate(matches, truth), truth.correct(kept)
    curves = [precision_recall(kept.score, correct, len(truth.pairs), ties=ties) for ties in ("worst", "best")]
    assert metrics.tie_range == tuple(pytest.approx(average_precision(curve), abs=1e-12) for curve in curves)
    assert (metrics.recall_at_p90, metrics.threshold_at_p90) == recall_at_precision(curves[0], 0.9)
    for curve in curves:
        assert curve.score.tolist() == sorted(kept.score.tolist(), reverse=True)
        assert len(curve.precision) == len(curve.recall) == len(kept)


# --- invariances -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(cases(), st.data())
def test_the_order_of_the_predictions_carries_no_meaning(case, data):
    predictions, lines = case
    shuffled = data.draw(st.permutations(predictions))
    assert evaluate(matches_of(shuffled), truth_of(lines)) == evaluate(matches_of(predictions), truth_of(lines))


@pytest.mark.parametrize("change", [lambda s: 2 * s + 7, lambda s: s**3, math.exp, math.atan, lambda s: s - 1000])
@settings(max_examples=25, deadline=None)
@given(case=cases())
def test_a_rising_transform_of_the_scores_changes_the_threshold_alone(change, case):
    predictions = [(q, r, float(round(s) % 16)) for q, r, s in case[0]]  # few values, far apart, so all stay distinct
    moved = [(q, r, change(s)) for q, r, s in predictions]
    before, after = (evaluate(matches_of(p), truth_of(case[1])) for p in (predictions, moved))
    expected = None if before.threshold_at_p90 is None else change(before.threshold_at_p90)
    assert after.threshold_at_p90 == expected
    assert after.as_dict() | {"threshold_at_p90": None} == before.as_dict() | {"threshold_at_p90": None}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_the_type_of_the_scores_does_not_matter(dtype):
    predictions = [(q, r, (3 * i) % 7) for i, (q, r) in enumerate(itertools.product(QUERIES, REFERENCES))]
    lines = [("Q0", "R3"), ("Q1", "R1"), ("Q1", "R2"), ("Q2", ""), ("Q4", "R0")]
    matches = Matches.from_ids(*zip(*[p[:2] for p in predictions], strict=True), [0.0] * len(predictions))
    score = np.array([p[2] for p in predictions], dtype=dtype)
    typed = Matches(matches.query_ids, matches.reference_ids, matches.query, matches.reference, score)
    assert evaluate(typed, truth_of(lines)) == evaluate(matches_of(predictions), truth_of(lines))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_adding_predictions_that_cannot_matter_changes_nothing(case):
    predictions, lines = case
    plain = evaluate(matches_of(predictions), truth_of(lines))
    dropped = evaluate(matches_of([*predictions, ("unjudged", "R0", 1e9)]), truth_of(lines))
    assert dropped.num_dropped == plain.num_dropped + 1
    assert dropped.average_precision == pytest.approx(plain.average_precision, abs=1e-12)
    lowest = evaluate(matches_of([*predictions, ("D9", "R0", -1e9)]), truth_of([*lines, ("D9", "")]))
    assert lowest.num_dropped == plain.num_dropped
    assert lowest.average_precision == pytest.approx(plain.average_precision, abs=1e-12)
    assert lowest.threshold_at_p90 == plain.threshold_at_p90
    highest = evaluate(matches_of([*predictions, ("D9", "R0", 1e9)]), truth_of([*lines, ("D9", "")]))
    assert highest.average_precision <= plain.average_precision + 1e-12


# --- ties ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.booleans()), max_size=6),
    st.integers(1, 3),
)
@example([(0.5, True), (0.5, False), (0.5, False)], 1)
@example([(0.5, True), (0.5, True), (0.5, False), (0.5, False), (0.0, True)], 1)
def test_tie_range_is_the_least_and_the_most_over_all_orders(scored, missed):
    num_positives = sum(flag for _, flag in scored) + missed
    possible = {
        average_precision_of([flag for _, flag in order], num_positives)
        for order in itertools.permutations(scored)
        if all(one[0] >= two[0] for one, two in itertools.pairwise(order))
    }
    predictions = [("q", f"r{i}", score) for i, (score, _) in enumerate(scored)]
    lines = [("q", f"r{i}") for i, (_, flag) in enumerate(scored) if flag] + [("m", f"r{i}") for i in range(missed)]
    metrics = evaluate(matches_of(predictions), truth_of([*lines, ("q", "")]))
    assert metrics.tie_range == (
        pytest.approx(float(min(possible)), abs=1e-12),
        pytest.approx(float(max(possible)), abs=1e-12),
    )
    assert metrics.ties_matter == (len(possible) > 1)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_ties_cannot_matter_where_scores_differ(case):
    predictions = [(q, r, float(i)) for i, (q, r, _) in enumerate(case[0])]
    metrics = evaluate(matches_of(predictions), truth_of(case[1]))
    assert metrics.tie_range[0] == metrics.tie_range[1]
    assert not metrics.ties_matter


def test_an_unknown_tie_rule_is_not_taken_for_another():
    with pytest.raises((InputError, ValueError, KeyError)):
        precision_recall(np.array([1.0, 1.0]), flags("Rw"), 1, ties="wrost")


# --- nothing to find -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predictions", [[], [("Q0", "R0", 1.0)]])
def test_no_true_pair_is_refused(predictions):
    with pytest.raises(InputError, match=r"no true pair.*expected at least 1"):
        evaluate(matches_of(predictions), truth_of([("Q0", ""), ("Q1", "")]))


def test_no_prediction_finds_nothing():
    metrics = evaluate(matches_of([]), truth_of([("Q0", "R0"), ("Q1", "")]))
    assert metrics.as_dict() == {
        "average_precision": 0.0,
        "recall_at_p90": 0.0,
        "threshold_at_p90": None,
        "recall_at_rank1": 0.0,
        "recall_at_rank10": 0.0,
        "num_predictions": 0,
        "num_dropped": 0,
        "num_positives": 1,
        "tie_range": [0.0, 0.0],
    }


# --- probabilities ---------------------------------------------------------------------------------------------------


def test_reliability_by_hand():
    probability = np.array([0.05, 0.15, 0.12, 0.95, 1.0, 0.1, 0.0])
    bins = reliability(probability, np.array([False, True, False, True, True, False, False]))
    assert bins == [
        Bin(0.0, 0.1, 2, pytest.approx(0.025), 0.0),
        Bin(0.1, 0.2, 3, pytest.approx(0.37 / 3), pytest.approx(1 / 3)),  # a bin begins with its lower edge
        Bin(0.9, 1.0, 2, pytest.approx(0.975), 1.0),  # the last ends with its upper one
    ]


def test_reliability_of_the_ends_alone():
    bins = reliability(np.array([0.0, 1.0, 1.0]), np.array([False, True, False]), edges=(0.0, 0.5, 1.0))
    assert bins == [Bin(0.0, 0.5, 1, 0.0, 0.0), Bin(0.5, 1.0, 2, 1.0, 0.5)]


def test_reliability_of_one_bin_and_of_no_pair():
    one = reliability(np.array([0.25, 0.75]), np.array([True, False]), edges=(0.0, 1.0))
    assert one == [Bin(0.0, 1.0, 2, 0.5, 0.5)]
    assert reliability(np.zeros(0), np.zeros(0, bool)) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.99, 1.0]) | st.floats(0, 1), st.booleans())),
    st.sampled_from([tuple(i / 10 for i in range(11)), (0.0, 0.01, 0.3, 0.5, 0.99, 1.0), (0.0, 1.0)]),
)
def test_reliability_is_what_counting_gives(pairs, edges):
    expected = []
    for low, high in itertools.pairwise(edges):
        inside = [(p, flag) for p, flag in pairs if low <= p < high or p == high == 1.0]
        if inside:
            means = [pytest.approx(float(np.mean([one[at] for one in inside]))) for at in (0, 1)]
            expected.append(Bin(low, high, len(inside), *means))
    probability, correct = (
        np.array([pair[at] for pair in pairs], kind) for at, kind in ((0, np.float64), (1, np.bool_))
    )
    assert reliability(probability, correct, edges=edges) == expected


# --- shares ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "of", "low", "high"),
    [  # Newcombe, Statistics in Medicine 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_as_published(found, of, low, high):
    assert wilson(found, of) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 300), st.floats(0.5, 0.999), st.data())
def test_wilson_holds_the_share_and_is_the_same_from_the_other_end(of, level, data):
    found = data.draw(st.integers(0, of))
    low, high = wilson(found, of, level=level)
    assert 0 <= low <= found / of <= high <= 1
    assert wilson(of - found, of, level=level) == (pytest.approx(1 - high), pytest.approx(1 - low))


def test_wilson_of_nothing_knows_nothing_and_an_impossible_level_is_refused():
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(InputError, match="level=1"):
        wilson(1, 2, level=1)
