"""Every knob of the three verbs: plain dataclasses with defaults, units and checks.

They are registered with Hydra in `isc.cli`; the YAML files in `conf/` hold only what differs from these defaults. A
value that cannot be is refused here, by name, before the first image is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from isc.errors import InputError

MAX_PREDICTIONS = 500_000  # rows of a matching-track submission in the challenge
REQUIRED = "???"  # what OmegaConf takes for "must be given"


class Track(Enum):
    """What may be compared: one vector an image by Euclidean distance, or anything about the two images."""

    descriptor = "descriptor"
    matching = "matching"


class Device(Enum):
    """Where the network runs; auto takes the GPU where there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(Enum):
    """Arithmetic inside the network; descriptors and losses are float32 always."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Normalize(Enum):
    """What is done to descriptors before they are compared; all but none are fitted on training= alone."""

    none = "none"
    whiten = "whiten"
    subtract = "subtract"
    stretch = "stretch"


def _check(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise InputError(f"{name}={value}: expected {expected}")


def _check_at_least(least: float, **values: float) -> None:
    for name, value in values.items():
        _check(least <= value < math.inf, name.replace("__", "."), value, f"a finite number, at least {least:g}")


def _check_texts(config: object) -> None:
    """No text may be empty: an empty path would mean the working directory."""
    for name, value in vars(config).items():
        _check(value != "", name, value, "a name or a path")


def _check_share(**values: float) -> None:
    for name, value in values.items():
        _check(0 <= value <= 1, name.replace("__", "."), value, "a share in 0…1")


@dataclass
class ModelConfig:
    """timm backbone → GeM pooling → linear → batch norm → unit length."""

    backbone: str = "tf_efficientnet_lite0"  # any convolutional model of timm
    weights: str = (
        "imagenet"  # imagenet (offline for the default backbone, else timm's), none, or a RUN_DIR or FILE.safetensors
    )
    dim: int = 256  # length of a descriptor
    gem_power: float = 3.0  # 1 = average pooling; towards maximum pooling as it grows
    batch_norm: bool = True  # after the linear layer; without it short runs collapse
    image_size: int = 224  # pixels; pictures are squeezed to a square of this side

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_at_least(2, model__dim=self.dim)
        _check_at_least(1, model__gem_power=self.gem_power)
        _check_at_least(32, model__image_size=self.image_size)


@dataclass
class OptimConfig:
    """How long and how fast to learn."""

    steps: int = 2000  # optimiser steps
    batch_size: int = 64  # photos a step; each gives two views
    lr: float = 1e-3  # AdamW's rate for the head, after warm-up
    backbone_lr: float = 1.0  # × lr for the backbone
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of the steps with a rising rate; then a cosine to 0
    clip: float = 1.0  # largest norm of the gradient
    image_size: int = 160  # pixels while training; the model may be used at another size
    precision: Precision = Precision.float32
    freeze_norms: bool = False  # keep the backbone's batch-norm statistics: for few photos or small batches
    checkpoint_every: int = 200  # steps

    def __post_init__(self) -> None:
        _check_at_least(1, train__steps=self.steps, train__checkpoint_every=self.checkpoint_every)
        _check_at_least(2, train__batch_size=self.batch_size)
        _check_at_least(0, train__weight_decay=self.weight_decay, train__backbone_lr=self.backbone_lr)
        _check(0 < self.lr < math.inf, "train.lr", self.lr, "a finite rate above 0")
        _check(self.clip > 0, "train.clip", self.clip, "a norm above 0")
        _check_share(train__warmup=self.warmup)
        _check_at_least(32, train__image_size=self.image_size)


@dataclass
class AugmentConfig:
    """The copy attacks of the hard view; the other view is a mild crop, perhaps mirrored. Numbers are probabilities."""

    min_crop: float = 0.15  # least share of the area that a crop of the hard view keeps
    overlay: float = 0.25  # on another photo, or another photo on it
    text: float = 0.25
    emoji: float = 0.2
    frame: float = 0.15  # screenshot bars, caption bands, borders
    flip: float = 0.5
    rotate: float = 0.25  # freely; quarter turns at a third of this
    perspective: float = 0.2
    color: float = 0.7  # brightness, contrast, saturation, hue
    gray: float = 0.2
    blur: float = 0.25
    noise: float = 0.15
    pixelise: float = 0.2
    filter: float = 0.25  # sharpen, emboss, posterise, solarise, sepia
    jpeg: float = 0.35  # quality 5…60

    def __post_init__(self) -> None:
        _check(0 < self.min_crop <= 1, "augment.min_crop", self.min_crop, "a share above 0, at most 1")
        _check_share(**{f"augment__{name}": value for name, value in vars(self).items() if name != "min_crop"})


@dataclass
class LossConfig:
    """InfoNCE + koleo_weight · KoLeo."""

    temperature: float = 0.05
    koleo_weight: float = 1.0

    def __post_init__(self) -> None:
        _check(0 < self.temperature < math.inf, "loss.temperature", self.temperature, "a finite temperature above 0")
        _check_at_least(0, loss__koleo_weight=self.koleo_weight)


@dataclass
class TrainConfig:
    """`train.py`: photos → a run folder with the model."""

    images: str = REQUIRED
    output: str = REQUIRED
    resume: bool = False
    seed: int = 0
    device: Device = Device.auto
    workers: int = -1  # processes that read and edit photos; −1: one a core, 8 at most
    max_unreadable: float = 0.05  # share of the photos that may fail to decode before the run is refused
    model: ModelConfig = field(default_factory=ModelConfig)
    train: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_at_least(0, seed=self.seed)
        _check_at_least(-1, workers=self.workers)
        _check_share(max_unreadable=self.max_unreadable)


@dataclass
class ExtractConfig:
    """`extract.py`: photos → descriptors."""

    images: str = REQUIRED
    output: str = REQUIRED
    model: str = "imagenet"
    image_size: int | None = None  # pixels; the model's own where not given
    batch_size: int = 32
    workers: int = -1  # processes that read photos; −1: one a core, 8 at most
    device: Device = Device.auto
    precision: Precision = Precision.float32
    overwrite: bool = False
    strict: bool = False  # an unreadable photo ends the run instead of being skipped and listed

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_at_least(1, batch_size=self.batch_size)
        _check_at_least(-1, workers=self.workers)
        if self.image_size is not None:
            _check_at_least(32, image_size=self.image_size)


@dataclass
class MatchConfig:
    """`match.py`: descriptors or a submission → predictions, scores, a report."""

    output: str = REQUIRED
    queries: str | None = None
    references: str | None = None
    training: str | None = None
    submission: str | None = None
    ground_truth: str | None = None
    num_pairs: int | None = None  # best pairs over all queries together; 10 × the number of queries where not given
    k: int | None = None  # instead: best references of each query
    track: Track = Track.descriptor
    normalize: Normalize = Normalize.none
    query_images: str | None = None  # folders of the photos, for pictures in the report and for track=matching
    reference_images: str | None = None
    edits: str | None = None  # edits.jsonl of a made benchmark: names the edits in the report
    strict: bool = True  # refuse a submission.h5 whose rows are not sorted, and ids that the other files do not know
    max_predictions: int = MAX_PREDICTIONS  # rows that a submission.csv may have
    candidates: int = 5  # best references of each query whose pixels track=matching compares

    def __post_init__(self) -> None:
        _check_texts(self)
        for name, value in {"num_pairs": self.num_pairs, "k": self.k}.items():
            if value is not None:
                _check_at_least(1, **{name: value})
        _check_at_least(1, max_predictions=self.max_predictions, candidates=self.candidates)
        if self.num_pairs is not None and self.k is not None:
            raise InputError(f"num_pairs={self.num_pairs} and k={self.k} exclude each other; give one")
        if self.submission is None:
            self._check_descriptors_given()
        else:
            self._check_submission_alone()
        if (self.query_images is None) != (self.reference_images is None):
            raise InputError("query_images= and reference_images= go together; give both or neither")

    def _check_descriptors_given(self) -> None:
        missing = [name for name in ("queries", "references") if getattr(self, name) is None]
        if missing:
            given = " and ".join(f"{name}=FILE.h5" for name in missing)
            raise InputError(f"{given} missing; expected queries= and references=, or submission= and ground_truth=")
        if self.normalize is not Normalize.none and self.training is None:
            raise InputError(f"normalize={self.normalize.value} needs training=T.h5, descriptors of training photos")

    def _check_submission_alone(self) -> None:
        vectors = str(self.submission).lower().endswith((".h5", ".hdf5"))
        if (self.queries is None) != (self.references is None) or (vectors and self.queries is not None):
            raise InputError("queries= and references= go, both, with a submission.csv whose ids they check; not alone")
        if not vectors and (self.num_pairs is not None or self.k is not None):
            raise InputError("num_pairs= and k= choose pairs by distance; a CSV submission is judged as it is")
        if self.ground_truth is None:
            raise InputError("submission= needs ground_truth=GT.csv to be judged by")
        if self.normalize is not Normalize.none or self.training is not None:
            raise InputError(
                "a submission is judged as it is; normalize= and training= go with queries= and references="
            )
