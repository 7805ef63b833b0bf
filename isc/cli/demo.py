"""The command isc demo: a benchmark of real photos, fine-tuning, extraction, matching and judging, before and after.

Every step is a command of the package, printed before it runs; the steps exchange only files.
"""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from isc.cli.console import say_after_interrupt
from isc.errors import InputError, needing
from isc.runtime.children import python

log = logging.getLogger(__name__)

PATH = click.Path(path_type=Path)
SEED = 2021
SMALL_BATCH = 32  # batch size of experiment=demo; fewer training photos form a single batch


@dataclass(frozen=True)
class Row:
    """A row of the result table."""

    name: str
    metrics: dict[str, Any]


@click.command(short_help="see the whole chain at work on the sample photos")
@click.argument("output", type=PATH, default=Path("demo"))
@click.option("--images", type=PATH, metavar="DIR", help="Folder of your own photos.  [default: the 118 shipped]")
@click.option("--experiment", default="demo", show_default=True, help="The recipe of isc train.")
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Training steps.  [default: the recipe's]")
def demo(output: Path, *, images: Path | None, experiment: str, steps: int | None) -> None:
    """Make a benchmark of photos, fine-tune, extract, match and judge, before and after, in the folder OUTPUT.

    Every step is a command of the package, printed before it runs; the steps exchange only files. Finished work is
    used again, so that a demo that was broken off goes on.

    \b
    isc demo
    isc demo my-demo --images my-photos
    """
    from isc.photos.folders import SAMPLE

    say_after_interrupt("the same command goes on from here")
    try:
        run_demo(output, images=images or SAMPLE, experiment=experiment, steps=steps)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the command has printed the reason


def run_demo(output: Path, *, images: Path, experiment: str, steps: int | None) -> list[Row]:
    """Run all steps in the folder `output`, print the result table and return its rows; finished work is reused."""
    from isc.benchmark.make import make_benchmark
    from isc.benchmark.sizes import Wanted
    from isc.config.choices import NearDuplicates
    from isc.data.files import write_json

    started = time.monotonic()
    with needing("demo", extra="train"):
        version("torch")  # loaded by the commands alone
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
    quick = ("candidates=20", "second_views=whole")  # the demo is to take minutes
    return run_match(benchmark, descriptors, output, "track=matching", *quick, f"features={output / 'features'}")


def pdq(benchmark: Path, output: Path) -> list[Row]:
    """Match PDQ hashes by the same command, and return its row; no row if pdqhash is not installed."""
    if not pdq_descriptors(benchmark, output):
        return []
    return [Row("PDQ, an outside baseline", run_match(benchmark, output, output))]


def pdq_descriptors(benchmark: Path, output: Path) -> bool:
    """Write PDQ hashes of queries and references as descriptors; return False if pdqhash is not installed."""
    from isc.benchmark.baselines import hasher, write_hashes

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
    print(f"\n$ isc {verb} {shlex.join(arguments)}", flush=True)
    code = f"from isc.cli.verbs import {verb}; sys.argv[0] = 'isc {verb}'; {verb}()"
    subprocess.run(python(code, *arguments), check=True)
