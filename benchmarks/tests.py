"""Seconds of the tests, and of all that has to hold before a change lands, beside what is wanted on two quiet cores.

    python -m benchmarks.tests [STEP …]

Runs the steps of .ci/run one after another, then `make test` and `make test-fast`, or those that are named; ends with
the output of the first that fails. Rows of other steps stay.
"""

import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import save, saved

ROOT = Path(__file__).parent.parent
STEPS = ("demo", "check", "test SLOW=too")  # of .ci/run
WANTED = {"test": 480, "test-fast": 90}  # seconds
ALL = 1200  # seconds wanted for .ci/run
PASSED = re.compile(r"(\d+) passed")


def row(what: str, wall: float, cpu: float, wanted: int | None, tests: int | None) -> dict[str, object]:
    """Return a row of the table; empty where nothing was asked for or counted."""
    return {
        "": what,
        "tests": "" if tests is None else f"{tests:,}",
        "wall, s": f"{wall:.0f}",
        "CPU, s": f"{cpu:.0f}",
        "wanted, s": "" if wanted is None else str(wanted),
        "÷ wanted": "" if wanted is None else f"{wall / wanted:.2f}",
    }


def timed(step: str) -> tuple[float, float, int | None]:
    """Run `make STEP`; return its seconds, those of all CPUs, and how many tests passed."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"ISC_DEMO": str(ROOT)}  # of the step before, for the tests of the README
    done = subprocess.run(
        ["make", *step.split()], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if step == "demo":
        (ROOT / "demo.log").write_text(done.stdout, encoding="utf-8")
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{done.stdout[-100_000:]}{done.stderr[-2000:]}\nmake {step}: exit {done.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = PASSED.findall(done.stdout)
    return wall, cpu, int(found[-1]) if found else None


def kept(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return these rows and, after them, those of other steps that were saved before."""
    return [*rows, *(one for one in saved("tests") if one[""] not in {row[""] for row in rows})]


def main() -> None:
    rows, walls, cpus = [], 0.0, 0.0
    named = sys.argv[1:] or [*STEPS, "test", "test-fast"]
    for step in named:
        wall, cpu, tests = timed(step)
        print(f"make {step}: {wall:.0f} s, {tests} tests", file=sys.stderr)
        rows.append(row(f"make {step}", wall, cpu, WANTED.get(step), tests))
        if step in STEPS:
            walls, cpus = walls + wall, cpus + cpu
        if step == STEPS[-1] and set(STEPS) <= set(named):
            rows.append(row("these three, as .ci/run has them", walls, cpus, ALL, None))
    save("tests", kept(rows))  # not before: a test compares docs/results.md with what is saved


if __name__ == "__main__":
    main()
