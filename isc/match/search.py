"""The search for the pairs of a run: by distance, and on the matching track also by their pixels."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from isc.config.choices import Device, Engine
from isc.config.match import NO_FEATURES, WHOLE_ALONE, SearchOptions, VerifyOptions
from isc.data.descriptors import Descriptors
from isc.data.ids import IntArray
from isc.data.matches import Matches
from isc.errors import InputError
from isc.evaluate.report.thumbnails import Pictures
from isc.match.inputs import DescriptorSets
from isc.runtime.progress import Report, progress

if TYPE_CHECKING:
    from isc.match.verification.compare import Problem, Verified
    from isc.match.verification.fusion import Fusion
    from isc.match.verification.rescore import PairEvidence
    from isc.search.multi_view import ImagePairs, RowSearch

log = logging.getLogger(__name__)

PROBLEMS_SHOWN = 5  # pictures that could not be compared in the log; not_compared.csv has all
PAIRS_PER_QUERY = 10  # default of num_pairs for each query; 500,000 pairs for the challenge's 50,000 queries


@dataclass(frozen=True)
class SearchResult:
    """The best pairs of `sets`; if pixels were compared, also the evidence by (query, reference) id, and problems.

    `flags` [M] says of each pair why its probability may not hold, see `isc.match.flags.pair_flags`; `picture` [M] is
    the number of the picture that its reference shows, `part` [M] that of the part of its query that shows it, see
    `isc.match.verification.rivals`; `log_nfa` [M] that of its alignment, NaN without one.
    """

    pairs: ImagePairs
    sets: DescriptorSets
    evidence: Mapping[tuple[str, str], PairEvidence] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    flags: npt.NDArray[np.object_] | None = None
    picture: IntArray | None = None
    part: IntArray | None = None
    log_nfa: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Verification:
    """The comparison of pixels: the pictures, the fusion of its evidence with the distance, and its options."""

    pictures: Pictures
    fusion: Fusion
    options: VerifyOptions


def find(sets: DescriptorSets, options: SearchOptions, verification: Verification | None = None) -> SearchResult:
    """Find the best pairs by distance; with a verification, the likeliest copies by all evidence."""
    from isc.search.kernels.device_rows import keeping_references

    with _cluster(options), keeping_references():
        if verification is None:
            return SearchResult(_nearest_pairs(sets, options, _searching(sets, options)), sets)
        return _likeliest(sets, options, verification)


def _cluster(options: SearchOptions) -> AbstractContextManager[None]:
    """Return the connection to the cluster for all searches of this run; for other engines a null context."""
    if options.engine is not Engine.ray:
        return nullcontext()
    from isc.runtime.ray_cluster import connected

    return connected(options.address)


def _likeliest(sets: DescriptorSets, options: SearchOptions, verification: Verification) -> SearchResult:
    from isc.match.flags import pair_flags
    from isc.match.looks import compare_candidates
    from isc.match.verification.compare import verify
    from isc.match.verification.device_compare import device_for
    from isc.match.verification.feature_store import FeatureStore
    from isc.match.verification.rescore import scored
    from isc.match.verification.rivals import picture_by_pixels

    pictures, compared = verification.pictures, verification.options
    store = None if compared.features == NO_FEATURES else FeatureStore(_features_folder(compared.features))
    if store:
        store.check()
    sets, second = _with_query_views(sets, compared, pictures)
    searching = _searching(sets, options)
    found = _nearest_pairs(sets, options, searching)

    def nearest(queries: Descriptors, references: Descriptors, count: int) -> Matches:
        with progress("finding candidates", "pairs" if options.index is None else "queries") as report:
            return searching(report).nearest(queries, references, count)

    def verified(pairs: Matches, further: Matches | None = None) -> Verified:
        return verify(
            pairs, pictures.queries, pictures.references, further=further, store=store, workers=compared.workers,
            on=device_for(compared.device, len(pairs)),
        )  # fmt: skip

    looked = compare_candidates(
        sets.queries, sets.references, second, candidates=compared.candidates, nearest=nearest, verify=verified
    )
    candidates, problems = looked.pairs.matches, looked.verified.problems
    pairs, evidence = scored(found, looked.pairs, looked.verified, fusion=verification.fusion, k=options.k)
    _log_problems(problems, looked.verified.not_compared, len(candidates))
    flags = pair_flags(pairs.matches, candidates, looked.verified.evidence)
    picture = picture_by_pixels(pairs.matches, pictures.references, store=store, workers=compared.workers)
    return SearchResult(pairs, sets, evidence, problems, flags, picture, *_parts(pairs.matches, evidence))


def _parts(
    pairs: Matches, evidence: Mapping[tuple[str, str], PairEvidence]
) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Return the number of the part of its query that each pair [M] shows, and its log_nfa, NaN without evidence."""
    from isc.match.verification.rivals import are_sure, part_of

    log_nfa, agreement = np.full((2, len(pairs)), np.nan)
    told = {row: one for row in range(len(pairs)) if (one := evidence.get(pairs.ids(row)))}
    for row, one in told.items():
        log_nfa[row], agreement[row] = one.log_nfa, one.agreement
    sure = are_sure(log_nfa, agreement)
    return part_of(pairs, {row: one.query_region for row, one in told.items() if sure[row]}), log_nfa


def _with_query_views(
    sets: DescriptorSets, options: VerifyOptions, pictures: Pictures
) -> tuple[DescriptorSets, Descriptors | None]:
    """Add rows of `query_views` to the queries, if they have one row each and their model is available.

    Return also their rows of `second_views`, for a second look; None if they have no further views, or those already.
    """
    views, second = options.query_views, options.second_views
    if views == WHOLE_ALONE or sets.queries.views is not None:
        return sets, None
    if (normalize := sets.provenance.get("normalize", "none")) != "none":
        log.info("query_views=%s: left out, as normalize=%s is not fitted for them", views, normalize)
        return sets, None
    from isc.match.query_views import with_query_views, without_views

    once = second == WHOLE_ALONE or second in views.split("+")
    asked = views if once else f"{views}+{second}"
    try:
        queries = with_query_views(sets.queries, pictures.queries, views=asked, provenance=sets.provenance)
    except InputError as error:
        log.warning("query_views=%s: left out, candidates are those of whole queries: %s", views, error)
        return sets, None
    if once:
        return replace(sets, queries=queries), None
    queries, more = without_views(queries, second)
    return replace(sets, queries=queries), more


def _features_folder(given: str | None) -> Path:
    """Return the folder that keeps local features of references from one run to the next."""
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
    """Two searches among rows of both sides: the best pairs over all queries, and the nearest references of each."""

    pairs: RowSearch
    nearest: RowSearch


def _searching(sets: DescriptorSets, options: SearchOptions) -> Callable[[Report], Searches]:
    """Return a function from a progress report to the searches, exact or by the requested index."""
    if options.index is not None:
        return _open_index(sets, options.index, options.index_search or "")
    return lambda report: _exact_searches(options, report)


def _exact_searches(options: SearchOptions, report: Report) -> Searches:
    if options.engine is Engine.ray:
        return _cluster_searches(options, report)
    from isc.search.exact import best_pairs, knn

    engine, memory = options.engine, options.memory_gb
    return Searches(
        lambda q, r, count: best_pairs(q, r, num_pairs=count, engine=engine, memory_gb=memory, progress=report),
        lambda q, r, count: knn(q, r, k=count, engine=engine, memory_gb=memory, progress=report),
    )


def _cluster_searches(options: SearchOptions, report: Report) -> Searches:
    """Return the exact searches on a Ray cluster."""
    from isc.search.ray_search import cluster_pairs

    actors, memory = options.actors, options.memory_gb

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


def _nearest_pairs(sets: DescriptorSets, options: SearchOptions, searching: Callable[[Report], Searches]) -> ImagePairs:
    """Find the requested pairs of images, by distance only."""
    from isc.search.multi_view import best_image_pairs, nearest_images

    sides, num_queries = (sets.queries, sets.references), len(sets.queries.images)
    existing = num_queries * len(sets.references.images)
    num_pairs = options.num_pairs or min(PAIRS_PER_QUERY * num_queries, existing)
    with progress("searching", "pairs" if options.index is None else "queries") as report:
        searches = searching(report)
        if options.k is not None:
            return nearest_images(*sides, k=options.k, find=searches.nearest)
        if options.index is not None or num_pairs >= existing:
            return best_image_pairs(*sides, num_pairs=num_pairs, find=searches.pairs)
        one_more = best_image_pairs(*sides, num_pairs=num_pairs + 1, find=searches.pairs)
    if one_more.matches.score[-1] == one_more.matches.score[-2]:
        log.warning("equal scores at the end, after %d pairs: those of the first ids are kept", num_pairs)
    return one_more.take(np.arange(num_pairs))


def _open_index(sets: DescriptorSets, name: str, search: str) -> Callable[[Report], Searches]:
    """Open an approximate index, and return a function from a progress report to its searches."""
    from isc.search.approximate.faiss_adapter import parse_search
    from isc.search.approximate.files import open_index
    from isc.search.approximate.pairs import approximate_pairs

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
