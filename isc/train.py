"""Photos → a trained model: two views of each photo, InfoNCE + KoLeo, one run folder."""

from __future__ import annotations

import dataclasses
import logging
import math
import platform
import time
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isc.augment import Augmenter
from isc.config import LossConfig, OptimConfig, Precision, TrainConfig
from isc.data import Batch, TrainingViews, training_loader
from isc.device import choose_device, keep_freed_memory, place
from isc.errors import InputError
from isc.images import list_hash, list_images
from isc.io import atomic_path, write_csv, write_json
from isc.loss import info_nce, koleo
from isc.model import MODEL_FILE, CopyModel, describe, initial_model, save_model
from isc.progress import progress

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.pt"
LOG_FILE = "log.csv"
LOG_COLUMNS = ("step", "loss", "info_nce", "koleo", "nearest_negative", "lr", "photos_per_second")
MAY_CHANGE = (
    "images",
    "output",
    "resume",
    "device",
    "workers",
    "max_unreadable",
    "train.steps",
    "train.lr",
    "train.checkpoint_every",
)


def train(config: TrainConfig) -> Path:
    """Train, or go on training, in the run folder `config.output`; the path of the finished model.

    The folder receives model.safetensors, checkpoint.pt (from which resume=true goes on), config.json, log.csv,
    provenance.json and, if photos could not be read, failures.csv.
    """
    run = Path(config.output)
    checkpoint = _checkpoint_to_resume(run, config)
    photos = list_images(Path(config.images))
    if len(photos) < config.train.batch_size:
        raise InputError(
            f"images={config.images}: {len(photos)} photos for batches of {config.train.batch_size}; "
            "expected at least a batch: add photos or lower train.batch_size"
        )
    device = choose_device(config.device.value)
    keep_freed_memory()
    torch.manual_seed(config.seed)
    trainer = Trainer(config, run, device, photos)
    if checkpoint:
        trainer.load(checkpoint)
    log.info("training %s on %d photos, %s", config.model.backbone, len(photos), device)
    trainer.run_steps()
    return trainer.finish()


class Trainer:
    """What one run holds between steps; all of it goes into the checkpoint."""

    def __init__(self, config: TrainConfig, run: Path, device: torch.device, photos: Mapping[str, Path]) -> None:
        self.config, self.run, self.device, self.paths = config, run, device, list(photos.values())
        self.photos_hash = list_hash(photos)
        self.model = place(initial_model(config.model, seed=config.seed), device)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, config.train), lr=config.train.lr)
        self.step = 0
        self.rows: list[list[float]] = []
        self.failures: dict[str, str] = {}

    def run_steps(self) -> None:
        options = self.config.train
        augmenter = Augmenter(self.config.augment, size=options.image_size)
        dataset = TrainingViews(self.paths, augmenter, seed=self.config.seed)
        loader = training_loader(
            dataset,
            batch_size=options.batch_size,
            first_step=self.step,
            last_step=options.steps,
            workers=self.config.workers,
        )
        set_training(self.model, freeze_norms=options.freeze_norms)
        with progress("training", "steps") as report:
            started, first = time.monotonic(), self.step
            for batch in loader:
                values = self._one_step(batch)
                rate = (self.step - first) * options.batch_size / (time.monotonic() - started)
                self.rows.append([self.step, *values.values(), rate])
                report(self.step, options.steps)
                if self.step % options.checkpoint_every == 0 or self.step == options.steps:
                    self.save()
                    log.info("step %d/%d %s %.0f photos/s", self.step, options.steps, _line(values), rate)

    def _one_step(self, batch: Batch) -> dict[str, float]:
        self._note_failures(batch)
        options = self.config.train
        lr = options.lr * schedule(self.step, options)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        views = batch.views.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=options.precision is Precision.bfloat16):
            embeddings = self.model(views)
        loss, terms = total_loss(embeddings, batch.instances.to(self.device), self.config.loss)
        if not math.isfinite(terms["loss"]):
            raise InputError(
                f"step {self.step}: the loss is {terms['loss']}; the last good checkpoint is kept: lower train.lr "
                f"and go on with resume=true. Photos of the batch: {self._names(batch.instances)}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), options.clip)
        self.optimizer.step()
        self.step += 1
        return terms | {"lr": lr}

    def _names(self, instances: Tensor) -> str:
        return ", ".join(self.paths[i].name for i in instances[: len(instances) // 2].tolist())

    def _note_failures(self, batch: Batch) -> None:
        for path, reason in batch.failures:
            if path not in self.failures:
                self.failures[path] = reason
                log.warning("skipped: %s", reason)
        bad, all_photos = len(self.failures), len(self.paths)
        if bad == all_photos:
            what = f"none of the {all_photos} photos can be read"
        elif bad > self.config.max_unreadable * all_photos:
            what = (
                f"{bad} of {all_photos} photos cannot be read, more than max_unreadable={self.config.max_unreadable:g}"
            )
        else:
            return
        raise InputError(f"images={self.config.images}: {what}; the last: {list(self.failures.values())[-1]}")

    def save(self) -> None:
        """Write checkpoint, model and log, each whole or not at all."""
        state = {
            "step": self.step,
            "config": flat_config(self.config),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "photos_sha256": self.photos_hash,
            "num_photos": len(self.paths),
            "rows": self.rows,
            "failures": self.failures,
        }
        write_json(self.run / "config.json", flat_config(self.config))
        with atomic_path(self.run / CHECKPOINT_FILE) as beside:
            torch.save(state, beside)
        write_csv(self.run / LOG_FILE, LOG_COLUMNS, ([f"{value:.6g}" for value in row] for row in self.rows))

    def load(self, state: dict[str, Any]) -> None:
        if state["photos_sha256"] != self.photos_hash:
            raise InputError(
                f"images={self.config.images}: {len(self.paths)} photos, not the {state['num_photos']} that the run "
                "began with; expected the same"
            )
        if state["step"] > self.config.train.steps:
            raise InputError(f"train.steps={self.config.train.steps}: {state['step']} steps are made already")
        self.step, self.rows, self.failures = state["step"], state["rows"], state["failures"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        log.info("going on from step %d of %d", self.step, self.config.train.steps)

    def finish(self) -> Path:
        """Write the model and where it came from; the path of the model."""
        provenance = describe(self.model) | {
            "seed": str(self.config.seed),
            "steps": str(self.step),
            "photos": str(len(self.paths)),
            "torch": torch.__version__,
            "machine": f"{platform.machine()} {self.device}",
        }
        if self.failures:
            write_csv(self.run / "failures.csv", ("file", "reason"), iter(self.failures.items()))
            log.warning("%d photos could not be read; see %s", len(self.failures), self.run / "failures.csv")
        path = self.run / MODEL_FILE
        save_model(path, self.model, provenance)
        write_json(self.run / "provenance.json", provenance)
        log.info("wrote %s", path)
        return path


def set_training(model: CopyModel, *, freeze_norms: bool) -> None:
    """Training mode, except that the backbone's batch norms keep their statistics where asked."""
    model.train()
    if freeze_norms:
        for module in model.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def total_loss(embeddings: Tensor, instances: Tensor, config: LossConfig) -> tuple[Tensor, dict[str, float]]:
    """InfoNCE + koleo_weight · KoLeo of [N, D] embeddings, and the terms for the log."""
    contrast = info_nce(embeddings, instances, temperature=config.temperature)
    spread = koleo(embeddings, instances)
    loss = contrast + config.koleo_weight * spread
    values = {"loss": loss, "info_nce": contrast, "koleo": spread, "nearest_negative": torch.exp(-spread)}
    return loss, {name: float(value.detach()) for name, value in values.items()}


def schedule(step: int, options: OptimConfig) -> float:
    """Share of the full rate at this step: a linear rise over the warm-up, then half a cosine down to 0."""
    warmup = round(options.warmup * options.steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, options.steps - warmup)))


def parameter_groups(model: CopyModel, options: OptimConfig) -> list[dict[str, Any]]:
    """Backbone and head with their rates; weight decay on matrices and kernels, not on biases and norms."""
    groups: list[dict[str, Any]] = []
    for scale, part in ((options.backbone_lr, [model.backbone]), (1.0, [model.linear, model.norm])):
        parameters = [p for module in part for p in module.parameters()]
        for decay, chosen in (
            (options.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    return groups


def flat_config(config: object) -> dict[str, Any]:
    """The configuration as {dotted key: plain value}."""

    def walk(prefix: str, values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in values.items():
            if isinstance(value, dict):
                yield from walk(f"{prefix}{name}.", value)
            else:
                yield prefix + name, value.value if isinstance(value, Enum) else value

    return dict(walk("", dataclasses.asdict(config)))  # type: ignore[call-overload]


def _checkpoint_to_resume(run: Path, config: TrainConfig) -> dict[str, Any] | None:
    """The checkpoint to go on from, None for a new run; InputError where the folder does not fit the request."""
    path = run / CHECKPOINT_FILE
    if run.exists() and not run.is_dir():
        raise InputError(f"output={run}: is a file; expected a folder")
    if not path.exists():
        if (run / MODEL_FILE).exists():
            raise InputError(f"output={run}: holds a model without its checkpoint; give another folder")
        return None
    if not config.resume:
        raise InputError(f"output={run}: holds a run already; go on with resume=true, or give another folder")
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds for a damaged file
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); remove it to start again") from error
    now = flat_config(config)
    for name, value in state["config"].items():
        if name not in MAY_CHANGE and now.get(name) != value:
            raise InputError(
                f"output={run}: was made with {name}={value}, now {name}={now.get(name)}; expected the same"
            )
    return state


def _line(values: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())
