"""A training run from photos to a finished model: the implementation of train.py."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from isc.config.train import TrainConfig
from isc.data.csv_files import read_ground_truth
from isc.errors import InputError
from isc.model.checkpoint import checkpoint_to_resume
from isc.model.device import choose_device
from isc.photos.listing import Listing
from isc.photos.sources import list_photos, shown_sources
from isc.runtime.allocator import keep_freed_memory
from isc.train.checks import check_counts
from isc.train.dataset import Source
from isc.train.distributed import (
    join_group,
    leave_group,
    rank,
    world_size,
)
from isc.train.trainer import Trainer

log = logging.getLogger(__name__)


def train(config: TrainConfig) -> Path:
    """Train a model, or resume its training, in the run folder `config.output`; return the path of the finished model.

    The folder receives model.safetensors, checkpoint.pt (for resume=true), config.json, log.csv, provenance.json and
    tensorboard/; with validation= also validation.csv and best.safetensors; and failures.csv if photos could not be
    read. Under torchrun the processes share each batch, and only the first one writes files.
    """
    run = Path(config.output)
    checkpoint = checkpoint_to_resume(run, config)
    photos = list_photos(config.images)
    source = Source(photos, _pairs(config, photos))
    device = join_group(choose_device(config.device.value))
    if rank() > 0:
        logging.getLogger("isc").setLevel(logging.WARNING)  # only the first process reports progress
    try:
        check_counts(config, source, device)
        keep_freed_memory()
        torch.manual_seed(config.seed)
        trainer = Trainer(config, run, device, source)
        if checkpoint:
            trainer.load(checkpoint)
        log.info("training %s on %d photos, %s × %d", config.model.backbone, len(photos), device, world_size())
        if device.type == "cuda":
            trainer.try_largest_step()
        with trainer.report_last_checkpoint():
            trainer.run_steps()
            return trainer.finish()
    finally:
        leave_group()


def _pairs(config: TrainConfig, photos: Listing) -> npt.NDArray[np.int64] | None:
    """Return the known copies as (reference, query) photo numbers [P, 2]; an id is a photo's id or its last part.

    Raises InputError if an id fits no photo or several photos.
    """
    if config.pairs is None:
        return None
    rows = {name: row for row, name in enumerate(photos.ids())}
    short: dict[str, list[str]] = {}
    for name in rows:
        short.setdefault(name.rsplit("/", 1)[-1], []).append(name)

    def number(name: str) -> int:
        found = [name] if name in rows else short.get(name, [])
        if len(found) != 1:
            what = "no photo of this id" if not found else f"several photos end so ({', '.join(found[:3])})"
            raise InputError(
                f"pairs={config.pairs}: {name!r}: {what} in images={shown_sources(config.images)}; expected one"
            )
        return rows[found[0]]

    truth = read_ground_truth(Path(config.pairs))
    return np.array([(number(reference), number(query)) for query, reference in sorted(truth.pairs)], np.int64)
