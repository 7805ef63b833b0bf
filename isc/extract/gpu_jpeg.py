"""JPEG decoding and resizing on a GPU, for machines whose cores are slower than the GPU's decoder."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

QUARTERS = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}  # EXIF orientation → quarter turns counter-clockwise, after mirroring
MIRRORED = {2, 4, 5, 7}  # EXIF orientations mirrored left to right


def decoded(
    files: Sequence[Tensor], orientations: Sequence[int], side: int, device: torch.device
) -> list[Tensor | None]:
    """Decode each file, uint8 [L], to uint8 [3, side, side] on the device, squeezed to a square and upright.

    `orientations` are the files' EXIF orientations, 1…8. The result is None for a file that cannot be decoded there,
    or is smaller than `side`.
    """
    try:
        pictures = decode_jpeg(list(files), mode=ImageReadMode.RGB, device=device)
    except RuntimeError:  # any of the files may be the cause
        if len(files) == 1:
            return [None]
        half = len(files) // 2
        parts = (slice(half), slice(half, None))
        return [one for part in parts for one in decoded(files[part], orientations[part], side, device)]
    return [
        shrunk(upright(picture, orientation), side) if min(picture.shape[1:]) >= side else None
        for picture, orientation in zip(pictures, orientations, strict=True)
    ]


def upright(picture: Tensor, orientation: int) -> Tensor:
    """Return the picture [C, H, W] mirrored and turned by its EXIF orientation."""
    mirrored = picture.flip(2) if orientation in MIRRORED else picture
    return torch.rot90(mirrored, QUARTERS.get(orientation, 0), (1, 2))


def shrunk(picture: Tensor, side: int) -> Tensor:
    """Shrink uint8 [C, H, W] to uint8 [C, side, side]: each pixel is the mean of the area that it covers.

    H and W are at least `side`. Except for rounding, the result is that of `isc.photos.resizing.resize`.
    """
    down, across = (area_weights(length, side, picture.device) for length in picture.shape[1:])
    return (down @ picture.float() @ across.T).round().clamp(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=256)  # photos of one camera have one size
def area_weights(length: int, side: int, device: torch.device) -> Tensor:
    """Return [side, length]: row i holds the share of each of `length` pixels in the i-th of `side` equal parts."""
    edges = torch.arange(side + 1, dtype=torch.float64) * (length / side)
    pixels = torch.arange(length, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (overlap.clamp(min=0) * (side / length)).float().to(device)
