"""Negatives of photos: the nearest candidates of a query without an alignment are compared with its negative."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from isc.data.matches import Matches
from isc.match.verification.compare import verify
from isc.match.verification.drawings import CERTAIN
from isc.match.verification.features import local_features, negative_features
from isc.match.verification.negatives import LOG_NFA, NEAREST, rows_of_negatives
from isc.match.verification.quantities import EVIDENCE
from isc.photos.decode import read_image
from isc.photos.folders import list_images
from tests.conftest import SAMPLE

PHOTOS = list_images(SAMPLE)
NAMES = sorted(PHOTOS)[:4]


def negative(photo):
    """The negative of a crop, saved again."""
    height, width = photo.shape[:2]
    return cv2.imencode(".jpg", 255 - photo[height // 10 :, : width * 9 // 10, ::-1])[1].tobytes()


@pytest.mark.parametrize("on", [None, "cpu"])
def test_a_negative_is_found_among_the_nearest_candidates(on, tmp_path):
    """The right photo is the second candidate of one query and the third, which is not looked at, of another."""
    queries = {}
    for name in NAMES[:2]:
        queries[f"negative-{name}"] = tmp_path / f"{name}.jpg"
        queries[f"negative-{name}"].write_bytes(negative(read_image(PHOTOS[name])))
    queries["positive"] = PHOTOS[NAMES[3]]
    first, second = list(queries)[:2]
    pairs = [
        (first, NAMES[3]), (first, NAMES[0]), (first, NAMES[2]), (second, NAMES[1]), (second, NAMES[3]),
        (second, NAMES[2]), ("positive", NAMES[3]),
    ]  # fmt: skip
    candidates = Matches.from_ids(*zip(*pairs, strict=True), np.array([-3, -2, -1, -3, -2, -1, -1.0]))
    verified = verify(candidates, queries, {name: PHOTOS[name] for name in NAMES}, on=on)
    found = [row for row in range(len(pairs)) if verified.evidence[row, LOG_NFA] >= CERTAIN]
    assert [pairs[row] for row in found] == [(first, NAMES[0]), ("positive", NAMES[3])]
    assert sorted(verified.alignments) == found
    region = verified.alignments[1].reference_region
    assert region.min(axis=0) == pytest.approx([0, 0.1], abs=0.02)
    assert region.max(axis=0) == pytest.approx([0.9, 1], abs=0.02)
    dark, light = (local_features(one).light for one in (read_image(queries[first]), read_image(PHOTOS[NAMES[0]])))
    assert verified.evidence[1, EVIDENCE.index("light")] == pytest.approx(min(dark, light), abs=1e-6)


def test_which_pairs_are_compared_as_negatives():
    candidates = Matches.from_ids(list("aaabbccd"), list("xyzxyxyx"), np.array([-2.0, -1, -3, 0, 0, 0, 0, 0]))
    evidence = np.ones((8, len(EVIDENCE)), np.float32)
    evidence[4, LOG_NFA] = 30  # b is aligned with y
    evidence[5] = np.nan
    evidence[7, EVIDENCE.index("features_query")] = 0
    assert NEAREST == 2
    assert rows_of_negatives(candidates, evidence).tolist() == [0, 1, 6]


def test_features_of_a_negative_are_those_that_reading_it_gives():
    photo = read_image(PHOTOS[NAMES[0]])
    ours, read = negative_features(photo), local_features(255 - photo)
    order = {tuple(point): row for row, point in enumerate(read.points.round(1).tolist())}
    pairs = [(row, order[key]) for row, key in enumerate(map(tuple, ours.points.round(1).tolist())) if key in order]
    assert len(pairs) > 0.9 * len(ours)
    cosines = np.array([ours.vectors[a] @ read.vectors[b] for a, b in pairs])
    assert np.median(cosines) > 0.99
    assert np.median(np.abs(local_features(photo).vectors @ read.vectors.T).max(axis=1)) < 0.9
    assert np.abs(ours.thumbnail.astype(int) - read.thumbnail).max() <= 2
    assert (ours.colours == read.colours).mean() > 0.9
