"""The fusion on drawn pairs, of which it is known how likely each is to be a copy."""

from __future__ import annotations

import copy as copies
import functools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isc.evaluate.additive import FALLS, LEAST_COPIES, RIDGE, RISES, Additive, Curve
from isc.evaluate.metrics import reliability
from isc.match.verification.fusion import ALIGNED, GLOBAL, LOGARITHMIC, UNALIGNED, Fusion, fit_fusion
from isc.match.verification.fusion_files import fusion_for
from isc.match.verification.quantities import EVIDENCE

AT = {name: column for column, name in enumerate(EVIDENCE)}
COPIES = 0.4  # share of the drawn pairs
FOUND = (0.9, 0.2)  # chance that a copy has an alignment, and that another pair has
# means for copies and others, and the deviation of both, so that log-odds are straight lines
DISTANCE = (0.6, 1.1, 0.3)
INLIERS = (3.4, 1.9, 0.6)  # logarithm of one more
AGREEMENT = (0.6, 0.1, 0.3)
FEATURES = (5.0, 5.6, 0.6)  # logarithm of one more, of the query


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Squared distances, evidence, which pairs are copies, and the true probability of each pair to be one."""
    random = np.random.default_rng(seed)
    copy = random.random(count) < COPIES

    def normal(means: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Values and what they add to the log-odds."""
        values = random.normal(np.where(copy, means[0], means[1]), means[2])
        return values, ((values - means[1]) ** 2 - (values - means[0]) ** 2) / (2 * means[2] ** 2)

    distance, odds = normal(DISTANCE)
    found = random.random(count) < np.where(copy, *FOUND)
    inliers, by_inliers = normal(INLIERS)
    inliers_odds = np.where(found, by_inliers, 0)
    agreement, by_agreement = normal(AGREEMENT)
    features, by_features = normal(FEATURES)
    evidence = np.zeros((count, len(EVIDENCE)), np.float32)
    evidence[:, AT["features_query"]] = np.expm1(features)
    evidence[:, AT["features_reference"]] = 400
    evidence[found, AT["inliers"]] = np.expm1(inliers[found].clip(0.7))
    evidence[found, AT["agreement"]] = agreement[found]
    # an aligned pair's features are not asked for
    odds += inliers_odds + np.where(found, by_agreement, by_features)
    odds += np.where(found, math.log(FOUND[0] / FOUND[1]), math.log((1 - FOUND[0]) / (1 - FOUND[1])))
    odds += math.log(COPIES / (1 - COPIES))
    return distance, evidence, copy, 1 / (1 + np.exp(-odds))


@functools.cache
def fitted() -> Fusion:
    distance, evidence, copy, _ = drawn(6000, 0)
    return fit_fusion(distance, evidence, copy)


def transformed(distance: np.ndarray, evidence: np.ndarray) -> dict[str, np.ndarray]:
    columns = {"distance": distance} | {name: evidence[:, at].astype(float) for name, at in AT.items()}
    return {name: np.log1p(one) if name in LOGARITHMIC else one for name, one in columns.items()}


# curves


def test_curve_by_hand():
    curve = Curve((1.0, 2.0, 4.0), (3.0, -1.0))
    values = np.array([0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    # a slope of 3 until 2, also before 1; then −½, also beyond 4
    np.testing.assert_allclose(curve(values), [-3, 0, 1.5, 3, 2.5, 2, 1], atol=1e-12)


def test_curve_of_two_knots_is_a_line():
    values = np.linspace(-5, 5, 11)
    np.testing.assert_allclose(Curve((0.0, 2.0), (1.0,))(values), values / 2, atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(
    steps=st.lists(st.floats(0.01, 10), min_size=1, max_size=7),
    rises=st.lists(st.floats(0, 10), min_size=7, max_size=7),
    values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20),
)
def test_a_rising_curve_keeps_order_beyond_its_ends_too(steps, rises, values):
    knots = tuple(np.cumsum([0.0, *steps]).tolist())
    found = Curve(knots, tuple(rises[: len(steps)]))(np.sort(values))
    assert (np.diff(found) >= -1e-9 * (1 + np.abs(found[1:]))).all()


def test_curves_that_are_none():
    for knots, rises in (
        ((0.0, 1.0), (1.0, 2.0)),
        ((0.0, 1.0, 2.0), (1.0,)),
        ((1.0, 0.0), (1.0,)),
        ((1.0, 1.0), (1.0,)),
        ((0.0, math.nan), (1.0,)),
        ((0.0, math.inf), (1.0,)),
        ((0.0, 1.0), (math.nan,)),
        ((0.0,), ()),
        ((), ()),
    ):
        with pytest.raises(ValueError, match="knots"):
            Curve(knots, rises)


def test_additive_by_hand():
    model = Additive(-1.0, {"a": Curve((0.0, 1.0), (2.0,)), "b": Curve((0.0, 1.0), (-3.0,))})
    odds = model({"a": np.array([1.0, 0.0]), "b": np.array([1.0, 2.0]), "unused": np.zeros(2)})
    assert odds.tolist() == [-2.0, -7.0]


# what is fitted


def test_known_probabilities_are_found_again():
    distance, evidence, copy, truth = drawn(20000, 1)
    found = fitted().probability(distance, evidence)
    assert np.abs(found - truth).mean() < 0.02
    assert np.corrcoef(found, truth)[0, 1] > 0.99
    spread = [np.mean((p - copy) ** 2) for p in (found, truth, fitted().probability(distance))]
    assert spread[0] < spread[1] + 0.003  # next to nothing is lost on the truth
    assert spread[0] < 0.7 * spread[2]  # and much is won on the distance


@pytest.mark.parametrize("with_evidence", [True, False])
def test_probabilities_are_the_share_of_copies(with_evidence):
    distance, evidence, copy, _ = drawn(20000, 2)
    found = fitted().probability(distance, evidence if with_evidence else None)
    bins = reliability(found, copy)
    assert len(bins) == 10
    place = np.minimum((found * 10).astype(int), 9)
    for number in range(10):
        rows = place == number
        noise = 4 * math.sqrt(0.25 / rows.sum())
        assert rows.sum() > 100
        assert found[rows].mean() == pytest.approx(copy[rows].mean(), abs=0.02 + noise)


def loss(model: Additive, columns: dict[str, np.ndarray], copy: np.ndarray) -> float:
    odds = model(columns)
    likelihood = np.logaddexp(0, np.where(copy, -odds, odds)).sum()
    return float(likelihood + RIDGE / 2 * sum(rise**2 for curve in model.curves.values() for rise in curve.rises))


def changed(model: Additive, name: str | None, place: int, by: float) -> Additive:
    """The bias, or one rise of one curve, changed."""
    if name is None:
        return Additive(model.bias + by, model.curves)
    rises = list(model.curves[name].rises)
    rises[place] += by
    return Additive(model.bias, {**model.curves, name: Curve(model.curves[name].knots, tuple(rises))})


@pytest.mark.parametrize("part", ["by_distance", "aligned", "unaligned"])
def test_no_weight_can_be_changed_for_the_better(part):
    """The loss, written anew, is least where the fit stopped: flat in every weight that is free to move."""
    distance, evidence, copy, _ = drawn(6000, 0)
    found = evidence[:, AT["inliers"]] > 0
    rows = {"by_distance": np.ones(len(copy), bool), "aligned": found, "unaligned": ~found}[part]
    columns = {name: one[rows] for name, one in transformed(distance, evidence).items()}
    model, copy = getattr(fitted(), part), copy[rows]
    signs = {"by_distance": GLOBAL, "aligned": ALIGNED, "unaligned": UNALIGNED}[part]
    least, free = loss(model, columns, copy), 0
    places = [(None, 0)] + [(name, i) for name, curve in model.curves.items() for i in range(len(curve.rises))]
    for name, place in places:
        sign = signs[name] if name else 0
        at = model.curves[name].rises[place] if name else model.bias
        for by in (0.1, -0.1):
            if sign * (at + by) >= 0:
                assert loss(changed(model, name, place, by), columns, copy) > least
        if sign == 0 or abs(at) > 1e-3:
            slope = [loss(changed(model, name, place, by), columns, copy) for by in (1e-4, -1e-4)]
            assert abs(slope[0] - slope[1]) / 2e-4 < 0.5  # of thousands of pairs, in units of one
            free += 1
    assert free >= 3


def test_directions_are_kept():
    signs = {"by_distance": GLOBAL, "aligned": ALIGNED, "unaligned": UNALIGNED}
    for part, kind in signs.items():
        model = getattr(fitted(), part)
        assert set(model.curves) == set(kind)
        for name, curve in model.curves.items():
            assert all(rise * kind[name] >= 0 for rise in curve.rises), name
    assert ALIGNED["inliers"] == RISES
    assert ALIGNED["distance"] == UNALIGNED["distance"] == GLOBAL["distance"] == FALLS


def test_directions_are_kept_where_the_pairs_say_otherwise():
    """Copies at greater distances with fewer inliers: neither counts, neither counts the wrong way round."""
    distance, evidence, copy, _ = drawn(3000, 3)
    model = fit_fusion(distance, evidence, ~copy)
    odds = model.probability(np.linspace(0, 3, 50))
    assert (np.diff(odds) <= 0).all()
    assert all(rise >= 0 for rise in model.aligned.curves["inliers"].rises)


ROW = st.tuples(
    st.floats(0, 4), st.floats(4, 200), st.floats(0, 900), st.floats(0, 1), st.floats(-1, 1), st.floats(0, 1),
    st.floats(0, 1), st.floats(0, 1),
)  # fmt: skip
RISING = ("inliers", "log_nfa", "inlier_share", "agreement", "agreeing_share", "spread_query", "spread_reference")


def evidence_of(values: tuple[float, ...]) -> np.ndarray:
    row = np.zeros((1, len(EVIDENCE)), np.float32)
    row[0, [AT["features_query"], AT["features_reference"]]] = 300
    row[0, [AT[name] for name in RISING]] = values
    return row


@settings(deadline=None, max_examples=50)
@given(row=ROW, which=st.integers(0, 7), more=st.floats(0, 100))
def test_more_evidence_never_lowers_a_probability_and_more_distance_never_raises_it(row, which, more):
    higher = [*row]
    higher[which] += more
    before, after = (
        fitted().probability(np.array([values[0]]), evidence_of(tuple(values[1:])))[0] for values in (row, higher)
    )
    if which == 0:
        assert after <= before + 1e-12
    else:
        assert after >= before - 1e-12


@settings(deadline=None, max_examples=50)
@given(distance=st.floats(0, 4), further=st.floats(0, 4), features=st.floats(0, 500))
def test_more_distance_never_raises_the_probability_of_an_unaligned_pair(distance, further, features):
    row = np.zeros((2, len(EVIDENCE)), np.float32)
    row[:, [AT["features_query"], AT["features_reference"]]] = features
    near, far = fitted().probability(np.array([distance, distance + further]), row)
    assert far <= near + 1e-12


def test_a_pair_beyond_all_that_was_seen_keeps_its_place():
    found = fitted().probability(np.linspace(0, 20, 200))
    assert (np.diff(found) < 0).all()
    assert found[-1] > 0
    steep = Additive(0.0, {"distance": Curve((0.0, 1.0), (-30.0,))})
    found = Fusion(steep, steep, steep).probability(np.linspace(0, 10, 200))
    assert (np.diff(found) < 0).all()
    np.testing.assert_allclose(np.log(found[100:]), -30 * np.linspace(0, 10, 200)[100:], rtol=1e-12)


@pytest.mark.parametrize("bias", [-40.0, -5.0, 0.0, 5.0, 20.0, 40.0, 1000.0])
def test_log_odds_become_probabilities_of_at_most_1(bias):
    level = Additive(bias, {"distance": Curve((0.0, 1.0), (0.0,))})
    found = Fusion(level, level, level).probability(np.array([0.5]))
    np.testing.assert_allclose(found, 1 / (1 + math.exp(-bias)), rtol=1e-12)
    assert found[0] <= 1


# evidence that is missing


def test_one_value_that_is_missing_makes_a_pair_one_that_was_not_compared():
    distance, evidence, _, _ = drawn(500, 4)
    missing = np.full_like(evidence, np.nan)
    alone = fitted().probability(distance, missing)
    assert (alone <= fitted().probability(distance)).all()
    evidence[::2] = np.nan
    found = fitted().probability(distance, evidence)
    assert (found[::2] == alone[::2]).all()
    assert (found[1::2] != alone[1::2]).any()
    evidence[:] = 0
    evidence[:, 3] = np.nan
    assert (fitted().probability(distance, evidence) == alone).all()


@given(
    distance=st.floats(0, 4),
    inliers=st.integers(0, 500),
    seed=st.integers(0, 2**32 - 1),
)
def test_missing_evidence_never_beats_evidence(distance, inliers, seed):
    """A pair that disagrees is not put below one of the same distance that could not be compared."""
    shipped, _ = fusion_for("model", {"weights": "isc_small"})
    rng = np.random.default_rng(seed)
    evidence = rng.random((1, len(EVIDENCE))).astype(np.float32)
    evidence[0, AT["inliers"]] = inliers
    evidence[0, [AT["features_query"], AT["features_reference"]]] = rng.integers(0, 501, 2)
    evidence[0, AT["log_nfa"]] = rng.uniform(0, 800)
    seen = shipped.probability(np.array([distance]), evidence)
    missing = shipped.probability(np.array([distance]), np.full_like(evidence, np.nan))
    assert missing <= seen
    assert missing <= shipped.probability(np.array([distance]))


def test_the_fewer_features_the_less_it_says_that_they_do_not_agree():
    distance = np.linspace(0, 2, 100)
    found = []
    for features in (5, 50, 150, 500):
        evidence = np.zeros((100, len(EVIDENCE)), np.float32)
        evidence[:, [AT["features_query"], AT["features_reference"]]] = features
        found.append(fitted().probability(distance, evidence))
    assert (np.diff(found, axis=0) <= 0).all()
    assert (found[0] > found[-1]).all()


def test_a_pairs_probability_is_its_own():
    distance, evidence, _, _ = drawn(60, 5)
    evidence[:5] = np.nan
    together = fitted().probability(distance, evidence)
    for row in range(60):
        np.testing.assert_allclose(fitted().probability(distance[[row]], evidence[[row]])[0], together[row], rtol=1e-12)
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(fitted().probability(distance[order], evidence[order]), together[order], rtol=1e-12)


def test_no_pairs_have_no_probabilities():
    none = np.zeros((0, len(EVIDENCE)), np.float32)
    assert fitted().probability(np.zeros(0), none).shape == fitted().probability(np.zeros(0)).shape == (0,)


def test_what_is_given_is_left_alone():
    distance, evidence, copy, _ = drawn(2000, 6)
    evidence[:9] = np.nan
    before = distance.tobytes(), evidence.tobytes(), copy.tobytes()
    fit_fusion(distance, evidence, copy).probability(distance, evidence)
    assert (distance.tobytes(), evidence.tobytes(), copy.tobytes()) == before


def test_pairs_that_were_not_compared_still_tell_of_distances():
    """They count for the curve by distance alone, and for no other."""
    distance, evidence, copy, _ = drawn(3000, 7)
    evidence[:1000] = np.nan
    some, rest = fit_fusion(distance, evidence, copy), fit_fusion(distance[1000:], evidence[1000:], copy[1000:])
    assert some.aligned == rest.aligned
    assert some.unaligned == rest.unaligned
    assert some.by_distance != rest.by_distance
    assert some.by_distance == fit_fusion(distance, drawn(3000, 7)[1], copy).by_distance


# files and errors


def test_round_trip_through_json_is_exact():
    again = Fusion.from_dict(json.loads(json.dumps(fitted().as_dict())))
    assert again == fitted()
    distance, evidence, _, _ = drawn(500, 8)
    found = [one.probability(distance, evidence).tobytes() for one in (again, fitted())]
    assert found[0] == found[1]


def test_the_same_pairs_give_the_same_fusion():
    distance, evidence, copy, _ = drawn(1000, 9)
    assert fit_fusion(distance, evidence, copy) == fit_fusion(distance.copy(), evidence.copy(), copy.copy())


@pytest.mark.parametrize("short_of", ["copies", "others", "alignments", "pairs in vain", "everything"])
def test_too_few_copies(short_of):
    distance, evidence, copy, _ = drawn(600, 10)
    aligned = evidence[:, AT["inliers"]] > 0
    rows = {
        "copies": ~copy | (np.cumsum(copy) < LEAST_COPIES),
        "others": copy | (np.cumsum(~copy) < LEAST_COPIES),
        "alignments": ~aligned | ~copy,
        "pairs in vain": aligned,
        "everything": np.zeros(600, bool),
    }[short_of]
    with pytest.raises(ValueError, match=f"expected at least {LEAST_COPIES} of each"):
        fit_fusion(distance[rows], evidence[rows], copy[rows])


def test_just_enough_copies():
    random = np.random.default_rng(0)
    count = 4 * LEAST_COPIES
    evidence = random.uniform(0.1, 1, (count, len(EVIDENCE))).astype(np.float32)
    evidence[: count // 2, AT["inliers"]] = 0
    model = fit_fusion(random.random(count), evidence, np.arange(count) % 2 == 0)
    assert np.isfinite(model.probability(random.random(count), evidence)).all()


def test_quantities_that_never_change_do_no_harm():
    _, evidence, copy, _ = drawn(2000, 11)
    assert (evidence[:, AT["area_query"]] == 0).all()
    model = fit_fusion(np.ones(2000), evidence, copy)
    assert np.isfinite(model.probability(np.ones(2000), evidence)).all()
    assert model.probability(np.ones(2000))[0] == pytest.approx(copy.mean(), abs=0.01)


def spoilt(*path: str | int, value: object = None, gone: bool = False) -> dict[str, object]:
    """The fusion's dict with one value replaced, or taken out."""
    values = copies.deepcopy(fitted().as_dict())
    place = functools.reduce(lambda found, key: found[key], path[:-1], values)
    if gone:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return values


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        spoilt("aligned", gone=True),
        spoilt("aligned", "bias", gone=True),
        spoilt("aligned", "bias", value="high"),
        spoilt("aligned", "bias", value=math.nan),
        spoilt("aligned", value=3),
        spoilt("aligned", "curves", gone=True),
        spoilt("aligned", "curves", value=[]),
        spoilt("aligned", "curves", value=None),
        spoilt("aligned", "curves", "inliers", gone=True),
        spoilt("aligned", "curves", "inliers", value=None),
        spoilt("aligned", "curves", "inliers", "knots", gone=True),
        spoilt("aligned", "curves", "inliers", "knots", value=[]),
        spoilt("aligned", "curves", "inliers", "rises", value=["x"]),
        spoilt("aligned", "curves", "colour", value={"knots": [0, 1], "rises": [1]}),
        spoilt("unaligned", "curves", "distance", value={"knots": [1, 0], "rises": [1]}),
        spoilt("by_distance", "curves", "distance", value={"knots": [0], "rises": []}),
        spoilt("by_distance", "curves", "distance", value={"knots": [0, 1], "rises": [math.inf]}),
        spoilt("by_distance", "curves", "distance", value={"knots": [0, 1], "rises": [5]}),  # a copy for being far
    ],
)
def test_dicts_that_are_no_fusion(values):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Fusion.from_dict(values)
