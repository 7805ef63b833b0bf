"""The steps of training: the loop on one device, and batch norms over several processes."""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu.photo_steps import photos_of
from benchmarks.gpu.rows import Row, Size, seconds_of, wait
from isc.config.choices import AttacksOn, Precision
from isc.config.choices import Device as DeviceName
from isc.config.train import AugmentConfig, ModelConfig, OptimConfig, TrainConfig
from isc.model.device import native_bfloat16
from isc.model.load import initial_model
from isc.photos.sources import list_photos
from isc.runtime.cpus import worker_count
from isc.train.augment.augmenter import Augmenter
from isc.train.augment.on_device import edited
from isc.train.dataset import Batch, Source, TrainingViews, training_loader
from isc.train.distributed import synchronised
from isc.train.photo_cache import PhotoCache
from isc.train.trainer import Trainer


def train(device: str, size: Size, folder: Path) -> list[Row]:
    """Photos per second of loader, attacks on the device, steps on ready tensors and the loop; and the memory.

    The loader is measured with all attacks, with the last ones left to the device, and with decoded photos in a cache.
    """
    photos_of(size, folder)
    rows: list[Row] = []
    for name, side, photos in size.trained:
        precision = Precision.bfloat16 if native_bfloat16(torch.device(device)) else Precision.float32
        config = TrainConfig(
            images=[str(folder / "photos")], output=str(folder / "run"), device=DeviceName(device),
            model=ModelConfig(backbone=name, weights="none", image_size=side),
            train=OptimConfig(
                steps=1000, batch_size=photos, image_size=side, precision=precision, attacks_on=AttacksOn.gpu
            ),
            augment=AugmentConfig(),
        )  # fmt: skip
        source = Source(list_photos(config.images))
        trainer = Trainer(config, Path(config.output), torch.device(device), source)
        _reset_memory(device)
        trainer.try_largest_step()
        peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else float("nan")
        ready = next(iter(_batches(config, source, steps=1, workers=0)))
        edits, views = ready.edits, ready.views.to(trainer.device)
        alone = _alone(trainer, ready)
        turns = 5 if device == "cuda" else 1
        bare = _turns_rate(alone, photos, turns, size)
        step = _turns_rate(functools.partial(trainer._one_step, ready, 1.0), photos, turns, size)
        workers = worker_count(-1)
        cache = PhotoCache(folder / f"{name}.cache", limit=1 << 32)
        for _ in _batches(config, source, steps=size.steps, workers=workers, cache=cache):
            pass  # fills the cache
        loaders = {
            "all attacks by the CPU": _batches(config, source, steps=size.steps, workers=workers, waits=False),
            "last attacks by the device": _batches(config, source, steps=size.steps, workers=workers),
            "the same, from the cache": _batches(config, source, steps=size.steps, workers=workers, cache=cache),
        }
        rates = {what: _loop_rate(batches, photos, lambda _: None) for what, batches in loaders.items()}
        whole = _loop_rate(
            _batches(config, source, steps=size.steps, workers=workers, cache=cache), photos,
            lambda batch, trainer=trainer: trainer.figures.put(trainer._one_step(batch, 1.0)),
        )  # fmt: skip
        trainer.figures.read(1.0)  # raises if a figure is not finite
        loader = rates["the same, from the cache"]
        where = f"{name} @{side}, {photos} photos a step, {precision.value}"
        rows += [Row(f"{where}: loader alone, {what}", rate, "photos/s") for what, rate in rates.items()]
        if edits is not None:
            attacks = _turns_rate(functools.partial(edited, views, edits), photos, turns, size)
            rows.append(Row(f"{where}: last attacks alone", attacks, "photos/s"))
        rows.append(Row(f"{where}: step on ready tensors", step, "photos/s", bare, "forward + backward"))
        rows.append(Row(f"{where}: whole", whole, "photos/s", min(loader, bare), "slower of both"))
        if device == "cuda":
            rows.append(Row(f"{where}: peak memory", peak, "GB"))
    return rows


def _turns_rate(action: Callable[[], object], photos: int, turns: int, size: Size) -> float:
    def run() -> None:
        for _ in range(turns):
            action()

    return photos * turns / seconds_of(run, repeats=size.repeats)


def _reset_memory(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _batches(
    config: TrainConfig,
    source: Source,
    *,
    steps: int,
    workers: int,
    waits: bool = True,
    cache: PhotoCache | None = None,
) -> Iterator[Batch]:
    augmenter = Augmenter(config.augment, size=config.train.image_size)
    views = TrainingViews(source, augmenter, seed=config.seed, mix=config.augment.mix, defers=waits, cache=cache)
    return iter(
        training_loader(
            views, batch_size=config.train.batch_size, steps=range(steps), workers=workers,
            device=torch.device(config.device.value),
        )
    )  # fmt: skip


def _alone(trainer: Trainer, batch: Batch) -> Callable[[], None]:
    """Return forward and backward of the network on tensors that are on the device."""
    views = batch.views.to(trainer.device).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        trainer.model.zero_grad(set_to_none=True)
        with trainer._autocast():
            projected = trainer.model.project(views)
        trainer.model.finish(projected).square().sum().backward()

    return run


def _loop_rate(batches: Iterator[Batch], photos: int, action: Callable[[Batch], object]) -> float:
    """Return the photos per second from the second batch on."""
    action(next(batches))
    wait()
    start, count = time.perf_counter(), 0
    for count, batch in enumerate(batches, 1):  # noqa: B007
        action(batch)
    wait()
    return photos * count / (time.perf_counter() - start)


def norms(device: str, _size: Size, _folder: Path) -> list[Row]:
    """Synchronised batch norms of two processes on one device against one process with the whole batch.

    On a CPU, where torch cannot synchronise them, the same layers of the same two processes use their statistics.
    """
    x = torch.randint(0, 256, (8, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    start = time.perf_counter()
    expected = _output(device, x, ranks=1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    queue = mp.get_context("spawn").SimpleQueue()
    mp.spawn(_rank, args=(device, x, port, queue), nprocs=2, join=True)
    parts = dict(queue.get() for _ in range(2))
    found = torch.from_numpy(np.concatenate([parts[0], parts[1]]))
    right = bool(F.cosine_similarity(expected.flatten(1), found.flatten(1)).min() > 0.9999)
    return [Row("norms of two processes", time.perf_counter() - start, "s", right=right)]


def _rank(rank: int, device: str, x: Tensor, port: int, queue: object) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = _output(device, x[4 * rank : 4 * rank + 4], ranks=2)
    # an array, by value: a tensor is only a handle of memory, which is gone with the process. Both fit into a pipe
    queue.put((rank, found.numpy()))  # type: ignore[attr-defined]
    dist.barrier()
    dist.destroy_process_group()


def _output(device: str, x: Tensor, *, ranks: int) -> Tensor:
    model = initial_model(ModelConfig(backbone="test_efficientnet", weights="none", dim=16, image_size=64), seed=1)
    backbone = synchronised(model.backbone) if ranks > 1 else model.backbone
    with torch.no_grad():
        found: Tensor = backbone.to(device).train(device == "cuda")(x.to(device))
    return found.cpu()
