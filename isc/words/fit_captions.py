"""The training of a caption network on cached grids: epochs, learning rate, losses."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from isc.errors import InputError
from isc.words.caption_batches import Batch, Numbered, batches
from isc.words.caption_losses import captioning_loss, masked_loss, matching_loss
from isc.words.networks import CaptionNetwork, GridTransformer, State
from isc.words.vocabulary import Vocabulary

log = logging.getLogger(__name__)
WARMUP = 0.05  # share of the steps with a rising learning rate
CLIP = 5.0  # largest norm of the gradient
EVERY = 50  # steps between two lines of the log

Grids = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Schedule:
    """Epochs with and before the captioning loss, captions of a batch, learning rate, smoothing and weight decay.

    `pretrain` epochs of masked language modelling and matching come first, for the transformer alone; afterwards
    matching stays with the weight `matching`.
    """

    epochs: int = 10
    pretrain: int = 0
    captions: int = 160
    lr: float = 1e-3
    smoothing: float = 0.1
    weight_decay: float = 0.01
    matching: float = 0.2

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.pretrain < 0 or self.captions < 2 or not self.lr > 0:
            raise InputError(f"{self}; expected at least 1 epoch of 2 captions a batch, and a rate above 0")


def fit(
    network: CaptionNetwork, grids: Grids, languages: Sequence[Numbered], vocabulary: Vocabulary, *, schedule: Schedule,
    seed: int = 0, state: Mapping[str, Any] | None = None, keep: Callable[[dict[str, Any]], None] | None = None,
) -> float:  # fmt: skip
    """Train the network on the captions; return the mean loss of the last epoch.

    Batches, dropout and hidden words follow from the seed and the number of the epoch alone. So a training that goes on
    from the `state` of an epoch, which `keep` was given after it, takes the steps of one without a pause. Raises
    InputError if the loss is not finite.
    """
    decayed = [one for one in network.parameters() if one.ndim > 1]
    others = [one for one in network.parameters() if one.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.98))
    epoch_steps = sum(math.ceil(len(one.pictures) / max(1, schedule.captions // one.each)) for one in languages)
    steps, first = epoch_steps * (schedule.epochs + schedule.pretrain), epoch_steps * schedule.pretrain
    done, mean = 0, 0.0
    if state is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done, mean = state["epoch"], state["loss"]
    step, begun = done * epoch_steps, time.monotonic()
    for epoch in range(done, schedule.pretrain + schedule.epochs):
        rng = np.random.default_rng([seed, epoch])
        torch.manual_seed(int(rng.integers(1 << 62)))
        network.train()
        captioning = epoch >= schedule.pretrain
        losses = []
        for batch in batches(languages, vocabulary, captions=schedule.captions, rng=rng):
            for group in optimizer.param_groups:
                share = rate(step - first, steps - first) if captioning else rate(step, first)
                group["lr"] = schedule.lr * share
            loss = _loss(network, grids, batch, vocabulary, schedule, captioning=captioning)
            if not torch.isfinite(loss):
                raise InputError(f"step {step}: the loss is {float(loss)}; expected a lower train.lr")
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            losses.append(float(loss.detach()))
            step += 1
            if step % EVERY == 0 or step == steps:
                left = (time.monotonic() - begun) / (step - done * epoch_steps) * (steps - step)
                log.info("step %d of %d: loss %.3f, %d s left", step, steps, np.mean(losses[-EVERY:]), left)
        mean = float(np.mean(losses))
        if keep:
            parts = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            keep({"epoch": epoch + 1, "loss": mean, **parts})
    network.eval()
    return mean


def rate(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step: a linear rise, then a cosine to 0."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@torch.inference_mode()
def held_out_loss(
    network: CaptionNetwork, grids: Grids, languages: Sequence[Numbered], vocabulary: Vocabulary, *, captions: int = 160
) -> dict[str, float]:
    """Return the mean cross-entropy of a word in each language, of captions that were not trained on."""
    network.eval()
    found: dict[str, list[float]] = {}
    for batch in batches(languages, vocabulary, captions=captions, rng=np.random.default_rng(0)):
        memory = network.encode(grid_tensor(grids, batch.pictures))
        loss = captioning_loss(network, memory, batch, vocabulary, smoothing=0.0)
        found.setdefault(batch.language, []).append(float(loss))
    return {language: float(np.mean(values)) for language, values in found.items()}


def grid_tensor(grids: Grids, pictures: Tensor) -> Tensor:
    """Return the grids of these pictures as float32 [B, C, F]."""
    return torch.from_numpy(grids[pictures.numpy()].astype(np.float32))


def _loss(
    network: CaptionNetwork, grids: Grids, batch: Batch, vocabulary: Vocabulary, schedule: Schedule, *, captioning: bool
) -> Tensor:
    memory: State = network.encode(grid_tensor(grids, batch.pictures))
    if not isinstance(network, GridTransformer):
        return captioning_loss(network, memory, batch, vocabulary, smoothing=schedule.smoothing)
    if not captioning:
        return masked_loss(network, memory, batch, vocabulary) + matching_loss(network, memory, batch)
    loss = captioning_loss(network, memory, batch, vocabulary, smoothing=schedule.smoothing)
    return loss + schedule.matching * matching_loss(network, memory, batch) if schedule.matching else loss
