"""Benchmark programs; each measures next to a bound or a peer and writes benchmarks/results/NAME.json."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def seconds(action: Callable[[], object], *, repeats: int = 5) -> float:
    """Return the median wall-clock time of `repeats` calls, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def saved(name: str) -> list[dict[str, object]]:
    """Return the rows that a benchmark wrote before, none if it never did."""
    path = RESULTS / f"{name}.json"
    rows: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return rows


def save(name: str, rows: list[dict[str, object]]) -> None:
    """Print the rows and write them to benchmarks/results/NAME.json, for docs/results.md."""
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
