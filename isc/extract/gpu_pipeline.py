"""Extraction on a GPU: each batch is copied while the one before is embedded; the batch is the largest that fits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from isc.errors import InputError
from isc.extract.batches import Batch, PhotoSource, Rows, finite_block, read_batch
from isc.extract.blocks import Block
from isc.extract.gpu_jpeg import LARGEST, encoded, in_full_size, pictures_of
from isc.extract.loaders import CPU, loader_options
from isc.extract.view_plan import ViewPlan
from isc.model.inference import InferenceModel
from isc.model.torch_inference import TorchModel
from isc.runtime.cpus import worker_count

PIECE = 32  # photos that a process reads at a time
LARGEST_BATCH = 256  # pictures; larger batches are no faster
PROBE = 8  # pictures in the measurement of the memory per picture
USED = 0.6  # share of a GPU's free memory that a batch may take


@dataclass(frozen=True)
class TensorBatch:
    """A `Batch` as tensors: `pictures` uint8 [P, V, 3, S, S] for each side, and the bytes of the files for the GPU.

    `files` uint8 [L] holds these files one after the other, in the order of `batch.jpegs`, whose own bytes are empty;
    `lengths` are theirs. A tensor for each file would take a file descriptor each on its way between processes.
    """

    batch: Batch
    pictures: list[Tensor]
    files: Tensor
    lengths: list[int]

    @classmethod
    def of(cls, batch: Batch) -> TensorBatch:
        data = bytearray().join(file.data for file in batch.jpegs.values())
        files = torch.frombuffer(data, dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)
        lengths = [len(file.data) for file in batch.jpegs.values()]
        sent = {row: replace(file, data=b"") for row, file in batch.jpegs.items()}
        pictures = [torch.from_numpy(part) for part in batch.pictures]
        return cls(replace(batch, pictures=[], jpegs=sent), pictures, files, lengths)

    def jpegs(self) -> list[Tensor]:
        """Return the bytes of each file, uint8 [L], in the order of `batch.jpegs`."""
        return list(torch.split(self.files, self.lengths))

    def pin_memory(self) -> TensorBatch:
        """Return the batch in pinned memory, for copies to the GPU without waiting; the loader calls this."""
        pictures = [part.pin_memory() for part in self.pictures]
        whole = bool(self.lengths) and all(jpeg.size is not None for jpeg in self.batch.jpegs.values())
        return replace(self, pictures=pictures, files=self.files.pin_memory() if whole else self.files)


class BatchDataset(Dataset[TensorBatch]):
    """Dataset of the pieces of batches of `size` photos, made in the processes of the loader.

    A process reads a piece of at most PIECE photos, so that all of them work on the first batch already, and less is
    on its way. `parts` pieces, fewer at the end, are one batch.
    """

    def __init__(
        self, photos: PhotoSource, rows: Rows, view_plan: ViewPlan, *, size: int, jpegs: bool = False,
        full_size: bool = False,
    ) -> None:  # fmt: skip
        """Leave JPEGs to the GPU, encoded if `jpegs`, decoded if `full_size`; both need whole photos as views."""
        self.photos, self.rows, self.view_plan, self.size = photos, rows, view_plan, size
        self.parts = -(-size // PIECE)
        self._piece = -(-size // self.parts)
        self._leave = encoded if jpegs else in_full_size(view_plan.image_size) if full_size else None

    def __len__(self) -> int:
        whole, rest = divmod(len(self.rows), self.size)
        return whole * self.parts + -(-rest // self._piece)

    def __getitem__(self, number: int) -> TensorBatch:
        batch, part = divmod(number, self.parts)
        first = batch * self.size + part * self._piece
        rows = self.rows[first : min(first + self._piece, (batch + 1) * self.size)]
        return TensorBatch.of(read_batch(self.photos, rows, self.view_plan, leave=self._leave))

    @property
    def nbytes(self) -> int:
        """The bytes of a piece at most, on its way from a process."""
        views = sum(3 * side**2 * len(numbers) for side, numbers in self.view_plan.sides.items())
        return self._piece * max(views, 3 * LARGEST if self._leave else 0)


def embed_photos_on_gpu(
    network: InferenceModel,
    photos: PhotoSource,
    rows: Rows,
    *,
    view_plan: ViewPlan,
    batch_size: int | None,
    workers: int,
    gpu_jpeg: bool,
) -> Iterator[Block]:
    """Yield the descriptors of the photos of these numbers, in order; see `isc.extract.embedding.embed_photos`."""
    if not isinstance(network, TorchModel):
        raise TypeError(f"{type(network).__name__}; expected a TorchModel")
    size = batch_size or fitting_batch(network, view_plan)
    full_size = view_plan.views == ViewPlan(view_plan.image_size).views
    batches = BatchDataset(photos, rows, view_plan, size=size, jpegs=gpu_jpeg, full_size=full_size)
    yield from embed_on_gpu(network, batches, workers=worker_count(workers))


def embed_on_gpu(network: TorchModel, batches: BatchDataset, *, workers: int) -> Iterator[Block]:
    """Yield the blocks of all batches.

    One batch is embedded while the next is copied to the GPU, and the one before is copied back.
    """
    waiting: tuple[Batch, list[Tensor], torch.cuda.Event | None] | None = None
    device = network.device
    copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    reading = loaded(batches, workers, device)
    while pieces := list(itertools.islice(reading, batches.parts)):
        ready = [with_jpegs(read, batches.photos, batches.view_plan, device) for read in pieces]
        started = _start(network, ready, batches.size, copies)
        if waiting:
            yield _finished(waiting, batches.view_plan, network.dim)
        waiting = started
    if waiting:
        yield _finished(waiting, batches.view_plan, network.dim)


def _start(
    network: TorchModel, pieces: list[TensorBatch], size: int, copies: torch.cuda.Stream | None
) -> tuple[Batch, list[Tensor], torch.cuda.Event | None]:
    """Queue the copy to the device, the network, and the copy back, without waiting."""
    found = []
    for parts in zip(*(piece.pictures for piece in pieces if piece.pictures), strict=True):
        count, views = sum(map(len, parts)), parts[0].shape[1]
        pictures = _gathered(parts, size * views, network.device, copies)  # one shape: one graph
        vectors = network(pictures)[: count * views].reshape(count, views, -1)
        here = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=copies is not None)
        found.append(here.copy_(vectors, non_blocking=True))
    if copies is None:
        return _joined(pieces), found, None
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(network.device))
    return _joined(pieces), found, done


def _joined(pieces: list[TensorBatch]) -> Batch:
    """Return the numbers, failures and regions of all pieces."""
    batches = [piece.batch for piece in pieces]
    regions = [one.regions for one in batches if one.regions is not None]
    rows = [row for one in batches for row in one.rows]
    failures = {row: why for one in batches for row, why in one.failures.items()}
    return Batch([], rows, failures, regions=np.concatenate(regions) if regions else None)


def _gathered(parts: Sequence[Tensor], size: int, device: torch.device, copies: Any) -> Tensor:
    """Copy pictures [P, V, …] of all parts to the device as [size, …], with black pictures at the end.

    The copy has a stream of its own, for which that of the network waits.
    """
    computes: Any = torch.cuda.current_stream(device) if copies is not None else None
    if copies is not None and any(part.is_cuda for part in parts):
        copies.wait_stream(computes)  # pictures that were shrunk on the device
    with torch.cuda.stream(copies):
        there = torch.zeros(size, *parts[0].shape[2:], dtype=torch.uint8, device=device)
        at = 0
        for part in parts:
            pictures = part.flatten(0, 1)
            there[at : at + len(pictures)].copy_(pictures, non_blocking=True)
            at += len(pictures)
            if copies is not None and part.is_cuda:
                part.record_stream(copies)
    if computes is not None:
        computes.wait_stream(copies)
        there.record_stream(computes)
    return there


def _finished(waiting: tuple[Batch, list[Tensor], torch.cuda.Event | None], view_plan: ViewPlan, dim: int) -> Block:
    batch, found, done = waiting
    if done is not None:
        done.synchronize()
    return finite_block(batch, [part.numpy() for part in found], view_plan, dim)


def with_jpegs(read: TensorBatch, photos: PhotoSource, view_plan: ViewPlan, device: torch.device) -> TensorBatch:
    """Return the batch with its JPEGs shrunk on the device; those that cannot be are read like other photos."""
    if not read.batch.jpegs:
        return read
    jpegs = list(read.batch.jpegs.values())
    files = read.jpegs()  # encoded ones stay here: the decoder takes them so
    if all(jpeg.size is not None for jpeg in jpegs):
        files = list(torch.split(read.files.to(device, non_blocking=True), read.lengths))
    pictures = pictures_of(files, jpegs, view_plan.image_size, device)
    found = dict(zip(read.batch.jpegs, pictures, strict=True))
    others = TensorBatch.of(read_batch(photos, [row for row, picture in found.items() if picture is None], view_plan))
    there = {row: picture for row, picture in found.items() if picture is not None}
    failures = read.batch.failures | others.batch.failures
    parts = [part[0][:, 0].to(device) for part in (read.pictures, others.pictures) if part]
    if not parts and not there:
        return TensorBatch.of(Batch([], [], failures))
    joined = torch.cat([*parts, *(picture[None] for picture in there.values())])
    rows = [*read.batch.rows, *others.batch.rows, *there]
    order = np.argsort(rows)
    ordered = joined[torch.from_numpy(order).to(device)][:, None]
    whole = TensorBatch.of(Batch([], [rows[at] for at in order], failures))
    return replace(whole, pictures=[ordered])


def loaded(dataset: BatchDataset, workers: int, device: torch.device = CPU) -> Iterator[TensorBatch]:
    """Yield the items of the dataset, in order, from `workers` processes, in memory from which the device copies.

    Raises InputError if a process dies.
    """
    options = loader_options(min(workers, len(dataset)), item_bytes=dataset.nbytes, device=device)
    loader = DataLoader(dataset, batch_size=None, collate_fn=lambda item: item, **options)
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            f"a process that reads photos ended ({error}); with too little memory? Try fewer workers=, and run the "
            "same command again"
        ) from error


def fitting_batch(network: TorchModel, view_plan: ViewPlan) -> int:
    """Return the number of photos whose views take at most `USED` of the GPU's free memory, all at once.

    It is a power of two, and makes at most `LARGEST_BATCH` pictures, except that it is at least 1.
    """
    side, views = max(view_plan.sides), max(len(numbers) for numbers in view_plan.sides.values())
    plain = replace(network, forward=network.plain or network.forward)  # not compiled for shapes that do not recur
    needed = [_peak(plain, count, side) for count in (PROBE, 2 * PROBE)]
    each = max(1, (needed[1] - needed[0]) // PROBE)
    free, _ = torch.cuda.mem_get_info(network.device)
    most = min(LARGEST_BATCH, int(USED * free / each)) // views
    return 1 << (max(1, most).bit_length() - 1)


def _peak(network: TorchModel, count: int, side: int) -> int:
    """Return the peak memory, in bytes, of `count` pictures on the GPU."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(network.device)
    before = torch.cuda.memory_allocated(network.device)
    network(torch.zeros(count, 3, side, side, dtype=torch.uint8, device=network.device))
    torch.cuda.synchronize(network.device)
    return torch.cuda.max_memory_allocated(network.device) - before
