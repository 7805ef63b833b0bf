"""Local features of a picture: points that are found again after most edits, with descriptors of their surroundings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from isc.photos.decode import Pixels
from isc.photos.resizing import fit_within

VERSION = 3  # raise it whenever the same picture gives other features
LONGEST_SIDE = 384  # pixels at which features are taken
THUMBNAIL_SIDE = 128
COLOURS_SIDE = 16
MAX_FEATURES = 500
CONTRAST = 0.005  # of the weakest point; low, so that blurred pictures have points; OpenCV's default is 0.04
DARKEST = 97.0  # percentile of the slopes that becomes black in a line drawing
SOFT = 2.0  # pixels, standard deviation of the blur that makes strokes of different widths alike

# the position of each bin of a SIFT descriptor, 4 × 4 cells of 8 directions, in the mirrored picture: the cells change
# sides across the point's own direction, and the directions change their sign
_MIRROR = np.arange(128).reshape(4, 4, 8)[::-1][:, :, [0, 7, 6, 5, 4, 3, 2, 1]].ravel()

# the same in the negative: all slopes point the other way, so that the cells turn by 180° with the point's direction
_NEGATIVE = np.arange(128).reshape(4, 4, 8)[::-1, ::-1].ravel()


@dataclass(frozen=True)
class LocalFeatures:
    """SIFT features of one picture, the strongest first.

    points       float32 [K, 2]   (x, y) in pixels of the picture that the features were taken of
    sizes        float32 [K]      diameter in the same pixels
    angles       float32 [K]      direction in degrees, 0…360, clockwise as y points down
    descriptors  uint8 [K, 128]   RootSIFT, 255 × the vector of unit length
    thumbnail    uint8 [h, w]     the picture in grey, at most 128 pixels a side
    colours      uint8 [16, 16, 3] the picture in RGB, shrunk and squeezed, row by row
    size         (width, height) in pixels of the picture that the features were taken of
    """

    points: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.float32]
    angles: npt.NDArray[np.float32]
    descriptors: npt.NDArray[np.uint8]
    thumbnail: npt.NDArray[np.uint8]
    colours: npt.NDArray[np.uint8]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def vectors(self) -> npt.NDArray[np.float32]:
        """The descriptors at unit length, for comparison."""
        return np.asarray(self.descriptors / np.float32(255), np.float32)

    @cached_property
    def mirrored_vectors(self) -> npt.NDArray[np.float32]:
        """The `vectors` of the mirrored picture."""
        return mirrored(self.vectors)

    @cached_property
    def flatness(self) -> float:
        """The share of the thumbnail in the fullest of 32 bands of grey levels: half and more in pages and drawings."""
        return flatness(self.thumbnail)

    @cached_property
    def chroma(self) -> float:
        """The mean difference, 0…1, between the strongest and the weakest channel of a colour."""
        return float((self.colours.max(axis=2).astype(float) - self.colours.min(axis=2)).mean() / 255)

    @cached_property
    def light(self) -> float:
        """The grey level, 0…1, that 5 % of the thumbnail exceed."""
        return float(np.quantile(self.thumbnail, 0.95) / 255)


def flatness(picture: npt.NDArray[np.uint8]) -> float:
    """Return the share of the pixels [H, W] in the fullest of 32 bands of grey levels."""
    return float(np.bincount(picture.ravel() >> 3, minlength=32).max() / picture.size)


def local_features(pixels: Pixels) -> LocalFeatures:
    """Compute the MAX_FEATURES strongest features of a picture [H, W, 3], shrunk to LONGEST_SIDE if it is larger."""
    picture = fit_within(pixels, LONGEST_SIDE)
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    sift = cv2.SIFT.create(nfeatures=MAX_FEATURES, contrastThreshold=CONTRAST)
    points, descriptors = sift.detectAndCompute(gray, None)
    thumbnail = cv2.cvtColor(fit_within(picture, THUMBNAIL_SIDE), cv2.COLOR_RGB2GRAY)
    if descriptors is None or not points:
        points, descriptors = (), np.zeros((0, 128), np.float32)
    order = np.argsort([-point.response for point in points], kind="stable")[:MAX_FEATURES]
    chosen = [points[i] for i in order]
    return LocalFeatures(
        points=np.array([point.pt for point in chosen], np.float32).reshape(-1, 2),
        sizes=np.array([point.size for point in chosen], np.float32),
        angles=np.array([point.angle for point in chosen], np.float32),
        descriptors=_root(np.asarray(descriptors, np.float32)[order]),
        thumbnail=np.asarray(thumbnail, np.uint8),
        colours=np.asarray(cv2.resize(picture, (COLOURS_SIDE, COLOURS_SIDE), interpolation=cv2.INTER_AREA), np.uint8),
        size=(picture.shape[1], picture.shape[0]),
    )


def negative_of(features: LocalFeatures) -> LocalFeatures:
    """Return the features of the negative, without reading it: points stay, and their directions turn about."""
    return replace(
        features, angles=(features.angles + 180) % 360, descriptors=features.descriptors[:, _NEGATIVE],
        thumbnail=255 - features.thumbnail, colours=255 - features.colours,
    )  # fmt: skip


def negative_features(pixels: Pixels) -> LocalFeatures:
    """Compute the features of the negative of a picture [H, W, 3]."""
    return negative_of(local_features(pixels))


def drawn_features(pixels: Pixels) -> LocalFeatures:
    """Compute the features of a photo [H, W, 3] made into a line drawing: black where grey levels change the most.

    The slope is Sobel's, in a picture shrunk to LONGEST_SIDE; DARKEST per cent of the slopes are lighter than black.
    """
    gray = cv2.cvtColor(fit_within(pixels, LONGEST_SIDE), cv2.COLOR_RGB2GRAY).astype(np.float32)
    slope = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    light = 1 - np.clip(slope / max(float(np.percentile(slope, DARKEST)), 1e-3), 0, 1)
    lines = cv2.GaussianBlur((255 * light).astype(np.uint8), (0, 0), SOFT)
    return local_features(np.repeat(lines[:, :, None], 3, axis=2))


def stroke_features(pixels: Pixels) -> LocalFeatures:
    """Compute the features of a drawing [H, W, 3], to be compared with `drawn_features` of a photo."""
    return local_features(np.asarray(cv2.GaussianBlur(fit_within(pixels, LONGEST_SIDE), (0, 0), SOFT), np.uint8))


def _root(descriptors: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Convert to RootSIFT (Arandjelović and Zisserman, CVPR 2012): Euclidean distance becomes the Hellinger kernel."""
    total = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-7)
    return np.asarray(np.rint(np.sqrt(descriptors / total) * 255), np.uint8)


def mirrored(descriptors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rearrange the descriptors [K, 128] to those of the mirrored picture, without reading it."""
    return np.ascontiguousarray(descriptors[:, _MIRROR])
