"""Exact search on a Ray cluster: each worker searches one shard of the references."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.config.choices import Engine
from isc.data.descriptors import Descriptors
from isc.data.groups import rank_in_group
from isc.data.hdf5 import check_same_dim, descriptor_blocks
from isc.data.ids import Ids, first_repeat
from isc.data.matches import Matches
from isc.errors import InputError
from isc.runtime.progress import Report
from isc.runtime.ray_cluster import (
    RETRIES,
    as_input_errors,
    check_nodes,
    connected,
    named_node,
    on_node,
    require_ray,
    working_nodes,
)
from isc.search.exact import nearest, nearest_pairs, require_existing
from isc.search.kernels.device_search import cuda_devices
from isc.search.shards import Shard, plan

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]

MEMORY = 2.0  # GB of each worker, besides the descriptors
POLL = 1.0  # seconds between two requests for the workers' progress
READ = 65_536  # references read at a time, for their ids


@dataclass(frozen=True)
class ShardAnswer:
    """Pairs [M]: query rows, rows of all references, and ‖q − r‖²."""

    query: Indices
    reference: Indices
    distance: Distances

    def take(self, rows: Indices) -> ShardAnswer:
        return ShardAnswer(self.query[rows], self.reference[rows], self.distance[rows])


def cluster_pairs(
    queries: Descriptors,
    references: Path | Descriptors,
    *,
    num_pairs: int | None,
    k: int | None,
    address: str | None = None,
    actors: int | None = None,
    memory_gb: float = MEMORY,
    progress: Report | None = None,
) -> Matches:
    """Return the result of `best_pairs` (num_pairs=) or `knn` (k=), bit for bit, from actors that each search a shard.

    If `references` is a file, all nodes must see it; each actor reads its own rows, in file order, and this process
    holds only the ids. `actors` defaults to one per node, more on larger nodes, and more if the shards would not fit
    into the nodes' memory; actors without a free node wait for one. A dead actor is restarted and searches its shard
    again. `address` is that of `connected`; `memory_gb` is per actor; `progress` is called with (pairs compared, pairs
    in total).

    Raises InputError as `best_pairs` and `knn` do, and if the cluster cannot run the search.
    """
    _refuse_views(queries, "queries")
    ids, dim = _ids_of(references)
    _check_wanted(num_pairs=num_pairs, k=k, num_queries=len(queries), num_references=len(ids))
    if actors is not None and actors < 1:
        raise InputError(f"actors={actors}; expected at least 1")
    if isinstance(references, Descriptors):
        check_same_dim(queries, references)
    elif dim != queries.dim:
        raise InputError(
            f"{references}: {dim} dimensions, queries have {queries.dim}; expected the same model for both"
        )
    with connected(address):
        nodes = working_nodes()
        check_nodes(nodes, references.absolute() if isinstance(references, Path) else None)
        shards = plan(nodes, len(ids), actors, row_bytes=4 * dim)
        done = _Done(len(queries), len(ids), progress)
        best = _search_shards(queries, references, shards, _Wanted(num_pairs, k, memory_gb), done)
    best = best.take(np.lexsort((best.reference, best.query, best.distance)))
    return Matches(queries.ids, ids, best.query, best.reference, (0.0 - best.distance).astype(np.float32))


def merge(one: ShardAnswer, other: ShardAnswer, *, num_pairs: int | None, k: int | None) -> ShardAnswer:
    """Return the best `num_pairs`, or the best `k` of each query, of pairs with two disjoint sets of references.

    The best pairs of each shard are enough. Pairs are ordered by (distance, query, reference), without ties, and a
    shard orders its own pairs in the same way, because it holds consecutive rows of the references. A pair among the
    best N of all has fewer than N pairs before it, hence fewer than N of its own shard, so it is among the best N of
    its shard. The same holds for each query with k instead of N, and for merged shards instead of one, so shards may be
    merged in any order.
    """
    both = ShardAnswer(
        np.r_[one.query, other.query], np.r_[one.reference, other.reference], np.r_[one.distance, other.distance]
    )
    if k is None:
        return both.take(np.lexsort((both.reference, both.query, both.distance))[:num_pairs])
    both = both.take(np.lexsort((both.reference, both.distance, both.query)))
    return both.take(np.flatnonzero(rank_in_group(both.query) < k))


def _ids_of(references: Path | Descriptors) -> tuple[Ids, int]:
    """Return the ids and the dimension of all references. Raises InputError if an id repeats, or a file is damaged."""
    if isinstance(references, Descriptors):
        _refuse_views(references, "references")
        return references.ids, references.dim
    parts: list[Ids] = []
    dim = 0
    for block in descriptor_blocks(references, rows=READ, role="reference"):
        _refuse_views(block, str(references))
        parts.append(block.ids)
        dim = block.dim
    ids = np.concatenate(parts)
    if len(set(ids)) < len(ids) and (repeat := first_repeat(ids)):
        first, second = repeat
        raise InputError(
            f"{references}: row {second}: id {ids[second]!r} was already given in row {first}; expected each once"
        )
    return ids, dim


def _refuse_views(descriptors: Descriptors, what: str) -> None:
    if descriptors.views is not None:
        raise InputError(f"{what}: has views, several rows an image; expected one, or best_image_pairs, nearest_images")


def _check_wanted(*, num_pairs: int | None, k: int | None, num_queries: int, num_references: int) -> None:
    if (num_pairs is None) == (k is None):
        raise InputError(f"num_pairs={num_pairs} and k={k}; expected one of the two")
    if num_pairs is not None:
        require_existing("num_pairs", num_pairs, num_queries * num_references, "pairs")
    if k is not None:
        require_existing("k", k, num_references, "references")


# --- the work --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """The size of the answer, and the memory of each worker in GB."""

    num_pairs: int | None
    k: int | None
    memory_gb: float


class Searcher:
    """An actor that searches a shard."""

    def __init__(self) -> None:
        self._done = 0

    def done(self) -> int:
        """Return the number of pairs compared so far."""
        return self._done

    def search(
        self, queries: Descriptors, references: Path | Descriptors, shard: Shard, wanted: _Wanted
    ) -> ShardAnswer:
        """Return the best pairs of the shard; `references` is the file of all references, or the shard's own."""
        _stay_on(shard.core, shard.cores)
        with named_node():
            if isinstance(references, Path):
                references = read_shard(references, shard.number, rows=shard.rows)
            best = self._best(queries.vectors, references.vectors, wanted, engine=_engine_of(shard))
        return ShardAnswer(best.query, best.reference + shard.first, best.distance)

    def _best(self, queries: Vectors, references: Vectors, wanted: _Wanted, *, engine: Engine) -> ShardAnswer:
        def report(done: int, _total: int) -> None:
            self._done = done

        memory_gb = wanted.memory_gb
        if wanted.k is not None:
            row, distance = nearest(
                queries, references, k=wanted.k, memory_gb=memory_gb, engine=engine, progress=report
            )
            return ShardAnswer(np.repeat(np.arange(len(queries)), row.shape[1]), row.ravel(), distance.ravel())
        pairs = len(queries) * len(references)
        num_pairs = pairs if wanted.num_pairs is None else min(wanted.num_pairs, pairs)
        best = nearest_pairs(
            queries, references, num_pairs=num_pairs, memory_gb=memory_gb, engine=engine, progress=report
        )
        return ShardAnswer(best.query, best.reference, best.distance)


def read_shard(path: Path, number: int, *, rows: int) -> Descriptors:
    """Read shard `number` of a file's references, with `rows` references per shard."""
    return next(descriptor_blocks(path, rows=rows, first=number * rows, role="reference"))


def _engine_of(shard: Shard) -> Engine:
    """Return the engine of an actor: that of GPUs if Ray gave it one that torch sees. The answers are equal."""
    return Engine.torch_half if shard.gpu and cuda_devices() else Engine.numpy


def _stay_on(core: int, cores: int) -> None:
    """Pin this thread, and the threads that it starts, to `cores` cores of the machine from `core` on."""
    if hasattr(os, "sched_setaffinity"):  # not on macOS
        there = sorted(os.sched_getaffinity(os.getpid()))
        os.sched_setaffinity(0, {there[(core + number) % len(there)] for number in range(cores)})


def _search_shards(
    queries: Descriptors,
    references: Path | Descriptors,
    shards: list[Shard],
    wanted: _Wanted,
    done: _Done,
) -> ShardAnswer:
    """Return the best pairs of all shards, merged as the shards finish."""
    ray = require_ray()
    told, waiting = ray.put(queries), {}
    for shard in shards:
        actor = (
            ray.remote(Searcher)
            .options(
                num_cpus=shard.cores,
                num_gpus=int(shard.gpu),
                max_restarts=RETRIES,
                max_task_retries=RETRIES,
                max_concurrency=2,  # one call searches, another asks for progress
                scheduling_strategy=on_node(shard.node, elsewhere=True),
            )
            .remote()
        )
        waiting[actor.search.remote(told, _part(references, shard), shard, wanted)] = (shard, actor)
    best = ShardAnswer(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    try:
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=POLL)
            for task in ready:
                shard, actor = waiting.pop(task)
                with as_input_errors(lambda: "expected shards that fit into the nodes' memory: try more actors="):
                    found = ray.get(task)
                best = merge(best, found, num_pairs=wanted.num_pairs, k=wanted.k)
                done.finished(shard)
                ray.kill(actor)  # its place is free for the next shard
            done.ask({shard.number: actor for shard, actor in waiting.values()})
    finally:  # after an error or Ctrl-C too
        for _, actor in waiting.values():
            ray.kill(actor)
    return best


def _part(references: Path | Descriptors, shard: Shard) -> Any:
    """Return the references that a shard's actor receives: the file, or Ray's reference to the shard's descriptors."""
    if isinstance(references, Path):
        return references.absolute()
    rows = slice(shard.first, shard.first + shard.rows)
    return require_ray().put(Descriptors(references.ids[rows], references.vectors[rows]))


class _Done:
    """The progress of the search: finished shards in full, the others as their actors report."""

    def __init__(self, queries: int, references: int, report: Report | None) -> None:
        self._queries, self._references, self._report = queries, references, report
        self._pairs: dict[int, int] = {}  # compared, by shard number
        self._asked: dict[int, Any] = {}

    def finished(self, shard: Shard) -> None:
        self._asked.pop(shard.number, None)
        self._pairs[shard.number] = self._queries * min(shard.rows, self._references - shard.first)
        self._tell()

    def ask(self, actors: dict[int, Any]) -> None:
        """Update the progress of these shards from their actors, without waiting for any."""
        ray = require_ray()
        for number, actor in actors.items():
            if number not in self._asked:
                self._asked[number] = actor.done.remote()
            answered, _ = ray.wait([self._asked[number]], timeout=0)
            if answered:
                del self._asked[number]
                with contextlib.suppress(ray.exceptions.RayError):  # it died; its search raises the error
                    self._pairs[number] = ray.get(answered[0])
        self._tell()

    def _tell(self) -> None:
        if self._report:
            self._report(sum(self._pairs.values()), self._queries * self._references)
