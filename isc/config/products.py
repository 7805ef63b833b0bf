"""The configuration of train.py task=products: defaults, units and checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from isc.config.checks import REQUIRED, check, check_at_least, check_share, check_texts, key, part
from isc.config.train import ModelConfig


class ProductsTask(Enum):
    """The kind of model: one that tells products apart."""

    products = "products"


class ProductLoss(Enum):
    """The loss: photos against the shop pictures of all items, or against learned centres with a margin."""

    info_nce = "info_nce"
    arcface = "arcface"


@dataclass
class ProductFitConfig:
    """The training of the network on photos of items and the shop's own pictures."""

    steps: int = key(600, "optimiser steps")
    photos: int = key(48, "photos of a batch, of as many items as there are")
    shop_pictures: int = key(16, "shop pictures of a batch; those of other items are remembered from earlier steps")
    image_size: int = key(160, "side in pixels while training; model.image_size when it is used")
    lr: float = key(1e-3, "learning rate of the head, after a short warm-up; then a cosine to 0")
    backbone_lr: float = key(0.3, "learning rate of the backbone, × train.lr")
    weight_decay: float = key(0.05, "decay of the weights, per unit of learning rate")
    freeze_blocks: int = key(3, "keep the stem and the first blocks of the backbone fixed: faster, less forgetting")
    ema: float = key(0.99, "decay per step of the averaged weights, which become the model")
    loss: ProductLoss = key(ProductLoss.info_nce, "photos against shop pictures, or against learned centres")
    temperature: float = key(0.07, "temperature of the loss")
    margin: float = key(0.3, "margin of arcface, in radians")
    checkpoint_every: int = key(50, "steps between two checkpoints")

    def __post_init__(self) -> None:
        check_at_least(1, train__steps=self.steps, train__checkpoint_every=self.checkpoint_every)
        check_at_least(2, train__photos=self.photos, train__shop_pictures=self.shop_pictures)
        check_at_least(32, train__image_size=self.image_size)
        check_at_least(0, train__backbone_lr=self.backbone_lr, train__weight_decay=self.weight_decay)
        check_at_least(0, train__freeze_blocks=self.freeze_blocks)
        for name in ("lr", "temperature"):
            value = getattr(self, name)
            check(0 < value < math.inf, f"train.{name}", value, "a finite number above 0")
        check(0 <= self.margin < math.pi / 2, "train.margin", self.margin, "an angle of at least 0, below π / 2")
        check(0 <= self.ema < 1, "train.ema", self.ema, "a decay in 0…1, below 1")


@dataclass
class ProductsConfig:
    """Options of `train.py task=products`: photos of items and a shop's pictures → a run folder with the model."""

    task: ProductsTask = key(REQUIRED, "products: tell products apart")
    images: list[str] = key(REQUIRED, "folders, list files, .tar shards, patterns of them: the photos of pairs=")
    pairs: str = key(REQUIRED, "labels: photo_id,item_id,split; split is train, val or another word (left out)")
    catalogue: str = key(REQUIRED, "the shop: a CSV of items, or a folder with items.csv (docs/products.md)")
    output: str = key(REQUIRED, "run folder to write")
    resume: bool = key(False, "go on from the checkpoint of output=, if there is one")
    held: float = key(0.1, "share of each item's training photos that the fusion is fitted on, not the network")
    sentences: bool = key(False, "compare also what words mean: 50 ms a text; pip install 'isc[sentences]'")
    seed: int = key(0, "seed of weights, batches and augmentation")
    model: ModelConfig = part(ModelConfig, "the model")
    train: ProductFitConfig = part(ProductFitConfig, "the training")

    def __post_init__(self) -> None:
        check_texts(self)
        check(bool(self.images) and all(self.images), "images", self.images, "folders, list files or .tar files")
        check_at_least(0, seed=self.seed)
        check_share(held=self.held)
