"""Rivals of a pair: the references of its query that speak against it, found by pixels.

Versions of its picture do not (`isc.evaluate.calibration.versions`), and neither do references that the query shows
beside it, such as the other photos of a collage: each part of a query has rivals of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from isc.data.ids import IntArray
from isc.data.matches import Matches
from isc.evaluate.calibration.chance import SIGNIFICANT
from isc.evaluate.calibration.versions import Mask, picture_of
from isc.match.verification.compare import Bars, compare_pairs
from isc.match.verification.feature_store import FeatureStore
from isc.match.verification.quantities import EVIDENCE
from isc.match.verification.tasks import AS_PHOTOS
from isc.runtime.progress import progress

LEAST = 0.1  # probability of a pair from which its reference is compared with better ones of the query
WHOLE = 0.97  # share of a picture that is as good as all of it, since edges are found to a pixel or two
AGREEING = 0.7  # agreement over the whole of either picture from which one is a version, perhaps a crop, of the other
PARTLY_AGREEING = 0.9  # agreement over a part of both from which they are: more than two shots of one thing have
CONTRADICTING = 0.05  # contradiction from which they are not
OVERLAPPING = 0.2  # share of the smaller of two regions from which they are one part of a query
GRID = 64  # squares a side on which regions are compared
LOOKS = replace(AS_PHOTOS, comparing="comparing likely references")


def are_versions(evidence: npt.NDArray[np.float32]) -> Mask:
    """Return which pairs of pictures [P] are versions of one picture, from their evidence [P, len(EVIDENCE)]."""
    value = {name: np.nan_to_num(evidence[:, at]) for at, name in enumerate(EVIDENCE)}
    whole = np.maximum(value["area_query"], value["area_reference"]) >= WHOLE
    agree = value["agreement"] >= np.where(whole, AGREEING, PARTLY_AGREEING)
    return np.asarray(agree & (value["log_nfa"] >= SIGNIFICANT) & (value["contradiction"] < CONTRADICTING))


def picture_by_pixels(
    pairs: Matches,
    images: Mapping[str, Path],
    *,
    store: FeatureStore | None,
    workers: int | None,
    on: str | None = None,
    bars: Bars = progress,
) -> IntArray:
    """Return `picture_of` the pairs by the pixels of their references; one that cannot be compared is its own picture.

    `score` is the probability that a pair is a copy; the other arguments are those of `verify`.
    """

    def same(one: IntArray, other: IntArray) -> Mask:
        both = np.sort(np.column_stack([pairs.reference[one], pairs.reference[other]]), axis=1)
        asked, row = np.unique(both, axis=0, return_inverse=True)
        numbers, place = np.unique(asked, return_inverse=True)
        first, second = place.reshape(-1, 2).T
        ids = pairs.reference_ids[numbers]
        found = compare_pairs(
            Matches(ids, ids, first, second, np.zeros(len(asked))), query_images=images, reference_images=images,
            looks=LOOKS, store=store, workers=workers, on=on, bars=bars,
        )  # fmt: skip
        return are_versions(found.evidence)[row.reshape(-1)]

    return picture_of(pairs, pairs.score >= LEAST, same)


def are_sure(log_nfa: npt.NDArray[np.floating], agreement: npt.NDArray[np.floating]) -> Mask:
    """Return which pairs [P] show the same beyond doubt, so that their region can be a part of its own."""
    return np.asarray((log_nfa >= SIGNIFICANT) & (agreement >= AGREEING))


def part_of(pairs: Matches, regions: Mapping[int, npt.NDArray[np.float64]]) -> IntArray:
    """Return the number of the part of its query that each pair [P] shows; pairs of two parts are no rivals.

    `regions` are the regions in the query, corners [K, 2] as fractions, of pairs that `are_sure`, by row. Those that
    overlap are one part. All other pairs are of the part of the likeliest pair, which has the number of the query.
    """
    part, free = pairs.query.copy(), len(pairs.query_ids)
    rows = [row for row in regions if pairs.score[row] >= LEAST]
    rows.sort(key=lambda row: (pairs.query[row], -pairs.score[row], pairs.reference[row]))
    for _, of_query in groupby(rows, key=lambda row: int(pairs.query[row])):
        group = list(of_query)
        for others in _connected([_squares(regions[row]) for row in group])[1:]:
            part[[group[at] for at in others]] = free
            free += 1
    return part


def _connected(regions: Sequence[Mask]) -> list[list[int]]:
    """Return the numbers of the regions in groups that overlap, directly or by others; the group of 0 comes first."""
    groups: list[list[int]] = []
    for at, region in enumerate(regions):
        touched = [group for group in groups if any(_overlap(region, regions[other]) for other in group)]
        groups = [group for group in groups if group not in touched] + [sorted([*chain(*touched), at])]
    return sorted(groups)


def _overlap(one: Mask, other: Mask) -> bool:
    return bool((one & other).sum() >= OVERLAPPING * max(1, min(one.sum(), other.sum())))


def _squares(region: npt.NDArray[np.float64]) -> Mask:
    """Return the squares of a grid over the query that a region covers [GRID, GRID]."""
    covered = np.zeros((GRID, GRID), np.uint8)
    cv2.fillConvexPoly(covered, np.round(region * GRID - 0.5).astype(np.int32), 1)
    return covered > 0
