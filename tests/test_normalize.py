"""Each step against its formula written out pair by pair, over all queries together; and what is refused."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isc.config.chain import STEPS, Chain, Pca, Score, SSquare, Stretch, Subtract, Whiten, parse
from isc.data.descriptors import Descriptors
from isc.errors import InputError
from isc.match.inputs import shared_rows
from isc.search.exact import best_pairs
from isc.search.normalize.fitted import fit, require_unit
from isc.search.normalize.transforms import Training, dim_of, form, unit

DIM = 6
CHAINS = [
    "none",
    "pca",
    "pca:dim=3",
    "whiten",
    "whiten:dim=4,ridge=0.1",
    "subtract",
    "subtract:smooth=false",
    "score",
    "stretch",
    "ssquare:neighbours=20",
    "pca:dim=5+score",
    "whiten+subtract",
    "whiten+subtract+stretch",
    "subtract+subtract+ssquare:neighbours=7",
]


def named(prefix, vectors):
    return Descriptors([f"{prefix}{i}" for i in range(len(vectors))], np.asarray(vectors, np.float32))


def three(seed=0, *, dim=DIM, queries=7, references=9, training=30):
    """Unit vectors that lean to one side, as descriptors of photos do."""
    rng = np.random.default_rng(seed)
    sets = (("Q", queries), ("R", references), ("T", training))
    return tuple(named(letter, unit(rng.normal(size=(count, dim)) + 0.3)) for letter, count in sets)


def normalized(text, queries, references, training):
    fitted = fit(parse(text), training)
    return fitted.queries(queries), fitted.references(references)


def plain(descriptors):
    return descriptors.vectors.astype(np.float64)


def nearest_rows(x, training, k):
    return sorted(training, key=lambda t: -float(x @ t))[:k]


def bias(x, training, k):
    return float(np.mean([x @ t for t in nearest_rows(x, training, k)]))


def one(x):
    return x / math.sqrt(x @ x)


# --- the formulae, as papers give them: the score of a pair, higher is more alike ------------------------------------


def score_formula(q, r, training):
    return q @ r - 1.0 * bias(q, training, 3)


def stretch_formula(q, r, training):
    a = 2.5 * max(bias(q, training, 5), 1e-3)
    return 2 * a * (q @ r) - a * a


def ssquare_formula(q, r, training):
    mean_cosine = max(bias(q, training, 3), 0)
    away = one(np.mean([one(q - t) for t in nearest_rows(q, training, 20)], axis=0))
    apart = (q - r) @ (q - r)
    return -(apart + 1.8**2 * mean_cosine + 2 * 1.8 * math.sqrt(mean_cosine) * (away @ (q - r)))


def subtract_formula(q, r, training, smooth=False):
    if smooth:
        training = [one(sum((t @ n) ** 3 * n for n in nearest_rows(t, training, 10))) for t in training]

    def near(x):
        return np.mean(nearest_rows(x, training, 10), axis=0)

    w, nq, nr = 0.35, near(q), near(r)
    return (q @ r - w * (nq @ r + q @ nr) + w * w * (nq @ nr)) / (
        math.sqrt((q - w * nq) @ (q - w * nq)) * math.sqrt((r - w * nr) @ (r - w * nr))
    )


def centred_cosine(q, r, training):
    mean = np.mean(training, axis=0)
    return one(q - mean) @ one(r - mean)


def mahalanobis_cosine(q, r, training):
    covariance = np.cov(np.array(training), rowvar=False)
    metric = np.linalg.inv(covariance + 1e-3 * np.linalg.eigvalsh(covariance).max() * np.eye(DIM))
    q, r = q - np.mean(training, axis=0), r - np.mean(training, axis=0)
    return (q @ metric @ r) / math.sqrt((q @ metric @ q) * (r @ metric @ r))


FORMULAE = {
    "score": score_formula,
    "stretch": stretch_formula,
    "ssquare:neighbours=20": ssquare_formula,
    "subtract:smooth=false": subtract_formula,
    "subtract": lambda q, r, training: subtract_formula(q, r, training, smooth=True),
    "pca": centred_cosine,
    "whiten": mahalanobis_cosine,
}


@pytest.mark.parametrize("text", FORMULAE)
@pytest.mark.parametrize("seed", range(3))
def test_distance_ranks_all_pairs_as_the_formula_does(text, seed):
    given_sets = three(seed)
    queries, references, training = (list(plain(one)) for one in given_sets)
    scores = {
        (i, j): FORMULAE[text](q, r, training)
        for (i, q), (j, r) in itertools.product(*map(enumerate, (queries, references)))
    }
    found = best_pairs(*normalized(text, *given_sets), num_pairs=len(scores))
    ranked = [scores[pair] for pair in zip(found.query.tolist(), found.reference.tolist(), strict=True)]
    assert all(one >= two - 1e-6 for one, two in itertools.pairwise(ranked))  # ties and rounding aside
    before = best_pairs(*given_sets[:2], num_pairs=len(scores))
    assert list(zip(before.query, before.reference, strict=True)) != list(
        zip(found.query, found.reference, strict=True)
    )


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_score_by_hand():
    """q = (0.6, 0.8), training (1, 0) and (0, 1): b = 0.7, so the third number is √(2 · 0.5 · 1.7)."""
    training = named("t", [[1, 0], [0, 1]])
    q, r = normalized("score:weight=0.5,neighbours=2", named("q", [[0.6, 0.8]]), named("r", [[1, 0]]), training)
    np.testing.assert_allclose(q.vectors, [[0.6, 0.8, math.sqrt(1.7)]], rtol=1e-6)
    np.testing.assert_allclose(r.vectors, [[1, 0, 0]])


@given(st.integers(0, 99), st.floats(0, 10), st.integers(1, 12))
def test_score_is_exact_for_any_weight(seed, weight, neighbours):
    """‖q' − r'‖² = 2 + 2β − 2 (q·r − β b(q))."""
    queries, references, training = three(seed, training=12)
    q, r = normalized(f"score:weight={weight:.3f},neighbours={neighbours}", queries, references, training)
    beta = round(weight, 3)
    for x, after in zip(plain(queries), plain(q), strict=True):
        b = bias(x, list(plain(training)), neighbours)
        for y, other in zip(plain(references), plain(r), strict=True):
            assert (after - other) @ (after - other) == pytest.approx(2 + 2 * beta - 2 * (x @ y - beta * b), abs=1e-5)


def test_stretch_by_hand():
    """q = (0.6, 0.8), training (1, 0) and (0, 1): mean cosine 0.7, so the length becomes 1.75."""
    step, training = Stretch(neighbours=2), Training(np.eye(2, dtype=np.float32))
    np.testing.assert_allclose(
        form(step, training).queries(np.array([[0.6, 0.8]], np.float32)), [[1.05, 1.4]], rtol=1e-6
    )
    # an opposite neighbour: the cosine is cut off, the query shrinks but keeps its direction
    opposite = Training(np.array([[-1, 0]], np.float32))
    found = form(Stretch(neighbours=1), opposite).queries(np.array([[1, 0]], np.float32))
    np.testing.assert_allclose(found, [[0.0025, 0]], rtol=1e-6)


def test_ssquare_by_hand():
    """q = (1, 0), training (0, 1): b = 0 leaves q. q = (0.6, 0.8): b = 0.8, u = unit(0.6, −0.2)."""
    training = Training(np.array([[0, 1]], np.float32))
    found = form(SSquare(nearest=1, neighbours=1), training).queries(np.array([[1, 0], [0.6, 0.8]], np.float32))
    push = 1.8 * math.sqrt(0.8) / math.hypot(0.6, 0.2)
    np.testing.assert_allclose(found, [[1, 0], [0.6 + push * 0.6, 0.8 - push * 0.2]], rtol=1e-5)


def test_subtract_by_hand():
    """e = (1, 0), one training vector (0, 1): unit(1, −0.35)."""
    length = math.sqrt(1 + 0.35**2)
    training = Training(np.array([[0, 1]], np.float32))
    found = form(Subtract(neighbours=1), training).queries(np.array([[1, 0]], np.float32))
    np.testing.assert_allclose(found, [[1 / length, -0.35 / length]], rtol=1e-6)


def test_smoothing_by_hand():
    """(1, 0) and (0.6, 0.8), cosine 0.6: the first becomes unit((1, 0) + 0.216 · (0.6, 0.8))."""
    smoothed = Training(np.array([[1, 0], [0.6, 0.8]], np.float32)).smoothed.vectors
    np.testing.assert_allclose(smoothed[0], one(np.array([1 + 0.216 * 0.6, 0.216 * 0.8])), rtol=1e-6)


@pytest.mark.parametrize("dim", [2, 4, 6])
def test_whitened_training_has_unit_covariance_before_it_is_scaled(dim):
    training = Training(three(training=60)[2].vectors)
    mean, values, directions = training.axes
    white = (training.vectors - mean) @ directions[:, :dim] / np.sqrt(values[:dim])
    np.testing.assert_allclose(np.cov(white, rowvar=False), np.eye(dim), atol=1e-9)
    assert (np.diff(values) <= 0).all()
    found = form(Whiten(dim=dim, ridge=0.0), training).references(training.vectors)
    np.testing.assert_allclose(found, unit(white), atol=1e-6)


def test_pca_keeps_the_directions_of_most_variance():
    rng = np.random.default_rng(4)
    training = named("t", rng.normal(size=(200, 3)) * [0.1, 5, 1])
    found = fit(Chain((Pca(dim=2),)), training).queries(named("q", [[0, 5, 0], [0, 0, 5], [5, 0, 0]])).vectors
    assert abs(found[0, 0]) > 0.99
    assert abs(found[1, 1]) > 0.98


# --- chains ----------------------------------------------------------------------------------------------------------


def test_a_chain_fits_each_step_on_what_the_steps_before_leave():
    queries, references, training = three()
    whitened = normalized("whiten", queries, references, training)
    left = fit(parse("whiten"), training).references(training)
    for one_step, two_steps in zip(
        normalized("stretch", *whitened, left), normalized("whiten+stretch", queries, references, training), strict=True
    ):
        np.testing.assert_allclose(two_steps.vectors, one_step.vectors, atol=1e-6)


def test_a_training_vector_is_not_subtracted_from_itself():
    """What subtract leaves of a training photo is what it would make of it, had it not been among them."""
    training = three(training=12)[2]
    left = form(Subtract(smooth=False), Training(training.vectors)).training().vectors
    for row in range(len(training)):
        others = Training(np.delete(training.vectors, row, axis=0))
        alone = form(Subtract(smooth=False), others).queries(training.vectors[[row]])
        np.testing.assert_allclose(left[[row]], alone, atol=1e-6)


def test_neighbours_looked_up_at_once_are_those_looked_up_each_time():
    queries, _, training = three()
    remembering, fresh = Training(training.vectors, keep=9), Training(training.vectors)
    for k in (2, 9, 1, 12, 5):
        for one_list, other in zip(remembering.near(queries.vectors, k), fresh.near(queries.vectors, k), strict=True):
            assert (one_list == other).all()


@pytest.mark.parametrize("text", CHAINS)
def test_each_row_is_treated_alone(text):
    """The challenge's rule: no descriptor depends on other queries, other references, or their order."""
    queries, references, training = three(5)
    whole = normalized(text, queries, references, training)
    turned = [Descriptors(one.ids[::-1], one.vectors[::-1]) for one in (queries, references)]
    for before, after in zip(whole, normalized(text, *turned, training), strict=True):
        np.testing.assert_allclose(after.vectors[::-1], before.vectors, rtol=0, atol=1e-6)
    for row in range(7):
        single = [Descriptors(one.ids[[row]], one.vectors[[row]]) for one in (queries, references)]
        for before, after in zip(whole, normalized(text, *single, training), strict=True):
            np.testing.assert_allclose(after.vectors[0], before.vectors[row], rtol=0, atol=1e-6)
            assert after.ids[0] == before.ids[row]


@pytest.mark.parametrize("text", CHAINS)
def test_the_order_of_training_does_not_matter(text):
    queries, references, training = three(6)
    turned = Descriptors(training.ids[::-1], training.vectors[::-1])
    here, there = normalized(text, queries, references, training), normalized(text, queries, references, turned)
    for one_set, other in zip(here, there, strict=True):  # the sign of a direction is free
        np.testing.assert_allclose(plain(one_set) @ plain(one_set).T, plain(other) @ plain(other).T, atol=1e-5)


@pytest.mark.parametrize("text", CHAINS)
def test_arguments_are_left_alone_and_lengths_are_what_they_are_said_to_be(text):
    sets = three(7)
    before = [one_set.vectors.copy() for one_set in sets]
    queries, references = normalized(text, *sets)
    assert all((one_set.vectors == was).all() for one_set, was in zip(sets, before, strict=True))
    chain = parse(text)
    assert queries.dim == references.dim == dim_of(chain, DIM)
    assert queries.vectors.dtype == references.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(references.vectors, axis=1), 1, atol=1e-6)
    if not chain.steps or not chain.steps[-1].FINAL:
        np.testing.assert_allclose(np.linalg.norm(queries.vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "dim", "expected"),
    [("pca", 300, 256), ("whiten", 100, 100), ("whiten:dim=9", 300, 9), ("score", 256, 257), ("stretch", 512, 512),
     ("pca:dim=255+score", 512, 256), ("none", 512, 512)],
)  # fmt: skip
def test_how_many_dimensions_come_out(text, dim, expected):
    assert dim_of(parse(text), dim) == expected


# --- refusals of the mathematics -------------------------------------------------------------------------------------


TOO_LITTLE = {
    "pca of too few": ("pca", three(training=4), "4 training descriptors span 3 dimensions; pca expected 6"),
    "whiten of too few": ("whiten:dim=4", three(training=4), "or whiten:dim=3"),
    "a longer pca": ("pca:dim=7", three(), "the descriptors have 6 dimensions"),
    "subtract": ("subtract", three(training=9), "9 training descriptors; expected at least 10"),
    "ssquare": ("ssquare", three(), "30 training descriptors; expected at least 100"),
    "score": ("score:neighbours=31", three(), "30 training descriptors; expected at least 31"),
    "one": ("whiten", three(training=1), "1 training descriptors span 0 dimensions"),
}


@pytest.mark.parametrize(("text", "sets", "message"), TOO_LITTLE.values(), ids=TOO_LITTLE)
def test_a_training_set_that_is_too_small_is_refused(text, sets, message):
    with pytest.raises(InputError, match=message):
        normalized(text, *sets)


def test_training_without_variance_is_refused():
    queries, references, training = three()
    same = Descriptors(training.ids, np.repeat(training.vectors[:1], len(training), axis=0))
    with pytest.raises(InputError, match="30 training descriptors span 0 dimensions"):
        normalized("whiten", queries, references, same)


@pytest.mark.parametrize("text", ["score", "stretch", "ssquare:neighbours=9", "subtract", "subtract+score"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_other_lengths_than_one_are_refused_by_row_and_id(text, which):
    sets = list(three())
    sets[which] = named("X", np.r_[sets[which].vectors[:-1], 2 * sets[which].vectors[-1:]])
    with pytest.raises(InputError, match=r"row \d+: id 'X\d+' has length 2; expected unit length, or pca or whiten"):
        normalized(text, *sets)
    normalized("whiten", *sets)
    normalized("pca+subtract", *sets)


def test_a_vector_at_the_mean_stays_finite():
    training = named("t", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    found = fit(parse("pca+stretch:neighbours=2"), training).queries(named("q", training.vectors.mean(axis=0)[None]))
    assert np.isfinite(found.vectors).all()


def test_unit_length_is_unit_length():
    require_unit(three()[0])


# --- the text --------------------------------------------------------------------------------------------------------


def a_step():
    share = st.floats(1e-3, 10, allow_nan=False)
    count = st.integers(1, 500)
    dim = st.none() | st.integers(2, 256)
    early = st.one_of(
        st.builds(Pca, dim), st.builds(Whiten, dim, share), st.builds(Subtract, share, count, st.booleans())
    )
    last = st.one_of(
        st.builds(Score, share, count), st.builds(Stretch, share, count), st.builds(SSquare, share, count, count)
    )
    return st.tuples(st.lists(early, max_size=3), st.lists(last, max_size=1)).map(
        lambda pair: Chain((*pair[0], *pair[1]))
    )


@given(a_step())
def test_a_chain_is_its_text(chain):
    assert parse(str(chain)) == chain
    assert not set(str(chain)) & set(" ()[]{}$*?;&|<>'\"\\")  # nothing that a shell would take for itself


def test_what_is_not_given_has_its_published_value():
    assert parse("none") == Chain()
    assert str(parse("whiten+score")) == "whiten:ridge=0.001+score:weight=1,neighbours=3"
    assert parse("subtract:neighbours=7") == Chain((Subtract(0.35, 7, smooth=True),))
    assert set(STEPS) == {"pca", "whiten", "score", "stretch", "ssquare", "subtract"}


WRONG = {
    "witen": "unknown step 'witen'.*did you mean whiten",
    "magic": "unknown step 'magic'; expected none, model, a FILE.json, or steps",
    "pca++score": "unknown step ''",
    "none+score": "unknown step 'none'",
    "+": "unknown step ''",
    "Score": "did you mean score",
    "score:wieght=1": "score:wieght=1: unknown option 'wieght'.*did you mean weight",
    "score:": "unknown option ''",
    "score:weight": "score:weight: expected each option once",
    "score:weight=1,weight=2": "weight=2: expected each option once",
    "score:weight=-1": "score:weight=-1.*a number in 0…10",
    "score:weight=11": "a number in 0…10",
    "score:weight=nan": "a number in 0…10",
    "score:weight=1_0": "a number in 0…10",
    "score:weight=": "a number in 0…10",
    "score:weight=1.2.3": "a number in 0…10",
    "score:neighbours=0": "a whole number in 1…100000",
    "score:neighbours=2.5": "a whole number in 1…100000",
    "pca:dim=1": "pca:dim=1: expected a whole number in 2…65536",
    "whiten:ridge=inf": "a number in 0…100",
    "subtract:smooth=yes": "subtract:smooth=yes: expected true or false",
    "score+pca": "pca follows score; expected score to come last",
    "stretch+stretch": "expected stretch to come last",
    "pca dim=3": "unknown step 'pca dim=3'",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_text_is_refused_by_name(text):
    with pytest.raises(InputError, match=WRONG[text]) as caught:
        parse(text)
    assert str(caught.value).startswith(f"normalize={text}: ")
    assert "\n" not in str(caught.value)


def test_values_of_the_wrong_kind_are_refused_in_python_too():
    for wrong in (
        lambda: Score(weight="1"),
        lambda: Score(neighbours=2.0),
        lambda: Subtract(smooth=1),
        lambda: Pca(dim=True),
        lambda: Whiten(ridge=math.nan),
    ):
        with pytest.raises(InputError, match="expected"):
            wrong()


# --- training photos that are queries or references ------------------------------------------------------------------


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.lists(st.integers(0, 30), min_size=1, max_size=8))
def test_the_first_shared_row_is_found(ours, theirs):
    vectors = np.random.default_rng(0).normal(size=(31, 5)).astype(np.float32)
    one_set, other = named("a", vectors[ours]), named("b", vectors[theirs])
    shared = [(row, theirs.index(value)) for row, value in enumerate(ours) if value in theirs]
    assert shared_rows(one_set, other) == shared
