"""Versions among the candidates of a query, by their pixels; see `isc.evaluate.calibration.versions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.ids import IntArray
from isc.data.matches import Matches
from isc.evaluate.calibration.versions import Mask, picture_of
from isc.match.verification.compare import Bars, compare_pairs
from isc.match.verification.feature_store import FeatureStore
from isc.match.verification.quantities import EVIDENCE
from isc.match.verification.tasks import AS_PHOTOS
from isc.runtime.progress import progress

LEAST = 0.1  # probability of a pair from which its reference is compared with better ones of the query
SIGNIFICANT = 12.0  # log_nfa from which two pictures are aligned beyond doubt
WHOLE = 0.97  # share of a picture that is as good as all of it, since edges are found to a pixel or two
AGREEING = 0.7  # agreement over the whole of either picture from which one is a version, perhaps a crop, of the other
PARTLY_AGREEING = 0.9  # agreement over a part of both from which they are: more than two shots of one thing have
CONTRADICTING = 0.05  # contradiction from which they are not
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
