"""Choose the normalisation with the best μAP on a validation set, and keep it with the model."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isc import __version__
from isc.cli.console import Parser, run_command
from isc.config.chain import parse
from isc.data.csv_files import read_ground_truth
from isc.data.descriptors import Descriptors
from isc.data.files import write_json
from isc.data.hdf5 import MAX_DIM
from isc.data.matches import GroundTruth
from isc.data.model_files import beside_model, require_model
from isc.errors import InputError
from isc.match.inputs import named, read_sides, read_training
from isc.runtime.progress import progress
from isc.search.normalize.files import FILE, FORMAT
from isc.search.normalize.fitted import require_unit
from isc.search.normalize.tune import CHAINS, Bench, Choice, Trial, choose

EXAMPLES = """\
examples:
  isc-normalize search --queries q.h5 --references r.h5 --training t.h5 --ground-truth gt.csv --model runs/first
  isc-match queries=q2.h5 references=r2.h5 training=t.h5 normalize=model output=matched
  isc-normalize search … --chains whiten subtract pca+score --output found.json
  isc-match … training=t.h5 normalize=found.json

Queries, references and ground truth are a validation set: report figures on another one. A chain is none, or of the
steps pca, whiten, subtract, stretch, ssquare and score, joined by +; options given start the search.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command isc-normalize."""
    run_command(_parser(), argv, action=search, interrupted="nothing was left half written")


def search(given: argparse.Namespace) -> None:
    target = _target(given.output, given.model)
    kinds = [parse(text) for text in given.chains or CHAINS]
    paths = given.queries, given.references
    sets = read_sides(*paths)
    training, _ = read_training(given.training, sets, paths)
    for path, one in ((paths[0], sets.queries), (paths[1], sets.references), (given.training, training)):
        if any(kind.needs_unit for kind in kinds):
            with named(path):
                require_unit(one)
    truth = read_ground_truth(given.ground_truth, query_ids=sets.queries.images, reference_ids=sets.references.images)
    bench = Bench(sets.queries, sets.references, training, truth)
    with named(given.ground_truth):
        _ = bench.halves  # raises before the work if the ground truth is unsuitable
    with progress("searching", "trials") as report, named(given.training):
        choice = choose(bench, kinds, any_dim=given.any_dim, report=report)
    print(f"{table(choice)}\n\n{summary(choice)}")
    if target is not None:
        inputs = {"queries": sets.queries, "references": sets.references, "training": training}
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
    """Return the file to write, if any. Raises InputError, before the work, if match.py could not find it."""
    if output is not None and output.suffix.lower() != ".json":
        raise InputError(f"--output {output}: expected a name that ends in .json, as normalize= takes it")
    if model is None:
        return output
    require_model(model)
    return beside_model(model, FILE)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="isc-normalize", description=__doc__)
    one = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser).add_parser(
        "search",
        help="try chains of steps and their options",
        description="Try chains of steps and their options on a validation set; keep the best if it is no chance.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("--queries", type=Path, required=True, metavar="Q.h5")
    one.add_argument("--references", type=Path, required=True, metavar="R.h5")
    one.add_argument("--training", type=Path, required=True, metavar="T.h5", help="what the steps are fitted on")
    one.add_argument("--ground-truth", type=Path, required=True, metavar="GT.csv")
    one.add_argument("--chains", nargs="+", metavar="CHAIN", help=f"those to try (default: {' '.join(CHAINS)})")
    one.add_argument("--any-dim", action="store_true", help=f"choose among chains of more than {MAX_DIM} numbers too")
    keep = one.add_mutually_exclusive_group()
    keep.add_argument("--output", type=Path, metavar="FILE.json", help="a file for match.py's normalize=FILE.json")
    keep.add_argument("--model", metavar="RUN_DIR", help="the model that made the descriptors, for normalize=model")
    return parser


if __name__ == "__main__":
    main()
