"""The configuration of train.py: defaults, units and checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from isc.config.checks import REQUIRED, check, check_at_least, check_share, check_texts, key, part
from isc.config.choices import AttacksOn, Contrast, Device, Optimizer, Pooling, Precision
from isc.errors import InputError

MAX_IMAGE_SIZE = 4096  # pixels a side: a network needs gigabytes for one larger picture
# keys of earlier versions, and the value that always holds now; files and checkpoints with another one are refused
GONE: Mapping[str, float | bool] = MappingProxyType(
    {"model.gem_learned": False, "loss.copy_nce_power": 3.0, "loss.teacher_temperature": 0.05}
)


@dataclass
class ModelConfig:
    """The model: timm backbone → pooling → linear → batch norm → unit length."""

    backbone: str = key("tf_efficientnet_lite0", "any model of timm")
    weights: str = key(
        "imagenet",
        "imagenet (offline for the default backbone, else timm's), none, a NAME or RUN_DIR of ours, or a FILE: "
        "our safetensors, a backbone's state (.safetensors, .pth), a published checkpoint (.pt, .pth)",
    )
    dim: int = key(256, "length of a descriptor")
    pooling: Pooling = key(Pooling.gem, "pooling of the features: GeM or mean over space, or the class token")
    gem_power: float = key(3.0, "power of GeM: 1 = average pooling; towards maximum pooling as it grows")
    batch_norm: bool = key(
        True, "batch norm after the linear layer; without it the layer has a bias, and short runs collapse"
    )
    conv_head: bool = key(True, "false: an EfficientNet without its last convolution")
    image_size: int = key(224, "side in pixels of the squares that pictures are squeezed to")
    background: int = key(0, "number of training descriptors in the model; it subtracts what unrelated photos share")
    background_weight: float = key(0.5, "weight of the subtraction of the background")
    background_temperature: float = key(0.05, "temperature of the background: how much nearer photos count more")
    whiten: float = key(0.0, "ridge of a whitening by the covariance of the background's photos; 0: no whitening")

    def __post_init__(self) -> None:
        check_texts(self)
        check_at_least(2, model__dim=self.dim)
        check_at_least(0, model__background=self.background, model__background_weight=self.background_weight)
        check(
            0 < self.background_temperature < math.inf, "model.background_temperature", self.background_temperature,
            "a finite temperature above 0",
        )  # fmt: skip
        check_at_least(0, model__whiten=self.whiten)
        if self.whiten and not self.background:
            raise InputError(
                f"model.whiten={self.whiten:g}, model.background=0: the whitening is that of the background's photos; "
                "expected model.background= of some hundreds at least, or model.whiten=0"
            )
        check_at_least(1, model__gem_power=self.gem_power)
        check(
            32 <= self.image_size <= MAX_IMAGE_SIZE, "model.image_size", self.image_size,
            f"a whole number in 32…{MAX_IMAGE_SIZE}",
        )  # fmt: skip


@dataclass
class Stage:
    """A stage of the training; the warm-up and the cosine of the learning rate span all stages together."""

    share: float = key(1.0, "share of the steps, relative to the other stages")
    image_size: int = key(160, "side in pixels while training; the model may be used at another size")
    strength: float = key(1.0, "strength of the augmentation, 0…1")
    lr: float = key(1.0, "learning rate, × train.lr")
    freeze_blocks: int | None = key(None, "blocks kept fixed; null: train.freeze_blocks")

    def __post_init__(self) -> None:
        check(0 < self.share < math.inf, "train.stages.share", self.share, "a finite number above 0")
        check_at_least(32, train__stages__image_size=self.image_size)
        check_share(train__stages__strength=self.strength)
        check_at_least(0, train__stages__lr=self.lr, train__stages__freeze_blocks=self.freeze_blocks or 0)


@dataclass
class OptimConfig:
    """The optimisation: steps, batches, stages and learning rates."""

    steps: int = key(2000, "optimiser steps")
    batch_size: int = key(64, "photos per step, over all processes together; each photo gives two views")
    stages: list[Stage] = part(list, "growing resolution and strength; empty: one, of image_size")
    image_size: int = key(160, "side in pixels while training, if there are no stages")
    optimizer: Optimizer = key(Optimizer.adamw, "AdamW, SGD with momentum, or LARS")
    lr: float = key(1e-3, "learning rate of the head, after warm-up")
    backbone_lr: float = key(1.0, "learning rate of the backbone, × train.lr")
    weight_decay: float = key(0.05, "decay of the weights, per unit of learning rate")
    momentum: float = key(0.9, "momentum of sgd and lars")
    warmup: float = key(0.05, "share of the steps with a rising learning rate; then a cosine to 0")
    clip: float = key(1.0, "largest norm of the gradient")
    ema: float = key(0.0, "decay per step of the averaged weights, which become the model; 0: use the last weights")
    precision: Precision = key(
        Precision.float32,
        "arithmetic of the network; auto: bfloat16 where the hardware multiplies it, else float32",
    )
    freeze_norms: bool = key(False, "keep the backbone's batch-norm statistics: for few photos or small batches")
    freeze_blocks: int = key(0, "keep the stem and the first blocks of the backbone fixed: faster, less forgetting")
    freeze_depthwise: bool = key(
        False,
        "keep 5 × 5 and larger depthwise kernels fixed; their gradient is slow on a CPU",
    )
    hard_views: int = key(1, "hard views of each photo of a batch, besides one mild view")
    momentum_keys: bool = key(False, "the averaged weights embed the mild views, without gradient, into loss.memory")
    hard_negatives: int = key(
        0,
        "every second photo of a batch is one of this many nearest neighbours of its predecessor",
    )
    micro_batch: int = key(0, "pictures that the network holds in memory at a time, for one more forward pass; 0: all")
    attacks_on: AttacksOn = key(
        AttacksOn.auto, "where a view's last attacks are made, colours, blurs, noise and warps; auto: where it trains"
    )
    compile: bool = key(False, "compile the network with torch.compile")
    checkpoint_every: int = key(200, "steps between two checkpoints")
    validate_every: int = key(500, "steps between two validations, if validation= is given")

    def __post_init__(self) -> None:
        check_at_least(1, train__steps=self.steps, train__checkpoint_every=self.checkpoint_every)
        check_at_least(1, train__validate_every=self.validate_every)
        check_at_least(0, train__micro_batch=self.micro_batch)
        check_at_least(2, train__batch_size=self.batch_size)
        check_at_least(0, train__weight_decay=self.weight_decay, train__backbone_lr=self.backbone_lr)
        check_at_least(0, train__freeze_blocks=self.freeze_blocks, train__hard_negatives=self.hard_negatives)
        check(0 < self.lr < math.inf, "train.lr", self.lr, "a finite rate above 0")
        check(self.clip > 0, "train.clip", self.clip, "a norm above 0")
        check(0 <= self.ema < 1, "train.ema", self.ema, "a decay in 0…1, below 1")
        check(0 <= self.momentum < 1, "train.momentum", self.momentum, "a momentum in 0…1, below 1")
        check_share(train__warmup=self.warmup)
        check_at_least(32, train__image_size=self.image_size)
        check(
            self.precision is not Precision.float16, "train.precision", self.precision.value,
            "float32, bfloat16 or auto: gradients are lost in float16",
        )  # fmt: skip


@dataclass
class AugmentConfig:
    """The augmentations of the hard view; the other view is a mild crop, sometimes mirrored.

    Each number is the probability of one family of attacks; together about 3.9 edits per view, from none to seven.
    Sizes are shares of the picture's side at full strength.
    """

    min_crop: float = key(0.15, "least share of the area that a crop of the hard view keeps")
    # geometry
    flip: float = key(0.5, "left to right; one time in six top to bottom")
    rotate: float = key(0.17, "3…180° either way; a quarter of them by 90, 180 or 270°")
    perspective: float = key(0.08, "corners move by up to 30 %")
    aspect: float = key(0.07, "one side squeezed to 45…90 % and the rest filled, or the other cut")
    pad: float = key(0.1, "bars of any colour, or blurred; 40…95 % of the side stays")
    tiny: float = key(0.04, "15…40 % of the side stays, on one colour")
    frame: float = key(0.04, "a border of 2…12 %")
    # composition
    overlay: float = key(0.2, "3 in 5 on another photo, which leaves 20…80 %; else another photo on it, 15…55 %")
    screenshot: float = key(0.09, "browser, phone app, post; 35…90 % stays")
    text: float = key(0.12, "8…30 % high, any font and script of the machine")
    emoji: float = key(0.1, "one to four of 10…50 %")
    meme: float = key(0.07, "captions on bands of 8…30 %, or outlined on the photo")
    stripes: float = key(0.06, "parallel lines over 10…45 % of the picture")
    opacity: float = key(0.05, "a veil of one colour, 0.1…0.6 opaque")
    # pixels
    color: float = key(0.35, "brightness, contrast, saturation, hue, gamma")
    gray: float = key(0.08, "no colours")
    filter: float = key(0.1, "posterise, solarise, invert, sepia, equalise, swapped channels")
    edge: float = key(0.08, "sharpen, emboss, edge enhance, contour")
    blur: float = key(0.12, "Gaussian, box, median, motion")
    noise: float = key(0.09, "Gaussian, salt and pepper, camera")
    pixelise: float = key(0.07, "8…40 blocks a side")
    shuffle: float = key(0.05, "2…40 % of the pixels, or 2…6 × 2…6 tiles")
    downscale: float = key(0.04, "to 10…60 % of the side and back")
    jpeg: float = key(0.2, "JPEG or WebP of quality 3…70")
    # patterns of our own
    print: float = key(0.14, "a scan of a print, askew by up to 6°; dots of a printer, 1.5…4 % apart; a photocopy")
    screen: float = key(0.09, "a photographed screen: moiré, glare, corners moved by up to 15 %")
    strip: float = key(0.1, "2 in 3 a strip of 15…60 % of one side; else 3…9 slices with gaps or another photo between")
    blend: float = key(0.12, "with another photo: 25…65 % of it, faded in from a side, or exposed twice")
    collage: float = key(0.12, "one of 2…9 tiles; 30…75 % of the side of another photo; another photo as an inset")
    layout: float = key(0.07, "a story, two panels, a demotivator; 45…95 % of the side stays")
    artistic: float = key(0.13, "paint, pencil, cartoon, relief, edges, hatching")
    palette: float = key(
        0.12,
        "3…24 colours, 2…6 steps, two colours, at times dithered; other colours for each brightness",
    )
    light: float = key(0.1, "local contrast, vignette, cast, grain, leak, split channels, fog, specks, gradient")
    warp: float = key(0.09, "swirl, lens, waves, bulges, shear, elastic")
    resave: float = key(0.07, "JPEG two to six times at other sizes, or a poor video's frame")
    occlude: float = key(0.14, "patches, tiles, bars, mosaic, watermarks, grids, scribbles, cut-out shapes")
    # two photos in one picture, both of them positives
    mix: float = key(0.05, "mixup or cutmix with another photo of the batch")

    def __post_init__(self) -> None:
        check(0 < self.min_crop <= 1, "augment.min_crop", self.min_crop, "a share above 0, at most 1")
        check_share(**{f"augment__{name}": value for name, value in vars(self).items() if name != "min_crop"})


@dataclass
class LossConfig:
    """The loss: InfoNCE or contrastive + koleo_weight · KoLeo + copy_nce_weight · CopyNCE + distillation."""

    contrast: Contrast = key(
        Contrast.info_nce,
        "the loss that pulls two views of a photo together and pushes other photos away",
    )
    temperature: float = key(0.05, "temperature of info_nce")
    positive_margin: float = key(0.0, "margin of contrastive: distances of copies below this cost nothing")
    negative_margin: float = key(1.0, "margin of contrastive: distances of others above this cost nothing")
    koleo_weight: float = key(1.0, "weight of KoLeo, which spreads the descriptors")
    koleo_memory: bool = key(False, "search the nearest neighbour in the memory as well")
    memory: int = key(0, "embeddings of earlier steps that serve as further negatives")
    memory_after: float = key(0.0, "share of the steps before the memory is used")
    copy_nce_weight: float = key(0.0, "weight of CopyNCE, the contrast of cells by their overlap")
    teacher: str | None = key(None, "ONNX or safetensors file, whose similarities between photos are learned as well")
    teacher_weight: float = key(1.0, "weight of the distillation from the teacher")

    def __post_init__(self) -> None:
        check_texts(self)
        check(0 < self.temperature < math.inf, "loss.temperature", self.temperature, "a finite temperature above 0")
        check_at_least(0, loss__koleo_weight=self.koleo_weight, loss__teacher_weight=self.teacher_weight)
        check_at_least(0, loss__copy_nce_weight=self.copy_nce_weight, loss__memory=self.memory)
        check_at_least(0, loss__positive_margin=self.positive_margin)
        check(0 < self.negative_margin <= 2, "loss.negative_margin", self.negative_margin, "a distance in 0…2, above 0")
        check_share(loss__memory_after=self.memory_after)


@dataclass
class TrainConfig:
    """Options of `train.py`: photos → a run folder with the model."""

    images: list[str] = key(REQUIRED, "folders, list files, .tar shards, patterns of them")
    output: str = key(REQUIRED, "run folder to write")
    pairs: str | None = key(None, "ground truth (query_id,reference_id) among images=: learn from these copies instead")
    validation: str | None = key(None, "folder of a benchmark; its μAP chooses best.safetensors")
    resume: bool = key(False, "go on from the checkpoint of output=, if there is one")
    seed: int = key(0, "seed of weights, batches and augmentation")
    device: Device = key(Device.auto, "auto takes the GPU if there is one")
    workers: int = key(-1, "processes that read and edit photos; −1: one per core, at most 16")
    photo_cache_gb: float = key(
        0.0, "GB of decoded photos that output=/photos.cache may hold, so that each is decoded once; 0: none"
    )
    max_unreadable: float = key(0.05, "share of the photos that may fail to decode before the run is refused")
    model: ModelConfig = part(ModelConfig, "the model")
    train: OptimConfig = part(OptimConfig, "the optimisation")
    augment: AugmentConfig = part(AugmentConfig, "the augmentation")
    loss: LossConfig = part(LossConfig, "the loss")

    def __post_init__(self) -> None:
        check_texts(self)
        check(all(self.images), "images", self.images, "folders, list files or .tar files")
        check_at_least(0, seed=self.seed)
        check_at_least(-1, workers=self.workers)
        check_share(max_unreadable=self.max_unreadable)
        check(0 <= self.photo_cache_gb < math.inf, "photo_cache_gb", self.photo_cache_gb, "a finite size, at least 0")
        check_at_least(1, train__hard_views=self.train.hard_views)
        if self.train.momentum_keys and self.loss.memory < self.train.batch_size:
            raise InputError(
                f"train.momentum_keys=true, loss.memory={self.loss.memory}: the keys of a batch lie in the memory; "
                f"expected room for them, at least train.batch_size={self.train.batch_size}"
            )
        if self.pairs is not None and self.train.hard_negatives:
            raise InputError(
                f"pairs={self.pairs} and train.hard_negatives={self.train.hard_negatives} exclude each other; give one"
            )
