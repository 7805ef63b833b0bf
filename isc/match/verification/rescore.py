"""The scores of the matching track: pairs by descriptors and their candidates, ranked by the fused probability."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.files import write_text
from isc.data.groups import rank_in_group
from isc.data.matches import Matches
from isc.match.verification.alignment import Alignment
from isc.match.verification.compare import Verified
from isc.match.verification.fusion import Fusion
from isc.match.verification.quantities import EVIDENCE
from isc.search.multi_view import ImagePairs

LOG_NFA, AGREEMENT = EVIDENCE.index("log_nfa"), EVIDENCE.index("agreement")


@dataclass(frozen=True)
class PairEvidence:
    """The evidence that a pair is a copy: its score, the distance of its descriptors, and its alignment."""

    score: float  # probability
    distance: float  # squared Euclidean
    log_nfa: float
    agreement: float
    alignment: Alignment

    @property
    def query_region(self) -> npt.NDArray[np.float64]:
        return self.alignment.query_region

    @property
    def reference_region(self) -> npt.NDArray[np.float64]:
        return self.alignment.reference_region

    @property
    def inliers(self) -> int:
        return self.alignment.inliers


def scored(
    found: ImagePairs, candidates: ImagePairs, verified: Verified, *, fusion: Fusion, k: int | None = None
) -> tuple[ImagePairs, dict[tuple[str, str], PairEvidence]]:
    """Return the top `len(found)` pairs, or the top `k` of each query, by probability, and evidence for them.

    The pairs come from `found`, the best by distance, and from the candidates. Evidence is given for a pair with an
    alignment, if its probability is above one half, or above that by distance alone. Scores of `found` and `candidates`
    are negative squared distances, those of the returned pairs are probabilities.
    """
    matches = candidates.matches
    distance = 0.0 - matches.score.astype(np.float64)  # not −0
    probability = fusion.probability(distance, verified.evidence)
    better = replace(matches, score=probability)
    missing = np.full((len(found.matches), len(EVIDENCE)), np.nan, np.float32)
    plain = replace(found.matches, score=fusion.probability(-found.matches.score.astype(np.float64), missing))
    kept = replaced(plain, better)
    kept = kept.take(np.arange(len(plain)) if k is None else best_of_each(kept, k))
    speaks = (probability > 0.5) | (probability > fusion.probability(distance))
    shown = np.isin(matches.keys(), kept.keys()) & speaks
    evidence = {
        (matches.query_ids[matches.query[row]], matches.reference_ids[matches.reference[row]]): PairEvidence(
            score=float(probability[row]),
            distance=float(distance[row]),
            log_nfa=float(verified.evidence[row, LOG_NFA]),
            agreement=float(verified.evidence[row, AGREEMENT]),
            alignment=alignment,
        )
        for row, alignment in verified.alignments.items()
        if shown[row]
    }
    return found.rescored(kept, candidates), evidence


def replaced(matches: Matches, better: Matches) -> Matches:
    """Join two sets of pairs over the same id tables, best first; a pair in both has its score in `better`."""
    joined = better.joined(matches.take(~np.isin(matches.keys(), better.keys())))
    return joined.take(joined.order())


def best_of_each(matches: Matches, k: int) -> npt.NDArray[np.int64]:
    """Return the rows of the first `k` pairs of each query."""
    return np.flatnonzero(rank_in_group(matches.query) < k)


def write_evidence(path: Path, evidence: Mapping[tuple[str, str], PairEvidence]) -> None:
    """Write one JSON object per line for each pair whose pixels agree, the likeliest copies first.

    It holds the ids, the score and its evidence, the region in both pictures as corners (x, y) in fractions of width
    and height, and the matrix [2][3] that maps such fractions of the reference to those of the query.
    """
    records = (
        {
            "query_id": query,
            "reference_id": reference,
            "score": one.score,
            "distance": round(one.distance, 6),
            "inliers": one.inliers,
            "log_nfa": round(one.log_nfa, 2),
            "agreement": round(one.agreement, 4),
            "mirrored": one.alignment.mirrored,
            "query_region": one.query_region.round(4).tolist(),
            "reference_region": one.reference_region.round(4).tolist(),
            "matrix": one.alignment.matrix[:2].round(6).tolist(),
        }
        for (query, reference), one in sorted(evidence.items(), key=lambda item: (-item[1].score, item[0]))
    )
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
