"""Multi-view search: an image has one row per view, and a pair of images scores as its best pair of rows.

The row searches, exact or approximate, are used unchanged. Their lists may hold several row pairs of one image pair, so
longer lists are requested until enough different image pairs are settled. Images are numbered by first appearance; the
rows of each image are grouped before the search, in their original order.

Proof for the best pairs over all queries. Let the list hold the best M row pairs, sorted by distance, query row,
reference row, and let its last be (q*, r*) at distance d.

1. If an image pair has any row pair in the list, its best row pair is in the list, because it comes no later: the score
   is right. Its other row pairs take up room, but hide nothing: each image pair has a limited number of them, and the
   list of all row pairs contains all image pairs.
2. An image pair without a row pair in the list has a distance of at least d. So the list contains all image pairs
   nearer than d.
3. Take an image pair at exactly d that is in the list by the rows (q, r), and whose query image has its last row before
   q*, or at q* with r ≤ r*. Any other image pair at d that precedes it in the order of images belongs to an earlier
   query image, or to the same query image and an earlier reference image. Its row pair comes at or before (q*, r*), so
   it is in the list.

So the pairs of 2 and 3 are settled: sorted by distance, query image, reference image they are the beginning of the
answer, whatever the other rows hold. If they are too few, twice as many row pairs are requested.

Proof for the nearest images of each query image. If the list of its row i was cut, it ends at a distance d_i; let d be
the smallest d_i. A reference image nearer than d is in the list of the row that it is nearest to, so all such images
and their distances are known. Take an image at exactly d, found by its row r, and let all lists that end at d end at
row r or later: any earlier image at d has a row before r, which no list has left out. Both kinds are settled. If they
are too few, the query image is searched again with lists twice as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.data.descriptors import Descriptors
from isc.data.groups import rank_in_group
from isc.data.hdf5 import check_same_dim
from isc.data.ids import Ids, IntArray, numbered
from isc.data.matches import Matches
from isc.errors import InputError
from isc.search.exact import best_pairs, knn, require_existing
from isc.search.kernels.numpy_kernel import squared_distances

Distances = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
RowSearch = Callable[[Descriptors, Descriptors, int], Matches]  # queries and references without views, and a number

MOST_AT_FIRST = 4  # row pairs per image pair in the first request, at most
MARGIN = 8  # added to the first request, for ties


@dataclass(frozen=True)
class ImagePairs:
    """Scored image pairs, and the rows that gave each pair its score.

    `query_row` and `reference_row` [M] are rows of the searched sets; of several best row pairs, the first by query
    row, then reference row.
    """

    matches: Matches
    query_row: IntArray
    reference_row: IntArray

    def take(self, rows: npt.NDArray[np.integer]) -> ImagePairs:
        """Return the pairs at these positions, with the same id tables."""
        return ImagePairs(self.matches.take(rows), self.query_row[rows], self.reference_row[rows])

    def joined(self, other: ImagePairs) -> ImagePairs:
        """Return these pairs and after them those of `other`, over the same id tables."""
        rows = (np.r_[getattr(self, name), getattr(other, name)] for name in ("query_row", "reference_row"))
        return ImagePairs(self.matches.joined(other.matches), *rows)

    def rescored(self, matches: Matches, *others: ImagePairs) -> ImagePairs:
        """Return `matches` with the rows of their pairs, each of which is in this set or in one of `others`.

        All sets have the same id tables.
        """
        known = (self, *others)
        keys = np.concatenate([one.matches.keys() for one in known])
        order = np.argsort(keys, kind="stable")
        at = order[np.searchsorted(keys[order], matches.keys())]
        query, reference = ([getattr(one, name) for one in known] for name in ("query_row", "reference_row"))
        return ImagePairs(matches, np.concatenate(query)[at], np.concatenate(reference)[at])


def best_image_pairs(
    queries: Descriptors, references: Descriptors, *, num_pairs: int, find: RowSearch | None = None
) -> ImagePairs:
    """Return the `num_pairs` best image pairs, each once, with the score −min ‖q − r‖² over all their row pairs.

    At equal distances the earlier query image comes first, then the earlier reference image. `find` returns the
    requested number of best row pairs in the order of `best_pairs`, its default; a shorter list counts as all row pairs
    that exist. Without views the result is that of `find`.

    Raises InputError as `best_pairs` does.
    """
    find = find or (lambda q, r, count: best_pairs(q, r, num_pairs=count))
    check_same_dim(queries, references)
    if queries.views is None and references.views is None:
        return _of_rows(find(queries, references, num_pairs))
    q, r = ImageRows.of(queries), ImageRows.of(references)
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
    """Return the `k` nearest reference images of each query image, with the score −min ‖q − r‖² over their row pairs.

    At equal distances the earlier reference image comes first. `find` returns the requested number of nearest reference
    rows of each query row in the order of `knn`, its default; a shorter list counts as all rows that exist. Without
    views the result is that of `find`.

    Raises InputError as `knn` does.
    """
    find = find or (lambda q, r, count: knn(q, r, k=count))
    check_same_dim(queries, references)
    if queries.views is None and references.views is None:
        return _of_rows(find(queries, references, k))
    q, r = ImageRows.of(queries), ImageRows.of(references)
    require_existing("k", k, len(r.images), "references")
    ask, unfinished = min(len(r.rows), k * r.rows_an_image + MARGIN), np.arange(len(q.images))
    done: list[_RowPairs] = []
    while len(unfinished):
        again = np.flatnonzero(np.isin(q.image, unfinished))
        found = find(q.rows if len(again) == len(q.row) else q.rows.take(again), r.rows, ask)
        rows = _in_order(q, r, again[found.query], found.reference)
        best = _best_of_images(q, r, rows)
        settled, truncated = _settled_of_each(q, r, rows, best, asked=ask)
        image = q.image[best.query]
        short = truncated & (np.bincount(image[settled], minlength=len(q.images)) < k)
        best = best.take(np.flatnonzero(~short[image]))
        done.append(best.take(_first_of_each(q.image[best.query], k)))
        unfinished = np.flatnonzero(short)
        ask = min(len(r.rows), 2 * ask)
    query, reference = (np.concatenate([getattr(one, name) for one in done]) for name in ("query", "reference"))
    return _image_pairs(q, r, _best_of_images(q, r, _in_order(q, r, query, reference)))


def of_images(queries: Descriptors, references: Descriptors, query: IntArray, reference: IntArray) -> ImagePairs:
    """Return the pairs of these images, by position, with the score −min ‖q − r‖² over their row pairs, best first."""
    q, r = ImageRows.of(queries), ImageRows.of(references)
    (start, many), (other, each) = q.rows_of(query), r.rows_of(reference)
    count = many * each
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(place, np.repeat(each, count))
    rows = _in_order(q, r, np.repeat(start, count) + row, np.repeat(other, count) + column)
    return _image_pairs(q, r, _best_of_images(q, r, rows))


# --- rows and images -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageRows:
    """The rows of a set, grouped by image.

    `rows` are the descriptors without views; `image` [N] is the position in `images` of each row's image, `row` [N] its
    row in the original set, and `last` [images] the last row of each image.
    """

    rows: Descriptors
    images: Ids
    image: IntArray
    row: IntArray
    last: IntArray

    @classmethod
    def of(cls, descriptors: Descriptors) -> ImageRows:
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

    def rows_of(self, images: IntArray) -> tuple[IntArray, IntArray]:
        """Return the first row of each of these images, and how many it has."""
        first = np.searchsorted(self.image, images)
        return first, self.last[images] - first + 1

    @property
    def rows_an_image(self) -> int:
        """The mean number of rows per image, rounded up."""
        return -(-len(self.row) // len(self.images))


@dataclass(frozen=True)
class _RowPairs:
    """Row pairs and their squared distances."""

    query: IntArray
    reference: IntArray
    distance: Distances

    def take(self, at: npt.NDArray[np.integer]) -> _RowPairs:
        return _RowPairs(self.query[at], self.reference[at], self.distance[at])


def _in_order(q: ImageRows, r: ImageRows, query: IntArray, reference: IntArray) -> _RowPairs:
    """Return these row pairs sorted by distance, query row, reference row."""
    distance = squared_distances(q.rows.vectors, r.rows.vectors, query, reference)
    return _RowPairs(query, reference, distance).take(np.lexsort((reference, query, distance)))


def _best_of_images(q: ImageRows, r: ImageRows, rows: _RowPairs) -> _RowPairs:
    """Return the first row pair of each image pair, sorted by distance, query image, reference image."""
    _, first = np.unique(q.image[rows.query] * len(r.images) + r.image[rows.reference], return_index=True)
    best = rows.take(first)
    return best.take(np.lexsort((r.image[best.reference], q.image[best.query], best.distance)))


def _settled(q: ImageRows, rows: _RowPairs, best: _RowPairs) -> Flags:
    """Return for each best pair whether all image pairs that may precede it are known."""
    query, reference, end = rows.query[-1], rows.reference[-1], rows.distance[-1]
    last = q.last[q.image[best.query]]
    in_order = (last < query) | ((last == query) & (best.reference <= reference))
    return np.asarray((best.distance < end) | ((best.distance == end) & in_order))


def _settled_of_each(
    q: ImageRows, r: ImageRows, rows: _RowPairs, best: _RowPairs, *, asked: int
) -> tuple[Flags, Flags]:
    """Return for each best pair whether it is settled, and for each query image [images] whether a list of it was cut.

    A pair is settled if all pairs of its query image that may precede it are known.
    """
    truncated = (np.bincount(rows.query, minlength=len(q.row)) == asked) & (asked < len(r.row))
    end, last = np.full(len(q.row), np.inf), np.full(len(q.row), len(r.row))
    end[rows.query], last[rows.query] = rows.distance, rows.reference  # the last pair of each row stays
    end[~truncated], last[~truncated] = np.inf, len(r.row)
    of_image, reached = np.full(len(q.images), np.inf), np.full(len(q.images), len(r.row))
    np.minimum.at(of_image, q.image, end)
    ends_first = end == of_image[q.image]
    np.minimum.at(reached, q.image[ends_first], last[ends_first])
    image = q.image[best.query]
    tied = (best.distance == of_image[image]) & (best.reference <= reached[image])
    return (best.distance < of_image[image]) | tied, np.isfinite(of_image)


def _first_of_each(group: IntArray, k: int) -> IntArray:
    """Return the positions of the first k of each group, group by group."""
    order = np.argsort(group, kind="stable")
    return order[rank_in_group(group)[order] < k]


def _image_pairs(q: ImageRows, r: ImageRows, best: _RowPairs) -> ImagePairs:
    score = (0.0 - best.distance).astype(np.float32)
    matches = Matches(q.images, r.images, q.image[best.query], r.image[best.reference], score)
    return ImagePairs(matches, q.row[best.query], r.row[best.reference])


def _of_rows(matches: Matches) -> ImagePairs:
    """Return the matches of two sets without views as image pairs."""
    return ImagePairs(matches, matches.query, matches.reference)
