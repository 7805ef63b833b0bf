"""The mixing of two views in training: the mixed picture, with the share of the first view in it."""

from __future__ import annotations

import math

import cv2
import numpy as np

from isc.photos.decode import Pixels


def mixup(a: Pixels, b: Pixels, rng: np.random.Generator) -> tuple[Pixels, float]:
    """Return λ·a + (1 − λ)·b and λ from Beta(2, 2); a and b uint8 [H, W, 3] of one shape (Zhang et al. 2018, eq. 1)."""
    share = float(rng.beta(2, 2))
    return np.asarray(cv2.addWeighted(a, share, b, 1 - share, 0), np.uint8), share


def cutmix(a: Pixels, b: Pixels, rng: np.random.Generator) -> tuple[Pixels, float]:
    """Return a with a rectangle of b in the same place, and the share of the pixels from a (Yun et al. 2019).

    The rectangle has a's aspect ratio and a share 1 − λ of its area, λ from Beta(2, 2); it lies inside the picture and
    is never empty.
    """
    part = math.sqrt(1 - rng.beta(2, 2))
    height, width = (max(1, round(part * side)) for side in a.shape[:2])
    top, left = (int(rng.integers(0, full - side + 1)) for full, side in zip(a.shape, (height, width), strict=False))
    result = a.copy()
    result[top : top + height, left : left + width] = b[top : top + height, left : left + width]
    return result, 1 - height * width / (a.shape[0] * a.shape[1])
