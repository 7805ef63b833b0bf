"""Local evidence for a pair: which region of the query shows which region of the reference.

SIFT features, matched both as they are and mirrored, and one affine map fitted robustly. No learning and no fusion yet:
a pair with enough agreeing points gains on its global score, every other pair keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from isc.descriptors import Matches
from isc.errors import InputError
from isc.images import Pixels, fit_within, path_of, read_image
from isc.progress import Report

Floats = npt.NDArray[np.float64]

LONGEST_SIDE = 320  # pixels at which features are taken
MAX_FEATURES = 400
RATIO = 0.8  # nearest over second nearest descriptor distance (Lowe, IJCV 2004, section 7.1)
TOLERANCE = 4.0  # pixels by which an agreeing point may miss
CHANCE_INLIERS = 7  # an affine map through points of unrelated photos finds about as many
FULL_INLIERS = 30  # more agreeing points than this add nothing
GAIN = 0.1  # of score for each agreeing point between the two; distances of unit vectors lie in 0…4


@dataclass(frozen=True)
class Evidence:
    """Where a pair agrees: the same region in both pictures, corners [K, 2] as fractions (x, y) of width and height,
    and the number of feature points that support it."""

    query_region: Floats
    reference_region: Floats
    inliers: int


@dataclass(frozen=True)
class Features:
    """SIFT points [K, 2] in pixels, their RootSIFT descriptors [K, 128], and the picture's (width, height)."""

    points: npt.NDArray[np.float32]
    descriptors: npt.NDArray[np.float32]
    size: tuple[int, int]


def features(pixels: Pixels) -> Features:
    """The strongest MAX_FEATURES SIFT features of a picture [H, W, 3]."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    points, descriptors = cv2.SIFT.create(nfeatures=MAX_FEATURES, contrastThreshold=0.02).detectAndCompute(gray, None)
    size = (pixels.shape[1], pixels.shape[0])
    if descriptors is None or len(points) == 0:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32), size)
    # RootSIFT (Arandjelović and Zisserman, CVPR 2012): Euclidean distance becomes the Hellinger kernel
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-7))
    return Features(np.array([p.pt for p in points], np.float32), root.astype(np.float32), size)


def compare(query: Features, reference: Features) -> Evidence | None:
    """The affine map of most agreeing points, None where fewer than chance agree."""
    if min(len(query.points), len(reference.points)) < 4:
        return None
    near = cv2.BFMatcher(cv2.NORM_L2).knnMatch(query.descriptors, reference.descriptors, k=2)
    good = [(m.queryIdx, m.trainIdx) for m, n in near if m.distance < RATIO * n.distance]
    if len(good) <= CHANCE_INLIERS:
        return None
    q, r = np.array(good).T
    affine, mask = cv2.estimateAffine2D(
        reference.points[r], query.points[q], method=cv2.USAC_MAGSAC, ransacReprojThreshold=TOLERANCE, maxIters=500
    )
    inliers = 0 if affine is None else len(np.unique(reference.points[r][mask.ravel() > 0], axis=0))
    if inliers <= CHANCE_INLIERS or not _plausible(affine):
        return None
    return _evidence(affine, query.size, reference.size, inliers)


def _plausible(affine: Floats) -> bool:
    """An edit neither magnifies nor shrinks more than tenfold, nor flattens a picture to a line."""
    large, small = np.linalg.svd(affine[:, :2], compute_uv=False)
    return bool(small > 0.1 and large < 10 and large / small < 5)


def _evidence(affine: Floats, query: tuple[int, int], reference: tuple[int, int], inliers: int) -> Evidence | None:
    """The part of the reference that lies inside the query, in both pictures."""
    corners = _corners(*reference) @ affine[:, :2].T + affine[:, 2]
    area, region = cv2.intersectConvexConvex(corners.astype(np.float32), _corners(*query).astype(np.float32))
    if area <= 0 or region is None:
        return None
    in_query = region.reshape(-1, 2).astype(np.float64)
    in_reference = (in_query - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T
    return Evidence((in_query / query).clip(0, 1), (in_reference / reference).clip(0, 1), inliers)


def _corners(width: int, height: int) -> Floats:
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def mirrored(evidence: Evidence | None) -> Evidence | None:
    """The same evidence after the query was mirrored left to right."""
    if evidence is None:
        return None
    return Evidence(np.abs([1.0, 0.0] - evidence.query_region), evidence.reference_region, evidence.inliers)


def gain(evidence: Evidence | None) -> float:
    """What a pair's score rises by: 0 without evidence, at most GAIN · (FULL_INLIERS − CHANCE_INLIERS)."""
    return 0.0 if evidence is None else GAIN * (min(evidence.inliers, FULL_INLIERS) - CHANCE_INLIERS)


def verify(
    matches: Matches,
    query_images: Mapping[str, Path],
    reference_images: Mapping[str, Path],
    *,
    progress: Report | None = None,
) -> tuple[Matches, dict[tuple[str, str], Evidence], list[str]]:
    """The same pairs with raised scores where pixels agree, the evidence by (query id, reference id), and what could
    not be compared: one line for each picture that is missing or unreadable, whose pairs keep their score."""
    problems: list[str] = []
    wanted = np.unique(matches.reference)
    with ThreadPoolExecutor() as pool:
        load = lambda name: _load(name, reference_images, problems)  # noqa: E731
        names = [matches.reference_ids[i] for i in wanted]
        references = dict(zip(wanted.tolist(), pool.map(load, names), strict=True))
        order = np.argsort(matches.query, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(matches.query[order])) + 1) if len(order) else []

        def one_query(rows: npt.NDArray[np.int64]) -> list[Evidence | None]:
            name = matches.query_ids[matches.query[rows[0]]]
            both = _load_both(name, query_images, problems)
            return [_best_evidence(both, references[int(matches.reference[row])]) for row in rows]

        found: list[Evidence | None] = [None] * len(matches)
        for number, (rows, evidence) in enumerate(zip(groups, pool.map(one_query, groups), strict=True), 1):
            for row, one in zip(rows, evidence, strict=True):
                found[row] = one
            if progress:
                progress(number, len(groups))
    score = (matches.score + np.array([gain(one) for one in found])).astype(matches.score.dtype)
    rescored = Matches(matches.query_ids, matches.reference_ids, matches.query, matches.reference, score)
    by_pair = {
        (matches.query_ids[matches.query[row]], matches.reference_ids[matches.reference[row]]): one
        for row, one in enumerate(found)
        if one is not None
    }
    return rescored, by_pair, sorted(set(problems))


def _best_evidence(query: tuple[Features, Features] | None, reference: Features | None) -> Evidence | None:
    if query is None or reference is None:
        return None
    straight, flipped = compare(query[0], reference), mirrored(compare(query[1], reference))
    return max((straight, flipped), key=gain)


def _load(name: str, images: Mapping[str, Path], problems: list[str]) -> Features | None:
    try:
        return features(fit_within(read_image(path_of(images, name)), LONGEST_SIDE))
    except InputError as error:
        problems.append(str(error))
        return None


def _load_both(name: str, images: Mapping[str, Path], problems: list[str]) -> tuple[Features, Features] | None:
    """Features of a picture as it is and mirrored left to right."""
    try:
        pixels = fit_within(read_image(path_of(images, name)), LONGEST_SIDE)
    except InputError as error:
        problems.append(str(error))
        return None
    return features(pixels), features(np.ascontiguousarray(pixels[:, ::-1]))
