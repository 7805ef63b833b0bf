"""Local features on the sample photos: a mirror, any number of threads, pictures that have next to nothing in them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from isc.match.verification import features as local
from isc.match.verification.features import LONGEST_SIDE, MAX_FEATURES, THUMBNAIL_SIDE, local_features, mirrored
from isc.photos.decode import read_image
from isc.photos.folders import SAMPLE, list_images
from isc.photos.resizing import fit_within

PHOTOS = list_images(SAMPLE)
NAMES = ["S000", "S020", "S040", "S060", "S080", "S100"]


def photo(name: str) -> np.ndarray:
    return read_image(PHOTOS[name])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.mark.parametrize("name", NAMES)
def test_mirrored_descriptors_are_those_of_the_mirrored_picture(name):
    straight, mirror = local_features(photo(name)), local_features(photo(name)[:, ::-1])
    points = straight.points * [-1, 1] + [straight.size[0] - 1, 0]
    near = np.linalg.norm(points[:, None] - mirror.points, axis=2) < 1
    turned = (180 - straight.angles[:, None] - mirror.angles + 180) % 360 - 180
    same = near & (np.abs(turned) < 5) & (np.abs(np.log(straight.sizes[:, None] / mirror.sizes)) < 0.1)
    found, other = same.any(axis=1), same.argmax(axis=1)
    assert found.mean() > 0.85
    alike = cosines(mirrored(straight.descriptors)[found], mirror.descriptors[other[found]])
    assert np.mean(alike > 0.99) > 0.95
    as_they_are = cosines(straight.descriptors[found], mirror.descriptors[other[found]])
    assert np.median(as_they_are) < 0.9  # what is proved here is not proved by every descriptor


def test_mirrored_by_hand():
    one = np.zeros((1, 4, 4, 8), np.uint8)
    one[0, 0, 2, 1] = 7  # first row of cells across the point's direction, third along it, an eighth of a turn
    other = mirrored(one.reshape(1, 128)).reshape(4, 4, 8)
    assert np.argwhere(other).tolist() == [[3, 2, 7]]
    assert other[3, 2, 7] == 7


def test_mirrored_is_a_rearrangement_that_undoes_itself():
    each = np.arange(128, dtype=np.uint8)[None]
    assert sorted(mirrored(each)[0].tolist()) == list(range(128))
    assert (mirrored(mirrored(each)) == each).all()
    assert mirrored(np.zeros((0, 128), np.uint8)).shape == (0, 128)


def test_features_are_the_same_whatever_the_number_of_threads():
    before = cv2.getNumThreads()
    try:
        found = []
        for threads in (1, 2, 5):
            cv2.setNumThreads(threads)
            found.append([local_features(photo(name)) for name in NAMES[:3]])
    finally:
        cv2.setNumThreads(before)
    for one, *others in zip(*found, strict=True):
        for other in others:
            for column in ("points", "sizes", "angles", "descriptors", "thumbnail", "colours"):
                assert getattr(one, column).tobytes() == getattr(other, column).tobytes()


@pytest.mark.parametrize("noise", [False, True], ids=["blank", "noise"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (5, 4), (16, 16), (1, 5000), (5000, 1), (2, 384), (120, 90)])
def test_pictures_with_next_to_nothing_in_them(shape, noise):
    pixels = np.full((*shape, 3), 200, np.uint8)
    if noise:
        pixels = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    found = local_features(pixels)
    assert len(found) == 0 or (noise and min(shape) > 10)
    check_form(found)
    assert max(found.size) == min(LONGEST_SIDE, max(shape))
    assert min(found.size) >= 1


def check_form(found: local.LocalFeatures) -> None:
    count = len(found)
    assert count <= MAX_FEATURES
    for values, shape, dtype in (
        (found.points, (count, 2), np.float32),
        (found.sizes, (count,), np.float32),
        (found.angles, (count,), np.float32),
        (found.descriptors, (count, 128), np.uint8),
        (found.thumbnail, found.thumbnail.shape[:2], np.uint8),
        (found.colours, (16, 16, 3), np.uint8),
    ):
        assert (values.shape, values.dtype) == (shape, dtype)
    assert max(found.thumbnail.shape) == min(THUMBNAIL_SIDE, max(found.size))
    assert ((found.points >= 0) & (found.points < found.size)).all()
    assert (found.sizes > 0).all()
    assert ((found.angles >= 0) & (found.angles <= 360)).all()


def test_form_and_length_on_photos():
    for name in NAMES:
        found = local_features(photo(name))
        check_form(found)
        assert len(found) > 100
        length = np.linalg.norm(found.descriptors.astype(float), axis=1)
        np.testing.assert_allclose(length, 255, rtol=0.01)  # after rounding
        assert found.vectors.dtype == found.mirrored_vectors.dtype == np.float32
        np.testing.assert_allclose(found.vectors * 255, found.descriptors, atol=1e-4)
        np.testing.assert_allclose(found.mirrored_vectors * 255, mirrored(found.descriptors), atol=1e-4)


def test_a_point_is_where_it_is_drawn():
    """x before y, in pixels."""
    across, down = np.meshgrid(np.arange(200), np.arange(120))
    blob = 250 * np.exp(-((across - 140) ** 2 + (down - 50) ** 2) / (2 * 5.0**2))
    found = local_features(np.repeat(blob.astype(np.uint8)[..., None], 3, axis=2))
    np.testing.assert_allclose(found.points[0], [140, 50], atol=0.5)
    assert found.size == (200, 120)


def test_large_pictures_are_shrunk_first():
    large = cv2.resize(photo("S000"), (960, 640))
    found, small = local_features(large), local_features(fit_within(large, LONGEST_SIDE))
    assert found.size == (384, 256)
    assert found.thumbnail.shape == (85, 128)
    assert (found.points == small.points).all()
    assert (found.descriptors == small.descriptors).all()


def test_small_pictures_keep_their_size():
    small = photo("S000")[:90, :110]
    found = local_features(small)
    assert found.size == (110, 90)
    assert (found.thumbnail == cv2.cvtColor(np.ascontiguousarray(small), cv2.COLOR_RGB2GRAY)).all()


def test_red_and_blue_are_told_apart():
    """Grey is taken of RGB: green counts most, blue least."""
    red, green, blue = (np.zeros((16, 16, 3), np.uint8) for _ in range(3))
    for channel, picture in enumerate((red, green, blue)):
        picture[..., channel] = 200
    assert [int(local_features(picture).thumbnail[0, 0]) for picture in (red, green, blue)] == [60, 117, 23]


@pytest.mark.parametrize("name", NAMES[:3])
def test_strongest_first(name, monkeypatch):
    pixels = photo(name)
    detected = cv2.SIFT.create(contrastThreshold=local.CONTRAST).detect(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    strength = {(*point.pt, point.size, point.angle): point.response for point in detected}
    all_of_them = local_features(pixels)
    rows = np.column_stack([all_of_them.points, all_of_them.sizes, all_of_them.angles]).tolist()
    order = [strength[tuple(row)] for row in rows]
    assert order == sorted(order, reverse=True)
    assert order == sorted(strength.values(), reverse=True)[: len(order)]
    monkeypatch.setattr(local, "MAX_FEATURES", 40)
    few = local_features(pixels)
    assert len(few) == 40
    assert (few.points == all_of_them.points[:40]).all()


def test_the_picture_is_left_alone_and_may_be_a_view():
    pixels = photo("S020")
    view, copy = pixels[::-1, ::-1], pixels.copy()
    seen, copied = local_features(view), local_features(np.ascontiguousarray(view))
    assert (pixels == copy).all()
    assert (seen.points == copied.points).all()
    assert (seen.descriptors == copied.descriptors).all()


def test_root_by_hand():
    given = np.zeros((2, 128), np.float32)
    given[0, :2] = 1, 3
    root = local._root(given)
    assert root[0, :3].tolist() == [128, 221, 0]  # 255 √¼ and 255 √¾
    assert not root[1].any()
