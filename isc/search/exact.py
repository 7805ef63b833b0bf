"""Exact Euclidean search: the best pairs over all queries together, or the k nearest references of each query.

The score of a pair is −‖q − r‖². One pass over blocks of queries and references computes the score of every pair, fast
and with a bounded error (`kernels`), and keeps the pairs that may belong to the answer:

    Let c be the Nth best computed score so far, and e the error bound. N pairs have true scores of at least c − e, so
    the true Nth best score is at least c − e, and every pair of the answer has a computed score of at least c − 2e.
    Pairs below c − 2e are dropped; c never falls.

Little more than N pairs remain. They are scored again in float64, from the differences q − r, and sorted. So the answer
is complete, and independent of blocks, threads and device; identical vectors score exactly 0. On GPUs the same is done
by `kernels.device_search`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.config.choices import Engine
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import check_same_dim
from isc.data.ids import Ids
from isc.data.matches import Matches
from isc.errors import InputError
from isc.runtime.cpus import cores
from isc.runtime.progress import Report
from isc.search.kernels.device_rows import keeping_references
from isc.search.kernels.device_search import Answer, DeviceSearch, cuda_devices
from isc.search.kernels.faiss_kernel import FaissKernel, faiss_gpus
from isc.search.kernels.numpy_kernel import Kernel, NumpyKernel
from isc.search.running_best import BestOfEach, BestPairs
from isc.search.scan import scan

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]

MEMORY = 2.0  # GB
TILE = 1 << 22  # scores per core at once, 20 MB: the fastest of 1, 2 and 4 million
SMALL = 10**11  # multiplications and additions below which loading torch for a GPU takes longer than the search
CELL, TAKEN = 40, 120  # bytes per score of a tile if all its pairs pass: in each thread, and among the kept pairs
PAIR = 200  # bytes per pair of the answer at most: two copies, while it is sorted and scored again


def best_pairs(
    queries: Descriptors | Iterable[Descriptors],
    references: Descriptors,
    *,
    num_pairs: int,
    memory_gb: float = MEMORY,
    engine: Engine = Engine.auto,
    progress: Report | None = None,
) -> Matches:
    """Return the exact `num_pairs` nearest (query, reference) pairs over all queries together.

    At equal distances the earlier query comes first, then the earlier reference. Queries that do not fit in memory may
    come as an iterable of `Descriptors`, in order; `references` may be a memory map. Besides its inputs and its result
    the numpy search uses at most `memory_gb`, however many pairs tie. `progress` is called with (pairs compared, pairs
    in total).

    Raises InputError if the dimensions differ, a set has views, fewer pairs exist, or the memory is too small.
    """
    blocks = [queries] if isinstance(queries, Descriptors) else queries
    total = len(queries) * len(references) if isinstance(queries, Descriptors) else None
    ids: list[Ids] = []

    def checked() -> Iterator[Vectors]:
        _require_one_row_each(references, "references")
        for block in blocks:
            _require_one_row_each(block, "queries")
            check_same_dim(block, references)
            ids.append(block.ids)
            yield block.vectors

    best = _best_of(
        checked(), references.vectors, num_pairs=num_pairs, total=total, memory_gb=memory_gb, engine=engine,
        progress=progress,
    )  # fmt: skip
    return _matches(np.concatenate(ids), references, best.query, best.reference, best.distance)


def nearest_pairs(
    queries: Vectors,
    references: Vectors,
    *,
    num_pairs: int,
    memory_gb: float = MEMORY,
    engine: Engine = Engine.auto,
    progress: Report | None = None,
) -> Answer:
    """Return the exact `num_pairs` nearest pairs, with squared distances in float64, by (distance, query, reference).

    The array form of `best_pairs`: `queries` [Q, D] and `references` [N, D] are finite float32.
    """
    best = _best_of(
        [queries], references, num_pairs=num_pairs, total=len(queries) * len(references), memory_gb=memory_gb,
        engine=engine, progress=progress,
    )  # fmt: skip
    return Answer(best.query, best.reference, best.distance)


def _best_of(
    blocks: Iterable[Vectors],
    references: Vectors,
    *,
    num_pairs: int,
    total: int | None,
    memory_gb: float,
    engine: Engine,
    progress: Report | None,
) -> BestPairs:
    """Return the best pairs of all blocks of queries; `total` is the number of all pairs, None if it is not known."""
    require_existing("num_pairs", num_pairs, total, "pairs")
    kernel, room = _engine(engine, memory_gb, None if total is None else total * references.shape[1])
    if num_pairs * PAIR > room:
        needed = memory_gb + (num_pairs * PAIR - room) / 1e9
        raise InputError(
            f"memory_gb={memory_gb}: num_pairs={num_pairs} needs {needed:.2g}; expected more memory, or fewer pairs"
        )
    best, first = BestPairs(num_pairs, room // PAIR), 0
    with keeping_references():
        for block in blocks:
            report = _shifted(progress, first, len(references), total)
            if isinstance(kernel, DeviceSearch):
                done = _counted(report, len(block) * len(references))
                found = kernel.best_pairs(block, references, num_pairs=num_pairs, done=done)
                best.join(found.query + first, found.reference, found.distance)
            else:
                best.begin(first, block, references)
                scan(kernel, block, references, best, report)
                best.settle()
            first += len(block)
    require_existing("num_pairs", num_pairs, first * len(references), "pairs")
    return best


def knn(
    queries: Descriptors,
    references: Descriptors,
    *,
    k: int,
    memory_gb: float = MEMORY,
    engine: Engine = Engine.auto,
    progress: Report | None = None,
) -> Matches:
    """Return the exact `k` nearest references of each query; at equal distances the earlier reference comes first.

    Options and errors are those of `best_pairs`. The queries are searched in blocks whose lists fit in `memory_gb`.
    """
    _require_one_row_each(queries, "queries")
    _require_one_row_each(references, "references")
    check_same_dim(queries, references)
    require_existing("k", k, len(references), "references")
    row, distance = nearest(
        queries.vectors, references.vectors, k=k, memory_gb=memory_gb, engine=engine, progress=progress
    )
    order = np.argsort(distance, axis=None, kind="stable")  # the lists are in order of query, distance and reference
    return _matches(queries.ids, references, order // k, row.reshape(-1)[order], distance.reshape(-1)[order])


def nearest(
    queries: Vectors,
    references: Vectors,
    *,
    k: int,
    memory_gb: float = MEMORY,
    engine: Engine = Engine.auto,
    progress: Report | None = None,
) -> tuple[Indices, Distances]:
    """Return the rows [Q, k] and squared distances [Q, k] of the exact nearest references of each query, nearest first.

    The array form of `knn`: `queries` [Q, D] and `references` [N, D] are finite float32; `references` may be a memory
    map. k is cut to N, so the result is [Q, 0] without references. At equal distances the earlier row comes first.
    Raises InputError if k < 1 or the memory is too small.
    """
    _require_positive("k", k)
    k = min(k, len(references))
    kernel, room = _engine(engine, memory_gb, queries.size * len(references))
    if k == 0:
        return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0))
    step = room // (2 * k * PAIR)  # queries whose lists fit in memory twice
    if step < 1:
        raise InputError(f"memory_gb={memory_gb}: too little for k={k}; expected more memory, or fewer neighbours")
    row, distance = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
    total = len(queries) * len(references)
    with keeping_references():
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            report = _shifted(progress, start, len(references), total)
            best: Answer | BestOfEach
            if isinstance(kernel, DeviceSearch):
                best = kernel.nearest(part, references, k=k, done=_counted(report, len(part) * len(references)))
            else:
                best = BestOfEach(k, room // PAIR, len(part))
                best.begin(0, part, references)
                scan(kernel, part, references, best, report)
                best.settle()
            rows = slice(start, start + len(part))
            row[rows], distance[rows] = best.reference.reshape(-1, k), best.distance.reshape(-1, k)
    return row, distance


def _engine(engine: Engine, memory_gb: float, work: int | None) -> tuple[Kernel | DeviceSearch, int]:
    """Return the kernel, and the bytes of memory left for the pairs it finds. Raises InputError for engine=ray.

    `work` is the number of multiplications of the search, None if it is not known.
    """
    if not memory_gb > 0:
        raise InputError(f"memory_gb={memory_gb}: expected a size above 0")
    memory = int(memory_gb * 1e9)
    match fastest(work) if engine is Engine.auto else engine:
        case Engine.torch | Engine.torch_half as chosen:
            devices = cuda_devices()
            room = memory if devices else memory // 2
            return DeviceSearch(devices or ["cpu"], half=chosen is Engine.torch_half, memory=memory // 2), room
        case Engine.faiss | Engine.faiss_half as chosen:
            return FaissKernel(half=chosen is Engine.faiss_half, cells=TILE, memory=memory // 4), memory // 2
        case Engine.ray:
            raise InputError("engine=ray: this search is of one machine; expected another, or match.py engine=ray")
    workers = cores()
    cell = CELL * workers + TAKEN
    cells = min(TILE, max(1024, memory // (2 * cell)))
    return NumpyKernel(workers=workers, cells=cells), memory - cells * cell


def fastest(work: int | None) -> Engine:
    """Return torch_half if torch sees a GPU, else faiss if faiss sees one, else numpy; numpy for a small search."""
    if (work is not None and work < SMALL) or not Path("/dev/nvidiactl").exists():
        return Engine.numpy
    if cuda_devices():
        return Engine.torch_half
    return Engine.faiss if faiss_gpus() else Engine.numpy


def _shifted(report: Report | None, queries_done: int, num_references: int, total: int | None) -> Report | None:
    """Return a report for one part of the queries that counts the earlier parts too, out of `total` if it is known."""
    if report is None:
        return None
    before = queries_done * num_references
    return lambda done, of: report(before + done, total or before + of)


def _counted(report: Report | None, total: int) -> Callable[[int], None]:
    """Return a function that adds numbers of compared pairs, from any thread, and reports their sum."""
    lock, done = threading.Lock(), 0

    def add(pairs: int) -> None:
        nonlocal done
        with lock:
            done += pairs
            if report:
                report(done, total)

    return add


def _matches(
    query_ids: Ids,
    references: Descriptors,
    query: Indices,
    reference: Indices,
    distance: Distances,
) -> Matches:
    """Return pairs, which are in order of distance, query and reference, with their ids and scores."""
    return Matches(query_ids, references.ids, query, reference, (0.0 - distance).astype(np.float32))


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name}={value}; expected at least 1")


def _require_one_row_each(descriptors: Descriptors, what: str) -> None:
    if descriptors.views is not None:
        raise InputError(f"{what} have views, several rows an image; expected one, or best_image_pairs, nearest_images")


def require_existing(name: str, value: int, existing: int | None, what: str) -> None:
    _require_positive(name, value)
    if existing is not None and value > existing:
        raise InputError(f"{name}={value}: there are {existing} {what}; expected at most that many")
