"""What the tests marked gpu check, as functions: a machine without pytest runs them too."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.gpu.rows import Row, Size
from isc.config.choices import Engine, Precision
from isc.data.descriptors import Descriptors
from isc.extract.batches import Files
from isc.extract.blocks import joined
from isc.extract.embedding import embed_photos
from isc.extract.gpu_pipeline import BatchDataset, embed_on_gpu
from isc.extract.view_plan import ViewPlan
from isc.model.device import place
from isc.model.load import load_model
from isc.model.torch_inference import FAITHFUL, TorchModel, torch_inference_model
from isc.photos.folders import SAMPLE
from isc.search.exact import best_pairs, knn

PHOTOS, SIDE = 21, 192  # of the sample; pixels
LEAST = {Precision.bfloat16: 0.999}  # cosines with float32; FAITHFUL for the others
LEAST_JPEG = 0.99  # another decoder: its colours differ by a few levels
Vectors = npt.NDArray[np.float32]


def checks(device: str, _size: Size, _folder: Path) -> list[Row]:
    """Compare searches with the bytes of numpy, and descriptors of the shipped model with those of a CPU."""
    rows = []
    for engine in (Engine.torch, Engine.torch_half):
        start = time.perf_counter()
        right = equal_search(engine)
        rows.append(Row(f"search, engine={engine.value}", time.perf_counter() - start, "s", right=right))
    model, on = load_model("isc_small"), torch.device(device)
    expected = described(torch_inference_model(model))
    there = place(load_model("isc_small"), on)
    precisions = list(Precision) if device == "cuda" else [Precision.float32, Precision.auto]
    for precision in precisions:
        network = torch_inference_model(there, precision=precision, image_size=SIDE)
        least = cosine(described(network, workers=2), expected)
        again = cosine(described(network, batch_size=7), expected)
        right = min(least, again) >= LEAST.get(precision, FAITHFUL)
        rows.append(Row(f"isc_small, {precision.value}: least cosine", min(least, again), "", right=right))
    decoded = cosine(described_from_jpegs(torch_inference_model(there)), expected)
    rows.append(Row("isc_small, gpu_jpeg=true: least cosine", decoded, "", right=decoded >= LEAST_JPEG))
    return rows


def equal_search(engine: Engine) -> bool:
    """Return whether an engine finds what numpy finds, byte by byte, among unit vectors and among equal distances."""
    rng = np.random.default_rng(12)
    unit = [rng.normal(size=(number, 64)) for number in (500, 30_000)]
    for queries, references in (
        tuple(descriptors(part / np.linalg.norm(part, axis=1, keepdims=True)) for part in unit),
        tuple(descriptors(rng.integers(-2, 3, (number, 3))) for number in (50, 3000)),
    ):
        for find in (
            lambda which, q=queries, r=references: best_pairs(q, r, num_pairs=5000, engine=which),
            lambda which, q=queries, r=references: knn(q, r, k=10, engine=which),
        ):
            here, there = find(Engine.numpy), find(engine)
            for name in ("query", "reference", "score"):
                if getattr(here, name).tobytes() != getattr(there, name).tobytes():
                    return False
    return True


def descriptors(vectors: npt.NDArray[np.generic]) -> Descriptors:
    return Descriptors([str(row) for row in range(len(vectors))], vectors.astype(np.float32))


def described(network: TorchModel, *, workers: int = 0, batch_size: int | None = None) -> Vectors:
    """Return the descriptors [PHOTOS, dim] of the first photos of the sample."""
    paths = sorted(SAMPLE.glob("*.jpg"))[:PHOTOS]
    blocks = embed_photos(
        network, Files(paths), range(PHOTOS), view_plan=ViewPlan(SIDE), workers=workers, batch_size=batch_size
    )
    return joined(list(blocks)).vectors[:, 0]


def described_from_jpegs(network: TorchModel) -> Vectors:
    """Return the descriptors [PHOTOS, dim] of the same photos, decoded by torchvision on the network's device."""
    paths = sorted(SAMPLE.glob("*.jpg"))[:PHOTOS]
    batches = BatchDataset(Files(paths), range(PHOTOS), ViewPlan(SIDE), size=8, jpegs=True)
    return joined(list(embed_on_gpu(network, batches, workers=0))).vectors[:, 0]


def cosine(one: Vectors, other: Vectors) -> float:
    """Return the smallest cosine of the rows of two sets of unit vectors [N, D]; NaN if a number is none."""
    return float((one * other).sum(axis=1).min())
