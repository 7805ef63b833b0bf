"""Growth of search with 10 k, 100 k, 1 M and 4 M references, exact and IVF-PQ; estimates for up to a billion.

    python -m benchmarks.growth [--descriptors PHOTOS.h5] [--sizes 10000 100000 1000000 4000000] [--folder FOLDER]

Every measurement runs in its own process, so that its peak memory is its own. Memory-mapped files do not count, because
the system takes their memory back when it needs it. The vectors are in one file below FOLDER (1 KB each; 10 M take 10
GB). Exact search reads it into memory, IVF-PQ block by block. `on_paper` computes the estimates from the measurements;
docs/growth.svg shows the measurements, and `python -m benchmarks.results` fills docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks import save, seconds
from benchmarks.approximate import (
    NUM_QUERIES,
    ROOT,
    K,
    Photos,
    Vectors,
    named,
    queries_of,
    real_descriptors,
    say,
)
from isc.evaluate.report.charts import BOTTOM, LEFT, RIGHT, TOP, polyline
from isc.runtime.cpus import cores
from isc.search.approximate.files import load
from isc.search.approximate.index import Approximate
from isc.search.exact import best_pairs, nearest

SIZES = (10_000, 100_000, 1_000_000, 4_000_000)
DIM = 256
CODES, AGAIN = "PQ64x4fsr", 16  # 64 × 4 bits, scanned in registers; candidates ranked again for each neighbour wanted
PAPER = (1_000_000, 100_000_000, 1_000_000_000)
MACHINE_GB, USABLE = 64, 0.8  # of a machine in the estimates: its memory, and the share for descriptors
Row = dict[str, float]


# --- one measurement -------------------------------------------------------------------------------------------------


def exact_point(folder: Path, rows: int) -> Row:
    references = np.fromfile(folder / "references.f32", np.float32, rows * DIM).reshape(rows, DIM)
    queries = np.load(folder / f"queries{rows}.npy")
    row, _ = nearest(queries, references, k=K)
    took = seconds(lambda: nearest(queries, references, k=K), repeats=3 if rows < 2_000_000 else 1)
    np.save(folder / f"exact{rows}.npy", row)
    originals = np.load(folder / f"originals{rows}.npy")
    copies = float((row[: len(originals)] == originals[:, None]).any(axis=1).mean())
    return {"seconds": took, "recall": 1.0, "copies": copies, "bytes": 4.0 * DIM}


def pairs_point(folder: Path, rows: int) -> Row:
    """Measure the search for the best pairs of all queries together."""
    references = named(np.fromfile(folder / "references.f32", np.float32, rows * DIM).reshape(rows, DIM), "R")
    queries = named(np.load(folder / f"queries{rows}.npy"), "Q")
    took = seconds(lambda: best_pairs(queries, references, num_pairs=K * len(queries)), repeats=1)
    return {"seconds": took, "bytes": 4.0 * DIM}


def ivf_pq_point(folder: Path, rows: int) -> Row:
    """Measure IVF-PQ with √N lists, of which 4 √lists are probed.

    160 candidates per query are ranked again by vectors that stay on the disk.
    """
    lists = lists_of(rows)
    search = f"nprobe={probes_of(lists)}"
    references = np.memmap(folder / "references.f32", np.float32, "r", shape=(rows, DIM))
    queries = np.load(folder / f"queries{rows}.npy")
    start = time.perf_counter()
    training = np.fromfile(folder / "training.f32", np.float32, training_of(rows) * DIM).reshape(-1, DIM)
    index = Approximate.train(f"IVF{lists},{CODES}", training)
    trained = time.perf_counter() - start
    with (folder / "references.f32").open("rb") as file:  # read, not mapped: mapped pages would count as memory
        for first in range(0, rows, 1 << 16):
            count = min(1 << 16, rows - first)
            index.add(np.fromfile(file, np.float32, count * DIM).reshape(count, DIM))
    added = time.perf_counter() - start - trained
    index.save(folder / "index")
    size = sum(path.stat().st_size for path in (folder / "index").iterdir())
    del index
    index = load(folder / "index")
    took = seconds(lambda: index.knn(queries, k=K, search=search, vectors=references, factor=AGAIN), repeats=3)
    query, row, _ = index.knn(queries, k=K, search=search, vectors=references, factor=AGAIN)
    originals, first = np.load(folder / f"originals{rows}.npy"), np.arange(len(queries)) * rows
    found, true = query * rows + row, first[:, None] + np.load(folder / f"exact{rows}.npy")
    recall = float(np.isin(true, found).mean())
    copies = float(np.isin(first[: len(originals)] + originals, found).mean())
    return {
        "seconds": took, "recall": recall, "copies": copies, "bytes": size / rows,
        "trained": trained, "added": added, "lists": lists, "probes": probes_of(lists),
    }  # fmt: skip


def lists_of(rows: int) -> int:
    return int(2 ** round(math.log2(rows**0.5)))


def probes_of(lists: int) -> int:
    return min(lists, round(4 * lists**0.5))


def training_of(rows: int) -> int:
    return max(10_000, 20 * lists_of(rows))


@contextmanager
def watched() -> Iterator[list[float]]:
    """Yield a list whose only value becomes the peak memory of this process in GB, read 100 times a second."""
    status = Path("/proc/self/status")
    held, done = [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            anonymous = next(one for one in status.read_text().splitlines() if one.startswith("RssAnon"))
            held[0] = max(held[0], int(anonymous.split()[1]) * 1024 / 1e9)

    watcher = threading.Thread(target=look, daemon=True)
    if status.exists():
        watcher.start()
    yield held
    done.set()
    if status.exists():
        watcher.join()
    else:  # includes mapped files
        held[0] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


POINTS: dict[str, Callable[[Path, int], Row]] = {
    "exact": exact_point,
    "exact, best pairs": pairs_point,
    "IVF-PQ": ivf_pq_point,
}


# --- all measurements ------------------------------------------------------------------------------------------------


def prepare(folder: Path, real: Vectors, sizes: Sequence[int]) -> None:
    """Write the vectors of all measurements; a smaller set is the beginning of a larger one."""
    for name, part, rows, seed in (
        ("training", "training", training_of(max(sizes)), 1),
        ("references", "references", max(sizes), 2),
    ):
        with (folder / f"{name}.f32").open("wb") as file:
            for block in Photos.of(real, part).make(rows, seed=seed):
                block.tofile(file)
    for rows in sizes:
        references = np.memmap(folder / "references.f32", np.float32, "r", shape=(rows, DIM))
        queries, originals = queries_of(real, references)
        np.save(folder / f"queries{rows}.npy", queries)
        np.save(folder / f"originals{rows}.npy", originals)


def run_point(folder: Path, method: str, rows: int) -> Row:
    command = [sys.executable, "-m", "benchmarks.growth", "--folder", str(folder), "--point", method, str(rows)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    values: Row = json.loads(done.stdout.splitlines()[-1])
    return values | {"rows": rows}


def table(points: dict[str, list[Row]]) -> list[dict[str, object]]:
    return [
        {
            "references": f"{row['rows']:,.0f}",
            "search": method,
            f"s for {NUM_QUERIES:,} queries": f"{row['seconds']:.3g}",
            "peak memory, GB": f"{row['gb']:.2f}",
            f"recall@{K}": f"{row['recall']:.3f}" if "recall" in row else "",
            f"copies in {K}": f"{row['copies']:.3f}" if "copies" in row else "",
            "bytes an image": f"{row['bytes']:.0f}",
            "trained, filled in s": f"{row['trained']:.0f}, {row['added']:.0f}" if "trained" in row else "",
        }
        for method, rows in points.items()
        for row in rows
    ]


# --- estimates -------------------------------------------------------------------------------------------------------


def on_paper(points: dict[str, list[Row]]) -> list[dict[str, object]]:
    """Return the estimated cost of larger sets on machines like this one, from the largest measurements.

    Exact: a query takes c seconds per reference. IVF-PQ: a query takes f seconds, and s seconds for each of N · probes
    / lists codes; f and s are a line fitted to all measurements. To add a reference, it is compared with every list, a
    seconds each. A code takes 32 bytes and an 8-byte row number; a list takes 1 KB for its centroid and 4 KB for
    faiss's table of distances.
    """
    exact, coded = points["exact"][-1], points["IVF-PQ"]
    compare = exact["seconds"] / NUM_QUERIES / exact["rows"]
    codes = [row["rows"] * row["probes"] / row["lists"] for row in coded]
    fixed, scan = line(codes, [row["seconds"] / NUM_QUERIES for row in coded])
    add = coded[-1]["added"] / coded[-1]["rows"] / coded[-1]["lists"]
    usable = MACHINE_GB * USABLE * 1e9
    rows: list[dict[str, object]] = []
    for count in PAPER:
        lists = lists_of(count)
        probes = probes_of(lists)
        whole, small = count * 4 * DIM, count * 40 + lists * (4 * DIM + 64 * 16 * 4)
        for method, size, query, build in (
            ("exact", whole, compare * count, 0.0),
            (
                f"IVF{lists},{CODES}, nprobe={probes}",
                small,
                fixed + scan * count * probes / lists,
                add * count * lists / 3600,
            ),
        ):
            machines = math.ceil(size / usable)
            rows.append(
                {
                    "references": f"{count:,}",
                    "search": method,
                    "memory, GB": gigabytes(size),
                    "vectors on disk, GB": gigabytes(whole),
                    f"machines of {MACHINE_GB} GB": machines,
                    "ms a query, on each": f"{1000 * query / machines:,.3g}",
                    "h for 50,000 queries": f"{query / machines * 50_000 / 3600:,.2g}",
                    "h to add all, on each": f"{build / machines:,.2g}" if build else "",
                }
            )
    return rows


def gigabytes(size: float) -> str:
    return f"{size / 1e9:,.0f}" if size > 1e11 else f"{size / 1e9:.3g}"


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return height at 0 and slope of the line through the points; neither is negative."""
    if len(x) == 1:
        return 0.0, y[0] / x[0]
    slope, height = np.polyfit(x, y, 1)
    if min(slope, height) >= 0:
        return float(height), float(slope)
    return 0.0, float(np.dot(x, y) / np.dot(x, x))


# --- the picture -----------------------------------------------------------------------------------------------------


COLOURS = {"exact": "#1f6fb2", "exact, best pairs": "#5f6b76", "IVF-PQ": "#d9730d"}
STYLE = """text { font: 12px system-ui, sans-serif; fill: #5c646d } .label { fill: #1c2024 }
line { stroke: #dfe1e0 } path { fill: none; stroke-width: 2 } .paper { fill: #fbfbf9 }
@media (prefers-color-scheme: dark) { .paper { fill: #16181b } text { fill: #a5adb5 } .label { fill: #f0f2f4 }
line { stroke: #3a4046 } }"""


def picture(points: dict[str, list[Row]]) -> str:
    """Return an SVG of time and memory over the number of references, all axes logarithmic."""
    panels = [
        panel(points, "seconds", f"seconds for {NUM_QUERIES:,} queries"),
        panel(points, "gb", "peak memory, GB"),
    ]
    legend = "".join(
        f'<line x1="{70 + 190 * at}" x2="{94 + 190 * at}" y1="340" y2="340" style="stroke: {COLOURS[name]}; '
        f'stroke-width: 3"/><text class="label" x="{100 + 190 * at}" y="344">{name}</text>'
        for at, name in enumerate(points)
    )
    moved = "".join(f'<g transform="translate({490 * at} 0)">{drawn}</g>' for at, drawn in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 980 360" role="img"><title>How search grows</title>'
        f'<style>{STYLE}</style><rect width="980" height="360" class="paper"/>{moved}{legend}</svg>\n'
    )


def panel(points: dict[str, list[Row]], value: str, label: str) -> str:
    every = [row for rows in points.values() for row in rows]
    x_low, x_high = (math.log10(pick(row["rows"] for row in every)) for pick in (min, max))
    y_low = math.floor(math.log10(min(row[value] for row in every)))
    y_high = max(y_low + 1, math.ceil(math.log10(max(row[value] for row in every))))

    def x(count: float) -> float:
        return LEFT + (RIGHT - LEFT) * (math.log10(count) - x_low) / max(x_high - x_low, 1e-9)

    def y(number: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (math.log10(number) - y_low) / (y_high - y_low)

    parts = []
    for power in range(y_low, y_high + 1):
        at = y(10.0**power)
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for count in sorted({row["rows"] for row in every}):
        parts.append(f'<text x="{x(count):.1f}" y="{BOTTOM + 20}" text-anchor="middle">{short(count)}</text>')
    for name, rows in points.items():
        places = [(x(row["rows"]), y(row[value])) for row in rows]
        path = polyline(*np.array(places).T)
        parts.append(f'<path d="{path}" style="stroke: {COLOURS[name]}"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{COLOURS[name]}"/>' for a, b in places]
    middle = (LEFT + RIGHT) / 2
    parts.append(f'<text class="label" x="{middle}" y="{BOTTOM + 44}" text-anchor="middle">references</text>')
    turned = f"translate(14 {(TOP + BOTTOM) / 2}) rotate(-90)"
    parts.append(f'<text class="label" transform="{turned}" text-anchor="middle">{label}</text>')
    return "".join(parts)


def short(count: float) -> str:
    return f"{count / 1e6:g} M" if count >= 1e6 else f"{count / 1e3:g} k"


def publish(points: dict[str, list[Row]]) -> None:
    """Write the tables, for `python -m benchmarks.results`, and the picture."""
    save("growth", table(points))
    save("growth_paper", on_paper(points))
    (ROOT / "docs" / "growth.svg").write_text(picture(points), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--descriptors", type=Path, help="of real photos, by isc_small; those of the sample if absent")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--folder", type=Path, help="for the vectors; where the system keeps temporary files if absent")
    parser.add_argument("--point", nargs=2, metavar=("METHOD", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        method, rows = options.point
        with watched() as held:
            point = POINTS[method](options.folder, int(rows))
        print(json.dumps(point | {"gb": held[0]}))
        return
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        prepare(Path(name), real_descriptors(options.descriptors), options.sizes)
        say(f"made {max(options.sizes):,} references; {cores()} cores", began)
        points: dict[str, list[Row]] = {method: [] for method in POINTS}
        for rows in sorted(options.sizes):
            for method in POINTS:
                points[method].append(run_point(Path(name), method, rows))
                say(f"{rows:,} references, {method}: {points[method][-1]['seconds']:.3g} s", began)
    publish(points)


if __name__ == "__main__":
    main()
