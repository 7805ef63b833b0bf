"""The local features of many pictures as tensors on one device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from isc.match.verification.features import MAX_FEATURES, LocalFeatures

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class FeatureRows:
    """The features of N pictures on a device, padded to MAX_FEATURES = K rows.

    descriptors uint8 [N, K, 128]; points [N, K, 2], angles in radians [N, K], sizes [N, K], all float64; number [N] of
    real features; extent [N, 2], width and height in pixels.
    """

    descriptors: Tensor
    points: Tensor
    angles: Tensor
    sizes: Tensor
    number: Tensor
    extent: Tensor

    @classmethod
    def of(cls, pictures: Sequence[LocalFeatures], device: torch.device) -> FeatureRows:
        """Copy the features of pictures to the device, a copy for each of the six arrays."""
        import torch

        count = len(pictures)
        descriptors = np.zeros((count, MAX_FEATURES, 128), np.uint8)
        places = np.zeros((count, MAX_FEATURES, 4), np.float64)
        for row, one in enumerate(pictures):
            descriptors[row, : len(one)] = one.descriptors
            places[row, : len(one), :2] = one.points
            places[row, : len(one), 2] = np.radians(one.angles.astype(np.float64))
            places[row, : len(one), 3] = one.sizes
        number = np.array([len(one) for one in pictures], np.int64)
        extent = np.array([one.size for one in pictures], np.float64).reshape(-1, 2)

        def there(values: npt.NDArray[np.generic]) -> Tensor:
            host = torch.from_numpy(values)
            return (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)

        features = there(places)
        return cls(
            there(descriptors), features[..., :2], features[..., 2], features[..., 3], there(number), there(extent)
        )
