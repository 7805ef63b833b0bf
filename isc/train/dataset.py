"""Training photos as pairs of views: the dataset, and the loader that divides it among the processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from isc.config.choices import AttacksOn
from isc.errors import InputError
from isc.extract.loaders import CPU, loader_options
from isc.photos.decode import Pixels
from isc.photos.listing import Listing
from isc.photos.resizing import fit_within
from isc.runtime.cpus import worker_count
from isc.train.augment.augmenter import Augmenter
from isc.train.augment.deferred import Edit
from isc.train.augment.mix import cutmix, mixup
from isc.train.augment.on_device import Edits
from isc.train.augment.trace import NOWHERE, POINTS, Frame
from isc.train.losses import ABSENT
from isc.train.photo_cache import PhotoCache

MIXED_BOTH = 0.2  # a mixed view is labelled with both photos if each has more than this share of it
LONGEST_SIDE = 2  # × the training size: a larger photo is shrunk to this side before it is edited


@dataclass(frozen=True)
class Batch:
    """A batch of B photos, each as one mild view and H hard views.

    `views` uint8 [(1 + H)B, 3, S, S]: the B mild views, then H blocks of B hard views. `instances` [(1 + H)B, 2]: the
    photo numbers that each view shows, −1 for an absent second photo. `failures`: (file, reason) of unreadable photos,
    each replaced by the next readable one. `places` [HB, P, P, 2], if traced: the position in the mild view of each of
    P × P points of a hard view, as (x, y) in 0…1. `edits`: the attacks that the device still has to make on the views.
    """

    views: Tensor
    instances: Tensor
    failures: list[tuple[str, str]]
    places: Tensor | None = None
    edits: Edits | None = None

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory, for an asynchronous copy to a GPU; called by the DataLoader."""
        places = None if self.places is None else self.places.pin_memory()
        edits = None if self.edits is None else self.edits.pin_memory()
        return Batch(self.views.pin_memory(), self.instances.pin_memory(), self.failures, places, edits)


@dataclass(frozen=True)
class _Hard:
    """A hard view, the photo numbers that it shows, and the positions [P, P, 2] of its points in the mild view.

    `edits` are still to be made, with noise of this `seed`.
    """

    pixels: Pixels
    shows: tuple[int, int]
    places: npt.NDArray[np.float32] | None = None
    edits: Sequence[Edit] = ()
    seed: int = 0


@dataclass(frozen=True)
class _Sample:
    instance: int
    mild: Pixels
    hard: list[_Hard]
    failures: list[tuple[str, str]]


@dataclass(frozen=True)
class Source:
    """The training photos, and optionally the known copies among them as (photo, copy) numbers [P, 2]."""

    photos: Listing
    pairs: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.photos) if self.pairs is None else len(self.pairs)

    def num_photos(self) -> int:
        """Return the number of distinct photos used in training."""
        return len(self.photos) if self.pairs is None else len(np.unique(self.pairs))

    def names(self, instances: Tensor) -> str:
        """Return the file names of the photos of `Batch.instances`, for messages."""
        shown = dict.fromkeys(number for number in instances.flatten().tolist() if number != ABSENT)
        return ", ".join(PurePath(self.photos.where(number)).name for number in shown)


class TrainingViews(Dataset[_Sample]):
    """An endless sequence of samples, in a new random order each epoch; sample n depends on source, seed and n alone.

    With `defers`, the hard views may still need the attacks of `Batch.edits`.

    With `neighbours` [N, k], every second sample is a neighbour of the previous one, so that batches hold hard
    negatives. If the source has pairs, the hard views are mild views of the known copy instead of attacked views.
    """

    def __init__(
        self,
        source: Source,
        augmenter: Augmenter,
        *,
        seed: int,
        strength: float = 1.0,
        mix: float = 0.0,
        neighbours: npt.NDArray[np.int64] | None = None,
        hard_views: int = 1,
        traced: bool = False,
        cache: PhotoCache | None = None,
        defers: bool = False,
    ) -> None:
        self.source = source
        self.augmenter = augmenter
        self.seed = seed
        self.strength = strength
        self.mix = mix
        self.neighbours = neighbours
        self.hard_views = hard_views
        self.traced = traced
        self.cache = cache
        self.defers = defers
        self._epoch: tuple[int, npt.NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def __getitem__(self, number: int) -> _Sample:
        rng = np.random.default_rng([self.seed, 1, number])
        failures: list[tuple[str, str]] = []
        chosen = self._chosen(number)
        if self.source.pairs is not None:
            return self._pair(chosen, rng, failures)
        instance, photo = self._readable(chosen, failures)
        mild, frame = self.augmenter.framed(photo, rng)
        other = _Once(lambda: self._readable(self._chosen(number ^ 1), failures))  # the other of samples 2i and 2i + 1
        hard = [self._attacked(instance, photo, frame, other, rng) for _ in range(self.hard_views)]
        return _Sample(instance, mild, hard, failures)

    def _attacked(self, instance: int, photo: Pixels, frame: Frame, other: _Once, rng: np.random.Generator) -> _Hard:
        """Return a hard view, mixed with another photo with probability `mix` · `strength`.

        A view that is not mixed may leave its last attacks to the device.
        """
        if self.defers and rng.random() >= self.mix * self.strength:
            begun, trace, edits = self.augmenter.begun(
                photo, lambda: other()[1], rng, strength=self.strength, traced=self.traced
            )
            places = None if trace is None else frame.inside(trace.places())
            return _Hard(begun, (instance, ABSENT), places, edits, int(rng.integers(1 << 31)))
        attacked, trace = self.augmenter.attacked(
            photo, lambda: other()[1], rng, strength=self.strength, traced=self.traced
        )
        places = None if trace is None else frame.inside(trace.places())
        if not self.defers and rng.random() >= self.mix * self.strength:
            return _Hard(attacked, (instance, ABSENT), places)
        second, foreign = other()
        blend = mixup if rng.random() < 0.5 else cutmix
        attacked, share = blend(attacked, self.augmenter.mild(foreign, rng), rng)
        both = MIXED_BOTH < share < 1 - MIXED_BOTH
        shows = (instance, second) if both else ((instance if share >= 0.5 else second), ABSENT)
        return _Hard(attacked, shows, None if places is None else np.full_like(places, NOWHERE))

    def _pair(self, number: int, rng: np.random.Generator, failures: list[tuple[str, str]]) -> _Sample:
        photo, copy = self.source.pairs[number]  # type: ignore[index]
        instance, pixels = self._readable(int(photo), failures)
        shown, edited = self._readable(int(copy), failures)
        if (instance, shown) != (int(photo), int(copy)):  # one of the two is unreadable: use views of a single photo
            edited = pixels
        mild = self.augmenter.mild(pixels, rng)
        places = np.full((POINTS, POINTS, 2), NOWHERE, np.float32) if self.traced else None
        copies = [_Hard(self.augmenter.mild(edited, rng), (instance, ABSENT), places) for _ in range(self.hard_views)]
        return _Sample(instance, mild, copies, failures)

    def _chosen(self, number: int) -> int:
        """Return the number of the photo or pair that this sample uses."""
        if self.neighbours is None or number % 2 == 0:
            return self._in_epoch(number)
        near = self.neighbours[self._in_epoch(number - 1)]
        return int(near[np.random.default_rng([self.seed, 2, number]).integers(len(near))])

    def _in_epoch(self, number: int) -> int:
        epoch, position = divmod(number, len(self.source))
        if self._epoch[0] != epoch:
            self._epoch = (epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.source)))
        return int(self._epoch[1][position])

    def _readable(self, instance: int, failures: list[tuple[str, str]]) -> tuple[int, Pixels]:
        """Return (number, pixels) of this photo, or of the next readable one; append unreadable ones to `failures`."""
        photos = self.source.photos
        for step in range(len(photos)):
            number = (instance + step) % len(photos)
            try:
                return number, self._photo(number)
            except InputError as error:
                failures.append((photos.where(number), str(error)))
        return instance, np.zeros((self.augmenter.size, self.augmenter.size, 3), np.uint8)  # the trainer stops then

    def _photo(self, number: int) -> Pixels:
        longest = LONGEST_SIDE * self.augmenter.size
        if self.cache is None:
            return fit_within(self.source.photos.read(number), longest)
        return self.cache.photo(self.source.photos, number, longest=longest)


def defers(attacks_on: AttacksOn, device: torch.device) -> bool:
    """Return whether the device makes the attacks that can wait."""
    return attacks_on is AttacksOn.gpu or (attacks_on is AttacksOn.auto and device.type == "cuda")


class _Once:
    """A lazily computed value: `make` runs at the first call, later calls return the same value."""

    def __init__(self, make: Callable[[], tuple[int, Pixels]]) -> None:
        self._make = make
        self._value: tuple[int, Pixels] | None = None

    def __call__(self) -> tuple[int, Pixels]:
        if self._value is None:
            self._value = self._make()
        return self._value


def _collate_views(samples: list[_Sample]) -> Batch:
    hard = [view for one in zip(*(sample.hard for sample in samples), strict=True) for view in one]
    views = np.stack([sample.mild for sample in samples] + [view.pixels for view in hard])
    shows = [(sample.instance, ABSENT) for sample in samples] + [view.shows for view in hard]
    failures = [failure for sample in samples for failure in sample.failures]
    places = [view.places for view in hard if view.places is not None]
    return Batch(
        torch.from_numpy(views).permute(0, 3, 1, 2),
        torch.tensor(shows),
        failures,
        torch.from_numpy(np.stack(places)) if places else None,
        Edits.of([[]] * len(samples) + [view.edits for view in hard], seed=hard[0].seed),
    )


class _Share(Sampler[int]):
    """The sample numbers of one rank: an equal, contiguous share of the batch of each step."""

    def __init__(self, steps: range, *, batch_size: int, rank: int, ranks: int) -> None:
        self.steps, self.batch_size, self.rank, self.ranks = steps, batch_size, rank, ranks

    def __len__(self) -> int:
        return len(self.steps) * self.batch_size // self.ranks

    def __iter__(self) -> Iterator[int]:
        each = self.batch_size // self.ranks
        for step in self.steps:
            start = step * self.batch_size + self.rank * each
            yield from range(start, start + each)


def training_loader(
    dataset: TrainingViews,
    *,
    batch_size: int,
    steps: range,
    workers: int,
    rank: int = 0,
    ranks: int = 1,
    device: torch.device = CPU,
) -> DataLoader[_Sample]:
    """Return a loader of this rank's part of each step's batch, which goes to the device.

    The samples do not depend on the number of workers.
    """
    views = (1 + dataset.hard_views) * (batch_size // ranks)
    return DataLoader(
        dataset,
        batch_size=batch_size // ranks,
        sampler=_Share(steps, batch_size=batch_size, rank=rank, ranks=ranks),
        collate_fn=_collate_views,
        **loader_options(worker_count(workers), item_bytes=views * 3 * dataset.augmenter.size**2, device=device),
    )
