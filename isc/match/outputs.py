"""The files and messages of a run of match.py."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isc.data.csv_files import write_csv, write_predictions
from isc.data.files import atomic_folder, write_json
from isc.data.hdf5 import MAX_DIM, write_submission
from isc.data.ids import IntArray
from isc.data.matches import GroundTruth, Matches
from isc.evaluate.bootstrap import Resampled, bootstrap, intervals
from isc.evaluate.calibration.score_origin import FILE, FORMAT, ScoreOrigin
from isc.evaluate.calibration.versions import FILE as VERSIONS
from isc.evaluate.calibration.versions import write_versions
from isc.evaluate.metrics import Metrics, evaluate
from isc.evaluate.report.comparison import Comparison, OtherRun, compare
from isc.evaluate.report.page import write_report
from isc.evaluate.report.pair_outcomes import apart
from isc.evaluate.report.thumbnails import Pictures
from isc.match.flags import flagged, pair_flags, write_evidence_flags, write_flags
from isc.match.inputs import OUTPUTS, DescriptorSets
from isc.match.search import SearchResult

if TYPE_CHECKING:
    from isc.evaluate.calibration.apply import Applied
    from isc.search.multi_view import ImagePairs

log = logging.getLogger(__name__)

VIEW_COLUMNS = ("query_id", "reference_id", "query_view", "reference_view")
MANY = 300_000  # predictions from which on FEWER resamples are made: judging half a million should take two seconds
RESAMPLES, FEWER = 1000, 200

Span = Sequence[float] | None


@dataclass(frozen=True)
class Judgement:
    """A run judged by the ground truth, with its bootstrap `resampled` and the `comparison` with another run."""

    truth: GroundTruth
    metrics: Metrics
    resampled: Resampled
    comparison: Comparison | None

    @property
    def intervals(self) -> dict[str, list[float] | None]:
        return intervals(self.resampled)


@dataclass(frozen=True)
class Results:
    """The results of a run, to be written; `found` and `made` are None unless descriptors were searched."""

    matches: Matches
    found: SearchResult | None
    made: ScoreOrigin | None
    judgement: Judgement | None
    calibrated: Applied | None


def judge(matches: Matches, truth: GroundTruth, *, other: OtherRun | None) -> Judgement:
    metrics = evaluate(matches, truth)
    resamples = RESAMPLES if other or len(matches) < MANY else FEWER  # with few resamples, no p-value is small
    resampled = bootstrap(matches, truth, resamples=resamples)
    comparison = compare(matches, truth, other=other, resampled=resampled) if other else None
    return Judgement(truth, metrics, resampled, comparison)


def write_results(
    results: Results,
    output: Path,
    *,
    sets: DescriptorSets | None,
    submitted: bool,
    title: str,
    provenance: Mapping[str, str],
    pictures: Pictures | None,
    edits: Mapping[str, Sequence[str]] | None,
) -> None:
    """Write everything to the folder `output`, or nothing; `title` and `provenance` are shown in the report.

    For a `submitted` result no submission.h5 is written, and the folder's earlier files stay.
    """
    judgement, found, calibrated = results.judgement, results.found, results.calibrated
    flags = pair_flags(results.matches) if found is None or found.flags is None else found.flags
    by_pair = {} if found is None or found.flags is None else flagged(results.matches, flags)
    with atomic_folder(output, owned=() if submitted else OUTPUTS) as folder:
        if found is not None and sets is not None:
            _write_found(folder, found, sets, submission=not submitted)
        if found is not None and found.evidence:
            write_evidence_flags(folder / "evidence.jsonl", by_pair)
        if (picture := _pictures(results)) is not None and (picture != results.matches.reference).any():
            write_versions(folder / VERSIONS, results.matches, picture)
        if results.made:
            write_json(folder / FILE, {"format": FORMAT} | results.made.as_dict())
        if calibrated:
            from isc.evaluate.calibration.apply import write_probabilities

            write_probabilities(folder / "probabilities.csv", calibrated)
            write_flags(folder / "probabilities.csv", flags[results.matches.order()].tolist())
        if judgement:
            write_json(folder / "metrics.json", judgement.metrics.as_dict() | {"intervals": judgement.intervals})
        if judgement and judgement.comparison:
            write_json(folder / "comparison.json", judgement.comparison.as_dict())
        write_report(
            folder / "report" / "index.html",
            results.matches,
            title=title,
            metrics=judgement.metrics if judgement else None,
            ground_truth=judgement.truth if judgement else None,
            pictures=pictures,
            edits=edits,
            evidence=found.evidence if found else {},
            flags=by_pair if found is not None and found.flags is not None else None,
            provenance=provenance,
            probabilities=results.made is not None and results.made.gives_probabilities,
            calibrated=calibrated.probability if calibrated else None,
            accepted=calibrated.accepted if calibrated else None,
            acceptance=_acceptance(calibrated),
            resampled=judgement.resampled if judgement else None,
            compare=judgement.comparison if judgement else None,
        )


def _pictures(results: Results) -> IntArray | None:
    """Return the pictures that the references show, as the calibration or the comparison of pixels found them."""
    if results.calibrated is not None:
        return results.calibrated.picture
    return None if results.found is None else results.found.picture


def _acceptance(calibrated: Applied | None) -> str:
    if calibrated is None:
        return ""
    from isc.evaluate.calibration.apply import acceptance

    return acceptance(calibrated)


def _write_found(folder: Path, found: SearchResult, sets: DescriptorSets, *, submission: bool) -> None:
    """Write the results of the search, and with `submission` the descriptor track's file, if the sets allow it."""
    write_predictions(folder / "predictions.csv", found.pairs.matches)
    if found.evidence:
        from isc.match.verification.rescore import write_evidence

        write_evidence(folder / "evidence.jsonl", found.evidence)
    if found.problems:
        from isc.match.verification.compare import write_not_compared

        write_not_compared(folder / "not_compared.csv", found.problems)
    if found.sets.have_views:
        write_views(folder / "views.csv", found.pairs, found.sets)
    if sets.have_views:
        log.info("no submission.h5: the descriptor track allows one descriptor an image, and these have views")
    elif submission and sets.queries.dim <= MAX_DIM:
        write_submission(folder / "submission.h5", sets.queries, sets.references, sets.provenance)


def write_views(path: Path, found: ImagePairs, sets: DescriptorSets) -> None:
    """Write `query_id,reference_id,query_view,reference_view`: the views that gave the distance of each pair.

    The order is that of predictions.csv; a side without views has an empty column.
    """
    matches, order = found.matches, found.matches.order()
    columns = (
        matches.query_ids[matches.query],
        matches.reference_ids[matches.reference],
        *(
            np.full(len(rows), "", object) if one.views is None else one.views[rows]
            for one, rows in ((sets.queries, found.query_row), (sets.references, found.reference_row))
        ),
    )
    write_csv(path, VIEW_COLUMNS, zip(*(column[order] for column in columns), strict=True))


def print_summary(results: Results, output: Path) -> None:
    """Print the result to stdout, and log notes and warnings."""
    log.info("%d pairs; see %s", len(results.matches), output / "report" / "index.html")
    if results.judgement:
        _tell_judgement(results.judgement)
    if results.calibrated and results.made:
        from isc.evaluate.calibration.apply import judged, precision_of_cut, warning

        print(precision_of_cut(results.calibrated))
        if results.judgement:
            print(judged(results.calibrated, results.judgement.truth))
        if said := warning(results.calibrated):
            log.warning("%s", said)


def _tell_judgement(judgement: Judgement) -> None:
    metrics = judgement.metrics
    print(summary(metrics, judgement.intervals))
    if judgement.comparison:
        print(judgement.comparison.summary())
    if metrics.ties_matter:
        low, high = apart(*metrics.tie_range)
        log.warning("equal scores: μAP lies between %s and %s by their order; the worst counts", low, high)
    if metrics.num_dropped:
        log.warning("%d predictions dropped: their queries are not in the ground truth", metrics.num_dropped)


def summary(metrics: Metrics, spans: Mapping[str, Span]) -> str:
    """Return the metrics as a few lines of text, with their 95 % intervals."""
    threshold = "never reached" if metrics.threshold_at_p90 is None else f"score ≥ {metrics.threshold_at_p90:.4f}"
    lines = {
        "μAP": f"{metrics.average_precision:.4f}  {_span(spans['average_precision'])}",
        "recall at 90 % precision": f"{metrics.recall_at_p90:.4f}  {_span(spans['recall_at_p90'])}  ({threshold})",
        "recall at rank 1": f"{metrics.recall_at_rank1:.4f}  {_span(spans['recall_at_rank1'])}",
        "recall at rank 10": f"{metrics.recall_at_rank10:.4f}  {_span(spans['recall_at_rank10'])}",
        "predictions, dropped": f"{metrics.num_predictions:,}, {metrics.num_dropped:,}",
        "true pairs": f"{metrics.num_positives:,}",
    }
    return "\n".join(f"{name:26}{value}".rstrip() for name, value in lines.items())


def _span(span: Span) -> str:
    return "" if span is None else f"95 %: {span[0]:.4f} … {span[1]:.4f}"
