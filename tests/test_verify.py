"""Local evidence on the sample photos: copies made here, so that it is known which point shows which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from isc import verify as module
from isc.descriptors import Matches
from isc.images import Pixels, fit_within, list_images, read_image, resize
from isc.verify import CHANCE_INLIERS, FULL_INLIERS, GAIN, Evidence, compare, features, gain, mirrored, verify

SAMPLE = Path(module.__file__).parent / "sample"
PHOTOS = list_images(SAMPLE)
NAMES = ["S000", "S010", "S020", "S030", "S040", "S048"]
Map = Callable[[np.ndarray], np.ndarray]  # points of the photo → points of the copy, as shares of width and height


@dataclass(frozen=True)
class Copy:
    pixels: Pixels
    where: Map
    seen: tuple[float, float, float, float]  # left, top, right, bottom of what the copy shows of the photo


def same(photo: Pixels) -> Copy:
    return Copy(photo, lambda p: p, (0, 0, 1, 1))


def cropped(photo: Pixels) -> Copy:
    height, width = photo.shape[:2]
    top, bottom, left, right = round(0.1 * height), round(0.8 * height), round(0.25 * width), width
    box = np.array([left / width, top / height, right / width, bottom / height])
    return Copy(photo[top:bottom, left:right], lambda p: (p - box[:2]) / (box[2:] - box[:2]), tuple(box))


def squeezed(photo: Pixels) -> Copy:
    return Copy(resize(photo, 200), lambda p: p, (0, 0, 1, 1))


def enlarged(photo: Pixels) -> Copy:
    return Copy(cv2.resize(photo, None, fx=1.7, fy=1.7), lambda p: p, (0, 0, 1, 1))


def flipped(photo: Pixels) -> Copy:
    return Copy(photo[:, ::-1], lambda p: np.abs([1.0, 0.0] - p), (0, 0, 1, 1))


def quarter_turn(photo: Pixels) -> Copy:
    return Copy(np.rot90(photo), lambda p: np.stack([p[:, 1], 1 - p[:, 0]], axis=1), (0, 0, 1, 1))


def upside_down_mirrored(photo: Pixels) -> Copy:
    return Copy(photo[::-1], lambda p: np.abs([0.0, 1.0] - p), (0, 0, 1, 1))


def rotated(photo: Pixels) -> Copy:
    """By 25°, on a canvas that holds all of it."""
    height, width = photo.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 25, 1)
    side = int(np.hypot(height, width)) + 1
    turn[:, 2] += [(side - width) / 2, (side - height) / 2]
    pixels = cv2.warpAffine(photo, turn, (side, side))
    return Copy(pixels, lambda p: ((p * [width, height]) @ turn[:, :2].T + turn[:, 2]) / side, (0, 0, 1, 1))


def pasted(photo: Pixels) -> Copy:
    """At half its size on grey."""
    height, width = (side // 2 for side in photo.shape[:2])
    pixels = np.full((photo.shape[0], photo.shape[1], 3), 128, np.uint8)
    top, left = photo.shape[0] // 4, photo.shape[1] // 3
    pixels[top : top + height, left : left + width] = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    offset = np.array([left, top]) / [photo.shape[1], photo.shape[0]]
    return Copy(pixels, lambda p: p / 2 + offset, (0, 0, 1, 1))


COPIES = [same, cropped, squeezed, enlarged, flipped, quarter_turn, upside_down_mirrored, rotated, pasted]


def save(folder: Path, pictures: Mapping[str, Pixels]) -> dict[str, Path]:
    for name, pixels in pictures.items():
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in pictures}


def matches(*rows: tuple[str, str, float], dtype: type = np.float32) -> Matches:
    query, reference, score = zip(*rows, strict=True)
    found = Matches.from_ids(query, reference, score)
    return Matches(found.query_ids, found.reference_ids, found.query, found.reference, found.score.astype(dtype))


@pytest.mark.parametrize("edit", COPIES)
def test_a_copy_is_found_and_its_region_is_right(edit, tmp_path):
    copies = {name: edit(read_image(PHOTOS[name])) for name in NAMES}
    queries = save(tmp_path, {name: copy.pixels for name, copy in copies.items()})
    given = matches(*((name, name, -1.0) for name in NAMES))
    found, evidence, problems = verify(given, queries, PHOTOS)
    assert problems == []
    assert set(evidence) == {(name, name) for name in NAMES}
    assert (found.score > -1).all()
    for name, copy in copies.items():
        one = evidence[name, name]
        assert one.inliers > CHANCE_INLIERS
        assert one.query_region.shape == one.reference_region.shape
        for region in (one.query_region, one.reference_region):
            assert ((region >= 0) & (region <= 1)).all()
        # corner by corner the same point, in the photo and in the copy
        np.testing.assert_allclose(copy.where(one.reference_region), one.query_region, atol=0.04)
        # and all of what the copy shows
        low, high = one.reference_region.min(axis=0), one.reference_region.max(axis=0)
        np.testing.assert_allclose([*low, *high], copy.seen, atol=0.04)


def test_unrelated_photos_give_none():
    described = [features(fit_within(read_image(path), 320)) for path in list(PHOTOS.values())[::8]]
    found = [(i, j) for i, q in enumerate(described) for j, r in enumerate(described) if i != j and compare(q, r)]
    assert found == []


def test_scores_of_supported_pairs_rise_and_others_stay(tmp_path):
    copy = save(tmp_path, {"copy": cropped(read_image(PHOTOS["S000"])).pixels})
    given = matches(*(("copy", name, -0.25 * i) for i, name in enumerate(["S010", "S000", "S020", "S030"])))
    found, evidence, problems = verify(given, copy, PHOTOS)
    assert problems == []
    assert list(evidence) == [("copy", "S000")]
    assert found.score.dtype == given.score.dtype
    assert found.score[[0, 2, 3]].tolist() == given.score[[0, 2, 3]].tolist()
    assert found.score[1] == pytest.approx(-0.25 + gain(evidence["copy", "S000"]))
    assert found.keys().tolist() == given.keys().tolist()
    assert given.score[1] == -0.25  # what was given is left alone


def test_result_does_not_depend_on_the_order_of_pairs(tmp_path):
    queries = save(tmp_path, {name: cropped(read_image(PHOTOS[name])).pixels for name in NAMES[:3]})
    rows = [(q, r, -0.1 * i) for i, (q, r) in enumerate((q, r) for q in NAMES[:3] for r in NAMES[:3])]
    here, evidence, _ = verify(matches(*rows), queries, PHOTOS)
    turned = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    there, other, _ = verify(matches(*turned), queries, PHOTOS)
    assert {here.pair(i): here.score[i] for i in range(9)} == {there.pair(i): there.score[i] for i in range(9)}
    assert set(evidence) == set(other) == {(name, name) for name in NAMES[:3]}


def test_missing_and_unreadable_pictures_keep_the_score_and_are_reported(tmp_path):
    (tmp_path / "torn.jpg").write_bytes(PHOTOS["S000"].read_bytes()[:2000])
    queries = {"good": PHOTOS["S000"], "torn": tmp_path / "torn.jpg"}
    references = {"S000": PHOTOS["S000"], "torn": tmp_path / "torn.jpg"}
    given = matches(
        ("good", "S000", -0.5), ("good", "absent", -0.6), ("good", "torn", -0.7),
        ("torn", "S000", -0.8), ("gone", "S000", -0.9), ("gone", "absent", -1.0),
    )  # fmt: skip
    found, evidence, problems = verify(given, queries, references)
    assert found.score[0] > -0.5
    assert found.score[1:].tolist() == given.score[1:].tolist()
    assert list(evidence) == [("good", "S000")]
    assert len(problems) == 3  # one line a picture: absent, gone, torn
    assert problems == sorted(problems)
    for name in ("'absent'", "'gone'", "torn.jpg"):
        assert sum(name in line for line in problems) == 1


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (64, 64), (300, 200)])
def test_blank_pictures(shape, tmp_path):
    blank = np.full((*shape, 3), 200, np.uint8)
    assert compare(features(blank), features(blank)) is None
    queries = save(tmp_path, {"blank": blank})
    found, evidence, problems = verify(matches(("blank", "S000", -1.0), ("blank", "blank", -1.0)), queries, {
        "S000": PHOTOS["S000"], "blank": queries["blank"]})  # fmt: skip
    assert found.score.tolist() == [-1.0, -1.0]
    assert (evidence, problems) == ({}, [])


def test_no_pairs():
    none = np.zeros(0, np.int64)
    empty = Matches(np.array(["Q"], object), np.array(["R"], object), none, none, np.zeros(0, np.float32))
    found, evidence, problems = verify(empty, {}, {})
    assert (len(found), evidence, problems) == (0, {}, [])


def test_progress_counts_queries(tmp_path):
    heard: list[tuple[int, int]] = []
    given = matches(("S000", "S000", 0.0), ("S010", "S010", 0.0), ("S000", "S010", 0.0))
    verify(given, PHOTOS, PHOTOS, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(1, 2), (2, 2)]


def test_gain_by_hand():
    def of(inliers: int) -> float:
        square = np.zeros((4, 2))
        return gain(Evidence(square, square, inliers))

    assert gain(None) == 0
    assert of(CHANCE_INLIERS + 1) == pytest.approx(GAIN)
    assert of(FULL_INLIERS) == of(10 * FULL_INLIERS) == pytest.approx(GAIN * (FULL_INLIERS - CHANCE_INLIERS))
    values = [of(n) for n in range(CHANCE_INLIERS + 1, 50)]
    assert values == sorted(values)
    assert min(values) > 0


def test_mirrored_by_hand():
    evidence = Evidence(np.array([[0.0, 0.2], [0.3, 1.0]]), np.array([[0.5, 0.5], [0.1, 0.1]]), 9)
    turned = mirrored(evidence)
    assert turned is not None
    np.testing.assert_allclose(turned.query_region, [[1.0, 0.2], [0.7, 1.0]])
    assert (turned.reference_region == evidence.reference_region).all()
    assert turned.inliers == 9
    assert mirrored(None) is None
