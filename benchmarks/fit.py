"""All files that are stored with the shipped model, fitted again by the project's own commands.

    python -m benchmarks.fit SPLIT GRAPHICS ALIKE JUDGES WORK [--only normalize fusion calibration matching]

SPLIT and JUDGES are made by `python -m benchmarks.judge`: SPLIT/training holds the photos that a model may learn from,
JUDGES/augly-dev and tools-dev hold copies of other photos, graphics-dev of drawn pages, charts and windows,
alike-dev of photos of like things. GRAPHICS is made by `python -m benchmarks.graphics SPLIT/training
GRAPHICS`, ALIKE by `python -m benchmarks.look_alikes`. The fusion is fitted on copies of training photos, of GRAPHICS
and of ALIKE/training, normalisation and calibrations on dev; the unrelated pictures of the calibration are training
photos, GRAPHICS, and training photos made dark. No test half is used. Files are made in WORK, and an interrupted run
continues.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import graphics
from isc.photos.folders import list_images

MODEL = "isc_small"
JUDGES = ("augly-dev", "tools-dev", "graphics-dev", "alike-dev")
UNRELATED = 1024  # pictures of a kind that are no copies, for the calibration
DARK = 512  # of them that are dark: their descriptors lie close together, so fewer do
FUSED = 4000  # training photos among the pictures that the fusion is fitted on
PARTS = ("normalize", "fusion", "calibration", "matching")
SIDES = ("queries", "references")


class Fit:
    """The fitting steps; each skips files that exist already."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.split: Path = given.split
        self.graphics: Path = given.graphics
        self.alike: Path = given.alike
        self.judges = [given.judges / name for name in JUDGES]
        self.work: Path = given.work
        self.queries: int = given.queries

    def descriptors(self, images: Path, name: str, *options: str) -> Path:
        made = self.work / f"{name}.h5"
        if not made.exists():
            run("extract", f"images={images}", f"output={made}", f"model={MODEL}", *options)
        return made

    def sides(self, judge: Path) -> dict[str, Path]:
        return {side: self.descriptors(judge / side, f"{judge.name}/{side}") for side in SIDES}

    def linked(self, name: str, *folders: Path, most: int | None = None) -> Path:
        """Return a folder in WORK with links to the pictures of the folders, or to `most` of each, drawn at random."""
        made = self.work / name
        if not made.exists():
            made.mkdir(parents=True)
            for folder in folders:
                paths = list(list_images(folder).values())
                for at in np.random.default_rng(0).permutation(len(paths))[:most].tolist():
                    (made / paths[at].name).symlink_to(paths[at].resolve())
        return made

    def unrelated(self) -> Path:
        """Return descriptors of pictures that are no copies: training photos, drawn ones, and dark photos."""
        dark = self.work / "dark"
        if not dark.exists():
            graphics.make(self.split / "training", dark, count=DARK, seed=5, kinds=("dark",))
        folder = self.linked("unrelated", self.split / "training", self.graphics, most=UNRELATED)
        for path in list_images(dark).values():
            link = folder / f"dark-{path.name}"
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
        return self.descriptors(folder, "unrelated")

    def normalize(self) -> None:
        """Search the chain of normalisation steps that scores best on the judge, or the empty chain."""
        training = self.descriptors(self.split / "training", "training")
        judge = self.judges[1]
        files = {**self.sides(judge), "training": training, "ground-truth": judge / "ground_truth.csv"}
        options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
        tool("normalize", "search", *options, "--model", MODEL, "--chains", "whiten ssquare whiten+ssquare")

    def fusion(self) -> None:
        """Fit the fusion of distance and local evidence to a probability, on copies of three kinds of pictures."""
        bench, copied = self.work / "bench", 3 * self.queries // 4
        if not bench.exists():
            sizes = {"references": 2 * copied, "copied": copied, "distractors": self.queries // 4, "training": 1}
            counts = [f"{name}={count}" for name, count in sizes.items()]
            folders = self.split / "training", self.graphics, self.alike / "training"
            pictures = self.linked("pictures", *folders, most=FUSED)
            run("benchmark", f"images={pictures}", f"output={bench}", *counts,
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
        unrelated = self.unrelated()
        queries = [word for judge in self.judges for word in ("--queries", str(self.sides(judge)["queries"]))]
        self._calibrated("distance", lambda _: (), "--unrelated", str(unrelated), *queries)

    def matching(self) -> None:
        """Fit the calibration of the matching track's scores to probabilities."""
        self._calibrated("matching", lambda judge: (
            "track=matching", f"query_images={judge / SIDES[0]}", f"reference_images={judge / SIDES[1]}"
        ), "--precision", "0.95")  # fmt: skip

    def _calibrated(self, name: str, options: Callable[[Path], tuple[str, ...]], *words: str) -> None:
        runs = []
        for judge in self.judges:
            matched, truth = self.work / judge.name / name, judge / "ground_truth.csv"
            if not (matched / "metrics.json").exists():
                files = [f"{side}={path}" for side, path in self.sides(judge).items()]
                run("match", *files, f"output={matched}", f"ground_truth={truth}", "calibration=none", *options(judge))
            runs += ["--run", str(matched), "--ground-truth", str(truth)]
        tool("calibrate", *runs, *words, "--model", MODEL)


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
    parser.add_argument("graphics", type=Path)
    parser.add_argument("alike", type=Path)
    parser.add_argument("judges", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--queries", type=int, default=2000, help="that the fusion is fitted on (default: 2000)")
    given = parser.parse_args()
    fit = Fit(given)
    steps: dict[str, Callable[[], None]] = {part: getattr(fit, part) for part in given.only}
    for step in steps.values():
        step()


if __name__ == "__main__":
    main()
