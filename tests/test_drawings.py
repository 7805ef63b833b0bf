"""Drawings of photos: queries without an alignment are compared once more, with line drawings of the references."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from isc.data.matches import Matches
from isc.match.verification import compare
from isc.match.verification.compare import verify
from isc.match.verification.drawings import (
    AGREEMENT,
    AS_THEY_ARE,
    CERTAIN,
    LOG_NFA,
    counts,
    may_be_a_drawing,
    rows_of_drawings,
    with_changed,
)
from isc.match.verification.feature_store import FeatureStore, photo_key
from isc.match.verification.features import drawn_features, local_features, stroke_features
from isc.match.verification.quantities import EVIDENCE
from isc.match.verification.tasks import Looks
from isc.photos.decode import read_image
from isc.photos.folders import list_images
from tests.conftest import SAMPLE

PHOTOS = list_images(SAMPLE)
NAMES = sorted(PHOTOS)[:5]


def pencil(photo):
    """A drawing in grey pencil: strokes on white where the grey level changes, as wide as the change is steep."""
    grey = cv2.GaussianBlur(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), (0, 0), 1.5)
    change = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).astype(np.float32)
    drawing = 255 - np.clip(6 * change, 0, 255)
    return np.repeat(drawing.astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A drawing of each of three photos, one of another photo, and a photo in colour; all against five photos."""
    folder = tmp_path_factory.mktemp("drawings")
    queries = {}
    for name in [*NAMES[:3], sorted(PHOTOS)[9]]:
        queries[f"drawn-{name}"] = folder / f"{name}.png"
        cv2.imwrite(str(queries[f"drawn-{name}"]), pencil(read_image(PHOTOS[name])))
    queries["colour"] = PHOTOS[sorted(PHOTOS)[11]]
    rows = [(query, name) for query in queries for name in NAMES]
    made = Matches.from_ids([query for query, _ in rows], [name for _, name in rows], np.zeros(len(rows)))
    return made, queries, {name: PHOTOS[name] for name in NAMES}


def found_in(verified, candidates):
    return {candidates.pair(row) for row in range(len(candidates)) if verified.evidence[row, LOG_NFA] >= CERTAIN}


def test_a_drawing_is_found_with_its_place_and_nothing_else(scene):
    candidates, _, _ = scene
    found = verify(*scene, workers=1)
    assert found_in(found, candidates) == {f"drawn-{name},{name}" for name in NAMES[:3]}
    for row, one in found.alignments.items():
        if found.evidence[row, LOG_NFA] >= CERTAIN:
            np.testing.assert_allclose(one.matrix, np.eye(3), atol=0.08)
            assert not one.mirrored


@pytest.mark.parametrize("workers", [1, 2])
def test_drawings_are_stored_and_their_photos_forgotten_with_them(workers, scene, tmp_path, monkeypatch):
    candidates, _, references = scene
    expected = verify(*scene, workers=1)
    verify(*scene, workers=workers, store=FeatureStore(tmp_path))
    keys = {photo_key(path) for path in references.values()}
    assert FeatureStore(tmp_path).drawings.present(keys) == keys

    def not_again(pixels):
        raise AssertionError("the drawing of a reference is made again")

    monkeypatch.setattr(compare, "AS_DRAWINGS", Looks(stroke_features, not_again))
    again = verify(*scene, workers=workers, store=FeatureStore(tmp_path))
    np.testing.assert_array_equal(again.evidence, expected.evidence)
    assert found_in(again, candidates) == found_in(expected, candidates)
    store = FeatureStore(tmp_path)
    store.forget([references[NAMES[0]]])
    left = {photo_key(references[name]) for name in NAMES[1:]}
    assert store.present(keys) == store.drawings.present(keys) == left


def test_a_picture_that_is_query_and_reference_is_drawn_as_a_reference_alone(scene, tmp_path):
    """The stored features of a reference are those of its line drawing: as a query the picture has others."""
    _, drawn, photos = scene
    queries = {name: path for name, path in drawn.items() if name != "colour"}
    both = queries | photos
    rows = [(query, reference) for query in queries for reference in both if query != reference]
    candidates = Matches.from_ids([query for query, _ in rows], [name for _, name in rows], np.zeros(len(rows)))
    plain = verify(candidates, both, both, workers=1)
    assert len(found_in(plain, candidates)) == 3
    for _ in range(2):
        found = verify(candidates, both, both, workers=1, store=FeatureStore(tmp_path))
        np.testing.assert_array_equal(found.evidence, plain.evidence)


def test_a_device_finds_the_same_drawings(scene):
    expected, found = verify(*scene, workers=1), verify(*scene, workers=1, on="cpu")
    np.testing.assert_allclose(found.evidence, expected.evidence, atol=2e-3)
    assert list(found.alignments) == list(expected.alignments)


def test_further_pairs_of_a_drawing_are_compared_too(scene):
    """The answer has those that align, after the candidates; the other queries have no further pairs."""
    pairs, *images = scene
    plain = verify(*scene, workers=1)
    right = np.array([pairs.pair(row) in found_in(plain, pairs) for row in range(len(pairs))])
    candidates, further = pairs.take(~right), pairs.take(right)
    found = verify(candidates, *images, further=further, workers=1)
    assert found.further.tolist() == [0, 1, 2]
    joined = candidates.joined(further)
    np.testing.assert_array_equal(found.evidence[-3:], plain.evidence[right])
    assert found_in(found, joined) == found_in(plain, pairs)
    assert {row for row in found.alignments if row >= len(candidates)} == {len(candidates) + at for at in range(3)}
    coloured = pairs.query_ids[pairs.query] == "colour"
    found = verify(pairs.take(coloured), *images, further=further, workers=1)
    assert len(found.evidence) == coloured.sum()
    assert not len(found.further)


def test_which_queries_may_be_drawings(scene):
    """Hardly any colour and light parts, and no pair that is aligned; what was not compared is not compared again."""
    candidates = Matches.from_ids(["a", "a", "b", "b", "c", "d"], ["x", "y", "x", "y", "x", "x"], np.zeros(6))
    evidence = np.zeros((6, len(EVIDENCE)), np.float32)
    evidence[3, LOG_NFA] = 30  # b is aligned with y
    evidence[1] = np.nan
    assert rows_of_drawings(candidates, evidence, {0, 1}).tolist() == [0]
    photo = read_image(PHOTOS[NAMES[0]])
    grey = np.repeat(photo.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    drawn = {"photo": photo, "grey": grey, "dark": grey // 8, "pencil": pencil(photo)}
    assert [name for name, one in drawn.items() if may_be_a_drawing(local_features(one))] == ["grey", "pencil"]


def test_which_drawings_count():
    drawn = np.ones((4, len(EVIDENCE)), np.float32)
    drawn[:, LOG_NFA] = CERTAIN - 0.1, CERTAIN, CERTAIN, np.nan
    drawn[:, AGREEMENT] = 1, 1, 0.2, 1
    assert counts(drawn).tolist() == [False, True, False, False]
    evidence = np.zeros((3, len(EVIDENCE)), np.float32)
    evidence[:, EVIDENCE.index("flat")] = 0.7
    joined = with_changed(evidence, drawn[[1]], np.array([2]), stay=AS_THEY_ARE)
    assert joined[:2].tolist() == evidence[:2].tolist()
    assert joined[2, LOG_NFA] == CERTAIN
    assert joined[2, AGREEMENT] == 1
    assert joined[2, EVIDENCE.index("flat")] == pytest.approx(0.7)


def test_a_blank_picture_has_no_lines():
    blank = np.full((60, 80, 3), 128, np.uint8)
    assert len(drawn_features(blank)) == len(stroke_features(blank)) == 0
