"""Extraction on a GPU: each batch is copied while the one before is embedded; the batch is the largest that fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from isc.extract.batches import Batch, BatchDataset, finite_block, in_order, padded, with_jpegs
from isc.extract.blocks import Block
from isc.extract.view_plan import ViewPlan
from isc.model.inference import InferenceModel

LARGEST_BATCH = 256  # pictures; larger batches are no faster
PROBE = 8  # pictures in the measurement of the memory per picture
USED = 0.6  # share of a GPU's free memory that a batch may take


def embed_on_gpu(network: InferenceModel, batches: BatchDataset, *, workers: int) -> Iterator[Block]:
    """Yield the blocks of all batches.

    One batch is embedded while the next is copied to the GPU, and the one before is copied back.
    """
    waiting: tuple[Batch, list[Tensor], torch.cuda.Event | None] | None = None
    copies = torch.cuda.Stream() if network.device.type == "cuda" else None  # type: ignore[no-untyped-call]
    for read in in_order(batches, workers):
        batch = with_jpegs(read, batches.photos, batches.view_plan, network.device)
        started = _start(network, batch, batches.size, copies)
        if waiting:
            yield _finished(waiting, batches.view_plan, network.dim)
        waiting = started
    if waiting:
        yield _finished(waiting, batches.view_plan, network.dim)


def _start(
    network: InferenceModel, batch: Batch, size: int, copies: torch.cuda.Stream | None
) -> tuple[Batch, list[Tensor], torch.cuda.Event | None]:
    """Queue the copy to the device, the network, and the copy back, without waiting."""
    found = []
    for part in batch.pictures:
        views = part.shape[1]
        pictures = padded(_copied(part.flatten(0, 1), network.device, copies), size * views)  # one shape: one graph
        vectors = network(pictures)[: len(part) * views].reshape(len(part), views, -1)
        here = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=copies is not None)
        found.append(here.copy_(vectors, non_blocking=True))
    if copies is None:
        return batch, found, None
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record()
    return batch, found, done


def _copied(pictures: Tensor, device: torch.device, copies: torch.cuda.Stream | None) -> Tensor:
    """Copy the pictures to the device on a separate stream; the network's stream waits for it."""
    if copies is None:
        return pictures.to(device)
    with torch.cuda.stream(copies):
        there = pictures.to(device, non_blocking=True)
    torch.cuda.current_stream().wait_stream(copies)
    there.record_stream(torch.cuda.current_stream())
    return there


def _finished(waiting: tuple[Batch, list[Tensor], torch.cuda.Event | None], view_plan: ViewPlan, dim: int) -> Block:
    batch, found, done = waiting
    if done is not None:
        done.synchronize()
    return finite_block(batch, [part.numpy() for part in found], view_plan, dim)


def fitting_batch(network: InferenceModel, view_plan: ViewPlan) -> int:
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


def _peak(network: InferenceModel, count: int, side: int) -> int:
    """Return the peak memory, in bytes, of `count` pictures on the GPU."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(network.device)
    before = torch.cuda.memory_allocated(network.device)
    network(torch.zeros(count, 3, side, side, dtype=torch.uint8, device=network.device))
    torch.cuda.synchronize(network.device)
    return torch.cuda.max_memory_allocated(network.device) - before
