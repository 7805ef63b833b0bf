"""Extraction and exact search by Ray actors on this machine, compared with one process; estimates for N photos.

    python -m benchmarks.cluster

Each is timed with few and with many photos (or references). Only the difference of the two times gives the rate, so
that the cost of starting is separate. The estimates use the rates measured here, per actor of one core: they are
arithmetic, not measurements.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import save
from benchmarks.extract import listed
from isc.config.choices import Precision, Where
from isc.config.extract import ExtractConfig
from isc.data.descriptors import Descriptors
from isc.extract.run import extract
from isc.photos.folders import SAMPLE
from isc.photos.sources import list_photos
from isc.runtime.cpus import cores

FEW, MANY = 256, 2560  # photos
QUERIES, REFERENCES = 1000, (20_000, 200_000)
DIM = 256
SUMS = (10**6, 10**8, 10**9)
MACHINES = {"1 × 16 cores": 16, "16 × 64 cores": 1024}
ASKED = 50_000  # queries of the estimates


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def extraction(folder: Path, engine: Where) -> tuple[float, float, float]:
    """Return photos per second, seconds before the first photo, and bytes per photo in the file."""
    sample = list_photos(SAMPLE)
    files = [sample.file(row) for row in range(len(sample))]
    took = []
    for count in (FEW, MANY):
        output = folder / f"{engine.value}_{count}.h5"
        config = ExtractConfig(
            images=[str(listed(folder, files, count))], output=str(output), engine=engine, precision=Precision.float32
        )
        took.append(timed(lambda config=config: extract(config)))  # type: ignore[misc]
    rate = (MANY - FEW) / (took[1] - took[0])
    return rate, max(0.0, took[0] - FEW / rate), output.stat().st_size / MANY


def search(find: Callable[[Descriptors, Descriptors], object]) -> tuple[float, float]:
    """Return pairs per second, and seconds before the first pair."""
    queries = made("q", QUERIES)
    took = []
    for count in REFERENCES:
        references = made("r", count)
        took.append(timed(lambda references=references: find(queries, references)))  # type: ignore[misc]
    rate = QUERIES * (REFERENCES[1] - REFERENCES[0]) / (took[1] - took[0])
    return rate, max(0.0, took[0] - QUERIES * REFERENCES[0] / rate)


def made(name: str, count: int) -> Descriptors:
    vectors = np.random.default_rng(count).standard_normal((count, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Descriptors(np.array([f"{name}{row:09d}" for row in range(count)], dtype=object), vectors)


def beside(what: str, one: tuple[float, float], many: tuple[float, float], unit: str, by: float) -> dict[str, object]:
    return {
        "what": what,
        f"one process, all {cores()} cores": f"{one[0] / by:.0f} {unit}/s",
        f"Ray, {cores()} actors of a core": f"{many[0] / by:.0f} {unit}/s",
        "Ray ÷ one process": f"{many[0] / one[0]:.2f}",
        "starting, s": f"{one[1]:.1f} and {many[1]:.1f}",
    }


def sums(photos: float, pairs: float, size: float) -> list[dict[str, object]]:
    """Return the table of estimates from photos and pairs per second of one core, and bytes per photo."""
    rows: list[dict[str, object]] = []
    for count in SUMS:
        row: dict[str, object] = {"photos": f"{count:,}"}
        for name, number in MACHINES.items():
            row[f"{name}: hours to extract"] = f"{count / photos / number / 3600:,.1f}"
            row[f"{name}: hours to search, {ASKED:,} queries"] = f"{ASKED * count / pairs / number / 3600:,.2f}"
        row["descriptors, GB"] = f"{count * size / 1e9:,.0f}"
        row["while they are made, GB"] = f"{2 * count * size / 1e9:,.0f}"
        rows.append(row)
    return rows


def main() -> None:
    from isc.search.exact import best_pairs
    from isc.search.ray_search import cluster_pairs

    wanted = 10 * QUERIES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        *local, size = extraction(folder, Where.local)
        *ray, _ = extraction(folder, Where.ray)
    here = search(lambda queries, references: best_pairs(queries, references, num_pairs=wanted))
    there = search(
        lambda queries, references: cluster_pairs(queries, references, num_pairs=wanted, k=None, actors=cores())
    )
    rows = [
        beside("extraction, isc_small at 192 px", (local[0], local[1]), (ray[0], ray[1]), "photos", 1),
        beside(f"exact search, {QUERIES:,} queries", here, there, "million pairs", 1e6),
    ]
    save("cluster_run", rows)
    save("cluster", sums(ray[0] / cores(), there[0] / cores(), size))


if __name__ == "__main__":
    main()
