"""Running a part in a process of its own, and what that took."""

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
    """What a process took: wall-clock and core seconds, and the most memory that it, or one of its children, held."""

    seconds: float
    core_seconds: float
    gb: float


def measured(command: Sequence[str]) -> Cost:
    """Run it; SystemExit where it fails. Ctrl-C reaches it too, and is waited for."""
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
