"""Programs that measure, each beside a bound or a peer in the same run; they write benchmarks/results/NAME.json."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def seconds(action: Callable[[], object], *, repeats: int = 5) -> float:
    """The median wall-clock time of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def save(name: str, rows: list[dict[str, object]]) -> None:
    """Print the rows and keep them for docs/results.md."""
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
