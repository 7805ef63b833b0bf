"""The objective of a training step: the weighted sum of the configured losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isc.config.choices import Contrast
from isc.config.train import LossConfig
from isc.train.distillation import relational_distillation
from isc.train.losses import contrastive, copy_nce, info_nce, koleo

TEACHER_TEMPERATURE = 0.05  # τ_t of the distillation; τ_s is loss.temperature


@dataclass(frozen=True)
class Rows:
    """The input of the losses, for N views.

    `embeddings` [N, D]; `instances` [N, L], the photo numbers that each view shows; `taught` [N, D'], the teacher's
    descriptors of the same views; `cells`, of the M hard views: their feature maps [M, D, G, G], those of their mild
    views, and the positions [M, P, P, 2] of their points in the mild views.
    """

    embeddings: Tensor
    instances: Tensor
    taught: Tensor | None = None
    cells: tuple[Tensor, Tensor, Tensor] | None = None


def total_loss(
    rows: Rows, options: LossConfig, *, memory: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return contrast + koleo_weight · KoLeo + copy_nce_weight · CopyNCE + teacher_weight · distillation.

    The second value holds all terms for the log, as tensors [] on the device without a gradient. `memory` holds
    (embeddings, instances) of earlier steps, or of the averaged weights.
    """
    embeddings, instances = rows.embeddings, rows.instances
    if options.contrast is Contrast.info_nce:
        contrast = info_nce(embeddings, instances, temperature=options.temperature, memory=memory)
    else:
        contrast = contrastive(
            embeddings, instances, positive_margin=options.positive_margin, negative_margin=options.negative_margin,
            memory=memory,
        )  # fmt: skip
    spread = koleo(embeddings, instances, memory=memory if options.koleo_memory else None)
    loss = contrast + options.koleo_weight * spread
    distilled, local = torch.zeros_like(loss), torch.zeros_like(loss)
    if rows.cells is not None:
        local = copy_nce(*rows.cells)
        loss = loss + options.copy_nce_weight * local
    if rows.taught is not None:
        distilled = relational_distillation(
            embeddings, rows.taught,
            temperature_student=options.temperature, temperature_teacher=TEACHER_TEMPERATURE,
        )  # fmt: skip
        loss = loss + options.teacher_weight * distilled
    values = {
        "loss": loss,
        "contrast": contrast,
        "koleo": spread,
        "copy_nce": local,
        "teacher": distilled,
        "nearest_negative": torch.exp(-spread),
    }
    return loss, {name: value.detach() for name, value in values.items()}
