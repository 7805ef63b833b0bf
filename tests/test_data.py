"""Datasets and loaders: the same samples whatever reads them, each photo once an epoch, unreadable ones named."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import isc
from isc.config.train import AugmentConfig
from isc.extract.loaders import loader_options
from isc.photos.decode import read_image
from isc.photos.folders import list_images
from isc.photos.listing import Listing, packed
from isc.photos.place import ListedPhoto, Place
from isc.photos.resizing import resize
from isc.photos.sources import list_photos
from isc.runtime import cpus
from isc.runtime.cpus import worker_count
from isc.train.augment.augmenter import Augmenter
from isc.train.augment.trace import NOWHERE, POINTS
from isc.train.dataset import MIXED_BOTH, Batch, Source, TrainingViews, training_loader
from isc.train.losses import ABSENT

PATHS = list(list_images(Path(isc.__file__).parent / "sample").values())[:7]
SIZE = 32
PLAIN = AugmentConfig(min_crop=1.0, **{name: 0.0 for name in vars(AugmentConfig()) if name != "min_crop"})


@pytest.fixture(autouse=True)
def no_opencv_threads():
    """A worker forked from OpenCV's threads may wait for ever: `test_workers_start_after_opencv` asks that."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def listed(paths: list[Path]) -> Listing:
    """A listing of files that need not exist, in their order."""
    return packed(ListedPhoto(path.stem, path.suffix, Place(str(path.parent), str(path.parent))) for path in paths)


def views(
    paths: list[Path] = PATHS, *, seed: int = 0, config: AugmentConfig | None = None, pairs: Any = None, **options: Any
) -> TrainingViews:
    source = Source(listed(paths), None if pairs is None else np.array(pairs))
    return TrainingViews(source, Augmenter(config or AugmentConfig(), size=SIZE), seed=seed, **options)


def hard(sample: Any, number: int = 0) -> np.ndarray:
    return sample.hard[number].pixels


def labels(sample: Any, number: int = 0) -> tuple[int, int]:
    return sample.hard[number].shows


def instance(sample: Any) -> int:
    """The photo of a sample whose hard view was not mixed."""
    assert labels(sample) == (sample.instance, ABSENT)
    return sample.instance


def equal(a: Any, b: Any) -> bool:
    return labels(a) == labels(b) and (a.mild == b.mild).all() and (hard(a) == hard(b)).all()


def shown_by(pixels: np.ndarray) -> int:
    """The photo that a picture without edits is nearest to."""
    squeezed = [resize(read_image(p), SIZE) for p in PATHS]
    distance = [np.abs(pixels.astype(float) - one).mean() for p in squeezed for one in (p, p[:, ::-1])]
    return int(np.argmin(distance)) // 2


@pytest.fixture
def some_torn(tmp_path) -> list[Path]:
    """Seven photos, of which numbers 2 and 3 cannot be read."""
    paths = [tmp_path / path.name for path in PATHS]
    for source, target in zip(PATHS, paths, strict=True):
        shutil.copy(source, target)
    paths[2].write_bytes(b"not a picture")
    paths[3].unlink()
    return paths


# --- training --------------------------------------------------------------------------------------------------------


def test_a_sample_depends_on_seed_and_number_alone():
    numbers = [0, 3, 6, 7, 20, 3]
    first = views()
    forward = [first[n] for n in numbers]
    backward = [first[n] for n in reversed(numbers)][::-1]  # back and forth between epochs
    fresh = [views()[n] for n in numbers]
    assert all(equal(a, b) and equal(a, c) for a, b, c in zip(forward, backward, fresh, strict=True))
    assert equal(forward[1], forward[5])
    other = [views(seed=1)[n] for n in numbers]
    assert not all(equal(a, b) for a, b in zip(forward, other, strict=True))


def test_the_same_photo_is_edited_otherwise_in_the_next_epoch():
    samples = [views()[n] for n in range(14)]
    for photo in range(7):
        one, two = (sample for sample in samples if instance(sample) == photo)
        assert not np.array_equal(hard(one), hard(two))


@pytest.mark.parametrize("seed", range(3))
def test_each_epoch_visits_each_photo_once_in_its_own_order(seed):
    dataset = views(seed=seed, config=PLAIN)
    epochs = [[instance(dataset[7 * epoch + i]) for i in range(7)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4


def test_the_views_show_the_photo_of_their_number():
    """Without attacks the hard view is the photo itself, up to how it is resampled."""
    for n in range(7):
        sample = views(config=PLAIN)[n]
        assert shown_by(hard(sample)) == shown_by(sample.mild) == instance(sample)


def batches(dataset: TrainingViews, workers: int, first: int = 0, last: int = 4) -> list[Batch]:
    return list(training_loader(dataset, batch_size=3, steps=range(first, last), workers=workers))


def test_workers_change_nothing(some_torn):
    for here, there in zip(batches(views(some_torn), 0), batches(views(some_torn), 2), strict=True):
        assert torch.equal(here.views, there.views)
        assert torch.equal(here.instances, there.instances)
        assert here.failures == there.failures


def test_batches_by_hand():
    dataset, found = views(), batches(views(), 0)
    assert len(found) == 4
    for step, batch in enumerate(found):
        samples = [views()[3 * step + i] for i in range(3)]
        assert batch.views.shape == (6, 3, SIZE, SIZE)
        assert batch.views.dtype == torch.uint8
        assert batch.instances.tolist() == [[instance(sample), ABSENT] for sample in samples] * 2
        for i, sample in enumerate(samples):
            assert (batch.views[i].permute(1, 2, 0).numpy() == sample.mild).all()
            assert (batch.views[3 + i].permute(1, 2, 0).numpy() == hard(sample)).all()
    assert len(dataset.source) == 7


@pytest.mark.parametrize("workers", [0, 2])
def test_tars_and_lists_give_the_batches_of_their_folder(workers, tmp_path):
    """Of two shards, and of a list: the same photos in the same order, cut alike."""
    for number, part in enumerate((PATHS[::2], PATHS[1::2])):
        with tarfile.open(tmp_path / f"{number:03}.tar", "w") as tar:
            for path in part:
                tar.add(path, path.name)
    (tmp_path / "all.txt").write_text("".join(f"{path}\n" for path in reversed(PATHS)), encoding="utf-8")
    folder = batches(views(), workers)
    for given in (f"{tmp_path}/{{000..001}}.tar", tmp_path / "all.txt"):
        dataset = TrainingViews(Source(list_photos(given)), Augmenter(AugmentConfig(), size=SIZE), seed=0)
        for one, two in zip(batches(dataset, workers), folder, strict=True):
            assert torch.equal(one.views, two.views)
            assert torch.equal(one.instances, two.instances)
            assert not one.failures


def test_a_run_goes_on_where_it_was():
    whole, rest = batches(views(), 0, 0, 5), batches(views(), 0, 3, 5)
    assert len(rest) == 2
    assert all(torch.equal(a.views, b.views) for a, b in zip(whole[3:], rest, strict=True))


def test_unreadable_photos_are_replaced_by_the_next_and_reported(some_torn):
    dataset = views(some_torn)
    samples = [dataset[n] for n in range(21)]
    assert sorted(instance(s) for s in samples[:7]) == [0, 1, 4, 4, 4, 5, 6]
    failures = [failure for sample in samples for failure in sample.failures]
    assert {path for path, _ in failures} == {str(some_torn[2]), str(some_torn[3])}
    assert all(Path(path).name in reason for path, reason in failures)
    whole = [views()[n] for n in range(21)]  # samples of readable photos do not suffer
    untouched = [(a, b) for a, b in zip(samples, whole, strict=True) if not a.failures]
    assert untouched
    assert all(equal(a, b) for a, b in untouched)
    reported = [failure for batch in batches(dataset, 0, 0, 7) for failure in batch.failures]
    assert reported == failures


def test_the_last_photo_is_replaced_by_the_first(tmp_path):
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(b"")
    dataset = views([PATHS[0], PATHS[1], torn])
    assert sorted(instance(dataset[n]) for n in range(3)) == [0, 0, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_where_no_photo_can_be_read_all_are_reported(workers, tmp_path):
    """The trainer stops on this; an error raised here would come through a worker with its traceback."""
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for batch in batches(views(paths), workers):
        assert {Path(path) for path, _ in batch.failures} == set(paths)


def test_one_photo_is_enough():
    assert [instance(views(PATHS[:1])[n]) for n in range(3)] == [0, 0, 0]


# --- several processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "ranks"), [(4, 2), (6, 2), (6, 3), (3, 3), (3, 1)])
def test_the_shares_of_the_ranks_make_the_batch_of_one_process(batch_size, ranks):
    """Also where a share is odd, so that a photo and its neighbour, or what is mixed with it, lie with two ranks."""
    neighbours = np.array([[(n + 1) % 7] for n in range(7)])
    dataset = views(neighbours=neighbours, mix=1.0)
    alone = list(training_loader(dataset, batch_size=batch_size, steps=range(1, 4), workers=0))
    each = [
        list(training_loader(dataset, batch_size=batch_size, steps=range(1, 4), workers=0, rank=rank, ranks=ranks))
        for rank in range(ranks)
    ]
    assert len(alone) == 3
    for step, whole in enumerate(alone):
        shares = [batches[step] for batches in each]
        assert all(len(share.views) == 2 * batch_size // ranks for share in shares)
        for view in range(2):  # the mild ones, then the hard ones
            for name in ("views", "instances"):
                parts = [getattr(share, name).chunk(2)[view] for share in shares]
                assert torch.equal(torch.cat(parts), getattr(whole, name).chunk(2)[view])


def test_the_loader_draws_no_number_that_the_network_would_have_drawn():
    """Else a run that goes on, and starts a loader anew, would drop out other units."""
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    batches(views(), 0, 0, 1)
    assert torch.equal(torch.rand(1), expected)


# --- hard negatives --------------------------------------------------------------------------------------------------


def test_every_second_photo_is_a_neighbour_of_the_one_before():
    neighbours = np.array([[(n + 1) % 7, (n + 3) % 7] for n in range(7)])
    dataset, plain = views(neighbours=neighbours), views()
    drawn = set()
    for n in range(0, 28, 2):
        first, second = instance(dataset[n]), instance(dataset[n + 1])
        assert first == instance(plain[n])  # the others come as without neighbours
        assert second in neighbours[first]
        drawn.add((second - first) % 7)
    assert drawn == {1, 3}
    assert equal(dataset[9], views(neighbours=neighbours)[9])


# --- mixed views -----------------------------------------------------------------------------------------------------


def test_a_mixed_view_shows_both_photos_or_the_one_that_is_left():
    dataset, plain, kinds = views(config=PLAIN, mix=1.0), views(config=PLAIN), set()
    for n in range(24):
        sample, own, partner = dataset[n], instance(plain[n]), instance(plain[n ^ 1])
        assert set(labels(sample)) <= {own, partner, ABSENT}
        kinds.add(tuple("own" if p == own else "other" if p == partner else "absent" for p in labels(sample)))
        assert shown_by(sample.mild) == own  # the mild view is never mixed
    assert {("own", "other"), ("own", "absent")} <= kinds <= {("own", "other"), ("own", "absent"), ("other", "absent")}


@pytest.mark.parametrize(
    ("share", "shows"),
    [(0.95, (0, ABSENT)), (0.81, (0, ABSENT)), (0.79, (0, 1)), (0.5, (0, 1)), (0.21, (0, 1)), (0.19, (1, ABSENT))],
)
def test_what_a_mixture_shows_by_its_share(share, shows, monkeypatch):
    """A photo counts where at least a fifth of it is left."""
    assert MIXED_BOTH == 0.2
    for name in ("mixup", "cutmix"):
        monkeypatch.setattr(f"isc.train.dataset.{name}", lambda a, b, rng: (a, share))
    numbers = [instance(views()[n]) for n in (0, 1)]
    expected = tuple(numbers[s] if s != ABSENT else ABSENT for s in shows)
    assert labels(views(mix=1.0)[0]) == expected


def test_mix_and_strength_are_probabilities(monkeypatch):
    monkeypatch.setattr("isc.photos.listing.read_image", functools.cache(read_image))
    for mix, strength, mixed in ((0.0, 1.0, 0), (1.0, 0.0, 0), (0.5, 0.5, 0.25), (0.6, 1.0, 0.6)):
        dataset, plain = (views(PATHS[:2], config=PLAIN, mix=m, strength=strength) for m in (mix, 0.0))
        share = np.mean([not np.array_equal(hard(plain[n]), hard(dataset[n])) for n in range(100)])
        assert abs(share - mixed) < 0.12


def test_the_batch_names_both_photos():
    [batch] = batches(views(mix=1.0), 0, 0, 1)
    assert batch.instances.shape == (6, 2)
    assert (batch.instances[:3, 1] == ABSENT).all()
    assert batch.instances[3:].tolist() == [list(labels(views(mix=1.0)[n])) for n in range(3)]


# --- known copies ----------------------------------------------------------------------------------------------------


def test_the_second_view_of_a_pair_is_the_known_copy():
    """Pairs (photo, copy): 0 with 1, 2 with 3, 4 with 5."""
    dataset = views(pairs=[(0, 1), (2, 3), (4, 5)], config=PLAIN, mix=1.0)
    samples = [dataset[n] for n in range(6)]
    assert sorted(instance(sample) for sample in samples[:3]) == [0, 2, 4]
    assert sorted(instance(sample) for sample in samples[3:]) == [0, 2, 4]  # the next epoch
    for sample in samples:
        assert shown_by(sample.mild) == instance(sample)
        assert shown_by(hard(sample)) == instance(sample) + 1


def test_an_unreadable_photo_of_a_pair_is_replaced_by_the_other_ones_views(some_torn):
    """Photos 2 and 3 cannot be read; of the pair (0, 2) two views of 0 are left, of (3, 1) two of photo 4."""
    dataset = views(some_torn, pairs=[(0, 2), (3, 1)], config=PLAIN)
    for sample in (dataset[0], dataset[1]):
        assert instance(sample) in {0, 4}
        assert shown_by(sample.mild) == shown_by(hard(sample)) == instance(sample)
        assert sample.failures


def test_the_photos_that_are_learned_from():
    photos = listed(PATHS)
    assert (len(Source(photos)), Source(photos).num_photos()) == (7, 7)
    some = Source(photos, np.array([(0, 1), (0, 2)]))
    assert (len(some), some.num_photos()) == (2, 3)


# --- processes --------------------------------------------------------------------------------------------------------


def test_a_batch_pins_its_views(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.shape) or self)
    (batch,) = training_loader(views(), batch_size=2, steps=range(1), workers=0)
    assert isinstance(batch.pin_memory(), Batch)
    assert pinned == [batch.views.shape, batch.instances.shape]


@pytest.mark.parametrize(("device", "pins"), [("cpu", False), ("cuda", True)])
def test_a_run_on_the_cpu_opens_no_gpu(device, pins, monkeypatch):
    """Pinning memory opens the GPU: the loaders of device=cpu do not, on a machine that has one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert loader_options(0, item_bytes=1, device=torch.device(device))["pin_memory"] is pins
    made = training_loader(views(), batch_size=2, steps=range(1), workers=0, device=torch.device(device))
    assert made.pin_memory is pins


def test_worker_count(monkeypatch):
    for cores, expected in ((1, 1), (3, 3), (16, 16), (64, 16)):
        monkeypatch.setattr(cpus, "cores", lambda cores=cores: cores)
        assert worker_count(-1) == expected
        assert worker_count(-1, sharing=8) == max(1, cores // 8)
        assert (worker_count(0), worker_count(5), worker_count(20)) == (0, 5, 20)


AFTER_OPENCV = """
import sys
import numpy as np
from isc.train.augment.augmenter import Augmenter
from isc.config.train import AugmentConfig
from isc.train.dataset import Source, TrainingViews, training_loader
from isc.photos.resizing import resize
from isc.photos.sources import list_photos
resize(np.zeros((3000, 3000, 3), np.uint8), 500)
plain = {name: 0.0 for name in vars(AugmentConfig()) if name != "min_crop"}
views = TrainingViews(Source(list_photos(sys.argv[1:])), Augmenter(AugmentConfig(**plain), size=32), seed=0)
for _ in range(5):
    assert len(list(training_loader(views, batch_size=2, steps=range(3), workers=2))) == 3
"""


@pytest.mark.slow
def test_workers_start_after_opencv():
    """OpenCV was used by the process, with its threads, before the workers are started: they must not hang."""
    with subprocess.Popen([sys.executable, "-c", AFTER_OPENCV, *map(str, PATHS)], start_new_session=True) as run:
        try:
            assert run.wait(timeout=100) == 0
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)  # with its workers
            raise


# --- several hard views, and where they lie --------------------------------------------------------------------------


def test_several_hard_views_of_a_photo_are_laid_out_one_after_the_other():
    dataset = views(hard_views=3)
    (batch,) = batches(dataset, 0, last=1)
    samples = [dataset[n] for n in range(3)]
    assert batch.views.shape == (12, 3, SIZE, SIZE)
    assert batch.instances[:, 0].tolist() == [sample.instance for sample in samples] * 4
    for number in range(3):
        for i, sample in enumerate(samples):
            row = batch.views[3 * (1 + number) + i].permute(1, 2, 0).numpy()
            assert (row == hard(sample, number)).all()
    assert not (hard(samples[0], 0) == hard(samples[0], 1)).all()
    assert batch.places is None


def test_the_places_say_where_a_hard_view_lies_in_the_mild_one():
    """Without attacks: taking the mild view's pixels from these places gives the hard view, up to resampling."""
    dataset = views(config=PLAIN, traced=True)
    (batch,) = batches(dataset, 0, last=1)
    assert batch.places is not None
    assert batch.places.shape == (3, POINTS, POINTS, 2)
    for i in range(3):
        places = batch.places[i].numpy()
        seen = (places >= 0).all(axis=-1)
        assert seen.mean() > 0.3
        at = np.clip((places * SIZE).astype(int), 0, SIZE - 1)
        mild, attacked = (batch.views[row].permute(1, 2, 0).numpy().astype(float) for row in (i, 3 + i))
        own = (np.arange(POINTS) * SIZE + SIZE // 2) // POINTS
        difference = np.abs(mild[at[..., 1], at[..., 0]] - attacked[own[:, None], own[None, :]])[seen]
        assert difference.mean() < 25
        shuffled = np.abs(mild[at[..., 0], at[..., 1]] - attacked[own[:, None], own[None, :]])[seen]
        assert difference.mean() < shuffled.mean()


def test_a_mixed_view_has_no_places():
    (batch,) = batches(views(mix=1.0, traced=True), 0, last=1)
    assert batch.places is not None
    assert (batch.places == NOWHERE).all()
