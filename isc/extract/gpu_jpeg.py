"""JPEGs for a GPU, which shrinks them by batches of one size: decoded there, or by libjpeg-turbo on the way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from isc.extract.batches import Jpeg, Leave
from isc.photos.decode import jpeg_orientation

QUARTERS = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}  # EXIF orientation → quarter turns counter-clockwise, after mirroring
MIRRORED = {2, 4, 5, 7}  # EXIF orientations mirrored left to right
LARGEST = 2 << 20  # pixels of a picture that goes to the GPU in full size: a larger one is shrunk by its core
SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of a JPEG that hold its size


def encoded(data: bytes) -> Jpeg | None:
    """Return a JPEG as it is, for a GPU to decode; None for any other file."""
    orientation = jpeg_orientation(data)
    return Jpeg(data, orientation) if orientation else None


def in_full_size(side: int) -> Leave:
    """Return a function that decodes a JPEG for a GPU to shrink to `side`; None for files better read by a core."""
    return partial(_in_full_size, side)


def _in_full_size(side: int, data: bytes) -> Jpeg | None:
    orientation, size = jpeg_orientation(data), jpeg_size(data)
    if not orientation or size is None or min(size) < side or size[0] * size[1] > LARGEST:
        return None
    try:
        pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError:  # a core's decoder says what is wrong with it
        return None
    return Jpeg(pixels.numpy().tobytes(), orientation, (int(pixels.shape[1]), int(pixels.shape[2])))


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width of a JPEG, as its header says; None if it says nothing."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        if data[at + 1] in SIZES:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def pictures_of(files: Sequence[Tensor], jpegs: Sequence[Jpeg], side: int, device: torch.device) -> list[Tensor | None]:
    """Return the pictures of these files, uint8 [L], on the device: upright, squeezed to uint8 [3, side, side].

    A file of full size holds its pixels; the others are decoded here. The result is None for a file that cannot be
    decoded on the device, or is smaller than `side`.
    """
    found: list[Tensor | None] = [None] * len(files)
    for place, (file, jpeg) in enumerate(zip(files, jpegs, strict=True)):
        if jpeg.size is not None:
            found[place] = file.view(3, *jpeg.size)
    waiting = [place for place, jpeg in enumerate(jpegs) if jpeg.size is None]
    for place, picture in zip(waiting, _decoded([files[place] for place in waiting], device), strict=True):
        found[place] = picture
    turned = [
        None if picture is None else upright(picture, jpeg.orientation)
        for picture, jpeg in zip(found, jpegs, strict=True)
    ]
    return shrunk_by_size(turned, side)


def decoded(
    files: Sequence[Tensor], orientations: Sequence[int], side: int, device: torch.device
) -> list[Tensor | None]:
    """Decode each file, uint8 [L], to uint8 [3, side, side] on the device, squeezed to a square and upright.

    `orientations` are the files' EXIF orientations, 1…8. The result is None for a file that cannot be decoded there,
    or is smaller than `side`.
    """
    return pictures_of(files, [Jpeg(b"", orientation) for orientation in orientations], side, device)


def _decoded(files: list[Tensor], device: torch.device) -> list[Tensor | None]:
    """Decode files to uint8 [3, H, W] on the device; None for one that cannot be decoded."""
    if not files:
        return []
    try:
        found: list[Tensor | None] = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
    except RuntimeError:  # any of the files may be the cause
        if len(files) == 1:
            return [None]
        half = len(files) // 2
        return _decoded(files[:half], device) + _decoded(files[half:], device)
    return found


def upright(picture: Tensor, orientation: int) -> Tensor:
    """Return the picture [C, H, W] mirrored and turned by its EXIF orientation."""
    mirrored = picture.flip(2) if orientation in MIRRORED else picture
    return torch.rot90(mirrored, QUARTERS.get(orientation, 0), (1, 2))


def shrunk_by_size(pictures: Sequence[Tensor | None], side: int) -> list[Tensor | None]:
    """Shrink pictures uint8 [C, H, W] to [C, side, side], those of one size together; None for smaller ones."""
    found: list[Tensor | None] = [None] * len(pictures)
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pictures):
        if picture is not None and min(picture.shape[1:]) >= side:
            sizes.setdefault(tuple(picture.shape), []).append(place)
    for places in sizes.values():
        together = torch.stack([picture for place in places if (picture := pictures[place]) is not None])
        for place, small in zip(places, shrunk(together, side), strict=True):
            found[place] = small
    return found


def shrunk(pictures: Tensor, side: int) -> Tensor:
    """Shrink uint8 […, H, W] to uint8 […, side, side]: each pixel is the mean of the area that it covers.

    H and W are at least `side`. Except for rounding, the result is that of `isc.photos.resizing.resize`.
    """
    down, across = (area_weights(length, side, pictures.device) for length in pictures.shape[-2:])
    return (down @ pictures.float() @ across.T).round().clamp(0, 255).to(torch.uint8)


def area_weights(length: int, side: int, device: torch.device) -> Tensor:
    """Return [side, length]: row i holds the share of each of `length` pixels in the i-th of `side` equal parts."""
    edges = torch.arange(side + 1, dtype=torch.float64, device=device) * (length / side)
    pixels = torch.arange(length, dtype=torch.float64, device=device)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (overlap.clamp(min=0) * (side / length)).float()
