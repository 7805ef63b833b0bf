"""Options of all torch loaders, and the setup of each of their processes."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import torch

from isc.errors import InputError
from isc.runtime.parent import end_with

CPU = torch.device("cpu")
AHEAD = 4  # items of each process that wait for the main process
SHARE = 0.8  # of the free shared memory
SHARED = Path("/dev/shm")  # where there is one


def _single_thread(_worker: int) -> None:
    """Use one thread, end with the parent, and print no error if that ends in the middle of a message, as by Ctrl-C."""
    if (parent := multiprocessing.parent_process()) is not None and parent.pid is not None:
        end_with(parent.pid)
    torch.set_num_threads(1)
    told = sys.excepthook
    sys.excepthook = lambda kind, error, trace: (
        None if issubclass(kind, ConnectionError | EOFError) else told(kind, error, trace)
    )


def in_flight(workers: int, item_bytes: int, *, room: int) -> int:
    """Return the number of items that each process may have on its way, at most AHEAD, for a room of shared memory.

    Raises InputError if the room is too small for one item of each.
    """
    ahead = min(AHEAD, int(SHARE * room) // max(1, workers * item_bytes))
    if ahead < 1:
        raise InputError(
            f"workers={workers}: their batches take {workers * item_bytes / 1e9:.2g} GB of shared memory, of which "
            f"{room / 1e9:.2g} GB are free; start the container with --ipc=host (or --shm-size), or lower workers="
        )
    return ahead


def shared_memory() -> int:
    """Return the free bytes of the memory that processes share."""
    return shutil.disk_usage(SHARED).free if SHARED.is_dir() else sys.maxsize


def loader_options(workers: int, *, item_bytes: int, device: torch.device) -> dict[str, Any]:
    """Return the options of a loader whose items have at most `item_bytes`, and go to the device.

    OpenCV's thread pool is turned off, which must happen before workers are forked: in a child it hangs.
    Raises InputError if the items do not fit into shared memory.
    """
    cv2.setNumThreads(1)
    return {
        "num_workers": workers,
        "worker_init_fn": _single_thread,
        "pin_memory": device.type == "cuda",
        "prefetch_factor": in_flight(workers, item_bytes, room=shared_memory()) if workers else None,
        "generator": torch.Generator(),  # otherwise a loader draws from the network's random numbers when it starts
    }
