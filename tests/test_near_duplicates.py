"""Photos that show the same are found, other photos are not; and photos that look alike make hard distractors."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from isc.benchmark import near_duplicates as nd
from isc.benchmark.plan import HardNegatives, planned
from isc.benchmark.sizes import Wanted
from isc.data.descriptors import Descriptors
from isc.data.ids import as_ids
from isc.errors import InputError
from isc.photos.decode import encode_jpeg, read_image
from isc.photos.folders import SAMPLE, list_images

VARIANTS = {  # of a photo: how it is made, and which of the two stays, being larger
    "recompressed": lambda pixels: (pixels, 40),
    "halved": lambda pixels: (cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), 92),
    "cropped": lambda pixels: (pixels[10:-25, 15:-20], 92),
    "flipped": lambda pixels: (np.ascontiguousarray(pixels[:, ::-1]), 92),
    "brighter": lambda pixels: (cv2.convertScaleAbs(pixels, alpha=1.15, beta=5), 92),
}
SOURCES = ("S002", "S010", "S024", "S051", "S110")


def names_of(photos):
    return {name: path.name for name, path in photos.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All sample photos, an altered one of five, and one of these again under another name."""
    folder = tmp_path_factory.mktemp("photos")
    for path in list_images(SAMPLE).values():
        shutil.copy(path, folder)
    for source, (variant, make) in zip(SOURCES, VARIANTS.items(), strict=True):
        pixels, quality = make(read_image(folder / f"{source}.jpg"))
        (folder / f"{variant}.jpg").write_bytes(encode_jpeg(pixels, quality=quality))
    shutil.copy(folder / "recompressed.jpg", folder / "again.jpg")
    return folder


@pytest.fixture(scope="module")
def photos(folder):
    return list_images(folder)


@pytest.fixture(scope="module")
def described(photos, tmp_path_factory):
    return nd.describe(photos, tmp_path_factory.mktemp("part"))


def found_in(photos, described, folder, workers=2):
    return nd.near_duplicates(photos, described, names=names_of(photos), workers=workers, kept=folder / "list.csv")


def test_exactly_the_altered_photos_are_found(photos, described, tmp_path):
    pairs = found_in(photos, described, tmp_path)
    wanted = {frozenset((f"{source}.jpg", f"{name}.jpg")) for source, name in zip(SOURCES, VARIANTS, strict=True)}
    wanted |= {frozenset(("again.jpg", "recompressed.jpg")), frozenset(("again.jpg", "S002.jpg"))}
    assert {frozenset((pair.file_a, pair.file_b)) for pair in pairs} == wanted
    same = next(pair for pair in pairs if {pair.file_a, pair.file_b} == {"again.jpg", "recompressed.jpg"})
    assert same.inliers is None
    assert same.distance == 0
    assert same.in_words() == "again.jpg and recompressed.jpg are the same file"
    cropped = next(pair for pair in pairs if "cropped.jpg" in (pair.file_a, pair.file_b))
    whole, part = cropped.area_a, cropped.area_b
    if cropped.file_a == "cropped.jpg":
        whole, part = part, whole
    height, width = read_image(photos["S024"]).shape[:2]
    assert part == pytest.approx(1, abs=0.05)
    assert whole == pytest.approx((height - 35) * (width - 35) / (height * width), abs=0.05)


def test_groups_are_numbered_and_of_each_the_largest_stays(photos, described, tmp_path):
    pairs = found_in(photos, described, tmp_path)
    groups = nd.groups_of(pairs)
    assert set(groups.values()) == {1, 2, 3, 4, 5}
    assert groups["again.jpg"] == groups["recompressed.jpg"] == groups["S002.jpg"]
    sizes = {path.name: read_image(path).shape[1::-1] for path in photos.values()}
    gone = nd.left_out(pairs, sizes)
    assert len(gone) == 6
    assert {"halved.jpg", "cropped.jpg"} <= gone
    assert not {"S010.jpg", "S024.jpg"} & gone
    assert len({groups[name] for name in groups.keys() - gone}) == 5


def test_the_list_is_kept_and_the_same_whatever_the_workers(photos, described, tmp_path, monkeypatch):
    pairs = found_in(photos, described, tmp_path, workers=1)
    (tmp_path / "other").mkdir()
    assert found_in(photos, described, tmp_path / "other") == pairs
    monkeypatch.setattr(nd, "verify", None)  # whoever compares again fails
    assert found_in(photos, described, tmp_path) == pairs
    header = (tmp_path / "list.csv").read_text().splitlines()[0]
    assert header == "file_a,file_b,distance,inliers,area_a,area_b,agreement,group"


def test_candidates_are_each_pair_of_neighbours_once():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 2)).astype(np.float32)
    described = Descriptors(as_ids([f"P{i:02d}" for i in range(40)]), vectors)
    distance = ((vectors[:, None].astype(np.float64) - vectors[None]) ** 2).sum(-1)
    slow = set()
    for i in range(40):
        neighbours = sorted((j for j in range(40) if j != i), key=lambda j, i=i: distance[i, j])[: nd.NEIGHBOURS]
        slow |= {(min(i, j), max(i, j)) for j in neighbours if distance[i, j] <= nd.FARTHEST}
    known = sorted(slow)[:3]
    found = nd._candidates(described, apart_from=known)
    assert set(zip(found.reference.tolist(), found.query.tolist(), strict=True)) == slow - set(known)
    assert np.allclose(-found.score, distance[found.query, found.reference], atol=1e-5)


def test_groups_join_whatever_hangs_together():
    assert nd._groups([(5, 2), (8, 9), (2, 7), (1, 9)]) == {5: 2, 2: 2, 7: 2, 8: 1, 9: 1, 1: 1}
    rng = np.random.default_rng(1)
    pairs = [(int(a), int(b)) for a, b in rng.integers(0, 30, (18, 2)) if a != b]
    groups = nd._groups(pairs)
    slow = {one: {one} for pair in pairs for one in pair}
    for _ in range(30):
        for a, b in pairs:
            slow[a] = slow[b] = slow[a] | slow[b]
    for a, b in itertools.combinations(slow, 2):
        assert (groups[a] == groups[b]) == (b in slow[a])


# who becomes what


def paths(number):
    return [Path(f"{i:03d}.jpg") for i in range(number)]


def test_photos_that_stay_beside_their_like_never_become_false_distractors():
    photos, sizes = paths(60), Wanted().sizes(60)
    groups = {path: i // 3 for i, path in enumerate(photos)}  # every photo thrice
    plan = planned(photos, sizes, seed=0, groups={path: groups[path] for path in photos[:45]})
    source = {photo.id: photo.source for photo in plan.photos}
    shown = {groups[path] for name, path in source.items() if name.startswith("R") and path in photos[:45]}
    strange = {query.source for query in plan.queries if not query.reference_id}
    assert len(strange) == sizes.distractors
    assert strange.isdisjoint(source.values())
    for path in [*strange, *plan.others]:
        assert path not in photos[:45] or groups[path] not in shown
    with pytest.raises(InputError, match="show nothing that a reference shows"):
        planned(photos, sizes, seed=0, groups=dict.fromkeys(photos, 1))


def test_hard_negatives_are_the_photos_nearest_to_a_reference(photos, described):
    ids = list(photos)
    vectors = dict(zip(ids, described.vectors.astype(np.float64), strict=True))
    stems = {path: name for name, path in photos.items()}
    pool = [photos[name] for name in ids if name.startswith("S")]

    def nearest(of, among):
        table = np.array([[((vectors[stems[a]] - vectors[stems[b]]) ** 2).sum() for b in among] for a in of])
        return table.argmin(1).tolist(), table.min(1).tolist()

    sizes = Wanted().sizes(len(pool))
    plain = planned(pool, sizes, seed=5)
    hard = planned(pool, sizes, seed=5, hard=HardNegatives(240, nearest))
    references = [photo.source for photo in plain.photos if photo.id.startswith("R")]
    assert references == [photo.source for photo in hard.photos if photo.id.startswith("R")]
    rest = [path for path in pool if path not in references]
    index, distance = nearest(rest, references)
    order = np.argsort(distance, kind="stable")[:10]  # 240 of 480 queries: half of 20 photos
    assert hard.hard == {rest[i]: (f"R{index[i]:06d}", distance[i]) for i in order}
    queries = [query for query in hard.queries if query.neighbour]
    assert len(queries) == 240
    assert {query.source for query in queries} == set(hard.hard)
    assert all(hard.hard[query.source][0] == query.neighbour and not query.reference_id for query in queries)
    assert {query.source for query in hard.queries if not query.reference_id and not query.neighbour}.isdisjoint(
        rest[i] for i in order
    )

    def mean_score(plan):
        strange = [query.source for query in plan.queries if not query.reference_id]
        return -np.mean(nearest(strange, references)[1])

    assert mean_score(hard) > mean_score(plain) + 0.05


@pytest.mark.parametrize("queries", [1, 479, 480])
def test_any_number_of_hard_negatives_can_be_dealt(queries):
    photos, sizes = paths(118), Wanted().sizes(118)
    near = HardNegatives(queries, lambda of, among: ([0] * len(of), list(range(len(of)))))
    plan = planned(photos, sizes, seed=0, hard=near)
    strange = [query for query in plan.queries if not query.reference_id]
    assert sum(bool(query.neighbour) for query in strange) == queries
    assert len({query.source for query in strange}) == 20
    with pytest.raises(InputError, match="hard_negatives=481; expected at most the number of distractor queries, 480"):
        planned(photos, sizes, seed=0, hard=HardNegatives(481, near.nearest))
