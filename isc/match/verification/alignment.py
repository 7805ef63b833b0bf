"""The geometric alignment of two pictures: one affine map between them, and the evidence for it.

One pair of similar points with their sizes and directions gives a whole map: shift, turn, scale. The map of each pair
is tested on all other pairs (Lowe's pose clustering without bins, IJCV 2004, section 7.3); the best maps are fitted
again by least squares to all points that agree. The search is exhaustive, so its result is always the same, and it
finds five correct points among two hundred, which random draws of three would miss. A mirrored query is tried as well,
with rearranged descriptors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from isc.match.verification.features import LocalFeatures

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Gray = npt.NDArray[np.uint8]

EVIDENCE = (
    "features_query",  # local features of either picture
    "features_reference",
    "tentative",  # pairs of similar features
    "inliers",  # tentative pairs at different points that one map explains
    "log_nfa",  # −log₁₀ of a bound on that by chance; 0 without a map
    "inlier_share",
    "area_query",  # share of either picture that the other shows
    "area_reference",
    "spread_query",  # share of either picture inside the hull of the inliers
    "spread_reference",
    "agreement",  # mean local correlation of the grey values inside the aligned region, −1…1
    "agreeing_share",  # share of the region, weighted by contrast, where the correlation exceeds one half
    "contradiction",  # share of the region that the largest compact part with a low correlation has
    "colour_difference",  # mean difference of the colours of both whole pictures, 0…1; also without a map
    "flat",  # share of the commonest grey level in the flatter picture; also without a map
    "light",  # grey level, 0…1, that 5 % of the darker picture exceed; also without a map
)

RATIO = 0.9  # largest ratio of nearest to second-nearest distance (Lowe, section 7.1); the maps reject wrong pairs
MOST_TENTATIVE = 200  # pairs, those with the smallest ratio
TOLERANCE = 0.016  # largest error of an agreeing point, as a share of the query's longest side
SCALE_TOLERANCE = math.log(1.8)  # largest difference between the log-scales of an agreeing pair and of the map
ANGLE_TOLERANCE = math.radians(35)
ANY_POSE = 0.05  # probability that size and direction of unrelated points agree as well
SEEDS, ROUNDS = 4, 4  # number of maps that are fitted again, and of fits of each
LEAST_INLIERS = 4
LARGEST_SCALE, LARGEST_STRETCH = 10.0, 4.0  # of a plausible edit
WINDOW, NOISE = 11, 16.0  # side of the correlation window in pixels of a thumbnail; variance of the noise
DIFFERENT, TEXTURED = 0.25, 6.0  # correlation below which pixels of more than this contrast contradict
COMPACT = 9  # side of the least compact part of a thumbnail, in pixels


@dataclass(frozen=True)
class Alignment:
    """One affine map between the pictures of a pair.

    `matrix` [3, 3] maps (x, y) of the reference, in fractions of width and height, to those of the query; `mirrored` is
    true if it mirrors the picture; the regions, corners [K, 2] as fractions, are the part that both pictures show;
    `inliers` is the number of points that support the map.
    """

    matrix: Floats
    mirrored: bool
    query_region: Floats
    reference_region: Floats
    inliers: int


@dataclass(frozen=True)
class _Pairs:
    """Tentative pairs of features: points [M, 2] of both pictures, and the turn and scale of each pair [M]."""

    query: Floats
    reference: Floats
    turn: Floats  # radians
    scale: Floats
    size: tuple[int, int]  # of the query in pixels

    @property
    def tolerance(self) -> float:
        return TOLERANCE * max(self.size)

    def misses(self, affine: Floats) -> Floats:
        """Return the error of the map [2, 3] at each pair, in pixels of the query."""
        return np.asarray(np.linalg.norm(self.reference @ affine[:, :2].T + affine[:, 2] - self.query, axis=1))


@dataclass(frozen=True)
class _Fit:
    """A map [2, 3] from pixels of the reference to pixels of the query; `inside` [M] marks the pairs it explains."""

    pairs: _Pairs
    affine: Floats
    inside: Flags
    inliers: int
    log_nfa: float


def compare(query: LocalFeatures, reference: LocalFeatures) -> tuple[npt.NDArray[np.float32], Alignment | None]:
    """Return the evidence for a pair, float32 [len(EVIDENCE)] in the order of EVIDENCE, and the alignment or None."""
    values = dict.fromkeys(EVIDENCE, 0.0) | {
        "features_query": len(query),
        "features_reference": len(reference),
        "colour_difference": float(np.abs(query.colours.astype(float) - reference.colours).mean() / 255),
        "flat": max(flatness(query.thumbnail), flatness(reference.thumbnail)),
        "light": float(min(np.quantile(one.thumbnail, 0.95) for one in (query, reference)) / 255),
    }
    straight, flipped = _fit(query, reference, flip=False), _fit(query, reference, flip=True)
    fits = [(fit, fit is flipped) for fit in (straight, flipped) if fit is not None]
    alignment = None
    if fits:
        fit, flip = max(fits, key=lambda one: one[0].log_nfa)
        alignment = _alignment(_mirrored_back(fit.affine, query.size) if flip else fit.affine, query, reference, fit)
        if alignment is not None:
            values |= _evidence(fit, alignment, query, reference)
    return np.array([values[name] for name in EVIDENCE], np.float32), alignment


def flatness(picture: Gray) -> float:
    """Return the share of the pixels in the fullest of 32 bands of grey levels: half and more in pages and drawings."""
    return float(np.bincount(picture.ravel() >> 3, minlength=32).max() / picture.size)


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


def _fit(query: LocalFeatures, reference: LocalFeatures, *, flip: bool) -> _Fit | None:
    """Return the map of largest `log_nfa` between the pictures, `flip` to the mirrored query; None if none fits."""
    if min(len(query), len(reference)) < LEAST_INLIERS:
        return None
    pairs = _pairs(query, reference, flip=flip)
    if len(pairs.query) < LEAST_INLIERS:
        return None
    alike, near = _votes(pairs)
    votes = near.sum(axis=1)
    seeds = np.argsort(-votes, kind="stable")[:SEEDS]
    fits = [_refined(pairs, near[seed], alike[seed]) for seed in seeds if votes[seed] >= LEAST_INLIERS]
    return max((fit for fit in fits if fit is not None), key=lambda fit: fit.log_nfa, default=None)


def _pairs(query: LocalFeatures, reference: LocalFeatures, *, flip: bool) -> _Pairs:
    q, r = _alike(query.mirrored_vectors if flip else query.vectors, reference.vectors)
    points, angles = query.points[q].astype(np.float64), np.radians(query.angles[q].astype(np.float64))
    if flip:
        points, angles = points * [-1, 1] + [query.size[0] - 1, 0], math.pi - angles
    return _Pairs(
        query=points,
        reference=reference.points[r].astype(np.float64),
        turn=angles - np.radians(reference.angles[r].astype(np.float64)),
        scale=query.sizes[q].astype(np.float64) / reference.sizes[r],
        size=query.size,
    )


def _alike(
    query: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the rows of similar features in both, the smallest ratio of nearest to second-nearest distance first."""
    cosine = query @ reference.T
    rows, nearest = np.arange(len(query)), cosine.argmax(axis=1)
    first = cosine[rows, nearest]
    cosine[rows, nearest] = -1
    ratio = np.sqrt(np.maximum(1 - first, 0) / np.maximum(1 - cosine.max(axis=1), 1e-6))
    order = np.argsort(ratio, kind="stable")[:MOST_TENTATIVE]
    order = order[ratio[order] < RATIO]
    return order, nearest[order]


def _votes(pairs: _Pairs) -> tuple[Flags, Flags]:
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


def _refined(pairs: _Pairs, inside: Flags, alike: Flags) -> _Fit | None:
    """Fit an affine map to the pairs `inside`, then to all `alike` ones that it explains, until these do not change."""
    affine: Floats | None = None
    for _ in range(ROUNDS):
        if _distinct(pairs.reference[inside]) < LEAST_INLIERS:
            break
        ones = np.ones((np.count_nonzero(inside), 1))
        known = np.hstack([pairs.reference[inside], ones])
        solved = np.asarray(np.linalg.lstsq(known, pairs.query[inside], rcond=None)[0].T, np.float64)
        if not _plausible(solved):
            break
        affine, before = solved, inside
        inside = alike & (pairs.misses(affine) < pairs.tolerance)
        if (inside == before).all():
            break
    if affine is None:
        return None
    inliers = min(_distinct(pairs.query[inside]), _distinct(pairs.reference[inside]))
    if inliers < LEAST_INLIERS:
        return None
    chance = min(1.0, math.pi * pairs.tolerance**2 / (pairs.size[0] * pairs.size[1])) * ANY_POSE
    return _Fit(pairs, affine, inside, inliers, log_nfa(inliers, len(pairs.query), chance))


def _distinct(points: Floats) -> int:
    """Count the distinct points; features at one point, with several sizes or directions, count once."""
    return len(np.unique(np.rint(points), axis=0))


def _plausible(affine: Floats) -> bool:
    large, small = np.linalg.svd(affine[:, :2], compute_uv=False)
    if np.linalg.det(affine[:, :2]) < 0:  # features of a mirrored picture match only if rearranged
        return False
    return bool(small > 1 / LARGEST_SCALE and large < LARGEST_SCALE and large < LARGEST_STRETCH * small)


def _mirrored_back(affine: Floats, size: tuple[int, int]) -> Floats:
    """Convert a map to the mirrored query into a map to the query itself."""
    turned = np.array([[-1, 0, size[0] - 1], [0, 1, 0]], np.float64)
    return np.asarray(turned @ np.vstack([affine, [0, 0, 1]]), np.float64)


def _alignment(affine: Floats, query: LocalFeatures, reference: LocalFeatures, fit: _Fit) -> Alignment | None:
    """Return the map in fractions with the common region in both pictures; None if they have no common region."""
    matrix = _fractions(query.size) @ np.vstack([affine, [0, 0, 1]]) @ np.linalg.inv(_fractions(reference.size))
    in_query = _clipped(_moved(np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64), matrix))
    if len(in_query) == 0 or _area(in_query) <= 0:
        return None
    in_reference = _moved(in_query, np.linalg.inv(matrix))
    flip = bool(np.linalg.det(affine[:, :2]) < 0)
    return Alignment(matrix, flip, in_query.clip(0, 1), in_reference.clip(0, 1), fit.inliers)


def _fractions(size: tuple[int, int]) -> Floats:
    """Return the map from pixels, with integer coordinates at their centres, to fractions, 0 and 1 at the edges."""
    width, height = size
    return np.array([[1 / width, 0, 0.5 / width], [0, 1 / height, 0.5 / height], [0, 0, 1]], np.float64)


def _clipped(polygon: Floats) -> Floats:
    """Clip a convex polygon, corners [K, 2], to the unit square (Sutherland and Hodgman, CACM 1974).

    OpenCV's intersectConvexConvex loses corners if edges nearly coincide, as those of a whole picture do.
    """
    for axis, inward, edge in ((0, 1, 0), (0, -1, -1), (1, 1, 0), (1, -1, -1)):
        depth = inward * polygon[:, axis] - edge
        kept = []
        for i, j in zip(range(len(polygon)), [*range(1, len(polygon)), 0], strict=True):
            if depth[i] >= 0:
                kept.append(polygon[i])
            if depth[i] * depth[j] < 0:
                kept.append(polygon[i] + (polygon[j] - polygon[i]) * depth[i] / (depth[i] - depth[j]))
        if not kept:
            return np.zeros((0, 2))
        polygon = np.array(kept)
    return polygon


def _moved(points: Floats, matrix: Floats) -> Floats:
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def _evidence(fit: _Fit, alignment: Alignment, query: LocalFeatures, reference: LocalFeatures) -> dict[str, float]:
    correlation, share, contradiction = agreement(alignment.matrix, query.thumbnail, reference.thumbnail)
    return {
        "tentative": len(fit.inside),
        "inliers": fit.inliers,
        "log_nfa": fit.log_nfa,
        "inlier_share": fit.inliers / len(fit.inside),
        "area_query": _area(alignment.query_region),
        "area_reference": _area(alignment.reference_region),
        "spread_query": _area(fit.pairs.query[fit.inside] / query.size),
        "spread_reference": _area(fit.pairs.reference[fit.inside] / reference.size),
        "agreement": correlation,
        "agreeing_share": share,
        "contradiction": contradiction,
    }


def _area(points: Floats) -> float:
    """Return the area of the convex hull."""
    return float(cv2.contourArea(cv2.convexHull(points.astype(np.float32))))


def agreement(matrix: Floats, query: Gray, reference: Gray) -> tuple[float, float, float]:
    """Return the agreement of the grey values of both pictures under the alignment's matrix, as three numbers.

    The first is the mean local correlation over windows of 11 pixels, −1…1, weighted by the smaller contrast of the two
    pictures; the second is the share of the weight with a correlation above one half. The third is the share of the
    overlap that the largest compact part has where either picture is textured and both differ: two screenshots of one
    program agree in the frame and contradict each other inside. All are 0 if almost nothing overlaps.
    """
    (height, width), (rows, columns) = query.shape, reference.shape
    pixels = (np.linalg.inv(_fractions((width, height))) @ matrix @ _fractions((columns, rows)))[:2]
    moved = cv2.warpAffine(reference, pixels, (width, height), flags=cv2.INTER_AREA)
    covered = cv2.warpAffine(np.full_like(reference, 255), pixels, (width, height), flags=cv2.INTER_NEAREST)
    inside = cv2.erode(covered, np.ones((3, 3), np.uint8)) > 0
    overlap = np.count_nonzero(inside)
    if overlap < WINDOW**2 // 4:
        return 0.0, 0.0, 0.0
    correlation, less, more = _correlated(query.astype(np.float32), np.asarray(moved, np.float32))
    weight = less[inside] + 1
    total = float(weight.sum())
    return (
        float((correlation[inside] * weight).sum()) / total,
        float(weight[correlation[inside] > 0.5].sum()) / total,
        _largest(inside & (more > TEXTURED) & (correlation < DIFFERENT)) / overlap,
    )


def _largest(marked: Flags) -> float:
    """Return the pixels of the largest connected part that COMPACT × COMPACT squares fill."""
    compact = cv2.morphologyEx(marked.astype(np.uint8), cv2.MORPH_OPEN, np.ones((COMPACT, COMPACT), np.uint8))
    _, _, found, _ = cv2.connectedComponentsWithStats(compact)
    return float(found[1:, cv2.CC_STAT_AREA].max(initial=0))


def _correlated(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the local correlation of two pictures, and the smaller and the larger standard deviation, each [H, W]."""

    def local(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(cv2.boxFilter(values, -1, (WINDOW, WINDOW)), np.float32)

    mean_a, mean_b = local(a), local(b)
    a_varies, b_varies = (local(a * a) - mean_a**2).clip(0), (local(b * b) - mean_b**2).clip(0)
    correlation = (local(a * b) - mean_a * mean_b) / np.sqrt((a_varies + NOISE) * (b_varies + NOISE))
    less, more = np.sqrt(np.minimum(a_varies, b_varies)), np.sqrt(np.maximum(a_varies, b_varies))
    return np.asarray(correlation, np.float32), np.asarray(less, np.float32), np.asarray(more, np.float32)
