"""Versions of one picture among the references: which are found, and that they do not speak against one another."""

from __future__ import annotations

import csv
import shutil

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isc.data.matches import Matches
from isc.errors import InputError
from isc.evaluate.calibration.versions import (
    FIRST,
    NEAR,
    picture_by_distance,
    picture_of,
    read_versions,
    write_versions,
)
from isc.match.verification.alignment import compare
from isc.match.verification.features import local_features
from isc.match.verification.rivals import are_versions, part_of, picture_by_pixels
from isc.photos.decode import read_image
from tests.conftest import SAMPLE


def pairs_of(*rows: tuple[int, int, float]) -> Matches:
    """Build pairs of (query, reference, score); ids are Q0, Q1, … and R0, R1, …."""
    query, reference, score = (np.array(column) for column in zip(*rows, strict=True))
    ids = (
        np.array([f"{side}{at}" for at in range(int(of.max()) + 1)], object)
        for side, of in zip("QR", (query, reference), strict=True)
    )
    return Matches(*ids, query, reference, score.astype(float))


def resized(pixels: np.ndarray, share: float, quality: int) -> np.ndarray:
    small = cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return cv2.imdecode(cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)[:, :, ::-1]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 9), st.floats(0, 1)),
        min_size=1,
        max_size=25,
        unique_by=lambda row: row[:2],
    ),
    st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12),
)
def test_a_reference_shows_the_picture_of_the_best_one_it_is_a_version_of(rows, versions):
    """The slow twin goes through the likely pairs of each query, the best first."""
    pairs = pairs_of(*rows)
    likely = pairs.score >= 0.3
    same = {frozenset(pair) for pair in versions}

    def are_same(one, other):
        assert (pairs.query[one] == pairs.query[other]).all()
        both = zip(pairs.reference[one].tolist(), pairs.reference[other].tolist(), strict=True)
        return np.array([frozenset(pair) in same for pair in both], bool)

    expected = pairs.reference.copy()
    for query in range(3):
        mine = [row for row in range(len(pairs)) if pairs.query[row] == query and likely[row]]
        mine.sort(key=lambda row: (-pairs.score[row], pairs.reference[row]))
        for at, row in enumerate(mine):
            for before in mine[: min(at, FIRST)]:
                if frozenset((int(pairs.reference[row]), int(pairs.reference[before]))) in same:
                    expected[row] = expected[before]
                    break
    np.testing.assert_array_equal(picture_of(pairs, likely, are_same), expected)


def test_sizes_and_crops_are_versions_and_other_pictures_are_not():
    whole = read_image(SAMPLE / "S003.jpg")
    height, width = whole.shape[:2]
    crop = whole[height // 8 :, : width - width // 6]
    drawn_over = whole.copy()
    drawn_over[: height // 2] = read_image(SAMPLE / "S004.jpg")[0, 0]
    others = {
        "smaller": (resized(whole, 0.5, 50), True), "crop": (resized(crop, 0.8, 70), True),
        "half covered": (drawn_over, False), "another": (read_image(SAMPLE / "S004.jpg"), False),
    }  # fmt: skip
    own = local_features(whole)
    found = {name: compare(own, local_features(pixels))[0] for name, (pixels, _) in others.items()}
    told = are_versions(np.stack(list(found.values())))
    assert dict(zip(found, told.tolist(), strict=True)) == {name: expected for name, (_, expected) in others.items()}
    assert not are_versions(np.full((1, len(found["crop"])), np.nan, np.float32))[0], "not compared"


def test_pictures_are_found_by_pixels_and_files_that_are_gone_are_their_own(tmp_path):
    whole = read_image(SAMPLE / "S003.jpg")
    images = {
        "R0": SAMPLE / "S003.jpg",
        "R1": tmp_path / "small.png",
        "R2": SAMPLE / "S004.jpg",
        "R4": SAMPLE / "S003.jpg",
    }
    cv2.imwrite(str(images["R1"]), resized(whole, 0.6, 60)[:, :, ::-1])
    pairs = pairs_of((0, 0, 0.9), (0, 1, 0.8), (0, 2, 0.7), (0, 3, 0.6), (0, 4, 0.05), (1, 1, 0.9))
    found = picture_by_pixels(pairs, images, store=None, workers=1)
    assert found.tolist() == [0, 0, 2, 3, 4, 1], "R4 is unlikely, and so not compared"


def test_pictures_are_found_by_the_descriptors_of_references():
    vectors = np.zeros((4, 8), np.float32)
    near = np.sqrt(NEAR * 1.3)
    vectors[1, 0], vectors[2, 0], vectors[3, 1] = near * 0.99, 2 * near, 1.2
    pairs = pairs_of((0, 0, -0.5), (0, 1, -0.6), (0, 2, -0.7), (0, 3, -1.4), (1, 0, -0.1), (1, 1, -0.5))
    row, unrelated = pairs.reference, np.full(len(pairs), 1.3)
    found = picture_by_distance(pairs, vectors, row, unrelated)
    assert found.tolist() == [0, 0, 2, 3, 0, 1], "R2 is too far from R0 and R1 from Q1's R0, which Q1 is nearer to"


def corners(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def test_regions_side_by_side_are_parts_and_those_that_overlap_are_one():
    pairs = pairs_of(
        *((0, at, score) for at, score in enumerate((0.9, 0.8, 0.7, 0.6, 0.05, 0.5))), (1, 0, 0.9), (1, 1, 0.8)
    )
    regions = {
        0: corners(0.5, 0, 1, 1), 1: corners(0, 0, 0.5, 0.5), 2: corners(0, 0.52, 0.5, 1),
        3: corners(0, 0.1, 0.45, 0.5), 4: corners(0, 0, 0.1, 0.1), 6: corners(0, 0, 1, 1),
        7: corners(0.2, 0.2, 0.4, 0.4),
    }  # fmt: skip
    found = part_of(pairs, regions)
    assert found[[0, 4, 5]].tolist() == [0, 0, 0], "the likeliest, an unlikely one, and one without a region"
    assert found[1] == found[3] >= 2
    assert found[2] >= 2
    assert found[2] != found[1]
    assert found[[6, 7]].tolist() == [1, 1], "one within the other"
    chain = {0: corners(0, 0, 0.4, 1), 1: corners(0.6, 0, 1, 1), 2: corners(0.2, 0, 0.8, 1)}
    assert part_of(pairs, chain)[:3].tolist() == [0, 0, 0], "the third overlaps both"


def test_versions_come_back_from_their_file(tmp_path):
    pairs = pairs_of((0, 0, 0.9), (0, 1, 0.8), (0, 2, 0.7), (1, 0, 0.6), (1, 1, 0.5))
    assert read_versions(tmp_path, pairs) is None
    write_versions(tmp_path / "versions.csv", pairs, np.array([0, 0, 2, 0, 1]))
    assert (tmp_path / "versions.csv").read_text() == "query_id,reference_id,version_of\nQ0,R1,R0\n"
    found = read_versions(tmp_path, pairs)
    assert found is not None
    assert found[0] == found[1] == found[3]
    assert len({int(found[0]), int(found[2]), int(found[4])}) == 3
    (tmp_path / "versions.csv").write_text("query_id,reference_id\nQ0,R1\n")
    with pytest.raises(InputError, match=r"versions\.csv: row 1"):
        read_versions(tmp_path, pairs)


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [True, False], ids=["pixels", "distance"])
def test_a_run_names_versions_and_a_picture_in_many_sizes_is_probably_the_original(place, pixels):
    for folder in ("known", "asked"):
        (place / folder).mkdir()
    for number in range(4, 10):
        shutil.copy(SAMPLE / f"S{number:03d}.jpg", place / "known" / f"R{number}.jpg")
    whole = read_image(SAMPLE / "S003.jpg")
    for number in range(6):
        cv2.imwrite(str(place / "known" / f"size{number}.png"), resized(whole, 1 - number / 12, 90)[:, :, ::-1])
    height, width = whole.shape[:2]
    cv2.imwrite(str(place / "asked" / "Q0.jpg"), whole[height // 8 :, width // 8 :][:, ::-1, ::-1])
    for name in ("known", "asked"):
        place.done("extract", f"images={name}", f"output={name}.h5")
    pictures = ("track=matching", "query_images=asked", "reference_images=known") if pixels else ()
    place.done("match", "queries=asked.h5", "references=known.h5", "output=run", *pictures)
    with (place / "run" / "versions.csv").open(newline="") as file:
        named = list(csv.DictReader(file))
    assert {row["query_id"] for row in named} == {"Q0"}
    assert len({row["version_of"] for row in named}) == 1
    assert {row["reference_id"] for row in named} | {named[0]["version_of"]} == {f"size{at}" for at in range(6)}
    with (place / "run" / "probabilities.csv").open(newline="") as file:
        told = {row["reference_id"]: float(row["probability"]) for row in csv.DictReader(file)}
    assert min(told[f"size{at}"] for at in range(6)) > 0.9
    assert max(value for name, value in told.items() if name.startswith("R")) < 0.1
