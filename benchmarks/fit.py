"""All files that are stored with the shipped model, fitted again by the project's own commands.

    python -m benchmarks.fit SPLIT JUDGES WORK [--only normalize fusion calibration matching] [--queries 2000]

SPLIT and JUDGES are made by `python -m benchmarks.judge`: SPLIT/training holds the photos that a model may learn from,
JUDGES/augly-dev and JUDGES/tools-dev hold copies of other photos. The fusion is fitted on copies of training photos,
normalisation and calibration on dev; no test half is used. Files are made in WORK, and an interrupted run continues.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

MODEL = "isc_small"
PARTS = ("normalize", "fusion", "calibration", "matching")
SIDES = ("queries", "references")


class Fit:
    """The fitting steps; each skips files that exist already."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.split: Path = given.split
        self.judge: Path = given.judges / given.judge
        self.work: Path = given.work
        self.queries: int = given.queries

    def descriptors(self, images: Path, name: str, *options: str) -> Path:
        made = self.work / f"{name}.h5"
        if not made.exists():
            run("extract", f"images={images}", f"output={made}", f"model={MODEL}", *options)
        return made

    def sides(self) -> dict[str, Path]:
        return {side: self.descriptors(self.judge / side, f"{self.judge.name}/{side}") for side in SIDES}

    def normalize(self) -> None:
        """Search the chain of normalisation steps that scores best on the judge, or the empty chain."""
        training = self.descriptors(self.split / "training", "training")
        files = {**self.sides(), "training": training, "ground-truth": self.judge / "ground_truth.csv"}
        options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
        tool("normalize", "search", *options, "--model", MODEL, "--chains", "whiten ssquare whiten+ssquare")

    def fusion(self) -> None:
        """Fit the fusion of distance and local evidence to a probability, on copies of training photos."""
        bench, copied = self.work / "bench", 3 * self.queries // 4
        if not bench.exists():
            sizes = {"references": 2 * copied, "copied": copied, "distractors": self.queries // 4, "training": 1}
            counts = [f"{name}={count}" for name, count in sizes.items()]
            run("benchmark", f"images={self.split / 'training'}", f"output={bench}", *counts,
                f"queries={self.queries}", "distractor_share=0.25", "seed=1")  # fmt: skip
        looks = ("views=regions:1", "combine=rows")
        files = {
            "queries": self.descriptors(bench / "queries", "bench-queries", *looks),
            "references": self.descriptors(bench / "references", "bench-references"),
            "query-images": bench / "queries",
            "reference-images": bench / "references",
            "ground-truth": bench / "ground_truth.csv",
        }
        options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
        tool("fusion", "fit", *options, "--model", MODEL)

    def calibration(self) -> None:
        """Fit the calibration of distances to probabilities."""
        self._calibrated("distance")

    def matching(self) -> None:
        """Fit the calibration of the matching track's scores to probabilities."""
        pictures = [
            f"{name}_images={self.judge / side}" for name, side in (("query", SIDES[0]), ("reference", SIDES[1]))
        ]
        self._calibrated("matching", "track=matching", *pictures)

    def _calibrated(self, name: str, *options: str) -> None:
        matched, truth = self.work / self.judge.name / name, self.judge / "ground_truth.csv"
        if not (matched / "metrics.json").exists():
            files = [f"{side}={path}" for side, path in self.sides().items()]
            run("match", *files, f"output={matched}", f"ground_truth={truth}", "calibration=none", *options)
        tool("calibrate", "--run", str(matched), "--ground-truth", str(truth), "--model", MODEL)


def run(verb: str, *arguments: str) -> None:
    """Run one of the verbs, which take KEY=VALUE arguments."""
    _python(
        f"import sys; from isc.cli.verbs import {verb}; sys.argv[0] = 'isc {verb}'; {verb}()", f"isc {verb}", arguments
    )


def tool(command: str, *arguments: str) -> None:
    """Run one of the commands that take --options."""
    _python("from isc.cli.main import main; main()", f"isc {command}", (command, *arguments))


def _python(code: str, called: str, arguments: tuple[str, ...]) -> None:
    print(f"$ {called} {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("split", type=Path)
    parser.add_argument("judges", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--queries", type=int, default=2000, help="that the fusion is fitted on (default: 2000)")
    parser.add_argument("--judge", default="tools-dev", help="folder in JUDGES to fit on (default: tools-dev)")
    given = parser.parse_args()
    fit = Fit(given)
    steps: dict[str, Callable[[], None]] = {part: getattr(fit, part) for part in given.only}
    for step in steps.values():
        step()


if __name__ == "__main__":
    main()
