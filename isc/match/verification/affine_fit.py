"""The affine map that most similar points of two pictures agree on, and how likely chance would give as many.

One pair of similar points with their sizes and directions gives a whole map: shift, turn, scale. The map of each pair
is tested on all other pairs (Lowe's pose clustering without bins, IJCV 2004, section 7.3); the best maps are fitted
again by least squares to all points that agree. The search is exhaustive, so its result is always the same, and it
finds five correct points among two hundred, which random draws of three would miss. A mirrored query is tried as well,
with rearranged descriptors. `batched_fit` does the same for many pairs at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.match.verification.features import LocalFeatures

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]

RATIO = 0.9  # largest ratio of nearest to second-nearest distance (Lowe, section 7.1); the maps reject wrong pairs
MOST_TENTATIVE = 200  # pairs, those with the smallest ratio
TOLERANCE = 0.016  # largest error of an agreeing point, as a share of the query's longest side
SCALE_TOLERANCE = math.log(1.8)  # largest difference between the log-scales of an agreeing pair and of the map
ANGLE_TOLERANCE = math.radians(35)
ANY_POSE = 0.05  # probability that size and direction of unrelated points agree as well
SEEDS, ROUNDS = 4, 4  # number of maps that are fitted again, and of fits of each
LEAST_INLIERS = 4
LARGEST_SCALE, LARGEST_STRETCH = 10.0, 4.0  # of a plausible edit


@dataclass(frozen=True)
class TentativePairs:
    """Tentative pairs of features: points [M, 2] of both pictures, and the turn and scale of each pair [M]."""

    query: Floats
    reference: Floats
    turn: Floats  # radians
    scale: Floats
    size: tuple[int, int]  # of the query in pixels
    flip: bool = False  # the query's points are those of its mirror image

    @property
    def tolerance(self) -> float:
        return TOLERANCE * max(self.size)

    def misses(self, affine: Floats) -> Floats:
        """Return the error of the map [2, 3] at each pair, in pixels of the query."""
        return np.asarray(np.linalg.norm(self.reference @ affine[:, :2].T + affine[:, 2] - self.query, axis=1))


@dataclass(frozen=True)
class Fit:
    """A map [2, 3] from pixels of the reference to pixels of the query; `inside` [M] marks the pairs it explains."""

    pairs: TentativePairs
    affine: Floats
    inside: Flags
    inliers: int
    log_nfa: float


def best_fit(query: LocalFeatures, reference: LocalFeatures) -> Fit | None:
    """Return the map of largest `log_nfa` from the reference to the query or to its mirror image; None if none fits."""
    fits = [_best_of(query, reference, flip=flip) for flip in (False, True)]
    return max((fit for fit in fits if fit is not None), key=lambda fit: fit.log_nfa, default=None)


def _best_of(query: LocalFeatures, reference: LocalFeatures, *, flip: bool) -> Fit | None:
    if min(len(query), len(reference)) < LEAST_INLIERS:
        return None
    pairs = tentative_pairs(query, reference, flip=flip)
    if len(pairs.query) < LEAST_INLIERS:
        return None
    alike, near = votes_of(pairs)
    votes = near.sum(axis=1)
    seeds = np.argsort(-votes, kind="stable")[:SEEDS]
    fits = [refined(pairs, near[seed], alike[seed]) for seed in seeds if votes[seed] >= LEAST_INLIERS]
    return max((fit for fit in fits if fit is not None), key=lambda fit: fit.log_nfa, default=None)


def tentative_pairs(query: LocalFeatures, reference: LocalFeatures, *, flip: bool) -> TentativePairs:
    rows = similar(query.mirrored_vectors if flip else query.vectors, reference.vectors)
    return paired(query, reference, rows, flip=flip)


def paired(query: LocalFeatures, reference: LocalFeatures, rows: tuple[Rows, Rows], *, flip: bool) -> TentativePairs:
    """Return the pairs of these rows [M] of both pictures' features."""
    q, r = rows
    points, angles = query.points[q].astype(np.float64), np.radians(query.angles[q].astype(np.float64))
    if flip:
        points, angles = points * [-1, 1] + [query.size[0] - 1, 0], math.pi - angles
    return TentativePairs(
        query=points,
        reference=reference.points[r].astype(np.float64),
        turn=angles - np.radians(reference.angles[r].astype(np.float64)),
        scale=query.sizes[q].astype(np.float64) / reference.sizes[r],
        size=query.size,
        flip=flip,
    )


def similar(query: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> tuple[Rows, Rows]:
    """Return the rows of similar features in both, the smallest ratio of nearest to second-nearest distance first."""
    cosine = query @ reference.T
    rows, nearest = np.arange(len(query)), cosine.argmax(axis=1)
    first = cosine[rows, nearest]
    cosine[rows, nearest] = -1
    ratio = np.sqrt(np.maximum(1 - first, 0) / np.maximum(1 - cosine.max(axis=1), 1e-6))
    order = np.argsort(ratio, kind="stable")[:MOST_TENTATIVE]
    order = order[ratio[order] < RATIO]
    return order, nearest[order]


def votes_of(pairs: TentativePairs) -> tuple[Flags, Flags]:
    """Return two flags [M, M] for the map of a pair (row) and another pair: turn and scale agree; so does the place."""
    turns, scale = np.exp(1j * pairs.turn), np.log(pairs.scale)  # with complex numbers, turning is a product
    alike = np.outer(turns.real, turns.real) + np.outer(turns.imag, turns.imag) > math.cos(ANGLE_TOLERANCE)
    alike &= np.abs(scale[:, None] - scale) < SCALE_TOLERANCE
    q, r = (points[:, 0] + 1j * points[:, 1] for points in (pairs.query, pairs.reference))
    maps = pairs.scale * turns
    # mapped point − query point, for each map and point: two sums, as the shift of a map is the same for all points
    misses = np.outer(maps, r) - q + (q - maps * r)[:, None]
    near = misses.real**2 + misses.imag**2 < (2 * pairs.tolerance) ** 2
    return alike, alike & near


def refined(pairs: TentativePairs, inside: Flags, alike: Flags) -> Fit | None:
    """Fit an affine map to the pairs `inside`, then to all `alike` ones that it explains, until these do not change."""
    affine: Floats | None = None
    for _ in range(ROUNDS):
        if distinct(pairs.reference[inside]) < LEAST_INLIERS:
            break
        ones = np.ones((np.count_nonzero(inside), 1))
        known = np.hstack([pairs.reference[inside], ones])
        solved = np.asarray(np.linalg.lstsq(known, pairs.query[inside], rcond=None)[0].T, np.float64)
        if not plausible(solved):
            break
        affine, before = solved, inside
        inside = alike & (pairs.misses(affine) < pairs.tolerance)
        if (inside == before).all():
            break
    if affine is None:
        return None
    inliers = min(distinct(pairs.query[inside]), distinct(pairs.reference[inside]))
    if inliers < LEAST_INLIERS:
        return None
    chance = min(1.0, math.pi * pairs.tolerance**2 / (pairs.size[0] * pairs.size[1])) * ANY_POSE
    return Fit(pairs, affine, inside, inliers, log_nfa(inliers, len(pairs.query), chance))


def distinct(points: Floats) -> int:
    """Count the distinct points; features at one point, with several sizes or directions, count once."""
    return len(np.unique(np.rint(points), axis=0))


def plausible(affine: Floats) -> bool:
    large, small = np.linalg.svd(affine[:, :2], compute_uv=False)
    if np.linalg.det(affine[:, :2]) < 0:  # features of a mirrored picture match only if rearranged
        return False
    return bool(small > 1 / LARGEST_SCALE and large < LARGEST_SCALE and large < LARGEST_STRETCH * small)


def log_nfa(inliers: int, tentative: int, chance: float) -> float:
    """Return −log₁₀ of a bound on the number of maps with this many inliers between unrelated pictures, at least 0.

    This is the a-contrario test of Moisan and Stival (IJCV 2004), with Chernoff's bound on the binomial's tail. Two
    pairs determine the map itself; `chance` is the probability that one unrelated pair agrees. 0 means that chance
    explains the inliers.
    """
    n, k = tentative - 2, inliers - 2
    if k <= 0 or k <= chance * n:
        return 0.0
    share = k / n
    apart = share * math.log(share / chance)
    if share < 1:
        apart += (1 - share) * math.log((1 - share) / (1 - chance))
    return max(0.0, (n * apart - 2 * math.log(tentative)) / math.log(10))
