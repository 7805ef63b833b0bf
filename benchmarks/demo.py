"""Time and memory of the whole demo, compared with the promised 300 s and 4 GB on two cores. Linux only."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import save

SECONDS, GIGABYTES = 300, 4.0


def family(pid: int) -> list[int]:
    """Return the ids of the process and of all its descendants."""
    try:
        children = [
            int(child)
            for tasks in Path(f"/proc/{pid}/task").iterdir()
            for child in (tasks / "children").read_text().split()
        ]
    except OSError:  # the process has just ended
        return [pid]
    return [pid, *(member for child in children for member in family(child))]


def memory(pid: int) -> int:
    """Return the proportional set size (PSS) of a process in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        start, peak = time.perf_counter(), 0
        process = subprocess.Popen([sys.executable, "-m", "isc.cli.main", "demo", "demo"], cwd=folder)
        while process.poll() is None:
            peak = max(peak, sum(map(memory, family(process.pid))))
            time.sleep(1)
        took = time.perf_counter() - start
    if process.returncode:
        sys.exit(process.returncode)
    rows: list[dict[str, object]] = [
        {"what": "seconds", "measured": round(took), "bound": SECONDS, "ratio": round(took / SECONDS, 2)},
        {
            "what": "peak memory of all processes, GB",
            "measured": round(peak / 1e9, 2),
            "bound": GIGABYTES,
            "ratio": round(peak / 1e9 / GIGABYTES, 2),
        },
    ]
    save("demo_cost", rows)


if __name__ == "__main__":
    main()
