"""The command isc calibrate: probabilities and thresholds for the scores of a judged run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isc.cli.console import FiniteRange, exactly_one
from isc.errors import InputError

if TYPE_CHECKING:
    from isc.evaluate.calibration.files import Calibration
    from isc.evaluate.calibration.thresholds import Threshold

PATH = click.Path(path_type=Path)
ALWAYS = 0.975  # share of draws that reach a precision; below it, the printed line mentions the share


@click.command(short_help="fit probabilities and thresholds to labelled pairs")
@click.option("--run", type=PATH, required=True, metavar="RUN_DIR", help="A folder that isc match wrote.")
@click.option("--ground-truth", type=PATH, required=True, metavar="GT.csv", help="Its true pairs.")
@click.option(
    "--precision", type=FiniteRange(0.5, 1, max_open=True), default=0.9, show_default=True, metavar="P",
    help="The wanted share of copies among the accepted pairs.",
)  # fmt: skip
@click.option("--output", type=PATH, metavar="FILE.json", help="A file for calibration=FILE.json of isc match.")
@click.option("--model", metavar="RUN_DIR", help="Or the model that made the descriptors, for calibration=model.")
def calibrate(run: Path, *, ground_truth: Path, precision: float, output: Path | None, model: str | None) -> None:
    """Fit probabilities to the scores of a judged run, and thresholds for wanted precisions; keep them with the model.

    The run should look like what you will match: as many references, as large a share of copies, the same kinds of
    edits. A sample of your own queries with its true pairs labelled serves best (docs/calibration.md).

    \b
    isc match queries=q.h5 references=r.h5 output=labelled
    isc calibrate --run labelled --ground-truth gt.csv --precision 0.95 --model runs/first
    isc match queries=q2.h5 references=r2.h5 output=matched         (reads what is stored with the model)
    isc calibrate --run labelled --ground-truth gt.csv --output mine.json
    isc match … calibration=mine.json
    """
    from isc.data.csv_files import read_ground_truth, read_predictions
    from isc.data.files import write_json
    from isc.evaluate.calibration.files import FILES
    from isc.evaluate.calibration.fit import fit
    from isc.evaluate.calibration.score_origin import read_made
    from isc.match.inputs import named
    from isc.runtime.progress import progress

    target_of = _checked_target(output, model)
    predictions = run / "predictions.csv"
    if not predictions.is_file():
        raise InputError(f"{predictions} is not there; expected --run to name a folder that match.py wrote")
    made = read_made(run)
    # predictions of match.py may have more rows than the challenge accepts
    matches = read_predictions(predictions, max_rows=max(made.queries * made.references, 1))
    truth = read_ground_truth(ground_truth)
    with progress("fitting", "thresholds") as report, named(run):
        found = fit(matches, truth, made, precision=precision, report=report)
    target = target_of(FILES[made.scores])
    print(summary(found))
    write_json(target, found.as_dict())
    print(f"wrote {target}")


def summary(found: Calibration) -> str:
    """Describe the calibration: its data, its reliability, its thresholds and their precision on held-out queries."""
    lines = [
        f"{found.pairs:,} pairs, {found.copies:,} of them copies, of {found.queries:,} queries, "
        f"{found.with_copies:,} of which have a copy, among {found.made.references:,} references",
        "held-out log-likelihood of a pair: "
        + ", ".join(f"{name} {value:.5f}" for name, value in sorted(found.held_out.items(), key=lambda one: -one[1])),
        "",
        f"{'probability':15} {'pairs':>9} {'mean':>7} {'copies':>7}",
    ]
    lines += [
        f"{one.low:5.3f} … {one.high:5.3f} {one.pairs:10,} {one.mean:7.4f} {one.correct:7.4f}"
        for one in found.reliability
    ]
    lines += ["", f"{'precision':>9}  {'threshold ≥':>12}  {'95 %':^19}  {'recall':>6}  held out: precision, 95 %"]
    return "\n".join([*lines, *(_line(one, wanted=one == found.wanted) for one in found.thresholds)])


def _line(one: Threshold, *, wanted: bool) -> str:
    mark = "  ← wanted" if wanted else ""
    if one.threshold is None:
        return f"{one.precision:9.2f}  never reached: at best {one.best:.3f}, at score ≥ {one.best_score:.4f}{mark}"
    span = "" if one.interval is None else f"{one.interval[0]:.4f} … {one.interval[1]:.4f}"
    held = "no pair"
    if one.held_out is not None and one.held_out_interval is not None:
        held = f"{one.held_out:.3f}, {one.held_out_interval[0]:.3f} … {one.held_out_interval[1]:.3f}"
    if one.reached < ALWAYS:
        mark = f"  reached in {one.reached:.2f} of the draws alone{mark}"
    return f"{one.precision:9.2f}  {one.threshold:12.4f}  {span:^19}  {one.recall:6.3f}  {held}{mark}"


def _checked_target(output: Path | None, model: str | None) -> Callable[[str], Path]:
    """Return the path to write a kind of calibration to. Raises InputError if isc match could not find it there."""
    from isc.data.model_files import beside_model, require_model

    exactly_one(output=output, model=model)
    if model is not None:
        require_model(model)
        return lambda file: beside_model(model, file)
    if output is None or output.suffix.lower() != ".json":
        raise InputError(f"--output {output}: expected a name that ends in .json, as calibration= takes it")
    return lambda _: output
