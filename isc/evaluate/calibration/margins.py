"""How far a pair stands out from the query's other pairs, which shows whether many references look like the query.

A copy is nearer to its query than anything else. Photos of one kind of thing, dark photos and pages lie near one
another: a query of them has several references at about the same distance, and the nearest says little.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from isc.data.groups import rank_in_group

Floats = npt.NDArray[np.float64]

NEXT = 3  # other references that a pair is seen beside: more than one, so that a reference may have a copy of its own


def gaps_and_margins(score: npt.NDArray[np.floating], unrelated: Floats, query: npt.NDArray[np.int64] | None) -> Floats:
    """Return how much nearer [M, 2] each pair is than unrelated pictures, and than the query's next references.

    `score` [M] is the negative squared distance of each pair, `unrelated` [M] the squared distance of its query to
    unrelated pictures, `query` [M] the number of the query, ≥ 0, or None if each pair stands alone. The margin is the
    mean of the query's NEXT nearest other pairs minus the distance; unrelated pictures take the place of those that are
    farther or missing, so that it is never above the gap.
    """
    distance = 0.0 - score.astype(np.float64)
    gap = unrelated - distance
    if query is None or not len(distance):
        return np.column_stack([gap, gap])
    order = np.lexsort((distance, query))
    rank = np.empty(len(distance), np.int64)
    rank[order] = rank_in_group(query[order])
    numbers, row = np.unique(query, return_inverse=True)
    near = np.full((len(numbers), NEXT + 1), np.inf)
    first = rank <= NEXT
    near[row[first], rank[first]] = distance[first]
    others = np.minimum(near[row], unrelated[:, None])
    others[np.arange(len(distance)), np.minimum(rank, NEXT)] = 0
    return np.column_stack([gap, others.sum(axis=1) / NEXT - distance])
