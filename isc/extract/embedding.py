"""From photos to descriptors, as fast as the slower of reading photos and running the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from isc.extract.batches import Batch, Files, PhotoSource, Rows, finite_block, read_batch
from isc.extract.blocks import Block
from isc.extract.view_plan import ViewPlan
from isc.model.inference import InferenceModel
from isc.runtime.cpus import worker_count
from isc.runtime.pool import sharing
from isc.runtime.progress import progress

ITEM = 8  # photos that a worker process receives at a time
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Embed:
    """The work of a process, with one core: the descriptors of a few photos, by the number of the piece of work."""

    network: InferenceModel
    photos: PhotoSource
    view_plan: ViewPlan

    def __call__(self, piece: tuple[int, npt.NDArray[np.int64]]) -> tuple[int, Block]:
        number, rows = piece
        return number, embed_batch(self.network, read_batch(self.photos, rows, self.view_plan), self.view_plan)


def embed_photos(
    network: InferenceModel,
    photos: PhotoSource,
    rows: Rows,
    *,
    view_plan: ViewPlan,
    batch_size: int | None = None,
    workers: int = 0,
    gpu_jpeg: bool = False,
) -> Iterator[Block]:
    """Yield the descriptors of the photos of these numbers, in order, in small blocks as they are made.

    `workers` processes read the photos: −1 is one per core, 0 this process. On a GPU, `batch_size` photos are embedded
    at once, and with `gpu_jpeg` it also decodes JPEGs. Raises InputError for descriptors that are not finite.
    """
    if network.on_gpu:
        from isc.extract.gpu_pipeline import embed_photos_on_gpu

        yield from embed_photos_on_gpu(
            network, photos, rows, view_plan=view_plan, batch_size=batch_size, workers=workers, gpu_jpeg=gpu_jpeg
        )
        return
    numbers = np.asarray(rows, np.int64)
    pieces = enumerate(numbers[at : at + ITEM] for at in range(0, len(numbers), ITEM))
    processes = min(worker_count(workers, most=None), -(-len(numbers) // ITEM))
    with sharing(_Embed(network, photos, view_plan), workers=max(1, processes)) as share:
        yield from in_order(share(pieces))


def in_order(results: Iterable[tuple[int, Result]]) -> Iterator[Result]:
    """Yield results that come in any order with their numbers, 0, 1, …, in the order of the numbers."""
    early: dict[int, Result] = {}
    wanted = 0
    for number, result in results:
        early[number] = result
        while wanted in early:
            yield early.pop(wanted)
            wanted += 1


def embed_batch(network: InferenceModel, batch: Batch, view_plan: ViewPlan) -> Block:
    """Return the descriptors of one batch, made on a CPU by one thread, in groups of one size."""
    found = [_embedded(network.embed, part) for part in batch.pictures]
    return finite_block(batch, found, view_plan, network.dim)


def _embedded(
    embed: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]], pictures: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Embed uint8 [P, V, 3, S, S] to float32 [P, V, D]."""
    vectors = embed(pictures.reshape(-1, *pictures.shape[2:]))
    return vectors.reshape(*pictures.shape[:2], -1)


def embed(
    network: InferenceModel,
    photos: PhotoSource | Sequence[Path],
    *,
    image_size: int | None = None,
    batch_size: int | None = None,
    workers: int = 0,
) -> tuple[npt.NDArray[np.float32], dict[int, str]]:
    """Return the descriptors of N photos, float32 [N, D] of unit length, and {row: reason} of the unreadable ones.

    The rows of unreadable photos are zero.
    """
    source = photos if isinstance(photos, PhotoSource) else Files(photos)
    vectors, failures = np.zeros((len(photos), network.dim), np.float32), dict[int, str]()
    view_plan, done = ViewPlan(image_size or network.image_size), 0
    with progress("extracting", "photos") as report:
        for block in embed_photos(
            network, source, range(len(photos)), view_plan=view_plan, batch_size=batch_size, workers=workers
        ):
            vectors[block.rows] = block.vectors[:, 0]
            failures |= block.failures
            done += len(block.rows) + len(block.failures)
            report(done, len(photos))
    return vectors, failures
