"""The batched search for maps against the one that takes a pair at a time, on real photos and their edited copies."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from isc.config.choices import Device
from isc.config.train import AugmentConfig
from isc.errors import InputError
from isc.match.verification import batched_fit, device_compare
from isc.match.verification.affine_fit import best_fit, paired
from isc.match.verification.batched_fit import WIDTHS, best_fits
from isc.match.verification.compare import Verified, verify
from isc.match.verification.device_compare import device_for
from isc.match.verification.feature_rows import FeatureRows
from isc.match.verification.feature_store import FeatureStore
from isc.match.verification.features import LocalFeatures, local_features
from isc.match.verification.fusion_files import MODEL, fusion_for
from isc.match.verification.quantities import EVIDENCE
from isc.photos.decode import encode_jpeg, read_image
from isc.photos.folders import SAMPLE, list_images
from isc.train.augment.augmenter import Augmenter
from tests.test_matching_verify import pairs

CPU = torch.device("cpu")
PHOTOS = list_images(SAMPLE)
COPIED, OTHERS = 20, 3  # photos with a copy, and other candidates of each copy
WITHIN = (20, 60, 120, 400)  # features of a photo, saved again, that is compared with itself: one for each of WIDTHS


@pytest.fixture(scope="module")
def described():
    """Features of attacked copies and of photos, with candidates: the true photo of each copy and others.

    The copies differ with the fonts of the machine; those of WITHIN do not.
    """
    names = list(PHOTOS)[: COPIED + OTHERS]
    photos = [read_image(PHOTOS[name]) for name in names]
    augmenter, rng = Augmenter(AugmentConfig(), size=256), np.random.default_rng(3)
    copies = [augmenter.hard(photo, lambda: photos[-1], rng, strength=0.5) for photo in photos[:COPIED]]
    copies[1] = copies[1][:, ::-1].copy()
    rows = [(i, (i + j) % len(names)) for i in range(COPIED) for j in range(1 + OTHERS)]
    query, reference = np.array([*rows, *((COPIED + at, 0) for at in range(len(WITHIN)))]).T
    again = local_features(read_image(encode_jpeg(photos[0], quality=60)))
    asked = [*map(local_features, copies), *(cut(again, number) for number in WITHIN)]
    return asked, [local_features(one) for one in photos], query, reference


def fits_of(queries, references, query, reference):
    return best_fits(FeatureRows.of(queries, CPU), FeatureRows.of(references, CPU), query, reference)


def listed(pairs, inside) -> list[list[float]]:
    """The tentative pairs in one order: equal ratios, of which rounding decides, may come either way."""
    return sorted(np.c_[pairs.query, pairs.reference, pairs.turn, inside].tolist())


def agree(found, queries, references, query, reference) -> int:
    """Compare every pair that is solved with its twin; return the number of maps."""
    maps = 0
    for row, (q, r) in enumerate(zip(query, reference, strict=True)):
        if found.unsolved[row]:
            continue
        slow = best_fit(queries[q], references[r])
        assert bool(found.fitted[row]) == (slow is not None), row
        if slow is None:
            continue
        number = found.number[row]
        assert (int(found.inliers[row]), bool(found.flip[row])) == (slow.inliers, slow.pairs.flip)
        assert found.log_nfa[row] == pytest.approx(slow.log_nfa, abs=1e-9)
        np.testing.assert_allclose(found.affine[row], slow.affine, atol=1e-8)
        rows = found.query[row, :number], found.reference[row, :number]
        mine = paired(queries[q], references[r], rows, flip=slow.pairs.flip)
        assert listed(mine, found.inside[row, :number]) == listed(slow.pairs, slow.inside)
        maps += 1
    return maps


def test_many_pairs_at_once_give_the_maps_of_one_at_a_time(described):
    found = fits_of(*described)
    assert agree(found, *described) >= 15
    assert found.unsolved.sum() <= 2
    assert found.flip[found.fitted].any()
    assert not found.flip[found.fitted].all()


def test_a_pair_does_not_depend_on_its_batch(described):
    queries, references, query, reference = described
    rows = np.random.default_rng(0).permutation(len(query))[:12]
    whole, some = fits_of(*described), fits_of(queries, references, query[rows], reference[rows])
    assert (some.inliers == whole.inliers[rows]).all()
    assert (some.inside == whole.inside[rows]).all()
    np.testing.assert_allclose(some.affine[some.fitted], whole.affine[rows][some.fitted], atol=1e-9)


def test_every_width_of_a_batch_is_met(described):
    """Else a width could be wrong unseen."""
    found = fits_of(*described)
    narrow = np.array((3, *WIDTHS[:-1]))
    assert all(((found.number > low) & (found.number <= high)).any() for low, high in zip(narrow, WIDTHS, strict=True))


def cut(features: LocalFeatures, number: int) -> LocalFeatures:
    names = ("points", "sizes", "angles", "descriptors")
    return dataclasses.replace(features, **{name: getattr(features, name)[:number] for name in names})


@pytest.mark.parametrize("number", [0, 1, 3, 4, 5, 40])
def test_few_features(number, described):
    _, photos, _, _ = described
    few = [cut(one, number) for one in photos[:4]]
    rows = np.arange(4)
    for sides in ((few, photos), (photos, few), (few, few)):
        found = fits_of(*sides, rows, rows)
        agree(found, *sides, rows, rows)
        assert number > 3 or not found.fitted.any()


def test_points_on_a_line_are_left_to_the_other_way(described):
    """A map has no unique answer there, and the twin takes the shortest one."""
    photo = described[1][0]
    flat = dataclasses.replace(photo, points=np.c_[photo.points[:, 0], np.full(len(photo), 50)].astype(np.float32))
    found = fits_of([flat], [flat], np.zeros(1, int), np.zeros(1, int))
    assert found.unsolved.tolist() == [True]


def test_a_picture_with_itself_and_no_pairs_at_all(described):
    photos = described[1]
    found = fits_of(photos, photos, np.arange(3), np.arange(3))
    assert (found.inliers > 100).all()
    np.testing.assert_allclose(found.affine, np.broadcast_to([[1, 0, 0], [0, 1, 0]], (3, 2, 3)), atol=1e-6)
    assert len(fits_of(photos, photos, np.zeros(0, int), np.zeros(0, int)).fitted) == 0


def test_products_of_descriptors_are_whole_numbers_that_every_arithmetic_has(described):
    """So TF32 and the order of sums change nothing: 10 bits of a factor and 24 of a sum suffice."""
    one, other = (described[0][0].descriptors[:50].astype(np.int64) for _ in range(2))
    exact = one @ other.T
    assert exact.max() < 1 << 24
    assert np.abs(described[0][0].descriptors).max() < 1 << 10
    first, _, nearest = batched_fit._nearest(*(torch.from_numpy(described[0][0].descriptors[None, :50]),) * 2,
                                             torch.tensor([50]))  # fmt: skip
    assert (first[0] * 255**2).round().long().tolist() == exact.max(axis=1).tolist()
    assert nearest[0].tolist() == exact.argmax(axis=1).tolist()


# --- the whole comparison --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Files of copies and photos, their candidates, and the verdict of one pair at a time."""
    folder = tmp_path_factory.mktemp("scene")
    names = list(PHOTOS)[:9]
    photos = [read_image(PHOTOS[name]) for name in names]
    augmenter, rng = Augmenter(AugmentConfig(), size=256), np.random.default_rng(5)
    queries: dict[str, Path] = {}
    for name, photo in zip(names[:6], photos, strict=False):
        queries[f"Q{name}"] = folder / f"Q{name}.jpg"
        copy = augmenter.hard(photo, lambda: photos[-1], rng, strength=0.4)
        queries[f"Q{name}"].write_bytes(encode_jpeg(copy, quality=90))
    torn = folder / "torn.jpg"
    torn.write_bytes(PHOTOS["S000"].read_bytes()[:2000])
    queries["torn"] = torn
    references = {name: PHOTOS[name] for name in names} | {"torn": torn}
    rows = [(f"Q{name}", other) for name in names[:6] for other in dict.fromkeys((name, names[7], names[8], "torn"))]
    candidates = pairs(*rows, ("torn", names[0]), ("nowhere", names[0]))
    return candidates, queries, references, verify(candidates, queries, references, workers=1)


def agrees(found: Verified, expected: Verified) -> None:
    """Same decisions, counts and problems; correlations and shares to rounding."""
    assert found.problems == expected.problems
    assert list(found.alignments) == list(expected.alignments)
    counts = [EVIDENCE.index(name) for name in ("features_query", "features_reference", "tentative", "inliers")]
    np.testing.assert_array_equal(found.evidence[:, counts], expected.evidence[:, counts])
    np.testing.assert_allclose(found.evidence, expected.evidence, atol=2e-3)
    for row, one in expected.alignments.items():
        assert found.alignments[row].mirrored == one.mirrored
        np.testing.assert_allclose(found.alignments[row].matrix, one.matrix, atol=1e-6)
        np.testing.assert_allclose(found.alignments[row].query_region, one.query_region, atol=1e-6)
    fusion, _ = fusion_for(MODEL, {})
    usable = ~np.isnan(expected.evidence[:, 0])
    distance = np.full(usable.sum(), 1.0)
    probabilities = [fusion.probability(distance, one.evidence[usable]) for one in (found, expected)]
    np.testing.assert_allclose(*probabilities, atol=1e-3)
    assert ((probabilities[0] > 0.5) == (probabilities[1] > 0.5)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "stored", "block"), [(1, False, 64), (2, True, 2), (2, False, 3)])
def test_the_device_gives_the_evidence_of_the_cpu(workers, stored, block, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(device_compare, "QUERIES", block)
    monkeypatch.setattr(device_compare, "CPU_PAIRS", 5)
    candidates, queries, references, expected = scene
    assert len(expected.alignments) >= 5
    for _ in range(1 + stored):  # the second time the store knows what it can
        store = FeatureStore(tmp_path / "store") if stored else None
        found = verify(candidates, queries, references, workers=workers, store=store, on="cpu")
        agrees(found, expected)


def test_references_are_read_once_a_block_and_not_described(scene, tmp_path, monkeypatch):
    candidates, queries, references, expected = scene
    verify(candidates, queries, references, workers=1, store=FeatureStore(tmp_path))
    read: list[int] = []
    get_many = FeatureStore.get_many

    def counted(self, keys):
        keys = list(keys)
        read.append(len(keys))
        return get_many(self, keys)

    monkeypatch.setattr(FeatureStore, "get_many", counted)
    monkeypatch.setattr(device_compare, "READERS", 1)
    agrees(verify(candidates, queries, references, workers=1, store=FeatureStore(tmp_path), on="cpu"), expected)
    assert read[0] == 8  # the readable references of all queries in one look-up, then the drawings of some


def test_a_query_that_is_stored_is_read_and_not_described(tmp_path, monkeypatch):
    """As in a search for duplicates, where each photo is on both sides."""
    candidates, store = pairs(("S000", "S001"), ("S001", "S000")), FeatureStore(tmp_path)
    expected = verify(candidates, PHOTOS, PHOTOS, workers=1)
    verify(candidates, PHOTOS, PHOTOS, workers=1, store=store)
    monkeypatch.setattr("isc.match.verification.tasks.read_image", lambda path: pytest.fail(f"{path} is decoded"))
    found = verify(candidates, PHOTOS, PHOTOS, workers=1, store=store)
    np.testing.assert_array_equal(found.evidence, expected.evidence)
    assert found.problems == ()


def test_what_has_no_unique_map_is_compared_one_at_a_time(scene, monkeypatch):
    """If the device solves nothing, the evidence is that of the CPU to the bit."""
    candidates, queries, references, expected = scene
    solved = batched_fit._solved
    monkeypatch.setattr(
        batched_fit, "_solved", lambda pairs, inside: (solved(pairs, inside)[0], torch.ones(inside.shape[:2]).bool())
    )
    found = verify(candidates, queries, references, workers=1, on="cpu")
    np.testing.assert_array_equal(found.evidence, expected.evidence)


def test_a_pair_that_fails_is_listed(scene, monkeypatch):
    candidates, queries, references, expected = scene

    def broken(*_):
        raise ValueError("odd")

    monkeypatch.setattr("isc.match.verification.tasks.evidence_of", broken)
    found = verify(candidates, queries, references, workers=1, on="cpu")
    failed = [one for one in found.problems if one.side == "pair"]
    assert len(failed) == len(expected.alignments)
    assert {one.reason for one in failed} == {"cannot be compared (ValueError: odd)"}


def test_the_device_is_chosen_by_what_there_is_and_how_much_there_is_to_do(monkeypatch):
    assert device_for(Device.cpu, 10**9) is None
    monkeypatch.setattr(device_compare, "cuda_devices", lambda: [])
    with pytest.raises(InputError, match="device=cuda: no CUDA device is visible"):
        device_for(Device.cuda, 1)
    monkeypatch.setattr(device_compare, "cuda_devices", lambda: ["cuda:0", "cuda:1"])
    assert device_for(Device.cuda, 1) == "cuda:0"
    monkeypatch.setattr(Path, "exists", lambda self: True)
    assert device_for(Device.auto, device_compare.ENOUGH) == "cuda:0"
    assert device_for(Device.auto, device_compare.ENOUGH - 1) is None


def test_shapes_and_devices_hold_on_a_gpu_by_fake_tensors():
    """Nothing is made on the host in the middle: all of a batch's tensors are on the GPU."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        rows = FeatureRows(
            torch.zeros(3, 500, 128, dtype=torch.uint8, device="cuda"),
            *(torch.zeros(3, 500, *more, dtype=torch.float64, device="cuda") for more in ((2,), (), ())),
            torch.full((3,), 500, device="cuda"),
            torch.full((3, 2), 384.0, dtype=torch.float64, device="cuda"),
        )
        q = torch.zeros(7, dtype=torch.int64, device="cuda")
        tentative = batched_fit._tentative(rows, rows, q, q)
        found = batched_fit._fitted(tentative.take(torch.zeros(5, dtype=torch.int64, device="cuda"), 64))
        assert {value.device.type for value in (*vars(tentative).values(), *found.values())} == {"cuda"}
        assert {name: tuple(value.shape) for name, value in found.items()} == {
            "affine": (5, 2, 3), "inside": (5, 64), "inliers": (5,), "log_nfa": (5,), "odd": (5,),
        }  # fmt: skip
