"""The optimisation: stages, learning rates, parameter groups, optimisers and averaged weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from timm.optim.lars import Lars
from torch import Tensor, nn

from isc.config.choices import Optimizer
from isc.config.train import OptimConfig, Stage
from isc.model.copy_model import CopyModel


@dataclass(frozen=True)
class Span:
    """The steps first … last − 1, and their stage."""

    first: int
    last: int
    stage: Stage


def plan(options: OptimConfig) -> list[Span]:
    """Divide the steps among the stages in proportion to their shares; stages without a step are left out."""
    stages = options.stages or [Stage(image_size=options.image_size)]
    total, done, spans, first = sum(stage.share for stage in stages), 0.0, [], 0
    for stage in stages:
        done += stage.share
        last = round(options.steps * done / total)
        if last > first:
            spans.append(Span(first, last, stage))
        first = last
    return spans


def due(step: int, options: OptimConfig, *, validates: bool) -> tuple[bool, bool]:
    """Return whether to validate, if the run does, and to save after this step: where configured, and at the end."""
    last = step == options.steps
    return validates and (step % options.validate_every == 0 or last), step % options.checkpoint_every == 0 or last


def schedule(step: int, options: OptimConfig) -> float:
    """Return the share 0…1 of the full learning rate: a linear warm-up, then half a cosine down to 0."""
    warmup = round(options.warmup * options.steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, options.steps - warmup)))


def blocks_kept(stage: Stage, options: OptimConfig) -> int:
    """Return the number of first backbone blocks that stay frozen in this stage."""
    return options.freeze_blocks if stage.freeze_blocks is None else stage.freeze_blocks


def freeze(model: CopyModel, *, blocks: int, depthwise: bool) -> None:
    """Freeze the stem and the first `blocks` of the backbone (0: neither), and unfreeze all other parameters.

    With `depthwise`, also freeze depthwise kernels of at least 5 × 5.
    """
    model.requires_grad_(True)
    for parameter in model.first_blocks(blocks) if blocks else []:
        parameter.requires_grad_(False)
    for module in model.backbone.modules():
        if depthwise and isinstance(module, nn.Conv2d) and module.groups > 1 and min(module.kernel_size) >= 5:
            module.weight.requires_grad_(False)


def set_training(model: CopyModel, *, freeze_norms: bool) -> None:
    """Set training mode; batch norms of the backbone keep their statistics if `freeze_norms` or if they are frozen."""
    model.train()
    for module in model.backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(not freeze_norms and (module.weight is None or module.weight.requires_grad))


def parameter_groups(model: CopyModel, options: OptimConfig) -> list[dict[str, Any]]:
    """Return the parameter groups of backbone and head, each with its share of the learning rate.

    Weight decay and the layer-wise rate of LARS (`always_adapt`) apply to matrices and kernels, not to biases and
    norms.
    """
    groups: list[dict[str, Any]] = []
    backbone = list(model.backbone.parameters())
    inside = {id(p) for p in backbone}
    head = [p for p in model.parameters() if id(p) not in inside]
    for scale, parameters in ((options.backbone_lr, backbone), (1.0, head)):
        matrices, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
        groups.append({"params": matrices, "weight_decay": options.weight_decay, "scale": scale, "always_adapt": True})
        groups.append({"params": others, "weight_decay": 0.0, "scale": scale, "always_adapt": False})
    return groups


def make_optimizer(model: CopyModel, options: OptimConfig) -> torch.optim.Optimizer:
    """Return the optimiser; on a GPU AdamW and SGD update all parameters with one kernel each."""
    groups = parameter_groups(model, options)
    fused = True if next(model.parameters()).device.type == "cuda" else None
    if options.optimizer is Optimizer.adamw:
        return torch.optim.AdamW(groups, lr=options.lr, fused=fused)
    if options.optimizer is Optimizer.sgd:
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, fused=fused)
    return Lars(groups, lr=options.lr, momentum=options.momentum)


class Average:
    """The exponential moving average of a model's whole state; with decay 0 it is the model's own state.

    The decay rises with step t as min(decay, (1 + t) / (10 + t)), so that the initial weights fade quickly. The model
    must keep its tensors: what changes them changes them in place.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._model: dict[str, Tensor] = {name: value.detach() for name, value in model.state_dict().items()}
        self.state = self.copied(self._model) if decay else self._model
        self._floats, self._counters = (self._paired(floats=floats) for floats in (True, False))

    @staticmethod
    def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return copies of tensors by name."""
        return {name: value.clone() for name, value in state.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from the state of a checkpoint; with decay 0 that is the model's, which is loaded by itself."""
        if self.decay:
            for name, value in self.state.items():
                value.copy_(state[name])

    def _paired(self, *, floats: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Return the tensors of the average and those of the model, of floats or of whole numbers."""
        names = [name for name, value in self._model.items() if value.is_floating_point() is floats]
        return [self.state[name] for name in names], [self._model[name] for name in names]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the model after step `step`: two kernels, and none with decay 0."""
        if not self.decay:
            return
        keep = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self._floats, 1 - keep)
        if self._counters[0]:
            torch._foreach_copy_(*self._counters)
