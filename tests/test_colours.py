"""Colours under an alignment."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from isc.match.verification.alignment import compare
from isc.match.verification.colours import colours_apart
from isc.match.verification.features import COLOURS_SIDE, local_features
from isc.match.verification.quantities import EVIDENCE
from isc.photos.decode import read_image
from tests.conftest import SAMPLE

PHOTOS = sorted(SAMPLE.glob("*.jpg"))
AT = EVIDENCE.index("region_colours")


def small(pixels):
    return cv2.resize(pixels, (COLOURS_SIDE, COLOURS_SIDE), interpolation=cv2.INTER_AREA)


def test_the_same_colours_are_apart_by_nothing_and_white_from_black_by_one():
    photo = small(read_image(PHOTOS[0]))
    assert colours_apart(np.eye(3), photo, photo) == 0
    assert colours_apart(np.eye(3), np.full_like(photo, 255), np.zeros_like(photo)) == 1


@pytest.mark.parametrize("number", [3, 30, 60])
def test_colours_are_compared_where_the_alignment_says(number):
    photo = read_image(PHOTOS[number])
    height, width = photo.shape[:2]
    part = photo[height // 4 :, : width // 2]
    to_part = np.array([[2, 0, 0], [0, 4 / 3, -1 / 3], [0, 0, 1]])  # fractions of the whole to those of the part
    right, wrong = (colours_apart(matrix, small(part), small(photo)) for matrix in (to_part, np.eye(3)))
    assert right < 0.06
    assert right < 0.6 * wrong


def test_a_region_of_no_cells_says_nothing():
    outside = np.array([[1, 0, 5], [0, 1, 0], [0, 0, 1]], float)
    photo = small(read_image(PHOTOS[0]))
    assert colours_apart(outside, photo, 255 - photo) == 0


def _pie(colours):
    made = np.full((400, 400, 3), 245, np.uint8)
    for at, colour in enumerate(colours):
        cv2.ellipse(made, (200, 200), (160, 160), 0, 45 * at, 45 * (at + 1), colour, -1)
        cv2.putText(made, "share", (150, 30), cv2.FONT_HERSHEY_SIMPLEX, 1, (0, 0, 0), 2)
    return made


def test_two_charts_of_one_shape_differ_in_their_colours():
    rng = np.random.default_rng(1)
    one, other = (_pie(rng.integers(0, 256, (8, 3)).tolist()) for _ in range(2))
    features = [local_features(pixels) for pixels in (one, other, cv2.GaussianBlur(one, (0, 0), 1))]
    apart, alignment = compare(features[0], features[1])
    same, found = compare(features[0], features[2])
    assert found is not None
    assert same[AT] < 0.03
    assert alignment is None or apart[AT] > 0.1
