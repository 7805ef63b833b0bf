"""The matching track as a whole: probabilities against a twin that compares every pair, the evidence that is written,
and pictures, models and fusions that are not as they should be.
"""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import cv2
import h5py
import numpy as np
import pytest

from isc.config.choices import Engine, Track
from isc.config.extract import ExtractConfig
from isc.config.match import MatchConfig
from isc.data.hdf5 import read_descriptors
from isc.data.matches import Matches
from isc.data.model_files import SHIPPED
from isc.errors import InputError
from isc.match import query_views as looks_module
from isc.match.looks import SECOND
from isc.match.query_views import with_query_views
from isc.match.run import match
from isc.match.verification import tasks
from isc.match.verification.alignment import Alignment, compare
from isc.match.verification.drawings import FURTHER
from isc.match.verification.features import local_features
from isc.match.verification.fusion import Fusion
from isc.match.verification.fusion_files import fusion_for, read_fusion
from isc.match.verification.quantities import EVIDENCE
from isc.match.verification.rescore import PairEvidence, best_of_each, replaced, write_evidence
from isc.photos.decode import read_image
from isc.photos.folders import SAMPLE, list_images
from isc.photos.views import parse_views
from isc.search import exact
from isc.search.kernels import device_rows
from tests.test_drawings import pencil

MISSING = np.full((1, len(EVIDENCE)), np.nan, np.float32)  # of a pair that was not compared
SHIPPED_FUSION = SHIPPED / "isc_small.fusion.json"
MADE_BY = {"weights": "isc_small", "weights_sha256": json.loads(SHIPPED_FUSION.read_text())["weights_sha256"]}
SHIPPED_HASH = f"weights_sha256 {MADE_BY['weights_sha256'][:4]}"
KEYS = [
    "query_id", "reference_id", "score", "distance", "inliers", "log_nfa", "agreement", "mirrored", "query_region",
    "reference_region", "matrix", "flags",
]  # fmt: skip
FILES = {"predictions.csv", "submission.h5", "match.json", "evidence.jsonl", "report"}
FOLDERS = ("query_images=queries", "reference_images=references")
MATCHING = (
    "queries=q.h5",
    "references=r.h5",
    "track=matching",
    "query_views=whole",
    "features=none",
    "calibration=none",
    *FOLDERS,
)

Pair = tuple[str, str]
Compared = dict[Pair, tuple[np.ndarray, Alignment | None]]


def tiny(path: Path) -> np.ndarray:
    """A descriptor that needs no model: the picture at 5 × 5 pixels."""
    values = cv2.resize(read_image(path), (5, 5), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    values -= values.mean()
    return values / np.linalg.norm(values)


def described(place, name: str, folder: Path, attributes=MADE_BY) -> None:
    images = list_images(folder)
    place.hdf5(name, attributes, vectors=np.array([tiny(path) for path in images.values()]), image_names=list(images))


@dataclass(frozen=True)
class Result:
    """What a run wrote."""

    folder: Path

    @property
    def scores(self) -> dict[Pair, float]:
        with (self.folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
            return {(row["query_id"], row["reference_id"]): float(row["score"]) for row in csv.DictReader(file)}

    @property
    def evidence(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "evidence.jsonl").read_text().splitlines()]

    @property
    def not_compared(self) -> list[dict[str, str]]:
        with (self.folder / "not_compared.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}

    @property
    def bytes(self) -> dict[str, bytes]:
        return {name: (self.folder / name).read_bytes() for name in self.files - {"report"}}


def matched(place, *, output="out", **options) -> Result:
    """A run inside this process, without more query views and without stored features where not asked for."""
    given = {"queries": "q.h5", "references": "r.h5", "query_images": "queries", "reference_images": "references"}
    paths = {key: str(place / name) for key, name in given.items()}
    defaults = {
        "track": Track.matching,
        "query_views": "whole",
        "features": "none",
        "calibration": "none",
        "workers": 1,
    }
    match(MatchConfig(output=str(place / output), **paths | defaults | options))
    return Result(place / output)


@pytest.fixture(scope="module", autouse=True)
def features_once():
    """Compute the features of the same pixels once for all these tests, most of which compare the same photos."""
    made = {}

    def once(pixels):
        key = (pixels.shape, pixels.tobytes())
        if key not in made:
            made[key] = local_features(pixels)
        return replace(made[key])

    with mock.patch.object(tasks, "local_features", once):
        yield


@pytest.fixture
def scene(place, benchmark):
    """The benchmark's pictures, to be spoilt, with descriptors of them."""
    for role in ("queries", "references"):
        shutil.copytree(benchmark / role, place / role)
        described(place, f"{role[0]}.h5", place / role)
    shutil.copy(benchmark / "ground_truth.csv", place / "gt.csv")
    return place


@pytest.fixture(scope="module")
def every_pair(benchmark) -> Compared:
    """All pairs of the benchmark compared, one after the other."""
    sides = []
    for role in ("queries", "references"):
        sides.append({name: local_features(read_image(path)) for name, path in list_images(benchmark / role).items()})
    return {(q, r): compare(one, other) for q, one in sides[0].items() for r, other in sides[1].items()}


@pytest.fixture(scope="module")
def fusion() -> Fusion:
    return read_fusion(SHIPPED_FUSION).fusion


def test_the_references_of_a_run_go_to_the_device_once(scene, monkeypatch):
    """The search by distance, and the candidates of its queries in several parts."""
    sent, upload = [], device_rows._uploaded
    monkeypatch.setattr(device_rows, "_uploaded", lambda v, d: sent.append(len(v)) or upload(v, d))
    monkeypatch.setattr(exact, "cuda_devices", list)
    few = {"engine": Engine.torch, "num_pairs": 20, "candidates": 1, "memory_gb": 2e-5}
    assert len(matched(scene, **few).scores) == 20
    queries, references = (len(read_descriptors(scene / name)) for name in ("q.h5", "r.h5"))
    assert sent[:2] == [queries, references]
    assert len(sent) > 3
    assert sum(sent[2:]) == queries


def distances(place) -> dict[Pair, float]:
    """Squared, of all pairs."""
    queries, references = (read_descriptors(place / name) for name in ("q.h5", "r.h5"))
    return {
        (q, r): float(((one.astype(np.float64) - other) ** 2).sum())
        for q, one in zip(queries.ids, queries.vectors, strict=True)
        for r, other in zip(references.ids, references.vectors, strict=True)
    }


def nearest(distance: dict[Pair, float], candidates: int) -> set[Pair]:
    """So many pairs of each query."""
    kept: set[Pair] = set()
    for query in {q for q, _ in distance}:
        own = sorted((pair for pair in distance if pair[0] == query), key=lambda pair: (distance[pair], pair))
        kept |= set(own[:candidates])
    return kept


def twin(
    distance, compared: Compared, fusion: Fusion, *, looked_at: set[Pair], number: int
) -> list[tuple[Pair, float]]:
    """The best pairs: those looked at by all evidence, the nearest others by their distance."""
    pool = looked_at | set(sorted(distance, key=lambda pair: (distance[pair], pair))[:number])
    score = {}
    for pair in pool:
        evidence = compared[pair][0][None] if pair in looked_at else MISSING
        score[pair] = float(fusion.probability(np.array([distance[pair]]), evidence)[0])
    return [(pair, score[pair]) for pair in sorted(pool, key=lambda pair: (-score[pair], pair))[:number]]


def speaks_for(pair: Pair, distance: dict[Pair, float], compared: Compared, fusion: Fusion) -> bool:
    """Whether the pictures of a pair are aligned, and it is likelier a copy than not, or than by its distance."""
    evidence, alignment = compared[pair]
    alone = np.array([distance[pair]])
    seen = fusion.probability(alone, evidence[None])[0]
    return alignment is not None and (seen > 0.5 or seen > fusion.probability(alone)[0])


# --- probabilities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidates", "num_pairs"), [(1, 60), (3, 60), (4, 5), (10, 400), (50, None), (2, 400), (10, 1)]
)
def test_scores_are_what_comparing_by_hand_gives(scene, every_pair, fusion, candidates, num_pairs):
    result = matched(scene, candidates=candidates, num_pairs=num_pairs)
    distance = distances(scene)
    looked_at = nearest(distance, candidates)
    expected = twin(distance, every_pair, fusion, looked_at=looked_at, number=num_pairs or 400)
    scores = result.scores
    assert len(scores) == (num_pairs or 400)
    np.testing.assert_allclose(list(scores.values()), [score for _, score in expected], rtol=1e-4)
    for pair, score in expected[: len(expected) - 1]:  # the last may be equal to the first that is left out
        assert scores[pair] == pytest.approx(score, rel=1e-4)
    assert all(0 <= score <= 1 for score in scores.values())
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    told = {pair for pair in looked_at & set(scores) if speaks_for(pair, distance, every_pair, fusion)}
    assert {(one["query_id"], one["reference_id"]) for one in result.evidence} == told
    assert result.files == FILES


def test_pixels_move_copies_to_the_front(scene):
    plain = matched(scene, candidates=1, num_pairs=12, ground_truth=str(scene / "gt.csv"))
    distance_alone = matched(
        scene, output="plain", num_pairs=12, query_images=None, reference_images=None,
        ground_truth=str(scene / "gt.csv"),
    )  # fmt: skip
    figures = [json.loads((one.folder / "metrics.json").read_text()) for one in (plain, distance_alone)]
    assert figures[0]["average_precision"] >= figures[1]["average_precision"]
    found = matched(scene, output="more", num_pairs=12, ground_truth=str(scene / "gt.csv"))
    assert json.loads((found.folder / "metrics.json").read_text())["recall_at_p90"] > figures[1]["recall_at_p90"] + 0.1


def test_without_pictures_scores_are_distances(scene, caplog):
    caplog.set_level("INFO")
    result = matched(scene, query_images=None, reference_images=None, num_pairs=30)
    assert "the scores are the distances alone" in caplog.text
    distance = distances(scene)
    assert result.files == FILES - {"evidence.jsonl"}
    for pair, score in result.scores.items():
        assert score == pytest.approx(-distance[pair], rel=1e-5)


def test_more_pairs_than_the_candidates_are_filled_up_by_distance(scene, fusion):
    result = matched(scene, candidates=1, num_pairs=200)
    distance = distances(scene)
    looked_at = nearest(distance, 1)
    beyond = [pair for pair in result.scores if pair not in looked_at]
    assert len(beyond) >= 160
    for pair in beyond:
        alone = float(fusion.probability(np.array([distance[pair]]), MISSING)[0])
        assert result.scores[pair] == pytest.approx(alone, rel=1e-4)


def test_a_pair_compared_keeps_the_score_of_its_pixels():
    ids = np.array(["a", "b", "c"], dtype=object)
    old = Matches(ids, ids, np.array([0, 1, 2]), np.array([0, 1, 2]), np.array([0.9, 0.5, 0.4]))
    better = Matches(ids, ids, np.array([0, 2]), np.array([0, 1]), np.array([0.1, 0.7]))
    kept = replaced(old, better)
    assert [(kept.pair(row), kept.score[row]) for row in range(len(kept))] == [
        ("c,b", 0.7), ("b,b", 0.5), ("c,c", 0.4), ("a,a", 0.1)
    ]  # fmt: skip


def test_the_best_of_each_query_stay_in_their_order():
    ids = np.array(["a", "b", "c"], dtype=object)
    matches = Matches(ids, ids, np.array([1, 0, 1, 1, 0]), np.array([0, 0, 1, 2, 1]), np.array([5.0, 4, 3, 2, 1]))
    assert best_of_each(matches, 1).tolist() == [0, 1]
    assert best_of_each(matches, 2).tolist() == [0, 1, 2, 4]
    assert best_of_each(matches, 9).tolist() == [0, 1, 2, 3, 4]


def test_the_order_of_rows_changes_nothing(scene):
    one = matched(scene, candidates=3).bytes
    for name in ("q.h5", "r.h5"):
        descriptors = read_descriptors(scene / name)
        order = np.random.default_rng(1).permutation(len(descriptors))
        names = [str(descriptors.ids[row]) for row in order]
        scene.hdf5(name, MADE_BY, vectors=descriptors.vectors[order], image_names=names)
    assert matched(scene, candidates=3, output="again").bytes == one


def test_processes_and_stored_features_change_nothing(scene, every_pair):
    one = matched(scene, candidates=3).bytes
    assert matched(scene, candidates=3, output="two", workers=2).bytes == one
    features = str(scene / "features")
    assert matched(scene, candidates=3, output="cold", features=features).bytes == one
    stored = {path.name: path.stat().st_size for path in (scene / "features").iterdir()}
    assert sum(stored.values()) > 50_000
    assert matched(scene, candidates=3, output="warm", features=features, workers=2).bytes == one


def test_an_index_that_looks_everywhere_finds_the_same_candidates(scene):
    vectors = read_descriptors(scene / "q.h5").vectors[:, ::-1]
    scene.hdf5("t.h5", MADE_BY, vectors=vectors, image_names=[f"T{i:02}" for i in range(len(vectors))])
    exact = matched(scene, candidates=3, num_pairs=60).bytes
    index = matched(scene, candidates=3, num_pairs=60, output="index", index="Flat", training=str(scene / "t.h5"))
    assert index.bytes == exact


def test_stored_features_go_where_they_are_told(scene, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(scene / "cache"))
    monkeypatch.chdir(scene.folder)
    matched(scene, candidates=1)  # features=none
    assert not (scene / "cache").exists()
    assert not (scene / "none").exists()
    matched(scene, candidates=1, features=str(scene / "here"))
    assert any((scene / "here").iterdir())
    assert not (scene / "cache").exists()
    matched(scene, candidates=1, features=None)
    assert any((scene / "cache" / "isc" / "features").iterdir())


# --- evidence --------------------------------------------------------------------------------------------------------


def test_evidence_is_a_line_a_kept_pair_best_first(scene, every_pair):
    result = matched(scene, candidates=10, num_pairs=60)
    lines, scores, distance = result.evidence, result.scores, distances(scene)
    assert len(lines) >= 5
    assert all(list(one) == KEYS for one in lines)
    pairs = [(one["query_id"], one["reference_id"]) for one in lines]
    assert len(set(pairs)) == len(pairs)
    assert pairs == [pair for pair in scores if pair in set(pairs)]
    assert [one["score"] for one in lines] == sorted((one["score"] for one in lines), reverse=True)
    for pair, one in zip(pairs, lines, strict=True):
        values, alignment = every_pair[pair]
        known = dict(zip(EVIDENCE, values.tolist(), strict=True))
        assert one["score"] == scores[pair]
        assert one["distance"] == pytest.approx(distance[pair], abs=2e-6)
        assert one["inliers"] == known["inliers"] == alignment.inliers
        assert one["log_nfa"] == pytest.approx(known["log_nfa"], abs=0.006)
        assert one["agreement"] == pytest.approx(known["agreement"], abs=6e-5)
        assert one["mirrored"] == alignment.mirrored
        np.testing.assert_allclose(one["matrix"], alignment.matrix[:2], atol=1e-6)
        check_regions(one)


def check_regions(one: dict) -> None:
    """Both regions lie in 0…1, and the matrix takes one to the other."""
    query, reference, matrix = (np.array(one[key]) for key in ("query_region", "reference_region", "matrix"))
    assert query.shape == reference.shape
    assert len(query) >= 3
    assert matrix.shape == (2, 3)
    assert min(query.min(), reference.min()) >= 0
    assert max(query.max(), reference.max()) <= 1
    np.testing.assert_allclose(reference @ matrix[:, :2].T + matrix[:, 2], query, atol=2e-3)


def box(region) -> tuple[float, float, float, float]:
    """left, top, right, bottom"""
    points = np.array(region)
    return (*points.min(axis=0), *points.max(axis=0))


CROP = (0.2, 0.1, 0.8, 0.75)  # of the reference
INSIDE = (0.25, 0.3, 0.75, 0.8)  # of the query


def cropped(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    left, top, right, bottom = (round(x * side) for x, side in zip(CROP, (width, height) * 2, strict=True))
    return pixels[top:bottom, left:right]


def pasted(pixels: np.ndarray) -> np.ndarray:
    canvas = np.full((400, 600, 3), 90, np.uint8)
    left, top, right, bottom = (round(x * side) for x, side in zip(INSIDE, (600, 400) * 2, strict=True))
    canvas[top:bottom, left:right] = cv2.resize(pixels, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    return canvas


EDITED = {  # the query, whether it is mirrored, the regions of query and reference
    "cropped": (cropped, False, (0, 0, 1, 1), CROP),
    "mirrored": (lambda pixels: pixels[:, ::-1], True, (0, 0, 1, 1), (0, 0, 1, 1)),
    "cropped and mirrored": (lambda pixels: cropped(pixels)[:, ::-1], True, (0, 0, 1, 1), CROP),
    "turned": (np.rot90, False, (0, 0, 1, 1), (0, 0, 1, 1)),
    "upside down in a mirror": (lambda pixels: pixels[::-1], True, (0, 0, 1, 1), (0, 0, 1, 1)),
    "pasted": (pasted, False, INSIDE, (0, 0, 1, 1)),
    "smaller": (
        lambda pixels: cv2.resize(pixels, None, fx=0.5, fy=0.4, interpolation=cv2.INTER_AREA),
        False,
        (0, 0, 1, 1),
        (0, 0, 1, 1),
    ),
}


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """Queries "EDIT" of sample photos, one for each edit, and their originals as references."""
    folder = tmp_path_factory.mktemp("edited")
    for role in ("queries", "references"):
        (folder / role).mkdir()
    photos = list(list_images(SAMPLE).values())[10::7]
    for (name, (edit, *_)), path in zip(EDITED.items(), photos, strict=False):
        shutil.copy(path, folder / "references" / f"{name}.jpg")
        edited = np.ascontiguousarray(edit(read_image(path))[:, :, ::-1])
        assert cv2.imwrite(str(folder / "queries" / f"{name}.png"), edited)
    return folder


@pytest.fixture(scope="module")
def regions_found(edited, tmp_path_factory):
    """What a run finds, and its evidence by pair; descriptors are the same for all pictures, and far apart."""
    from tests.conftest import Workplace

    place = Workplace(tmp_path_factory.mktemp("regions"))
    for name, vector in (("q.h5", [0.15, 0.5708, 0.5708, 0.5708]), ("r.h5", [1, 0, 0, 0])):
        vectors = np.tile(np.array(vector, np.float32), (len(EDITED), 1))
        place.hdf5(name, MADE_BY, vectors=vectors, image_names=sorted(EDITED))
    images = {f"{role}_images": str(edited / folder) for role, folder in
              (("query", "queries"), ("reference", "references"))}  # fmt: skip
    result = matched(place, **images)
    return result, {(one["query_id"], one["reference_id"]): one for one in result.evidence}


@pytest.mark.parametrize("name", EDITED)
def test_the_regions_are_those_of_the_edit(regions_found, name):
    _, mirrored, query_region, reference_region = EDITED[name]
    one = regions_found[1][name, name]
    assert one["mirrored"] == mirrored
    np.testing.assert_allclose(box(one["query_region"]), query_region, atol=0.02)
    np.testing.assert_allclose(box(one["reference_region"]), reference_region, atol=0.02)
    assert one["inliers"] >= 10
    check_regions(one)


def test_no_distance_is_written_below_zero(place, edited):
    for name in ("q.h5", "r.h5"):
        place.hdf5(name, MADE_BY, vectors=np.ones((1, 4), np.float32) / 2, image_names=["cropped"])
    result = matched(place, query_images=str(edited / "queries"), reference_images=str(edited / "references"))
    assert len(result.evidence) == 1
    assert "-0.0," not in (result.folder / "evidence.jsonl").read_text()


def test_copies_come_first_by_their_pixels_alone(regions_found):
    result, evidence = regions_found
    first = list(result.scores)[: len(EDITED)]
    assert set(first) == {(name, name) for name in EDITED}
    assert len(set(result.scores.values())) > len(EDITED)
    weakest, *others = (result.scores[pair] for pair in list(result.scores)[len(EDITED) - 1 :])
    assert weakest > 0.9 > 0.1 > max(others)
    assert all(evidence[pair]["score"] == result.scores[pair] for pair in evidence)


def test_the_page_outlines_the_regions(edited, regions_found):
    page = (regions_found[0].folder / "report" / "index.html").read_text(encoding="utf-8")
    assert page.count("<polygon") >= 2 * len(EDITED)


def test_lines_of_evidence_are_rounded_sorted_and_readable(tmp_path):
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    alignment = Alignment(np.diag([0.5, 1 / 3, 1]), False, unit * [0.5, 1 / 3], unit, 7)
    likely, rare = (PairEvidence(score, 0.12345678, 3.14159, 0.98764, alignment) for score in (0.25, 1 / 3))
    write_evidence(tmp_path / "e.jsonl", {("ß", "y"): likely, ("b", "y"): rare, ("a", "z"): likely, ("a", "x"): likely})
    text = (tmp_path / "e.jsonl").read_text(encoding="utf-8")
    assert '"ß"' in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [one["query_id"] + one["reference_id"] for one in lines] == ["by", "ax", "az", "ßy"]
    assert lines[0] == {
        "query_id": "b",
        "reference_id": "y",
        "score": 1 / 3,
        "distance": 0.123457,
        "inliers": 7,
        "log_nfa": 3.14,
        "agreement": 0.9876,
        "mirrored": False,
        "query_region": [[0, 0], [0.5, 0], [0.5, 0.3333], [0, 0.3333]],
        "reference_region": unit.tolist(),
        "matrix": [[0.5, 0, 0], [0, 0.333333, 0]],
    }


def near_copy(place) -> None:
    """A heavily compressed copy whose descriptor is the original's own."""
    path = list_images(SAMPLE)["S060"]
    for role in ("queries", "references"):
        (place / role).mkdir()
        place.hdf5(f"{role[0]}.h5", MADE_BY, vectors=np.ones((1, 4), np.float32) / 2, image_names=["S060"])
    shutil.copy(path, place / "references" / "S060.jpg")
    assert cv2.imwrite(str(place / "queries" / "S060.jpg"), cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, 8])


def test_a_copy_that_is_near_has_its_evidence_too(place):
    near_copy(place)
    assert matched(place).evidence[0]["inliers"] >= 6


def test_a_copy_that_is_near_is_found(place):
    near_copy(place)
    assert matched(place).scores["S060", "S060"] > 0.9


# --- pictures that are not there -------------------------------------------------------------------------------------


def test_what_cannot_be_compared_keeps_its_distance_is_counted_and_listed(scene, every_pair, fusion, caplog):
    queries, references = (list_images(scene / role) for role in ("queries", "references"))
    (missing_query, torn_query), (missing_reference, torn_reference) = list(queries)[3:5], list(references)[2:4]
    queries[missing_query].unlink()
    references[missing_reference].unlink()
    queries[torn_query].write_bytes(b"no picture at all")
    references[torn_reference].write_bytes(references[torn_reference].read_bytes()[:700])
    result = matched(scene, candidates=10, num_pairs=400, workers=2, features=str(scene / "features"))
    distance = distances(scene)
    bad = {missing_query, torn_query, missing_reference, torn_reference}
    compared = {pair for pair in distance if not set(pair) & bad}
    expected = twin(distance, every_pair, fusion, looked_at=compared, number=400)
    assert len(result.scores) == 400
    for pair, score in expected:
        assert result.scores[pair] == pytest.approx(score, rel=1e-4)
    assert not {name for one in result.evidence for name in (one["query_id"], one["reference_id"])} & bad
    listed = {(one["side"], one["id"]): one for one in result.not_compared}
    assert list(listed) == sorted(
        [("query", missing_query), ("query", torn_query), ("reference", missing_reference),
         ("reference", torn_reference)]
    )  # fmt: skip
    assert [one["pairs"] for one in listed.values()] == ["10", "10", "40", "40"]
    assert listed["query", missing_query]["file"] == ""
    assert "has no image file" in listed["query", missing_query]["reason"]
    assert listed["query", torn_query]["file"] == str(queries[torn_query])
    assert "cannot be decoded" in listed["reference", torn_reference]["reason"]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    not_compared = len(distance) - len(compared)
    assert [line for line in told if line.startswith("not compared: ")] == [
        f"not compared: {one['side']} {one['id']}: {one['reason']}" for one in result.not_compared
    ]
    assert told[-1].startswith(f"{not_compared} of 400 candidate pairs could not be compared")
    assert "all 4 causes are in not_compared.csv" in told[-1]


def test_no_picture_belongs_to_any_id(scene, fusion, caplog):
    """Nothing can be compared: no evidence, and the scores are what distances say, more than five causes in brief."""
    shutil.copy(next(iter(list_images(SAMPLE).values())), scene / "other.jpg")
    for role in ("queries", "references"):
        shutil.rmtree(scene / role)
        (scene / role).mkdir()
        shutil.copy(scene / "other.jpg", scene / role)
    result = matched(scene, candidates=3, num_pairs=50)
    assert result.files == FILES - {"evidence.jsonl"} | {"not_compared.csv"}
    distance = distances(scene)
    for pair, score in result.scores.items():
        assert score == pytest.approx(float(fusion.probability(np.array([distance[pair]]), MISSING)[0]), rel=1e-4)
    order = sorted(distance, key=lambda pair: distance[pair])
    assert set(result.scores) == set(order[:50])
    assert len(result.not_compared) == 50
    assert caplog.text.count("not compared: ") == 5
    assert "120 of 120 candidate pairs could not be compared" in caplog.text


def test_the_command_ends_well_and_warns_in_lines(scene):
    list_images(scene / "queries")["Q00003"].unlink()
    done = scene.done("match", *MATCHING, "candidates=2", "num_pairs=20", "output=out")
    assert "not compared: query Q00003: id 'Q00003' has no image file; expected one of 39 listed" in done.err
    assert "2 of 80 candidate pairs could not be compared" in done.err
    assert "Traceback" not in done.err
    assert len(Result(scene / "out").scores) == 20


def test_evidence_and_problems_of_an_earlier_run_are_taken_away(scene):
    list_images(scene / "queries")["Q00003"].unlink()
    first = matched(scene, candidates=3)
    assert first.files == FILES | {"not_compared.csv"}
    (scene / "out" / "notes.txt").write_text("mine")
    shutil.copy(scene / "queries" / list_images(scene / "queries")["Q00004"].name, scene / "queries" / "Q00003.jpg")
    assert matched(scene, candidates=3).files == FILES | {"notes.txt"}
    assert matched(scene, query_images=None, reference_images=None).files == FILES - {"evidence.jsonl"} | {"notes.txt"}


# --- the fusion ------------------------------------------------------------------------------------------------------


def written(place, name: str, **changes) -> Path:
    return place.text(name, json.dumps(json.loads(SHIPPED_FUSION.read_text()) | changes))


REFUSED = {
    "missing": (lambda place: None, ("f.json: cannot be read", "No such file", "isc fusion fit")),
    "a folder": (lambda place: (place / "f.json").mkdir(), ("f.json: is no regular file", "isc fusion fit")),
    "no JSON": (lambda place: place.text("f.json", "{"), ("f.json: ", "isc fusion fit")),
    "no text": (lambda place: (place / "f.json").write_bytes(b"\xff\xfe\x00"), ("f.json: ", "isc fusion fit")),
    "a list": (lambda place: place.text("f.json", "[1]"), ("f.json: ", "isc fusion fit")),
    "a number": (lambda place: place.text("f.json", "1"), ("f.json: ", "isc fusion fit")),
    "nothing in it": (lambda place: place.text("f.json", "{}"), ("f.json: no format", "isc fusion fit")),
    "another format": (
        lambda place: written(place, "f.json", format="isc-normalize-1"),
        ("f.json: format 'isc-normalize-1'", "expected isc-fusion-1"),
    ),
    "no fusion": (lambda place: written(place, "f.json", fusion={}), ("f.json: no fusion.by_distance",)),
    "a part is a list": (lambda place: written(place, "f.json", fusion=[]), ("f.json: ",)),
    "unknown curve": (lambda place: with_curves(place, lambda curves: curves.update(warmth=curves["distance"])),
                      ("f.json: curves distance, warmth", "expected distance")),
    "knots that fall": (lambda place: with_curves(place, lambda curves: curves["distance"]["knots"].reverse()),
                        ("f.json: ", "expected rising knots")),
    "a knot too few": (lambda place: with_curves(place, lambda curves: curves["distance"]["knots"].pop()),
                       ("f.json: ", "one rise less")),
    "a curve the wrong way": (lambda place: with_curves(place, lambda curves: curves["distance"].update(
                                  knots=[0.0, 1.0], rises=[1.0])), ("f.json: curve distance", "> 0")),
    "a word for a number": (lambda place: with_curves(place, lambda curves: curves["distance"].update(rises=["x"])),
                            ("f.json: ", '"x"')),
}  # fmt: skip


def with_curves(place, change) -> None:
    values = json.loads(SHIPPED_FUSION.read_text())
    change(values["fusion"]["by_distance"]["curves"])
    place.text("f.json", json.dumps(values))


@pytest.mark.parametrize(("spoil", "naming"), REFUSED.values(), ids=REFUSED)
def test_a_fusion_that_cannot_be_used_is_refused_in_one_line(scene, spoil, naming):
    spoil(scene)
    scene.refused("match", *MATCHING, "fusion=f.json", "output=out", naming=naming)


def test_a_fusion_of_ones_own_is_used(scene, every_pair):
    """With curves for distance turned flat, pairs that were not compared are all alike."""
    values = json.loads(SHIPPED_FUSION.read_text())
    by_distance = values["fusion"]["by_distance"]
    by_distance["curves"]["distance"]["rises"] = [0.0] * len(by_distance["curves"]["distance"]["rises"])
    by_distance["bias"] = -20.0
    scene.text("f.json", json.dumps(values))
    result = matched(scene, candidates=1, num_pairs=200, fusion=str(scene / "f.json"))
    looked_at = nearest(distances(scene), 1)
    said = {score for pair, score in result.scores.items() if pair not in looked_at}
    assert len(said) == 1
    assert said.pop() == pytest.approx(1 / (1 + np.exp(20)))


@pytest.mark.parametrize(
    ("made", "note"),
    {
        "the same": (MADE_BY, None),
        "another model": (
            MADE_BY | {"weights_sha256": "f" * 64},
            (SHIPPED_HASH, "these have ffff"),
        ),
        "unknown model": ({}, (SHIPPED_HASH, "these have unknown")),
        "a normalisation": (MADE_BY | {"normalize": "pca:dim=7"}, ("of normalize none", "these have pca:dim=7")),
    }.values(),
)
def test_probabilities_for_other_descriptors_are_said_to_be_rough(made, note):
    fusion, told = fusion_for("model", made)
    assert fusion == read_fusion(SHIPPED_FUSION).fusion
    assert (told is None) == (note is None)
    for part in (*(note or ()), *(("are rough", "isc fusion fit") if note else ())):
        assert part in told


def test_the_note_is_a_warning_and_the_run_goes_on(scene, caplog):
    for name, folder in (("q.h5", "queries"), ("r.h5", "references")):
        described(scene, name, scene / folder, {"weights": "runs/gone", "weights_sha256": "e" * 64})
    assert matched(scene, candidates=2, num_pairs=20).files == FILES
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert ["are rough" in line for line in told] == [True]


def test_a_model_s_own_fusion_comes_before_the_shipped_one(place):
    (place / "run").mkdir()
    weights = {"weights": str(place / "run"), "weights_sha256": "a" * 64}
    assert fusion_for("model", weights)[0] == read_fusion(SHIPPED_FUSION).fusion
    with_curves(place, lambda curves: curves["distance"].update(knots=[0.0, 1.0], rises=[-3.0]))
    own = json.loads((place / "f.json").read_text()) | {"weights_sha256": "a" * 64}
    place.text("run/fusion.json", json.dumps(own))
    fusion, note = fusion_for("model", weights)
    assert fusion.by_distance.curves["distance"].rises == (-3.0,)
    assert note is None
    place.text("run/model.safetensors", "")  # the file's own name does as well
    assert fusion_for("model", weights | {"weights": str(place / "run" / "model.safetensors")})[0] == fusion


def test_the_shipped_fusion_is_for_the_shipped_model():
    from isc.model.files import describe
    from isc.model.load import load_model

    assert read_fusion(SHIPPED_FUSION).weights_sha256 == describe(load_model("isc_small"))["weights_sha256"]


# --- more query views -------------------------------------------------------------------------------------------------


@pytest.fixture
def extracted(monkeypatch):
    """In place of the model: its rows, a whole and its mirror image each, of the pictures listed; what was asked."""
    asked: list[dict[str, str]] = []

    def instead(*arguments: str) -> None:
        given = dict(argument.split("=", 1) for argument in arguments)
        asked.append(given | {"listing": Path(given["images"]).read_text()})
        with Path(given["images"]).open(newline="") as file:
            files = {row["id"]: Path(row["file"]) for row in csv.DictReader(file)}
        rows = [tiny(path) for path in files.values()]
        rows += [row.reshape(5, 5, 3)[:, ::-1].ravel() for row in rows]
        with h5py.File(given["output"], "w") as file:
            file["vectors"] = np.array(rows)
            file["image_names"] = [name.encode() for name in files] * 2
            file["views"] = [view.encode() for view in ("whole", "flip") for _ in files]
            file.attrs.update(MADE_BY)

    monkeypatch.setattr(looks_module, "run_extract", instead)
    return asked


def test_more_looks_find_more_candidates(scene, extracted, fusion, every_pair):
    result = matched(scene, candidates=2, num_pairs=60, query_views="flip")
    assert len(extracted) == 1
    asked = {key: extracted[0][key] for key in ("model", "views", "combine")}
    assert asked == {"model": "isc_small", "views": f"flip+{MatchConfig.second_views}", "combine": "rows"}
    assert extracted[0]["listing"].count("\n") == 41
    straight = distances(scene)
    queries, references = (read_descriptors(scene / name) for name in ("q.h5", "r.h5"))
    flipped = {
        (q, r): float(((one.reshape(5, 5, 3)[:, ::-1].ravel() - other) ** 2).sum())
        for q, one in zip(queries.ids, queries.vectors, strict=True)
        for r, other in zip(references.ids, references.vectors, strict=True)
    }
    distance = {pair: min(straight[pair], flipped[pair]) for pair in straight}
    expected = dict(twin(distance, every_pair, fusion, looked_at=nearest(distance, 2), number=60))
    assert result.files == FILES | {"views.csv"}
    assert list(result.scores) == list(expected)
    np.testing.assert_allclose(list(result.scores.values()), list(expected.values()), rtol=1e-4)
    with (result.folder / "views.csv").open(newline="") as file:
        views = {(row["query_id"], row["reference_id"]): row for row in csv.DictReader(file)}
    assert list(views) == list(expected)
    for pair, row in views.items():
        assert row["query_view"] == ("whole" if straight[pair] <= flipped[pair] else "flip")
        assert row["reference_view"] == ""
    assert {row["query_view"] for row in views.values()} == {"whole", "flip"}
    with h5py.File(result.folder / "submission.h5") as file:  # of the descriptors given
        np.testing.assert_array_equal(file["query"][()], queries.vectors)


def test_the_default_looks_are_taken_and_whole_ones_are_not(scene, extracted):
    plain = matched(scene, candidates=2, num_pairs=20)
    assert extracted == []
    assert plain.files == FILES
    matched(scene, candidates=2, num_pairs=20, output="more", query_views=MatchConfig.query_views)
    assert [one["views"] for one in extracted] == [f"{MatchConfig.query_views}+{MatchConfig.second_views}"]
    matched(scene, candidates=2, num_pairs=20, output="tiles", query_views=MatchConfig.second_views)
    assert extracted[1]["views"] == MatchConfig.second_views


def test_looks_are_of_those_that_have_a_picture(scene, extracted):
    list_images(scene / "queries")["Q00003"].unlink()
    result = matched(scene, candidates=2, num_pairs=400, query_views="flip")
    assert "Q00003" not in extracted[0]["listing"]
    assert extracted[0]["listing"].count("\n") == 40
    with (result.folder / "views.csv").open(newline="") as file:
        seen = {row["query_view"] for row in csv.DictReader(file) if row["query_id"] == "Q00003"}
    assert seen <= {"whole"}
    assert [one["id"] for one in result.not_compared] == ["Q00003"]


def test_looks_of_what_cannot_be_read_are_left_out(scene, monkeypatch):
    """The real extraction skips it; so does what stands in for it here."""
    torn = list_images(scene / "queries")["Q00003"]

    def instead(*arguments: str) -> None:
        given = dict(argument.split("=", 1) for argument in arguments)
        with Path(given["images"]).open(newline="") as file:
            names = [row["id"] for row in csv.DictReader(file) if row["id"] != "Q00003"]
        rows = [tiny(list_images(scene / "queries")[name]) for name in names]
        scene.hdf5(given["output"], MADE_BY, vectors=np.array(rows * 2), image_names=names * 2,
                   views=[view for view in ("whole", "flip") for _ in names])  # fmt: skip

    torn.write_bytes(b"no picture")
    monkeypatch.setattr(looks_module, "run_extract", instead)
    result = matched(scene, candidates=2, num_pairs=400, query_views="flip")
    assert [(one["side"], one["id"]) for one in result.not_compared] == [("query", "Q00003")]
    assert len(result.scores) == 400
    assert {"evidence.jsonl", "views.csv"} <= result.files


def test_looks_are_taken_at_the_size_of_the_descriptors(scene, extracted):
    described(scene, "q.h5", scene / "queries", MADE_BY | {"image_size": "64"})
    described(scene, "r.h5", scene / "references", MADE_BY | {"image_size": "64"})
    matched(scene, candidates=2, num_pairs=20, query_views="flip")
    assert extracted[0]["image_size"] == "64"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({}, "does not say which model made it"),
        (MADE_BY | {"weights": "runs/gone"}, "model=runs/gone"),
        (MADE_BY | {"weights_sha256": "d" * 64}, f"has {SHIPPED_HASH}"),
    ],
)
def test_looks_without_their_model_are_left_out(scene, monkeypatch, caplog, request, attributes, why):
    if "gone" not in why:  # that one is what the real model's loader says
        request.getfixturevalue("extracted")
    for name, folder in (("q.h5", "queries"), ("r.h5", "references")):
        described(scene, name, scene / folder, attributes)
    result = matched(scene, candidates=2, num_pairs=20, query_views="flip")
    told = [record.getMessage() for record in caplog.records if "query_views=flip" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("query_views=flip: left out, candidates are those of whole queries: ")
    assert why in told[0]
    assert "\n" not in told[0]
    assert result.bytes == matched(scene, candidates=2, num_pairs=20, output="whole").bytes


def test_other_dimensions_are_no_looks_of_these_descriptors(scene, extracted):
    queries = read_descriptors(scene / "q.h5")
    short = type(queries)(queries.ids, queries.vectors[:, :20])
    with pytest.raises(InputError, match="isc_small gives 75 dimensions, the queries have 20"):
        with_query_views(short, list_images(scene / "queries"), views="flip", provenance=MADE_BY)


def test_normalised_descriptors_get_no_more_looks(scene, extracted, caplog):
    caplog.set_level("INFO")
    rng = np.random.default_rng(0)
    training = rng.standard_normal((60, 75)).astype(np.float32)
    training /= np.linalg.norm(training, axis=1, keepdims=True)
    scene.hdf5("t.h5", MADE_BY, vectors=training, image_names=[f"T{i}" for i in range(60)])
    result = matched(
        scene, candidates=2, num_pairs=20, query_views="flip", normalize="subtract", training=str(scene / "t.h5")
    )
    assert extracted == []
    whole_chain = "subtract:weight=0.35,neighbours=10,smooth=true"
    left_out = f"query_views=flip: left out, as normalize={whole_chain} is not fitted for them"
    assert left_out in caplog.text
    assert "was fitted on descriptors of normalize none, these have subtract" in caplog.text
    assert result.files == FILES
    # nor do those of its submission.h5, which are normalised too
    caplog.clear()
    submission = {"submission": str(result.folder / "submission.h5"), "ground_truth": str(scene / "gt.csv")}
    again = matched(
        scene,
        queries=None,
        references=None,
        candidates=2,
        num_pairs=20,
        query_views="flip",
        output="again",
        **submission,
    )
    assert extracted == []
    assert left_out in caplog.text
    for name in ("predictions.csv", "evidence.jsonl"):
        assert again.bytes[name] == result.bytes[name]


def test_queries_that_have_views_get_no_more(scene, extracted, fusion, every_pair):
    """Rows in the file itself are what candidates are found by."""
    queries = read_descriptors(scene / "q.h5")
    flipped = np.array([one.reshape(5, 5, 3)[:, ::-1].ravel() for one in queries.vectors])
    ids = [str(name) for name in queries.ids]
    scene.hdf5(
        "q.h5",
        MADE_BY,
        vectors=np.r_[queries.vectors, flipped],
        image_names=ids * 2,
        views=[view for view in ("whole", "flip") for _ in ids],
    )
    result = matched(scene, candidates=2, num_pairs=60, query_views="flip")
    assert extracted == []
    assert result.files == FILES - {"submission.h5"} | {"views.csv"}
    scene.hdf5("q.h5", MADE_BY, vectors=queries.vectors, image_names=ids)
    again = matched(scene, candidates=2, num_pairs=60, query_views="flip", output="again")
    assert len(extracted) == 1
    for name in ("predictions.csv", "evidence.jsonl", "views.csv"):
        assert again.bytes[name] == result.bytes[name]


@pytest.mark.slow
def test_the_model_itself_takes_the_looks(place, edited):
    """A query's own row is that of another photo; its mirror image, taken by the real model, finds the original."""
    from isc.extract.run import extract

    for role in ("queries", "references"):
        images, output = str(edited / role), str(place / f"{role[0]}.h5")
        extract(ExtractConfig(images=[images], output=output, model="isc_small", workers=0))
    references = read_descriptors(place / "r.h5")
    with h5py.File(place / "q.h5", "r+") as file:
        row = [name.decode() for name in file["image_names"][()]].index("mirrored")
        file["vectors"][row] = references.vectors[references.ids == "pasted"][0]
    images = {"query_images": str(edited / "queries"), "reference_images": str(edited / "references")}
    score = {}
    for looks in ("whole", "flip"):
        result = matched(place, candidates=1, num_pairs=49, output=looks, query_views=looks, **images)
        score[looks] = result.scores["mirrored", "mirrored"]
    assert score["whole"] < 0.5 < 0.9 < score["flip"]
    rows = (place / "flip" / "views.csv").read_text().splitlines()
    assert "mirrored,mirrored,flip," in rows


def test_k_counts_for_each_query(scene):
    result = matched(scene, candidates=5, k=2)
    queries = [query for query, _ in result.scores]
    assert {queries.count(query) for query in queries} == {2}


@pytest.mark.parametrize("rank", [0, FURTHER - 1, FURTHER])
def test_a_drawing_has_further_candidates(rank, place):
    """With candidates=1 its photo is found up to rank FURTHER by distance; another drawing's place is not its own."""
    names = sorted(list_images(SAMPLE))[: FURTHER + 2]
    for folder in ("queries", "references"):
        (place / folder).mkdir()
    for name in names:
        shutil.copy(list_images(SAMPLE)[name], place / "references" / f"{name}.jpg")
    cv2.imwrite(str(place / "queries" / "drawn.png"), pencil(read_image(list_images(SAMPLE)[names[0]])))
    order = [*names[1 : rank + 1], names[0], *names[rank + 1 :]]  # nearest first
    angles = {name: 0.5 + 0.1 * at for at, name in enumerate(order)}
    vectors = np.array([[np.cos(angles[name]), np.sin(angles[name])] for name in names], np.float32)
    place.hdf5("r.h5", MADE_BY, vectors=vectors, image_names=names)
    place.hdf5("q.h5", MADE_BY, vectors=np.array([[1, 0]], np.float32), image_names=["drawn"])
    result = matched(place, candidates=1)
    assert len(result.scores) == len(names)
    best = max(result.scores, key=result.scores.get)
    assert (best == ("drawn", names[0]) and result.scores[best] > 0.5) == (rank < FURTHER)
    assert ("evidence.jsonl" in result.files) == (rank < FURTHER)


def test_a_second_look_at_the_tiles_of_what_aligns_with_nothing(place, monkeypatch):
    """A photo of a collage that is among the nearest of a tile alone; a query that is aligned gets no second look."""
    photos = list_images(SAMPLE)
    names = sorted(photos)[: SECOND + 12]
    shown, alone = names[-1], names[0]
    for folder in ("queries", "references"):
        (place / folder).mkdir()
    for name in names:
        shutil.copy(photos[name], place / "references" / f"{name}.jpg")
    parts = [cv2.resize(cv2.imread(str(photos[name])), (320, 240)) for name in (shown, *sorted(photos)[-3:])]
    collage = np.vstack([np.hstack(parts[:2]), np.hstack(parts[2:])])
    cv2.imwrite(str(place / "queries" / "collage.png"), collage)
    shutil.copy(photos[alone], place / "queries" / "alone.jpg")
    angles = np.linspace(0.1, 1.5, len(names))  # of the references, the nearest first
    at = {name: np.array([np.cos(angle), np.sin(angle)], np.float32) for name, angle in zip(names, angles, strict=True)}
    place.hdf5("r.h5", MADE_BY, vectors=np.array(list(at.values())), image_names=names)
    whole = np.array([[1, 0], [1, 0]], np.float32)
    place.hdf5("q.h5", MADE_BY, vectors=whole, image_names=["alone", "collage"])

    def instead(*arguments: str) -> None:
        given = dict(argument.split("=", 1) for argument in arguments)
        tiles = np.array([at[shown], at[shown]])  # the first tile of both
        names = ["whole", parse_views(MatchConfig.second_views)[1].name]
        place.hdf5(given["output"], MADE_BY, vectors=np.r_[whole, tiles], image_names=["alone", "collage"] * 2,
                   views=np.repeat(names, 2).tolist())  # fmt: skip

    monkeypatch.setattr(looks_module, "run_extract", instead)
    result = matched(place, candidates=1, query_views="flip")
    assert {(one["query_id"], one["reference_id"]) for one in result.evidence} == {("alone", alone), ("collage", shown)}
    assert result.scores["collage", shown] > 0.9
    (found,) = (one for one in result.evidence if one["query_id"] == "collage")
    assert found["distance"] == pytest.approx(((whole[1] - at[shown]) ** 2).sum(), abs=1e-5)  # not the tile's
    others = set(names) - {shown}
    assert max(result.scores.get(("collage", name), 0) for name in others) < 0.5
    plain = matched(place, candidates=1, query_views="whole", output="plain")
    assert plain.scores.get(("collage", shown), 0) < 0.5
    assert plain.scores["alone", alone] == result.scores["alone", alone]
