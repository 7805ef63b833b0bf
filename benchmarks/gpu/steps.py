"""The steps of the run; each returns its rows, on any device."""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import ImageReadMode, decode_jpeg

from benchmarks.gpu.rows import Row, Size, seconds_of, wait
from isc.config.choices import Device as DeviceName
from isc.config.choices import Engine, Precision
from isc.config.train import AugmentConfig, ModelConfig, OptimConfig, TrainConfig
from isc.extract.batches import Files, read_batch
from isc.extract.embedding import embed_photos
from isc.extract.gpu_jpeg import shrunk_by_size
from isc.extract.gpu_pipeline import LARGEST_BATCH, BatchDataset, fitting_batch, loaded
from isc.extract.view_plan import ViewPlan
from isc.model.device import native_bfloat16, place
from isc.model.load import initial_model
from isc.model.torch_inference import FAITHFUL, TorchModel, least_cosine, torch_inference_model
from isc.photos.decode import encode_jpeg, read_image
from isc.photos.folders import SAMPLE
from isc.photos.sources import list_photos
from isc.runtime.cpus import cores, worker_count
from isc.search.exact import nearest
from isc.search.kernels import chunk_maxima, device_rows
from isc.search.kernels.device_search import DeviceSearch
from isc.search.kernels.numpy_kernel import squared_distances
from isc.train.augment.augmenter import Augmenter
from isc.train.dataset import Batch, Source, TrainingViews, training_loader
from isc.train.distributed import synchronised
from isc.train.trainer import Trainer

DIM = 256
K = 50
Step = Callable[[str, Size, Path], list[Row]]


def unit(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def product_seconds(device: str, size: Size, dtype: torch.dtype) -> float:
    """Return the seconds of all products alone, in tiles that fit, each written over the one before."""
    queries = torch.from_numpy(unit(size.queries, 0)).to(device, dtype)
    references = torch.from_numpy(unit(size.references, 1)).to(device, dtype)
    step = 65_536
    out = torch.empty(len(queries), step, device=device, dtype=dtype)

    def products() -> None:
        for start in range(0, len(references), step):
            block = references[start : start + step]
            torch.mm(queries, block.T, out=out if len(block) == step else None)

    return seconds_of(products, repeats=size.repeats)


def product(device: str, size: Size, _folder: Path) -> list[Row]:
    operations = 2 * size.queries * size.references * DIM
    kinds = (torch.float16, torch.bfloat16) if device == "cuda" else (torch.float32,)
    rates = {kind: operations / product_seconds(device, size, kind) / 1e12 for kind in kinds}
    limit = {torch.float16: 989.0, torch.bfloat16: 989.0}
    return [
        Row(f"products alone, {str(kind).removeprefix('torch.')}", rate, "TFLOP/s", limit.get(kind), "data sheet, H100")
        for kind, rate in rates.items()
    ]


def maxima(device: str, size: Size, _folder: Path) -> list[Row]:
    """The chunk maxima by the kernel and by torch, beside the products alone."""
    half = torch.float16
    q = device_rows.Rows.empty(size.queries, DIM, device=torch.device(device), kind=half, multiple=1)
    r = device_rows.Rows.empty(size.references, DIM, device=torch.device(device), kind=half, multiple=chunk_maxima.TILE)
    for rows, vectors in ((q, unit(size.queries, 0)), (r, unit(size.references, 1))):
        for _ in rows.ready(vectors):
            pass
    alone = product_seconds(device, size, half if device == "cuda" else torch.float32)
    out = torch.empty(size.queries, len(r.vectors) // chunk_maxima.CHUNK, device=device)
    ways = {"torch": chunk_maxima.maxima_by_torch}
    if chunk_maxima._by_triton(str(q.vectors.device)):
        ways = {"Triton": chunk_maxima.chunk_maxima} | ways
    limits = device_rows.bounds(q, r)
    some = min(200, size.queries)
    square = ((q.vectors[:some, None, :] - r.vectors[None, :640, :]) ** 2).sum(dim=2)
    check = square.view(some, -1, chunk_maxima.CHUNK).amin(dim=2) / -2
    rows = []
    for name, way in ways.items():
        took = seconds_of(lambda way=way: way(q.operand, q.half, r.operand, r.half, out), repeats=size.repeats)
        right = bool((out[:some, :10] - check).abs().max() <= limits.maxima + limits.float32)
        rows.append(Row(f"maxima of chunks, {name}", took, "s", alone, "products alone", right))
    return rows


def search(device: str, size: Size, _folder: Path) -> list[Row]:
    """The whole search from arrays in memory to the pairs, beside the products alone; and its bytes against numpy's."""
    queries, references = unit(size.queries, 0), unit(size.references, 1)
    engine = DeviceSearch([device], half=True, memory=1 << 30)
    fewer = DeviceSearch([device], half=True, memory=1 << 30)
    alone = product_seconds(device, size, torch.float16 if device == "cuda" else torch.float32)
    found = {}

    def best() -> None:
        found["best"] = engine.best_pairs(queries, references, num_pairs=size.pairs)

    def near() -> None:
        found["near"] = engine.nearest(queries, references, k=K)

    rows = [Row("best pairs, references sent", seconds_of(best, repeats=size.repeats), "s", alone, "products alone")]
    with device_rows.keeping_references():
        took = seconds_of(best, repeats=size.repeats)
        each = seconds_of(near, repeats=size.repeats)
    small = references[: size.checked]
    row, distance = nearest(queries[:100], small, k=K, engine=Engine.numpy)
    there = fewer.nearest(queries[:100], small, k=K)
    equal = row.ravel().tobytes() == there.reference.tobytes() and distance.tobytes() == there.distance.tobytes()
    rows.append(
        Row(
            "best pairs, references kept",
            took,
            "s",
            alone,
            "products alone",
            _slow_equal(found["best"], queries, references),
        )
    )
    rows.append(Row(f"{K} nearest of each query", each, "s", alone, "products alone", equal))
    if device == "cuda":
        rows += _profiled(best)
    return rows


def _slow_equal(best: object, queries: np.ndarray, references: np.ndarray) -> bool:
    """Compare the pairs of 100 queries with all their distances in float64."""
    pairs = vars(best)
    end = pairs["distance"][-1]
    chosen = np.random.default_rng(2).permutation(len(queries))[:100]
    for query in chosen:
        mine = pairs["query"] == query
        square = references.astype(np.float64) if len(references) < 10_000 else None
        if square is None:  # a bound first, so that a million differences need not be made 100 times
            rough = 2 - 2 * (references @ queries[query])
            near = np.flatnonzero(rough <= end + 1e-4)
        else:
            near = np.arange(len(references))
        exact = squared_distances(queries, references, np.full(len(near), query), near)
        known = dict(zip(near.tolist(), exact.tolist(), strict=True))
        found = dict(zip(pairs["reference"][mine].tolist(), pairs["distance"][mine].tolist(), strict=True))
        if any(known.get(reference) != distance for reference, distance in found.items()):
            return False
        if set(near[exact < end].tolist()) - found.keys():
            return False
    return True


def _profiled(action: Callable[[], None]) -> list[Row]:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as taken:
        action()
        wait()
    events = sorted(taken.key_averages(), key=lambda one: -one.device_time_total)[:8]
    return [Row(f"profile: {one.key[:60]} × {one.count}", one.device_time_total / 1e6, "s") for one in events]


# --- photos ----------------------------------------------------------------------------------------------------------


def photos_of(size: Size, folder: Path) -> list[Path]:
    """Make the photos of the run from the samples, at `side` pixels and a few other sizes."""
    there = folder / "photos"
    there.mkdir(parents=True, exist_ok=True)
    sources = sorted(SAMPLE.glob("*.jpg"))

    def make(number: int) -> Path:
        path = there / f"P{number:05d}.jpg"
        if not path.exists():
            picture = read_image(sources[number % len(sources)])
            longest = size.side - 16 * (number % 5)
            scale = longest / max(picture.shape[:2])
            shape = (max(40, round(picture.shape[1] * scale)), max(40, round(picture.shape[0] * scale)))
            path.write_bytes(encode_jpeg(cv2.resize(picture, shape, interpolation=cv2.INTER_CUBIC), quality=90))
        return path

    with ThreadPoolExecutor(cores()) as threads:
        return list(threads.map(make, range(size.photos)))


def jpeg(device: str, size: Size, folder: Path) -> list[Row]:
    """Photos per second: decoded by one core, by the GPU's decoder, and shrunk on the device."""
    paths = photos_of(size, folder)[: min(256, size.photos)]
    files = [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in paths]
    count, side = len(files), min(224, size.side // 2)

    def rate(action: Callable[[], object]) -> float:
        return count / seconds_of(action, repeats=size.repeats)

    def read() -> None:
        read_batch(Files(paths), range(count), ViewPlan(side))

    def decode() -> list[Tensor]:
        return [decode_jpeg(file, mode=ImageReadMode.RGB) for file in files]

    pictures = [picture.to(device) for picture in decode()]
    rows = [
        Row("Pillow and INTER_AREA, one core", rate(read), "photos/s"),
        Row("libjpeg-turbo alone, one core", rate(decode), "photos/s"),
        Row("shrinking on the device", rate(lambda: shrunk_by_size(pictures, side)), "photos/s"),
    ]
    if device == "cuda":
        there = functools.partial(decode_jpeg, files, mode=ImageReadMode.RGB, device=device)
        rows.append(Row("the GPU's decoder", rate(there), "photos/s"))
    return rows


def extract(device: str, size: Size, folder: Path) -> list[Row]:
    """Photos per second of loader, network and whole, for each network."""
    paths = photos_of(size, folder)
    rows: list[Row] = []
    for name, side in size.networks:
        model = initial_model(ModelConfig(backbone=name, weights="none", image_size=side), seed=0)
        network = torch_inference_model(place(model, torch.device(device)), precision=Precision.auto, image_size=side)
        plan, workers = ViewPlan(side), worker_count(-1)
        batch = fitting_batch(network, plan) if device == "cuda" else 8
        dataset = BatchDataset(Files(paths), range(len(paths)), plan, size=batch, full_size=True)
        loader = _rate(len(paths), lambda dataset=dataset, workers=workers: list(map(len_of, loaded(dataset, workers))))
        alone = _network_rate(network, batch, side, size)
        whole = _rate(
            len(paths),
            lambda network=network, plan=plan, batch=batch: list(
                embed_photos(network, Files(paths), range(len(paths)), view_plan=plan, batch_size=batch, workers=-1)
            ),
        )
        exact = torch_inference_model(model, precision=Precision.float32)
        right = least_cosine(exact, network, side) >= FAITHFUL
        where = f"{name} @{side}, {network.precision.value}, batches of {batch}"
        rows.append(Row(f"{where}: loader alone", loader, "photos/s"))
        rows.append(Row(f"{where}: network alone", alone, "photos/s", right=right))
        rows.append(Row(f"{where}: whole", whole, "photos/s", min(loader, alone), "slower of both", right))
    return rows


def len_of(batch: object) -> int:
    return len(batch.batch.rows)  # type: ignore[attr-defined]


def _rate(count: int, action: Callable[[], object]) -> float:
    return count / seconds_of(action, repeats=1, warm=0)


def _network_rate(network: TorchModel, batch: int, side: int, size: Size) -> float:
    pictures = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8).to(network.device)
    turns = max(1, 10 * LARGEST_BATCH // batch) if network.on_gpu else 1

    def run() -> None:
        for _ in range(turns):
            network(pictures)

    return turns * batch / seconds_of(run, repeats=size.repeats)


# --- training --------------------------------------------------------------------------------------------------------


def train(device: str, size: Size, folder: Path) -> list[Row]:
    """Photos per second of the loader, of forward and backward on ready tensors, of a step and of the loop; memory."""
    photos_of(size, folder)
    rows: list[Row] = []
    for name, side, photos in size.trained:
        precision = Precision.bfloat16 if native_bfloat16(torch.device(device)) else Precision.float32
        config = TrainConfig(
            images=[str(folder / "photos")], output=str(folder / "run"), device=DeviceName(device),
            model=ModelConfig(backbone=name, weights="none", image_size=side),
            train=OptimConfig(steps=1000, batch_size=photos, image_size=side, precision=precision),
            augment=AugmentConfig(),
        )  # fmt: skip
        source = Source(list_photos(config.images))
        trainer = Trainer(config, Path(config.output), torch.device(device), source)
        _reset_memory(device)
        trainer.try_largest_step()
        peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else float("nan")
        ready = next(iter(_batches(config, source, steps=1, workers=0)))
        alone = _alone(trainer, ready)
        turns = 5 if device == "cuda" else 1
        bare = _turns_rate(alone, photos, turns, size)
        step = _turns_rate(functools.partial(trainer._one_step, ready, 1.0), photos, turns, size)
        workers = worker_count(-1)
        loader = _loop_rate(_batches(config, source, steps=size.steps, workers=workers), photos, lambda _: None)
        whole = _loop_rate(
            _batches(config, source, steps=size.steps, workers=workers), photos,
            lambda batch, trainer=trainer: trainer._one_step(batch, 1.0),
        )  # fmt: skip
        where = f"{name} @{side}, {photos} photos a step, {precision.value}"
        rows.append(Row(f"{where}: loader alone", loader, "photos/s"))
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


def _batches(config: TrainConfig, source: Source, *, steps: int, workers: int) -> Iterator[Batch]:
    augmenter = Augmenter(config.augment, size=config.train.image_size)
    views = TrainingViews(source, augmenter, seed=config.seed, mix=config.augment.mix)
    return iter(training_loader(views, batch_size=config.train.batch_size, steps=range(steps), workers=workers))


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


# --- several processes -----------------------------------------------------------------------------------------------


def norms(device: str, _size: Size, _folder: Path) -> list[Row]:
    """Synchronised batch norms of two processes on one device against one process with the whole batch.

    On a CPU, where torch cannot synchronise them, the same layers run in one process.
    """
    x = torch.randint(0, 256, (8, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    start = time.perf_counter()
    expected = _trained(device, x, ranks=1)
    if device == "cuda":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        queue = mp.get_context("spawn").SimpleQueue()
        mp.spawn(_rank, args=(device, x, port, queue), nprocs=2, join=True)
        found = torch.cat([part for _, part in sorted([queue.get(), queue.get()], key=lambda one: one[0])])
    else:
        found = _trained(device, x, ranks=2)
    right = bool(F.cosine_similarity(expected.flatten(1), found.flatten(1)).min() > 0.9999)
    return [Row("norms of two processes", time.perf_counter() - start, "s", right=right)]


def _rank(rank: int, device: str, x: Tensor, port: int, queue: object) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    queue.put((rank, _trained(device, x[4 * rank : 4 * rank + 4], ranks=2)))  # type: ignore[attr-defined]
    dist.barrier()
    dist.destroy_process_group()


def _trained(device: str, x: Tensor, *, ranks: int) -> Tensor:
    model = initial_model(ModelConfig(backbone="test_efficientnet", weights="none", dim=16, image_size=64), seed=1)
    backbone = synchronised(model.backbone) if ranks > 1 else model.backbone
    with torch.no_grad():
        found: Tensor = backbone.to(device).train()(x.to(device))
    return found.cpu()


STEPS: dict[str, Step] = {
    "product": product, "maxima": maxima, "search": search, "jpeg": jpeg, "extract": extract, "train": train,
    "norms": norms,
}  # fmt: skip
