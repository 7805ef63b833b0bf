"""The command isc fusion: one probability for the distance and the local evidence of a pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isc import __version__
from isc.cli.console import Group, exactly_one
from isc.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from isc.data.matches import GroundTruth, Matches
    from isc.match.verification.fusion import Fusion

    Floats = npt.NDArray[np.float64]

PATH = click.Path(path_type=Path)
FITTED_CANDIDATES = 30  # candidates per query: its nearest references, the hard wrong pairs among them
BINS = (0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class Pairs:
    """Compared pairs: squared distances [P], evidence [P, F], and the mask [P] of correct pairs."""

    matches: Matches
    distance: Floats
    evidence: npt.NDArray[np.float32]
    copy: npt.NDArray[np.bool_]

    @property
    def copies(self) -> int:
        """The number of correct pairs."""
        return int(self.copy.sum())

    def take(self, rows: npt.NDArray[np.bool_]) -> Pairs:
        return Pairs(self.matches.take(rows), self.distance[rows], self.evidence[rows], self.copy[rows])


@click.group(cls=Group, short_help="fit the probability of a copy to distances and pixels")
def fusion() -> None:
    """Fit one probability to the distance and the local evidence of a pair, and keep the fit with the model."""


@fusion.command(short_help="fit it on copies of training photos")
@click.option("--queries", type=PATH, required=True, metavar="Q.h5", help="Descriptors of the queries.")
@click.option("--references", type=PATH, required=True, metavar="R.h5", help="Descriptors of the references.")
@click.option("--query-images", type=PATH, required=True, metavar="DIR", help="The queries' photos.")
@click.option("--reference-images", type=PATH, required=True, metavar="DIR", help="The references' photos.")
@click.option("--ground-truth", type=PATH, required=True, metavar="GT.csv", help="The true pairs.")
@click.option(
    "--candidates", type=click.IntRange(min=1), default=FITTED_CANDIDATES, show_default=True, metavar="N",
    help="Nearest references that each query is compared with.",
)  # fmt: skip
@click.option("--features", type=PATH, metavar="DIR", help="Keep local features of references here, for later runs.")
@click.option("--output", type=PATH, metavar="FILE.json", help="A file for fusion=FILE.json of isc match.")
@click.option("--model", metavar="RUN_DIR", help="Or the model that made the descriptors, for fusion=model.")
def fit(
    *,
    queries: Path,
    references: Path,
    query_images: Path,
    reference_images: Path,
    ground_truth: Path,
    candidates: int,
    features: Path | None,
    output: Path | None,
    model: str | None,
) -> None:
    """Compare each query with its nearest references, and fit how likely each pair is to be a copy.

    The photos should be training photos and the copies made of them, as isc benchmark makes them: report figures on
    others. Extract the queries with views=regions:1 combine=rows, as isc match describes them. What is printed of
    probabilities is of queries that they were not fitted on: each half's by what the other half says.

    \b
    isc fusion fit --queries q.h5 --references r.h5 --query-images bench/queries \\
        --reference-images bench/references --ground-truth bench/ground_truth.csv --model runs/first
    isc match track=matching queries=q2.h5 references=r2.h5 query_images=… reference_images=… output=matched
    """
    import numpy as np

    from isc.data.csv_files import read_ground_truth
    from isc.data.files import write_json
    from isc.match.inputs import read_sides
    from isc.match.verification.compare import verify
    from isc.match.verification.feature_store import FeatureStore
    from isc.match.verification.fusion import fit_fusion
    from isc.photos.folders import list_images
    from isc.runtime.progress import progress
    from isc.search.multi_view import nearest_images

    target = _target(output, model)
    store = FeatureStore(features) if features else None
    if store:
        store.check()
    sets = read_sides(queries, references)
    truth = read_ground_truth(ground_truth, query_ids=sets.queries.images, reference_ids=sets.references.images)
    images = list_images(query_images), list_images(reference_images)
    k = min(candidates, len(sets.references.images))
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
            fitted = fit_fusion(pairs.distance, pairs.evidence, pairs.copy)
            report(3, 3)
    except ValueError as error:
        raise InputError(f"{ground_truth}: {error}") from error
    print(summary(pairs, crossed, truth))
    write_json(target, record(fitted, pairs, crossed, provenance=sets.provenance))
    print(f"wrote {target}")


def cross_fitted(pairs: Pairs) -> Floats:
    """Return each pair's probability by a fusion fitted on the half of the queries that does not hold its query.

    Raises ValueError if a half is too small.
    """
    import numpy as np

    from isc.match.verification.fusion import fit_fusion

    half = pairs.matches.query % 2 == 0
    probability = np.zeros(len(half))
    for own in (half, ~half):
        other = pairs.take(~own)
        fitted = fit_fusion(other.distance, other.evidence, other.copy)
        probability[own] = fitted.probability(pairs.distance[own], pairs.evidence[own])
    return probability


def summary(pairs: Pairs, crossed: Floats, truth: GroundTruth) -> str:
    """Format the μAP of distance and of fusion, and the reliability of the probabilities."""
    from isc.evaluate.metrics import evaluate, reliability

    lines = [f"{len(pairs.copy):,} pairs, {pairs.copies:,} of {len(truth.pairs):,} copies among them"]
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


def record(fitted: Fusion, pairs: Pairs, crossed: Floats, *, provenance: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON record: the fusion, the model of its descriptors, and its reliability on held-out queries."""
    from isc.evaluate.metrics import reliability
    from isc.match.verification.fusion_files import FORMAT

    return {
        "format": FORMAT,
        "model": provenance.get("model"),
        "weights_sha256": provenance.get("weights_sha256"),
        "normalize": "none",
        "code_version": __version__,
        "pairs": len(pairs.copy),
        "copies": pairs.copies,
        "reliability": [asdict(one) for one in reliability(crossed, pairs.copy, edges=BINS)],
        "fusion": fitted.as_dict(),
    }


def _target(output: Path | None, model: str | None) -> Path:
    """Return the file to write. Raises InputError, before the work, if isc match could not find it."""
    from isc.data.model_files import beside_model, require_model
    from isc.match.verification.fusion_files import FILE

    exactly_one(output=output, model=model)
    if model is not None:
        require_model(model)
        return beside_model(model, FILE)
    if output is None or output.suffix.lower() != ".json":
        raise InputError(f"--output {output}: expected a name that ends in .json, as fusion= takes it")
    return output
