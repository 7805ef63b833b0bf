"""The candidates of the matching track and the comparison of their pixels, with a second look at what finds nothing.

A copy may be one of several pictures in its query, such as a collage. The nearest references of the whole query, and of
the region that is likeliest a picture of its own, are then of other pictures. So queries that align with none of their
candidates are also compared with the nearest references of more views, such as tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isc.data.descriptors import Descriptors
from isc.data.groups import rank_in_group
from isc.data.ids import IntArray
from isc.evaluate.calibration.chance import ALIGNED
from isc.match.verification.compare import Verified
from isc.match.verification.drawings import FURTHER
from isc.match.verification.quantities import EVIDENCE
from isc.search.multi_view import ImagePairs, RowSearch, nearest_images, of_images

SECOND = 10  # candidates of a query by its second views
LOG_NFA = EVIDENCE.index("log_nfa")

Verify = Callable[..., Verified]  # verify of `isc.match.verification.compare` with the pictures, the store and so on


@dataclass(frozen=True)
class Looked:
    """The pairs whose pixels were compared, and what that gave."""

    pairs: ImagePairs
    verified: Verified


def compare_candidates(
    queries: Descriptors,
    references: Descriptors,
    second: Descriptors | None,
    *,
    candidates: int,
    verify: Verify,
    nearest: RowSearch | None = None,
) -> Looked:
    """Compare each query with its `candidates` nearest references; then look again at those that align with none.

    A query that may be a drawing has FURTHER times as many candidates, and one with rows of `second` views
    SECOND more. `nearest` searches as `knn` does, its default. The score of a pair is −min ‖q − r‖² over the rows of
    `queries` and `references`, however it was found.
    """
    found = nearest_images(queries, references, k=min(FURTHER * candidates, len(references.images)), find=nearest)
    near = rank_in_group(found.matches.query) < candidates
    first, further = np.flatnonzero(near), np.flatnonzero(~near)
    verified = verify(found.matches.take(first), further=found.matches.take(further))
    pairs = found.take(np.r_[first, further[verified.further]])
    unaligned = _unaligned(pairs, verified)
    rows = [] if second is None else [at for at, name in enumerate(second.ids) if name in unaligned]
    if second is None or not rows:
        return Looked(pairs, verified)
    more = _by_views(queries, references, second.take(np.array(rows)), nearest)
    more = more.take(np.flatnonzero(~np.isin(more.matches.keys(), pairs.matches.keys())))
    return Looked(pairs.joined(more), verified.joined(verify(more.matches)))


def _unaligned(pairs: ImagePairs, verified: Verified) -> frozenset[str]:
    """Return the queries that could be read and are aligned with none of their candidates."""
    log_nfa, query = verified.evidence[:, LOG_NFA], pairs.matches.query
    left = np.setdiff1d(query[~np.isnan(log_nfa)], query[log_nfa >= ALIGNED])
    return frozenset(pairs.matches.query_ids[left])


def _by_views(
    queries: Descriptors, references: Descriptors, views: Descriptors, nearest: RowSearch | None
) -> ImagePairs:
    """Return the nearest references of these views of each query, scored by the rows of `queries`."""
    found = nearest_images(views, references, k=min(SECOND, len(references.images)), find=nearest).matches
    number = {name: at for at, name in enumerate(queries.images)}
    query: IntArray = np.array([number[name] for name in found.query_ids], np.int64)[found.query]
    return of_images(queries, references, query, found.reference)
