"""Gain from each part of the matching track, measured on an outside judge.

    python -m benchmarks.matching JUDGE --work DIR [--model isc_small] [--query-views VIEWS] [--publish NAME]

JUDGE is a folder of `python -m benchmarks.judge make`: photos kept out of training, edited by AugLy. Descriptors are
made by extract.py and kept in --work. All candidate pairs are compared once. The rows score them by one part of the
evidence after another, and by a simple prototype: SIFT on the query and on its mirror image, one affine map by RANSAC,
the number of agreeing points added to the cosine. Choose settings on a judge that you do not report; --publish keeps
the tables for docs/results.md, as `matching` (AugLy's edits) or `matching_tools` (other tools').
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks import save
from benchmarks.judge_score import _command, _edits, standard_error
from benchmarks.results import MATCHED
from isc.cli.fusion import BINS
from isc.config.match import MatchConfig
from isc.data.csv_files import read_ground_truth
from isc.data.descriptors import Descriptors
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.metrics import Metrics, evaluate, reliability
from isc.match.inputs import DescriptorSets, read_sides
from isc.match.looks import SECOND, compare_candidates
from isc.match.query_views import with_query_views, without_views
from isc.match.verification.compare import Verified, verify
from isc.match.verification.drawings import FURTHER
from isc.match.verification.feature_store import FeatureStore
from isc.match.verification.fusion_files import MODEL, fusion_for
from isc.match.verification.quantities import EVIDENCE
from isc.photos.decode import Pixels, read_image
from isc.photos.folders import list_images
from isc.photos.resizing import fit_within
from isc.runtime.cpus import cores
from isc.runtime.progress import progress
from isc.search.multi_view import nearest_images

Floats = npt.NDArray[np.float64]

NUMBERS = (10, 20, 50, 100)  # of candidates
PROTOTYPE_CANDIDATES, PROTOTYPE_SIDE, PROTOTYPE_FEATURES, PROTOTYPE_GAIN = 10, 320, 500, 0.02
SIGNIFICANT = 4.0  # an alignment that occurs by chance in one of 10,000 pairs


@dataclass(frozen=True)
class Bench:
    """A judge's images and ground truth, and the pairs of each query with its nearest references, nearest first."""

    queries: Mapping[str, Path]
    references: Mapping[str, Path]
    truth: GroundTruth
    candidates: Matches
    rank: npt.NDArray[np.int64]  # [P], from 0

    @property
    def distance(self) -> Floats:
        return -self.candidates.score.astype(np.float64)

    def nearest(self, number: int) -> npt.NDArray[np.bool_]:
        return self.rank < number

    def judged(self, score: Floats, number: int) -> tuple[Matches, Metrics]:
        """Return matches and metrics by the scores [P], of the nearest `number` references of each query."""
        rows, all_of = self.nearest(number), self.candidates
        matches = Matches(
            all_of.query_ids, all_of.reference_ids, all_of.query[rows], all_of.reference[rows], score[rows]
        )
        return matches, evaluate(matches, self.truth)


def bench(judge: Path, queries: Descriptors, references: Descriptors, *, number: int) -> Bench:
    truth = read_ground_truth(judge / "ground_truth.csv", query_ids=queries.images, reference_ids=references.images)
    found = nearest_images(queries, references, k=min(number, len(references.images))).matches
    order = np.lexsort((found.reference, -found.score, found.query))
    found = found.take(order)
    starts = np.flatnonzero(np.r_[True, np.diff(found.query) != 0])
    rank = np.arange(len(found)) - np.repeat(starts, np.diff(np.r_[starts, len(found)]))
    return Bench(list_images(judge / "queries"), list_images(judge / "references"), truth, found, rank)


def row(name: str, one: Bench, score: Floats, *, number: int) -> dict[str, object]:
    matches, metrics = one.judged(score, number)
    held = one.truth.correct(one.candidates.take(one.nearest(number))).sum() / len(one.truth.pairs)
    return {
        "": name,
        "candidates": number,
        "copies among them": f"{held:.3f}",
        "μAP": f"{metrics.average_precision:.3f}",
        "standard error": f"{standard_error(matches, one.truth):.3f}",
        "recall at 90 % precision": f"{metrics.recall_at_p90:.3f}",
        "recall at rank 1": f"{metrics.recall_at_rank1:.3f}",
    }


# --- the prototype ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _sift(path: Path, mirror: bool) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    pixels: Pixels = fit_within(read_image(path), PROTOTYPE_SIDE)
    gray = cv2.cvtColor(np.ascontiguousarray(pixels[:, ::-1] if mirror else pixels), cv2.COLOR_RGB2GRAY)
    points, descriptors = cv2.SIFT.create(nfeatures=PROTOTYPE_FEATURES).detectAndCompute(gray, None)
    found = None if descriptors is None else np.asarray(descriptors, np.float32)
    return np.array([p.pt for p in points], np.float32).reshape(-1, 2), found


def prototype(query: Path, references: Sequence[Path]) -> list[int]:
    """Return the agreeing points with each reference, the larger number of the query and its mirror image."""
    cv2.setNumThreads(1)
    return [max(_agreeing(_sift(query, mirror), _sift(path, False)) for mirror in (False, True)) for path in references]


def _agreeing(
    query: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None],
    reference: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None],
) -> int:
    (q_points, q), (r_points, r) = query, reference
    if q is None or r is None or min(len(q), len(r)) < 4:
        return 0
    near = cv2.BFMatcher(cv2.NORM_L2).knnMatch(q, r, k=2)
    good = np.array([(m.queryIdx, m.trainIdx) for m, n in near if m.distance < 0.75 * n.distance]).reshape(-1, 2)
    if len(good) < 4:
        return 0
    found, inside = cv2.estimateAffine2D(
        r_points[good[:, 1]], q_points[good[:, 0]], method=cv2.RANSAC, ransacReprojThreshold=4.0
    )
    return 0 if found is None else int(inside.sum())


def prototype_inliers(one: Bench) -> Floats:
    """Return the prototype's agreeing points [P]; 0 for pairs that are not its candidates."""
    inliers = np.zeros(len(one.candidates))
    rows = np.flatnonzero(one.nearest(PROTOTYPE_CANDIDATES))
    groups = np.split(rows, np.flatnonzero(np.diff(one.candidates.query[rows])) + 1)
    ids = one.candidates
    tasks = [
        (
            one.queries[ids.query_ids[ids.query[group[0]]]],
            [one.references[ids.reference_ids[ids.reference[at]]] for at in group],
        )
        for group in groups
    ]
    with ProcessPoolExecutor(cores()) as pool, progress("the prototype", "queries") as report:
        for done, (group, found) in enumerate(zip(groups, pool.map(prototype, *zip(*tasks, strict=True)), strict=True)):
            inliers[group] = found
            report(done + 1, len(groups))
    return inliers


# --- the tables ------------------------------------------------------------------------------------------------------


def parts(
    one: Bench, more: Bench | None, evidence: Callable[[Bench], Floats], provenance: Mapping[str, str]
) -> list[dict[str, object]]:
    """Return the table of the parts; `more` has further views of the queries."""
    fusion, _ = fusion_for(MODEL, provenance)
    known = evidence(one)
    named = {name: known[:, at].astype(np.float64) for at, name in enumerate(EVIDENCE)}
    agreeing = prototype_inliers(one)
    cosine = 1 - one.distance / 2
    few = NUMBERS[0]
    rows = [
        row("descriptor track: distance alone", one, -one.distance, number=few),
        row("prototype, agreeing points alone", one, agreeing, number=few),
        row("prototype, added to the cosine", one, cosine + PROTOTYPE_GAIN * np.minimum(agreeing, 50), number=few),
        row("agreeing points alone", one, named["inliers"], number=few),
        row("log NFA of the points alone", one, named["log_nfa"], number=few),
        row("agreement of the pixels alone", one, named["agreement"], number=few),
        row("distance + log NFA", one, cosine + PROTOTYPE_GAIN * np.minimum(named["log_nfa"], 50), number=few),
    ]
    probability = fusion.probability(one.distance, known.astype(np.float32))
    rows += [row("fusion of all", one, probability, number=number) for number in NUMBERS]
    if more is None:
        return rows
    probability = fusion.probability(more.distance, evidence(more).astype(np.float32))
    rows += [row("fusion of all, and more query views", more, probability, number=number) for number in NUMBERS]
    return rows


def as_matched(
    one: Bench, sets: DescriptorSets, tiles: Descriptors | None, store: FeatureStore
) -> tuple[Bench, Floats]:
    """Return the pairs that match.py scores, and their evidence [P, E]."""

    def verified(pairs: Matches, further: Matches | None = None) -> Verified:
        return verify(pairs, one.queries, one.references, further=further, store=store)

    looked = compare_candidates(
        sets.queries, sets.references, tiles, candidates=MatchConfig.candidates, verify=verified
    )
    pairs = looked.pairs.matches
    return replace(one, candidates=pairs, rank=np.zeros(len(pairs), np.int64)), looked.verified.evidence


def by_edit(judge: Path, one: Bench, known: Floats, probability: Floats, *, number: int) -> list[dict[str, object]]:
    """Return one row per edit: the copies with it in their chain, and the shares found at 90 % precision.

    The shares are by distance and by probability. The copies missed by probability are counted by reason: the reference
    was no candidate, it had no alignment, or it scored too low.
    """
    chains = {}
    for line in map(json.loads, (judge / "edits.jsonl").read_text(encoding="utf-8").splitlines()):
        if line["reference_id"]:
            chains[line["query_id"]] = [edit["name"] for edit in line["edits"]]
    near, plain = (_found(one, score, number) for score in (probability, -one.distance))
    rows = one.nearest(number) & one.truth.correct(one.candidates)
    names = one.candidates.query_ids[one.candidates.query]
    candidates = set(names[rows])
    aligned = set(names[rows & (known[:, EVIDENCE.index("log_nfa")] >= SIGNIFICANT)])
    kinds = {
        name: {q for q, chain in chains.items() if name in chain}
        for name in sorted(set(itertools.chain(*chains.values())))
    }
    kinds |= {_edits(n): {q for q, chain in chains.items() if len(chain) == n} for n in range(1, 5)}
    kinds["any"] = set(chains)
    return [
        {
            "edit": kind,
            "copies": len(copies),
            "descriptor": f"{len(copies & plain) / len(copies):.2f}",
            "matching": f"{len(copies & near) / len(copies):.2f}",
            "missed": len(copies - near),
            "no candidate": len(copies - near - candidates),
            "no alignment": len((copies - near) & candidates - aligned),
            "scored low": len((copies - near) & aligned),
        }
        for kind, copies in kinds.items()
        if copies
    ]


def believed(one: Bench, probability: Floats, *, number: int) -> list[dict[str, object]]:
    """Return the reliability of the probabilities, on edits and photos that they were not fitted on."""
    rows = one.nearest(number)
    correct = one.truth.correct(one.candidates)[rows]
    return [
        {
            "probability": f"{bin.low:.2f} … {bin.high:.2f}",
            "pairs": bin.pairs,
            "mean": f"{bin.mean:.4f}",
            "copies among them": f"{bin.correct:.4f}",
        }
        for bin in reliability(probability[rows], correct, edges=BINS)
    ]


def _found(one: Bench, score: Floats, number: int) -> set[str]:
    """Return the queries whose correct pair scores at or above the threshold of 90 % precision."""
    matches, metrics = one.judged(score, number)
    if metrics.threshold_at_p90 is None:
        return set()
    kept = matches.take(one.truth.correct(matches) & (matches.score >= metrics.threshold_at_p90))
    return set(kept.query_ids[kept.query])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matching", description=__doc__.partition("\n")[0])
    parser.add_argument("judge", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="keeps descriptors and local features")
    parser.add_argument("--model", default="isc_small")
    parser.add_argument("--query-views", default=MatchConfig.query_views)
    parser.add_argument("--publish", choices=("matching", "matching_tools"), help="keep the tables for docs/results.md")
    try:
        measure(parser.parse_args(arguments))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def measure(given: argparse.Namespace) -> None:
    files = [given.work / f"{role}.h5" for role in ("queries", "references")]
    for path in files:
        _command("extract", f"images={given.judge / path.stem}", f"output={path}", f"model={given.model}")
    sets = read_sides(*files)
    looked, tiles = sets.queries, None
    one = bench(given.judge, sets.queries, sets.references, number=NUMBERS[-1])
    more = None
    if given.query_views != "whole":
        views = f"{given.query_views}+{MatchConfig.second_views}"
        looked = with_query_views(sets.queries, one.queries, views=views, provenance=sets.provenance)
        looked, tiles = without_views(looked, MatchConfig.second_views)
        more = bench(given.judge, looked, sets.references, number=NUMBERS[-1])
    store = FeatureStore(given.work / "features")
    kept: dict[int, Floats] = {}

    def evidence(of: Bench) -> Floats:
        if id(of) not in kept:
            verified = verify(of.candidates, of.queries, of.references, store=store)
            kept[id(of)] = verified.evidence.astype(np.float64)
        return kept[id(of)]

    rows = parts(one, more, evidence, sets.provenance)
    last, known = as_matched(one, replace(sets, queries=looked), tiles, store)
    probability = fusion_for(MODEL, sets.provenance)[0].probability(last.distance, known)
    found = row(MATCHED, last, probability, number=1)
    number = MatchConfig.candidates
    rows.append({**found, "candidates": f"{number}, {FURTHER * number} of drawings, {SECOND} of tiles"})
    edits = by_edit(given.judge, last, known, probability, number=1)
    tables = {"": rows, "_edits": edits, "_reliability": believed(last, probability, number=1)}
    for name, table in tables.items():
        if given.publish:
            save(f"{given.publish}{name}", table)
        else:
            for line in table:
                print("  ".join(f"{key} {value}" for key, value in line.items()))


if __name__ == "__main__":
    main()
