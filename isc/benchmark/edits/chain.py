"""The benchmark's own edits, and chains of them, as people edit photos before they repost them.

The edits use only numpy, OpenCV and Pillow, and share no code with the augmentation of the training, so that a model
is not judged on the edits that it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np

from isc.benchmark.edits.composition import COMPOSITION
from isc.benchmark.edits.geometry import GEOMETRY
from isc.benchmark.edits.pixels import DEGRADATION, RECOMPRESSION
from isc.benchmark.edits.values import EditFunction, Matrix, Other, Param, resize_matrix, resized
from isc.errors import InputError
from isc.photos.decode import Pixels

EDITS: Mapping[str, EditFunction] = MappingProxyType(GEOMETRY | COMPOSITION | DEGRADATION | RECOMPRESSION)

DESCRIPTIONS: Mapping[str, str] = MappingProxyType({
    "crop": "crop {area_percent:.0f} %",
    "rotate": "rotate {angle_degrees:.0f}°",
    "quarter_turn": "turn {angle_degrees:.0f}°",
    "flip_horizontal": "flip left-right",
    "flip_vertical": "flip top-bottom",
    "perspective": "perspective {depth_percent:.0f} %",
    "squeeze": "squeeze: {axis} to {length_percent:.0f} %",
    "pad": "pad: {where}",
    "overlay_on_photo": "overlay on photo {side_percent:.0f} %",
    "photo_on_top": "photo on top {area_percent:.0f} %",
    "text": "text, lines: {lines}",
    "meme_caption": "caption: {where}",
    "emoji": "emoji × {number}",
    "screenshot": "screenshot: {layout}, {theme}",
    "stripes": "stripes × {number}",
    "border": "border {thickness_px} px",
    "jitter": "colour jitter",
    "grayscale": "grayscale",
    "duotone": "duotone: {tone} {strength_percent:.0f} %",
    "invert": "negative",
    "posterise": "posterise to {levels} levels",
    "blur": "blur σ {sigma_px:.1f} px",
    "motion_blur": "motion blur {length_px} px",
    "noise": "noise: {kind}",
    "pixelise": "pixelise to {cells} cells",
    "sharpen": "{kind} {strength_percent:.0f} %",
    "shuffle_blocks": "shuffle {moved} of {rows} × {columns} blocks",
    "fade": "fade {strength_percent:.0f} % to {colour}",
    "downscale": "downscale to {side_percent:.0f} %",
    "jpeg": "JPEG quality {quality}",
    "webp": "WebP quality {quality}",
})  # fmt: skip

HIDING = frozenset({"overlay_on_photo", "photo_on_top", "emoji", "screenshot"})
ALTERNATIVES = (  # a chain holds at most one edit of each group: two would leave nothing to find
    HIDING,
    frozenset(RECOMPRESSION),
    frozenset({"blur", "motion_blur", "pixelise", "downscale"}),
    frozenset({"posterise", "invert", "grayscale", "duotone"}),
    frozenset({"flip_vertical", "quarter_turn", "rotate"}),
    frozenset({"shuffle_blocks", "perspective"}),
    frozenset({"crop", "shuffle_blocks"}),
)
RARE = frozenset({"invert", "flip_vertical", "shuffle_blocks", "posterise"})  # drawn a third as often
FREQUENT = frozenset({"crop", "overlay_on_photo", "text", "emoji", "screenshot", "jitter"})  # drawn twice as often

MIN_SIDE, MAX_SIDE = 64, 640  # of a query, in pixels
MIN_KEPT, MIN_COVERED = 0.10, 0.07  # share of the source inside the query; share of the query covered by the source
MIN_CONTRAST = 14.0  # standard deviation, in levels, of the visible source; less for a source of low contrast
MAX_DRAWS = 60  # most draws of a chain until one passes


@dataclass(frozen=True)
class Edit:
    """An edit: its name, one of EDITS, and its drawn parameters."""

    name: str
    params: Mapping[str, Param]

    def describe(self) -> str:
        """Return a short description, such as "crop 42 %" or "rotate −17°"."""
        return DESCRIPTIONS[self.name].format(**self.params).replace(" -", " −")


def edit_chain(
    pixels: Pixels, rng: np.random.Generator, other: Other, *, count: tuple[int, int] = (1, 4)
) -> tuple[Pixels, tuple[Edit, ...], Matrix]:
    """Copy the picture by a random chain of `count` (fewest, most) different edits.

    The crop comes first, then geometry and composition in any order, then the loss of quality, and recompression last.
    Returns the copy of 64…640 pixels per side, the edits in their order, and the matrix [3, 3] from the picture's pixel
    coordinates to the copy's. At least 10 % of the picture lies inside the copy and covers at least 7 % of it. If 60
    draws give no such chain, the picture is only recompressed. Raises InputError for a count outside 1…10.
    """
    if not 1 <= count[0] <= count[1] <= 10:
        raise InputError(f"count={count}; expected 1 ≤ fewest ≤ most ≤ 10 edits")
    for _ in range(MAX_DRAWS):
        names = _plausible_names(rng, int(rng.integers(count[0], count[1] + 1)))
        copy, edits, matrix = apply_edits(pixels, names, rng, other)
        if can_be_found(pixels, copy, matrix):
            return copy, edits, matrix
    return apply_edits(pixels, ("jpeg",), rng, other)


def _plausible_names(rng: np.random.Generator, number: int) -> tuple[str, ...]:
    names = np.array(list(EDITS))
    weight = np.array([2.0 if name in FREQUENT else 0.33 if name in RARE else 1.0 for name in names])
    while True:
        chosen = [str(name) for name in rng.choice(names, number, replace=False, p=weight / weight.sum())]
        if all(len(group & set(chosen)) <= 1 for group in ALTERNATIVES):
            return tuple(sorted(chosen, key=_stage))


def _stage(name: str) -> int:
    if name in RECOMPRESSION:
        return 3
    if name in DEGRADATION:
        return 2
    return 0 if name == "crop" else 1


def apply_edits(
    pixels: Pixels, names: tuple[str, ...], rng: np.random.Generator, other: Other
) -> tuple[Pixels, tuple[Edit, ...], Matrix]:
    """Apply these edits in order; bring the copy to a legal size before a recompression, so that its artefacts stay."""
    copy, matrix, edits = pixels, np.eye(3), []
    for name in names:
        if name in RECOMPRESSION:
            copy, matrix = _legal_size(copy, matrix)
        edited = EDITS[name](copy, rng, other)
        copy = edited.pixels
        matrix = matrix if edited.matrix is None else edited.matrix @ matrix
        edits.append(Edit(name, edited.params))
    copy, matrix = _legal_size(copy, matrix)
    return copy, tuple(edits), matrix


def _legal_size(pixels: Pixels, matrix: Matrix) -> tuple[Pixels, Matrix]:
    """Resize the picture to 64…640 pixels per side; its proportions change only if they exceed 1 : 10."""
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        scale = MIN_SIDE / min(height, width)
        width, height = max(MIN_SIDE, round(width * scale)), max(MIN_SIDE, round(height * scale))
    if max(height, width) > MAX_SIDE:
        scale = MAX_SIDE / max(height, width)
        width, height = max(MIN_SIDE, round(width * scale)), max(MIN_SIDE, round(height * scale))
    return resized(pixels, width, height), resize_matrix(pixels, width, height) @ matrix


def region(pixels: Pixels, copy: Pixels, matrix: Matrix) -> list[list[float]]:
    """Return the picture's corners in the copy, clockwise from the upper left, as fractions (x, y) of its size."""
    moved = _corners(pixels) @ matrix.T
    places = (moved[:, :2] / moved[:, 2:] + 0.5) / (copy.shape[1], copy.shape[0])
    return [[round(float(x), 5), round(float(y), 5)] for x, y in places]


def _corners(pixels: Pixels) -> Matrix:
    """Return the outer corners [4, 3] of the corner pixels as (x, y, 1), clockwise from the upper left."""
    height, width = pixels.shape[:2]
    return np.array([[0.0, 0, 1.5], [width, 0, 1.5], [width, height, 1.5], [0, height, 1.5]]) - 0.5


def can_be_found(pixels: Pixels, copy: Pixels, matrix: Matrix) -> bool:
    """Return True if the copy shows enough of the picture, on enough of its area, with enough contrast."""
    kept, covered, (left, top, right, bottom) = _visible(pixels, copy, matrix)
    if kept < MIN_KEPT or covered < MIN_COVERED:
        return False
    return _contrast(copy[top:bottom, left:right]) >= min(MIN_CONTRAST, 0.4 * _contrast(pixels))


def _contrast(pixels: Pixels) -> float:
    """Return the standard deviation of the levels per channel, averaged over the channels; 0 without pixels."""
    return float(cv2.meanStdDev(pixels)[1].mean()) if pixels.size else 0.0


def _visible(pixels: Pixels, copy: Pixels, matrix: Matrix) -> tuple[float, float, tuple[int, int, int, int]]:
    """Measure the visible part of the picture in the copy.

    Returns the share of the picture's area inside the copy, the share of the copy that it covers, both 0…1, and its
    bounding box (left, top, right, bottom) in pixels.
    """
    size = np.array([copy.shape[1], copy.shape[0]], dtype=np.float64)
    if (_corners(pixels) @ matrix.T)[:, 2].min() <= 0.05:  # a corner near or beyond the horizon
        return 0.0, 0.0, (0, 0, 0, 0)
    corners = np.array(region(pixels, copy, matrix)) * size
    frame = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size
    area, shared = cv2.intersectConvexConvex(corners.astype(np.float32), frame.astype(np.float32))
    if area < 1 or shared is None:
        return 0.0, 0.0, (0, 0, 0, 0)
    outline = np.asarray(shared, dtype=np.float64).reshape(1, -1, 2)
    back = np.asarray(cv2.perspectiveTransform(outline - 0.5, np.linalg.inv(matrix)), dtype=np.float32)
    (left, top), (right, bottom) = np.floor(outline[0].min(0)).astype(int), np.ceil(outline[0].max(0)).astype(int)
    kept = float(cv2.contourArea(back)) / (pixels.shape[0] * pixels.shape[1])
    return kept, float(area) / float(size.prod()), (int(left), int(top), int(right), int(bottom))
