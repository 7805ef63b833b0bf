"""The training loop: views of each photo, a contrastive loss between photos, one run folder."""

from __future__ import annotations

import hashlib
import logging
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from isc.config.choices import Precision
from isc.config.train import Stage, TrainConfig
from isc.data.csv_files import write_csv
from isc.data.files import write_json
from isc.errors import InputError
from isc.extract.batches import Subset
from isc.extract.embedding import embed
from isc.model.checkpoint import CHECKPOINT_FILE, flat_config, write_checkpoint
from isc.model.copy_model import CopyModel
from isc.model.device import arithmetic, compiled, depthwise_in_float32, place
from isc.model.files import MODEL_FILE, describe, save_model
from isc.model.load import initial_model
from isc.model.torch_inference import torch_inference_model
from isc.photos.sources import shown_sources
from isc.runtime.cpus import worker_count
from isc.runtime.progress import progress
from isc.train.augment.augmenter import Augmenter
from isc.train.augment.fonts import fonts_used
from isc.train.background import fit_background
from isc.train.checks import check_background, check_sizes
from isc.train.dataset import Batch, Source, TrainingViews, defers, training_loader
from isc.train.distillation import load_teacher
from isc.train.distributed import (
    average_gradients,
    gather_objects,
    on_this_machine,
    rank,
    synchronised,
    wait_for_all,
    world_size,
)
from isc.train.memory_bank import Memory
from isc.train.memory_use import black_batch, full_memory, naming_memory, try_gradients
from isc.train.neighbours import nearest_rows
from isc.train.objective import Rows, total_loss
from isc.train.optimizer import Average, Span, blocks_kept, due, freeze, make_optimizer, plan, schedule, set_training
from isc.train.photo_cache import PhotoCache
from isc.train.rows import Embedding
from isc.train.run_files import BEST_FILE, LOG_COLUMNS, LOG_FILE, VALIDATION_COLUMNS, VALIDATION_FILE, log_line, printed
from isc.train.step_figures import StepFigures
from isc.train.tensorboard_log import Board
from isc.train.unreadable import UnreadablePhotos
from isc.train.validation import Validation

log = logging.getLogger(__name__)


class Trainer:
    """The state of a training run, its steps and its files."""

    def __init__(self, config: TrainConfig, run: Path, device: torch.device, source: Source) -> None:
        self.config, self.run, self.device, self.source = config, run, device, source
        self.photos_hash = source.photos.sha256()
        self.pairs_hash = None if source.pairs is None else hashlib.sha256(source.pairs.tobytes()).hexdigest()
        self.validation = Validation.of(config.validation) if config.validation and rank() == 0 else None
        self.precision = arithmetic(config.train.precision, device)
        self.teacher = load_teacher(config.loss.teacher, device=device) if config.loss.teacher else None
        model = initial_model(config.model, seed=config.seed)
        check_background(model, config, photos=len(source.photos))
        if world_size() > 1 and device.type == "cuda" and not config.train.freeze_norms:
            model.backbone = synchronised(model.backbone)
        self.model: CopyModel = place(model, device)
        for span in plan(config.train):  # raises now, not at a later stage, if there are too few blocks to freeze
            freeze(self.model, blocks=blocks_kept(span.stage, config.train), depthwise=False)
        check_sizes(self.model, config)
        self.average = Average(self.model, config.train.ema)
        self.keys = self._averaged_module() if config.train.momentum_keys else None
        self.memory = Memory(config.loss.memory, config.model.dim, labels=2).to(device)
        self.optimizer = make_optimizer(self.model, config.train)
        if device.type == "cpu" and self.precision is Precision.bfloat16:
            depthwise_in_float32(self.model.backbone)
        self.project = compiled(self.model.project) if config.train.compile else self.model.project
        self.step = 0
        self.saved: int | None = None  # step of the last checkpoint
        self.figures = StepFigures(device)
        self.seconds = 0.0  # spent on steps
        self.best = -1.0
        self.neighbours: npt.NDArray[np.int64] | None = None
        self.rows: list[list[float]] = []
        self.validations: list[list[float]] = []
        self.unreadable = UnreadablePhotos(shown_sources(config.images), source.num_photos(), config.max_unreadable)

    def _averaged_module(self) -> CopyModel:
        """Return a network in evaluation mode whose weights are the tensors of the average, so that it follows it."""
        with torch.random.fork_rng(devices=[]):
            module = CopyModel(self.config.model)
        module = place(module, self.device)
        module.load_state_dict(self.average.state, assign=True)
        return module.requires_grad_(False).eval()

    @contextmanager
    def report_last_checkpoint(self) -> Iterator[None]:
        """Append the step of the last saved checkpoint to an InputError that stops the training."""
        try:
            yield
        except InputError as error:
            if self.saved is None:
                raise
            kept = f"the checkpoint of step {self.saved} is kept, and resume=true goes on from there"
            raise InputError(f"{error}; {kept}") from error

    def run_steps(self) -> None:
        with progress("training", "steps") as report, Board.of(self.run, self.step) as board:
            for span in plan(self.config.train):
                if self.step < span.last:
                    self._run_span(span, report, board)

    def _run_span(self, span: Span, report: Any, board: Board) -> None:
        options = self.config.train
        if self.step == span.first and options.hard_negatives:
            self.neighbours = self._nearest_photos(span.stage.image_size)
        dataset = TrainingViews(
            self.source,
            Augmenter(self.config.augment, size=span.stage.image_size),
            seed=self.config.seed, strength=span.stage.strength, mix=self.config.augment.mix,
            neighbours=self.neighbours,
            hard_views=options.hard_views,
            traced=self.config.loss.copy_nce_weight > 0,
            cache=PhotoCache.of(self.run, self.config.photo_cache_gb), defers=defers(options.attacks_on, self.device),
        )  # fmt: skip
        loader = training_loader(
            dataset,
            batch_size=options.batch_size,
            steps=range(self.step, span.last),
            workers=worker_count(self.config.workers, sharing=on_this_machine()),
            rank=rank(), ranks=world_size(), device=self.device,
        )  # fmt: skip
        self._set_stage(span.stage)
        before = time.monotonic()
        for batch in loader:
            with naming_memory(f"step {self.step + 1}", pictures=len(batch.views), micro_batch=options.micro_batch):
                self.figures.put(self._one_step(batch, span.stage.lr))
            validates, saves = due(self.step, options, validates=bool(self.config.validation))
            if not (self.figures.due() or validates or saves or self.step == span.last):
                continue
            values = self._log_steps(time.monotonic() - before, board)
            report(self.step, options.steps)
            if validates:
                self._validate(board)
            if saves:
                self.save()
                log.info("step %d/%d %s", self.step, options.steps, log_line(values))
            before = time.monotonic()

    def _log_steps(self, seconds: float, board: Board) -> dict[str, float]:
        """Log the steps that were made in these seconds, and return the last one's figures. Waits for a GPU."""
        self.seconds += seconds
        rows = self.figures.read(self.config.train.batch_size / seconds)
        for step, values in enumerate(rows, self.step - len(rows) + 1):
            self.rows.append([step, *values.values()])
            board.write(values, step)
        return rows[-1]

    def _one_step(self, batch: Batch, lr_scale: float) -> dict[str, Tensor | float]:
        self.unreadable.note(batch.failures)
        options, loss_options = self.config.train, self.config.loss
        lr = options.lr * lr_scale * schedule(self.step, options)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        rows = self._embed(batch)
        memory = self.memory.contents() if self.step >= loss_options.memory_after * options.steps else None
        loss, terms = total_loss(rows, loss_options, memory=memory)
        photos = partial(self.source.names, rows.instances)
        self.figures.check("loss", terms["loss"], photos, step=self.step + 1)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        average_gradients(self.model.parameters())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), options.clip)
        self.figures.check("gradient's norm", norm, photos, step=self.step + 1)
        self.optimizer.step()
        self.average.update(self.step)
        if self.keys is None:
            self.memory.push(rows.embeddings, rows.instances)
        self.step += 1
        return terms | {"lr": lr}

    def _embed(self, batch: Batch) -> Rows:
        options = self.config.train
        networks = Embedding(
            self.model, self.project, self.keys, self.teacher, options.hard_views, options.micro_batch, self.device
        )
        return networks.rows(batch, self.memory, autocast=self._autocast)

    def try_largest_step(self) -> None:
        """Try one step of the largest stage; raise InputError if the memory of the GPU is too small for it."""
        options = self.config.train
        stage = max((span.stage for span in plan(options)), key=lambda stage: stage.image_size)
        self._set_stage(stage)

        def gradients(batch: Batch) -> None:
            loss, _ = total_loss(self._embed(batch), self.config.loss, memory=full_memory(self.memory))
            torch.autograd.backward(loss)

        batch = black_batch(
            options.batch_size // world_size(), options.hard_views, size=stage.image_size,
            traced=self.config.loss.copy_nce_weight > 0,
        )  # fmt: skip
        what = f"{self.config.model.backbone} at {stage.image_size} px"
        try_gradients(gradients, self.model, self.memory, batch=batch, what=what, micro_batch=options.micro_batch)

    def _set_stage(self, stage: Stage) -> None:
        options = self.config.train
        freeze(self.model, blocks=blocks_kept(stage, options), depthwise=options.freeze_depthwise)
        set_training(self.model, freeze_norms=options.freeze_norms)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision is Precision.bfloat16)

    def averaged(self) -> CopyModel:
        """Return a model with the averaged weights, in evaluation mode; fit its background if the photos suffice."""
        with torch.random.fork_rng(devices=[]):  # new layers draw random numbers; keep the global state unchanged
            model = CopyModel(self.config.model)
        model.load_state_dict(self.average.state)
        model = place(model, self.device).eval()
        if 0 < self.config.model.background <= len(self.source.photos):
            fit_background(
                model,
                self.source.photos,
                whiten=self.config.model.whiten,
                precision=self.precision,
                workers=self.config.workers,
            )
        return model

    def _nearest_photos(self, image_size: int) -> npt.NDArray[np.int64]:
        """Return the k = hard_negatives nearest other photos [N, k] of each photo, by the current averaged weights."""
        photos = self.source.photos
        part = range(rank(), len(photos), world_size())
        network = torch_inference_model(self.averaged(), precision=self.precision)
        mine, failures = embed(network, Subset(photos, part), image_size=image_size, workers=self.config.workers)
        self.unreadable.note((photos.where(part[row]), reason) for row, reason in failures.items())
        vectors = torch.zeros(len(photos), mine.shape[1])
        for first, found in enumerate(gather_objects(mine)):
            vectors[first :: world_size()] = torch.from_numpy(found)
        return nearest_rows(vectors.to(self.device), self.config.train.hard_negatives).cpu().numpy()

    def _validate(self, board: Board) -> None:
        """Validate the averaged weights, and save them if their μAP is the highest so far."""
        if self.validation is not None:
            model = self.averaged()
            metrics = self.validation.judge(
                model, image_size=self.config.model.image_size, workers=self.config.workers, precision=self.precision
            )
            figures = (metrics.average_precision, metrics.recall_at_p90, metrics.recall_at_rank1)
            self.validations.append([self.step, *figures])
            board.write(dict(zip(VALIDATION_COLUMNS[1:], figures, strict=True)), self.step, group="validation")
            log.info("step %d: validation μAP %.4f, recall at P90 %.4f, recall at rank 1 %.4f", self.step, *figures)
            if metrics.average_precision > self.best:
                self.best = metrics.average_precision
                save_model(self.run / BEST_FILE, model, self._provenance(model))
        wait_for_all()

    def save(self) -> None:
        """Write the configuration, the checkpoint and the logs, each file atomically."""
        for others in gather_objects(self.unreadable.reasons):
            self.unreadable.reasons |= others
        if rank() > 0:
            return
        state = {
            "step": self.step,
            "config": flat_config(self.config),
            "model": self.model.state_dict(),
            "average": self.average.copied(self.average.state),
            "memory": self.memory.state_dict(),
            "neighbours": None if self.neighbours is None else torch.from_numpy(self.neighbours),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "photos_sha256": self.photos_hash,
            "pairs_sha256": self.pairs_hash,
            "num_photos": len(self.source.photos),
            "rows": self.rows,
            "validations": self.validations,
            "best": self.best,
            "seconds": self.seconds,
            "failures": self.unreadable.reasons,
        }
        write_json(self.run / "config.json", flat_config(self.config))
        write_checkpoint(self.run / CHECKPOINT_FILE, state)
        self.saved = self.step
        write_csv(self.run / LOG_FILE, LOG_COLUMNS, printed(self.rows))
        if self.validations:
            write_csv(self.run / VALIDATION_FILE, VALIDATION_COLUMNS, printed(self.validations))

    def load(self, state: dict[str, Any]) -> None:
        if state["photos_sha256"] != self.photos_hash:
            raise InputError(
                f"images={shown_sources(self.config.images)}: {len(self.source.photos)} photos, not the "
                f"{state['num_photos']} that the run began with; expected the same"
            )
        if state["pairs_sha256"] != self.pairs_hash:
            raise InputError(f"pairs={self.config.pairs}: not the pairs that the run began with; expected the same")
        if state["step"] > self.config.train.steps:
            raise InputError(f"train.steps={self.config.train.steps}: {state['step']} steps are made already")
        self.step = self.saved = state["step"]
        self.rows, self.unreadable.reasons = state["rows"], state["failures"]
        self.validations, self.best, self.seconds = state["validations"], state["best"], state["seconds"]
        self.model.load_state_dict(state["model"])
        self.average.load(state["average"])
        self.memory.load_state_dict(state["memory"])
        self.neighbours = None if state["neighbours"] is None else state["neighbours"].numpy()
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        log.info("going on from step %d of %d", self.step, self.config.train.steps)

    def _provenance(self, model: CopyModel) -> dict[str, str]:
        return describe(model) | {
            "seed": str(self.config.seed),
            "steps": str(self.step),
            "hours": f"{self.seconds / 3600:.2f}",
            "photos": str(len(self.source.photos)),
            "torch": torch.__version__,
            "machine": f"{platform.machine()} {self.device.type} × {world_size()}",
            "fonts": fonts_used(),
        }

    def finish(self) -> Path:
        """Write the model, its provenance and the unreadable photos; return the path of the model."""
        path = self.run / MODEL_FILE
        if rank() > 0:
            return path
        model = self.averaged()
        provenance = self._provenance(model)
        self.unreadable.write(self.run / "failures.csv")
        save_model(path, model, provenance)
        write_json(self.run / "provenance.json", provenance)
        log.info("wrote %s", path)
        return path
