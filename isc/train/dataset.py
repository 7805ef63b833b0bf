"""Photos for training, as pairs of views: the dataset, and the loader that shares it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from isc.errors import InputError
from isc.extract.loaders import loader_options, worker_count
from isc.photos.decode import Pixels, read_image
from isc.photos.resizing import fit_within
from isc.train.augment.augmenter import Augmenter
from isc.train.augment.mix import cutmix, mixup
from isc.train.augment.trace import NOWHERE, POINTS, Frame
from isc.train.losses import ABSENT

MIXED_BOTH = 0.2  # a mixed view shows a photo of which at least this share is left
LONGEST_SIDE = 2  # × the training size: a larger photo is shrunk to this before it is edited


@dataclass(frozen=True)
class Batch:
    """`views` uint8 [(1 + H)B, 3, S, S], the B mild views before H times the B hard ones; `instances` [(1 + H)B, 2] the
    photos that each shows, −1 where only one; `failures` the (file, reason) of photos that could not be read and were
    replaced by the next; `places` [HB, P, P, 2] where each point of a hard view lies in the mild one, if asked for."""

    views: Tensor
    instances: Tensor
    failures: list[tuple[str, str]]
    places: Tensor | None = None

    def pin_memory(self) -> Batch:
        """The loader calls this, so that the copy to a GPU need not wait."""
        places = None if self.places is None else self.places.pin_memory()
        return Batch(self.views.pin_memory(), self.instances.pin_memory(), self.failures, places)


@dataclass(frozen=True)
class _Hard:
    """An attacked view, the photos it shows, and where its points lie in the mild view."""

    pixels: Pixels
    shows: tuple[int, int]
    places: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class _Sample:
    instance: int
    mild: Pixels
    hard: list[_Hard]
    failures: list[tuple[str, str]]


@dataclass(frozen=True)
class Source:
    """What is learned from: photos, and, where copies are known, (photo, copy of it) numbers [P, 2] among them."""

    paths: Sequence[Path]
    pairs: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.paths) if self.pairs is None else len(self.pairs)

    def num_photos(self) -> int:
        """Photos that are learned from."""
        return len(self.paths) if self.pairs is None else len(np.unique(self.pairs))


class TrainingViews(Dataset[_Sample]):
    """An endless list of photos in a new random order each epoch; sample n depends on the source, the seed and n alone.

    With `neighbours` [N, k], every second sample is a neighbour of the one before, so that batches hold hard negatives.
    With pairs, the second view is the known copy, mildly edited, instead of an attacked one.
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
    ) -> None:
        self.source = source
        self.augmenter = augmenter
        self.seed = seed
        self.strength = strength
        self.mix = mix
        self.neighbours = neighbours
        self.hard_views = hard_views
        self.traced = traced
        self._epoch: tuple[int, npt.NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def __getitem__(self, number: int) -> _Sample:
        rng = np.random.default_rng([self.seed, 1, number])
        failures: list[tuple[str, str]] = []
        chosen = self._chosen(number)
        if self.source.pairs is not None:
            return self._pair(chosen, rng, failures)
        instance, photo = self._readable(chosen, failures)
        mild, frame = self.augmenter.framed(photo, rng)
        other = _Once(lambda: self._readable(self._chosen(number ^ 1), failures))  # of the same even batch
        hard = [self._attacked(instance, photo, frame, other, rng) for _ in range(self.hard_views)]
        return _Sample(instance, mild, hard, failures)

    def _attacked(self, instance: int, photo: Pixels, frame: Frame, other: _Once, rng: np.random.Generator) -> _Hard:
        """A hard view, at times mixed with another photo."""
        attacked, trace = self.augmenter.attacked(
            photo, lambda: other()[1], rng, strength=self.strength, traced=self.traced
        )
        places = None if trace is None else frame.inside(trace.places())
        if rng.random() >= self.mix * self.strength:
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
        if (instance, shown) != (int(photo), int(copy)):  # one of them is unreadable: two views of the other photo
            edited = pixels
        mild = self.augmenter.mild(pixels, rng)
        places = np.full((POINTS, POINTS, 2), NOWHERE, np.float32) if self.traced else None
        copies = [_Hard(self.augmenter.mild(edited, rng), (instance, ABSENT), places) for _ in range(self.hard_views)]
        return _Sample(instance, mild, copies, failures)

    def _chosen(self, number: int) -> int:
        """The photo or pair of this sample."""
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
        """The photo of this number, or the next one that can be read."""
        paths = self.source.paths
        for step in range(len(paths)):
            number = (instance + step) % len(paths)
            try:
                return number, fit_within(read_image(paths[number]), LONGEST_SIDE * self.augmenter.size)
            except InputError as error:
                failures.append((str(paths[number]), str(error)))
        return instance, np.zeros((self.augmenter.size, self.augmenter.size, 3), np.uint8)  # the trainer stops on this


class _Once:
    """A value that costs much, made when it is first asked for."""

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
    )


class _Share(Sampler[int]):
    """The samples of the steps first … last − 1 that fall to one rank: of each batch an equal run."""

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
    dataset: TrainingViews, *, batch_size: int, steps: range, workers: int, rank: int = 0, ranks: int = 1
) -> DataLoader[_Sample]:
    """This rank's part of the batches of the steps; the same whatever the number of workers."""
    return DataLoader(
        dataset,
        batch_size=batch_size // ranks,
        sampler=_Share(steps, batch_size=batch_size, rank=rank, ranks=ranks),
        collate_fn=_collate_views,
        **loader_options(worker_count(workers)),
    )
