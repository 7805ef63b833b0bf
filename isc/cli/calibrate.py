"""Fit probabilities to the scores of a judged run, and thresholds for wanted precisions; keep them with the model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from isc.cli.console import Parser, run_command
from isc.data.csv_files import read_ground_truth, read_predictions
from isc.data.files import write_json
from isc.data.model_files import beside_model, require_model
from isc.errors import InputError
from isc.evaluate.calibration.files import FILES, Calibration
from isc.evaluate.calibration.fit import fit
from isc.evaluate.calibration.score_origin import read_made
from isc.evaluate.calibration.thresholds import Threshold
from isc.match.inputs import named
from isc.runtime.progress import progress

ALWAYS = 0.975  # share of draws that reach a precision; below it, the printed line mentions the share

EXAMPLES = """\
examples:
  isc-match queries=q.h5 references=r.h5 output=labelled
  isc-calibrate --run labelled --ground-truth gt.csv --precision 0.95 --model runs/first
  isc-match queries=q2.h5 references=r2.h5 output=matched              (reads what is stored with the model)
  isc-calibrate --run labelled --ground-truth gt.csv --output mine.json
  isc-match … calibration=mine.json

The run should look like what you will match: as many references, as large a share of copies, the same kinds of edits.
A sample of your own queries with its true pairs labelled serves best (docs/calibration.md).
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command isc-calibrate."""
    run_command(_parser(), argv, action=calibrate, interrupted="nothing was left half written")


def calibrate(given: argparse.Namespace) -> None:
    _check_target(given.output, given.model)
    predictions = given.run / "predictions.csv"
    if not predictions.is_file():
        raise InputError(f"{predictions} is not there; expected --run to name a folder that match.py wrote")
    made = read_made(given.run)
    # predictions of match.py may have more rows than the challenge accepts
    matches = read_predictions(predictions, max_rows=max(made.queries * made.references, 1))
    truth = read_ground_truth(given.ground_truth)
    with progress("fitting", "thresholds") as report, named(given.run):
        found = fit(matches, truth, made, precision=given.precision, report=report)
    target = given.output or beside_model(given.model, FILES[made.scores])
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


def _check_target(output: Path | None, model: str | None) -> None:
    """Raise InputError, before the work, if match.py could not find the file to write."""
    if model is not None:
        require_model(model)
    elif output is None or output.suffix.lower() != ".json":
        raise InputError(f"--output {output}: expected a name that ends in .json, as calibration= takes it")


def precision(text: str) -> float:
    """Parse the precision; argparse shows this function's name in its error messages."""
    value = float(text)
    if not 0.5 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a share from 0.5 to below 1")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="isc-calibrate",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, required=True, metavar="RUN_DIR", help="a folder that match.py wrote")
    parser.add_argument("--ground-truth", type=Path, required=True, metavar="GT.csv", help="its true pairs")
    parser.add_argument("--precision", type=precision, default=0.9, metavar="P", help="the wanted one (0.9)")
    keep = parser.add_mutually_exclusive_group(required=True)
    keep.add_argument("--output", type=Path, metavar="FILE.json", help="a file for match.py's calibration=FILE.json")
    keep.add_argument("--model", metavar="RUN_DIR", help="the model that made the descriptors, for calibration=model")
    return parser


if __name__ == "__main__":
    main()
