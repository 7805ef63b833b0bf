"""Limits of how often somebody may call."""

from __future__ import annotations

import time
from collections import OrderedDict

CALLERS = 10_000  # rates that are remembered


class Rates:
    """Token buckets by name, in memory: each holds the calls of a minute and fills evenly."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, name: str, a_minute: int) -> float:
        """Return 0 if a call may be taken, else the seconds to wait until there is one."""
        return max(0.0, (1 - self._left(name, a_minute)) * 60 / a_minute)

    def _left(self, name: str, a_minute: int) -> float:
        left, before = self._buckets.get(name, (float(a_minute), time.monotonic()))
        return min(float(a_minute), left + (time.monotonic() - before) * a_minute / 60)

    def take(self, name: str, a_minute: int) -> float:
        """Take one call; return 0, or the seconds to wait until there is one."""
        now = time.monotonic()
        left = self._left(name, a_minute)
        self._buckets.pop(name, None)
        taken = left >= 1
        self._buckets[name] = (left - 1 if taken else left, now)
        while len(self._buckets) > CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - left) * 60 / a_minute
