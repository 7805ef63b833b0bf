"""The geometric alignment of two pictures: one affine map between them, and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from isc.match.verification.affine_fit import Fit, Flags, Floats, best_fit
from isc.match.verification.colours import colours_apart
from isc.match.verification.features import LocalFeatures
from isc.match.verification.quantities import EVIDENCE

Gray = npt.NDArray[np.uint8]

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


def compare(query: LocalFeatures, reference: LocalFeatures) -> tuple[npt.NDArray[np.float32], Alignment | None]:
    """Return the evidence for a pair, float32 [len(EVIDENCE)] in the order of EVIDENCE, and the alignment or None."""
    return evidence_of(query, reference, best_fit(query, reference))


def evidence_of(
    query: LocalFeatures, reference: LocalFeatures, fit: Fit | None
) -> tuple[npt.NDArray[np.float32], Alignment | None]:
    """Return what `compare` does, for the best map between the pictures."""
    values = dict.fromkeys(EVIDENCE, 0.0) | {
        "features_query": len(query),
        "features_reference": len(reference),
        "colour_difference": float(np.abs(query.colours.astype(float) - reference.colours).mean() / 255),
        "flat": max(query.flatness, reference.flatness),
        "light": min(query.light, reference.light),
    }
    alignment = None if fit is None else _alignment(query, reference, fit)
    if fit is not None and alignment is not None:
        values |= _evidence(fit, alignment, query, reference)
    return np.array([values[name] for name in EVIDENCE], np.float32), alignment


def _mirrored_back(affine: Floats, size: tuple[int, int]) -> Floats:
    """Convert a map to the mirrored query into a map to the query itself."""
    turned = np.array([[-1, 0, size[0] - 1], [0, 1, 0]], np.float64)
    return np.asarray(turned @ np.vstack([affine, [0, 0, 1]]), np.float64)


def _alignment(query: LocalFeatures, reference: LocalFeatures, fit: Fit) -> Alignment | None:
    """Return the map in fractions with the common region in both pictures; None if they have no common region."""
    affine = _mirrored_back(fit.affine, query.size) if fit.pairs.flip else fit.affine
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


def _evidence(fit: Fit, alignment: Alignment, query: LocalFeatures, reference: LocalFeatures) -> dict[str, float]:
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
        "region_colours": colours_apart(alignment.matrix, query.colours, reference.colours),
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
