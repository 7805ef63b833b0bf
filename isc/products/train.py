"""train.py task=products: photos of items and a shop's pictures → a run folder with a model and a fusion."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from isc.config.products import ProductLoss, ProductsConfig
from isc.config.train import OptimConfig
from isc.data.files import write_json
from isc.errors import InputError
from isc.model.checkpoint import CHECKPOINT_FILE, checkpoint_to_resume, flat_config, write_checkpoint
from isc.model.device import place
from isc.model.files import MODEL_FILE, describe, save_model
from isc.model.load import initial_model
from isc.model.load_inference import load_inference_model
from isc.photos.decode import Pixels
from isc.products.fusion import FILE, fit_fusion, save_fusion
from isc.products.objective import ShopMemory, centre_loss, shop_loss
from isc.products.regions import best_of_pictures, describe_regions, describe_whole
from isc.products.simulated import simulated_clips
from isc.products.training_data import ProductData, balanced, product_data
from isc.products.views import photo_view, shop_view
from isc.runtime.allocator import keep_freed_memory
from isc.train.optimizer import Average, freeze, make_optimizer, schedule, set_training
from isc.words.ranking import ranking_figures, ranks_of_right
from isc.words.sentences import require_sentences

log = logging.getLogger(__name__)
METRICS = "metrics.json"
CLIPS = 2000  # simulated clips that the fusion is fitted on
EVERY = 10  # steps between two lines of the log


def train_products(config: ProductsConfig) -> Path:
    """Train the model, or go on, in the run folder `config.output`; return the path of the finished model.

    The folder receives model.safetensors, which every command takes as a model, products.fusion.json, metrics.json
    with the figures of the split val, and checkpoint.pt. Raises InputError as `product_data` does, and
    if sentences=true needs a package that is not installed.
    """
    begun, run = time.monotonic(), Path(config.output)
    if config.sentences:
        require_sentences("sentences=true")
    state = checkpoint_to_resume(run, config)
    data = product_data(config)
    keep_freed_memory()
    run.mkdir(parents=True, exist_ok=True)
    trainer = ProductTrainer(config, data)
    if state is not None:
        trainer.load(state)
    log.info(
        "training %s on %d photos of %d items, from step %d", config.model.backbone, len(data.train),
        len(set(data.train.items)), trainer.step,
    )  # fmt: skip
    trainer.run_steps(run / CHECKPOINT_FILE)
    if len(data.held):
        log.info("fitting the fusion on %d photos that the network has not seen", len(data.held))
    else:
        log.warning(
            "no item has photos to spare (held=%g of each), so that %s is not written, which isc products find needs: "
            "expected more photos of an item, or a larger held=", config.held, FILE,
        )  # fmt: skip
    path = run / MODEL_FILE
    trainer.model.load_state_dict(trainer.average.state)
    save_model(path, trainer.model.eval(), describe(trainer.model))
    figures = _finished(run, path, data, seed=config.seed, sentences=config.sentences)
    seconds = round(trainer.seconds + time.monotonic() - begun, 1)
    write_json(run / METRICS, {"val": figures, "steps": trainer.step, "photos": len(data.train), "seconds": seconds})
    log.info("%s: %s", run / METRICS, figures)
    return path


class ProductTrainer:
    """The state of a training: network, learned centres, remembered shop pictures, optimiser and average.

    A step's photos and views follow from the seed and the step's number alone, so that a resumed run takes the steps
    that one without a pause would have taken.
    """

    def __init__(self, config: ProductsConfig, data: ProductData) -> None:
        self.config, self.data = config, data
        self.options = OptimConfig(
            steps=config.train.steps, lr=config.train.lr, backbone_lr=config.train.backbone_lr, warmup=0.03,
            weight_decay=config.train.weight_decay, freeze_blocks=config.train.freeze_blocks,
        )  # fmt: skip
        self.model = place(initial_model(config.model, seed=config.seed), torch.device("cpu"))
        freeze(self.model, blocks=config.train.freeze_blocks, depthwise=False)
        generator = torch.Generator().manual_seed(config.seed)
        self.centres = nn.Parameter(torch.randn(len(data.catalogue), config.model.dim, generator=generator))
        self.memory = ShopMemory(len(data.shop), config.model.dim)
        self.optimizer = make_optimizer(self.model, self.options)
        self.optimizer.add_param_group({"params": [self.centres], "weight_decay": 0.0, "scale": 5.0})
        self.average = Average(self.model, config.train.ema)
        self.step, self.seconds = 0, 0.0

    def run_steps(self, path: Path) -> None:
        """Take the steps that are left; write checkpoints to `path`."""
        losses: list[float] = []
        begun, first = time.monotonic(), self.step
        while self.step < self.config.train.steps:
            losses.append(self._take_step())
            done = self.step == self.config.train.steps
            if self.step % EVERY == 0 or done:
                passed = time.monotonic() - begun
                left = passed / (self.step - first) * (self.config.train.steps - self.step)
                mean = np.mean(losses[-EVERY:])
                log.info("step %d of %d: loss %.3f, %.0f s left", self.step, self.config.train.steps, mean, left)
            if self.step % self.config.train.checkpoint_every == 0 or done:
                write_checkpoint(path, self._state(self.seconds + time.monotonic() - begun))

    def _take_step(self) -> float:
        photos, items, shop = self._batch()
        set_training(self.model, freeze_norms=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr * group["scale"] * schedule(self.step, self.options)
        pictures = torch.from_numpy(photos).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        loss = self._loss(self.model.finish(self.model.project(pictures)), items, shop)
        if not torch.isfinite(loss):
            raise InputError(f"step {self.step}: the loss is {float(loss)}; expected a lower train.lr")
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.step += 1
        self.average.update(self.step)
        return float(loss.detach())

    def _batch(self) -> tuple[npt.NDArray[np.float32], Tensor, Tensor]:
        """Return the views [B + S, H, W, 3] of photos and shop pictures, their items, and the S places in the shop."""
        train, shop, size = self.data.train, self.data.shop, self.config.train.image_size
        rng = np.random.default_rng([self.config.seed, self.step])
        rows = balanced(train.items, self.config.train.photos, rng)
        places = rng.permutation(len(shop))[: self.config.train.shop_pictures]
        grounds: list[Pixels] = [train.pixels[at] for at in rows]
        views = [photo_view(one, size, rng) for one in grounds]
        views += [shop_view(shop.pixels[at], grounds, size, rng) for at in places]
        items = [train.items[at] for at in rows] + [shop.items[at] for at in places]
        return np.stack(views).astype(np.float32), torch.tensor(items), torch.from_numpy(places)

    def _loss(self, embeddings: Tensor, items: Tensor, shop: Tensor) -> Tensor:
        options = self.config.train
        count = options.photos
        known = self.memory.with_batch(shop, embeddings[count:])
        angular = options.loss is ProductLoss.arcface
        loss = centre_loss(
            embeddings, items, self.centres, temperature=options.temperature, margin=options.margin if angular else 0.0
        )
        if angular:
            return loss
        return loss + shop_loss(
            embeddings[:count], items[:count], known, torch.tensor(self.data.shop.items),
            temperature=options.temperature,
        )  # fmt: skip

    def _state(self, seconds: float) -> dict[str, Any]:
        return {
            "config": flat_config(self.config), "step": self.step, "seconds": seconds,
            "model": self.model.state_dict(), "average": self.average.copied(self.average.state),
            "centres": self.centres.detach(), "memory": self.memory.rows, "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Take over the state of a checkpoint. Raises InputError for that of another catalogue."""
        if state["memory"].shape != self.memory.rows.shape or state["centres"].shape != self.centres.shape:
            raise InputError(
                f"catalogue={self.config.catalogue}: {len(self.memory.rows)} pictures of {len(self.centres)} items; "
                f"the run began with {len(state['memory'])} of {len(state['centres'])}; expected the same"
            )
        self.model.load_state_dict(state["model"])
        self.average.load(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.memory.rows = state["memory"]
        with torch.no_grad():
            self.centres.copy_(state["centres"])
        self.step, self.seconds = state["step"], state["seconds"]


def _finished(run: Path, path: Path, data: ProductData, *, seed: int, sentences: bool) -> dict[str, Any] | None:
    """Fit the fusion on the held photos, and return the figures of the split val, None without one."""
    network = load_inference_model(str(path))
    shop = describe_whole(network, data.shop.pixels)
    owners = np.array(data.shop.items)
    if len(data.held):
        cosines = best_of_pictures(describe_regions(network, data.held.pixels) @ shop.T, owners)
        clips = simulated_clips(
            cosines, data.held.items, data.catalogue.items, count=CLIPS, seed=seed, sentences=sentences
        )
        save_fusion(run / FILE, fit_fusion(clips))
    if not len(data.val):
        return None
    cosines = best_of_pictures(describe_whole(network, data.val.pixels) @ shop.T, owners)
    right = np.array(data.val.items)[:, None] == np.arange(len(data.catalogue))
    return ranking_figures(ranks_of_right(cosines, right)).as_dict()
