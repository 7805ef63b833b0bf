"""Extraction speed, compared with reading alone, the network alone and the usual loop in the same run.

    python -m benchmarks.extract [--images DIR] [--model NAME] [--seconds S]
    python -m benchmarks.extract --groups       what made isc.model.inference's GROUP and _keep_early_layers as they are
    python -m benchmarks.extract --names 10000000     what it takes to list so many photos

`whole` is `isc.extract.run.extract` to the finished file, without the time of the first 16 photos; `starting` is the
time of a run with these 16 photos alone. `reading` only reads and resizes the same photos, in the same number of
processes. `network` embeds prepared pictures: on a CPU in the same number of processes, on a GPU in the batches of the
extraction. `possible` is the highest rate that could be reached: 1 / (1 / reading + 1 / network) on a CPU, where both
share the cores, and the slower of the two on a GPU. `usual loop` is what most programs do: a loader's processes,
batches of 32, the machine's threads, float32.
"""

import argparse
import contextlib
import csv
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks import save
from isc.config.choices import Precision, Runtime
from isc.config.extract import ExtractConfig
from isc.errors import InputError
from isc.extract.batches import Batch, read_batch
from isc.extract.blocks import Block
from isc.extract.embedding import ITEM, embed, embed_batch
from isc.extract.gpu_pipeline import BatchDataset, fitting_batch
from isc.extract.loaders import CPU, loader_options
from isc.extract.run import extract
from isc.extract.view_plan import ViewPlan
from isc.model.device import choose_device, native_bfloat16, place
from isc.model.inference import InferenceModel
from isc.model.load import load_model
from isc.model.load_inference import load_inference_model
from isc.model.torch_inference import FAITHFUL, TorchModel, _Autocast
from isc.photos.folders import SAMPLE
from isc.photos.listing import Listing
from isc.photos.sources import list_photos
from isc.runtime.allocator import keep_freed_memory
from isc.runtime.cpus import cores

SIZES = (224, 288, 512)  # pixels
FIRST = 16  # photos of the run that measures the start
SOME = 160  # photos of the quick measurements
ROUNDS = 3
GROUPS = (1, 2, 4, 8, 16)
USUAL = 32  # pictures in a batch of the usual loop


class Ready(Dataset[Block]):
    """A dataset that embeds the same pictures again and again, in the loader's processes."""

    def __init__(self, network: InferenceModel, batch: Batch, view_plan: ViewPlan, *, count: int) -> None:
        self.network, self.batch, self.view_plan, self.count = network, batch, view_plan, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, _: int) -> Block:
        return embed_batch(self.network, self.batch, self.view_plan)


def rate(items: Iterable[object], *, each: int, skip: int) -> float:
    """Return the photos per second of a loader whose items hold `each` photos, after the first `skip` items."""
    started, count = 0.0, -skip
    for _ in items:
        count += 1
        if count == 0:
            started = time.perf_counter()
    return count * each / (time.perf_counter() - started)


def loader(dataset: Dataset[object], device: torch.device = CPU) -> DataLoader[object]:
    options = loader_options(cores(), item_bytes=0, device=device)
    return DataLoader(dataset, batch_size=None, collate_fn=lambda item: item, **options)


def reading(photos: Listing, view_plan: ViewPlan) -> float:
    return rate(loader(BatchDataset(photos, range(len(photos)), view_plan, size=ITEM)), each=ITEM, skip=cores() * 2)


def network_alone(network: InferenceModel, photos: Listing, view_plan: ViewPlan, *, count: int) -> float:
    """Return the photos per second of the network alone, measured on about `count` pictures."""
    if isinstance(network, TorchModel) and network.on_gpu:
        return _on_gpu(network, photos, view_plan, count=count)
    batch, skip = read_batch(photos, range(ITEM), view_plan), 2 * cores()
    return rate(loader(Ready(network, batch, view_plan, count=count // ITEM + skip)), each=ITEM, skip=skip)


def _on_gpu(network: TorchModel, photos: Listing, view_plan: ViewPlan, *, count: int) -> float:
    """Return the photos per second of the network on a batch that is on the GPU already."""
    size = fitting_batch(network, view_plan)
    batch = torch.from_numpy(read_batch(photos, range(size), view_plan).pictures[0]).flatten(0, 1).to(network.device)
    for _ in range(3):
        network(batch)
    torch.cuda.synchronize()
    turns, started = max(1, count // size), time.perf_counter()
    for _ in range(turns):
        network(batch)
    torch.cuda.synchronize()
    return turns * size / (time.perf_counter() - started)


def usual_loop(model: str, photos: Listing, view_plan: ViewPlan, device: torch.device) -> float:
    network = place(load_model(model), device)

    def batches() -> Iterable[None]:
        for batch in loader(BatchDataset(photos, range(len(photos)), view_plan, size=USUAL), device):
            with torch.inference_mode():
                network(batch.pictures[0].flatten(0, 1).to(device)).cpu()
            yield None

    return rate(batches(), each=USUAL, skip=2)


def extracted(images: Path, options: dict[str, object], network: InferenceModel | None = None) -> float:
    """Return the seconds of a whole extraction; a given `network` is used instead of loading one."""
    there = (
        mock.patch("isc.model.load_inference.load_inference_model", return_value=network)
        if network
        else contextlib.nullcontext()
    )
    with tempfile.TemporaryDirectory() as folder, there:
        started = time.perf_counter()
        extract(ExtractConfig(images=[str(images)], output=f"{folder}/d.h5", **options))  # type: ignore[arg-type]
        return time.perf_counter() - started


def listed(folder: Path, photos: list[str], count: int) -> Path:
    """Write a list of `count` ids that uses the photos in turn, and return its path."""
    path = folder / f"{count}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "file"))
        writer.writerows((f"{row:09d}", photos[row % len(photos)]) for row in range(count))
    return path


def ways(device: torch.device) -> list[tuple[Runtime, Precision]]:
    """Return the combinations of runtime and precision that this machine supports."""
    if device.type == "cuda":
        return [(Runtime.torch, precision) for precision in (Precision.float32, Precision.float16)]
    found = [(Runtime.torch, Precision.float32)]
    if native_bfloat16(device):
        found.append((Runtime.torch, Precision.bfloat16))
    for runtime in (Runtime.onnxruntime, Runtime.openvino):
        try:
            load_inference_model("imagenet", device=device, runtime=runtime)
            found.append((runtime, Precision.float32))
        except InputError as error:
            print(f"without {runtime.value}: {error}")
    return found


def measure(arguments: argparse.Namespace, size: int, folder: Path, device: torch.device) -> list[dict[str, object]]:
    """Return the rows of one image size.

    Rounds of the network alone, of the whole, and (for the first row) of the usual loop alternate; the medians count.
    """
    original = list_photos(arguments.images)
    names = [original.file(row) for row in range(len(original))]
    view_plan, few = ViewPlan(size), listed(folder, names, FIRST)
    some = list_photos(listed(folder, names, SOME))
    read, usual = reading(some, view_plan), list[float]()
    rows: list[dict[str, object]] = []
    for runtime, precision in ways(device):
        options: dict[str, object] = {"image_size": size, "runtime": runtime, "precision": precision}
        network = load_inference_model(arguments.model, device=device, **options)  # type: ignore[arg-type]
        options["model"] = arguments.model
        count = max(64, int(network_alone(network, some, view_plan, count=32) * arguments.seconds))
        many, alone, took = listed(folder, names, count), [], []
        for _ in range(ROUNDS):
            if not rows:
                usual.append(usual_loop(arguments.model, some, view_plan, device))
            alone.append(network_alone(network, some, view_plan, count=count))
            took.append(extracted(many, options, network) - extracted(few, options, network))
        starting = extracted(few, options)
        rates = {"network": statistics.median(alone), "whole": (count - FIRST) / statistics.median(took)}
        what: dict[str, object] = {"size": f"{size} px", "by": f"{runtime.value}, {precision.value}"}
        rows.append(what | told(rates, read=read, usual=statistics.median(usual), starting=starting, device=device))
    return rows


def told(
    rates: dict[str, float], *, read: float, usual: float, starting: float, device: torch.device
) -> dict[str, object]:
    alone, whole = rates["network"], rates["whole"]
    possible = min(read, alone) if device.type == "cuda" else 1 / (1 / read + 1 / alone)
    return {
        "reading, photos/s": f"{read:.0f}",
        "network": f"{alone:.1f}",
        "whole": f"{whole:.1f}",
        "whole ÷ slower of the two": f"{whole / min(read, alone):.2f}",
        "whole ÷ possible": f"{whole / possible:.2f}",
        "usual loop": f"{usual:.1f}",
        "whole ÷ usual loop": f"{whole / usual:.2f}",
        "starting, s": f"{starting:.1f}",
    }


def groups(arguments: argparse.Namespace, device: torch.device) -> list[dict[str, object]]:
    """Return the photos per second of the network alone, by the number of pictures that a core embeds at once."""
    photos, rows = list_photos(arguments.images), []
    for size in SIZES:
        batch = read_batch(photos, range(max(GROUPS)), ViewPlan(size))
        for precision in (Precision.float32, Precision.bfloat16):
            network = load_inference_model(arguments.model, device=device, runtime=Runtime.torch, precision=precision)
            row: dict[str, object] = {"size": f"{size} px", "by": precision.value}
            for count in GROUPS:
                grouped = replace(network, groups=(count, count))
                items = Ready(grouped, batch, ViewPlan(size), count=4 * cores())
                row[f"{count} at a time, photos/s"] = f"{rate(loader(items), each=max(GROUPS), skip=cores()):.0f}"
            rows.append(row)
    return rows


def precisions(arguments: argparse.Namespace, device: torch.device) -> list[dict[str, object]]:
    """Return the lowest cosine between bfloat16 and float32 descriptors of the given photos."""
    model = load_model(arguments.model)
    plain = TorchModel(_Autocast(model, torch.bfloat16), model.config.dim, model.config.image_size, device=device)
    kept = load_inference_model(arguments.model, device=device, precision=Precision.bfloat16)
    exact = load_inference_model(arguments.model, device=device, runtime=Runtime.torch)
    photos = list_photos(arguments.images)
    found = [embed(network, photos, workers=-1)[0] for network in (exact, plain, kept)]
    return [
        {"bfloat16": what, "least cosine": f"{(found[0] * other).sum(1).min():.5f}", "bound": f"{FAITHFUL}"}
        for what, other in zip(("all layers", "all but the first"), found[1:], strict=True)
    ]


def names(count: int) -> list[dict[str, object]]:
    """Return time and memory of listing `count` photos that need not exist, next to Python's sorted list of names."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photos.txt")
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"archive/{n % 997:03d}/{n % 1009:04d}/photo_{n:09d}.jpg\n" for n in range(count))
        started = time.perf_counter()
        lines = sorted(path.read_text(encoding="utf-8").splitlines())
        plain, held = time.perf_counter() - started, sum(map(sys.getsizeof, lines[:1000])) / 1000 + 8
        del lines
        before, started = _peak_bytes(), time.perf_counter()
        photos = list_photos([path])
        seconds, peak = time.perf_counter() - started, _peak_bytes() - before
        bytes_held = sum(value.nbytes for value in vars(photos).values() if hasattr(value, "nbytes"))
    return [
        {
            "photos": f"{count:,}",
            "seconds": f"{seconds:.1f}",
            "bytes a photo held": f"{bytes_held / count:.0f}",
            "more at the peak than sorting took": f"{peak / count:.0f}",
            "Python's sorted list: seconds": f"{plain:.1f}",
            "bytes a name": f"{held:.0f}",
            "seconds ÷ those of sorting": f"{seconds / plain:.1f}",
        }
    ]


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", default=[str(SAMPLE)], help="what extract.py's images= takes")
    parser.add_argument("--model", default="isc_small")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn, about")
    parser.add_argument("--groups", action="store_true", help="the arithmetic and the group sizes of a CPU instead")
    parser.add_argument("--names", type=int, metavar="N", help="the listing of N photos instead")
    arguments = parser.parse_args(argv)
    if arguments.names:
        save("extract_names", names(arguments.names))
        return
    keep_freed_memory()
    if arguments.groups:
        save("extract_groups", groups(arguments, choose_device("cpu")))
        save("extract_precision", precisions(arguments, choose_device("cpu")))
        return
    device = choose_device("auto")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            rows += measure(arguments, size, Path(folder), device)
    save("extract" if device.type == "cpu" else "extract_cuda", rows)


if __name__ == "__main__":
    main()
