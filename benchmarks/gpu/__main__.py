"""The commands of `python -m benchmarks.gpu`; see the package."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu import __doc__ as about
from benchmarks.gpu.rows import FULL, SMALL, table, write

LIMITS = {  # seconds of each step, ten minutes in all
    "checks": 40, "product": 30, "maxima": 40, "search": 90, "jpeg": 40, "extract": 110, "compile": 60, "verify": 35,
    "train": 120, "norms": 35,
}  # fmt: skip
NAMES = tuple(LIMITS)


def main() -> None:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "step"):
        command = commands.add_parser(name)
        command.add_argument("names", nargs="*", choices=[*NAMES, []], default=[], metavar="STEP")
        command.add_argument("--output", type=Path, default=Path("gpu"))
        command.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
        command.add_argument("--small", action="store_true")
    commands.add_parser("table").add_argument("folder", type=Path)
    commands.add_parser("predict")
    commands.add_parser("pack").add_argument("archive", type=Path)
    given = parser.parse_args()
    if given.command == "run":
        run(given)
    elif given.command == "step":
        step(given)
    elif given.command == "table":
        print(table(given.folder, list(NAMES)))
    elif given.command == "predict":
        from benchmarks.gpu.predictions import predicted

        print(predicted())
    else:
        from benchmarks.gpu.pack import pack

        print(f"{given.archive}: {pack(given.archive) / 1e6:.1f} MB")


def run(given: argparse.Namespace) -> None:
    """Run the steps one after the other, each in a process with a time limit, and print the table."""
    names = given.names or list(NAMES)
    for name in names:
        print(f"{name} …", flush=True)
        command = [sys.executable, "-m", "benchmarks.gpu", "step", name, "--output", str(given.output)]
        command += ["--device", given.device, *(["--small"] if given.small else [])]
        start = time.perf_counter()
        try:
            problem = _problem(
                subprocess.run(command, timeout=LIMITS[name], capture_output=True, text=True, check=False)
            )
        except subprocess.TimeoutExpired:
            problem = f"not finished within {LIMITS[name]} s"
        if problem:
            write(given.output, name, [], seconds=time.perf_counter() - start, problem=problem)
    print(table(given.output, names))


def _problem(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of what a step said if it failed."""
    if done.returncode == 0:
        return ""
    sys.stderr.write(done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1].replace("|", "/") if lines else f"ended with status {done.returncode}"


def step(given: argparse.Namespace) -> None:
    """Run steps in this process, and write a file after each."""
    from benchmarks.gpu.steps import STEPS

    for name in given.names:
        start = time.perf_counter()
        rows = STEPS[name](given.device, SMALL if given.small else FULL, given.output)
        write(given.output, name, rows, seconds=time.perf_counter() - start)


if __name__ == "__main__":
    main()
