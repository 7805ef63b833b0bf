"""Exact search against the slow definition: all distances in float64, sorted with the positions."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isc import search
from isc.descriptors import Descriptors, Matches
from isc.errors import InputError
from isc.search import best_pairs, expansion_error, knn, squared_distances

Pair = tuple[int, int]
ON_GPU = hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() > 0


def descriptors(vectors: object, letter: str = "Q") -> Descriptors:
    array = np.asarray(vectors, np.float32)
    return Descriptors([f"{letter}{i}" for i in range(len(array))], array)


def sets(queries: object, references: object) -> tuple[Descriptors, Descriptors]:
    return descriptors(queries), descriptors(references, "R")


def pairs(matches: Matches) -> list[Pair]:
    return list(zip(matches.query.tolist(), matches.reference.tolist(), strict=True))


def all_pairs(queries: Descriptors, references: Descriptors) -> list[tuple[float, int, int]]:
    """(distance, query, reference) of every pair, nearest first; at equal distances in the order of the rows."""
    return sorted(
        (sum((float(a) - float(b)) ** 2 for a, b in zip(q, r, strict=True)), i, j)
        for i, q in enumerate(queries.vectors)
        for j, r in enumerate(references.vectors)
    )


def slow_best(queries: Descriptors, references: Descriptors, num_pairs: int) -> list[tuple[float, int, int]]:
    return all_pairs(queries, references)[:num_pairs]


def slow_knn(queries: Descriptors, references: Descriptors, k: int) -> list[tuple[float, int, int]]:
    ordered = all_pairs(queries, references)
    kept = [p for i in range(len(queries)) for p in [pair for pair in ordered if pair[1] == i][:k]]
    return sorted(kept)


def assert_same(found: Matches, expected: list[tuple[float, int, int]]) -> None:
    """The very same pairs in the very same order, scored by the float32 nearest to minus the distance."""
    assert pairs(found) == [(i, j) for _, i, j in expected]
    np.testing.assert_allclose(found.score, [-d for d, _, _ in expected], rtol=2e-7, atol=0)
    assert found.score.dtype == np.float32


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_three_points_on_a_line():
    queries, references = sets([[0.0], [10.0]], [[1.0], [3.0], [10.0]])
    # squared distances: Q0 1 9 100, Q1 81 49 0
    found = best_pairs(queries, references, num_pairs=3)
    assert pairs(found) == [(1, 2), (0, 0), (0, 1)]
    assert found.score.tolist() == [0.0, -1.0, -9.0]
    assert list(found.query_ids) == ["Q0", "Q1"]
    assert list(found.reference_ids) == ["R0", "R1", "R2"]
    found = knn(queries, references, k=2)
    assert pairs(found) == [(1, 2), (0, 0), (0, 1), (1, 1)]
    assert found.score.tolist() == [0.0, -1.0, -9.0, -49.0]


def test_squared_distances_by_hand():
    queries, references = np.float32([[0, 0], [1, 2]]), np.float32([[3, 4], [1, 2], [0, 2]])
    found = squared_distances(queries, references, np.array([0, 1, 1, 0]), np.array([0, 1, 2, 2]))
    assert found.tolist() == [25.0, 0.0, 1.0, 4.0]


# --- against the slow twin -------------------------------------------------------------------------------------------


@st.composite
def grid_sets(draw) -> tuple[Descriptors, Descriptors]:
    """Small whole coordinates: distances are exact, and ties and duplicates abound."""
    dim = draw(st.integers(1, 3))
    row = st.lists(st.integers(-2, 2), min_size=dim, max_size=dim)
    return sets(draw(st.lists(row, min_size=1, max_size=6)), draw(st.lists(row, min_size=1, max_size=14)))


EQUAL = sets(np.ones((3, 2)), np.ones((13, 2)))


@settings(max_examples=80, deadline=None)
@given(grid_sets(), st.integers(1, 100), st.sampled_from([1, 3, 7, 1 << 24]))
@example(EQUAL, 5, 1)
@example(EQUAL, 39, 7)
def test_best_pairs_with_ties_is_the_slow_twin(both, num_pairs, cells):
    queries, references = both
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "LIST_CELLS", cells)
        found = best_pairs(queries, references, num_pairs=num_pairs)
    assert_same(found, slow_best(queries, references, num_pairs))


@settings(max_examples=80, deadline=None)
@given(grid_sets(), st.integers(1, 20), st.sampled_from([1, 3, 30, 1 << 24]))
@example(EQUAL, 1, 1)
@example(EQUAL, 4, 30)
def test_knn_with_ties_is_the_slow_twin(both, k, cells):
    queries, references = both
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "LIST_CELLS", cells)
        found = knn(queries, references, k=k)
    assert_same(found, slow_knn(queries, references, k))


@pytest.mark.parametrize("num_queries", [1, 7, 25])  # faiss takes another path from 20 queries on
@pytest.mark.parametrize("seed", range(3))
def test_random_vectors(num_queries, seed):
    rng = np.random.default_rng(seed)
    queries, references = sets(rng.normal(size=(num_queries, 16)), rng.normal(size=(60, 16)))
    for number in (1, 10, num_queries * 10, num_queries * 59):
        assert_same(best_pairs(queries, references, num_pairs=number), slow_best(queries, references, number))
    for k in (1, 9, 59, 60):
        assert_same(knn(queries, references, k=k), slow_knn(queries, references, k))


@pytest.mark.parametrize("cells", [1, 2, 5, 64, 1000])
def test_result_does_not_depend_on_blocks(cells, monkeypatch):
    rng = np.random.default_rng(5)
    queries, references = sets(rng.normal(size=(40, 8)), rng.normal(size=(90, 8)))
    best, near = best_pairs(queries, references, num_pairs=400), knn(queries, references, k=7)
    monkeypatch.setattr(search, "LIST_CELLS", cells)
    for whole, split in (
        (best, best_pairs(queries, references, num_pairs=400)),
        (near, knn(queries, references, k=7)),
    ):
        assert pairs(split) == pairs(whole)
        assert split.score.tobytes() == whole.score.tobytes()


def test_result_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(6)
    queries, references = sets(rng.normal(size=(30, 8)), rng.normal(size=(50, 8)))
    turned, moved = rng.permutation(30), rng.permutation(50)
    other = (
        Descriptors(queries.ids[turned], queries.vectors[turned]),
        Descriptors(references.ids[moved], references.vectors[moved]),
    )
    for find in (lambda q, r: best_pairs(q, r, num_pairs=200), lambda q, r: knn(q, r, k=5)):
        here, there = find(queries, references), find(*other)
        name = [here.pair(row) for row in range(len(here))]
        assert name == [there.pair(row) for row in range(len(there))]
        assert here.score.tobytes() == there.score.tobytes()


# --- the best pairs may all be one query's ---------------------------------------------------------------------------


@pytest.mark.parametrize("rich", [0, 11, 39])
@pytest.mark.parametrize("cells", [3, 1 << 24])
def test_one_query_owns_all_the_best_pairs(rich, cells, monkeypatch):
    """40 queries, 80 pairs wanted: two a query would cut; one query lies among all the references."""
    monkeypatch.setattr(search, "LIST_CELLS", cells)
    rng = np.random.default_rng(7)
    references = rng.integers(-3, 4, (90, 3))
    queries = rng.integers(-3, 4, (40, 3)) + 100
    queries[rich] = 0
    found = best_pairs(*sets(queries, references), num_pairs=80)
    assert set(found.query.tolist()) == {rich}
    assert_same(found, slow_best(*sets(queries, references), 80))


def test_two_rich_queries_share_with_ties_at_the_cut():
    """Q1 and Q3 tie with all six references; the cut at 8 takes all of Q1 and the first two of Q3."""
    queries = [[9.0, 9], [0, 0], [9, 9], [0, 0], [9, 9]]
    references = [[1.0, 0], [0, 1], [-1, 0], [0, -1], [1, 0], [0, 1]]
    found = best_pairs(*sets(queries, references), num_pairs=8)
    assert pairs(found) == [(1, j) for j in range(6)] + [(3, 0), (3, 1)]
    assert set(found.score.tolist()) == {-1.0}


def test_all_distances_equal_still_give_num_pairs():
    """A search with a strict radius would give nothing here."""
    queries, references = sets(np.eye(8)[:4], np.eye(8)[4:])
    found = best_pairs(queries, references, num_pairs=6)
    assert pairs(found) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    assert found.score.tolist() == [-2.0] * 6


# --- edges -----------------------------------------------------------------------------------------------------------


def test_more_pairs_than_there_are():
    queries, references = sets([[0.0, 0], [1, 0]], [[0.0, 1], [5, 5], [2, 2]])
    for number in (5, 6, 7, 10**9):
        expected = slow_best(queries, references, number)
        assert len(expected) == min(6, number)
        assert_same(best_pairs(queries, references, num_pairs=number), expected)


def test_k_straddles_the_number_of_references():
    queries, references = sets([[0.0], [4.0]], [[3.0], [1.0], [2.0]])
    for k in (2, 3, 4, 10**6):
        found = knn(queries, references, k=k)
        assert len(found) == 2 * min(k, 3)
        assert_same(found, slow_knn(queries, references, k))


def test_one_query_one_reference():
    queries, references = sets([[1.0, 2]], [[4.0, 6]])
    for found in (best_pairs(queries, references, num_pairs=1), knn(queries, references, k=1)):
        assert pairs(found) == [(0, 0)]
        assert found.score.tolist() == [-25.0]


def test_identical_vectors_score_exactly_plus_zero():
    rng = np.random.default_rng(8)
    vectors = (1e3 * rng.normal(size=(30, 64))).astype(np.float32)
    for find in (lambda q, r: best_pairs(q, r, num_pairs=30), lambda q, r: knn(q, r, k=1)):
        found = find(*sets(vectors, vectors))
        assert pairs(found) == [(i, i) for i in range(30)]
        assert (found.score == 0).all()
        assert not np.signbit(found.score).any()


def test_ids_travel_and_arguments_stay():
    queries, references = sets([[0.0, 1]], [[0.0, 1], [1, 0]])
    before = queries.vectors.copy(), references.vectors.copy()
    best_pairs(queries, references, num_pairs=2)
    knn(queries, references, k=2)
    assert (queries.vectors == before[0]).all()
    assert (references.vectors == before[1]).all()


def test_progress_rises_and_ends_with_all_done(monkeypatch):
    monkeypatch.setattr(search, "LIST_CELLS", 20)
    rng = np.random.default_rng(9)
    queries, references = sets(rng.integers(-2, 3, (15, 2)), rng.integers(-2, 3, (40, 2)))
    for find in (
        lambda told: best_pairs(queries, references, num_pairs=50, progress=told),
        lambda told: knn(queries, references, k=3, progress=told),
    ):
        heard: list[tuple[int, int]] = []
        find(lambda done, total: heard.append((done, total)))  # noqa: B023  called at once
        assert heard[-1][0] == heard[-1][1] >= 15
        assert heard == sorted(heard)
        assert all(0 <= done <= total for done, total in heard)


# --- rounding --------------------------------------------------------------------------------------------------------


def nasty(kind: str, rng: np.random.Generator, num: int) -> np.ndarray:
    base = rng.normal(size=(1, 48))
    if kind == "large norms":
        return rng.normal(size=(num, 48)) * 1e15
    if kind == "near duplicates":
        return base + 1e-6 * rng.normal(size=(num, 48))
    if kind == "near duplicates far out":
        return 1e4 * base + 1e-2 * rng.normal(size=(num, 48))
    if kind == "mixed norms":
        return rng.normal(size=(num, 48)) * 10.0 ** rng.integers(-6, 7, (num, 1))
    return np.abs(rng.normal(size=(num, 48))) * 10.0 ** rng.integers(-6, 7, (1, 48))  # one coordinate drowns the rest


KINDS = ["large norms", "near duplicates", "near duplicates far out", "mixed norms", "mixed coordinates"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_queries", [3, 40])
def test_expansion_error_bounds_what_faiss_computes(kind, num_queries):
    rng = np.random.default_rng(10)
    references = nasty(kind, rng, 200).astype(np.float32)
    queries = references[rng.permutation(200)[:num_queries]] * np.float32(1 + 1e-7)
    computed, row = faiss.knn(queries, references, 200)
    exact = ((queries[:, None].astype(np.float64) - references[row]) ** 2).sum(axis=2)
    worst = np.abs(computed.astype(np.float64) - exact).max()
    assert worst <= expansion_error(queries, references)


def test_expansion_error_by_hand():
    """D = 1, u = 2⁻²⁴: γ_4 · (3 + 1)²."""
    gamma = 4 * 2.0**-24 / (1 - 4 * 2.0**-24)
    assert expansion_error(np.float32([[-3], [2]]), np.float32([[1]])) == pytest.approx(16 * gamma, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_queries", [3, 30])
def test_search_is_exact_where_float32_is_not(kind, num_queries):
    """faiss alone orders these by noise."""
    rng = np.random.default_rng(11)
    references = nasty(kind, rng, 120).astype(np.float32)
    chosen = references[rng.permutation(120)[:num_queries]]
    queries, references = sets(chosen * np.float32(1 + 2e-7), references)
    distance = ((queries.vectors[:, None].astype(np.float64) - references.vectors) ** 2).sum(axis=2)
    best = np.sort(distance, axis=None)
    for number in (2, 10 * num_queries):
        found = best_pairs(queries, references, num_pairs=number)
        np.testing.assert_allclose(-found.score, best[:number].astype(np.float32), rtol=1e-6)
        assert len(set(pairs(found))) == number
    near = knn(queries, references, k=4)
    expected = np.sort(np.sort(distance, axis=1)[:, :4], axis=None)
    np.testing.assert_allclose(-near.score, expected.astype(np.float32), rtol=1e-6)


@settings(max_examples=80, deadline=None)
@given(grid_sets(), st.integers(1, 40), st.sampled_from([0.0, 0.5, 1.5]), st.integers(0, 99))
@example(sets(np.zeros((3, 2)), np.zeros((13, 2))), 5, 0.0, 0)
@example(EQUAL, 5, 0.5, 0)
def test_exact_with_the_worst_helper_the_bound_allows(both, number, error, seed):
    """Instead of faiss a helper that errs by up to `error` each way and at ties prefers the last reference."""
    rng = np.random.default_rng(seed)

    def helper(queries, references, k):
        distance = ((queries[:, None].astype(np.float64) - references) ** 2).sum(axis=2)
        distance += error * rng.choice([-1.0, 0.0, 1.0], distance.shape)
        row = np.argsort(distance[:, ::-1], axis=1, kind="stable")[:, :k]
        row = len(references) - 1 - row
        return np.take_along_axis(distance, row, axis=1).astype(np.float32), row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_faiss_knn", helper)
        patch.setattr(search, "expansion_error", lambda *_: error)
        best = best_pairs(*both, num_pairs=number)
        k = min(number, len(both[1]))  # and no wider lists than asked for, to begin with
        query, reference, distance = search._complete_lists(both[0].vectors, both[1].vectors, k, k, None)
    assert_same(best, slow_best(*both, number))
    near = sorted(zip(distance.tolist(), query.tolist(), reference.tolist(), strict=True))
    assert near == slow_knn(*both, number)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_refusals():
    queries, references = sets(np.zeros((2, 3)), np.zeros((2, 4)))
    for find in (lambda q, r, n: best_pairs(q, r, num_pairs=n), lambda q, r, n: knn(q, r, k=n)):
        with pytest.raises(InputError, match=r"3 dimensions and references 4"):
            find(queries, references, 1)
    for number in (0, -1):
        with pytest.raises(InputError, match=rf"k={number}; expected at least 1"):
            knn(queries, queries, k=number)
        with pytest.raises(InputError, match=rf"num_pairs={number}; expected at least 1"):
            best_pairs(queries, queries, num_pairs=number)


# --- GPU -------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="this faiss sees no GPU")
def test_gpu_finds_what_the_cpu_finds(monkeypatch):
    rng = np.random.default_rng(12)
    for queries, references in (
        sets(rng.normal(size=(50, 64)), rng.normal(size=(3000, 64))),
        sets(rng.integers(-2, 3, (50, 3)), rng.integers(-2, 3, (3000, 3))),
    ):
        gpu = best_pairs(queries, references, num_pairs=500), knn(queries, references, k=10)
        with monkeypatch.context() as patch:
            patch.setattr(search, "GPU_MAX_K", 0)
            cpu = best_pairs(queries, references, num_pairs=500), knn(queries, references, k=10)
        for here, there in zip(gpu, cpu, strict=True):
            assert pairs(here) == pairs(there)
            assert here.score.tobytes() == there.score.tobytes()
