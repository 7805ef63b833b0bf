"""Pairs of images by the best of their rows, against the slow definition: all pairs of rows, the least, sorted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isc.data.descriptors import Descriptors
from isc.errors import InputError
from isc.search import multi_view as image_search
from isc.search.approximate.index import Approximate
from isc.search.approximate.pairs import approximate_pairs
from isc.search.exact import best_pairs, knn
from isc.search.multi_view import best_image_pairs, nearest_images

Found = tuple[float, int, int, int, int]  # distance, query image, reference image, and the rows that gave it


def seen(vectors, images, letter="Q", *, views=True) -> Descriptors:
    """Rows of the images of these numbers, in any order."""
    names = [f"v{row}" for row in range(len(images))]
    ids = [f"{letter}{image}" for image in images] if views else [f"{letter}{row}" for row in range(len(images))]
    return Descriptors(ids, np.asarray(vectors, np.float32), np.array(names, dtype=object) if views else None)


def slow(queries: Descriptors, references: Descriptors) -> list[Found]:
    """Every pair of images with its nearest pair of rows, best first."""
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    q_images, r_images = list(dict.fromkeys(queries.ids)), list(dict.fromkeys(references.ids))
    for i, q in enumerate(queries.vectors):
        for j, r in enumerate(references.vectors):
            distance = sum((float(a) - float(b)) ** 2 for a, b in zip(q, r, strict=True))
            pair = (q_images.index(queries.ids[i]), r_images.index(references.ids[j]))
            best[pair] = min(best.get(pair, (np.inf, 0, 0)), (distance, i, j))
    return sorted((distance, *pair, i, j) for pair, (distance, i, j) in best.items())


def slow_nearest(queries: Descriptors, references: Descriptors, k: int) -> list[Found]:
    ordered = slow(queries, references)
    return sorted(one for image in range(len(queries.images)) for one in [o for o in ordered if o[1] == image][:k])


def assert_same(found, expected: list[Found]) -> None:
    matches = found.matches
    got = zip(*(part.tolist() for part in (matches.query, matches.reference)), strict=True)
    assert list(got) == [(q, r) for _, q, r, _, _ in expected]
    np.testing.assert_allclose(matches.score, [-d for d, *_ in expected], rtol=2e-7, atol=0)
    assert matches.score.dtype == np.float32
    rows = zip(found.query_row.tolist(), found.reference_row.tolist(), strict=True)
    assert list(rows) == [(i, j) for *_, i, j in expected]


@st.composite
def grid_sets(draw) -> tuple[Descriptors, Descriptors]:
    """Whole coordinates, so that ties and duplicates abound; views on either side or both, rows in any order."""
    sides = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    dim = draw(st.integers(1, 2))
    sets = []
    for letter, views in zip("QR", sides, strict=True):
        row = st.lists(st.integers(-1, 1), min_size=dim, max_size=dim)
        vectors = draw(st.lists(row, min_size=1, max_size=10))
        images = draw(st.lists(st.integers(0, 3), min_size=len(vectors), max_size=len(vectors)))
        sets.append(seen(vectors, images, letter, views=views))
    return sets[0], sets[1]


EQUAL = seen(np.ones((8, 2)), [0, 0, 1, 1, 2, 2, 3, 3]), seen(np.ones((12, 2)), [0, 1, 2, 3] * 3, "R")
# the two best pairs of rows are (0, 2) and (1, 0); (1, 1), as near, belongs to an earlier reference than the first
CROSSED = seen([[0, 0], [10, 0]], [0, 0]), seen([[10, 1], [10, -1], [0, 1]], [0, 1, 2], "R")


def test_three_photos_on_a_line_by_hand():
    # rows of a lie at 0 and 10, of b at 4; of x at 1 and 11, of y at 9
    queries = Descriptors(["a", "b", "a"], [[0], [4], [10]], ["whole", "whole", "flip"])
    references = Descriptors(["x", "x", "y"], [[1], [11], [9]], ["whole", "flip", "whole"])
    found = best_image_pairs(queries, references, num_pairs=4)
    assert [found.matches.pair(row) for row in range(4)] == ["a,x", "a,y", "b,x", "b,y"]
    assert found.matches.score.tolist() == [-1, -1, -9, -25]
    assert queries.views[found.query_row].tolist() == ["whole", "flip", "whole", "whole"]  # of two at 1 the first row
    assert references.views[found.reference_row].tolist() == ["whole", "whole", "whole", "whole"]
    found = nearest_images(queries, references, k=1)
    assert [found.matches.pair(row) for row in range(2)] == ["a,x", "b,x"]


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(grid_sets(), st.integers(1, 40), st.sampled_from([(1, 0), (1, 1), (4, 8)]))
@example(EQUAL, 5, (1, 0))
@example(CROSSED, 2, (1, 0))
@example(EQUAL, 16, (1, 0))
def test_best_pairs_of_images_with_ties_are_the_slow_twin(both, num_pairs, first):
    queries, references = both
    expected = slow(queries, references)
    num_pairs = min(num_pairs, len(expected))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_search, "MOST_AT_FIRST", first[0])
        patch.setattr(image_search, "MARGIN", first[1])
        found = best_image_pairs(queries, references, num_pairs=num_pairs)
    assert_same(found, expected[:num_pairs])


@settings(max_examples=250, deadline=None)
@given(grid_sets(), st.integers(1, 10), st.sampled_from([0, 1, 8]))
@example(EQUAL, 1, 0)
@example(CROSSED, 2, 0)
@example(EQUAL, 3, 0)
def test_nearest_images_with_ties_are_the_slow_twin(both, k, margin):
    queries, references = both
    k = min(k, len(references.images))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_search, "MARGIN", margin)
        patch.setattr(image_search.ImageRows, "rows_an_image", 1)  # the shortest lists that could do
        found = nearest_images(queries, references, k=k)
    assert_same(found, slow_nearest(queries, references, k))


@pytest.mark.parametrize("rows_each", [1, 2, 7])
def test_random_vectors(rows_each):
    rng = np.random.default_rng(rows_each)
    queries = seen(rng.normal(size=(20, 8)), rng.permutation(np.repeat(np.arange(20), rows_each)[:20]))
    references = seen(rng.normal(size=(42, 8)), rng.permutation(np.repeat(np.arange(42), rows_each)[:42]), "R")
    expected = slow(queries, references)
    for number in (1, len(expected) // 3, len(expected)):
        assert_same(best_image_pairs(queries, references, num_pairs=number), expected[:number])
    for k in (1, len(references.images)):
        assert_same(nearest_images(queries, references, k=k), slow_nearest(queries, references, k))


def test_a_pair_behind_many_rows_of_better_ones_is_found():
    """One pair of images holds the 900 best pairs of rows."""
    copies, far = np.zeros((30, 2)), np.full((1, 2), 3.0)
    queries = seen(np.r_[copies, far], [0] * 30 + [1])
    references = seen(np.r_[copies, far * 2], [0] * 30 + [1], "R")
    asked = []

    def find(q, r, count):
        asked.append(count)
        return best_pairs(q, r, num_pairs=count)

    found = best_image_pairs(queries, references, num_pairs=2, find=find)
    assert_same(found, slow(queries, references)[:2])
    assert asked[0] < 900 < asked[-1]
    assert asked[1:] == [min(961, 2 * count) for count in asked[:-1]]


def test_only_query_images_that_are_not_settled_are_searched_again():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 4))
    vectors[20:] = vectors[20] = 9  # the last reference has 20 equal rows, where the second query is
    references = seen(vectors, [*range(20), *[20] * 20], "R")
    queries = Descriptors(["a", "b"], np.stack([vectors[0], vectors[20]]))
    asked = []

    def find(q, r, count):
        asked.append((q.ids.tolist(), count))
        return knn(q, r, k=count)

    found = nearest_images(queries, references, k=2, find=find)
    assert_same(found, slow_nearest(queries, references, 2))
    assert asked == [(["a", "b"], 12), (["b"], 24)]


def test_without_views_it_is_the_search_itself():
    rng = np.random.default_rng(0)
    queries, references = (Descriptors([f"{p}{i}" for i in range(9)], rng.integers(0, 3, (9, 2))) for p in "QR")
    for found, plain in (
        (best_image_pairs(queries, references, num_pairs=30), best_pairs(queries, references, num_pairs=30)),
        (nearest_images(queries, references, k=3), knn(queries, references, k=3)),
    ):
        for name in ("query", "reference", "score", "query_ids", "reference_ids"):
            np.testing.assert_array_equal(getattr(found.matches, name), getattr(plain, name))
        np.testing.assert_array_equal(found.query_row, plain.query)


def test_an_index_that_looks_everywhere_is_exact():
    rng = np.random.default_rng(1)
    queries = seen(rng.normal(size=(12, 4)), np.repeat(np.arange(4), 3))
    references = seen(rng.normal(size=(60, 4)), np.repeat(np.arange(20), 3), "R")
    index = Approximate.train("Flat", references.vectors)
    index.add(references.vectors)
    best = best_image_pairs(
        queries, references, num_pairs=70, find=lambda q, r, n: approximate_pairs(q, r, index=index, num_pairs=n)
    )
    assert_same(best, slow(queries, references)[:70])
    near = nearest_images(queries, references, k=5, find=lambda q, r, n: approximate_pairs(q, r, index=index, k=n))
    assert_same(near, slow_nearest(queries, references, 5))


def test_an_index_that_overlooks_rows_gives_what_it_finds():
    rng = np.random.default_rng(2)
    references = seen(rng.normal(size=(80, 4)), np.repeat(np.arange(20), 4), "R")
    queries = seen(references.vectors[:6], [0, 0, 1, 1, 2, 2])
    index = Approximate.train("IVF8,Flat", references.vectors)
    index.add(references.vectors)

    def find(q, r, count):
        return approximate_pairs(q, r, index=index, k=count, search="nprobe=1")

    found = nearest_images(queries, references, k=20, find=find).matches
    assert 3 <= len(found) < 3 * 20
    assert set(zip([0, 1], [0, 0], strict=True)) <= set(
        zip(found.query.tolist(), found.reference.tolist(), strict=True)
    )
    assert (np.bincount(found.query)[:3] > 0).all()


def test_rescored_pairs_keep_their_rows():
    rng = np.random.default_rng(3)
    queries, references = seen(rng.normal(size=(8, 4)), [0, 0, 1, 1, 2, 2, 3, 3]), seen(np.eye(4), [0, 0, 1, 1], "R")
    every = best_image_pairs(queries, references, num_pairs=8)
    some = every.take(np.array([6, 1]))
    turned = every.matches.take(np.array([3, 6, 1]))
    again = some.rescored(turned, every)
    assert again.query_row.tolist() == every.query_row[[3, 6, 1]].tolist()
    assert again.reference_row.tolist() == every.reference_row[[3, 6, 1]].tolist()


@pytest.mark.parametrize(
    ("call", "naming"),
    [
        (lambda q, r: best_image_pairs(q, r, num_pairs=5), ["num_pairs=5", "4 pairs"]),
        (lambda q, r: best_image_pairs(q, r, num_pairs=0), ["num_pairs=0", "at least 1"]),
        (lambda q, r: nearest_images(q, r, k=3), ["k=3", "2 references"]),
        (lambda q, r: best_pairs(q, r.take([0]), num_pairs=1), ["references have views", "best_image_pairs"]),
        (lambda q, r: best_pairs(q, seen(np.eye(2), [0, 1], views=False), num_pairs=1), ["queries have views"]),
        (lambda q, r: knn(q, r, k=1), ["have views", "nearest_images"]),
        (lambda q, r: best_image_pairs(q, seen(np.eye(3), [0, 0, 1]), num_pairs=1), ["2 dimensions", "references 3"]),
        (
            lambda q, r: best_image_pairs(
                q, r, num_pairs=3, find=lambda *a: best_pairs(*a[:2], num_pairs=a[2], memory_gb=1e-9)
            ),
            ["best 3 pairs of images take 8 pairs of views", "more memory"],
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(call, naming):
    queries = seen([[0, 0], [1, 0], [0, 1], [1, 1]], [0, 0, 1, 1])
    references = seen([[0, 0], [1, 0]], [0, 1], "R")
    with pytest.raises(InputError) as caught:
        call(queries, references)
    for part in naming:
        assert part in str(caught.value)
