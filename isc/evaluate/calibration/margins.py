"""Margins of a pair over the query's other pairs, which show whether many references look like the query.

A copy is nearer to its query than anything else. Photos of one kind of thing, dark photos and pages lie near one
another: a query of them has several references at about the same distance, and the nearest says little. Versions of one
picture, such as its sizes and crops, lie near one another too, but say no less for it: they count as one, where it is
known which references are versions (isc.match.verification.rivals).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from isc.data.groups import rank_in_group
from isc.evaluate.calibration.score_origin import ScoreOrigin

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

NEXT = 3  # other references that a pair is seen beside: more than one, so that a reference may have a copy of its own
LEAST = 0.001  # probability that stands for references that are less probable, or not among the pairs
NEAR = 1e-7  # least distance of a probability from 0 and from 1, in its log-odds


def seen(
    score: npt.NDArray[np.floating],
    made: ScoreOrigin,
    unrelated: Floats | None,
    query: Numbers | None,
    picture: Numbers | None = None,
) -> npt.NDArray[np.floating]:
    """Return what a map takes of pairs of this origin: the score [M], or score and margin [M, 2]."""
    if made.gives_probabilities:
        return probabilities_and_margins(score, query, picture)
    return score if unrelated is None else gaps_and_margins(score, unrelated, query, picture)


def gaps_and_margins(
    score: npt.NDArray[np.floating], unrelated: Floats, query: Numbers | None, picture: Numbers | None = None
) -> Floats:
    """Return how much nearer [M, 2] each pair is than unrelated pictures, and than the query's next references.

    `score` [M] is the negative squared distance of each pair, `unrelated` [M] the squared distance of its query to
    unrelated pictures, `query` [M] the number of the query, ≥ 0, or None if each pair stands alone, `picture` [M] the
    number of the picture of which its reference is a version, ≥ 0, or None if each is its own. The margin is the mean
    of the query's NEXT nearest other pictures minus the distance; unrelated pictures take the place of those that are
    farther or missing, so that it is never above the gap.
    """
    near = np.asarray(score, np.float64)
    return np.column_stack([near + unrelated, near - _next(near, -unrelated, query, picture)])


def probabilities_and_margins(
    probability: npt.NDArray[np.floating], query: Numbers | None, picture: Numbers | None = None
) -> Floats:
    """Return the probability of each pair, and how much its log-odds exceed those of the query's next pictures [M, 2].

    `query` and `picture` [M] are as in `gaps_and_margins`. The margin is to the mean log-odds of the query's NEXT most
    probable other pictures, with LEAST in the place of those that are less probable or missing.
    """
    odds = log_odds(probability)
    least = np.full(len(odds), float(log_odds(np.array([LEAST]))[0]))
    return np.column_stack([probability.astype(np.float64), odds - _next(odds, least, query, picture)])


def log_odds(probability: npt.NDArray[np.floating]) -> Floats:
    """Return ln(p / (1 − p)) of probabilities, kept NEAR away from 0 and 1."""
    p = probability.astype(np.float64).clip(NEAR, 1 - NEAR)
    return np.asarray(np.log(p) - np.log1p(-p), np.float64)


def _next(score: Floats, least: Floats, query: Numbers | None, picture: Numbers | None) -> Floats:
    """Return the mean [M] of the NEXT highest scores of the query's other pictures, each at least `least` [M].

    The score of a picture is that of its best version.
    """
    if query is None or not len(score):
        return least
    if picture is None:
        owner, row, top = query, np.arange(len(score)), score
    else:
        key, row = np.unique(query * (picture.max() + 1) + picture, return_inverse=True)
        owner, top = key // (picture.max() + 1), np.full(len(key), -np.inf)
        np.maximum.at(top, row, score)
    order = np.lexsort((-top, owner))
    rank = np.empty(len(owner), np.int64)
    rank[order] = rank_in_group(owner[order])
    numbers, of = np.unique(owner, return_inverse=True)
    best = np.full((len(numbers), NEXT + 1), -np.inf)
    first = rank <= NEXT
    best[of[first], rank[first]] = top[first]
    others = np.maximum(best[of[row]], least[:, None])
    others[np.arange(len(score)), np.minimum(rank[row], NEXT)] = 0
    return np.asarray(others.sum(axis=1) / NEXT, np.float64)
