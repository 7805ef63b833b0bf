"""Regions that may be pictures of their own: found where a photo was put, on photos of the package."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from isc.photos import regions as proposals
from isc.photos.decode import read_image
from isc.photos.folders import SAMPLE
from isc.photos.regions import best, detail, edges, lines, overlaps, propose, rectangles

PATHS = sorted(SAMPLE.glob("*.jpg"))
WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def photos():
    return [cv2.resize(read_image(path), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for path in PATHS[:24]]


def overlap(one, other):
    """The slow way, of two regions."""
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (one, other)]
    return width * height / (sum(areas) - width * height)


def pasted(background, photo, place):
    """The photo squeezed into a place (left, top, right, bottom in pixels) of the background; and that in fractions."""
    left, top, right, bottom = place
    there = background.copy()
    there[top:bottom, left:right] = cv2.resize(photo, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    return there, (left / WIDTH, top / HEIGHT, right / WIDTH, bottom / HEIGHT)


def agreement(picture, place, *, count):
    """How well the best of the proposals meets the place."""
    return max((overlap(region, place) for region in propose(picture, count=count)), default=0)


# --- what is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "share"), [(1, 0.8), (3, 0.85)])
def test_a_photo_on_another_is_found(photos, count, share):
    rng, met = np.random.default_rng(0), []
    for number, background in enumerate(photos):
        width, height = rng.integers(70, 200), rng.integers(60, 160)
        left, top = rng.integers(10, WIDTH - width - 10), rng.integers(10, HEIGHT - height - 10)
        place = (left, top, left + width, top + height)
        met.append(agreement(*pasted(background, photos[number - 1], place), count=count) > 0.8)
    assert np.mean(met) >= share


@pytest.mark.parametrize("colour", [0, 255, (200, 30, 90), "blurred"])
def test_a_padded_photo_is_found_whatever_the_colour(photos, colour):
    met = []
    for photo in photos:
        field = cv2.GaussianBlur(photo, (0, 0), 15) if colour == "blurred" else np.full_like(photo, colour)
        met.append(agreement(*pasted(field, photo, (40, 50, 290, 200)), count=1) > 0.8)
    assert np.mean(met) >= 0.8


def test_a_photo_under_a_caption_is_found(photos):
    met = []
    for photo in photos:
        field = np.full_like(photo, 255)
        cv2.putText(field, "so true", (60, 60), cv2.FONT_HERSHEY_DUPLEX, 2, (0, 0, 0), 3)
        met.append(agreement(*pasted(field, photo, (0, 90, WIDTH, HEIGHT)), count=8) > 0.8)
    assert np.mean(met) >= 0.6  # three of its sides are the own sides of the picture


def test_nothing_is_found_where_there_is_nothing():
    assert propose(np.full((240, 320, 3), 77, np.uint8), count=8) == ()
    frame = np.full((240, 320, 3), 255, np.uint8)
    frame[60:180, 80:240] = 0  # a clear rectangle that shows nothing
    assert propose(frame, count=8) == ()


# --- what every proposal keeps to ------------------------------------------------------------------------------------


def test_regions_are_of_some_size_and_differ(photos):
    for photo in photos:
        found = propose(photo, count=8)
        assert len(found) == 8
        for left, top, right, bottom in found:
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
            assert min(right - left, bottom - top) >= proposals.LEAST - 1e-4
            assert (right - left) * (bottom - top) <= proposals.MOST + 1e-4
        for one, other in itertools.combinations(found, 2):
            assert overlap(one, other) <= proposals.OVERLAP + 1e-9


def test_fewer_are_the_first_of_more_and_the_same_every_time(photos):
    for photo in photos[:6]:
        most = propose(photo, count=8)
        for count in range(9):
            assert propose(photo.copy(), count=count) == most[:count]


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 500), (500, 1), (2, 2), (3, 9), (11, 8)])
def test_the_smallest_pictures_can_be_asked(size):
    picture = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    for left, top, right, bottom in propose(picture, count=4):
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1


def test_a_larger_picture_gives_about_the_same(photos):
    picture, place = pasted(photos[3], photos[5], (64, 48, 224, 168))
    large = cv2.resize(picture, (4 * WIDTH, 4 * HEIGHT), interpolation=cv2.INTER_LINEAR)
    assert overlap(propose(large, count=1)[0], place) > 0.9


def test_the_picture_stays_as_it_is(photos):
    before = photos[0].copy()
    propose(photos[0], count=4)
    np.testing.assert_array_equal(photos[0], before)


# --- the steps, each the slow way ------------------------------------------------------------------------------------


def test_an_edge_is_where_levels_step():
    picture = np.full((40, 30, 3), 100, np.uint8)
    picture[25:, :, 1] = 160  # of one channel alone
    found = edges(picture)
    assert found.shape == (41, 30)
    assert found[25].min() == pytest.approx(60 / (60 + proposals.NEAR * 60 / proposals.NEARBY + proposals.NOISE))
    assert np.delete(found, 25, axis=0).max() == 0


def test_the_longest_lines_and_the_own_sides():
    found = np.zeros((61, 200), np.float32)
    found[10, 20:180], found[40, 50:90], found[41, 50:80] = 0.9, 0.9, 0.9  # the third beside a longer one
    chosen = lines(found)
    assert {0, 10, 40, 60} <= set(chosen.tolist())
    assert 41 not in chosen
    assert (np.diff(chosen) > 0).all()


def test_scores_are_those_of_each_rectangle_alone(photos):
    small = photos[7][::2, ::2]
    across, down = edges(small.transpose(1, 0, 2)), edges(small)
    xs, ys = lines(across), lines(down)
    width, height = xs[-1], ys[-1]
    boxes, scores = rectangles(xs, ys, across, down)
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert {tuple(box) for box in boxes.tolist()} == {
        (a, c, b, d)
        for a, b in itertools.combinations(xs.tolist(), 2)
        for c, d in itertools.combinations(ys.tolist(), 2)
        if b - a >= 0.1 * width and d - c >= 0.1 * height
    }
    for (left, top, right, bottom), score in list(zip(boxes, scores, strict=True))[::97]:
        sides = [
            proposals.OWN_SIDE if line in (0, end) else found[line, start:stop].mean()
            for found, line, start, stop, end in (
                (across, left, top, bottom, width),
                (across, right, top, bottom, width),
                (down, top, left, right, height),
                (down, bottom, left, right, height),
            )
        ]
        area = (right - left) * (bottom - top) / (width * height)
        expected = 0 if area > proposals.MOST else (np.mean(sides) + min(sides)) / 2 * area**proposals.AREA
        assert score == pytest.approx(expected, abs=1e-5)


def test_detail_is_the_share_of_pixels_that_show_something(photos):
    picture = np.full((100, 120, 3), 80, np.uint8)
    picture[20:80, 30:90] = photos[2][20:80, 30:90] // 2 + np.indices((60, 60)).sum(axis=0)[..., None] % 2 * 60
    boxes = np.array([[34, 24, 86, 76], [0, 0, 25, 100], [0, 0, 120, 100]])
    assert detail(picture, boxes).tolist() == pytest.approx([1, 0, 66 * 66 / 12000], abs=0.03)


def test_the_best_first_and_none_that_overlaps_a_better_one():
    regions = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.45], [0.5, 0.5, 1, 1], [0.2, 0.2, 0.9, 0.9], [0, 0.5, 0.5, 1]])
    scores = np.array([0.5, 0.9, 0.7, 0.0, 0.7])
    assert best(regions, scores, count=5) == ((0, 0, 0.5, 0.45), (0.5, 0.5, 1, 1), (0, 0.5, 0.5, 1))
    assert scores.tolist() == [0.5, 0.9, 0.7, 0.0, 0.7]
    np.testing.assert_allclose(overlaps(regions, (0.0, 0.0, 0.5, 0.5)), [overlap(one, regions[0]) for one in regions])
