"""Search where an image has several rows, one for each of its views: a pair of images scores as the best of its rows.

The searches of rows, exact or approximate, stay as they are. Their lists hold a pair of images as often as pairs of its
rows are near, so longer lists are asked for until enough different pairs of images are settled. Images are in the order
in which they first appear, and their rows are put together, in the order they had, before the search.

Why the best pairs over all queries are exact. Let the list hold the best M pairs of rows, by distance, query row,
reference row, and let its last be (q*, r*) at distance d.

1. A pair of images that has any pair of rows in the list has its best one there, since that comes no later: its score
   is right. Its other pairs of rows take up room, but hide nothing: each pair of images has a limited number of them,
   and the list of all pairs of rows holds all pairs of images.
2. A pair of images that has none in the list has a distance of d or more. All of less than d are there.
3. Take one at exactly d that is in the list by rows (q, r) with r ≤ r*, and whose query image has its last row at q* or
   before. Another at d that comes earlier in the order of the images has rows of earlier query images, before q*, or of
   the same query image and of earlier reference images, before r: at most (q*, r*) in any case, so it is in the list.

So the pairs of 2 and 3 are settled: by distance, query image, reference image they begin the answer, whatever the other
rows hold. Where they are fewer than wanted, twice as many pairs of rows are asked for.

Why the nearest of each query image are exact. The list of its row i, where it was cut, ends at a distance of d_i; let d
be the least of these. A reference image nearer than d is in the list of the row that it is nearest to, so all of them
are known, and how near they are. Take one at exactly d that was found by its row r, where all lists that end at d end
at the row r or later: another at d of an earlier image has a row before r, which no list has left out. Both kinds are
settled. Where they are fewer than wanted, the query image is searched again with lists twice as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.data.descriptors import Descriptors
from isc.data.hdf5 import check_same_dim
from isc.data.ids import Ids, IntArray, numbered
from isc.data.matches import Matches
from isc.errors import InputError
from isc.search.exact import best_pairs, knn, require_existing
from isc.search.kernels.numpy_kernel import squared_distances

Distances = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
RowSearch = Callable[[Descriptors, Descriptors, int], Matches]  # queries, references without views; how many

MOST_AT_FIRST = 4  # pairs of rows asked for, at first, for each pair of images
MARGIN = 8  # neighbours asked for beyond that, for ties


@dataclass(frozen=True)
class ImagePairs:
    """Scored pairs of images, and the rows that gave each its score: `query_row` and `reference_row` [M] are rows of
    the sets that were searched. Of several best pairs of rows it is the first by query row, then reference row."""

    matches: Matches
    query_row: IntArray
    reference_row: IntArray

    def take(self, rows: npt.NDArray[np.integer]) -> ImagePairs:
        """These pairs alone, with the same id tables."""
        return ImagePairs(self.matches.take(rows), self.query_row[rows], self.reference_row[rows])

    def rescored(self, matches: Matches, *others: ImagePairs) -> ImagePairs:
        """`matches` with their rows, each of which is in this set of pairs or in one of the others; all have the same
        id tables."""
        known = (self, *others)
        keys = np.concatenate([one.matches.keys() for one in known])
        order = np.argsort(keys, kind="stable")
        at = order[np.searchsorted(keys[order], matches.keys())]
        query, reference = ([getattr(one, name) for one in known] for name in ("query_row", "reference_row"))
        return ImagePairs(matches, np.concatenate(query)[at], np.concatenate(reference)[at])


def best_image_pairs(
    queries: Descriptors, references: Descriptors, *, num_pairs: int, find: RowSearch | None = None
) -> ImagePairs:
    """The `num_pairs` best pairs of images, each once, scored −min ‖q − r‖² over all pairs of their rows.

    At equal distances the earlier query image comes first, then the earlier reference image. `find` gives the best so
    many pairs of rows in the order of `best_pairs`, which it is where not given; where it gives fewer than asked for,
    they are taken for all there are. Without views this is `find` itself.

    Raises InputError as `best_pairs` does.
    """
    find = find or (lambda q, r, count: best_pairs(q, r, num_pairs=count))
    check_same_dim(queries, references)
    if queries.views is None and references.views is None:
        return _of_rows(find(queries, references, num_pairs))
    q, r = _Side.of(queries), _Side.of(references)
    require_existing("num_pairs", num_pairs, len(q.images) * len(r.images), "pairs")
    exist = len(q.rows) * len(r.rows)
    ask = min(exist, num_pairs * min(MOST_AT_FIRST, q.rows_an_image * r.rows_an_image) + MARGIN)
    while True:
        try:
            found = find(q.rows, r.rows, ask)
        except InputError as error:
            raise InputError(f"the best {num_pairs} pairs of images take {ask} pairs of views: {error}") from error
        rows = _in_order(q, r, found.query, found.reference)
        best = _best_of_images(q, r, rows)
        if len(found) < ask or ask == exist or _settled(q, rows, best).sum() >= num_pairs:
            return _image_pairs(q, r, best.take(np.arange(min(num_pairs, len(best.query)))))
        ask = min(exist, 2 * ask)


def nearest_images(
    queries: Descriptors, references: Descriptors, *, k: int, find: RowSearch | None = None
) -> ImagePairs:
    """The `k` nearest reference images of each query image, scored −min ‖q − r‖² over all pairs of their rows.

    At equal distances the earlier reference image comes first. `find` gives the nearest so many reference rows of each
    query row, in the order of `knn`, which it is where not given; where a row gets fewer, they are taken for all there
    are. Without views this is `find` itself.

    Raises InputError as `knn` does.
    """
    find = find or (lambda q, r, count: knn(q, r, k=count))
    check_same_dim(queries, references)
    if queries.views is None and references.views is None:
        return _of_rows(find(queries, references, k))
    q, r = _Side.of(queries), _Side.of(references)
    require_existing("k", k, len(r.images), "references")
    ask, unfinished = min(len(r.rows), k * r.rows_an_image + MARGIN), np.arange(len(q.images))
    done: list[_RowPairs] = []
    while len(unfinished):
        again = np.flatnonzero(np.isin(q.image, unfinished))
        found = find(q.rows if len(again) == len(q.row) else q.rows.take(again), r.rows, ask)
        rows = _in_order(q, r, again[found.query], found.reference)
        best = _best_of_images(q, r, rows)
        settled, cut = _settled_of_each(q, r, rows, best, asked=ask)
        image = q.image[best.query]
        short = cut & (np.bincount(image[settled], minlength=len(q.images)) < k)
        best = best.take(np.flatnonzero(~short[image]))
        done.append(best.take(_first_of_each(q.image[best.query], k)))
        unfinished = np.flatnonzero(short)
        ask = min(len(r.rows), 2 * ask)
    query, reference = (np.concatenate([getattr(one, name) for one in done]) for name in ("query", "reference"))
    return _image_pairs(q, r, _best_of_images(q, r, _in_order(q, r, query, reference)))


# --- rows and images -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    """The rows of a set, those of an image together: `rows` are images of their own, named by numbers; `image` [N] says
    of which of `images` each is, `row` [N] which row of the set, `last` [images] is the last of each image."""

    rows: Descriptors
    images: Ids
    image: IntArray
    row: IntArray
    last: IntArray

    @classmethod
    def of(cls, descriptors: Descriptors) -> _Side:
        row = np.arange(len(descriptors))
        if descriptors.views is None:
            return cls(descriptors, descriptors.ids, row, row, row)
        images, image = numbered(descriptors.ids.tolist())
        vectors = descriptors.vectors
        if (image[1:] < image[:-1]).any():
            row = np.argsort(image, kind="stable")
            image, vectors = image[row], vectors[row]
        rows = Descriptors(np.array(list(map(str, range(len(row)))), dtype=object), vectors)
        return cls(rows, images, image, row, np.searchsorted(image, np.arange(len(images)), side="right") - 1)

    @property
    def rows_an_image(self) -> int:
        """On average, rounded up."""
        return -(-len(self.row) // len(self.images))


@dataclass(frozen=True)
class _RowPairs:
    """Pairs of rows and their distances."""

    query: IntArray
    reference: IntArray
    distance: Distances

    def take(self, at: npt.NDArray[np.integer]) -> _RowPairs:
        return _RowPairs(self.query[at], self.reference[at], self.distance[at])


def _in_order(q: _Side, r: _Side, query: IntArray, reference: IntArray) -> _RowPairs:
    """These pairs of rows by distance, query row, reference row."""
    distance = squared_distances(q.rows.vectors, r.rows.vectors, query, reference)
    return _RowPairs(query, reference, distance).take(np.lexsort((reference, query, distance)))


def _best_of_images(q: _Side, r: _Side, rows: _RowPairs) -> _RowPairs:
    """The first of each pair of images; by distance, query image, reference image."""
    _, first = np.unique(q.image[rows.query] * len(r.images) + r.image[rows.reference], return_index=True)
    best = rows.take(first)
    return best.take(np.lexsort((r.image[best.reference], q.image[best.query], best.distance)))


def _settled(q: _Side, rows: _RowPairs, best: _RowPairs) -> Flags:
    """Which of the best pairs come before any that is not known."""
    query, reference, end = rows.query[-1], rows.reference[-1], rows.distance[-1]
    last = q.last[q.image[best.query]]
    in_order = (last < query) | ((last == query) & (best.reference <= reference))
    return np.asarray((best.distance < end) | ((best.distance == end) & in_order))


def _settled_of_each(q: _Side, r: _Side, rows: _RowPairs, best: _RowPairs, *, asked: int) -> tuple[Flags, Flags]:
    """Which of the best pairs come before any of their query image that is not known, and of which query images
    [images] a list was cut."""
    cut = (np.bincount(rows.query, minlength=len(q.row)) == asked) & (asked < len(r.row))
    end, last = np.full(len(q.row), np.inf), np.full(len(q.row), len(r.row))
    end[rows.query], last[rows.query] = rows.distance, rows.reference  # the last of each row is what stays
    end[~cut], last[~cut] = np.inf, len(r.row)
    of_image, reached = np.full(len(q.images), np.inf), np.full(len(q.images), len(r.row))
    np.minimum.at(of_image, q.image, end)
    ends_first = end == of_image[q.image]
    np.minimum.at(reached, q.image[ends_first], last[ends_first])
    image = q.image[best.query]
    tied = (best.distance == of_image[image]) & (best.reference <= reached[image])
    return (best.distance < of_image[image]) | tied, np.isfinite(of_image)


def _first_of_each(group: IntArray, k: int) -> IntArray:
    """Positions of the first k of each group, group by group."""
    order = np.argsort(group, kind="stable")
    count = np.bincount(group)
    rank = np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count)
    return order[rank < k]


def _image_pairs(q: _Side, r: _Side, best: _RowPairs) -> ImagePairs:
    score = (0.0 - best.distance).astype(np.float32)
    matches = Matches(q.images, r.images, q.image[best.query], r.image[best.reference], score)
    return ImagePairs(matches, q.row[best.query], r.row[best.reference])


def _of_rows(matches: Matches) -> ImagePairs:
    """Where every row is an image."""
    return ImagePairs(matches, matches.query, matches.reference)
