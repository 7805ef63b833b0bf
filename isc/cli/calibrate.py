"""The command isc calibrate: probabilities and thresholds for the scores of a judged run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isc.cli.console import FiniteRange, exactly_one
from isc.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from isc.evaluate.calibration.files import Calibration
    from isc.evaluate.calibration.fit import LabelledRun
    from isc.evaluate.calibration.thresholds import Threshold

PATH = click.Path(path_type=Path)
ALWAYS = 0.975  # share of draws that reach a precision; below it, the printed line mentions the share


@click.command(short_help="fit probabilities and thresholds to labelled pairs")
@click.option(
    "--run", "runs", type=PATH, required=True, multiple=True, metavar="RUN_DIR",
    help="A folder that isc match wrote; several times for several runs.",
)  # fmt: skip
@click.option(
    "--ground-truth", "truths", type=PATH, required=True, multiple=True, metavar="GT.csv",
    help="Its true pairs; once for each --run, in the same order.",
)  # fmt: skip
@click.option(
    "--unrelated", type=PATH, metavar="FILE.h5",
    help="Descriptors of pictures of all kinds that are no copies: distances are then seen beside theirs.",
)  # fmt: skip
@click.option(
    "--queries", type=PATH, multiple=True, metavar="FILE.h5",
    help="With --unrelated: the descriptors of the queries, once for each --run.",
)  # fmt: skip
@click.option(
    "--precision", type=FiniteRange(0.5, 1, max_open=True), default=0.9, show_default=True, metavar="P",
    help="The wanted share of copies among the accepted pairs.",
)  # fmt: skip
@click.option("--output", type=PATH, metavar="FILE.json", help="A file for calibration=FILE.json of isc match.")
@click.option("--model", metavar="RUN_DIR", help="Or the model that made the descriptors, for calibration=model.")
def calibrate(
    runs: tuple[Path, ...],
    *,
    truths: tuple[Path, ...],
    unrelated: Path | None,
    queries: tuple[Path, ...],
    precision: float,
    output: Path | None,
    model: str | None,
) -> None:
    """Fit probabilities to the scores of judged runs, and thresholds for wanted precisions; keep them with the model.

    The runs should look like what you will match, the same kinds of pictures and of edits: a sample of your own queries
    with its true pairs labelled serves best. Several runs with different edits make the probabilities hold more widely;
    thresholds are those of the run that needs the highest. The share of copies and the number of references may differ
    from what you match: isc match corrects for both (docs/calibration.md).

    \b
    isc match queries=q.h5 references=r.h5 output=labelled
    isc calibrate --run labelled --ground-truth gt.csv --precision 0.95 --model runs/first
    isc match queries=q2.h5 references=r2.h5 output=matched         (reads what is stored with the model)
    isc calibrate --run labelled --ground-truth gt.csv --output mine.json
    isc match … calibration=mine.json
    """
    from isc.data.files import write_json
    from isc.evaluate.calibration.files import FILES
    from isc.evaluate.calibration.fit import fit
    from isc.match.inputs import named
    from isc.runtime.progress import progress

    target_of = _checked_target(output, model)
    if len(runs) != len(truths) or len(queries) != (len(runs) if unrelated else 0):
        raise InputError(
            f"{len(runs)} --run, {len(truths)} --ground-truth, {len(queries)} --queries; expected one --ground-truth "
            "for each --run, and one --queries for each with --unrelated"
        )
    others = _unrelated(unrelated) if unrelated else None
    labelled = [
        _labelled(run, truth, own, others)
        for run, truth, own in zip(runs, truths, queries or (None,) * len(runs), strict=True)
    ]
    with progress("fitting", "thresholds") as report, named(runs[0]):
        found = fit(labelled, precision=precision, unrelated=others, report=report)
    target = target_of(FILES[found.made.scores])
    print(summary(found))
    write_json(target, found.as_dict())
    print(f"wrote {target}")


def _unrelated(path: Path) -> npt.NDArray[np.float16]:
    from isc.data.hdf5 import read_descriptors

    return read_descriptors(path).vectors.astype("<f2")


def _labelled(run: Path, truth: Path, queries: Path | None, unrelated: npt.NDArray[np.float16] | None) -> LabelledRun:
    """Read a run of match.py with its true pairs. Raises InputError for another folder, or other queries."""
    import numpy as np

    from isc.data.csv_files import read_ground_truth, read_predictions
    from isc.data.hdf5 import read_descriptors
    from isc.data.near_ids import require_same_ids
    from isc.evaluate.calibration.fit import LabelledRun
    from isc.evaluate.calibration.score_origin import read_made
    from isc.evaluate.calibration.versions import read_versions
    from isc.search.unrelated import unrelated_distance

    predictions = run / "predictions.csv"
    if not predictions.is_file():
        raise InputError(f"{predictions} is not there; expected --run to name a folder that match.py wrote")
    made = read_made(run)
    # predictions of match.py may have more rows than the challenge accepts
    matches = read_predictions(predictions, max_rows=max(made.queries * made.references, 1))
    true_pairs = read_ground_truth(truth)
    require_same_ids(truth, true_pairs, matches.query_ids, matches.reference_ids)
    distance = None
    if queries is not None and unrelated is not None:
        if made.gives_probabilities:
            raise InputError(f"--unrelated: {run} compared pixels; expected it for runs by distance alone")
        own = read_descriptors(queries)
        at = {query: row for row, query in enumerate(own.ids)}
        missing = next((query for query in matches.query_ids if query not in at), None)
        if missing is not None or own.views is not None:
            raise InputError(f"--queries {queries}: expected one descriptor of each query of {run}, {missing!r} too")
        rows = np.array([at[query] for query in matches.query_ids])
        distance = unrelated_distance(own.vectors[rows], unrelated)[matches.query]
    name = "/".join(run.absolute().parts[-2:])
    return LabelledRun(name, matches, true_pairs, made, distance, read_versions(run, matches))


def summary(found: Calibration) -> str:
    """Describe the calibration: its runs, its reliability, its thresholds and their precision on held-out queries."""
    lines = [
        f"{found.pairs:,} pairs, {found.copies:,} of them copies",
        *(
            f"  {run.name}: {run.queries:,} queries, {run.with_copies:,} with a copy, {run.references:,} references; "
            f"at the wanted threshold precision {_share(run.precision)}, recall {run.recall:.3f}"
            for run in found.runs
        ),
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


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _line(one: Threshold, *, wanted: bool) -> str:
    mark = "  ← wanted" if wanted else ""
    if one.threshold is None:
        return (
            f"{one.precision:9.2f}  never reached: at best {one.best:.3f}, at probability ≥ {one.best_score:.4f}{mark}"
        )
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
