"""The step of local verification: maps between the pictures of candidate pairs."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.gpu.photo_steps import photos_of
from benchmarks.gpu.rows import Row, Size, seconds_of
from isc.match.verification.affine_fit import best_fit
from isc.match.verification.batched_fit import Fits, best_fits, tf32
from isc.match.verification.feature_rows import FeatureRows
from isc.match.verification.features import MAX_FEATURES, LocalFeatures, local_features
from isc.photos.decode import read_image

CHECKED = 200  # pairs that are compared with the CPU's
TOGETHER = {"cuda": 1024, "cpu": 16}  # pairs at a time


def verify(device: str, size: Size, folder: Path) -> list[Row]:
    """Pairs per second: features to the device, maps on the device, and maps by one core; the same maps or not."""
    queries, references, query, reference = _candidates(size, folder)
    on, together = torch.device(device), TOGETHER[device]
    parts = [slice(start, start + together) for start in range(0, len(query), together)]
    rows = FeatureRows.of(queries, on), FeatureRows.of(references, on)
    found: list[Fits] = []

    def maps() -> None:
        found[:] = [best_fits(*rows, query[part], reference[part]) for part in parts]

    def products() -> None:
        one, other = (
            torch.empty(together, factor * MAX_FEATURES, 128, device=on, dtype=torch.float32) for factor in (2, 1)
        )
        out = torch.empty(together, 2 * MAX_FEATURES, MAX_FEATURES, device=on)
        with tf32():
            for _ in parts:
                torch.bmm(one, other.transpose(1, 2), out=out)

    sent = len(references) / seconds_of(lambda: FeatureRows.of(references, on), repeats=size.repeats)
    alone = len(parts) * together / seconds_of(products, repeats=size.repeats)
    rate = len(query) / seconds_of(maps, repeats=size.repeats)
    checked = min(CHECKED, len(query))
    start = time.perf_counter()
    slow = [best_fit(queries[q], references[r]) for q, r in zip(query[:checked], reference[:checked], strict=True)]
    core = checked / (time.perf_counter() - start)
    fits = Fits.joined(found)
    equal = [
        bool(fits.unsolved[row]) or (0 if one is None else one.inliers) == fits.inliers[row]
        for row, one in enumerate(slow)
    ]
    return [
        Row("features of pictures to the device", sent, "pictures/s"),
        Row("maps by one core", core, "pairs/s"),
        Row("maps on the device", rate, "pairs/s", alone, "products of descriptors alone", all(equal)),
    ]


def _candidates(size: Size, folder: Path) -> tuple[list[LocalFeatures], list[LocalFeatures], np.ndarray, np.ndarray]:
    """Return the features of photos and of cut, turned copies, and pairs of them, a fifth of which show the same."""
    photos = [read_image(path) for path in photos_of(size, folder)[: min(100, size.photos)]]
    references = [local_features(photo) for photo in photos]
    queries = []
    for number, photo in enumerate(photos):
        height, width = photo.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), 7 * number % 40 - 20, 0.8 + number % 5 / 10)
        copy = cv2.warpAffine(photo, turn, (width, height))
        queries.append(local_features(copy[:, ::-1].copy() if number % 4 == 0 else copy))
    count = len(photos)
    pairs = np.array([(i, (i + step) % count) for i in range(count) for step in range(min(5, count))])
    repeats = max(1, size.queries // 10 // len(pairs))
    query, reference = np.tile(pairs, (repeats, 1)).T
    return queries, references, np.ascontiguousarray(query), np.ascontiguousarray(reference)
