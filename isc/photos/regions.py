"""Region proposals: places inside a query that may hold another picture, pasted, on a screen, in a frame, or padded.

Nothing is learned: such a picture has four straight sides along rows and columns. The clearest straight lines are found
by sums along rows and columns; then all rectangles between them are scored at once, by the share of edge on their
sides, by their area, and by whether they show any detail.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from isc.photos.resizing import fit_within
from isc.photos.views import Pixels, Region

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SIDE = 256  # pixels of the longer side at which lines are looked for
LINES = 14  # lines of each direction that rectangles are made of, besides the picture's own sides
LEAST, MOST = 0.1, 0.95  # least share of a side, largest share of the area
OVERLAP = 0.8  # intersection over union above which two regions count as one
NEARBY = 9  # pixels across an edge over which the steps nearby are averaged
NEAR, NOISE = 0.7, 5.0  # a step of NEAR × the mean step nearby + NOISE, in levels of 0…255, has a clearness of one half
OWN_SIDE = 0.3  # share of edge that a side of the picture itself counts as
AREA = 0.2  # exponent of the area: of two equally clear rectangles the larger one wins
TEXTURE = 6.0  # least local standard deviation, in levels, of a pixel with detail
DETAIL = 0.4  # least share of such pixels
DIGITS = 4  # decimals of a fraction


def propose(pixels: Pixels, *, count: int) -> tuple[Region, ...]:
    """Return up to `count` regions of a picture [H, W, 3], RGB, that may be separate pictures, the likeliest first.

    Each region has at least LEAST of both sides and at most MOST of the area; no two overlap by more than OVERLAP. A
    smaller count returns the first regions of a larger one.
    """
    small = fit_within(pixels, SIDE)
    height, width = small.shape[:2]
    across, down = edges(small.transpose(1, 0, 2)), edges(small)
    boxes, scores = rectangles(lines(across), lines(down), across, down)
    scores[detail(small, boxes) < DETAIL] = 0
    fractions = np.round(boxes / np.array([width, height, width, height]), DIGITS)
    return best(fractions, scores, count=count)


def edges(picture: Pixels) -> Floats:
    """Return the clearness, 0…1, of an edge along the upper side of each pixel: [H, W, 3] → [H + 1, W].

    It compares the step in levels with the steps above and below. The picture's own first and last side have 0.
    """
    first, second = picture[1:].astype(np.int16), picture[:-1].astype(np.int16)
    red, green, blue = np.moveaxis(np.abs(first - second), 2, 0)
    step = np.pad(np.maximum(np.maximum(red, green), blue).astype(np.float32), ((1, 1), (0, 0)))
    near = cv2.blur(step, (1, NEARBY), borderType=cv2.BORDER_REFLECT)
    found: Floats = step / (step + NEAR * near + NOISE)
    return found


def lines(found: Floats) -> Ints:
    """Return the rows of `edges`, ascending, with the longest and clearest runs.

    These are the LINES best rows that are the best within two rows on either side, and always the first and last row.
    """
    run = max(8, found.shape[1] // 8)
    strength = cv2.blur(found, (run, 1), borderType=cv2.BORDER_CONSTANT).max(axis=1) + found.mean(axis=1)
    highest = cv2.dilate(strength[:, None], np.ones((5, 1), np.uint8))[:, 0]
    inner = np.flatnonzero((strength >= highest)[1:-1]) + 1
    chosen = inner[np.argsort(-strength[inner], kind="stable")[:LINES]]
    return np.sort(np.concatenate([[0], chosen, [len(found) - 1]]))


def rectangles(xs: Ints, ys: Ints, across: Floats, down: Floats) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Return all rectangles [N, 4] between these columns and rows that are large enough, and their scores [N], 0…1.

    A rectangle is left, top, right, bottom in pixels. Its score is (mean share of edge on the four sides + share on
    the poorest side) / 2 · area^AREA, or 0 if the rectangle is nearly the whole picture.
    """
    width, height = int(xs[-1]), int(ys[-1])
    left, right = _spans(xs)
    top, bottom = _spans(ys)
    upright, level = _shares(across, xs, ys[top], ys[bottom]), _shares(down, ys, xs[left], xs[right])
    sides = np.stack([upright[left], upright[right], level[top].T, level[bottom].T])  # [4, columns, rows]
    area = np.outer((xs[right] - xs[left]) / width, (ys[bottom] - ys[top]) / height)
    poorest = np.minimum(np.minimum(sides[0], sides[1]), np.minimum(sides[2], sides[3]))
    scores = np.asarray((sides.sum(axis=0) / 4 + poorest) / 2 * np.power(area, AREA), np.float64)
    scores[area > MOST] = 0
    corners = np.broadcast_arrays(xs[left][:, None], ys[top], xs[right][:, None], ys[bottom])
    return np.stack(corners, axis=-1).reshape(-1, 4), scores.ravel()


def _spans(places: Ints) -> tuple[Ints, Ints]:
    """Return the pairs of places that are far enough apart."""
    start, end = np.triu_indices(len(places), 1)
    wide = places[end] - places[start] >= LEAST * places[-1]
    return start[wide], end[wide]


def _shares(found: Floats, rows: Ints, starts: Ints, ends: Ints) -> Floats:
    """Return the mean of the given rows of `edges` from each start to its end [rows, spans].

    The first and the last row, the picture's own sides, have OWN_SIDE.
    """
    sums = np.pad(np.cumsum(found[rows], axis=1), ((0, 0), (1, 0)))
    shares: Floats = np.asarray((sums[:, ends] - sums[:, starts]) / (ends - starts), np.float32)
    shares[[0, -1]] = OWN_SIDE
    return shares


def detail(picture: Pixels, boxes: Ints) -> Floats:
    """Return the share of pixels with detail in each rectangle [N, 4]."""
    gray = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY).astype(np.float32)
    mean, square = cv2.blur(gray, (7, 7)), cv2.blur(gray * gray, (7, 7))
    sums = cv2.integral((square - mean * mean > TEXTURE**2).astype(np.uint8))
    left, top, right, bottom = boxes.T
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    shares: Floats = (inside / ((right - left) * (bottom - top))).astype(np.float32)
    return shares


def best(regions: npt.NDArray[np.float64], scores: npt.NDArray[np.float64], *, count: int) -> tuple[Region, ...]:
    """Return the `count` best regions [N, 4] with scores above 0; no two overlap by more than OVERLAP."""
    remaining = scores.copy()
    chosen: list[Region] = []
    while len(chosen) < count and remaining.size and remaining.max() > 0:
        left, top, right, bottom = regions[int(remaining.argmax())].tolist()
        chosen.append((left, top, right, bottom))
        remaining[overlaps(regions, chosen[-1]) > OVERLAP] = 0
    return tuple(chosen)


def overlaps(regions: npt.NDArray[np.float64], region: Region) -> npt.NDArray[np.float64]:
    """Return the intersection over union of each region [N, 4] with `region`."""
    left, top, right, bottom = regions.T
    width = np.maximum(np.minimum(right, region[2]) - np.maximum(left, region[0]), 0)
    height = np.maximum(np.minimum(bottom, region[3]) - np.maximum(top, region[1]), 0)
    areas = (right - left) * (bottom - top) + (region[2] - region[0]) * (region[3] - region[1])
    shares: npt.NDArray[np.float64] = width * height / (areas - width * height)
    return shares
