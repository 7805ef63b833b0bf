"""From photos to descriptors, as fast as the slower of reading photos and running the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from isc.errors import InputError
from isc.extract.batches import Batch, BatchDataset, Files, PhotoSource, Rows, finite_block, in_order, padded
from isc.extract.blocks import Block
from isc.extract.gpu_pipeline import embed_on_gpu, fitting_batch
from isc.extract.loaders import worker_count
from isc.extract.view_plan import ViewPlan
from isc.model.device import one_thread
from isc.model.inference import InferenceModel
from isc.runtime.progress import progress

ITEM = 8  # photos that a worker process receives at a time


class _Blocks(Dataset[Block | InputError]):
    """Dataset of blocks of descriptors, made in the processes of the loader, one core each.

    An InputError is returned as an item: raised in a worker process, it would be wrapped in that process's traceback.
    """

    def __init__(self, batches: BatchDataset, network: InferenceModel) -> None:
        self.batches, self.network = batches, network

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Block | InputError:
        try:
            return embed_batch(self.network, self.batches[number], self.batches.view_plan)
        except InputError as error:
            return error


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
    if network.device.type == "cuda":
        size = batch_size or fitting_batch(network, view_plan)
        batches = BatchDataset(photos, rows, view_plan, size=size, jpegs=gpu_jpeg)
        yield from embed_on_gpu(network, batches, workers=worker_count(workers))
        return
    blocks = _Blocks(BatchDataset(photos, rows, view_plan, size=ITEM), network)
    for block in in_order(blocks, worker_count(workers, most=None)):
        if isinstance(block, InputError):
            raise block
        yield block


def embed_batch(network: InferenceModel, batch: Batch, view_plan: ViewPlan) -> Block:
    """Return the descriptors of one batch, made on a CPU by one thread, in groups of one size."""
    found = [_in_groups(network, part) for part in batch.pictures]
    return finite_block(batch, found, view_plan, network.dim)


def _in_groups(network: InferenceModel, pictures: Tensor) -> npt.NDArray[np.float32]:
    """Embed uint8 [P, V, 3, S, S] to float32 [P, V, D] in groups of one size.

    The last group is padded: kernels of another shape would round differently.
    """
    flat = pictures.flatten(0, 1)
    size = network.group(flat.shape[-1])
    with one_thread():
        found = [network(padded(flat[start : start + size], size)) for start in range(0, len(flat), size)]
    vectors: npt.NDArray[np.float32] = torch.cat(found)[: len(flat)].numpy()
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
