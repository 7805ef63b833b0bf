"""Where two pictures show the same: copies made here, so that it is known which point shows which."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isc.match.verification import affine_fit
from isc.match.verification import alignment as geometry
from isc.match.verification.affine_fit import LEAST_INLIERS, log_nfa
from isc.match.verification.alignment import Alignment, agreement, compare
from isc.match.verification.features import LocalFeatures, flatness, local_features, mirrored
from isc.match.verification.quantities import EVIDENCE
from isc.photos.decode import Pixels, encode_jpeg, read_image
from isc.photos.folders import SAMPLE, list_images
from isc.photos.resizing import fit_within

PHOTOS = list_images(SAMPLE)
SOME = list(PHOTOS)[::6]
NAMES = ["S000", "S020", "S040", "S070", "S080", "S100"]
UNIT = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
GRID = np.stack(np.meshgrid(*[(np.arange(100) + 0.5) / 100] * 2), axis=-1).reshape(-1, 2)


@functools.cache
def photo(name: str) -> Pixels:
    pixels = read_image(PHOTOS[name])
    pixels.flags.writeable = False
    return pixels


@functools.cache
def described(name: str) -> LocalFeatures:
    return local_features(photo(name))


@dataclass(frozen=True)
class Copy:
    pixels: Pixels
    matrix: np.ndarray  # fractions of the photo → fractions of the copy, homogeneous
    mirrored: bool = False
    miss: float = 0.01  # how far the map found may be off, as a fraction
    least: float = 0.95  # of the region found, that is part of the known one, and the other way round


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    x, y, w = matrix @ np.vstack([points.T, np.ones(len(points))])
    return np.stack([x / w, y / w], axis=1)


def fractions(pixels: Pixels) -> np.ndarray:
    """From pixels, with centres at whole numbers, to fractions: the left edge 0, the right edge 1."""
    height, width = pixels.shape[:2]
    return np.array([[1 / width, 0, 0.5 / width], [0, 1 / height, 0.5 / height], [0, 0, 1]])


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The map that takes the corners of a box to those of the whole."""
    width, height = right - left, bottom - top
    return np.array([[1 / width, 0, -left / width], [0, 1 / height, -top / height], [0, 0, 1]])


def same(pixels: Pixels) -> Copy:
    return Copy(pixels, np.eye(3), least=0.999)


def cropped(pixels: Pixels) -> Copy:
    height, width = pixels.shape[:2]
    top, bottom, left, right = round(0.1 * height), round(0.8 * height), round(0.25 * width), width
    return Copy(
        pixels[top:bottom, left:right], box(left / width, top / height, right / width, bottom / height), least=0.97
    )


def squeezed(pixels: Pixels) -> Copy:
    return Copy(cv2.resize(pixels, (200, 200), interpolation=cv2.INTER_AREA), np.eye(3))


def enlarged(pixels: Pixels) -> Copy:
    """So far that features are taken of it shrunk again."""
    return Copy(cv2.resize(pixels, None, fx=1.7, fy=1.7), np.eye(3))


def flipped(pixels: Pixels) -> Copy:
    return Copy(pixels[:, ::-1], np.array([[-1, 0, 1], [0, 1, 0], [0, 0, 1]]), mirrored=True)


def upside_down(pixels: Pixels) -> Copy:
    """Mirrored top to bottom."""
    return Copy(pixels[::-1], np.array([[1, 0, 0], [0, -1, 1], [0, 0, 1]]), mirrored=True)


def half_turn(pixels: Pixels) -> Copy:
    return Copy(pixels[::-1, ::-1], np.array([[-1, 0, 1], [0, -1, 1], [0, 0, 1]]))


def quarter_turn(pixels: Pixels) -> Copy:
    """Counter-clockwise: the photo's right edge is the copy's upper one."""
    return Copy(np.rot90(pixels), np.array([[0, 1, 0], [-1, 0, 1], [0, 0, 1]]))


def rotated(pixels: Pixels) -> Copy:
    """By 17°, corners cut off."""
    height, width = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 17, 1)
    copy = cv2.warpAffine(pixels, turn, (width, height))
    return Copy(copy, fractions(copy) @ np.vstack([turn, [0, 0, 1]]) @ np.linalg.inv(fractions(pixels)))


def pasted(pixels: Pixels) -> Copy:
    """At 40 % on another photo."""
    copy = photo("S050" if pixels is not photo("S050") else "S051").copy()
    height, width = copy.shape[:2]
    small = cv2.resize(pixels, (round(0.4 * width), round(0.4 * height)), interpolation=cv2.INTER_AREA)
    top, left = round(0.3 * height), round(0.45 * width)
    bottom, right = top + small.shape[0], left + small.shape[1]
    copy[top:bottom, left:right] = small
    there = np.linalg.inv(box(left / width, top / height, right / width, bottom / height))
    return Copy(copy, there, miss=0.015, least=0.9)


def in_perspective(pixels: Pixels) -> Copy:
    """A right edge that is a tenth further away; no affine map is quite right."""
    height, width = pixels.shape[:2]
    there = np.array([[0, 0], [1, 0.05], [1, 0.95], [0, 1]])
    size = np.array([width, height])
    bent = cv2.getPerspectiveTransform((UNIT * size).astype(np.float32), (there * size).astype(np.float32))
    copy = cv2.warpPerspective(pixels, bent, (width, height))
    return Copy(copy, np.diag([*(1 / size), 1]) @ bent @ np.diag([*size, 1]), miss=0.07, least=0.88)


def compressed(pixels: Pixels) -> Copy:
    data = np.frombuffer(encode_jpeg(pixels, quality=10), np.uint8)
    return Copy(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.eye(3))


def blurred(pixels: Pixels) -> Copy:
    return Copy(cv2.GaussianBlur(pixels, (0, 0), 3), np.eye(3), miss=0.03, least=0.92)


def written_on(pixels: Pixels) -> Copy:
    copy = pixels.copy()
    for line, text in enumerate(("IF YOU SEE THIS", "ON A PHOTO OF MINE", "IT IS A COPY OF IT")):
        cv2.putText(copy, text, (5, 50 + 60 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 3)
    return Copy(copy, np.eye(3))


def darkened(pixels: Pixels) -> Copy:
    return Copy((255 * (pixels / 255.0) ** 2 * 0.7).astype(np.uint8), np.eye(3))


COPIES = [
    same, cropped, squeezed, enlarged, flipped, upside_down, half_turn, quarter_turn, rotated, pasted, in_perspective,
    compressed, blurred, written_on, darkened,
]  # fmt: skip


@functools.cache
def copied(edit: Callable[[Pixels], Copy], name: str) -> tuple[Copy, LocalFeatures]:
    copy = edit(photo(name))
    return copy, local_features(copy.pixels)


def value(evidence: np.ndarray, name: str) -> float:
    return float(evidence[EVIDENCE.index(name)])


def inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which points lie in a convex polygon: on the same side of all its edges."""
    edges = np.roll(polygon, -1, axis=0) - polygon
    apart = points[:, None] - polygon
    sides = edges[:, 0] * apart[..., 1] - edges[:, 1] * apart[..., 0]
    return (sides >= 0).all(axis=1) | (sides <= 0).all(axis=1)


def within(points: np.ndarray) -> np.ndarray:
    return ((points >= 0) & (points <= 1)).all(axis=1)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("edit", COPIES)
def test_a_copy_is_found_and_its_map_is_right(edit, name):
    copy, features = copied(edit, name)
    evidence, found = compare(features, described(name))
    assert found is not None
    assert found.mirrored == copy.mirrored
    shown = GRID[within(moved(GRID, copy.matrix))]
    miss = np.linalg.norm(moved(shown, found.matrix) - moved(shown, copy.matrix), axis=1)
    assert miss.max() < copy.miss
    assert value(evidence, "inliers") == found.inliers >= LEAST_INLIERS
    check_regions(found, copy, evidence)


def check_regions(found: Alignment, copy: Copy, evidence: np.ndarray) -> None:
    """Corner by corner the same points, inside both pictures, and all that the copy shows of the photo."""
    assert found.query_region.shape == found.reference_region.shape
    for region in (found.query_region, found.reference_region):
        assert ((region >= 0) & (region <= 1)).all()
    np.testing.assert_allclose(moved(found.reference_region, found.matrix), found.query_region, atol=1e-6)
    np.testing.assert_allclose(moved(found.reference_region, copy.matrix), found.query_region, atol=copy.miss)
    in_photo, in_copy = within(moved(GRID, copy.matrix)), within(moved(GRID, np.linalg.inv(copy.matrix)))
    assert overlap(inside(GRID, found.reference_region), in_photo) >= copy.least
    assert overlap(inside(GRID, found.query_region), in_copy) >= copy.least
    assert value(evidence, "area_reference") == pytest.approx(in_photo.mean(), abs=1 - copy.least)
    assert value(evidence, "area_query") == pytest.approx(in_copy.mean(), abs=1 - copy.least)


@functools.cache
def unrelated() -> list[np.ndarray]:
    return [compare(described(a), described(b))[0] for a, b in itertools.combinations(SOME, 2)]


@pytest.mark.slow
def test_unrelated_photos_are_less_surprising_than_any_copy():
    copies = [compare(copied(edit, name)[1], described(name))[0] for edit in COPIES for name in NAMES]
    most = max(value(evidence, "log_nfa") for evidence in unrelated())
    assert min(value(evidence, "log_nfa") for evidence in copies) > 2 * most


def test_few_unrelated_photos_have_an_alignment():
    inliers = np.array([value(evidence, "inliers") for evidence in unrelated()])
    assert np.mean(inliers > 0) < 0.02
    assert inliers.max() < 8
    values = np.array([value(evidence, "log_nfa") for evidence in unrelated()])
    assert np.mean(values > 1) < 0.01  # a bound on chance holds: a log_nfa of 1 is one in ten at most
    assert values.max() < 3


def test_the_whole_of_a_photo_shows_the_whole_of_itself():
    for name in SOME:
        evidence, found = compare(described(name), described(name))
        assert found is not None
        np.testing.assert_allclose(found.matrix, np.eye(3), atol=1e-3)
        assert value(evidence, "area_query") > 0.995
        assert value(evidence, "area_reference") > 0.995


@pytest.mark.parametrize("edit", [cropped, flipped, rotated, pasted, quarter_turn])
def test_swapped_pictures_give_the_inverse_map(edit):
    for name in NAMES[:3]:
        _, features = copied(edit, name)
        there, back = compare(features, described(name))[1], compare(described(name), features)[1]
        assert there is not None
        assert back is not None
        assert there.mirrored == back.mirrored
        both = moved(moved(there.reference_region, there.matrix), back.matrix)
        np.testing.assert_allclose(both, there.reference_region, atol=0.02)
        same_region = overlap(inside(GRID, there.query_region), inside(GRID, back.reference_region))
        assert same_region > 0.9


def test_evidence_says_what_its_columns_say():
    name = "S040"
    _, features = copied(rotated, name)
    evidence, found = compare(features, described(name))
    assert evidence.dtype == np.float32
    assert evidence.shape == (len(EVIDENCE),)
    assert value(evidence, "features_query") == len(features)
    assert value(evidence, "features_reference") == len(described(name))
    assert value(evidence, "inlier_share") == pytest.approx(found.inliers / value(evidence, "tentative"), rel=1e-6)
    for side in ("query", "reference"):  # points lie among one another inside what is shown
        assert 0 < value(evidence, f"spread_{side}") < value(evidence, f"area_{side}") < 1
    assert 0.5 < value(evidence, "agreement") <= 1
    assert 0.5 < value(evidence, "agreeing_share") <= 1
    grays = features.thumbnail, described(name).thumbnail
    told = [value(evidence, name) for name in ("agreement", "agreeing_share", "contradiction")]
    assert told == np.float32(agreement(found.matrix, *grays)).tolist()


def test_no_features_are_evidence_of_nothing():
    blank = local_features(np.full((60, 80, 3), 128, np.uint8))
    for pair in ((blank, blank), (blank, described("S000")), (described("S000"), blank)):
        evidence, found = compare(*pair)
        assert found is None
        assert evidence[:2].tolist() == [len(one) for one in pair]
        assert not evidence[2:12].any()


def test_evidence_is_the_same_every_time():
    for edit in (cropped, pasted):
        one, other = (compare(local_features(edit(photo("S020")).pixels), described("S020")) for _ in range(2))
        assert one[0].tobytes() == other[0].tobytes()
        assert one[1].matrix.tobytes() == other[1].matrix.tobytes()


def test_repeated_texture():
    """Every point has many alike: whatever map is found, it lays the texture on itself."""
    tile = photo("S040")[60:92, 100:132]
    one, other = np.tile(tile, (6, 9, 1)), np.tile(tile, (8, 5, 1))[7:, 11:]
    for query, reference, offset in ((one, one, [0, 0]), (one, other, [11, 7]), (other, one, [-11, -7])):
        evidence, found = compare(local_features(query), local_features(reference))
        assert np.isfinite(evidence).all()
        assert (found is None) == (value(evidence, "inliers") == 0)
        if found is not None:
            assert not found.mirrored
            pixels = np.linalg.inv(fractions(query)) @ found.matrix @ fractions(reference)
            np.testing.assert_allclose(pixels[:2, :2], np.eye(2), atol=0.02)
            middle = np.array([[reference.shape[1] / 2, reference.shape[0] / 2]])
            off = (moved(middle, pixels) - middle - offset + 16) % 32 - 16
            assert np.abs(off).max() < 1.5


# pairs of features whose map is known exactly, because nothing else is in them


def drawn(points: np.ndarray, descriptors: np.ndarray, *, angles: object, sizes: object, side: int) -> LocalFeatures:
    count = len(points)
    return LocalFeatures(
        points=points.astype(np.float32),
        sizes=np.full(count, sizes, np.float32),
        angles=np.broadcast_to(np.asarray(angles, np.float32), count).copy(),
        descriptors=descriptors,
        thumbnail=np.zeros((128, 128), np.uint8),
        colours=np.zeros((8, 8, 3), np.uint8),
        size=(side, side),
    )


def any_descriptors(count: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).exponential(size=(count, 128)) ** 2
    return np.rint(255 * np.sqrt(values / values.sum(axis=1, keepdims=True))).astype(np.uint8)


def planted(affine: np.ndarray, *, right: int, wrong: int, seed: int, side: int = 300) -> tuple[LocalFeatures, ...]:
    """Query and reference of one size whose first `right` features fit the affine map [2, 3] of pixels, and whose
    others are alike too, but anywhere and anyhow."""
    random = np.random.default_rng(seed)
    descriptors = any_descriptors(right + wrong, seed)
    there = random.uniform(10, side - 10, (right + wrong, 2))
    here = there @ affine[:, :2].T + affine[:, 2]
    here[right:] = random.uniform(10, side - 10, (wrong, 2))
    flip = np.linalg.det(affine[:, :2]) < 0
    angles = random.uniform(0, 360, right + wrong)
    ways = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1) @ affine[:, :2].T
    turned = np.degrees(np.arctan2(ways[:, 1], ways[:, 0]))
    turned[right:] = random.uniform(0, 360, wrong)
    scale = math.sqrt(abs(np.linalg.det(affine[:, :2])))
    seen = mirrored(descriptors) if flip else descriptors
    query = drawn(here, seen, angles=turned % 360, sizes=5 * scale, side=side)
    return query, drawn(there, descriptors, angles=angles, sizes=5.0, side=side)


def similarity(turn: float, scale: float, shift: tuple[float, float], *, flip: bool = False) -> np.ndarray:
    c, s = scale * math.cos(turn), scale * math.sin(turn)
    linear = np.array([[c, -s], [s, c]]) @ (np.diag([-1, 1]) if flip else np.eye(2))
    return np.hstack([linear, np.array(shift)[:, None]])


def in_fractions(affine: np.ndarray, side: int) -> np.ndarray:
    to = np.array([[1 / side, 0, 0.5 / side], [0, 1 / side, 0.5 / side], [0, 0, 1]])
    return to @ np.vstack([affine, [0, 0, 1]]) @ np.linalg.inv(to)


@pytest.mark.parametrize("flip", [False, True])
def test_eight_right_pairs_are_found_among_two_hundred(flip):
    for seed in range(10):
        affine = similarity(0.3 * seed, 0.8, (300 if flip else 30, 40), flip=flip)
        evidence, found = compare(*planted(affine, right=8, wrong=192, seed=seed))
        assert value(evidence, "tentative") == 200
        assert found is not None
        assert found.mirrored == flip
        assert 8 <= found.inliers <= 10
        miss = moved(UNIT, found.matrix) - moved(UNIT, in_fractions(affine, 300))
        assert np.abs(miss).max() < 0.05


def test_a_map_of_whole_pixels_is_one_of_whole_pictures():
    """The edges of a picture lie half a pixel outside the centres of its outermost pixels."""
    side = 300
    for affine, expected in (
        ([[1, 0, 0], [0, 1, 0]], np.eye(3)),
        ([[-1, 0, side - 1], [0, 1, 0]], [[-1, 0, 1], [0, 1, 0], [0, 0, 1]]),
        ([[0, 1, 0], [-1, 0, side - 1]], [[0, 1, 0], [-1, 0, 1], [0, 0, 1]]),
        ([[0.5, 0, -0.25], [0, 0.5, -0.25]], np.diag([0.5, 0.5, 1])),  # pixels 0 and 1 are averaged to pixel 0
    ):
        evidence, found = compare(*planted(np.array(affine, float), right=40, wrong=0, seed=0, side=side))
        np.testing.assert_allclose(found.matrix, expected, atol=1e-5)
        assert value(evidence, "area_reference") == pytest.approx(1, abs=1e-4)


@settings(deadline=None, max_examples=60)
@given(
    turn=st.one_of(st.sampled_from([0, math.pi / 2, math.pi]), st.floats(0, 2 * math.pi)),
    scale=st.one_of(st.just(1.0), st.floats(0.5, 2)),
    x=st.one_of(st.just(150.0), st.floats(80, 220)),
    y=st.one_of(st.just(150.0), st.floats(80, 220)),
    flip=st.booleans(),
)
def test_regions_are_what_both_pictures_show(turn, scale, x, y, flip):
    """The middle of the reference shown at (x, y); edges that coincide are as likely as any other.

    An edge through the middle of the cells that areas are counted in may cost a row of them on each side: 4 %.
    """
    linear = similarity(turn, scale, (0, 0), flip=flip)[:, :2]
    affine = np.hstack([linear, (np.array([x, y]) - linear @ [149.5, 149.5] - 0.5)[:, None]])
    evidence, found = compare(*planted(affine, right=60, wrong=0, seed=1))
    assert found is not None
    assert found.mirrored == flip
    copy = Copy(np.zeros((300, 300, 3), np.uint8), in_fractions(affine, 300), flip, miss=1e-4, least=0.95)
    np.testing.assert_allclose(found.matrix, copy.matrix, atol=1e-4)
    check_regions(found, copy, evidence)


def test_spread_is_the_hull_of_the_inliers():
    query, reference = planted(similarity(0.2, 1, (5, 5)), right=15, wrong=30, seed=4)
    reference = replace(reference, size=(400, 600))  # each picture has its own size
    evidence, found = compare(query, reference)
    assert found.inliers == 15
    assert value(evidence, "inlier_share") == pytest.approx(15 / 45)
    for side, features in (("query", query), ("reference", reference)):
        hull = cv2.convexHull(features.points[:15] / np.float32(features.size)).reshape(-1, 2).astype(np.float64)
        (x, y), (x_next, y_next) = hull.T, np.roll(hull, -1, axis=0).T
        assert value(evidence, f"spread_{side}") == pytest.approx(abs((x * y_next - y * x_next).sum()) / 2, rel=1e-4)


def test_the_order_of_features_does_not_matter():
    name = "S000"
    _, query = copied(rotated, name)
    evidence, found = compare(query, described(name))
    other, again = compare(shuffled(query, 1), shuffled(described(name), 2))
    np.testing.assert_allclose(other, evidence, rtol=0.01)
    np.testing.assert_allclose(again.matrix, found.matrix, atol=1e-3)


def shuffled(features: LocalFeatures, seed: int) -> LocalFeatures:
    order = np.random.default_rng(seed).permutation(len(features))
    columns = ("points", "sizes", "angles", "descriptors")
    return replace(features, **{name: getattr(features, name)[order] for name in columns})


def test_points_at_one_place_are_one_point():
    descriptors = any_descriptors(50, 0)
    one = drawn(np.full((50, 2), 100.0), descriptors, angles=0, sizes=5, side=300)
    evidence, found = compare(one, one)
    assert found is None
    assert value(evidence, "inliers") == 0
    spread = drawn(np.random.default_rng(0).uniform(0, 300, (50, 2)), descriptors, angles=0, sizes=5, side=300)
    assert compare(one, spread)[1] is None
    assert compare(spread, one)[1] is None


def test_features_of_one_place_count_once():
    """A point has a feature for each of its directions; that they agree as well is no news."""
    query, reference = planted(similarity(0.2, 1, (5, 5)), right=12, wrong=0, seed=3)
    twice = [replace(one, points=np.repeat(one.points[:6], 2, axis=0)) for one in (query, reference)]
    _, found = compare(*twice)
    assert found is not None
    assert found.inliers == 6


def test_points_on_a_line_give_no_implausible_map():
    """What it says across the line is of no account, but along it must be right."""
    along = np.linspace(10, 290, 50)
    line = drawn(np.stack([along, 0.4 * along], axis=1), any_descriptors(50, 0), angles=0, sizes=5, side=300)
    for seed in range(10):
        noise = np.random.default_rng(seed).uniform(-1, 1, (50, 2)).astype(np.float32)
        for query in (line, replace(line, points=line.points + noise)):
            _, found = compare(query, line)
            if found is not None:
                assert_plausible(found)
                miss = moved((line.points + 0.5) / 300, found.matrix) - (line.points + 0.5) / 300
                assert np.abs(miss).max() < 0.016


def test_points_nearly_on_a_line_never_turn_a_picture_over():
    """Noise across the line says nothing; features as they are do not come of a mirrored picture."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        along, across = np.linspace(10, 290, 30), random.uniform(-2, 2, 30)
        descriptors = any_descriptors(30, seed)
        there = drawn(np.stack([along, 150 + across], axis=1), descriptors, angles=0, sizes=5, side=300)
        here = drawn(np.stack([along, 150 - across], axis=1), descriptors, angles=0, sizes=5, side=300)
        _, found = compare(here, there)
        if found is not None:
            assert not found.mirrored
            assert_plausible(found)


def assert_plausible(found: Alignment) -> None:
    """Of pictures of one square size."""
    large, small = np.linalg.svd(found.matrix[:2, :2], compute_uv=False)
    assert 0.1 <= small <= large <= 10
    assert large <= 4 * small * 1.001


@pytest.mark.parametrize("squeeze", [1.5, 3.0])
def test_squeezed_maps_are_found_and_implausible_ones_are_not(squeeze):
    affine = np.array([[1, 0, 0], [0, 1 / squeeze, 20]])
    _, found = compare(*planted(affine, right=60, wrong=0, seed=0))
    assert found is not None
    np.testing.assert_allclose(np.linalg.svd(found.matrix[:2, :2])[1], [1, 1 / squeeze], rtol=0.02)
    flat = np.array([[1, 0, 0], [0, 1 / 50, 100]])
    assert compare(*planted(flat, right=60, wrong=0, seed=0))[1] is None


# the parts


def test_plausible_maps():
    for large, small, plausible in (
        (1, 1, True), (9.9, 9.9, True), (10.1, 10.1, False), (0.101, 0.101, True), (0.1, 0.099, False),
        (1, 0.251, True), (1, 0.249, False), (2, 0.6, True), (2, 0.49, False),
    ):  # fmt: skip
        turns = [similarity(turn, 1, (0, 0))[:, :2] for turn in (0.3, 1.9)]
        affine = np.hstack([turns[0] @ np.diag([large, small]) @ turns[1], np.full((2, 1), 7.0)])
        assert affine_fit.plausible(affine) == plausible


def test_votes_by_a_plain_loop():
    query, reference = planted(similarity(0.4, 1.3, (-40, -60)), right=15, wrong=25, seed=5)
    noise = np.random.default_rng(0).uniform(-8, 8, (40, 2))  # so that misses lie on either side of what is borne
    query = replace(query, points=(query.points + noise).astype(np.float32))
    pairs = affine_fit.tentative_pairs(query, reference, flip=False)
    alike, near = affine_fit.votes_of(pairs)
    count = len(pairs.query)
    assert count == 40
    assert alike.shape == near.shape == (count, count)
    for i, j in itertools.product(range(count), repeat=2):
        turn = (pairs.turn[i] - pairs.turn[j]) % (2 * math.pi)
        turn = min(turn, 2 * math.pi - turn)
        stretch = abs(math.log(pairs.scale[i] / pairs.scale[j]))
        agree = turn < affine_fit.ANGLE_TOLERANCE and stretch < affine_fit.SCALE_TOLERANCE
        c, s = (pairs.scale[i] * f(pairs.turn[i]) for f in (math.cos, math.sin))
        dx, dy = pairs.reference[j] - pairs.reference[i]
        miss = math.dist(pairs.query[i] + [c * dx - s * dy, s * dx + c * dy], pairs.query[j])
        assert alike[i, j] == agree
        assert near[i, j] == (agree and miss < 2 * affine_fit.TOLERANCE * 300)
    assert near.any(axis=0).all()  # each at least by itself
    assert near.sum() < near.size


def test_alike_by_a_plain_loop():
    query, reference = any_descriptors(30, 0), any_descriptors(40, 1)
    reference[:20] = query[:20] // 8 * 8  # nearly the same
    query, reference = (np.asarray(one / np.float32(255), np.float32) for one in (query, reference))
    q, r = affine_fit.similar(query, reference)
    expected = []
    for row, one in enumerate(query.astype(np.float64)):
        # of unit vectors, twice this is the squared distance
        apart = sorted((max(0.0, 1 - float(one @ other)), i) for i, other in enumerate(reference))
        ratio = math.sqrt(apart[0][0] / apart[1][0])
        if ratio < affine_fit.RATIO:
            expected.append((ratio, row, apart[0][1]))
    assert list(zip(q.tolist(), r.tolist(), strict=True)) == [(row, other) for _, row, other in sorted(expected)]
    assert q.tolist()[:20] != list(range(20))
    assert set(q.tolist()[:20]) == set(range(20))


def tail(least: int, count: int, chance: float) -> float:
    """Natural logarithm of the binomial's tail, term by term."""
    terms = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        + k * math.log(chance) + (count - k) * math.log1p(-chance)
        for k in range(least, count + 1)
    ]  # fmt: skip
    return float(np.logaddexp.reduce(terms))


@settings(deadline=None, max_examples=80)
@given(tentative=st.integers(4, 200), share=st.floats(0, 1), chance=st.floats(1e-6, 0.05))
def test_log_nfa_is_a_bound_of_the_binomial_tail(tentative, share, chance):
    inliers = min(tentative, max(4, round(share * tentative)))
    found = log_nfa(inliers, tentative, chance)
    # all others agree by chance, for one of so many choices of the two pairs that are spent on the map
    exact = -(tail(inliers - 2, tentative - 2, chance) + 2 * math.log(tentative)) / math.log(10)
    assert 0 <= found <= max(0.0, exact) + 1e-9
    assert found >= exact - math.log10(tentative) - 1  # by which Chernoff's bound is loose at most


def test_log_nfa_by_hand():
    assert log_nfa(12, 12, 0.01) == pytest.approx(20 - 2 * math.log10(12))
    apart = 0.5 * math.log(0.5 / 0.1) + 0.5 * math.log(0.5 / 0.9)
    assert log_nfa(12, 22, 0.1) == pytest.approx((20 * apart - 2 * math.log(22)) / math.log(10))


@pytest.mark.parametrize("chance", [1e-5, 1e-3, 0.05])
def test_log_nfa_rises_with_inliers_and_falls_with_tentative_pairs_and_chance(chance):
    for tentative in (4, 10, 50, 200):
        rising = [log_nfa(inliers, tentative, chance) for inliers in range(tentative + 1)]
        assert rising == sorted(rising)
    for inliers in (4, 10, 40):
        falling = [log_nfa(inliers, tentative, chance) for tentative in range(inliers, 201)]
        assert falling == sorted(falling, reverse=True)
        assert log_nfa(inliers, 60, chance / 2) >= log_nfa(inliers, 60, chance)


def test_log_nfa_is_zero_at_chance():
    assert log_nfa(12, 102, 0.1) == 0
    assert log_nfa(2, 2, 0.01) == log_nfa(0, 200, 0.01) == 0


def gray(name: str) -> np.ndarray:
    return described(name).thumbnail


def test_agreement_of_a_picture_with_itself_and_its_negative():
    for name in NAMES:
        correlation, share, _ = agreement(np.eye(3), gray(name), gray(name))
        assert 0.8 < correlation <= 1
        assert 0.8 < share <= 1
        negative, none, contradiction = agreement(np.eye(3), 255 - gray(name), gray(name))
        assert negative == pytest.approx(-correlation, abs=1e-3)
        assert none == 0
        assert contradiction > 0.2
        dim, _, _ = agreement(np.eye(3), (gray(name) * 0.6 + 40).astype(np.uint8), gray(name))
        assert dim > 0.9 * correlation


def test_two_windows_with_other_contents_contradict_each_other_in_one_compact_part():
    """The frame agrees; a spot of text or of noise is no contradiction."""
    page = cv2.resize(gray("S000"), (128, 96))
    other, noisy = page.copy(), page.copy()
    other[20:70, 30:100] = cv2.resize(gray("S001"), (70, 50))
    noisy[::9, ::9] = 255 - noisy[::9, ::9]
    assert agreement(np.eye(3), page, page)[2] == 0
    assert agreement(np.eye(3), noisy, page)[2] < 0.02
    assert 0.1 < agreement(np.eye(3), other, page)[2] < 0.35


def test_flatness_and_colours_are_told_without_a_map():
    white, picture = np.full((60, 80, 3), 255, np.uint8), photo("S000")
    red, green = (np.full((60, 80, 3), colour, np.uint8) for colour in ((200, 30, 30), (30, 130, 30)))
    evidence, found = compare(local_features(red), local_features(green))
    assert found is None
    assert value(evidence, "colour_difference") == pytest.approx((170 + 100) / 3 / 255, abs=1e-3)
    assert value(evidence, "flat") == 1
    assert value(compare(local_features(red), local_features(red))[0], "colour_difference") == 0
    evidence, _ = compare(local_features(picture), local_features(picture))
    assert value(evidence, "flat") < 0.5
    assert value(evidence, "light") > 0.4
    dark = (picture * 0.15).astype(np.uint8)
    assert value(compare(local_features(dark), local_features(picture))[0], "light") < 0.2
    assert flatness(white[..., 0]) == 1


def test_agreement_is_nearly_one_where_there_is_contrast():
    noise = np.random.default_rng(0).integers(0, 256, (90, 128), np.uint8)
    correlation, share, _ = agreement(np.eye(3), noise, noise)
    assert correlation > 0.99
    assert share == 1


def test_agreement_of_unrelated_photos_is_about_zero():
    found = np.array([agreement(np.eye(3), gray(a), gray(b)) for a, b in itertools.combinations(SOME[:12], 2)])
    assert abs(found[:, 0].mean()) < 0.1
    assert np.abs(found[:, 0]).max() < 0.4
    assert found[:, 1].max() < 0.5


def test_agreement_without_overlap_is_zero():
    shifted = np.array([[1, 0, 2], [0, 1, 0], [0, 0, 1.0]])
    assert agreement(shifted, gray("S000"), gray("S000")) == (0, 0, 0)
    tiny = np.diag([0.02, 0.02, 1])
    assert agreement(tiny, gray("S000"), gray("S000")) == (0, 0, 0)
    one_pixel = np.zeros((1, 1), np.uint8)
    assert agreement(np.eye(3), one_pixel, one_pixel) == (0, 0, 0)


@pytest.mark.parametrize("edit", [flipped, upside_down, half_turn, quarter_turn])
def test_agreement_is_the_same_for_turned_and_mirrored_pictures(edit):
    """To the pixel: where the map were half a pixel off, fine texture would agree no more."""
    for name in NAMES[:3]:
        copy = edit(gray(name))
        turned, _, _ = agreement(copy.matrix, np.ascontiguousarray(copy.pixels), gray(name))
        assert turned == pytest.approx(agreement(np.eye(3), gray(name), gray(name))[0], abs=1e-3)


def test_agreement_looks_at_what_both_show_only():
    name = "S040"
    copy, _ = copied(pasted, name)
    query = cv2.cvtColor(fit_within(copy.pixels, 128), cv2.COLOR_RGB2GRAY)
    there, _, _ = agreement(copy.matrix, query, gray(name))
    elsewhere, _, _ = agreement(np.array([[1, 0, -0.3], [0, 1, -0.2], [0, 0, 1]]) @ copy.matrix, query, gray(name))
    assert there > 0.6
    assert abs(elsewhere) < 0.3


def test_local_correlation_by_a_plain_loop():
    a, b = (gray(name)[:24, :31].astype(np.float32) for name in ("S000", "S020"))
    b = (a + b) / 2
    correlation, less, more = geometry._correlated(a, b)
    half = geometry.WINDOW // 2
    wide_a, wide_b = (np.pad(one.astype(np.float64), half, mode="reflect") for one in (a, b))
    for y, x in itertools.product(range(0, 24, 3), range(0, 31, 3)):
        window = np.s_[y : y + geometry.WINDOW, x : x + geometry.WINDOW]
        one, other = wide_a[window], wide_b[window]
        together = ((one - one.mean()) * (other - other.mean())).mean()
        expected = together / math.sqrt((one.var() + geometry.NOISE) * (other.var() + geometry.NOISE))
        assert correlation[y, x] == pytest.approx(expected, abs=2e-3)
        assert less[y, x] == pytest.approx(min(one.std(), other.std()), abs=0.05)
        assert more[y, x] == pytest.approx(max(one.std(), other.std()), abs=0.05)
