"""The approximate index: IVF, PQ, HNSW, and their combinations in faiss."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from isc.config.choices import Device
from isc.data.files import atomic_folder
from isc.errors import InputError
from isc.runtime.progress import Report
from isc.search.approximate.arrays import BLOCK, Lists, Vectors, checked, hash_sample, k_nearest_of_each, shape_text
from isc.search.approximate.card import LISTS, Card, write_index
from isc.search.approximate.faiss_adapter import (
    cagra_index,
    clustering_on_gpus,
    faiss_module,
    inverted_file,
    one_line_errors,
    parse_search,
    seeded,
)
from isc.search.kernels.faiss_kernel import GPU_MAX_K, faiss_gpus
from isc.search.kernels.numpy_kernel import squared_distances

log = logging.getLogger(__name__)
QUERIES, CELLS = 1024, 1 << 22  # queries, and (query, candidate) pairs, searched at once
ENOUGH = 39  # training rows per centroid below which faiss warns
FACTOR = 4  # candidates per wanted neighbour whose distances are computed again


class Approximate:
    """An approximate index to fill: mutable, since a second one may not fit in memory, and not thread-safe."""

    def __init__(self, index: Any, card: Card, *, sealed: str = "", on_gpu: bool = False) -> None:
        """Wrap a faiss index; `sealed` is the reason why it accepts no more references, empty if it accepts them."""
        self._index, self._card, self._sealed, self._on_gpu = index, card, sealed, on_gpu
        self._sample = hashlib.sha256()
        self._origin: Approximate | None = None  # the same index on the CPU, if this one is on GPUs
        self._space = faiss_module().GpuParameterSpace() if on_gpu else faiss_module().ParameterSpace()
        self._defaults = dict(self._accepted())

    @classmethod
    def train(cls, factory: str, training: Vectors, *, seed: int = 0, device: Device = Device.auto) -> Approximate:
        """Train an empty index. `factory` is faiss's string, for example OPQ32,IVF4096,PQ32 or HNSW32.

        CAGRA or CAGRA64 (with 64 edges per node) needs a build of faiss with cuVS. `training` [T, D] must not be the
        references: the challenge allows statistics of training descriptors only. The same seed, threads, faiss and
        device give the same index, except for graphs built by several threads. GPUs, if faiss sees any and `device` is
        not cpu, cluster the training rows into lists. Raises InputError if faiss does not know the string, or
        `training` has fewer rows than the index has centroids.
        """
        training = checked("training", training)
        dim = training.shape[1]
        lists = re.search(r"IVF(\d+)", factory)
        if lists and not 1 <= int(lists[1]) <= len(training):  # before faiss allocates them
            raise InputError(
                f"index={factory}: {lists[1]} lists from {len(training)} training descriptors; "
                f"expected 1…{len(training)} lists, or better {ENOUGH} descriptors for each"
            )
        card = Card(factory, dim, 0, seed, hashlib.sha256(training.data).hexdigest(), "")
        if factory.startswith("CAGRA"):
            return cls(cagra_index(factory, dim), card, on_gpu=True)
        faiss = faiss_module()
        with one_line_errors(
            f"index={factory}: faiss makes none of {dim} numbers; expected one like OPQ32,IVF4096,PQ32"
        ):
            index = faiss.index_factory(dim, factory, faiss.METRIC_L2)
        with (
            seeded(index, seed) as most,
            one_line_errors(f"index={factory}: not trained by {len(training)} descriptors"),
        ):
            if len(training) < most:
                raise InputError(
                    f"index={factory}: {most} centroids, {len(training)} training descriptors; expected more"
                )
            if len(training) < ENOUGH * most:
                log.warning("%d training descriptors; better %d for index=%s", len(training), ENOUGH * most, factory)
            with clustering_on_gpus(index, device):
                index.train(training)
        return cls(index, card)

    @property
    def card(self) -> Card:
        return self._card

    def __len__(self) -> int:
        return self._card.count

    def add(self, vectors: Vectors, *, progress: Report | None = None) -> None:
        """Append references [N, D], which may be a memory map, as the next N rows.

        Raises InputError if the index accepts no more references.
        """
        if self._sealed:
            raise InputError(f"{self._sealed}; train and fill another to add references")
        if self._card.factory.startswith("CAGRA"):
            self._require(len(self) == 0, "CAGRA makes its graph at once; expected all references in one call")
            self._add(vectors)
            return
        for start in range(0, len(vectors), BLOCK):
            self._add(vectors[start : start + BLOCK])
            if progress:
                progress(min(start + BLOCK, len(vectors)), len(vectors))

    def _add(self, vectors: Vectors) -> None:
        block = checked("references", vectors, self._card.dim)
        with one_line_errors(f"index={self._card.factory}: takes no references"):
            self._index.add(block)
        self._count(block)

    def _count(self, block: Vectors) -> None:
        hash_sample(self._sample, block, len(self))
        count = len(self) + len(block)
        self._card = replace(self._card, count=count, references_sha256=self._sample.hexdigest())

    def knn(
        self,
        queries: Vectors,
        *,
        k: int,
        search: str = "",
        vectors: Vectors | None = None,
        factor: int = FACTOR,
        progress: Report | None = None,
    ) -> Lists:
        """Return query numbers, rows and squared distances [M] of up to k neighbours of each query, nearest first.

        `search` sets parameters of faiss for this call, `nprobe=32` or `efSearch=64`, several with commas; their
        defaults are √lists and 64. A list is shorter than k if fewer references exist, or lie in the probed lists.
        Distances are those of the index, approximate if it compresses. With the references' own `vectors` [N, D], which
        may be a memory map, the k nearest of factor · k candidates are chosen by their distances in float64. Raises
        InputError if the index is empty, or `search` or `vectors` do not fit it.
        """
        queries = checked("queries", queries, self._card.dim)
        for name, value in {"k": k, "factor": factor}.items():
            if value < 1:
                raise InputError(f"{name}={value}; expected at least 1")
        self._require(len(self) > 0, "holds no references; expected at least one")
        if vectors is not None:
            self.check_references(vectors)
        candidates = min(len(self), k if vectors is None else factor * k)
        if self._on_gpu and candidates > GPU_MAX_K:
            return self._twin_on_cpu().knn(
                queries, k=k, search=search, vectors=vectors, factor=factor, progress=progress
            )
        step = min(QUERIES, max(1, CELLS // candidates))
        self._configure(search)
        found: list[Lists] = []
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            with one_line_errors(f"index={self._card.factory}: not searched for {candidates} neighbours"):
                near, row = self._index.search(block, candidates)
            filled = row.ravel() >= 0
            query = np.repeat(np.arange(len(block)), candidates)[filled]
            row = row.ravel()[filled].astype(np.int64)
            if vectors is None:
                distance = np.maximum(near.ravel()[filled].astype(np.float64), 0)
            else:
                distance = squared_distances(block, vectors, query, row)
            query, row, distance = k_nearest_of_each(query, row, distance, k)
            found.append((query + start, row, distance))
            if progress:
                progress(start + len(block), len(queries))
        query, row, distance = zip(*found, strict=True)
        return np.concatenate(query), np.concatenate(row), np.concatenate(distance)

    def check_references(self, vectors: Vectors) -> None:
        """Raise InputError unless these are the vectors of the index, in the same order."""
        if vectors.shape != (len(self), self._card.dim):
            known = f"{len(self)} × {self._card.dim}"
            raise InputError(f"references are {shape_text(vectors)}, those of the index {known}; expected the same")
        sample = hashlib.sha256()
        hash_sample(sample, vectors, 0)
        if sample.hexdigest() != self._card.references_sha256:
            raise InputError("references are not those of the index, or in another order; expected the same")

    def save(self, folder: Path) -> None:
        """Write the index as a folder, completely or not at all; the files of an earlier index are replaced.

        Raises InputError if it is empty, or was not filled in this process.
        """
        self._require(len(self) > 0, "holds no references; expected at least one")
        if self._sealed:
            raise InputError(f"{self._sealed}; only an index that was filled here can be saved")
        with atomic_folder(folder, owned=(LISTS,)) as beside:
            write_index(beside, self._on_cpu(), self._card)

    def to(self, device: Device) -> Approximate:
        """Return the index on `device`; on GPUs its rows are divided among all of them.

        `auto` uses GPUs if faiss sees any and supports this index there. Raises InputError if `cuda` is requested but
        impossible.
        """
        faiss = faiss_module()
        if device is Device.cpu or self._on_gpu or (device is Device.auto and not faiss_gpus()):
            return self
        if not faiss_gpus():
            raise InputError("device=cuda: faiss sees no GPU; expected device=cpu, or a build of faiss with CUDA")
        options = faiss.GpuMultipleClonerOptions()
        options.shard = True
        try:
            with one_line_errors(f"index={self._card.factory}: not for GPUs"):
                index = faiss.index_cpu_to_all_gpus(self._index, options)
        except InputError as error:
            if device is not Device.auto:
                raise
            log.info("%s; it stays on the CPU", error)
            return self
        moved = Approximate(index, self._card, sealed=f"index={self._card.factory}: is on the GPUs", on_gpu=True)
        moved._defaults, moved._origin = self._defaults, self
        return moved

    def _twin_on_cpu(self) -> Approximate:
        """Return the same index on the CPU, which has longer lists than faiss has on a GPU."""
        if self._origin is None:
            self._origin = Approximate(self._on_cpu(), self._card, sealed=self._sealed or "this is a copy of an index")
            self._origin._sample = self._sample
        return self._origin

    def _on_cpu(self) -> Any:
        if not self._on_gpu:
            return self._index
        faiss = faiss_module()
        index = faiss.IndexHNSWCagra()
        index.base_level_only = True  # keeps the graph as it is; nothing can be added
        self._index.copyTo(index)
        return index

    def _accepted(self) -> Iterator[tuple[str, float]]:
        """Set and yield our defaults (name, value) of the search parameters that the index has."""
        lists = inverted_file(self._index)
        effort = {"nprobe": round(lists.nlist**0.5) if lists else 1, "efSearch": 64}
        for name, value in effort.items():
            with contextlib.suppress(RuntimeError):
                self._space.set_index_parameter(self._index, name, value)
                yield name, value

    def _configure(self, search: str) -> None:
        for name, value in (self._defaults | parse_search(search)).items():
            with one_line_errors(f"search={search}: index={self._card.factory} has no such parameter"):
                self._space.set_index_parameter(self._index, name, value)

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise InputError(f"index={self._card.factory}: {what}")
