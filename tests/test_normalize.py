"""Each normalisation against its formula written out vector by vector."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isc.config import Normalize
from isc.descriptors import Descriptors
from isc.errors import InputError
from isc.normalize import fit_whitening, normalize, stretch, subtract, whiten
from isc.search import best_pairs

Vector = list[float]


def unit(rng: np.random.Generator, num: int, dim: int, letter: str) -> Descriptors:
    vectors = rng.normal(size=(num, dim)) + 0.3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Descriptors([f"{letter}{i}" for i in range(num)], vectors.astype(np.float32))


def three(seed: int = 0, dim: int = 6, training: int = 30) -> tuple[Descriptors, Descriptors, Descriptors]:
    rng = np.random.default_rng(seed)
    return unit(rng, 7, dim, "Q"), unit(rng, 9, dim, "R"), unit(rng, training, dim, "T")


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def scaled_to_one(a: Vector) -> Vector:
    return [x / math.sqrt(dot(a, a)) for x in a]


def by_cosine(x: Vector, training: list[Vector], k: int) -> list[Vector]:
    return sorted(training, key=lambda t: -dot(x, t))[:k]


def slow_subtract(x: Vector, training: list[Vector]) -> Vector:
    near = by_cosine(x, training, 10)
    mean = [sum(column) / len(near) for column in zip(*near, strict=True)]
    return scaled_to_one([a - 0.35 * m for a, m in zip(x, mean, strict=True)])


def slow_stretch(x: Vector, training: list[Vector]) -> Vector:
    near = by_cosine(x, training, 5)
    cosine = sum(dot(x, t) for t in near) / len(near)
    return [2.5 * max(cosine, 1e-3) * a for a in x]


@pytest.mark.parametrize("num_training", [1, 4, 5, 9, 10, 11, 30])
def test_subtract_is_its_formula(num_training):
    queries, references, training = three(training=num_training)
    plain = training.vectors.tolist()
    new_queries, new_references = normalize(Normalize.subtract, queries, references, training)
    for before, after in ((queries, new_queries), (references, new_references)):
        np.testing.assert_allclose(after.vectors, [slow_subtract(x, plain) for x in before.vectors.tolist()], atol=2e-6)
        assert list(after.ids) == list(before.ids)


@pytest.mark.parametrize("num_training", [1, 4, 5, 6, 30])
def test_stretch_is_its_formula_and_leaves_references(num_training):
    queries, references, training = three(training=num_training)
    plain = training.vectors.tolist()
    new_queries, new_references = normalize(Normalize.stretch, queries, references, training)
    np.testing.assert_allclose(
        new_queries.vectors, [slow_stretch(x, plain) for x in queries.vectors.tolist()], atol=2e-6
    )
    assert (new_references.vectors == references.vectors).all()


def test_subtract_by_hand():
    """e = (1, 0), one training vector (0, 1): unit(1, −0.35)."""
    length = math.sqrt(1 + 0.35**2)
    found = subtract(Descriptors(["q"], [[1.0, 0.0]]), Descriptors(["t"], [[0.0, 1.0]]))
    np.testing.assert_allclose(found.vectors, [[1 / length, -0.35 / length]], rtol=1e-6)


def test_stretch_by_hand():
    """q = (0.6, 0.8), training (1, 0) and (0, 1): mean cosine 0.7, so the length becomes 1.75."""
    training = Descriptors(["s", "t"], [[1.0, 0.0], [0.0, 1.0]])
    found = stretch(Descriptors(["q"], [[0.6, 0.8]]), training)
    np.testing.assert_allclose(found.vectors, [[1.05, 1.4]], rtol=1e-6)
    # two opposite neighbours: the cosine is clipped, the query shrinks but keeps its direction
    found = stretch(Descriptors(["q"], [[1.0, 0.0]]), Descriptors(["t"], [[-1.0, 0.0]]))
    np.testing.assert_allclose(found.vectors, [[0.0025, 0.0]], rtol=1e-6)


def test_stretched_distances_rank_as_the_formula():
    """‖aq − r‖² = a² + 1 − 2a q·r for unit r: rank all pairs by 2a q·r − a² and compare."""
    queries, references, training = three(3, dim=8)
    new_queries, new_references = normalize(Normalize.stretch, queries, references, training)
    found = best_pairs(new_queries, new_references, num_pairs=63)
    a = [2.5 * sum(dot(q, t) for t in by_cosine(q, training.vectors.tolist(), 5)) / 5 for q in queries.vectors.tolist()]
    score = {
        (i, j): 2 * a[i] * dot(q, r) - a[i] ** 2
        for i, q in enumerate(queries.vectors.tolist())
        for j, r in enumerate(references.vectors.tolist())
    }
    order = sorted(score, key=lambda pair: -score[pair])
    assert list(zip(found.query.tolist(), found.reference.tolist(), strict=True)) == order
    np.testing.assert_allclose(found.score, [score[pair] - 1 for pair in order], atol=1e-5)
    raw = best_pairs(queries, references, num_pairs=63)
    assert list(zip(raw.query.tolist(), raw.reference.tolist(), strict=True)) != order  # and it does something


def test_whiten_is_its_formula():
    queries, references, training = three(training=40)
    x = training.vectors.astype(np.float64)
    mean = x.sum(axis=0) / 40
    covariance = sum(np.outer(row - mean, row - mean) for row in x) / 39
    values, directions = np.linalg.eigh(covariance)
    for before, after in zip((queries, references), normalize(Normalize.whiten, queries, references, training)):  # noqa: B905
        # the sign of an eigenvector is free, so distances are compared
        slow = (before.vectors - mean) @ directions / np.sqrt(values + 1e-3 * values.max())
        slow /= np.linalg.norm(slow, axis=1, keepdims=True)
        np.testing.assert_allclose(after.vectors @ after.vectors.T, slow @ slow.T, atol=2e-5)


@pytest.mark.parametrize("dim", [1 + 1, 4, 6])
def test_whitened_training_has_unit_covariance(dim):
    *_, training = three(training=60)
    mean, projection = fit_whitening(training, dim=dim, ridge=0.0)
    assert projection.shape == (6, dim)
    white = (training.vectors - mean) @ projection
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(white, rowvar=False), np.eye(dim), atol=1e-4)


def test_whitening_keeps_the_directions_of_most_variance():
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(200, 3)) * [0.1, 5.0, 1.0]
    _, projection = fit_whitening(Descriptors([str(i) for i in range(200)], vectors), dim=2)
    assert np.abs(projection).argmax(axis=0).tolist() == [1, 2]


def test_ridge_quiets_directions_without_variance():
    """Training on a line: without a ridge the other direction would be divided by zero."""
    training = Descriptors(["a", "b", "c"], [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    mean, projection = fit_whitening(training, dim=2)
    assert np.isfinite(projection).all()
    # variance 1 along x: 1/√1.001 there and 1/√0.001 across
    np.testing.assert_allclose(np.abs(projection), [[1 / math.sqrt(1.001), 0], [0, 1 / math.sqrt(0.001)]], rtol=1e-4)
    np.testing.assert_allclose(mean, [2, 0])


@pytest.mark.parametrize(("dim", "expected"), [(2, 2), (255, 255), (256, 256), (257, 256), (300, 256)])
def test_whitening_stays_within_256_dimensions(dim, expected):
    queries, references, training = three(dim=dim, training=12)
    for found in normalize(Normalize.whiten, queries, references, training):
        assert found.dim == expected


@pytest.mark.parametrize("method", [Normalize.whiten, Normalize.subtract])
def test_lengths_stay_one(method):
    for found in normalize(method, *three(training=20)):
        np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
        assert found.vectors.dtype == np.float32


@pytest.mark.parametrize("method", list(Normalize))
def test_each_row_is_treated_alone(method):
    """The challenge's rule: a query's descriptor does not depend on the other queries, nor a reference's."""
    queries, references, training = three(5, dim=16)
    new_queries, new_references = normalize(method, queries, references, training)
    for row in range(len(queries)):
        alone, beside = normalize(
            method,
            Descriptors(queries.ids[[row]], queries.vectors[[row]]),
            Descriptors(references.ids[[row]], references.vectors[[row]]),
            training,
        )
        np.testing.assert_allclose(alone.vectors[0], new_queries.vectors[row], rtol=0, atol=5e-7)
        np.testing.assert_allclose(beside.vectors[0], new_references.vectors[row], rtol=0, atol=5e-7)


@pytest.mark.parametrize("method", list(Normalize))
def test_the_order_of_training_does_not_matter(method):
    queries, references, training = three(6)
    turned = np.random.default_rng(6).permutation(len(training))
    other = Descriptors(training.ids[turned], training.vectors[turned])
    here, there = normalize(method, queries, references, training), normalize(method, queries, references, other)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(a.vectors @ a.vectors.T, b.vectors @ b.vectors.T, atol=1e-5)


@pytest.mark.parametrize("method", list(Normalize))
def test_arguments_are_left_alone(method):
    given = three(7)
    before = [d.vectors.copy() for d in given]
    normalize(method, *given)
    assert all((d.vectors == b).all() for d, b in zip(given, before, strict=True))


def test_none_changes_nothing():
    queries, references, training = three()
    found = normalize(Normalize.none, queries, references, training)
    assert (found[0].vectors == queries.vectors).all()
    assert (found[1].vectors == references.vectors).all()


def test_one_training_row_is_too_few_to_whiten():
    with pytest.raises(InputError, match="1 training descriptors; whitening expects at least 2"):
        normalize(Normalize.whiten, *three(training=1))


@pytest.mark.parametrize("method", list(Normalize))
def test_dimensions_must_agree(method):
    queries, references, training = three()
    wider = three(dim=7)[2]
    with pytest.raises(InputError, match="dimensions"):
        normalize(method, queries, references, wider)
    with pytest.raises(InputError, match="dimensions"):
        normalize(method, queries, wider, training)


def test_a_vector_at_the_mean_stays_finite():
    training = Descriptors(["a", "b"], [[1.0, 0.0], [0.0, 1.0]])
    mean, projection = fit_whitening(training, dim=2)
    found = whiten(Descriptors(["q"], mean[None]), mean, projection)
    assert np.isfinite(found.vectors).all()


def test_whitening_of_one_dimension():
    training = Descriptors(["a", "b"], [[1.0], [3.0]])  # mean 2, variance 2
    mean, projection = fit_whitening(training, dim=1, ridge=0.0)
    assert mean.tolist() == [2]
    assert abs(projection[0, 0]) == pytest.approx(1 / math.sqrt(2))


def test_training_without_variance_is_refused_by_name():
    queries, references, training = three()
    same = Descriptors(training.ids, np.repeat(training.vectors[:1], len(training), axis=0))
    with pytest.raises(InputError, match="training"):
        normalize(Normalize.whiten, queries, references, same)
