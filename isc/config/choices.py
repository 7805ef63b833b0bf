"""Enumerations of the allowed values of configuration keys."""

from __future__ import annotations

from enum import Enum


class Engine(Enum):
    """The engine that compares descriptors; all give the same result."""

    auto = "auto"  # the fastest available one
    numpy = "numpy"
    torch = "torch"  # float32 on all GPUs, or on the CPU
    torch_half = "torch_half"  # float16 on GPUs, bfloat16 on the CPU; candidates are scored again in float32
    faiss = "faiss"
    faiss_half = "faiss_half"  # the references as float16 on GPUs
    ray = "ray"  # actors of a Ray cluster, each with a part of the references


class Where(Enum):
    """The place where descriptors are computed: this machine, or the actors of a Ray cluster."""

    local = "local"
    ray = "ray"


class Runtime(Enum):
    """The library that runs the network; descriptors differ by rounding only. The last two are for CPUs.

    auto is onnxruntime for `isc_small` and ONNX files on a CPU, else torch.
    """

    auto = "auto"
    torch = "torch"
    onnxruntime = "onnxruntime"
    openvino = "openvino"


class Combine(Enum):
    """The use of a photo's views: one descriptor, their mean at unit length; or one row per view."""

    average = "average"
    rows = "rows"


class Track(Enum):
    """The track of the challenge: Euclidean distance of one vector per image, or any comparison of two images."""

    descriptor = "descriptor"
    matching = "matching"


class Device(Enum):
    """The device of the network; auto takes the GPU if there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(Enum):
    """Arithmetic inside the network; descriptors and losses are always float32.

    auto is bfloat16 if the hardware multiplies it (GPUs, CPUs with AVX512-BF16 or AMX), else float32. For descriptors
    auto is float16 on GPUs, and uses either only if the descriptors hardly change. float16 is for descriptors only.
    """

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    auto = "auto"


class Pooling(Enum):
    """The pooling of the backbone's features to one vector: GeM or mean over space, or the class token."""

    gem = "gem"
    mean = "mean"
    token = "token"


class Optimizer(Enum):
    """The optimiser: AdamW, SGD with momentum, or LARS (You et al., arXiv:1708.03888)."""

    adamw = "adamw"
    sgd = "sgd"
    lars = "lars"


class AttacksOn(Enum):
    """The place where attacks on pixels are made: as far as they can be, on the device that trains, or all on the CPU.

    auto is gpu if the training runs on a GPU. gpu beside device=cpu makes them in the training's process.
    """

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


class Contrast(Enum):
    """The loss that pulls two views of a photo together and pushes other photos away."""

    info_nce = "info_nce"
    contrastive = "contrastive"


class Library(Enum):
    """The edits that make the queries of a benchmark: our own, or those of the external library AugLy."""

    own = "own"
    augly = "augly"


class NearDuplicates(Enum):
    """The treatment of near-duplicate photos: keep one of each group, keep all, or refuse the run."""

    leave_out = "leave_out"
    keep = "keep"
    refuse = "refuse"
