"""Versions: references that show one picture, such as its sizes, its crops, and files of it saved again.

A reference says less the more others look as much like the query (isc.evaluate.calibration.margins), as photos of one
kind of thing do. Versions of one picture all look like its copy, and must not speak against one another. So the best
references of each query are compared with one another, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.csv_files import read_rows, write_csv
from isc.data.groups import rank_in_group
from isc.data.ids import IntArray, numbered
from isc.data.matches import Matches

FIRST = 5  # better references of the query with which a reference is compared, at most
NEAR = 0.2  # share of the squared distance to unrelated pictures up to which two references are versions
LIKELY = 0.8  # share of it below which a reference is likely enough to be compared with others
BLOCK = 1 << 16  # pairs of references whose descriptors are compared at a time
FILE, COLUMNS = "versions.csv", ("query_id", "reference_id", "version_of")

Mask = npt.NDArray[np.bool_]
Same = Callable[[IntArray, IntArray], Mask]  # rows of two pairs of each query → whether their references are versions


def picture_of(pairs: Matches, likely: Mask, same: Same) -> IntArray:
    """Return the number of the picture that each pair's reference [P] shows: its own, or that of a better one.

    Only references of `likely` pairs [P] are compared, each with the FIRST best of its query. Versions of one of them
    are versions of one another, so that a crop and another crop meet in the whole picture. `same` is asked in the order
    of the pairs, and of each the best reference first: after one that is a version, the others need no answer.
    """
    picture = pairs.reference.copy()
    rows = np.flatnonzero(likely)
    rows = rows[np.lexsort((pairs.reference[rows], -pairs.score[rows], pairs.query[rows]))]
    rank = rank_in_group(pairs.query[rows]) if len(rows) else rows
    start = np.arange(len(rows)) - rank
    later, place = np.nonzero(rank[:, None] > np.arange(FIRST))
    found = np.zeros((len(rows), FIRST), bool)
    if len(later):
        found[later, place] = same(rows[later], rows[start[later] + place])
    for of_rank in range(1, int(rank.max(initial=0)) + 1):
        at = np.flatnonzero((rank == of_rank) & found.any(axis=1))
        picture[rows[at]] = picture[rows[start[at] + found[at].argmax(axis=1)]]
    return picture


def picture_by_distance(
    pairs: Matches, vectors: npt.NDArray[np.floating], row: IntArray, unrelated: npt.NDArray[np.float64]
) -> IntArray:
    """Return `picture_of` the pairs by the descriptors of their references.

    `score` is the negative squared distance of a pair, `row` [P] that of its reference's descriptor in `vectors`
    [R, D], `unrelated` [P] the squared distance of its query to unrelated pictures. Two references are versions if they
    are within NEAR of that distance, and nearer to one another than to the query.
    """
    distance = 0.0 - pairs.score.astype(np.float64)

    def same(one: IntArray, other: IntArray) -> Mask:
        apart = np.empty(len(one))
        for start in range(0, len(one), BLOCK):
            part = slice(start, start + BLOCK)
            difference = vectors[row[one[part]]].astype(np.float64) - vectors[row[other[part]]]
            apart[part] = np.einsum("ij,ij->i", difference, difference)
        return np.asarray((apart <= NEAR * unrelated[one]) & (apart < np.minimum(distance[one], distance[other])))

    return picture_of(pairs, distance < LIKELY * unrelated, same)


def write_versions(path: Path, pairs: Matches, picture: IntArray) -> None:
    """Write `query_id,reference_id,version_of` for pairs whose reference is a version of a better one of its query."""
    rows = np.flatnonzero(picture != pairs.reference)
    ids = pairs.reference_ids
    columns = pairs.query_ids[pairs.query[rows]], ids[pairs.reference[rows]], ids[picture[rows]]
    write_csv(path, COLUMNS, zip(*columns, strict=True))


def read_versions(folder: Path, pairs: Matches) -> IntArray | None:
    """Return the picture of each pair's reference [P] by the folder's versions.csv; None if there is none.

    Raises InputError for a file of another form.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    known = {(query, reference): of for query, reference, of in read_rows(path, COLUMNS)}
    named = zip(pairs.query_ids[pairs.query], pairs.reference_ids[pairs.reference], strict=True)
    return numbered([known.get(pair, pair[1]) for pair in named])[1]
