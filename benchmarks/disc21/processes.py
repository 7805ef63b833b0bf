"""Parts in processes of their own, and their cost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.approximate import ROOT


@dataclass(frozen=True)
class Cost:
    """The cost of a process: wall-clock and core seconds, and the peak memory (GB) of it or its largest child."""

    seconds: float
    core_seconds: float
    gb: float


def measured(command: Sequence[str]) -> Cost:
    """Run a command and return its cost. Raises SystemExit if it fails.

    Ctrl-C is passed on to the command, and its end is awaited.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode if process.returncode > 0 else 1)
    took = time.perf_counter() - started
    return Cost(took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9)
