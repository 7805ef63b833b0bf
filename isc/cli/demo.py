"""Run the main job on real photos: make a benchmark, fine-tune, extract, match and judge, before and after.

Every step is a command of the package, printed before it runs; the steps exchange only files.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isc.benchmark.baselines import hasher, write_hashes
from isc.benchmark.make import make_benchmark
from isc.benchmark.sizes import Wanted
from isc.cli.verbs import start_logging
from isc.config.choices import NearDuplicates
from isc.data.files import write_json
from isc.errors import InputError
from isc.photos.folders import SAMPLE

log = logging.getLogger(__name__)

SEED = 2021
SMALL_BATCH = 32  # batch size of experiment=demo; fewer training photos form a single batch


@dataclass(frozen=True)
class Row:
    """A row of the result table."""

    name: str
    metrics: dict[str, Any]


def main() -> None:
    """Run the command isc-demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", nargs="?", default="demo", type=Path, help="folder to write to (default: demo)")
    parser.add_argument(
        "--images", default=SAMPLE, type=Path, help="folder of your own photos (default: the 118 shipped)"
    )
    parser.add_argument("--experiment", default="demo", help="isc-train's experiment (default: demo)")
    parser.add_argument("--steps", type=int, help="training steps (default: those of the experiment)")
    arguments = parser.parse_args()
    start_logging()
    try:
        demo(arguments.output, images=arguments.images, experiment=arguments.experiment, steps=arguments.steps)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the command has printed the reason
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def demo(output: Path, *, images: Path = SAMPLE, experiment: str = "demo", steps: int | None = None) -> list[Row]:
    """Run all steps in the folder `output`, print the result table and return its rows; finished work is reused."""
    started = time.monotonic()
    benchmark = output / "benchmark"
    log.info("making a benchmark of edited copies from the photos in %s", images)
    sizes = make_benchmark(images, benchmark, sizes=Wanted(), seed=SEED, near_duplicates=NearDuplicates.leave_out)
    rows = pdq(benchmark, output / "pdq")
    rows += [Row("ImageNet, before any training", run_model("imagenet", benchmark, output / "imagenet"))]
    rows += [Row("isc_small, as shipped", run_model("isc_small", benchmark, output / "shipped"))]
    run_training(benchmark / "training", output / "run", experiment=experiment, steps=steps, photos=sizes.training)
    rows += [Row("isc_small, fine-tuned here", run_model(str(output / "run"), benchmark, output / "finetuned"))]
    matching = run_matching_track(benchmark, output / "finetuned", output / "matching")
    rows += [Row("fine-tuned + local verification", matching)]
    write_json(output / "demo.json", {row.name: row.metrics for row in rows})
    print(table(rows))
    queries = sizes.positive_queries + sizes.distractor_queries
    print(f"\n{sizes.positive_queries} edited copies among {queries} queries, {sizes.references} references")
    print(f"{time.monotonic() - started:.0f} s")
    print(f"report, descriptor track: {output / 'finetuned' / 'report' / 'index.html'}")
    print(f"report, matching track:   {output / 'matching' / 'report' / 'index.html'}")
    return rows


def run_training(images: Path, run: Path, *, experiment: str, steps: int | None, photos: int) -> None:
    options = [] if steps is None else [f"train.steps={steps}"]
    options += [f"train.batch_size={photos}"] if photos < SMALL_BATCH else []
    _command("train", f"images={images}", f"output={run}", f"experiment={experiment}", "resume=true", *options)


def run_model(model: str, benchmark: Path, output: Path) -> dict[str, Any]:
    """Extract descriptors with this model, match them, and return the metrics."""
    for role in ("queries", "references"):
        _command(
            "extract", f"images={benchmark / role}", f"output={output / role}.h5", f"model={model}", "overwrite=true"
        )
    return run_match(benchmark, output, output)


def run_match(benchmark: Path, descriptors: Path, output: Path, *options: str) -> dict[str, Any]:
    _command(
        "match",
        f"queries={descriptors / 'queries.h5'}",
        f"references={descriptors / 'references.h5'}",
        f"ground_truth={benchmark / 'ground_truth.csv'}",
        f"query_images={benchmark / 'queries'}",
        f"reference_images={benchmark / 'references'}",
        f"edits={benchmark / 'edits.jsonl'}",
        "calibration=none",  # the calibration shipped with isc_small was fitted on other queries
        f"output={output}",
        *options,
    )
    metrics: dict[str, Any] = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def run_matching_track(benchmark: Path, descriptors: Path, output: Path) -> dict[str, Any]:
    return run_match(benchmark, descriptors, output, "track=matching", f"features={output / 'features'}")


def pdq(benchmark: Path, output: Path) -> list[Row]:
    """Match PDQ hashes by the same command, and return its row; no row if pdqhash is not installed."""
    if not pdq_descriptors(benchmark, output):
        return []
    return [Row("PDQ, an outside baseline", run_match(benchmark, output, output))]


def pdq_descriptors(benchmark: Path, output: Path) -> bool:
    """Write PDQ hashes of queries and references as descriptors; return False if pdqhash is not installed."""
    try:
        by = hasher("PDQ")
    except InputError as error:
        log.warning("PDQ is left out: %s", error)
        return False
    for role in ("queries", "references"):
        write_hashes(benchmark / role, output / f"{role}.h5", by=by)
    return True


def table(rows: Sequence[Row]) -> str:
    """Format the rows as a text table."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}     μAP  recall at P90  recall at rank 1"]
    lines += [
        f"{row.name:{width}}  {row.metrics['average_precision']:6.3f}  {row.metrics['recall_at_p90']:13.3f}"
        f"  {row.metrics['recall_at_rank1']:16.3f}"
        for row in rows
    ]
    return "\n" + "\n".join(lines)


def _command(verb: str, *arguments: str) -> None:
    """Run one of the verbs in a process of its own, because torch and faiss must not share a process."""
    print(f"\n$ isc-{verb} {shlex.join(arguments)}", flush=True)
    code = f"import sys; from isc.cli.verbs import {verb}; sys.argv[0] = 'isc-{verb}'; {verb}()"
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


if __name__ == "__main__":
    main()
