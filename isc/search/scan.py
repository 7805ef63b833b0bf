"""One pass over all pairs on the CPU's kernels: each worker scores blocks of references against all queries."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from isc.runtime.progress import Report
from isc.search.kernels.numpy_kernel import Kernel
from isc.search.running_best import RunningBest

Vectors = npt.NDArray[np.float32]


@dataclass
class _Work:
    """The blocks of references that are not yet scored, and the progress of the scan."""

    starts: Iterator[int]
    total: int
    report: Report | None
    done: int = 0
    stopped: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> int | None:
        with self.lock:
            return None if self.stopped else next(self.starts, None)

    def finish(self, pairs: int) -> None:
        with self.lock:
            self.done += pairs
            if self.report:
                self.report(self.done, self.total)


def scan(kernel: Kernel, queries: Vectors, references: Vectors, best: RunningBest, report: Report | None) -> None:
    """Score all pairs, and offer to `best` those that may belong to the answer."""
    kernel.load(queries)
    columns = min(kernel.columns, len(references))
    work = _Work(iter(range(0, len(references), columns)), len(queries) * len(references), report)

    def worker(number: int) -> None:
        while (start := work.take()) is not None:
            block = references[start : start + columns]
            prepared = kernel.prepare(block, number)
            step = kernel.rows(len(block))
            for first in range(0, len(queries), step):
                rows = slice(first, min(first + step, len(queries)))
                tile = kernel.tile(rows, prepared, number)
                with best.lock:
                    best.error = max(best.error, tile.error)
                    least_scores = best.least_scores(rows, start)
                if (least_scores == -np.inf).any():
                    best.learn(tile, rows)
                    with best.lock:
                        least_scores = best.least_scores(rows, start)
                query, reference, score = tile.above(least_scores)
                if len(query):
                    with best.lock:
                        query += first
                        reference += start
                        best.offer(query, reference, score)
                if work.stopped:
                    return
                work.finish((rows.stop - rows.start) * len(block))

    def watched(number: int) -> None:
        try:
            worker(number)
        except BaseException:  # the other workers stop after their current tile
            work.stopped = True
            raise

    workers = min(kernel.workers, -(-len(references) // columns))
    with kernel.session(workers):
        if workers == 1:
            worker(0)
            return
        with ThreadPoolExecutor(workers) as threads:
            try:
                for future in [threads.submit(watched, number) for number in range(workers)]:
                    future.result()
            finally:  # Ctrl-C stops the workers too
                work.stopped = True
