"""The geometry of AugLy's edits, measured by editing pictures whose colours encode the position of each pixel.

Red encodes x and green encodes y. Blue is 255 in one picture and 0 in a second one, which separates the pixels of the
picture from the surroundings that AugLy adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from isc.benchmark.edits.augly import Edit, Photo, apply, edit_chain, single_edit
from isc.benchmark.edits.chain import can_be_found
from isc.benchmark.edits.values import Matrix
from isc.photos.decode import Pixels

MOVING = frozenset({
    "change_aspect_ratio", "clip_image_size", "crop", "hflip", "meme_format", "overlay_onto_background_image",
    "overlay_onto_screenshot", "pad", "pad_square", "perspective_transform", "rotate", "scale", "skew", "vflip",
})  # fmt: skip
MAX_DRAWS = 20  # most draws of a copy until enough of the picture is left
SAMPLES = 4000  # most pixels that a map is fitted to
FEWEST = 50
TOLERANCE = 2.0  # pixels of error of an inlier, about the precision of a position in eight bits

Floats = npt.NDArray[np.float64]


def augly_copy(
    pixels: Pixels,
    rng: np.random.Generator,
    others: Sequence[str],
    other: Callable[[str], Pixels],
    *,
    kind: str | None = None,
    count: tuple[int, int] = (1, 4),
) -> tuple[Pixels, tuple[Edit, ...], Matrix | None]:
    """Copy the picture by one edit of this kind, or, if None, by `count` (fewest, most) edits of any kind.

    Returns the copy, its edits, and their `chain_matrix`. `other` opens any of `others`. If too little of the picture
    is left to be found, the copy is drawn again, 20 times at most. Raises InputError if AugLy leaves no usable picture.
    """

    def photo(name: str) -> Image.Image:
        return Image.fromarray(other(name))

    image = Image.fromarray(pixels)
    for _ in range(MAX_DRAWS):
        if kind is None:
            edited, edits = edit_chain(image, rng, others, photo, count=count)
        else:
            edited, edits = single_edit(image, rng, others, photo, kind=kind)
        copy, matrix = np.array(edited), chain_matrix(image.size, edits, photo)
        if matrix is not None and can_be_found(pixels, copy, matrix):
            break
    return copy, edits, matrix


def chain_matrix(size: tuple[int, int], edits: Sequence[Edit], photo: Photo) -> Matrix | None:
    """Return the matrix [3, 3] from pixel coordinates of a picture of this (width, height) to those of its copy.

    None if too little of the picture is left to measure it.
    """
    matrix: Matrix = np.eye(3)
    for edit in edits:
        if edit.name in MOVING:
            found = _measured(size, edit, photo)
            if found is None:
                return None
            matrix, size = found[0] @ matrix, found[1]
    return matrix


def _measured(size: tuple[int, int], edit: Edit, photo: Photo) -> tuple[Matrix, tuple[int, int]] | None:
    """Return the matrix [3, 3] of one edit and the (width, height) of its result; None if too few pixels are left."""
    solid = Edit(edit.name, {**edit.params, "opacity": 1.0}) if "opacity" in edit.params else edit
    full, empty = (np.asarray(apply(_places(size, blue), solid, photo)).astype(np.int16) for blue in (255, 0))
    is_picture = (full[..., 2] > 250) & (empty[..., 2] < 5)
    is_picture = cv2.erode(is_picture.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    y, x = np.nonzero(is_picture)
    if len(x) < FEWEST:
        return None
    chosen = np.linspace(0, len(x) - 1, min(SAMPLES, len(x))).astype(int)
    x, y = x[chosen], y[chosen]
    was = full[y, x, :2] / 255 * (np.array(size) - 1)
    matrix = _fitted(was, np.stack([x, y], axis=1).astype(np.float64), flat=edit.name != "perspective_transform")
    return None if matrix is None else (matrix, (full.shape[1], full.shape[0]))


def _places(size: tuple[int, int], blue: int) -> Image.Image:
    width, height = size
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0] = np.rint(np.linspace(0, 255, width))[None]
    pixels[..., 1] = np.rint(np.linspace(0, 255, height))[:, None]
    pixels[..., 2] = blue
    return Image.fromarray(pixels)


def _fitted(was: Floats, now: Floats, *, flat: bool) -> Matrix | None:
    """Fit the map from positions `was` [N, 2] to `now` [N, 2], affine if `flat`, else a homography.

    The fit is repeated once without outliers; None if too few positions are left.
    """
    for _ in range(2):
        if len(was) < FEWEST:
            return None
        matrix = _affine(was, now) if flat else _homography(was, now)
        if matrix is None:
            return None
        moved = np.c_[was, np.ones(len(was))] @ matrix.T
        near = np.linalg.norm(moved[:, :2] / moved[:, 2:] - now, axis=1) < TOLERANCE * max(1.0, _scale(matrix))
        was, now = was[near], now[near]
    return matrix


def _affine(was: Floats, now: Floats) -> Matrix:
    rows, *_ = np.linalg.lstsq(np.c_[was, np.ones(len(was))], now, rcond=None)
    return np.asarray(np.r_[rows.T, [[0.0, 0, 1]]], np.float64)


def _homography(was: Floats, now: Floats) -> Matrix | None:
    found, _ = cv2.findHomography(was, now, 0)
    return None if found is None else np.asarray(found, np.float64)


def _scale(matrix: Matrix) -> float:
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
