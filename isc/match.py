"""Descriptors, or a submission → the best pairs, their scores, and a report."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isc.config import NO_FEATURES, WHOLE_ALONE, Device, Engine, MatchConfig, Track
from isc.descriptors import Descriptors, Matches
from isc.errors import InputError
from isc.inputs import OUTPUTS, Sets, read_inputs
from isc.io import MAX_DIM, atomic_folder, write_csv, write_json, write_predictions, write_submission
from isc.metrics import Metrics, evaluate
from isc.progress import Report, progress
from isc.report import Pictures, apart, write_report

if TYPE_CHECKING:
    from isc.matching.track import PairEvidence
    from isc.matching.verify import Problem
    from isc.search.views import ImagePairs, RowSearch

log = logging.getLogger(__name__)

VIEW_COLUMNS = ("query_id", "reference_id", "query_view", "reference_view")
PROBLEMS_SHOWN = 5  # of the pictures that could not be compared; not_compared.csv has all
PAIRS_PER_QUERY = 10  # num_pairs where it is not given; 500,000 for the challenge's 50,000 queries


def match(config: MatchConfig) -> Metrics | None:
    """Match, or read a submission; judge it where there is a ground truth; write everything to `config.output`.

    The folder receives predictions.csv and submission.h5 (unless a submission was given that says the same, or images
    come with several rows), views.csv where images have several rows, metrics.json with a ground truth, evidence.jsonl
    and not_compared.csv where pixels were compared, or could not be, and report/index.html. Nothing is written when
    anything is refused.
    """
    pictures = _pictures(config)
    edits = _read_edits(Path(config.edits)) if config.edits else None
    inputs = read_inputs(config)
    sets, truth = inputs.sets, inputs.ground_truth
    found: Found | None = None
    if inputs.predictions is not None:
        matches = inputs.predictions
    elif sets is not None:
        with _cluster(config):
            found = _find(sets, config, pictures)
        matches = found.pairs.matches
    else:
        raise InputError("neither descriptors nor predictions; expected queries= and references=, or submission=")
    metrics = evaluate(matches, truth) if truth else None
    for note in inputs.notes:
        log.warning("%s", note)
    with atomic_folder(Path(config.output), owned=OUTPUTS if config.submission is None else ()) as folder:
        if found is not None and sets is not None:
            _write_found(folder, found, sets, submission=config.submission is None)
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
            evidence=found.evidence if found else {},
            provenance=_provenance(config, sets),
            probabilities=found.probabilities if found else False,
        )
    _log_result(config, matches, metrics)
    return metrics


def _cluster(config: MatchConfig) -> AbstractContextManager[None]:
    """The connection that all searches of this run use, where a cluster searches."""
    if config.engine is not Engine.ray:
        return nullcontext()
    from isc.cluster.connection import connected

    return connected(config.address)


@dataclass(frozen=True)
class Found:
    """The best pairs of these sets; where pixels were compared, the evidence by (query, reference) id, and what kept
    some from it."""

    pairs: ImagePairs
    sets: Sets
    evidence: Mapping[tuple[str, str], PairEvidence] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    probabilities: bool = False  # whether the scores are such, and not negative squared distances


def _write_found(folder: Path, found: Found, sets: Sets, *, submission: bool) -> None:
    """What the search found, and with `submission` the descriptor track's file, where the sets are legal for it."""
    write_predictions(folder / "predictions.csv", found.pairs.matches)
    if found.evidence:
        from isc.matching.track import write_evidence

        write_evidence(folder / "evidence.jsonl", found.evidence)
    if found.problems:
        from isc.matching.verify import write_not_compared

        write_not_compared(folder / "not_compared.csv", found.problems)
    if found.sets.have_views:
        write_views(folder / "views.csv", found.pairs, found.sets)
    if sets.have_views:
        log.info("no submission.h5: the descriptor track allows one descriptor an image, and these have views")
    elif submission and sets.queries.dim <= MAX_DIM:
        write_submission(folder / "submission.h5", sets.queries, sets.references, sets.provenance)


def _find(sets: Sets, config: MatchConfig, pictures: Pictures | None) -> Found:
    """The best pairs by distance; for the matching track with pictures, the likeliest copies by all evidence."""
    if config.track is Track.descriptor:
        return Found(_nearest_pairs(sets, config, _searching(sets, config)), sets)
    if pictures is None:
        log.info("track=matching without query_images= and reference_images=: the scores are the distances alone")
        return Found(_nearest_pairs(sets, config, _searching(sets, config)), sets)
    from isc.matching.store import FeatureStore
    from isc.matching.stored import fusion_for
    from isc.matching.track import scored
    from isc.matching.verify import verify
    from isc.search import nearest_images

    fusion, note = fusion_for(config.fusion, sets.provenance)
    if note:
        log.warning("%s", note)
    store = None if config.features == NO_FEATURES else FeatureStore(_features_folder(config.features))
    if store:
        store.check()
    sets = _with_looks(sets, config, pictures)
    searching = _searching(sets, config)
    found = _nearest_pairs(sets, config, searching)
    k = min(config.candidates, len(sets.references.images))
    with progress("finding candidates", "pairs" if config.index is None else "queries") as report:
        candidates = nearest_images(sets.queries, sets.references, k=k, find=searching(report).nearest)
    verified = verify(candidates.matches, pictures.queries, pictures.references, store=store, workers=config.workers)
    pairs, evidence = scored(found, candidates, verified, fusion=fusion, k=config.k)
    _log_problems(verified.problems, verified.not_compared, len(candidates.matches))
    return Found(pairs, sets, evidence, verified.problems, probabilities=True)


def _with_looks(sets: Sets, config: MatchConfig, pictures: Pictures) -> Sets:
    """With more rows of the queries, where these have one each and the model that made them is at hand."""
    if config.looks == WHOLE_ALONE or sets.queries.views is not None:
        return sets
    if config.normalize != "none":
        log.info("looks=%s: left out, as normalize=%s is not fitted for them", config.looks, config.normalize)
        return sets
    from isc.matching.looks import with_looks

    try:
        queries = with_looks(sets.queries, pictures.queries, views=config.looks, provenance=sets.provenance)
    except InputError as error:
        log.warning("looks=%s: left out, candidates are those of whole queries: %s", config.looks, error)
        return sets
    return replace(sets, queries=queries)


def _features_folder(given: str | None) -> Path:
    """Where local features of references are kept from one run to the next."""
    if given is not None:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "isc" / "features"


def _log_problems(problems: Sequence[Problem], not_compared: int, candidates: int) -> None:
    for problem in problems[:PROBLEMS_SHOWN]:
        log.warning("not compared: %s %s: %s", problem.side, problem.id, problem.reason)
    if problems:
        log.warning(
            "%d of %d candidate pairs could not be compared and keep what their distance says; all %d causes are in "
            "not_compared.csv", not_compared, candidates, len(problems),
        )  # fmt: skip


@dataclass(frozen=True)
class Searches:
    """What finds the best pairs over all queries, and the nearest references of each, among rows of either side."""

    pairs: RowSearch
    nearest: RowSearch


def _searching(sets: Sets, config: MatchConfig) -> Callable[[Report], Searches]:
    """What makes the searches of these references, exact or by the index that is asked for, with a progress bar."""
    if config.index is not None:
        return _open_index(sets, config.index, config.index_search or "")
    return lambda report: _exact_searches(config, report)


def _exact_searches(config: MatchConfig, report: Report) -> Searches:
    if config.engine is Engine.ray:
        return _cluster_searches(config, report)
    from isc.search import best_pairs, knn

    engine, memory = config.engine, config.memory_gb
    return Searches(
        lambda q, r, count: best_pairs(q, r, num_pairs=count, engine=engine, memory_gb=memory, progress=report),
        lambda q, r, count: knn(q, r, k=count, engine=engine, memory_gb=memory, progress=report),
    )


def _cluster_searches(config: MatchConfig, report: Report) -> Searches:
    """The exact ones, by a cluster."""
    from isc.cluster.search import cluster_pairs

    actors, memory = config.actors, config.memory_gb

    def search(queries: Descriptors, references: Descriptors, num_pairs: int | None, k: int | None) -> Matches:
        return cluster_pairs(
            queries,
            references,
            num_pairs=num_pairs,
            k=k,
            actors=actors,
            memory_gb=memory,
            progress=report,
        )

    return Searches(lambda q, r, count: search(q, r, count, None), lambda q, r, count: search(q, r, None, count))


def _nearest_pairs(sets: Sets, config: MatchConfig, searching: Callable[[Report], Searches]) -> ImagePairs:
    """The pairs of images asked for, by distance alone."""
    from isc.search import best_image_pairs, nearest_images

    sides, num_queries = (sets.queries, sets.references), len(sets.queries.images)
    existing = num_queries * len(sets.references.images)
    num_pairs = config.num_pairs or min(PAIRS_PER_QUERY * num_queries, existing)
    with progress("searching", "pairs" if config.index is None else "queries") as report:
        searches = searching(report)
        if config.k is not None:
            return nearest_images(*sides, k=config.k, find=searches.nearest)
        if config.index is not None or num_pairs >= existing:
            return best_image_pairs(*sides, num_pairs=num_pairs, find=searches.pairs)
        one_more = best_image_pairs(*sides, num_pairs=num_pairs + 1, find=searches.pairs)
    if one_more.matches.score[-1] == one_more.matches.score[-2]:
        log.warning("equal scores at the cut after %d pairs: those of the first ids are kept", num_pairs)
    return one_more.take(np.arange(num_pairs))


def _open_index(sets: Sets, name: str, search: str) -> Callable[[Report], Searches]:
    """Those that an approximate index finds."""
    from isc.search.approximate import approximate_pairs, open_index, parse_search

    parse_search(search)
    with progress("filling the index", "descriptors") as report:
        training = sets.training.vectors if sets.training else None
        index = open_index(name, sets.references.vectors, training=training, device=Device.auto, progress=report)

    def searches(report: Report) -> Searches:
        return Searches(
            lambda q, r, count: approximate_pairs(q, r, index=index, num_pairs=count, search=search, progress=report),
            lambda q, r, count: approximate_pairs(q, r, index=index, k=count, search=search, progress=report),
        )

    return searches


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


def write_views(path: Path, found: ImagePairs, sets: Sets) -> None:
    """`query_id,reference_id,query_view,reference_view`: which views of a pair gave its distance, in the order of
    predictions.csv. Empty for a side that has none."""
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
