"""The values of keys that are one of a few names."""

from __future__ import annotations

from enum import Enum


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


class Library(Enum):
    """Whose edits make the queries of a benchmark: our own, or those of AugLy, an outside library."""

    own = "own"
    augly = "augly"


class NearDuplicates(Enum):
    """What becomes of photos that show the same: one of each group stays, all stay, or the run is refused."""

    leave_out = "leave_out"
    keep = "keep"
    refuse = "refuse"
