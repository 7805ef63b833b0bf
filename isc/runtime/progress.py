"""Progress of long work: a bar on a terminal, else a log line every ten seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

Report = Callable[[int, int], None]  # (done, total)

EVERY = 10.0  # seconds between two lines
MANY = 1_000_000  # units; totals from here on are shown in short form


@contextmanager
def progress(what: str, units: str) -> Iterator[Report]:
    """Yield a function to call with (done, total) during the work; short work prints no line."""
    if sys.stderr.isatty():
        from tqdm import tqdm
        from tqdm.contrib.logging import logging_redirect_tqdm

        with logging_redirect_tqdm(), tqdm(desc=what, unit=f" {units}") as bar:

            def draw(done: int, total: int) -> None:
                bar.total, bar.unit_scale = total, total >= MANY
                bar.update(done - bar.n)

            yield draw
    else:
        started = spoken = time.monotonic()
        first: int | None = None

        def say(done: int, total: int) -> None:
            nonlocal spoken, first
            first = done if first is None else first
            now = time.monotonic()
            if now - spoken >= EVERY:
                spoken = now
                rate = (done - first) / (now - started)
                left = f", {(total - done) / rate:.0f} s left" if rate else ""
                if total < MANY:
                    log.info("%s %d/%d %s, %.3g/s%s", what, done, total, units, rate, left)
                else:
                    log.info("%s %.1f %% of %.2g %s, %.2g/s%s", what, 100 * done / total, total, units, rate, left)

        yield say
