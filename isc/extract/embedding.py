"""Photos → descriptors, as fast as the machine reads photos or runs the network, whichever is slower."""

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
from isc.extract.view_plan import Looks
from isc.model.device import one_thread
from isc.model.inference import Network
from isc.runtime.progress import progress

ITEM = 8  # photos that a worker process is given at a time


class _Blocks(Dataset[Block | InputError]):
    """Descriptors, made by the loader's processes, one core each. What ends the run comes as it is: raised in another
    process, it would come wrapped in the story of that process."""

    def __init__(self, batches: BatchDataset, network: Network) -> None:
        self.batches, self.network = batches, network

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Block | InputError:
        try:
            return embed_batch(self.network, self.batches[number], self.batches.looks)
        except InputError as error:
            return error


def embed_photos(
    network: Network,
    photos: PhotoSource,
    rows: Rows,
    *,
    looks: Looks,
    batch_size: int | None = None,
    workers: int = 0,
    gpu_jpeg: bool = False,
) -> Iterator[Block]:
    """Descriptors of the photos of these numbers, in their order, a few at a time as they are made.

    `workers` processes read the photos, −1 for one a core; 0 stays in this process. `batch_size` photos are embedded at
    once on a GPU, which with `gpu_jpeg` decodes JPEGs.
    """
    if network.device.type == "cuda":
        size = batch_size or fitting_batch(network, looks)
        batches = BatchDataset(photos, rows, looks, size=size, jpegs=gpu_jpeg)
        yield from embed_on_gpu(network, batches, workers=worker_count(workers))
        return
    blocks = _Blocks(BatchDataset(photos, rows, looks, size=ITEM), network)
    for block in in_order(blocks, worker_count(workers, most=None)):
        if isinstance(block, InputError):
            raise block
        yield block


def embed_batch(network: Network, batch: Batch, looks: Looks) -> Block:
    """Descriptors of one batch on a CPU, by one thread, in groups of one size."""
    found = [_in_groups(network, part) for part in batch.pictures]
    return finite_block(batch, found, looks, network.dim)


def _in_groups(network: Network, pictures: Tensor) -> npt.NDArray[np.float32]:
    """uint8 [P, V, 3, S, S] → float32 [P, V, D]. The last group is filled up: kernels of another shape would round
    otherwise."""
    flat = pictures.flatten(0, 1)
    size = network.group(flat.shape[-1])
    with one_thread():
        found = [network(padded(flat[start : start + size], size)) for start in range(0, len(flat), size)]
    vectors: npt.NDArray[np.float32] = torch.cat(found)[: len(flat)].numpy()
    return vectors.reshape(*pictures.shape[:2], -1)


def embed(
    network: Network,
    photos: PhotoSource | Sequence[Path],
    *,
    image_size: int | None = None,
    batch_size: int | None = None,
    workers: int = 0,
) -> tuple[npt.NDArray[np.float32], dict[int, str]]:
    """Descriptors float32 [N, D] of unit length of N photos, and {row: reason} of those that cannot be read, whose rows
    are zero."""
    source = photos if isinstance(photos, PhotoSource) else Files(photos)
    vectors, failures = np.zeros((len(photos), network.dim), np.float32), dict[int, str]()
    looks, done = Looks(image_size or network.image_size), 0
    with progress("extracting", "photos") as report:
        for block in embed_photos(
            network, source, range(len(photos)), looks=looks, batch_size=batch_size, workers=workers
        ):
            vectors[block.rows] = block.vectors[:, 0]
            failures |= block.failures
            done += len(block.rows) + len(block.failures)
            report(done, len(photos))
    return vectors, failures
