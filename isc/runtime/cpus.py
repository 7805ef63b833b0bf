"""The CPU cores of this process, and the number of processes to start on them."""

from __future__ import annotations

import os

MAX_WORKERS = 16


def cores() -> int:
    """Return the number of cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_count(workers: int, *, sharing: int = 1, most: int | None = MAX_WORKERS) -> int:
    """Return the number of worker processes; 0 stays in the main process.

    −1 becomes one process per core, at most `most`, if `sharing` processes share the machine's cores.
    """
    count = max(1, cores() // sharing)
    return workers if workers >= 0 else count if most is None else min(count, most)
