"""Exact search for the best pairs of all queries, compared with faiss and with the matrix product alone.

    python -m benchmarks.search [--shape QUERIES REFERENCES PAIRS]...

The vectors are random, of unit length, with 256 numbers. No exact search can avoid the matrix product. `faiss.knn` with
k = 10 gives the ten best references of each query, which is less than the answer. `range_search_max_results` is faiss's
own way to the best pairs, with a radius that shrinks; here its first radius comes from a sample of the queries, for
twice the pairs wanted.
"""

import argparse
import functools
from collections.abc import Callable

import faiss
import numpy as np
from faiss.contrib.exhaustive_search import range_search_max_results

from benchmarks import save, seconds
from isc.config.choices import Engine
from isc.data.descriptors import Descriptors
from isc.search.exact import best_pairs, knn, nearest
from isc.search.kernels.device_search import cuda_devices

SHAPES = ((2_000, 100_000, 20_000), (10_000, 1_000_000, 100_000))
CUDA_SHAPE = (50_000, 1_000_000, 500_000)
DIM = 256
BLOCK = 1024  # queries of a range search, references of a bare product
Row = dict[str, object]


def unit(rng: np.random.Generator, rows: int, prefix: str) -> Descriptors:
    vectors = rng.standard_normal((rows, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Descriptors(np.array([f"{prefix}{i}" for i in range(rows)], dtype=object), vectors)


def products(queries: Descriptors, references: Descriptors) -> None:
    """Compute every q·r and keep none."""
    out = np.empty((len(queries), BLOCK), np.float32)
    for start in range(0, len(references), BLOCK):
        block = references.vectors[start : start + BLOCK]
        np.matmul(queries.vectors, block.T, out=out[:, : len(block)] if len(block) == BLOCK else None)


def shrinking_radius(queries: Descriptors, references: Descriptors, num_pairs: int) -> None:
    sample = queries.vectors[:100]
    wanted = 2 * num_pairs * len(sample) // len(queries)
    near = nearest(sample, references.vectors, k=max(10, 4 * wanted // len(sample)))[1]
    radius = np.sort(near, axis=None)[wanted]
    index = faiss.IndexFlatL2(DIM)
    index.add(references.vectors)
    blocks = (queries.vectors[start : start + BLOCK] for start in range(0, len(queries), BLOCK))
    range_search_max_results(index, blocks, float(radius), max_results=2 * num_pairs, min_results=num_pairs, ngpu=0)


def measure(queries: Descriptors, references: Descriptors, num_pairs: int, *, repeats: int) -> list[Row]:
    shape = f"{len(queries):,} × {len(references):,} × {DIM}"
    time = functools.partial(seconds, repeats=repeats)
    faiss.knn(queries.vectors[:1000], references.vectors[:10000], 10)  # warm up
    bare = time(lambda: faiss.knn(queries.vectors, references.vectors, 10))
    bound = time(lambda: products(queries, references))
    ours = time(lambda: best_pairs(queries, references, num_pairs=num_pairs))
    shrinking = time(lambda: shrinking_radius(queries, references, num_pairs))
    each = time(lambda: knn(queries, references, k=10))
    best = f"best {num_pairs:,} of {shape}, exact"
    return [
        _row(best, ours, "faiss.knn, k = 10", bare),
        _row(best, ours, "the matrix products alone, numpy on all cores", bound),
        _row(best, ours, "faiss's range_search_max_results", shrinking),
        _row(f"10 of each query of {shape}, exact", each, "faiss.knn, k = 10", bare),
    ]


def engines(queries: Descriptors, references: Descriptors, num_pairs: int) -> list[Row]:
    """Measure the other engines on this CPU."""
    shape = f"best {num_pairs:,} of {len(queries):,} × {len(references):,} × {DIM}"
    time = {
        engine: seconds(lambda e=engine: best_pairs(queries, references, num_pairs=num_pairs, engine=e), repeats=3)
        for engine in (Engine.numpy, Engine.torch, Engine.torch_half, Engine.faiss)
    }
    return [_row(f"{shape}, engine={e.value}", time[e], "engine=numpy", time[Engine.numpy]) for e in time]


def on_cuda() -> list[Row]:
    import torch

    rng = np.random.default_rng(0)
    queries, references = unit(rng, CUDA_SHAPE[0], "q"), unit(rng, CUDA_SHAPE[1], "r")
    what = f"best {CUDA_SHAPE[2]:,} of {CUDA_SHAPE[0]:,} × {CUDA_SHAPE[1]:,} × {DIM}, exact, {{}}"
    rows = []
    for engine, kind in ((Engine.torch_half, torch.float16), (Engine.torch, torch.float32)):
        a, b = (torch.from_numpy(one.vectors).to("cuda", kind) for one in (queries, references))

        def products(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            for start in range(0, len(b), 8192):
                a @ b[start : start + 8192].T
            torch.cuda.synchronize()

        products()
        bound = seconds(products)
        find: Callable[[], object] = lambda e=engine: best_pairs(queries, references, num_pairs=CUDA_SHAPE[2], engine=e)  # noqa: E731
        find()
        rows.append(_row(what.format(f"engine={engine.value}"), seconds(find), "the matrix products alone", bound))
    return rows


def _row(what: str, time: float, beside: str, other: float) -> Row:
    return {"what": what, "seconds": round(time, 3), "beside": beside, "seconds there": round(other, 3),
            "ratio": round(time / other, 2)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs=3, type=int, action="append", metavar=("QUERIES", "REFERENCES", "PAIRS"))
    shapes = parser.parse_args().shape or SHAPES
    rows: list[Row] = []
    for num_queries, num_references, num_pairs in shapes:
        rng = np.random.default_rng(0)
        queries, references = unit(rng, num_queries, "q"), unit(rng, num_references, "r")
        if not rows:
            rows += engines(queries, references, num_pairs)
        rows += measure(queries, references, num_pairs, repeats=3)
    save("search", rows)
    if cuda_devices():
        save("search_cuda", on_cuda())


if __name__ == "__main__":
    main()
