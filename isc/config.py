"""Every knob of the three verbs: plain dataclasses with defaults, units and checks.

They are registered with Hydra in `isc.cli`; the YAML files in `conf/` hold only what differs from these defaults. A
value that cannot be is refused here, by name, before the first image is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from isc.errors import InputError
from isc.steps import is_stored, parse
from isc.views import parse_views

MAX_PREDICTIONS = 500_000  # rows of a matching-track submission in the challenge
WHOLE_ALONE = "whole"  # what looks= says to find candidates by whole queries
NO_FEATURES = "none"  # what features= says to keep no local features
REQUIRED = "???"  # what OmegaConf takes for "must be given"


class Engine(Enum):
    """What compares descriptors; the result is the same."""

    auto = "auto"  # the fastest at hand
    numpy = "numpy"
    torch = "torch"  # float32 on all GPUs, or on the CPU
    torch_half = "torch_half"  # float16 on GPUs, bfloat16 on the CPU; what passes is scored again in float32
    faiss = "faiss"
    faiss_half = "faiss_half"  # the references as float16 on GPUs
    ray = "ray"  # actors of a Ray cluster, each with a part of the references


class Where(Enum):
    """What turns photos into descriptors: this machine, or the actors of a Ray cluster."""

    local = "local"
    ray = "ray"


class Runtime(Enum):
    """What runs the network; the descriptors are the same but for rounding. The last two are for CPUs."""

    torch = "torch"
    onnxruntime = "onnxruntime"
    openvino = "openvino"


class Combine(Enum):
    """What becomes of the views of a photo: one descriptor, their mean at unit length; or a row for each."""

    average = "average"
    rows = "rows"


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
    """Arithmetic inside the network; descriptors and losses are float32 always. auto is bfloat16 where the hardware
    multiplies it (GPUs, CPUs with AVX512-BF16 or AMX), float32 elsewhere; for descriptors float16 on GPUs, and either
    only where it changes them by next to nothing. float16 is for descriptors alone."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    auto = "auto"


class Pooling(Enum):
    """How the backbone's features become one vector: generalised mean or mean over space, or the class token."""

    gem = "gem"
    mean = "mean"
    token = "token"


class Optimizer(Enum):
    """AdamW, SGD with momentum, or LARS (You et al., arXiv:1708.03888)."""

    adamw = "adamw"
    sgd = "sgd"
    lars = "lars"


class Contrast(Enum):
    """What pulls two views of a photo together and pushes other photos away."""

    info_nce = "info_nce"
    contrastive = "contrastive"


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
    """timm backbone → pooling → linear → batch norm → unit length."""

    backbone: str = "tf_efficientnet_lite0"  # any model of timm
    weights: str = "imagenet"  # imagenet (offline for the default backbone, else timm's), none, a NAME or RUN_DIR of
    # ours, or a FILE: our safetensors, a backbone's state (.safetensors, .pth), a published checkpoint (.pt, .pth)
    dim: int = 256  # length of a descriptor
    pooling: Pooling = Pooling.gem
    gem_power: float = 3.0  # 1 = average pooling; towards maximum pooling as it grows
    gem_learned: bool = False  # learn the power, from gem_power on
    batch_norm: bool = True  # after the linear layer, which has a bias where there is none; short runs collapse without
    conv_head: bool = True  # false: an EfficientNet without its last convolution
    image_size: int = 224  # pixels; pictures are squeezed to a square of this side
    background: int = 0  # descriptors of training photos that the model keeps, to subtract what unrelated photos share
    background_weight: float = 0.5
    background_temperature: float = 0.05
    whiten: float = 0.0  # ridge of a whitening by the covariance of those training photos; 0: none

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_at_least(2, model__dim=self.dim)
        _check_at_least(0, model__background=self.background, model__background_weight=self.background_weight)
        _check(
            0 < self.background_temperature < math.inf, "model.background_temperature", self.background_temperature,
            "a finite temperature above 0",
        )  # fmt: skip
        _check_at_least(0, model__whiten=self.whiten)
        if self.whiten and not self.background:
            raise InputError(
                f"model.whiten={self.whiten:g}, model.background=0: the whitening is that of the background's photos; "
                "expected model.background= of some hundreds at least, or model.whiten=0"
            )
        _check_at_least(1, model__gem_power=self.gem_power)
        _check_at_least(32, model__image_size=self.image_size)


@dataclass
class Stage:
    """A part of the training; the rate's warm-up and cosine go over all parts together."""

    share: float = 1.0  # of the steps, relative to the other stages
    image_size: int = 160  # pixels while training; the model may be used at another size
    strength: float = 1.0  # of the augmentation, 0…1
    lr: float = 1.0  # × train.lr
    freeze_blocks: int | None = None  # train.freeze_blocks where not given

    def __post_init__(self) -> None:
        _check(0 < self.share < math.inf, "train.stages.share", self.share, "a finite number above 0")
        _check_at_least(32, train__stages__image_size=self.image_size)
        _check_share(train__stages__strength=self.strength)
        _check_at_least(0, train__stages__lr=self.lr, train__stages__freeze_blocks=self.freeze_blocks or 0)


@dataclass
class OptimConfig:
    """How long and how fast to learn."""

    steps: int = 2000  # optimiser steps
    batch_size: int = 64  # photos a step, over all processes together; each gives two views
    stages: list[Stage] = field(default_factory=list)  # growing resolution and strength; none: one, of image_size
    image_size: int = 160  # pixels while training, where there are no stages
    optimizer: Optimizer = Optimizer.adamw
    lr: float = 1e-3  # rate of the head, after warm-up
    backbone_lr: float = 1.0  # × lr for the backbone
    weight_decay: float = 0.05
    momentum: float = 0.9  # of sgd and lars
    warmup: float = 0.05  # share of the steps with a rising rate; then a cosine to 0
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.0  # decay a step of the averaged weights, which become the model; 0: the last weights do
    precision: Precision = Precision.float32
    freeze_norms: bool = False  # keep the backbone's batch-norm statistics: for few photos or small batches
    freeze_blocks: int = 0  # keep the stem and the first blocks of the backbone as they are: faster, less to forget
    freeze_depthwise: bool = False  # keep 5 × 5 and larger depthwise kernels, whose slope a CPU computes slowly
    hard_views: int = 1  # attacked views of each photo of a batch, beside one mild view
    momentum_keys: bool = False  # the averaged weights embed the mild views, without gradient, into loss.memory
    hard_negatives: int = 0  # every second photo of a batch is one of this many nearest neighbours of the one before
    compile: bool = False  # torch.compile
    checkpoint_every: int = 200  # steps
    validate_every: int = 500  # steps, where validation= is given

    def __post_init__(self) -> None:
        _check_at_least(1, train__steps=self.steps, train__checkpoint_every=self.checkpoint_every)
        _check_at_least(1, train__validate_every=self.validate_every)
        _check_at_least(2, train__batch_size=self.batch_size)
        _check_at_least(0, train__weight_decay=self.weight_decay, train__backbone_lr=self.backbone_lr)
        _check_at_least(0, train__freeze_blocks=self.freeze_blocks, train__hard_negatives=self.hard_negatives)
        _check(0 < self.lr < math.inf, "train.lr", self.lr, "a finite rate above 0")
        _check(self.clip > 0, "train.clip", self.clip, "a norm above 0")
        _check(0 <= self.ema < 1, "train.ema", self.ema, "a decay in 0…1, below 1")
        _check(0 <= self.momentum < 1, "train.momentum", self.momentum, "a momentum in 0…1, below 1")
        _check_share(train__warmup=self.warmup)
        _check_at_least(32, train__image_size=self.image_size)
        _check(
            self.precision is not Precision.float16, "train.precision", self.precision.value,
            "float32, bfloat16 or auto: slopes are lost in float16",
        )  # fmt: skip


@dataclass
class AugmentConfig:
    """The copy attacks of the hard view; the other view is a mild crop, perhaps mirrored.

    Numbers are probabilities, one for each family of attacks; together about 3.9 edits a view, in some none and in some
    seven. Sizes are shares of the side of the picture at full strength.
    """

    min_crop: float = 0.15  # least share of the area that a crop of the hard view keeps
    # geometry
    flip: float = 0.5  # left to right; one time in six top to bottom
    rotate: float = 0.17  # 3…180° either way; a quarter of them by 90, 180 or 270°
    perspective: float = 0.08  # corners move by up to 30 %
    aspect: float = 0.07  # one side squeezed to 45…90 % and the rest filled, or the other cut
    pad: float = 0.1  # bars of any colour, or blurred; 40…95 % of the side stays
    tiny: float = 0.04  # 15…40 % of the side stays, on one colour
    frame: float = 0.04  # a border of 2…12 %
    # composition
    overlay: float = 0.2  # 3 in 5 on another photo, which leaves 20…80 %; else another photo on it, 15…55 %
    screenshot: float = 0.09  # browser, phone app, post; 35…90 % stays
    text: float = 0.12  # 8…30 % high, any font and script of the machine
    emoji: float = 0.1  # one to four of 10…50 %
    meme: float = 0.07  # captions on bands of 8…30 %, or outlined on the photo
    stripes: float = 0.06  # parallel lines over 10…45 % of the picture
    opacity: float = 0.05  # a veil of one colour, 0.1…0.6 opaque
    # pixels
    color: float = 0.35  # brightness, contrast, saturation, hue, gamma
    gray: float = 0.08
    filter: float = 0.1  # posterise, solarise, invert, sepia, equalise, swapped channels
    edge: float = 0.08  # sharpen, emboss, edge enhance, contour
    blur: float = 0.12  # Gaussian, box, median, motion
    noise: float = 0.09  # Gaussian, salt and pepper, camera
    pixelise: float = 0.07  # 8…40 blocks a side
    shuffle: float = 0.05  # 2…40 % of the pixels, or 2…6 × 2…6 tiles
    downscale: float = 0.04  # to 10…60 % of the side and back
    jpeg: float = 0.2  # JPEG or WebP of quality 3…70
    # patterns of our own
    print: float = 0.14  # a scan of a print, askew by up to 6°; dots of a printer, 1.5…4 % apart; a photocopy
    screen: float = 0.09  # a photographed screen: moiré, glare, corners moved by up to 15 %
    strip: float = 0.1  # 2 in 3 a strip of 15…60 % of one side; else 3…9 slices with gaps or another photo between
    blend: float = 0.12  # with another photo: 25…65 % of it, faded in from a side, or exposed twice
    collage: float = 0.12  # one of 2…9 tiles; 30…75 % of the side of another photo; another photo as an inset
    layout: float = 0.07  # a story, two panels, a demotivator; 45…95 % of the side stays
    artistic: float = 0.13  # paint, pencil, cartoon, relief, edges, hatching
    palette: float = 0.12  # 3…24 colours, 2…6 steps, two colours, at times dithered; other colours for each brightness
    light: float = 0.1  # local contrast, vignette, cast, grain, leak, split channels, fog, specks, gradient
    warp: float = 0.09  # swirl, lens, waves, bulges, shear, elastic
    resave: float = 0.07  # JPEG two to six times at other sizes, or a poor video's frame
    occlude: float = 0.14  # patches, tiles, bars, mosaic, watermarks, grids, scribbles, cut-out shapes
    # two photos in one picture, both of them positives
    mix: float = 0.05  # mixup or cutmix with another photo of the batch

    def __post_init__(self) -> None:
        _check(0 < self.min_crop <= 1, "augment.min_crop", self.min_crop, "a share above 0, at most 1")
        _check_share(**{f"augment__{name}": value for name, value in vars(self).items() if name != "min_crop"})


@dataclass
class LossConfig:
    """InfoNCE or contrastive + koleo_weight · KoLeo + copy_nce_weight · CopyNCE + distillation."""

    contrast: Contrast = Contrast.info_nce
    temperature: float = 0.05  # of info_nce
    positive_margin: float = 0.0  # of contrastive: distances of copies below this cost nothing
    negative_margin: float = 1.0  # of contrastive: distances of others above this cost nothing
    koleo_weight: float = 1.0
    koleo_memory: bool = False  # the nearest neighbour is sought in the memory as well
    memory: int = 0  # embeddings of earlier steps that serve as further negatives
    memory_after: float = 0.0  # share of the steps before the memory is used
    copy_nce_weight: float = 0.0  # of the contrast of cells by their overlap (CopyNCE)
    copy_nce_power: float = 3.0  # of the overlap
    teacher: str | None = None  # ONNX or safetensors file, whose similarities between photos are learned as well
    teacher_weight: float = 1.0
    teacher_temperature: float = 0.05

    def __post_init__(self) -> None:
        _check_texts(self)
        for name in ("temperature", "teacher_temperature"):
            value = getattr(self, name)
            _check(0 < value < math.inf, f"loss.{name}", value, "a finite temperature above 0")
        _check_at_least(0, loss__koleo_weight=self.koleo_weight, loss__teacher_weight=self.teacher_weight)
        _check_at_least(0, loss__copy_nce_weight=self.copy_nce_weight, loss__copy_nce_power=self.copy_nce_power)
        _check_at_least(0, loss__memory=self.memory, loss__positive_margin=self.positive_margin)
        _check(
            0 < self.negative_margin <= 2, "loss.negative_margin", self.negative_margin, "a distance in 0…2, above 0"
        )
        _check_share(loss__memory_after=self.memory_after)


@dataclass
class TrainConfig:
    """`train.py`: photos → a run folder with the model."""

    images: str = REQUIRED
    output: str = REQUIRED
    pairs: str | None = None  # ground truth (query_id,reference_id) among images=: learn from these copies instead
    validation: str | None = None  # folder of a made benchmark; its μAP chooses best.safetensors
    resume: bool = False
    seed: int = 0
    device: Device = Device.auto
    workers: int = -1  # processes that read and edit photos; −1: one a core, 16 at most
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
        _check_at_least(1, train__hard_views=self.train.hard_views)
        if self.train.momentum_keys and self.loss.memory < self.train.batch_size:
            raise InputError(
                f"train.momentum_keys=true, loss.memory={self.loss.memory}: the keys of a batch lie in the memory; "
                f"expected room for them, at least train.batch_size={self.train.batch_size}"
            )
        if self.pairs is not None and self.train.hard_negatives:
            raise InputError(
                f"pairs={self.pairs} and train.hard_negatives={self.train.hard_negatives} exclude each other; give one"
            )


@dataclass
class ExtractConfig:
    """`extract.py`: photos → descriptors."""

    images: list[str] = REQUIRED  # type: ignore[assignment]  # folders, list files, .tar shards, patterns of them
    output: str = REQUIRED
    model: str = "isc_small"  # a NAME, a RUN_DIR, a FILE.safetensors or .onnx, or a published .pt or .pth
    image_size: int | None = None  # pixels; the model's own where not given
    views: str = "whole"  # looks at each photo beside the whole, joined by +, as flip+crop:0.8 (docs/extraction.md)
    combine: Combine = Combine.average  # rows: match with track=matching
    engine: Where = Where.local
    runtime: Runtime = Runtime.torch
    batch_size: int | None = None  # photos on a GPU at once; as many as are quick and fit its memory where not given
    workers: int = -1  # processes that read photos, and on a CPU embed them; −1: one a core, 16 at most before a GPU
    device: Device = Device.auto
    precision: Precision = Precision.auto
    compile: bool = False  # torch.compile, on a GPU with CUDA graphs: for long runs
    gpu_jpeg: bool = False  # let the GPU decode JPEGs
    address: str | None = None  # of a running Ray cluster; its own where not given, or one that is started here
    actors: int | None = None  # of engine=ray; as many as the cluster has room for where not given
    overwrite: bool = False
    strict: bool = False  # an unreadable photo ends the run instead of being skipped and listed

    def __post_init__(self) -> None:
        _check_texts(self)
        _check(all(self.images), "images", self.images, "folders, list files or .tar files")
        _check_at_least(-1, workers=self.workers)
        for name in ("batch_size", "actors"):
            if (value := getattr(self, name)) is not None:
                _check_at_least(1, **{name: value})
        if self.image_size is not None:
            _check_at_least(32, image_size=self.image_size)
        if self.engine is Where.local:
            for name in ("address", "actors"):
                _check(getattr(self, name) is None, name, getattr(self, name), "engine=ray beside it")
        else:
            _check(not self.gpu_jpeg, "gpu_jpeg", "true", "engine=local beside it")
            _check(self.workers == -1, "workers", self.workers, "none with engine=ray, whose actors= share the cores")
        if self.runtime is not Runtime.torch:
            for name in ("compile", "gpu_jpeg"):
                _check(not getattr(self, name), name, "true", "runtime=torch beside it")


class Library(Enum):
    """Whose edits make the queries of a benchmark: our own, or those of AugLy, an outside library."""

    own = "own"
    augly = "augly"


class NearDuplicates(Enum):
    """What becomes of photos that show the same: one of each group stays, all stay, or the run is refused."""

    leave_out = "leave_out"
    keep = "keep"
    refuse = "refuse"


@dataclass
class BenchmarkConfig:
    """`isc-benchmark`: photos → a benchmark in the challenge's layout. Null counts follow from the number of photos."""

    images: str = REQUIRED
    output: str = REQUIRED
    preset: str = "challenge"  # easy, challenge, hard; a kind of edit by name; each: all kinds, strengths in turn
    strength: str | None = None  # light, medium, strong: of one kind of edit, or of each
    edits: Library = Library.own
    seed: int = 0
    references: int | None = None  # photos that are searched
    copied: int | None = None  # of them, those that copies are made of
    distractors: int | None = None  # photos that the queries without a reference are made of
    training: int | None = None  # photos apart
    queries: int | None = None  # copies and distractors together
    distractor_share: float = 0.8  # of the queries, as in the challenge
    hard_negatives: int = 0  # of the distractor queries, those made of photos that look much like a reference
    near_duplicates: NearDuplicates = NearDuplicates.leave_out
    max_side: int = 320  # pixels; larger photos are shrunk
    workers: int | None = None  # processes; one a core where not given

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_at_least(0, seed=self.seed, hard_negatives=self.hard_negatives)
        _check_at_least(64, max_side=self.max_side)
        for name in ("references", "copied", "distractors", "training", "workers"):
            if (value := getattr(self, name)) is not None:
                _check_at_least(1, **{name: value})
        if self.queries is not None:
            _check_at_least(2, queries=self.queries)
        _check(0 < self.distractor_share < 1, "distractor_share", self.distractor_share, "a share above 0, below 1")


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
    normalize: str = "none"  # steps joined by +, as whiten:dim=128+subtract; a FILE.json of isc-normalize; or model,
    # the chain that is stored with it; all fitted on training= alone (docs/normalization.md)
    query_images: str | None = None  # folders of the photos, for pictures in the report and for track=matching
    reference_images: str | None = None
    edits: str | None = None  # edits.jsonl of a made benchmark: names the edits in the report
    strict: bool = True  # refuse a submission.h5 whose rows are not sorted, and ids that the other files do not know
    max_predictions: int = MAX_PREDICTIONS  # rows that a submission.csv may have
    candidates: int = 50  # of track=matching with both image folders: references of each query that are looked at
    looks: str = "regions:1"  # more looks at the queries, by which candidates are found: views as extract.py takes them
    fusion: str = "model"  # what makes one probability of distance and pixels: FILE.json of isc-fusion, or the model's
    calibration: str = "model"  # what makes probabilities of scores: FILE.json of isc-calibrate, the model's, or none
    compare: str | None = None  # folder of another run, or its predictions.csv, judged by the same ground_truth=
    features: str | None = None  # folder that keeps local features of references; none: nowhere; else the user's cache
    workers: int | None = None  # processes that compare pixels; one a core where not given
    engine: Engine = Engine.auto  # what compares the descriptors; the result is the same
    memory_gb: float = 2.0  # GB that the search may take besides the descriptors
    index: str | None = None  # approximate: faiss's text for an index that training= trains, or a saved one's folder
    index_search: str | None = None  # how hard it looks, as nprobe=32; what is usual where not given
    address: str | None = None  # of a running Ray cluster, for engine=ray
    actors: int | None = None  # of engine=ray, each with a part of the references

    def __post_init__(self) -> None:
        _check_texts(self)
        if not is_stored(self.normalize):
            parse(self.normalize)
        parse_views(self.looks)
        for name, value in {"num_pairs": self.num_pairs, "k": self.k}.items():
            if value is not None:
                _check_at_least(1, **{name: value})
        _check_at_least(1, max_predictions=self.max_predictions, candidates=self.candidates)
        for name, value in {"actors": self.actors, "workers": self.workers}.items():
            if value is not None:
                _check_at_least(1, **{name: value})
        _check(0 < self.memory_gb < math.inf, "memory_gb", self.memory_gb, "a size above 0")
        if self.num_pairs is not None and self.k is not None:
            raise InputError(f"num_pairs={self.num_pairs} and k={self.k} exclude each other; give one")
        if self.submission is None:
            self._check_descriptors_given()
        else:
            self._check_submission_alone()
        if (self.query_images is None) != (self.reference_images is None):
            raise InputError("query_images= and reference_images= go together; give both or neither")
        if self.compare is not None and self.ground_truth is None:
            raise InputError(f"compare={self.compare} needs ground_truth=GT.csv to judge both runs by")

    def _check_descriptors_given(self) -> None:
        missing = [name for name in ("queries", "references") if getattr(self, name) is None]
        if missing:
            given = " and ".join(f"{name}=FILE.h5" for name in missing)
            raise InputError(f"{given} missing; expected queries= and references=, or submission= and ground_truth=")
        if self.engine is not Engine.ray:
            for name in ("address", "actors"):
                _check(getattr(self, name) is None, name, getattr(self, name), "engine=ray beside it")
        elif self.index is not None:
            raise InputError(f"engine=ray compares all pairs; index={self.index} does not go with it")
        if self.index is None and self.index_search is not None:
            raise InputError(f"index_search={self.index_search} goes with index=; give both or neither")
        if self.normalize != "none" and self.training is None:
            raise InputError(f"normalize={self.normalize} needs training=T.h5, descriptors of training photos")

    def _check_submission_alone(self) -> None:
        vectors = str(self.submission).lower().endswith((".h5", ".hdf5"))
        if (self.queries is None) != (self.references is None) or (vectors and self.queries is not None):
            raise InputError("queries= and references= go, both, with a submission.csv whose ids they check; not alone")
        if not vectors and (self.num_pairs is not None or self.k is not None):
            raise InputError("num_pairs= and k= choose pairs by distance; a CSV submission is judged as it is")
        if self.ground_truth is None:
            raise InputError("submission= needs ground_truth=GT.csv to be judged by")
        if self.normalize != "none" or self.training is not None:
            raise InputError(
                "a submission is judged as it is; normalize= and training= go with queries= and references="
            )
