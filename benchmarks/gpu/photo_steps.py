"""The steps from photos to descriptors."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from benchmarks.gpu.rows import Row, Size, seconds_of, wait
from isc.config.choices import Precision
from isc.config.train import ModelConfig
from isc.extract.batches import Files, read_batch
from isc.extract.embedding import embed_photos
from isc.extract.gpu_jpeg import shrunk_by_size
from isc.extract.gpu_pipeline import LARGEST_BATCH, BatchDataset, embed_on_gpu, fitting_batch, loaded
from isc.extract.view_plan import ViewPlan
from isc.model.device import place
from isc.model.load import initial_model
from isc.model.torch_inference import FAITHFUL, TorchModel, least_cosine, torch_inference_model
from isc.photos.decode import encode_jpeg, read_image
from isc.photos.folders import SAMPLE
from isc.runtime.cpus import cores, worker_count


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
    """Photos per second: decoded by one core, by all, by the GPU's decoder, and shrunk on the device."""
    whole = photos_of(size, folder)
    paths = whole[: min(256, size.photos)]
    files = [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in paths]
    count, side = len(files), min(224, size.side // 2)

    def rate(action: Callable[[], object]) -> float:
        return count / seconds_of(action, repeats=size.repeats)

    def read() -> None:
        read_batch(Files(paths), range(count), ViewPlan(side))

    def decode() -> list[Tensor]:
        return [decode_jpeg(file, mode=ImageReadMode.RGB) for file in files]

    pictures = [picture.to(device) for picture in decode()]
    processes = worker_count(-1)
    dataset = BatchDataset(Files(whole), range(len(whole)), ViewPlan(side), size=32)
    shared = _rate(len(whole), lambda: list(map(len_of, loaded(dataset, processes, torch.device(device)))))
    rows = [
        Row("Pillow and INTER_AREA, one core", rate(read), "photos/s"),
        Row(f"the same, {processes} processes", shared, "photos/s"),
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
        loader = _rate(
            len(paths),
            lambda dataset=dataset, workers=workers, on=network.device: list(map(len_of, loaded(dataset, workers, on))),
        )
        alone = _network_rate(network, batch, side, size)
        whole = _rate(
            len(paths),
            lambda network=network, plan=plan, batch=batch: list(
                embed_photos(network, Files(paths), range(len(paths)), view_plan=plan, batch_size=batch, workers=-1)
            ),
        )
        batches = BatchDataset(Files(paths), range(len(paths)), plan, size=batch, jpegs=True, full_size=True)
        jpegs = _rate(
            len(paths),
            lambda network=network, batches=batches, workers=workers: list(
                embed_on_gpu(network, batches, workers=workers)
            ),
        )
        exact = torch_inference_model(model, precision=Precision.float32)
        right = least_cosine(exact, network, side) >= FAITHFUL
        where = f"{name} @{side}, {network.precision.value}, batches of {batch}"
        rows.append(Row(f"{where}: loader alone", loader, "photos/s"))
        rows.append(Row(f"{where}: network alone", alone, "photos/s", right=right))
        rows.append(Row(f"{where}: whole", whole, "photos/s", min(loader, alone), "slower of both", right))
        rows.append(Row(f"{where}: whole, JPEGs decoded on the device", jpegs, "photos/s", alone, "network alone"))
    return rows


def compiled(device: str, size: Size, folder: Path) -> list[Row]:
    """Photos per second of the first network with CUDA graphs, beside the plain one; torch compiles for GPUs alone."""
    paths = photos_of(size, folder)
    name, side = size.networks[0]
    model = initial_model(ModelConfig(backbone=name, weights="none", image_size=side), seed=0)
    there, graphs = place(model, torch.device(device)), device == "cuda"
    plain = torch_inference_model(there, precision=Precision.auto, image_size=side)
    network = torch_inference_model(there, precision=Precision.auto, image_size=side, compile=graphs)
    plan, start = ViewPlan(side), time.perf_counter()
    batch = fitting_batch(network, plan) if device == "cuda" else 8
    network(torch.zeros(batch, 3, side, side, dtype=torch.uint8, device=network.device))
    wait()
    first = time.perf_counter() - start
    alone, usual = (_network_rate(one, batch, side, size) for one in (network, plain))
    whole = _rate(
        len(paths),
        lambda: list(
            embed_photos(network, Files(paths), range(len(paths)), view_plan=plan, batch_size=batch, workers=-1)
        ),
    )
    right = least_cosine(torch_inference_model(model, precision=Precision.float32), network, side) >= FAITHFUL
    where = f"{name} @{side}, compile={str(graphs).lower()}"
    return [
        Row(f"{where}: first batch", first, "s"),
        Row(f"{where}: network alone", alone, "photos/s", usual, "not compiled", right),
        Row(f"{where}: whole", whole, "photos/s", alone, "network alone", right),
    ]


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
