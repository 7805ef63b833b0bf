"""What all torch loaders share: how many worker processes, and how each of them runs."""

from __future__ import annotations

import sys
from typing import Any

import cv2
import torch

from isc.runtime.cpus import cores

MAX_WORKERS = 16


def worker_count(workers: int, *, sharing: int = 1, most: int | None = MAX_WORKERS) -> int:
    """−1 becomes one process a core, but not more than `most`, where `sharing` processes share the machine's cores; 0
    stays in the main process."""
    count = max(1, cores() // sharing)
    return workers if workers >= 0 else count if most is None else min(count, most)


def _single_thread(_worker: int) -> None:
    """Also silent when the process that it works for ends in the middle of a message, by Ctrl-C say."""
    torch.set_num_threads(1)
    told = sys.excepthook
    sys.excepthook = lambda kind, error, trace: (
        None if issubclass(kind, ConnectionError | EOFError) else told(kind, error, trace)
    )


def loader_options(workers: int) -> dict[str, Any]:
    """What all loaders share. OpenCV's thread pool must be off before workers are forked: in a child it hangs."""
    cv2.setNumThreads(1)
    return {
        "num_workers": workers,
        "worker_init_fn": _single_thread,
        "pin_memory": torch.cuda.is_available(),
        "prefetch_factor": 4 if workers else None,
        "generator": torch.Generator(),  # else a loader draws from the network's random numbers when it starts
    }
