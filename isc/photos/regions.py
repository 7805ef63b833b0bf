"""Where, inside a query, another picture may lie: pasted, on a screen, in a frame, padded.

No learning: such a picture has four straight sides along rows and columns. The clearest straight lines are found by
sums along rows and columns; then every rectangle that they form is judged at once, by how much of its sides is edge,
by its area, and by whether it shows anything.
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
LEAST, MOST = 0.1, 0.95  # of a side, and of the area
OVERLAP = 0.8  # intersection over union above which two regions count as one
NEARBY = 9  # pixels across an edge that it is compared with
NEAR, NOISE = 0.7, 5.0  # weight of the mean step nearby, and levels of 0…255, that halve an edge as clear as they are
OWN_SIDE = 0.3  # what a side of the picture itself counts as, in shares of edge
AREA = 0.2  # exponent: of two as clear the larger
TEXTURE = 6.0  # standard deviation, in levels, where there is something to see
DETAIL = 0.4  # least share of such pixels
DIGITS = 4  # of a fraction


def propose(pixels: Pixels, *, count: int) -> tuple[Region, ...]:
    """Up to `count` regions of a picture [H, W, 3], RGB, that may be pictures of their own, the likeliest first.

    Each has at least LEAST of both sides and at most MOST of the area, and no two overlap by more than OVERLAP. A
    smaller count gives the first of those that a larger one gives.
    """
    small = fit_within(pixels, SIDE)
    height, width = small.shape[:2]
    across, down = edges(small.transpose(1, 0, 2)), edges(small)
    boxes, scores = rectangles(lines(across), lines(down), across, down)
    scores[detail(small, boxes) < DETAIL] = 0
    fractions = np.round(boxes / np.array([width, height, width, height]), DIGITS)
    return best(fractions, scores, count=count)


def edges(picture: Pixels) -> Floats:
    """[H, W, 3] → [H + 1, W]: how clearly an edge runs along the upper side of each pixel, 0…1: its step in levels
    beside the steps above and below. The picture's own first and last side are none."""
    first, second = picture[1:].astype(np.int16), picture[:-1].astype(np.int16)
    red, green, blue = np.moveaxis(np.abs(first - second), 2, 0)
    step = np.pad(np.maximum(np.maximum(red, green), blue).astype(np.float32), ((1, 1), (0, 0)))
    near = cv2.blur(step, (1, NEARBY), borderType=cv2.BORDER_REFLECT)
    found: Floats = step / (step + NEAR * near + NOISE)
    return found


def lines(found: Floats) -> Ints:
    """The rows of `edges`, ascending, that hold the longest and clearest runs: the LINES best that are the best within
    two of their neighbours, and always the first and the last."""
    run = max(8, found.shape[1] // 8)
    strength = cv2.blur(found, (run, 1), borderType=cv2.BORDER_CONSTANT).max(axis=1) + found.mean(axis=1)
    highest = cv2.dilate(strength[:, None], np.ones((5, 1), np.uint8))[:, 0]
    inner = np.flatnonzero((strength >= highest)[1:-1]) + 1
    chosen = inner[np.argsort(-strength[inner], kind="stable")[:LINES]]
    return np.sort(np.concatenate([[0], chosen, [len(found) - 1]]))


def rectangles(xs: Ints, ys: Ints, across: Floats, down: Floats) -> tuple[Ints, npt.NDArray[np.float64]]:
    """All rectangles [N, 4] (left, top, right, bottom in pixels) between these columns and rows that are large enough,
    and their scores [N], 0…1: the mean of the share of edge on the four sides and on the poorest of them, times
    area^AREA; 0 where the rectangle is nearly the whole."""
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
    """Which pairs of places are far enough from each other."""
    start, end = np.triu_indices(len(places), 1)
    wide = places[end] - places[start] >= LEAST * places[-1]
    return start[wide], end[wide]


def _shares(found: Floats, rows: Ints, starts: Ints, ends: Ints) -> Floats:
    """The mean of each of these rows of `edges` from each start to its end [rows, spans]; OWN_SIDE for the picture's
    own sides, the first and the last row."""
    sums = np.pad(np.cumsum(found[rows], axis=1), ((0, 0), (1, 0)))
    shares: Floats = np.asarray((sums[:, ends] - sums[:, starts]) / (ends - starts), np.float32)
    shares[[0, -1]] = OWN_SIDE
    return shares


def detail(picture: Pixels, boxes: Ints) -> Floats:
    """The share of pixels in each rectangle [N, 4] around which there is something to see."""
    gray = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY).astype(np.float32)
    mean, square = cv2.blur(gray, (7, 7)), cv2.blur(gray * gray, (7, 7))
    sums = cv2.integral((square - mean * mean > TEXTURE**2).astype(np.uint8))
    left, top, right, bottom = boxes.T
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    shares: Floats = (inside / ((right - left) * (bottom - top))).astype(np.float32)
    return shares


def best(regions: npt.NDArray[np.float64], scores: npt.NDArray[np.float64], *, count: int) -> tuple[Region, ...]:
    """The `count` regions [N, 4] of the highest scores above 0, the first of those that overlap by more than
    OVERLAP."""
    remaining = scores.copy()
    chosen: list[Region] = []
    while len(chosen) < count and remaining.size and remaining.max() > 0:
        left, top, right, bottom = regions[int(remaining.argmax())].tolist()
        chosen.append((left, top, right, bottom))
        remaining[overlaps(regions, chosen[-1]) > OVERLAP] = 0
    return tuple(chosen)


def overlaps(regions: npt.NDArray[np.float64], region: Region) -> npt.NDArray[np.float64]:
    """Intersection over union of each of the regions [N, 4] with this one."""
    left, top, right, bottom = regions.T
    width = np.maximum(np.minimum(right, region[2]) - np.maximum(left, region[0]), 0)
    height = np.maximum(np.minimum(bottom, region[3]) - np.maximum(top, region[1]), 0)
    areas = (right - left) * (bottom - top) + (region[2] - region[0]) * (region[3] - region[1])
    shares: npt.NDArray[np.float64] = width * height / (areas - width * height)
    return shares
