"""Where the network runs, and how it is laid out there."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import TypeVar, cast

import torch
from torch import nn

from isc.errors import InputError

Module = TypeVar("Module", bound=nn.Module)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
GIB = 1 << 30


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda`; InputError where CUDA is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: no CUDA device is visible; use device=cpu or device=auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def place(model: Module, device: torch.device) -> Module:
    """The same model on this device, its kernels laid out channels last, which is the faster layout on both kinds."""
    return cast(Module, model.to(device).to(memory_format=torch.channels_last))  # type: ignore[call-overload]


def keep_freed_memory() -> None:
    """Let this process keep the large blocks it frees, instead of fetching them anew for every layer of every batch.

    glibc maps each block above 32 MB afresh, and the page faults cost as much as the network's arithmetic (figures in
    docs/results.md). Does nothing where the C library has no mallopt.
    """
    library = ctypes.CDLL(ctypes.util.find_library("c"))
    if hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, GIB)
        library.mallopt(M_TRIM_THRESHOLD, 2 * GIB - 1)
