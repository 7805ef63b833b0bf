"""Descriptors, or a submission → the best pairs, their scores, and a report."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isc.config import Device, MatchConfig, Track
from isc.descriptors import Matches
from isc.errors import InputError
from isc.inputs import OUTPUTS, Sets, read_inputs
from isc.io import MAX_DIM, atomic_folder, write_json, write_predictions, write_submission, write_text
from isc.metrics import Metrics, evaluate
from isc.progress import progress
from isc.report import Pictures, apart, write_report

if TYPE_CHECKING:
    from isc.report import Evidence

log = logging.getLogger(__name__)

PAIRS_PER_QUERY = 10  # num_pairs where it is not given; 500,000 for the challenge's 50,000 queries


def match(config: MatchConfig) -> Metrics | None:
    """Match, or read a submission; judge it where there is a ground truth; write everything to `config.output`.

    The folder receives predictions.csv and submission.h5 (unless a submission was given that says the same),
    metrics.json (with a ground truth), evidence.jsonl (where pixels were compared) and report/index.html. Nothing is
    written when anything is refused.
    """
    pictures = _pictures(config)
    edits = _read_edits(Path(config.edits)) if config.edits else None
    inputs = read_inputs(config)
    sets, truth = inputs.sets, inputs.ground_truth
    evidence: Mapping[tuple[str, str], Evidence] = {}
    if inputs.predictions is not None:
        matches = inputs.predictions
    elif sets is not None:
        matches, evidence = _find(sets, config, pictures)
    else:
        raise InputError("neither descriptors nor predictions; expected queries= and references=, or submission=")
    metrics = evaluate(matches, truth) if truth else None
    for note in inputs.notes:
        log.warning("%s", note)
    with atomic_folder(Path(config.output), owned=OUTPUTS if config.submission is None else ()) as folder:
        if inputs.predictions is None:
            write_predictions(folder / "predictions.csv", matches)
        if sets is not None and config.submission is None and sets.queries.dim <= MAX_DIM:
            write_submission(folder / "submission.h5", sets.queries, sets.references, sets.provenance)
        if evidence:
            write_evidence(folder / "evidence.jsonl", evidence)
        if metrics:
            write_json(folder / "metrics.json", metrics.as_dict())
        write_report(
            folder / "report" / "index.html",
            matches,
            title=f"{config.track.value} track",
            metrics=metrics,
            ground_truth=truth,
            pictures=pictures,
            edits=edits,
            evidence=evidence,
            provenance=_provenance(config, sets),
        )
    _log_result(config, matches, metrics)
    return metrics


def _find(
    sets: Sets, config: MatchConfig, pictures: Pictures | None
) -> tuple[Matches, Mapping[tuple[str, str], Evidence]]:
    """The best pairs by distance; for the matching track with pictures, rescored by what their pixels share."""
    from isc.search import knn

    matches = _nearest_pairs(sets, config)
    if config.track is Track.descriptor:
        return matches, {}
    if pictures is None:
        log.info("track=matching without query_images= and reference_images=: the scores are the distances alone")
        return matches, {}
    from isc.verify import verify

    k = min(config.candidates, len(sets.references))
    candidates = knn(sets.queries, sets.references, k=k, engine=config.engine, memory_gb=config.memory_gb)
    with progress("comparing pixels", "queries") as report:
        verified, evidence, problems = verify(candidates, pictures.queries, pictures.references, progress=report)
    for problem in problems:
        log.warning("not compared, its pairs keep their distance score: %s", problem)
    return replace_scores(matches, verified, keep=len(matches)), evidence


def _nearest_pairs(sets: Sets, config: MatchConfig) -> Matches:
    """The pairs asked for, by distance alone."""
    from isc.search import best_pairs, knn

    existing = len(sets.queries) * len(sets.references)
    default = min(PAIRS_PER_QUERY * len(sets.queries), existing)
    if config.index is not None:
        return _approximate_pairs(sets, config, config.index, default)
    with progress("searching", "pairs") as report:
        find = functools.partial(
            best_pairs if config.k is None else knn,
            sets.queries,
            sets.references,
            engine=config.engine,
            memory_gb=config.memory_gb,
            progress=report,
        )
        if config.k is not None:
            return find(k=config.k)
        num_pairs = config.num_pairs or default
        if num_pairs >= existing:
            return find(num_pairs=num_pairs)
        one_more = find(num_pairs=num_pairs + 1)
    if one_more.score[-1] == one_more.score[-2]:
        log.warning("equal scores at the cut after %d pairs: those of the first ids are kept", num_pairs)
    return one_more.take(np.arange(num_pairs))


def _approximate_pairs(sets: Sets, config: MatchConfig, index: str, default: int) -> Matches:
    """The same, of those that an approximate index finds."""
    from isc.search.approximate import approximate_pairs, open_index, parse_search

    search = config.index_search or ""
    parse_search(search)
    with progress("filling the index", "descriptors") as report:
        training = sets.training.vectors if sets.training else None
        opened = open_index(index, sets.references.vectors, training=training, device=Device.auto, progress=report)
    num_pairs = (config.num_pairs or default) if config.k is None else None
    with progress("searching", "queries") as report:
        return approximate_pairs(
            sets.queries,
            sets.references,
            index=opened,
            num_pairs=num_pairs,
            k=config.k,
            search=search,
            progress=report,
        )


def replace_scores(matches: Matches, better: Matches, *, keep: int) -> Matches:
    """The `keep` best of both sets of pairs over the same id tables; a pair in both has its score in `better`."""
    old = matches.take(~np.isin(matches.keys(), better.keys()))
    joined = Matches(
        matches.query_ids,
        matches.reference_ids,
        np.r_[better.query, old.query],
        np.r_[better.reference, old.reference],
        np.r_[better.score, old.score],
    )
    return joined.take(joined.order()[:keep])


def _pictures(config: MatchConfig) -> Pictures | None:
    if config.query_images is None or config.reference_images is None:
        return None
    from isc.images import list_images

    return Pictures(
        list_images(Path(config.query_images), key="query_images"),
        list_images(Path(config.reference_images), key="reference_images"),
    )


def _read_edits(path: Path) -> dict[str, list[str]]:
    """What was done to each query, in words."""
    from isc.benchmark import read_edits

    return {query: [edit.describe() for edit in edits] for query, edits in read_edits(path).items()}


def write_evidence(path: Path, evidence: Mapping[tuple[str, str], Evidence]) -> None:
    """One JSON object a line for each pair whose pixels agree: ids, inliers, and the region in both pictures, corners
    (x, y) as fractions of width and height."""
    records = [
        {
            "query_id": query,
            "reference_id": reference,
            "inliers": one.inliers,
            "query_region": one.query_region.round(4).tolist(),
            "reference_region": one.reference_region.round(4).tolist(),
        }
        for (query, reference), one in evidence.items()
    ]
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _provenance(config: MatchConfig, sets: Sets | None) -> dict[str, str]:
    """What the report says of where it came from: the options given, then the descriptors' own attributes."""
    options = {key: str(getattr(value, "value", value)) for key, value in vars(config).items() if value is not None}
    return options | dict(sets.provenance if sets else {})


def _log_result(config: MatchConfig, matches: Matches, metrics: Metrics | None) -> None:
    log.info("%d pairs; see %s", len(matches), Path(config.output) / "report" / "index.html")
    if metrics:
        print(summary(metrics))
        if metrics.ties_matter:
            low, high = apart(*metrics.tie_range)
            log.warning("equal scores: μAP lies between %s and %s by their order; the worst counts", low, high)
        if metrics.num_dropped:
            log.warning("%d predictions dropped: their queries are not in the ground truth", metrics.num_dropped)


def summary(metrics: Metrics) -> str:
    """The figures as a few lines of text."""
    threshold = "never reached" if metrics.threshold_at_p90 is None else f"score ≥ {metrics.threshold_at_p90:.4f}"
    lines = {
        "μAP": f"{metrics.average_precision:.4f}",
        "recall at 90 % precision": f"{metrics.recall_at_p90:.4f}  ({threshold})",
        "recall at rank 1, 10": f"{metrics.recall_at_rank1:.4f}, {metrics.recall_at_rank10:.4f}",
        "predictions, dropped": f"{metrics.num_predictions:,}, {metrics.num_dropped:,}",
        "true pairs": f"{metrics.num_positives:,}",
    }
    return "\n".join(f"{name:26}{value}" for name, value in lines.items())
