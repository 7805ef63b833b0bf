"""torch datasets and loaders: photos for training as pairs of views, photos for extraction as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from isc.augment import Augmenter
from isc.cores import cores
from isc.errors import InputError
from isc.images import Pixels, fit_within, read_image, resize

MAX_WORKERS = 8
LONGEST_SIDE = 2  # × the training size: a larger photo is shrunk to this before it is edited


def worker_count(workers: int) -> int:
    """−1 becomes one process a core, at most MAX_WORKERS; 0 stays in the main process."""
    return min(cores(), MAX_WORKERS) if workers < 0 else workers


def _single_thread(_worker: int) -> None:
    torch.set_num_threads(1)


def _loader_options(workers: int) -> dict[str, Any]:
    """What both loaders share. OpenCV's thread pool must be off before workers are forked: in a child it hangs."""
    cv2.setNumThreads(1)
    return {
        "num_workers": workers,
        "worker_init_fn": _single_thread,
        "pin_memory": torch.cuda.is_available(),
        "prefetch_factor": 4 if workers else None,
    }


@dataclass(frozen=True)
class Batch:
    """`views` uint8 [2B, 3, S, S], the B mild views before the B hard ones; `instances` [2B] photo numbers; `failures`
    the (file, reason) of photos that could not be read and were replaced by the next."""

    views: Tensor
    instances: Tensor
    failures: list[tuple[str, str]]


@dataclass(frozen=True)
class _Sample:
    mild: Pixels
    hard: Pixels
    instance: int
    failures: list[tuple[str, str]]


class TrainingViews(Dataset[_Sample]):
    """An endless list of photos in a new random order each epoch; sample n depends on (seed, n) alone."""

    def __init__(self, paths: Sequence[Path], augmenter: Augmenter, *, seed: int) -> None:
        self.paths = paths
        self.augmenter = augmenter
        self.seed = seed
        self._epoch: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    def __getitem__(self, number: int) -> _Sample:
        rng = np.random.default_rng([self.seed, 1, number])
        failures: list[tuple[str, str]] = []
        instance, photo = self._readable(self._photo_at(number), failures)
        _, other = self._readable(int(rng.integers(len(self.paths))), failures)
        return _Sample(self.augmenter.mild(photo, rng), self.augmenter.hard(photo, other, rng), instance, failures)

    def _photo_at(self, number: int) -> int:
        epoch, position = divmod(number, len(self.paths))
        if self._epoch[0] != epoch:
            self._epoch = (epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.paths)))
        return int(self._epoch[1][position])

    def _readable(self, instance: int, failures: list[tuple[str, str]]) -> tuple[int, Pixels]:
        """The photo of this number, or the next one that can be read."""
        for step in range(len(self.paths)):
            number = (instance + step) % len(self.paths)
            try:
                return number, fit_within(read_image(self.paths[number]), LONGEST_SIDE * self.augmenter.size)
            except InputError as error:
                failures.append((str(self.paths[number]), str(error)))
        return instance, np.zeros((self.augmenter.size, self.augmenter.size, 3), np.uint8)  # the trainer stops on this


def _collate_views(samples: list[_Sample]) -> Batch:
    views = np.stack([sample.mild for sample in samples] + [sample.hard for sample in samples])
    instances = torch.tensor([sample.instance for sample in samples] * 2)
    failures = [failure for sample in samples for failure in sample.failures]
    return Batch(torch.from_numpy(views).permute(0, 3, 1, 2), instances, failures)


def training_loader(
    dataset: TrainingViews, *, batch_size: int, first_step: int, last_step: int, workers: int
) -> DataLoader[_Sample]:
    """Batches for the steps first_step … last_step − 1; the same whatever the number of workers."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=range(first_step * batch_size, last_step * batch_size),
        collate_fn=_collate_views,
        **_loader_options(worker_count(workers)),
    )


@dataclass(frozen=True)
class Pictures:
    """`pixels` uint8 [B, 3, S, S] of the photos numbered `rows`; `failures` the (row, reason) of those left out."""

    pixels: Tensor
    rows: list[int]
    failures: list[tuple[int, str]]


class Photos(Dataset[tuple[int, Pixels | str]]):
    """(row, the photo squeezed to [S, S, 3], or the reason why it cannot be read)."""

    def __init__(self, paths: Sequence[Path], *, size: int) -> None:
        self.paths = paths
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[int, Pixels | str]:
        try:
            return row, resize(read_image(self.paths[row]), self.size)
        except InputError as error:
            return row, str(error)


def _collate_photos(samples: list[tuple[int, Pixels | str]]) -> Pictures:
    good = [(row, value) for row, value in samples if not isinstance(value, str)]
    failures = [(row, value) for row, value in samples if isinstance(value, str)]
    if not good:
        return Pictures(torch.zeros(0, 3, 1, 1, dtype=torch.uint8), [], failures)
    pixels = torch.from_numpy(np.stack([value for _, value in good])).permute(0, 3, 1, 2)
    return Pictures(pixels, [row for row, _ in good], failures)


def photo_loader(photos: Photos, *, batch_size: int, workers: int) -> DataLoader[tuple[int, Pixels | str]]:
    """The photos in order, in batches."""
    useful = min(worker_count(workers), -(-len(photos) // batch_size))
    return DataLoader(photos, batch_size=batch_size, collate_fn=_collate_photos, **_loader_options(useful))
