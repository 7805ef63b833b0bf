"""The validation of a model during training: its μAP on a benchmark in the layout of `isc.benchmark`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from isc.config.choices import Precision
from isc.data.csv_files import read_ground_truth
from isc.data.ids import Ids
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.metrics import Metrics, evaluate
from isc.extract.embedding import embed
from isc.model.copy_model import CopyModel
from isc.model.torch_inference import torch_inference_model
from isc.photos.listing import Listing
from isc.photos.sources import list_photos
from isc.search.kernels.device_search import DeviceSearch

log = logging.getLogger(__name__)
Vectors = npt.NDArray[np.float32]

CPU = torch.device("cpu")
MEMORY = 1 << 30  # bytes of the search, on a CPU
PAIRS_A_QUERY = 10  # pairs kept: this × the number of queries, the best over all queries; match.py's default


@dataclass(frozen=True)
class Validation:
    """The photos and the ground truth of a benchmark, checked at construction by `of`."""

    queries: Listing
    references: Listing
    truth: GroundTruth

    @classmethod
    def of(cls, folder: str) -> Validation:
        root = Path(folder)
        for name in ("queries", "references", "ground_truth.csv"):
            if not (root / name).exists():
                raise InputError(f"validation={folder}: no {name}; expected queries/, references/ and ground_truth.csv")
        queries, references = (list_photos(root / side, key="validation") for side in ("queries", "references"))
        truth = read_ground_truth(root / "ground_truth.csv")
        for known, side, ids in (
            (queries, "queries", truth.queries),
            (references, "references", {reference for _, reference in truth.pairs}),
        ):
            if unknown := sorted(ids - set(known.ids())):
                raise InputError(f"validation={folder}: ground_truth.csv names {unknown[0]!r}, which is not in {side}/")
        return cls(queries, references, truth)

    def judge(self, model: CopyModel, *, image_size: int, workers: int, precision: Precision) -> Metrics:
        """Return the metrics of the model's descriptors on the benchmark, without unreadable queries and references."""
        sides = []
        network = torch_inference_model(model, precision=precision)
        for photos in (self.queries, self.references):
            vectors, failures = embed(network, photos, image_size=image_size, workers=workers)
            for reason in failures.values():
                log.warning("left out of the validation: %s", reason)
            kept = [row for row in range(len(photos)) if row not in failures]
            sides.append((np.array(photos.ids(kept), dtype=object), vectors[kept]))
        (queries, q), (references, r) = sides
        device = next(model.parameters()).device
        return evaluate(_best_pairs(queries, references, q, r, device=device), self.truth)


def _best_pairs(queries: Ids, references: Ids, q: Vectors, r: Vectors, *, device: torch.device = CPU) -> Matches:
    """Return the best pairs of descriptors [Q, D] and [R, D] by −(squared Euclidean distance), found on the device.

    This is not `isc.search.exact.best_pairs`, which may load faiss: its OpenMP must not meet torch's in one process.
    """
    wanted = min(PAIRS_A_QUERY, len(r)) * len(q)
    if not wanted:
        none = np.zeros(0, np.int64)
        return Matches(queries, references, none, none, score=np.zeros(0, np.float32))
    search = DeviceSearch([str(device)], half=device.type == "cuda", memory=MEMORY)
    best = search.best_pairs(q, r, num_pairs=wanted)
    return Matches(queries, references, best.query, best.reference, score=(0.0 - best.distance).astype(np.float32))
