"""PDQ, a perceptual hash of 256 bits, in numpy: the package of its authors has to be compiled.

Davis and Rosen, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", Facebook, 2019.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from isc.photos.decode import Pixels

Floats = npt.NDArray[np.float32]
SIDE, KEPT = 64, 16
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
MATCH = 31  # bits that two hashes of one picture may differ in, as the authors recommend
USABLE = 50  # quality below which a hash says little, as the authors recommend


def pdq(pixels: Pixels) -> tuple[str, int]:
    """Return the hash of a picture [H, W, 3] as 64 hexadecimal digits, and its quality 0…100."""
    small = _decimated(_smoothed(pixels.astype(np.float32) @ LUMA))
    frequencies = _cosines() @ small @ _cosines().T
    bits = (frequencies > np.sort(frequencies, axis=None)[KEPT * KEPT // 2 - 1]).ravel()
    return np.packbits(bits[::-1]).tobytes().hex(), _quality(small)


def _smoothed(luma: Floats) -> Floats:
    """Apply the Jarosz filter: two box filters along each axis, each as wide as half a cell of the 64 × 64 grid."""
    height, width = luma.shape
    for _ in range(2):
        luma = _box(luma, (width + 2 * SIDE - 1) // (2 * SIDE))
        luma = _box(luma.T, (height + 2 * SIDE - 1) // (2 * SIDE)).T
    return luma


def _box(rows: Floats, window: int) -> Floats:
    """Average each row over `window` places, fewer at the ends."""
    length = rows.shape[1]
    half = (window + 2) // 2
    sums = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1, dtype=np.float64)], axis=1)
    at = np.arange(length)
    first, last = np.maximum(at - (window - half), 0), np.minimum(at + half, length)
    return np.asarray((sums[:, last] - sums[:, first]) / (last - first), np.float32)


def _decimated(luma: Floats) -> Floats:
    rows, columns = (((np.arange(SIDE) + 0.5) * length / SIDE).astype(int) for length in luma.shape)
    return luma[np.ix_(rows, columns)]


@cache
def _cosines() -> Floats:
    """Return the rows 1…16 of the cosine transform of 64 places."""
    rows, places = np.arange(1, KEPT + 1)[:, None], np.arange(SIDE)
    return np.asarray(math.sqrt(2 / SIDE) * np.cos(np.pi / 2 / SIDE * rows * (2 * places + 1)), np.float32)


def _quality(small: Floats) -> int:
    """Return the sum of the gradients, scaled as the authors do."""
    steps = [np.abs(np.trunc(np.diff(small, axis=axis) * 100 / 255)).sum() for axis in (0, 1)]
    return min(100, int(sum(steps) / 90))
