"""Options of all torch loaders, and the setup of each of their processes."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any

import cv2
import torch

from isc.runtime.parent import end_with


def _single_thread(_worker: int) -> None:
    """Use one thread, end with the parent, and print no error if that ends in the middle of a message, as by Ctrl-C."""
    if (parent := multiprocessing.parent_process()) is not None and parent.pid is not None:
        end_with(parent.pid)
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
