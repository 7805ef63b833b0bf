"""Adapter for faiss: seeds, quiet output and one-line errors."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from isc.config.choices import Device
from isc.data.option_texts import split_options
from isc.errors import InputError, needing
from isc.search.kernels.faiss_kernel import faiss_gpus


def parse_search(search: str) -> dict[str, float]:
    """Parse `nprobe=32,efSearch=64` to {name: number}. Raises InputError if a part is not NAME=NUMBER above 0."""
    text = re.sub(r"[\s,]*,[\s,]*", ",", search).strip(" ,")
    try:
        given = split_options(text) if text else {}
        return {name: _parameter(name, value) for name, value in given.items()}
    except InputError as error:
        raise InputError(f"search={search}: {error}; for example nprobe=32,efSearch=64") from error


def _parameter(name: str, text: str) -> float:
    number = float(text) if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII) else 0.0
    if not re.fullmatch(r"[A-Za-z_]+", name) or not 0 < number < 2**31:
        raise InputError(f"{name}={text}: expected NAME=NUMBER, a number above 0")
    return number


def faiss_module() -> ModuleType:
    """Import and return faiss. Raises InputError if it is not installed."""
    with needing("an approximate index", extra="approximate"):
        import faiss

    loaded: ModuleType = faiss
    return loaded


@contextlib.contextmanager
def one_line_errors(what: str) -> Iterator[None]:
    """Raise faiss's errors as InputError, in one line and without faiss's file names."""
    try:
        yield
    except RuntimeError as error:
        reason = re.split(r"\.(?:cpp|cu|h|cuh):\d+: ", str(error).strip() or type(error).__name__)[-1]
        reason = " ".join(re.sub(r"^Error: '.*?' failed: ", "", reason).split())
        raise InputError(f"{what} ({reason})") from error


def inverted_file(index: Any) -> Any | None:
    """Return the inverted file inside an index, or None."""
    return faiss_module().try_extract_index_ivf(index)


def has_plain_lists(index: Any) -> bool:
    """Return whether an IVF index keeps everything about its references in inverted lists of arrays."""
    faiss = faiss_module()
    outer, lists = faiss.downcast_index(index), faiss.downcast_index(inverted_file(index))
    return (
        isinstance(outer, faiss.IndexIVF | faiss.IndexPreTransform)
        and isinstance(faiss.downcast_InvertedLists(lists.invlists), faiss.ArrayInvertedLists)
        and not isinstance(lists, faiss.IndexIVFPQR)
    )


@contextlib.contextmanager
def seeded(index: Any, seed: int) -> Iterator[int]:
    """Seed all clusterings of the index's training, and yield the largest number of centroids.

    faiss's own warnings about too few training points are turned off.
    """
    faiss = faiss_module()
    sizes, rotations = [0], []
    for part in _layers(index):
        if isinstance(part, faiss.OPQMatrix):  # makes its own quantizer in training, unless it has one
            part.pq = faiss.ProductQuantizer(part.d_out, part.M, 8)
            rotations.append((part, part.pq))
        quantizer: Any = getattr(part, "pq", None)
        for clustered in (part, quantizer):
            if hasattr(clustered, "cp"):
                clustered.cp.seed, clustered.cp.min_points_per_centroid = seed, 1
                sizes.append(part.nlist if clustered is part else clustered.ksub)
    try:
        yield max(sizes)
    finally:
        for rotation, _ in rotations:
            rotation.pq = None


@contextlib.contextmanager
def clustering_on_gpus(index: Any, device: Device) -> Iterator[None]:
    """Let the GPUs that faiss sees find the nearest centroid of each training row of an inverted file.

    Nothing changes on `device` cpu, without GPUs, or for an index without lists.
    """
    lists = inverted_file(index)
    if lists is None or device is Device.cpu or not faiss_gpus():
        yield
        return
    faiss = faiss_module()
    with one_line_errors("the centroids of the lists: not on the GPUs"):
        nearest = faiss.index_cpu_to_all_gpus(faiss.IndexFlatL2(lists.d))
    lists.clustering_index = nearest  # faiss holds a bare pointer: the name keeps it alive
    try:
        yield
    finally:
        lists.clustering_index = None


def _layers(index: Any) -> Iterator[Any]:
    """Yield the index, its transforms and the indexes inside it, down to the one that holds the codes."""
    faiss = faiss_module()
    index = faiss.downcast_index(index)
    yield index
    if isinstance(index, faiss.IndexPreTransform):
        yield from (faiss.downcast_VectorTransform(index.chain.at(at)) for at in range(index.chain.size()))
    for inner in ("index", "base_index", "storage"):
        if hasattr(index, inner):
            yield from _layers(getattr(index, inner))


@contextlib.contextmanager
def quiet_faiss() -> Iterator[None]:
    """Keep faiss's messages about lists on disk off the standard output."""
    flush = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    flush(None)
    kept = os.dup(1)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)


def cagra_index(factory: str, dim: int) -> Any:
    faiss = faiss_module()
    degree = re.fullmatch(r"CAGRA(\d*)", factory)
    if not degree:
        raise InputError(f"index={factory}: expected CAGRA, or CAGRA64 for 64 edges a node")
    if not hasattr(faiss, "GpuIndexCagra") or not faiss_gpus():
        raise InputError(f"index={factory}: needs an NVIDIA GPU and the package faiss-gpu-cuvs; without, use HNSW32")
    config = faiss.GpuIndexCagraConfig()
    config.graph_degree = int(degree[1] or 64)
    config.intermediate_graph_degree = 2 * config.graph_degree
    resources = faiss.StandardGpuResources()
    with one_line_errors(f"index={factory}: not made"):
        index = faiss.GpuIndexCagra(resources, dim, faiss.METRIC_L2, config)
    index.resources = resources  # keeps the resources alive as long as the index
    return index
