"""Checks of the training configuration against photos, processes and network, before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from isc.config.train import TrainConfig
from isc.errors import InputError
from isc.model.copy_model import CopyModel
from isc.photos.sources import shown_sources
from isc.train.dataset import Source
from isc.train.distributed import world_size
from isc.train.optimizer import plan


def check_counts(config: TrainConfig, source: Source, device: torch.device) -> None:
    """Raise InputError if the counts of photos, hard negatives and processes do not fit the batch size.

    Raises InputError also if batch norms would have to be synchronised on CPUs.
    """
    batch, ranks = config.train.batch_size, world_size()
    if len(source) < batch:
        what = f"images={shown_sources(config.images)}: {len(source)} photos"
        if config.pairs is not None:
            what = f"pairs={config.pairs}: {len(source)} pairs"
        raise InputError(
            f"{what} for batches of {batch}; expected at least a batch: add some or lower train.batch_size"
        )
    if config.train.hard_negatives >= len(source):
        raise InputError(
            f"train.hard_negatives={config.train.hard_negatives}: there are {len(source)} photos; expected fewer"
        )
    if batch % ranks:
        raise InputError(f"train.batch_size={batch}: does not divide among {ranks} processes; expected a multiple")
    if ranks > 1 and device.type == "cpu" and not config.train.freeze_norms:
        raise InputError("train.freeze_norms=false: batch norms are kept in step on GPUs alone; use true on CPUs")


def check_background(model: CopyModel, config: TrainConfig, *, photos: int) -> None:
    """Raise InputError if the background needs more photos than there are and the model holds no background yet."""
    if config.model.background > photos and not bool(model.background.any()):
        raise InputError(
            f"model.background={config.model.background}: there are {photos} photos; expected at most "
            "these, or model.weights= with a background of this size"
        )


def check_sizes(model: CopyModel, config: TrainConfig) -> None:
    """Raise InputError if the backbone cannot take a planned image size, or if CopyNCE finds no square feature map."""
    device = model.mean.device
    for size in {config.model.image_size, *(span.stage.image_size for span in plan(config.train))}:
        try:
            with torch.inference_mode():
                _, cells = model.eval().project_cells(torch.zeros(1, 3, size, size, device=device))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"model.backbone={config.model.backbone}: cannot take {size} × {size} pixels ({error}); expected other "
                "sizes in model.image_size, train.image_size or train.stages"
            ) from error
        if config.loss.copy_nce_weight and cells.shape[2] != cells.shape[3]:
            raise InputError(
                f"loss.copy_nce_weight={config.loss.copy_nce_weight:g}: {config.model.backbone} has no map of cells; "
                "expected 0, or a convolutional backbone"
            )


def check_finite(what: str, value: float, photos: Callable[[], str], *, step: int) -> None:
    """Raise InputError if the loss or the gradient norm of a step is not finite, before it spoils the weights."""
    if not math.isfinite(value):
        raise InputError(f"step {step}: the {what} is {value}; lower train.lr. Photos of the batch: {photos()}")
