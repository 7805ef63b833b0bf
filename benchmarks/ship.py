"""Conversion of a finished run to the weights in the package, and to their model card.

    python -m benchmarks.ship RUN_DIR

The program writes isc/model/weights/isc_small.safetensors (float16), the same as isc_small.onnx, and
docs/isc_small.md. It checks what the model
promises: at most 20 MB, and on the sample photos the same descriptors as by the run's float32 weights (cosine ≥
0.9995). It also measures the milliseconds per image on one core.
"""

import argparse
import csv
import json
import os
import platform
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded

import numpy as np
import torch

from benchmarks import save, seconds
from isc.data.model_files import SHIPPED
from isc.extract.embedding import embed
from isc.model.copy_model import CopyModel
from isc.model.device import place
from isc.model.export import MIN_COSINE as ONNX_COSINE
from isc.model.export import export
from isc.model.files import save_model
from isc.model.load import load_model
from isc.model.torch_inference import torch_inference_model
from isc.photos.folders import SAMPLE, list_images
from isc.runtime.allocator import keep_freed_memory

ROOT = Path(__file__).parent.parent
CARD = ROOT / "docs" / "isc_small.md"
TARGET = SHIPPED / "isc_small.safetensors"
MAX_BYTES = 20_000_000
MIN_COSINE = 0.9995
BATCH = 16


def ship(run: Path) -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    original = load_model(str(run))
    provenance = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
    provenance |= {"licence": "MIT; learned from research photos, see docs/isc_small.md"}
    save_model(TARGET, original, provenance, half=True)
    halved = load_model("isc_small")
    size, cosine = TARGET.stat().st_size, _least_cosine(original, halved)
    if size > MAX_BYTES or cosine < MIN_COSINE:
        TARGET.unlink()
        sys.exit(f"not shipped: {size} bytes, least cosine to the run {cosine:.5f}")
    onnx = export(halved, TARGET.with_suffix(".onnx"), half=True)
    rows = [
        {"what": "bytes of the file", "value": f"{size:,}", "bound": f"{MAX_BYTES:,}"},
        {"what": "parameters", "value": f"{sum(p.numel() for p in halved.parameters()):,}", "bound": ""},
        {"what": "least cosine to the run's float32 weights", "value": f"{cosine:.6f}", "bound": f"{MIN_COSINE}"},
        {"what": "bytes of the ONNX file", "value": f"{onnx.num_bytes:,}", "bound": f"{MAX_BYTES:,}"},
        {"what": "least cosine of the ONNX file", "value": f"{onnx.min_cosine:.6f}", "bound": f"{ONNX_COSINE}"},
        {
            "what": f"milliseconds an image, one core, {halved.config.image_size} px, batches of {BATCH}",
            "value": f"{_milliseconds(halved):.1f}",
            "bound": "40",
        },
    ]
    for found_for_the_weights_before in SHIPPED.glob("isc_small.*.json"):
        found_for_the_weights_before.unlink()
    save("ship", rows)
    CARD.write_text(card(run, provenance), encoding="utf-8")


def _least_cosine(one: CopyModel, two: CopyModel) -> float:
    paths = list(list_images(SAMPLE).values())
    a, b = (embed(torch_inference_model(model), paths)[0] for model in (one, two))
    return float((a * b).sum(axis=1).min())


def _milliseconds(model: torch.nn.Module) -> float:
    size = model.config.image_size  # type: ignore[union-attr]
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (BATCH, 3, size, size), dtype=np.uint8))
    network = place(model, torch.device("cpu"))
    ready = pixels.contiguous(memory_format=torch.channels_last)

    def forward() -> None:
        with torch.inference_mode():
            network(ready)

    forward()
    return 1000 * seconds(forward, repeats=9) / BATCH


def card(run: Path, provenance: dict[str, str]) -> str:
    """Return the model card; every figure in it is read from the run."""
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    rows = _rows(run / "log.csv")
    views = 2 * int(config["train.batch_size"]) * int(provenance["steps"])
    template = (ROOT / "benchmarks" / "isc_small.md.in").read_text(encoding="utf-8")
    return template.format(
        provenance=provenance,
        config=config,
        views=f"{views:,}",
        processor=_processor(),
        loss=_table(_means(rows), ("step", "loss", "contrast", "nearest_negative", "lr")),
        validation=_table(_rows(run / "validation.csv")),
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _means(rows: list[dict[str, str]], *, parts: int = 14) -> list[dict[str, str]]:
    """Return `parts` rows, each the mean of consecutive steps, with the last of them as its step."""
    found = []
    for chunk in np.array_split(np.arange(len(rows)), parts):
        names = [name for name in rows[0] if name != "step"]
        means = {name: f"{np.mean([float(rows[i][name]) for i in chunk]):.4g}" for name in names}
        found.append({"step": rows[chunk[-1]]["step"]} | means)
    return found


def _table(rows: list[dict[str, str]], columns: tuple[str, ...] | None = None) -> str:
    names = columns or tuple(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "--:|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(row[name] for name in names) + " |" for row in rows])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    ship(parser.parse_args().run)
