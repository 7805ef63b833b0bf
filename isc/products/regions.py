"""Regions of a frame that may hold an item, and the descriptors of frames and shop pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from isc.model.inference import InferenceModel
from isc.photos.decode import Pixels
from isc.photos.resizing import resize

# left, top, right, bottom as shares: the whole, the middle, and four parts that overlap
REGIONS = (
    (0.0, 0.0, 1.0, 1.0), (0.15, 0.15, 0.85, 0.85),
    (0.0, 0.0, 0.6, 0.6), (0.4, 0.0, 1.0, 0.6), (0.0, 0.4, 0.6, 1.0), (0.4, 0.4, 1.0, 1.0),
)  # fmt: skip
TOGETHER = 32  # pictures that the network describes at once
Floats = npt.NDArray[np.float32]


def box_of(region: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom in pixels, the last two outside; at least one pixel a side."""
    left, top, right, bottom = region
    first = (min(int(left * width), width - 1), min(int(top * height), height - 1))
    return (*first, max(first[0] + 1, round(right * width)), max(first[1] + 1, round(bottom * height)))


def crops(pixels: Pixels, size: int) -> npt.NDArray[np.uint8]:
    """Return the regions of a picture [H, W, 3] as squares, uint8 [R, 3, S, S]."""
    height, width = pixels.shape[:2]
    found = []
    for region in REGIONS:
        left, top, right, bottom = box_of(region, width, height)
        found.append(resize(np.ascontiguousarray(pixels[top:bottom, left:right]), size))
    return np.stack(found).transpose(0, 3, 1, 2)


def describe_regions(network: InferenceModel, pictures: Iterable[Pixels]) -> Floats:
    """Return the descriptors of the regions of pictures, float32 [N, R, D] of unit length."""
    found = [network.embed(crops(pixels, network.image_size)) for pixels in pictures]
    return np.stack(found) if found else np.zeros((0, len(REGIONS), network.dim), np.float32)


def describe_whole(network: InferenceModel, pictures: Sequence[Pixels]) -> Floats:
    """Return the descriptors of whole pictures, float32 [N, D] of unit length."""
    size = network.image_size
    parts = []
    for at in range(0, len(pictures), TOGETHER):
        squares = np.stack([resize(one, size) for one in pictures[at : at + TOGETHER]])
        parts.append(network.embed(squares.transpose(0, 3, 1, 2)))
    return np.concatenate(parts) if parts else np.zeros((0, network.dim), np.float32)


def best_of_pictures(cosines: npt.NDArray[np.floating], owners: npt.NDArray[np.int64]) -> Floats:
    """Return the largest cosine with any picture of each item: [..., P] → [..., I].

    `owners` [P] are the places of the items, 0 … I − 1, rising; each has a picture.
    """
    begins = np.searchsorted(owners, np.arange(owners[-1] + 1))
    return np.asarray(np.maximum.reduceat(cosines, begins, axis=-1), np.float32)
