"""The steps of the exact search."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.checks import descriptors
from benchmarks.gpu.rows import Row, Size, seconds_of, wait
from isc.config.choices import Engine
from isc.search.exact import best_pairs, nearest
from isc.search.kernels import chunk_maxima, device_rows
from isc.search.kernels.device_search import DeviceSearch
from isc.search.kernels.numpy_kernel import squared_distances

DIM = 256
K = 50


@functools.lru_cache(maxsize=2)
def unit(count: int, seed: int) -> np.ndarray:
    """Return random unit vectors [count, DIM]."""
    vectors = np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def product_seconds(device: str, size: Size, dtype: torch.dtype) -> float:
    """Return the seconds of all products alone, in tiles that fit, each written over the one before."""
    queries = torch.from_numpy(unit(size.queries, 0)).to(device, dtype)
    references = torch.from_numpy(unit(size.references, 1)).to(device, dtype)
    step = 65_536
    out = torch.empty(len(queries), step, device=device, dtype=dtype)

    def products() -> None:
        for start in range(0, len(references), step):
            block = references[start : start + step]
            torch.mm(queries, block.T, out=out if len(block) == step else None)

    return seconds_of(products, repeats=size.repeats)


def product(device: str, size: Size, _folder: Path) -> list[Row]:
    operations = 2 * size.queries * size.references * DIM
    kinds = (torch.float16, torch.bfloat16) if device == "cuda" else (torch.float32,)
    rates = {kind: operations / product_seconds(device, size, kind) / 1e12 for kind in kinds}
    limit = {torch.float16: 989.0, torch.bfloat16: 989.0}
    return [
        Row(f"products alone, {str(kind).removeprefix('torch.')}", rate, "TFLOP/s", limit.get(kind), "data sheet, H100")
        for kind, rate in rates.items()
    ]


def maxima(device: str, size: Size, _folder: Path) -> list[Row]:
    """The chunk maxima by the kernel and by torch, beside the products alone."""
    half = torch.float16
    q = device_rows.Rows.empty(size.queries, DIM, device=torch.device(device), kind=half, multiple=1)
    r = device_rows.Rows.empty(size.references, DIM, device=torch.device(device), kind=half, multiple=chunk_maxima.TILE)
    for rows, vectors in ((q, unit(size.queries, 0)), (r, unit(size.references, 1))):
        for _ in rows.ready(vectors):
            pass
    alone = product_seconds(device, size, half if device == "cuda" else torch.float32)
    out = torch.empty(size.queries, len(r.vectors) // chunk_maxima.CHUNK, device=device)
    ways = {"torch": chunk_maxima.maxima_by_torch}
    if chunk_maxima._by_triton(str(q.vectors.device)):
        ways = {"Triton": chunk_maxima.chunk_maxima} | ways
    limits = device_rows.bounds(q, r)
    some = min(200, size.queries)
    square = ((q.vectors[:some, None, :] - r.vectors[None, :640, :]) ** 2).sum(dim=2)
    check = square.view(some, -1, chunk_maxima.CHUNK).amin(dim=2) / -2
    rows = []
    for name, way in ways.items():
        took = seconds_of(lambda way=way: way(q.operand, q.half, r.operand, r.half, out), repeats=size.repeats)
        right = bool((out[:some, :10] - check).abs().max() <= limits.maxima + limits.float32)
        rows.append(Row(f"maxima of chunks, {name}", took, "s", alone, "products alone", right))
    return rows


def search(device: str, size: Size, _folder: Path) -> list[Row]:
    """The whole search from arrays in memory to the pairs, beside the products alone; and its bytes against numpy's."""
    queries, references = unit(size.queries, 0), unit(size.references, 1)
    engine = DeviceSearch([device], half=True, memory=1 << 30)
    fewer = DeviceSearch([device], half=True, memory=1 << 30)
    whole = DeviceSearch([device], half=False, memory=1 << 30)
    alone = product_seconds(device, size, torch.float16 if device == "cuda" else torch.float32)
    found = {}

    def best() -> None:
        found["best"] = engine.best_pairs(queries, references, num_pairs=size.pairs)

    def near() -> None:
        found["near"] = engine.nearest(queries, references, k=K)

    rows = [Row("best pairs, references sent", seconds_of(best, repeats=size.repeats), "s", alone, "products alone")]
    with device_rows.keeping_references():
        took = seconds_of(best, repeats=size.repeats)
        each = seconds_of(near, repeats=size.repeats)
    small = references[: size.checked]
    row, distance = nearest(queries[:100], small, k=K, engine=Engine.numpy)
    there = fewer.nearest(queries[:100], small, k=K)
    equal = row.ravel().tobytes() == there.reference.tobytes() and distance.tobytes() == there.distance.tobytes()
    rows.append(
        Row(
            "best pairs, references kept",
            took,
            "s",
            alone,
            "products alone",
            _slow_equal(found["best"], queries, references),
        )
    )
    rows.append(Row(f"{K} nearest of each query", each, "s", alone, "products alone", equal))
    rows += [_public(queries, references, size, alone, found["best"])]
    slow = product_seconds(device, size, torch.float32)

    def best_in_float32() -> None:
        found["float32"] = whole.best_pairs(queries, references, num_pairs=size.pairs)

    took = seconds_of(best_in_float32, repeats=1)
    same = _same(found["float32"], found["best"])
    rows.append(Row("best pairs, engine=torch, references sent", took, "s", slow, "products in float32", same))
    if device == "cuda":
        rows += _profiled(best)
    return rows


def _public(queries: np.ndarray, references: np.ndarray, size: Size, alone: float, best: object) -> Row:
    """Time the function that programs call, from descriptors to matches."""
    sides, found = [descriptors(part) for part in (queries, references)], {}

    def call() -> None:
        found["pairs"] = best_pairs(*sides, num_pairs=size.pairs, engine=Engine.torch_half)

    took = seconds_of(call, repeats=size.repeats)
    return Row("best pairs, exact.best_pairs", took, "s", alone, "products alone", _same(found["pairs"], best))


def _same(one: object, other: object) -> bool:
    return all(vars(one)[name].tobytes() == vars(other)[name].tobytes() for name in ("query", "reference"))


def _slow_equal(best: object, queries: np.ndarray, references: np.ndarray) -> bool:
    """Compare the pairs of 100 queries with all their distances in float64."""
    pairs = vars(best)
    end = pairs["distance"][-1]
    chosen = np.random.default_rng(2).permutation(len(queries))[:100]
    for query in chosen:
        mine = pairs["query"] == query
        square = references.astype(np.float64) if len(references) < 10_000 else None
        if square is None:  # a bound first, so that a million differences need not be made 100 times
            rough = 2 - 2 * (references @ queries[query])
            near = np.flatnonzero(rough <= end + 1e-4)
        else:
            near = np.arange(len(references))
        exact = squared_distances(queries, references, np.full(len(near), query), near)
        known = dict(zip(near.tolist(), exact.tolist(), strict=True))
        found = dict(zip(pairs["reference"][mine].tolist(), pairs["distance"][mine].tolist(), strict=True))
        if any(known.get(reference) != distance for reference, distance in found.items()):
            return False
        if set(near[exact < end].tolist()) - found.keys():
            return False
    return True


def _profiled(action: Callable[[], None]) -> list[Row]:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as taken:
        action()
        wait()
    events = sorted(taken.key_averages(), key=lambda one: -one.device_time_total)[:8]
    return [Row(f"profile: {one.key[:60]} × {one.count}", one.device_time_total / 1e6, "s") for one in events]
