"""A check whether this machine may have a GPU, without loading a library that takes seconds to say so."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))  # NVIDIA, AMD, Windows' Linux


def may_have_gpu() -> bool:
    """Return False if no GPU can be visible to torch, or torch is not installed; True if one may be."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return False
    return (sys.platform == "win32" or any(path.exists() for path in DRIVERS)) and _installed("torch")


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
