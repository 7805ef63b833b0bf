"""Resizing of decoded photos."""

from __future__ import annotations

import cv2
import numpy as np

from isc.photos.decode import Pixels


def resize(pixels: Pixels, size: int) -> Pixels:
    """Resize the picture [H, W, 3] to [size, size, 3]: area-averaged if a side shrinks, else bilinear."""
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    shrinks = height > size or width > size
    resized = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def fit_within(pixels: Pixels, longest: int) -> Pixels:
    """Shrink the picture until its longest side has at most `longest` pixels; the proportions are kept."""
    height, width = pixels.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
