"""The command isc normalize: the normalisation of descriptors with the best μAP on a validation set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isc import __version__
from isc.cli.console import Group, at_most_one
from isc.errors import InputError

if TYPE_CHECKING:
    from isc.data.descriptors import Descriptors
    from isc.data.matches import GroundTruth
    from isc.search.normalize.tune import Choice, Trial

PATH = click.Path(path_type=Path)


@click.group(cls=Group, short_help="find the best normalisation of descriptors")
def normalize() -> None:
    """Choose the normalisation with the best μAP on a validation set, and keep it with the model."""


@normalize.command(short_help="try chains of steps and their options")
@click.option("--queries", type=PATH, required=True, metavar="Q.h5", help="Descriptors of the queries.")
@click.option("--references", type=PATH, required=True, metavar="R.h5", help="Descriptors of the references.")
@click.option("--training", type=PATH, required=True, metavar="T.h5", help="Descriptors that the steps are fitted on.")
@click.option("--ground-truth", type=PATH, required=True, metavar="GT.csv", help="The true pairs.")
@click.option(
    "--chains", metavar="'CHAIN …'", help="Chains to try, with blanks between them.  [default: all that are published]"
)
@click.option("--any-dim", is_flag=True, help="Choose among chains of more than 256 numbers too.")
@click.option("--output", type=PATH, metavar="FILE.json", help="A file for normalize=FILE.json of isc match.")
@click.option("--model", metavar="RUN_DIR", help="Or the model that made the descriptors, for normalize=model.")
def search(
    *,
    queries: Path,
    references: Path,
    training: Path,
    ground_truth: Path,
    chains: str | None,
    any_dim: bool,
    output: Path | None,
    model: str | None,
) -> None:
    """Try chains of steps and their options on a validation set; keep the best if it is no chance.

    Queries, references and ground truth are a validation set: report figures on another one. A chain is none, or of
    the steps pca, whiten, subtract, stretch, ssquare and score, joined by +; options given start the search.

    \b
    isc normalize search --queries q.h5 --references r.h5 --training t.h5 --ground-truth gt.csv --model runs/first
    isc match queries=q2.h5 references=r2.h5 training=t.h5 normalize=model output=matched
    isc normalize search … --chains 'whiten subtract pca+score' --output found.json
    isc match … training=t.h5 normalize=found.json
    """
    from isc.config.chain import parse
    from isc.data.csv_files import read_ground_truth
    from isc.data.files import write_json
    from isc.match.inputs import named, read_sides, read_training
    from isc.runtime.progress import progress
    from isc.search.normalize.fitted import require_unit
    from isc.search.normalize.tune import CHAINS, Bench, choose

    target = _target(output, model)
    kinds = [parse(text) for text in (CHAINS if chains is None else chains.split())]
    paths = queries, references
    sets = read_sides(*paths)
    trained_on, _ = read_training(training, sets, paths)
    for path, one in ((queries, sets.queries), (references, sets.references), (training, trained_on)):
        if any(kind.needs_unit for kind in kinds):
            with named(path):
                require_unit(one)
    truth = read_ground_truth(ground_truth, query_ids=sets.queries.images, reference_ids=sets.references.images)
    bench = Bench(sets.queries, sets.references, trained_on, truth)
    with named(ground_truth):
        _ = bench.halves  # raises before the work if the ground truth is unsuitable
    with progress("searching", "trials") as report, named(training):
        choice = choose(bench, kinds, any_dim=any_dim, report=report)
    print(f"{table(choice)}\n\n{summary(choice)}")
    if target is not None:
        inputs = {"queries": sets.queries, "references": sets.references, "training": trained_on}
        write_json(target, record(choice, inputs, truth, sets.provenance))
        print(f"wrote {target}")


def table(choice: Choice) -> str:
    """Format the best chain of each kind as a table, the highest μAP first."""
    rows = sorted({*choice.kinds, choice.plain}, key=lambda trial: -trial.average_precision)
    lines = [f"{'μAP':>6}  {'R@P90':>6}  {'dim':>4}  track       chain"]
    lines += [
        f"{row.average_precision:6.4f}  {row.recall_at_p90:6.4f}  {row.dim:4}  "
        f"{'descriptor' if row.legal else 'matching':10}  {row.chain}"
        for row in rows
    ]
    return "\n".join(lines)


def summary(choice: Choice) -> str:
    """Describe the choice, with its gains on the held-out halves."""
    lines = [
        f"chosen on one half of the queries {one.chain}: on the other half {one.other_half:.4f}, "
        f"{choice.plain.chain} {one.plain:.4f}"
        for one in choice.crossed
    ]
    lines.append(f"gain on the halves not chosen on {choice.gain:+.4f}, standard error {choice.standard_error:.4f}")
    if choice.chosen == choice.best:
        lines.append(f"chosen: {choice.chosen.chain}")
    else:
        lines.append(f"chosen: {choice.chosen.chain}, as {choice.best.chain} gains no more than chance")
    return "\n".join(lines)


def record(
    choice: Choice, inputs: Mapping[str, Descriptors], truth: GroundTruth, provenance: Mapping[str, str]
) -> dict[str, Any]:
    """Return the JSON record: the chosen chain, the model of its descriptors, the inputs and trials of the search."""
    from isc.search.normalize.files import FORMAT

    return {
        "format": FORMAT,
        "normalize": str(choice.chosen.chain),
        "dim": choice.chosen.dim,
        "model": provenance.get("model"),
        "weights_sha256": provenance.get("weights_sha256"),
        "training_rows": len(inputs["training"]),
        "inputs_sha256": {name: _digest(one) for name, one in inputs.items()} | {"ground_truth": _truth_digest(truth)},
        "code_version": __version__,
        "gain": choice.gain,
        "standard_error": choice.standard_error,
        "cross_fitted": [
            {"chain": str(one.chain), "other_half": one.other_half, str(choice.plain.chain): one.plain}
            for one in choice.crossed
        ],
        "tried": len(choice.trials),
        "best_of_each_kind": [_as_dict(trial) for trial in (choice.plain, *choice.kinds)],
    }


def _as_dict(trial: Trial) -> dict[str, Any]:
    return {
        "chain": str(trial.chain),
        "dim": trial.dim,
        "average_precision": trial.average_precision,
        "recall_at_p90": trial.recall_at_p90,
        "halves": list(trial.halves),
    }


def _digest(descriptors: Descriptors) -> str:
    """Return the SHA-256 of ids and vectors, independent of their storage format."""
    digest = hashlib.sha256("\n".join(descriptors.ids).encode())
    digest.update(descriptors.vectors.tobytes())
    return digest.hexdigest()


def _truth_digest(truth: GroundTruth) -> str:
    lines = sorted(f"{query},{reference}" for query, reference in truth.pairs) + sorted(truth.queries)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _target(output: Path | None, model: str | None) -> Path | None:
    """Return the file to write, if any. Raises InputError, before the work, if isc match could not find it."""
    from isc.data.model_files import beside_model, require_model
    from isc.search.normalize.files import FILE

    at_most_one(output=output, model=model)
    if output is not None and output.suffix.lower() != ".json":
        raise InputError(f"--output {output}: expected a name that ends in .json, as normalize= takes it")
    if model is None:
        return output
    require_model(model)
    return beside_model(model, FILE)
