"""Attacks made on the device against the same attacks on the CPU, on real photos.

Picture by picture where the draws are the same, by statistics where noise is drawn anew.
"""

from __future__ import annotations

import copy
import dataclasses

import albumentations as A
import numpy as np
import pytest
import torch

from isc.config.choices import AttacksOn
from isc.config.train import AugmentConfig
from isc.photos.decode import read_image
from isc.photos.folders import SAMPLE, list_images
from isc.photos.resizing import resize
from isc.photos.sources import list_photos
from isc.train.augment import augmenter as augmenter_module
from isc.train.augment.augmenter import Augmenter, _apply, families
from isc.train.augment.deferred import NUMBERS, Edit, Kind, can_wait, edit_of
from isc.train.augment.on_device import Edits, edited
from isc.train.dataset import Source, TrainingViews, defers, training_loader
from isc.train.rows import Embedding
from isc.train.run import train
from tests.test_step_syncs import no_reads
from tests.test_train import TINY, column, config

SIDE, PHOTOS, DRAWS = 64, 6, 4
NOISE = {Kind.noise, Kind.specks}
ATTACKS = {
    f"{family}-{type(attack).__name__}-{number}": attack
    for family, attacks in families(1.0).items()
    for number, attack in enumerate(attacks)
    if can_wait(attack)
}


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return [resize(read_image(path), SIDE) for path in list(list_images(SAMPLE).values())[10 : 10 + PHOTOS]]


def on_device(pictures, chains):
    views = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    edits = Edits.of(chains, seed=5)
    return views.numpy().transpose(0, 2, 3, 1) if edits is None else edited(views, edits).numpy().transpose(0, 2, 3, 1)


def both(attack, photos) -> tuple[np.ndarray, np.ndarray, set[Kind]]:
    """The attack on every photo with some draws, on the CPU and on the device, float [N, S, S, 3]; and its kinds."""
    expected, pictures, chains = [], [], []
    for number, photo in enumerate(photos * DRAWS):
        rng = np.random.default_rng(number)
        expected.append(_apply(copy.deepcopy(attack), photo, None, copy.deepcopy(rng)))
        chains.append([edit_of(copy.deepcopy(attack), photo, rng)])
        pictures.append(photo)
    return np.stack(expected).astype(float), on_device(pictures, chains).astype(float), {one.kind for (one,) in chains}


def statistics(pictures: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of grey levels, and the energy of the edges, of each picture [N, 3]."""
    across, down = np.diff(pictures, axis=2), np.diff(pictures, axis=1)
    edges = np.sqrt((across**2).mean(axis=(1, 2, 3)) + (down**2).mean(axis=(1, 2, 3)))
    return np.stack([pictures.mean(axis=(1, 2, 3)), pictures.std(axis=(1, 2, 3)), edges], axis=1)


def test_every_form_is_met():
    kinds = set()
    for attack in ATTACKS.values():
        rng = np.random.default_rng(0)
        kinds.add(edit_of(copy.deepcopy(attack), np.zeros((SIDE, SIDE, 3), np.uint8), rng).kind)
    assert kinds == set(Kind)
    assert {name.partition("-")[0] for name in ATTACKS} == {
        "flip", "rotate", "perspective", "color", "gray", "filter", "edge", "blur", "noise",
    }  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_the_device_makes_what_the_cpu_makes(name, photos):
    """Mean and deviation within 0.8 of 256 grey levels, edge energy within 3 %; without noise each pixel is near."""
    expected, found, kinds = both(ATTACKS[name], photos)
    assert len(kinds) == 1
    one, other = statistics(expected), statistics(found)
    if kinds <= NOISE:  # other noise of the same strength
        np.testing.assert_allclose(other.mean(axis=0), one.mean(axis=0), rtol=0.03, atol=1.5)
        return
    np.testing.assert_allclose(other[:, :2], one[:, :2], atol=0.8)
    np.testing.assert_allclose(other[:, 2], one[:, 2], rtol=0.03, atol=0.6)
    assert np.abs(found - expected).mean() < 0.6
    assert np.quantile(np.abs(found - expected), 0.99) <= 3


@pytest.mark.parametrize(
    "name", [name for name in ATTACKS if name.partition("-")[0] in {"flip", "rotate", "perspective"}]
)
def test_what_moves_keeps_the_same_area(name):
    """The share of a white photo that is left, on grounds of any colour."""
    white = [np.full((SIDE, SIDE, 3), 255, np.uint8)] * 4
    expected, found, _ = both(ATTACKS[name], white)
    for one, other in zip(expected, found, strict=True):
        assert abs((one.min(axis=2) > 250).mean() - (other.min(axis=2) > 250).mean()) < 0.02


def test_noise_has_its_strength():
    gray = torch.full((2, 3, 128, 128), 128, dtype=torch.uint8)
    noise = Edits.of([[Edit(Kind.noise, np.array([20.0], np.float32))], []], seed=1)
    made = edited(gray, noise).float()
    assert made[0].std().item() == pytest.approx(20, rel=0.03)
    assert (made[1] == 128).all()
    specks = Edits.of([[Edit(Kind.specks, np.array([0.2, 0.25], np.float32))], []], seed=1)
    made = edited(gray, specks)[0]
    assert (made == 255).float().mean().item() == pytest.approx(0.05, abs=0.01)
    assert (made == 0).float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert torch.equal(edited(gray, noise), edited(gray, noise))
    other = dataclasses.replace(noise, groups=tuple(dataclasses.replace(one, seed=2) for one in noise.groups))
    assert not torch.equal(edited(gray, noise), edited(gray, other))


def test_edits_are_made_in_the_order_of_their_chain(photos):
    """Inverting before a gamma is not the same as after it."""
    gamma, invert = (next(one for name, one in ATTACKS.items() if kind in name) for kind in ("Gamma", "Invert"))
    chain = []
    for attack in (gamma, invert):
        chain.append(edit_of(copy.deepcopy(attack), photos[0], np.random.default_rng(1)))
    views = torch.from_numpy(photos[0]).permute(2, 0, 1)[None].repeat(3, 1, 1, 1)
    tables = [edit.numbers.astype(np.uint8) for edit in chain]
    made = edited(views, Edits.of([chain, chain[::-1], []], seed=0)).permute(0, 2, 3, 1).numpy()
    assert (made[0] == tables[1][tables[0][photos[0]]]).all()
    assert (made[1] == tables[0][tables[1][photos[0]]]).all()
    assert (made[2] == photos[0]).all()
    assert (made[0] != made[1]).any()


# --- the views of a training -----------------------------------------------------------------------------------------


def test_a_view_begun_and_ended_is_the_view_of_the_cpu(photos, monkeypatch):
    """With the same draws, noise aside: the CPU makes the first attacks, the device the last ones."""
    noise = (A.GaussNoise, A.SaltAndPepper)
    monkeypatch.setattr(augmenter_module, "can_wait", lambda attack: can_wait(attack) and not isinstance(attack, noise))
    augmenter = Augmenter(AugmentConfig(), size=SIDE)
    begun, chains, expected = [], [], []
    for number in range(60):
        photo, other = photos[number % PHOTOS], photos[(number + 1) % PHOTOS]
        picture, _, edits = augmenter.begun(photo, lambda other=other: other, np.random.default_rng(number))
        begun.append(picture)
        chains.append(edits)
        expected.append(augmenter.attacked(photo, lambda other=other: other, np.random.default_rng(number))[0])
    made = on_device(begun, chains).astype(float)
    apart = np.abs(made - np.stack(expected)).mean(axis=(1, 2, 3))
    assert sum(bool(chain) for chain in chains) >= 15
    assert np.median(apart) < 0.1
    assert apart.max() < 2.5  # a ground in the mean colour may be that of before a change of colours
    plain = [not chain for chain in chains]
    assert (apart[plain] == 0).all()


def views_of(**options) -> TrainingViews:
    source = Source(list_photos([str(SAMPLE)]))
    return TrainingViews(source, Augmenter(AugmentConfig(), size=48), seed=4, mix=0.2, **options)


@pytest.mark.slow
def test_views_of_both_places_have_the_same_statistics():
    """400 hard views: means, deviations and edges agree within their own error, three standard errors."""
    found = []
    for waits in (False, True):
        batches = training_loader(views_of(defers=waits), batch_size=20, steps=range(20), workers=0)
        views = [batch.views if batch.edits is None else edited(batch.views, batch.edits) for batch in batches]
        assert waits == any(batch.edits is not None for batch in batches)
        hard = torch.cat([one[20:] for one in views]).permute(0, 2, 3, 1).numpy().astype(float)
        found.append(statistics(hard))
    one, other = found
    error = np.sqrt(one.var(axis=0) / len(one) + other.var(axis=0) / len(other))
    assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) < 3 * error).all()
    for share in (0.1, 0.5, 0.9):
        assert np.allclose(np.quantile(one, share, axis=0), np.quantile(other, share, axis=0), rtol=0.2, atol=6)


def test_the_views_of_a_cpu_are_untouched():
    """The default on a CPU: no edit waits, and every view is what `hard` makes."""
    batch = next(iter(training_loader(views_of(), batch_size=4, steps=range(1), workers=0)))
    assert batch.edits is None
    assert not defers(AttacksOn.auto, torch.device("cpu"))
    assert not defers(AttacksOn.cpu, torch.device("cuda"))
    assert defers(AttacksOn.auto, torch.device("cuda"))
    assert defers(AttacksOn.gpu, torch.device("cpu"))


def test_a_batch_brings_few_tensors_whatever_waits():
    """Each takes a file descriptor of the loader's process."""
    batch = next(iter(training_loader(views_of(defers=True), batch_size=40, steps=range(1), workers=0)))
    assert len(batch.edits.groups) > 4
    assert batch.edits.numbers.shape == (len(batch.edits.rows), NUMBERS)
    assert (batch.edits.rows >= 40).all()  # hard views alone
    assert sum(part.part.stop - part.part.start for part in batch.edits.groups) == len(batch.edits.rows)


def test_edits_never_wait_for_the_device(photos):
    chains = [[edit_of(copy.deepcopy(attack), photos[0], np.random.default_rng(1))] for attack in ATTACKS.values()]
    views = torch.from_numpy(photos[0]).permute(2, 0, 1)[None].repeat(len(chains), 1, 1, 1)
    edits = Edits.of(chains, seed=0)
    with no_reads():
        edited(views, edits)


def test_a_training_makes_the_last_attacks_where_it_trains(tmp_path, monkeypatch):
    seen, rows = [], Embedding.rows

    def watched(self, batch, *given, **options):
        seen.append(batch.edits is not None)
        return rows(self, batch, *given, **options)

    monkeypatch.setattr(Embedding, "rows", watched)
    options = dataclasses.replace(TINY, attacks_on=AttacksOn.gpu, steps=4, batch_size=8)
    train(config(SAMPLE, tmp_path / "run", train=options))
    assert any(seen)
    assert len(column(tmp_path / "run", "loss")) == 4
    seen.clear()
    train(config(SAMPLE, tmp_path / "plain", train=dataclasses.replace(options, attacks_on=AttacksOn.auto)))
    assert not any(seen)


@pytest.mark.parametrize("kind", Kind)
def test_shapes_and_devices_hold_on_a_gpu_by_fake_tensors(kind):
    from torch._subclasses.fake_tensor import FakeTensorMode

    from isc.train.augment.on_device import PLAIN, RANDOM

    if kind in RANDOM:
        return  # a generator of a GPU needs one
    with FakeTensorMode(allow_non_fake_inputs=True):
        views = torch.zeros(5, 3, SIDE, SIDE, device="cuda")
        made = PLAIN[kind](views, torch.zeros(5, NUMBERS, device="cuda"))
        assert (made.shape, made.device.type) == (views.shape, "cuda")
