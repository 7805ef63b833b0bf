"""Device, arithmetic and memory layout of the network."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from isc.config.choices import Precision
from isc.errors import InputError

Module = TypeVar("Module", bound=nn.Module)


def choose_device(name: str) -> torch.device:
    """Return the device of `auto`, `cpu`, `cuda`, or `cuda:N`, the visible GPU of index N.

    Raises InputError for any other name, or if that GPU is absent.
    """
    known = re.fullmatch(r"auto|cpu|cuda(?::(\d{1,4}))?", name, re.ASCII)
    if known is None:
        raise InputError(f"device={name}: no such device; expected auto, cpu, cuda, or cuda:N for the GPU of index N")
    visible = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not visible):
        return torch.device("cpu")
    if not visible:
        raise InputError(f"device={name}: no CUDA device is visible; use device=cpu or device=auto")
    if known[1] is None:
        return torch.device("cuda")
    if int(known[1]) >= (count := torch.cuda.device_count()):
        raise InputError(f"device={name}: no such GPU; expected an index below {count}, the number of visible GPUs")
    return torch.device("cuda", int(known[1]))


def place(model: Module, device: torch.device) -> Module:
    """Move the model to the device, and its kernels to the channels-last layout, which is faster on CPUs and GPUs."""
    return cast(Module, model.to(device).to(memory_format=torch.channels_last))  # type: ignore[call-overload]


def native_bfloat16(device: torch.device) -> bool:
    """Return whether the hardware multiplies bfloat16 itself; otherwise bfloat16 is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def arithmetic(precision: Precision, device: torch.device) -> Precision:
    """Return the precision that `auto` means on this device; return other values unchanged."""
    if precision is not Precision.auto:
        return precision
    return Precision.bfloat16 if native_bfloat16(device) else Precision.float32


def reduced_precision(device: torch.device) -> Precision:
    """Return the fastest precision for descriptors: float16 on a GPU, bfloat16 on a CPU that supports it, else float32.

    On a GPU float16 is as fast as bfloat16, and eight times as fine.
    """
    if device.type == "cuda":
        return Precision.float16
    return Precision.bfloat16 if native_bfloat16(device) else Precision.float32


@contextmanager
def one_thread() -> Iterator[None]:
    """Let this process compute with one thread: with several, the order of sums changes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compiled(
    function: Callable[[Tensor], Tensor], device: torch.device | None = None, *, key: str = "train.compile"
) -> Callable[[Tensor], Tensor]:
    """Apply torch.compile, with CUDA graphs if a `device` for inference is given.

    Raises InputError if that device is no GPU, or no C++ compiler is found.
    """
    if device is not None and device.type != "cuda":
        raise InputError(f"{key}=true is for GPUs; on a CPU runtime=openvino or onnxruntime is quicker")
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise InputError(f"{key}=true: no C++ compiler {compiler} is installed; add one or leave this out")
    if device is None:
        return torch.compile(function)
    return torch.compile(function, mode="reduce-overhead", dynamic=False)


def depthwise_in_float32(network: nn.Module) -> None:
    """Take trainable depthwise convolutions out of bfloat16 autocast on a CPU.

    oneDNN has no fast bfloat16 kernels for their gradients: in float32 the whole step has 1.7 × the speed
    (docs/results.md). For training only: a copy of the network made afterwards would share these layers.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.forward = _outside_autocast(module.forward)  # type: ignore[method-assign,assignment]


def _outside_autocast(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def plain(x: Tensor) -> Tensor:
        if not x.requires_grad:
            return forward(x)
        with torch.autocast("cpu", enabled=False):
            return forward(x.float()).to(x.dtype)

    return plain
