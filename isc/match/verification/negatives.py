"""Queries that may be negatives of a photo: which pairs are compared once more, and what of it counts.

In a negative every slope of grey levels points the other way, so that no local feature of the photo is found again. The
descriptor still is near the photo's. So the nearest candidates of a query that aligns with none are compared with its
negative.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from isc.data.groups import rank_in_group
from isc.data.matches import Matches
from isc.evaluate.calibration.chance import ALIGNED
from isc.match.verification.alignment import Alignment, compare
from isc.match.verification.drawings import counts, with_changed
from isc.match.verification.features import LocalFeatures, negative_of
from isc.match.verification.quantities import EVIDENCE

NEAREST = 2  # candidates of a query that are compared with its negative
# evidence that is said of the pictures as they are
AS_THEY_ARE = [EVIDENCE.index(name) for name in ("flat", "light")]
FEATURES = [EVIDENCE.index(name) for name in ("features_query", "features_reference")]
LOG_NFA = EVIDENCE.index("log_nfa")

Floats = npt.NDArray[np.float32]


def seen_as_negative(
    query: LocalFeatures, near: Mapping[int, LocalFeatures], found: Mapping[int, tuple[Floats, Alignment | None]]
) -> dict[int, tuple[Floats, Alignment | None]]:
    """Return by number what counts of the comparisons of a query's negative with its nearest references.

    `found` is what the query as it is gave; if any of it is aligned, nothing is compared.
    """
    if any(evidence[LOG_NFA] >= ALIGNED for evidence, _ in found.values()):
        return {}
    changed = {}
    for number, reference in near.items():
        if number in found and len(query) and len(reference):
            try:
                evidence, alignment = compare(negative_of(query), reference)
            except Exception:  # the pair as it is was compared, and stays
                continue
            if counts(evidence[None])[0]:
                before = found[number][0][None]
                taken = with_changed(before, evidence[None], np.zeros(1, np.int64), stay=AS_THEY_ARE)
                changed[number] = (taken[0], alignment)
    return changed


def rows_of_negatives(candidates: Matches, evidence: Floats) -> npt.NDArray[np.int64]:
    """Return the rows of the candidates, rising, to compare with the negatives of their queries.

    They are the NEAREST candidates, by score, of queries with no pair that is aligned by its `evidence`
    [P, len(EVIDENCE)]. Pairs that could not be compared, or of a picture without features, are left out.
    """
    done = np.unique(candidates.query[evidence[:, LOG_NFA] >= ALIGNED])
    order = np.lexsort((-candidates.score, candidates.query))
    near = np.zeros(len(candidates), bool)
    near[order] = rank_in_group(candidates.query[order]) < NEAREST
    usable = (np.nan_to_num(evidence[:, FEATURES]) > 0).all(axis=1)
    return np.flatnonzero(near & ~np.isin(candidates.query, done) & usable)
