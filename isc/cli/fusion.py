"""Fit one probability to the distance and the local evidence of a pair, and keep the fit with the model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isc import __version__
from isc.cli.console import Parser, run_command
from isc.data.csv_files import read_ground_truth
from isc.data.files import write_json
from isc.data.matches import GroundTruth, Matches
from isc.data.model_files import beside_model, require_model
from isc.errors import InputError
from isc.evaluate.metrics import evaluate, reliability
from isc.match.inputs import read_sides
from isc.match.verification.compare import verify
from isc.match.verification.feature_store import FeatureStore
from isc.match.verification.fusion import Fusion, fit_fusion
from isc.match.verification.fusion_files import FILE, FORMAT
from isc.photos.folders import list_images
from isc.runtime.progress import progress
from isc.search.multi_view import nearest_images

FITTED_CANDIDATES = 30  # candidates per query: its nearest references, the hard wrong pairs among them
BINS = (0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)

EXAMPLES = """\
examples:
  isc-fusion fit --queries q.h5 --references r.h5 --query-images bench/queries --reference-images bench/references \\
                 --ground-truth bench/ground_truth.csv --model runs/first
  isc-match track=matching queries=q2.h5 references=r2.h5 query_images=… reference_images=… output=matched

The photos should be training photos and the copies made of them, as isc.benchmark makes them: report figures on others.
Extract the queries with views=regions:1 combine=rows, as match.py describes them.
What is printed of probabilities is of queries that they were not fitted on: each half's by what the other half says.
"""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Compared pairs: squared distances [P], evidence [P, F], and the mask [P] of correct pairs."""

    matches: Matches
    distance: Floats
    evidence: npt.NDArray[np.float32]
    copy: npt.NDArray[np.bool_]

    def take(self, rows: npt.NDArray[np.bool_]) -> Pairs:
        return Pairs(self.matches.take(rows), self.distance[rows], self.evidence[rows], self.copy[rows])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command isc-fusion."""
    run_command(_parser(), argv, action=fit, interrupted="nothing was left half written")


def fit(given: argparse.Namespace) -> None:
    target = _target(given.output, given.model)
    store = FeatureStore(given.features) if given.features else None
    if store:
        store.check()
    sets = read_sides(given.queries, given.references)
    truth = read_ground_truth(given.ground_truth, query_ids=sets.queries.images, reference_ids=sets.references.images)
    images = list_images(given.query_images), list_images(given.reference_images)
    k = min(given.candidates, len(sets.references.images))
    found = nearest_images(sets.queries, sets.references, k=k).matches
    found = found.take(truth.judged(found))
    verified = verify(found, *images, store=store)
    for problem in verified.problems:
        print(f"left out: {problem.side} {problem.id}: {problem.reason}")
    pairs = Pairs(found, -found.score.astype(np.float64), verified.evidence, truth.correct(found))
    pairs = pairs.take(np.asarray(np.isfinite(verified.evidence).all(axis=1), np.bool_))
    try:
        with progress("fitting", "fits") as report:
            crossed = cross_fitted(pairs)
            report(2, 3)
            fusion = fit_fusion(pairs.distance, pairs.evidence, pairs.copy)
            report(3, 3)
    except ValueError as error:
        raise InputError(f"{given.ground_truth}: {error}") from error
    print(summary(pairs, crossed, truth))
    write_json(target, record(fusion, pairs, crossed, provenance=sets.provenance))
    print(f"wrote {target}")


def cross_fitted(pairs: Pairs) -> Floats:
    """Return each pair's probability by a fusion fitted on the half of the queries that does not hold its query.

    Raises ValueError if a half is too small.
    """
    half = pairs.matches.query % 2 == 0
    probability = np.zeros(len(half))
    for own in (half, ~half):
        other = pairs.take(~own)
        fusion = fit_fusion(other.distance, other.evidence, other.copy)
        probability[own] = fusion.probability(pairs.distance[own], pairs.evidence[own])
    return probability


def summary(pairs: Pairs, crossed: Floats, truth: GroundTruth) -> str:
    """Format the μAP of distance and of fusion, and the reliability of the probabilities."""
    lines = [f"{len(pairs.copy):,} pairs, {np.count_nonzero(pairs.copy):,} of {len(truth.pairs):,} copies among them"]
    for name, score in (("distance alone", -pairs.distance), ("fusion", crossed)):
        judged = evaluate(replace(pairs.matches, score=score), truth)
        lines.append(
            f"{name:15} μAP {judged.average_precision:.4f}, recall at 90 % precision {judged.recall_at_p90:.4f}"
        )
    lines += ["", f"{'probability':13} {'pairs':>9} {'mean':>7} {'copies':>7}"]
    lines += [
        f"{one.low:4.2f} … {one.high:4.2f}   {one.pairs:9,} {one.mean:7.4f} {one.correct:7.4f}"
        for one in reliability(crossed, pairs.copy, edges=BINS)
    ]
    return "\n".join(lines)


def record(fusion: Fusion, pairs: Pairs, crossed: Floats, *, provenance: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON record: the fusion, the model of its descriptors, and its reliability on held-out queries."""
    return {
        "format": FORMAT,
        "model": provenance.get("model"),
        "weights_sha256": provenance.get("weights_sha256"),
        "normalize": "none",
        "code_version": __version__,
        "pairs": len(pairs.copy),
        "copies": int(np.count_nonzero(pairs.copy)),
        "reliability": [asdict(one) for one in reliability(crossed, pairs.copy, edges=BINS)],
        "fusion": fusion.as_dict(),
    }


def _target(output: Path | None, model: str | None) -> Path:
    """Return the file to write. Raises InputError, before the work, if match.py could not find it."""
    if model is not None:
        require_model(model)
        return beside_model(model, FILE)
    if output is None or output.suffix.lower() != ".json":
        raise InputError(f"--output {output}: expected a name that ends in .json, as fusion= takes it")
    return output


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="isc-fusion", description=__doc__)
    one = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser).add_parser(
        "fit",
        help="fit it on copies of training photos",
        description="Compare each query with its nearest references, and fit how likely each pair is to be a copy.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("--queries", type=Path, required=True, metavar="Q.h5")
    one.add_argument("--references", type=Path, required=True, metavar="R.h5")
    one.add_argument("--query-images", type=Path, required=True, metavar="DIR")
    one.add_argument("--reference-images", type=Path, required=True, metavar="DIR")
    one.add_argument("--ground-truth", type=Path, required=True, metavar="GT.csv")
    one.add_argument("--candidates", type=number, default=FITTED_CANDIDATES, metavar="N", help="of each query (30)")
    one.add_argument("--features", type=Path, metavar="DIR", help="keeps local features of references for later runs")
    keep = one.add_mutually_exclusive_group(required=True)
    keep.add_argument("--output", type=Path, metavar="FILE.json", help="a file for match.py's fusion=FILE.json")
    keep.add_argument("--model", metavar="RUN_DIR", help="the model that made the descriptors, for fusion=model")
    return parser


def number(text: str) -> int:
    """Parse the number; argparse shows this function's name in its error messages."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 1")
    return value


if __name__ == "__main__":
    main()
