"""Ending with the process that started this one, even if that was killed."""

from __future__ import annotations

import os
import signal
import threading
import time

PARENT = "ISC_SERVE_PARENT"  # the environment variable with the id of the supervisor
EVERY = 0.5  # seconds between two looks


def end_with_parent() -> None:
    """Ask this process to end as soon as its supervisor is gone; without a supervisor nothing is watched."""
    parent = os.environ.get(PARENT)
    if parent is not None:
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(EVERY)
    os.kill(os.getpid(), signal.SIGTERM)
