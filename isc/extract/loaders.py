"""Options of all torch loaders: the number of worker processes, and the setup of each process."""

from __future__ import annotations

import sys
from typing import Any

import cv2
import torch

from isc.runtime.cpus import cores

MAX_WORKERS = 16


def worker_count(workers: int, *, sharing: int = 1, most: int | None = MAX_WORKERS) -> int:
    """Return the number of worker processes; 0 stays in the main process.

    −1 becomes one process per core, at most `most`, if `sharing` processes share the machine's cores.
    """
    count = max(1, cores() // sharing)
    return workers if workers >= 0 else count if most is None else min(count, most)


def _single_thread(_worker: int) -> None:
    """Use one thread, and print no error if the parent process ends in the middle of a message, as by Ctrl-C."""
    torch.set_num_threads(1)
    told = sys.excepthook
    sys.excepthook = lambda kind, error, trace: (
        None if issubclass(kind, ConnectionError | EOFError) else told(kind, error, trace)
    )


def loader_options(workers: int) -> dict[str, Any]:
    """Return the options of all loaders.

    OpenCV's thread pool is turned off, which must happen before workers are forked: in a child it hangs.
    """
    cv2.setNumThreads(1)
    return {
        "num_workers": workers,
        "worker_init_fn": _single_thread,
        "pin_memory": torch.cuda.is_available(),
        "prefetch_factor": 4 if workers else None,
        "generator": torch.Generator(),  # otherwise a loader draws from the network's random numbers when it starts
    }
