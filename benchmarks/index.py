"""Adding to the updatable index and answering one query, each compared with the bare operation that limits it."""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import save, seconds
from isc.data.descriptors import Descriptors
from isc.search.index.index import Index

SIZES = (10_000, 100_000, 1_000_000)
DIM = 256
ONE_BY_ONE = 200


def unit(rng: np.random.Generator, rows: int, prefix: str) -> Descriptors:
    vectors = rng.standard_normal((rows, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Descriptors(np.array([f"{prefix}{i:07}" for i in range(rows)], dtype=object), vectors)


def write_and_wait(path: Path, blocks: list[np.ndarray]) -> float:
    """Return the seconds to append the blocks to a file, each on the disk before the next."""
    start = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for block in blocks:
            file.write(block.data)
            os.fsync(file.fileno())
    return time.perf_counter() - start


def row(what: str, took: float, unit_: str, beside: str, bare: float) -> dict[str, object]:
    return {"what": what, unit_: f"{took:.3g}", "beside": f"{beside}: {bare:.3g}", "ratio": round(took / bare, 2)}


def main() -> None:
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    sizes = [size for size in SIZES if size <= int(sys.argv[1] if len(sys.argv) > 1 else SIZES[-1])]
    query = unit(rng, 1, "q")
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            references = unit(rng, size, "r")
            index = Index.create(Path(folder, "index"), dim=DIM, provenance={})
            bare = write_and_wait(Path(folder, "bare"), np.array_split(references.vectors, max(1, size // 50_000)))
            start = time.perf_counter()
            with index.writer() as writer:
                writer.add(references, provenance={})
            took = time.perf_counter() - start
            rows.append(row(f"add {size:,} at once", took, "seconds", "write and fsync of the same bytes", bare))

            def ask(index: Index = index) -> None:
                Index.open(index.path).knn(query, k=10, provenance={})

            def product(vectors: np.ndarray = references.vectors) -> None:
                np.argpartition(-(vectors @ query.vectors[0]), 10)

            ask()
            took, bare = seconds(ask), seconds(product)
            rows.append(row(f"open, one query of {size:,}, k = 10", took, "seconds", "numpy product in memory", bare))
            if size == SIZES[0]:
                rows.append(one_by_one(rng, index, Path(folder, "bare")))
    save("index", rows)


def one_by_one(rng: np.random.Generator, index: Index, bare: Path) -> dict[str, object]:
    """Measure adding images one by one, each on the disk before the next."""
    new = unit(rng, ONE_BY_ONE, "n")
    ones = [Descriptors(new.ids[at : at + 1], new.vectors[at : at + 1]) for at in range(ONE_BY_ONE)]
    waited = write_and_wait(bare, [one.vectors for one in ones])
    start = time.perf_counter()
    with index.writer() as writer:
        for one in ones:
            writer.add(one, provenance={})
    took = time.perf_counter() - start
    what = f"add {ONE_BY_ONE} one by one, each on the disk"
    return row(what, took, "seconds", "write and fsync of each", waited)


if __name__ == "__main__":
    main()
