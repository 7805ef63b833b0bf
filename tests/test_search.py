"""Exact search against the slow definition: all distances in float64, sorted with the positions."""

from __future__ import annotations

import contextlib
import random
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.gpu.checks import equal_search
from isc.config.choices import Engine
from isc.data.descriptors import Descriptors
from isc.data.matches import Matches
from isc.errors import InputError
from isc.search import exact
from isc.search import running_best as kept
from isc.search.exact import best_pairs, knn, nearest
from isc.search.kernels import numpy_kernel as kernels
from isc.search.kernels.device_search import cuda_devices
from isc.search.kernels.faiss_kernel import faiss_gpus
from isc.search.kernels.numpy_kernel import squared_distances

Pair = tuple[int, int]
ENGINES = [Engine.numpy, Engine.torch, Engine.torch_half, Engine.faiss, Engine.faiss_half]

TILED = [Engine.numpy, Engine.faiss, Engine.faiss_half]  # with a kernel that scores tiles


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
APART = sets(np.eye(8)[:3, :8], np.eye(8)[3:])


@settings(max_examples=120, deadline=None)
@given(grid_sets(), st.integers(1, 84), st.sampled_from([1, 3, 7, 1 << 22]), st.sampled_from(ENGINES))
@example(EQUAL, 5, 1, Engine.numpy)
@example(EQUAL, 39, 7, Engine.faiss)
@example(APART, 7, 1 << 22, Engine.torch_half)
def test_best_pairs_with_ties_is_the_slow_twin(both, num_pairs, cells, engine):
    queries, references = both
    num_pairs = min(num_pairs, len(queries) * len(references))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "TILE", cells)
        found = best_pairs(queries, references, num_pairs=num_pairs, engine=engine)
    assert_same(found, slow_best(queries, references, num_pairs))


@settings(max_examples=120, deadline=None)
@given(grid_sets(), st.integers(1, 14), st.sampled_from([1, 3, 30, 1 << 22]), st.sampled_from(ENGINES))
@example(EQUAL, 1, 1, Engine.numpy)
@example(EQUAL, 4, 30, Engine.torch)
def test_knn_with_ties_is_the_slow_twin(both, k, cells, engine):
    queries, references = both
    k = min(k, len(references))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "TILE", cells)
        found = knn(queries, references, k=k, engine=engine)
    assert_same(found, slow_knn(queries, references, k))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("num_queries", [1, 25])
@pytest.mark.parametrize("seed", range(2))
def test_random_vectors(num_queries, seed, engine):
    rng = np.random.default_rng(seed)
    queries, references = sets(rng.normal(size=(num_queries, 16)), rng.normal(size=(60, 16)))
    for number in (1, 10, num_queries * 10, num_queries * 59):
        found = best_pairs(queries, references, num_pairs=number, engine=engine)
        assert_same(found, slow_best(queries, references, number))
    for k in (1, 9, 59, 60):
        assert_same(knn(queries, references, k=k, engine=engine), slow_knn(queries, references, k))


def unit(rng: np.random.Generator, num: int, dim: int) -> np.ndarray:
    vectors = rng.normal(size=(num, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_every_engine_gives_the_same_bytes(engine):
    """Vectors of unit length, several tiles, lists longer than faiss's first; wanted more than 2,048 of one query."""
    rng = np.random.default_rng(4)
    queries, references = sets(unit(rng, 30, 24), unit(rng, 5000, 24))
    for number in (1, 3_000, 40_000):
        here = best_pairs(queries, references, num_pairs=number, engine=Engine.numpy)
        there = best_pairs(queries, references, num_pairs=number, engine=engine)
        assert pairs(here) == pairs(there)
        assert here.score.tobytes() == there.score.tobytes()
    one = descriptors(queries.vectors[:1])
    for k in (10, 3000):
        here, there = (knn(one, references, k=k, engine=which) for which in (Engine.numpy, engine))
        assert pairs(here) == pairs(there)


@pytest.mark.parametrize("cells", [1, 5, 64, 1000])
@pytest.mark.parametrize("threads", [1, 3])
def test_result_does_not_depend_on_blocks_or_threads(cells, threads, monkeypatch):
    rng = np.random.default_rng(5)
    queries, references = sets(rng.normal(size=(40, 8)), rng.normal(size=(90, 8)))
    best, near = best_pairs(queries, references, num_pairs=400), knn(queries, references, k=7)
    monkeypatch.setattr(exact, "TILE", cells)
    monkeypatch.setattr(exact, "cores", lambda: threads)
    for whole, split in (
        (best, best_pairs(queries, references, num_pairs=400)),
        (near, knn(queries, references, k=7)),
    ):
        assert pairs(split) == pairs(whole)
        assert split.score.tobytes() == whole.score.tobytes()


@pytest.mark.parametrize("engine", ENGINES)
def test_little_memory_for_many_near_ties(engine, monkeypatch):
    """Capacity for hardly more than is wanted: what waits is settled again and again."""
    monkeypatch.setattr(exact, "TILE", 64)
    monkeypatch.setattr(exact, "PAIR", 1)
    rng = np.random.default_rng(17)
    base = rng.normal(size=(1, 8))
    queries, references = sets(base + 1e-7 * rng.normal(size=(12, 8)), base + 1e-7 * rng.normal(size=(150, 8)))
    found = best_pairs(queries, references, num_pairs=90, memory_gb=2e-5, engine=engine)
    assert_same(found, slow_best(queries, references, 90))


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


@pytest.mark.parametrize("sizes", [(1, 39), (40,), (7, 7, 7, 7, 7, 5)])
def test_a_stream_of_queries_gives_what_they_give_at_once(sizes):
    rng = np.random.default_rng(18)
    for queries, references in (
        sets(rng.normal(size=(40, 8)), rng.normal(size=(90, 8))),
        sets(rng.integers(-1, 2, (40, 2)), rng.integers(-1, 2, (90, 2))),
    ):
        ends = np.cumsum(sizes)
        stream = (
            Descriptors(queries.ids[end - size : end], queries.vectors[end - size : end])
            for size, end in zip(sizes, ends, strict=True)
        )
        whole = best_pairs(queries, references, num_pairs=150)
        heard: list[tuple[int, int]] = []
        split = best_pairs(stream, references, num_pairs=150, progress=lambda *told: heard.append(told))  # noqa: B023
        assert pairs(split) == pairs(whole)
        assert split.score.tobytes() == whole.score.tobytes()
        assert list(split.query_ids) == list(whole.query_ids)
        assert heard[-1] == (3600, 3600)


@pytest.mark.filterwarnings("error")
def test_references_may_be_a_memory_map(tmp_path):
    rng = np.random.default_rng(19)
    queries, references = sets(rng.normal(size=(20, 8)), rng.normal(size=(90, 8)))
    references.vectors.tofile(tmp_path / "r.f32")
    mapped = np.memmap(tmp_path / "r.f32", np.float32, "r").reshape(90, 8)
    on_disk = Descriptors(references.ids, mapped)
    assert np.shares_memory(on_disk.vectors, mapped)
    whole = pairs(best_pairs(queries, references, num_pairs=50))
    for engine in ENGINES:
        assert pairs(best_pairs(queries, on_disk, num_pairs=50, engine=engine)) == whole


# --- the best pairs may all be one query's ---------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rich", [0, 11, 39])
@pytest.mark.parametrize("cells", [3, 1 << 22])
def test_one_query_owns_all_the_best_pairs(rich, cells, engine, monkeypatch):
    """40 queries, 80 pairs wanted: two a query would cut; one query lies among all the references."""
    monkeypatch.setattr(exact, "TILE", cells)
    rng = np.random.default_rng(7)
    references = rng.integers(-3, 4, (90, 3))
    queries = rng.integers(-3, 4, (40, 3)) + 100
    queries[rich] = 0
    found = best_pairs(*sets(queries, references), num_pairs=80, engine=engine)
    assert set(found.query.tolist()) == {rich}
    assert_same(found, slow_best(*sets(queries, references), 80))


def test_two_rich_queries_share_with_ties_at_the_cut():
    """Q1 and Q3 tie with all six references; the cut at 8 takes all of Q1 and the first two of Q3."""
    queries = [[9.0, 9], [0, 0], [9, 9], [0, 0], [9, 9]]
    references = [[1.0, 0], [0, 1], [-1, 0], [0, -1], [1, 0], [0, 1]]
    found = best_pairs(*sets(queries, references), num_pairs=8)
    assert pairs(found) == [(1, j) for j in range(6)] + [(3, 0), (3, 1)]
    assert set(found.score.tolist()) == {-1.0}


@pytest.mark.parametrize("engine", ENGINES)
def test_all_distances_equal_still_give_num_pairs(engine):
    """A search with a strict radius would give nothing here."""
    queries, references = sets(np.eye(8)[:4], np.eye(8)[4:])
    found = best_pairs(queries, references, num_pairs=6, engine=engine)
    assert pairs(found) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    assert found.score.tolist() == [-2.0] * 6


def test_a_million_identical_pairs_are_not_all_compared_twice(monkeypatch):
    """Once the last kept distance is 0 nothing later can come in; only the first blocks are scored from differences."""
    compared = []

    def counting(queries, references, query, reference):
        compared.append(len(query))
        return squared_distances(queries, references, query, reference)

    monkeypatch.setattr(kept, "squared_distances", counting)
    monkeypatch.setattr(exact, "TILE", 1 << 14)
    monkeypatch.setattr(exact, "PAIR", 2000)
    queries, references = sets(np.ones((500, 4)), np.ones((2000, 4)))
    found = best_pairs(queries, references, num_pairs=300, memory_gb=0.02)
    assert pairs(found) == [(0, j) for j in range(300)]
    near = knn(queries, references, k=2, memory_gb=0.02)
    assert pairs(near)[:4] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert sum(compared) < 1_100_000  # of two million


@settings(max_examples=150, deadline=None)
@given(grid_sets(), st.integers(1, 12), st.integers(1, 3), st.randoms(use_true_random=False))
@example(EQUAL, 2, 1, random.Random(4))  # reference 1 comes after 0 and 2
@example(EQUAL, 3, 2, random.Random(1))
def test_what_is_kept_does_not_depend_on_the_order_of_the_blocks(both, wanted, width, order):
    """As threads finish: a block of later references may come first, and lists of zeros be full by then."""
    queries, references = both
    true = -0.5 * ((queries.vectors[:, None] - references.vectors) ** 2).sum(axis=2)
    starts = list(range(0, len(references), width))
    order.shuffle(starts)
    total, k = min(wanted, true.size), min(wanted, len(references))
    for best in (kept.BestPairs(total, 1000), kept.BestOfEach(k, 1000, len(queries))):
        best.begin(0, queries.vectors, references.vectors)
        for start in starts:
            block = true[:, start : start + width].astype(np.float32)
            row, column = np.nonzero(block >= best.least_scores(slice(0, len(queries)), start)[:, None])
            best.offer(row, column + start, block[row, column])
            best.settle()
        found = list(zip(best.distance.tolist(), best.query.tolist(), best.reference.tolist(), strict=True))
        expected = slow_best(*both, total) if isinstance(best, kept.BestPairs) else slow_knn(*both, k)
        assert sorted(found) == expected


# --- memory ----------------------------------------------------------------------------------------------------------


def all_tie(rows: int, at: int) -> np.ndarray:
    return np.tile(np.eye(8)[at], (rows, 1))


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("memory_gb", [0.03, 0.1])
@pytest.mark.parametrize("ties", [False, True])
def test_memory_is_kept(ties, memory_gb, threads, monkeypatch):
    """Also where every pair is as good as any, and all are let through."""
    monkeypatch.setattr(exact, "cores", lambda: threads)
    rng = np.random.default_rng(20)
    queries, references = (
        sets(all_tie(100, 0), all_tie(9_000, 1))
        if ties
        else sets(rng.normal(size=(600, 8)), rng.normal(size=(30_000, 8)))
    )
    for find in (
        lambda: best_pairs(queries, references, num_pairs=60_000, memory_gb=memory_gb),
        lambda: nearest(queries.vectors, references.vectors, k=100, memory_gb=memory_gb),
    ):
        tracemalloc.start()
        find()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= memory_gb * 1e9


def test_too_little_memory_is_told():
    queries, references = sets(np.zeros((1000, 2)), np.zeros((1000, 2)))
    with pytest.raises(InputError, match=r"memory_gb=0\.01: num_pairs=100000 needs 0\.0\d+; expected more memory"):
        best_pairs(queries, references, num_pairs=100_000, memory_gb=0.01)
    with pytest.raises(InputError, match=r"memory_gb=0.0: expected a size above 0"):
        knn(queries, references, k=1, memory_gb=0.0)


# --- edges -----------------------------------------------------------------------------------------------------------


def test_more_pairs_than_there_are():
    queries, references = sets([[0.0, 0], [1, 0]], [[0.0, 1], [5, 5], [2, 2]])
    for number in (5, 6):
        assert_same(best_pairs(queries, references, num_pairs=number), slow_best(queries, references, number))
    for some in (queries, iter([queries])):
        with pytest.raises(InputError, match="num_pairs=7: there are 6 pairs; expected at most that many"):
            best_pairs(some, references, num_pairs=7)


def test_k_straddles_the_number_of_references():
    queries, references = sets([[0.0], [4.0]], [[3.0], [1.0], [2.0]])
    for k in (2, 3):
        assert_same(knn(queries, references, k=k), slow_knn(queries, references, k))
    with pytest.raises(InputError, match="k=4: there are 3 references; expected at most that many"):
        knn(queries, references, k=4)
    row, distance = nearest(queries.vectors, references.vectors, k=9)
    assert row.tolist() == [[1, 2, 0], [0, 2, 1]]
    assert distance.tolist() == [[1, 4, 9], [1, 4, 9]]


@pytest.mark.parametrize("engine", ENGINES)
def test_without_references_there_are_no_nearest_ones(engine):
    some, none = np.eye(3, 5, dtype=np.float32), np.empty((0, 5), np.float32)
    for queries, shape in ((some, (3, 0)), (none, (0, 0))):
        row, distance = nearest(queries, none, k=4, engine=engine)
        assert (row.shape, row.dtype, distance.shape, distance.dtype) == (shape, np.int64, shape, np.float64)
    row, distance = nearest(none, some, k=4, engine=engine)
    assert row.shape == distance.shape == (0, 3)
    with pytest.raises(InputError, match="k=0; expected at least 1"):
        nearest(some, none, k=0, engine=engine)


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


@pytest.mark.parametrize("threads", [1, 4])
def test_progress_rises_and_ends_with_all_done(threads, monkeypatch):
    monkeypatch.setattr(exact, "TILE", 20)
    monkeypatch.setattr(exact, "cores", lambda: threads)
    rng = np.random.default_rng(9)
    queries, references = sets(rng.integers(-2, 3, (15, 2)), rng.integers(-2, 3, (40, 2)))
    for find in (
        lambda told: best_pairs(queries, references, num_pairs=50, progress=told),
        lambda told: knn(queries, references, k=3, progress=told),
    ):
        heard: list[tuple[int, int]] = []
        find(lambda done, total: heard.append((done, total)))  # noqa: B023  called at once
        assert heard[-1] == (600, 600)
        assert heard == sorted(heard)
        assert len(heard) > 10


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_an_error_in_one_thread_ends_all(failing, threads, monkeypatch):
    """30 tiles; whichever thread meets it, the other ends with the tile at hand."""
    monkeypatch.setattr(exact, "TILE", 20)
    monkeypatch.setattr(exact, "cores", lambda: threads)
    queries, references = sets(np.zeros((15, 2)), np.zeros((40, 2)))
    calls = []

    def stop(done, total):
        calls.append(done)
        if len(calls) == failing:
            raise KeyboardInterrupt
        time.sleep(0.02)  # so that the other thread is still at work

    with pytest.raises(KeyboardInterrupt):
        best_pairs(queries, references, num_pairs=50, progress=stop)
    assert len(calls) <= failing + 3


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
    if kind == "unit":
        return unit(rng, num, 48)
    if kind == "tiny":
        return 1e-6 * unit(rng, num, 48)
    return np.abs(rng.normal(size=(num, 48))) * 10.0 ** rng.integers(-6, 7, (1, 48))  # one coordinate drowns the rest


KINDS = ["large norms", "near duplicates", "near duplicates far out", "mixed norms", "mixed coordinates"]


def made(engine: Engine) -> kernels.Kernel:
    return exact._engine(engine, 1.0, None)[0]


@pytest.mark.parametrize("kind", [*KINDS, "unit", "tiny"])
@pytest.mark.parametrize("engine", TILED)
def test_a_tile_keeps_its_promises(kind, engine):
    """Scores within the bound of the true ones, nothing above the threshold missing, `nth` reached by so many."""
    rng = np.random.default_rng(10)
    references = nasty(kind, rng, 300).astype(np.float32)
    queries = references[rng.permutation(300)[:40]] * np.float32(1 + 1e-7)
    kernel = made(engine)
    kernel.load(queries)
    true = -0.5 * ((queries[:, None].astype(np.float64) - references) ** 2).sum(axis=2)
    prepared = kernel.prepare(references, 0)
    tile = kernel.tile(slice(5, 40), prepared, 0)
    own = true[5:40]
    row, column, score = tile.above(np.full(35, -np.inf, np.float32))
    assert set(zip(row.tolist(), column.tolist(), strict=True)) == {(i, j) for i in range(35) for j in range(300)}
    assert np.abs(score - own[row, column]).max() <= tile.error
    for count in (1, 37, 3000):
        tile = kernel.tile(slice(5, 40), prepared, 0)
        least = tile.nth(count)
        assert np.count_nonzero(own + tile.error >= least) >= count
    tile = kernel.tile(slice(5, 40), prepared, 0)
    least = tile.nth_of_rows(9)
    assert (np.count_nonzero(own + tile.error >= least[:, None], axis=1) >= 9).all()
    for finished in (True, False):
        one = tile if finished else kernel.tile(slice(5, 40), prepared, 0)
        row, column, score = one.above(least)
        found = set(zip(row.tolist(), column.tolist(), strict=True))
        assert np.abs(score - own[row, column]).max() <= one.error
        sure = own - one.error > least[:, None]
        assert {(int(i), int(j)) for i, j in zip(*np.nonzero(sure), strict=True)} <= found
    tile = kernel.tile(slice(5, 40), prepared, 0)
    assert len(tile.above(np.full(35, np.inf, np.float32))[0]) == 0


def test_nth_of_a_small_tile_is_unknown():
    for engine in TILED:
        kernel = made(engine)
        kernel.load(np.ones((2, 3), np.float32))
        tile = kernel.tile(slice(0, 2), kernel.prepare(np.ones((3, 3), np.float32), 0), 0)
        assert tile.nth(7) is None
        assert tile.nth_of_rows(4) is None


def test_expansion_error_by_hand():
    """D = 1, u = 2⁻²⁴: γ_4 · (3 + 1)² / 2."""
    gamma = 4 * 2.0**-24 / (1 - 4 * 2.0**-24)
    assert kernels.expansion_error(1, 3.0, 1.0) == pytest.approx(8 * gamma, rel=1e-12)


@pytest.mark.parametrize("engine", [Engine.numpy, Engine.torch, Engine.faiss])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_queries", [3, 30])
def test_search_is_exact_where_float32_is_not(kind, num_queries, engine):
    """float32 alone orders these by noise."""
    rng = np.random.default_rng(11)
    references = nasty(kind, rng, 120).astype(np.float32)
    chosen = references[rng.permutation(120)[:num_queries]]
    queries, references = sets(chosen * np.float32(1 + 2e-7), references)
    distance = ((queries.vectors[:, None].astype(np.float64) - references.vectors) ** 2).sum(axis=2)
    best = np.sort(distance, axis=None)
    for number in (2, 10 * num_queries):
        found = best_pairs(queries, references, num_pairs=number, engine=engine)
        np.testing.assert_allclose(-found.score, best[:number].astype(np.float32), rtol=1e-6)
        assert len(set(pairs(found))) == number
    near = knn(queries, references, k=4, engine=engine)
    expected = np.sort(np.sort(distance, axis=1)[:, :4], axis=None)
    np.testing.assert_allclose(-near.score, expected.astype(np.float32), rtol=1e-6)


class Erring:
    """A kernel that errs by up to its bound each way, and at ties prefers the last reference."""

    workers, columns = 2, 5
    session = staticmethod(contextlib.nullcontext)

    def __init__(self, error: float, seed: int) -> None:
        self.error, self.rng = error, np.random.default_rng(seed)

    def load(self, queries):
        self.queries = queries.astype(np.float64)

    def rows(self, columns):
        return 2

    def prepare(self, references, worker):
        return references

    def tile(self, queries, prepared, worker):
        score = -0.5 * ((self.queries[queries, None] - prepared) ** 2).sum(axis=2)
        own = self.rng.spawn(1)[0]
        return ErringTile(
            (score + self.error * own.choice([-1.0, 0.0, 1.0], score.shape)).astype(np.float32), self.error
        )


class ErringTile:
    def __init__(self, score, error):
        self.score, self.error = score, error

    def nth(self, count):
        return float(np.sort(self.score, axis=None)[-count]) if count <= self.score.size else None

    def nth_of_rows(self, count):
        return np.sort(self.score, axis=1)[:, -count] if count <= self.score.shape[1] else None

    def above(self, least):
        row, column = (part[::-1] for part in np.nonzero(self.score >= least[:, None]))
        return row, column, self.score[row, column]


@settings(max_examples=80, deadline=None)
@given(grid_sets(), st.integers(1, 40), st.sampled_from([0.0, 0.25, 1.5]), st.integers(0, 99))
@example(sets(np.zeros((3, 2)), np.zeros((13, 2))), 5, 0.0, 0)
@example(EQUAL, 5, 0.5, 0)
def test_exact_with_the_worst_kernel_the_bound_allows(both, number, error, seed):
    queries, references = both
    number = min(number, len(queries) * len(references))
    k = min(number, len(references))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_engine", lambda *_: (Erring(error, seed), 400 * number * exact.PAIR))
        best = best_pairs(queries, references, num_pairs=number)
        near = knn(queries, references, k=k)
    assert_same(best, slow_best(queries, references, number))
    assert_same(near, slow_knn(queries, references, k))


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


@pytest.mark.parametrize("engine", ENGINES)
def test_vectors_too_long_for_float32_are_refused(engine):
    queries, references = sets(np.full((2, 3), 1e19), np.full((2, 3), -1e19))
    with pytest.raises(InputError, match=r"descriptors are .* long"):
        best_pairs(queries, references, num_pairs=1, engine=engine)


# --- GPU -------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not (cuda_devices() or faiss_gpus()), reason="neither torch nor faiss sees a GPU")
@pytest.mark.parametrize("engine", ENGINES[1:])
def test_gpu_finds_what_the_cpu_finds(engine):
    assert equal_search(engine)
