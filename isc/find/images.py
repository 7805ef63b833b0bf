"""Pictures of any usual form as pixels: paths, PIL images, numpy arrays and torch tensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from isc.errors import InputError
from isc.photos.decode import Pixels, pixels_of_pillow, read_image

TAKEN = "a path, a PIL image, a uint8 array [H, W, 3], or a tensor [3, H, W] of uint8 or of floats 0…1"


def as_pixels(image: Any, *, name: str = "image") -> Pixels:
    """Return the picture as uint8 [H, W, 3] RGB.

    Raises TypeError for an object that is no picture, and InputError for a file that cannot be read, another layout,
    or floats outside 0…1. `name` is the name of the picture in messages.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image))
    kind = type(image)
    module = kind.__module__.partition(".")[0]
    if isinstance(image, np.ndarray):
        return _of_array(image, name)
    if module == "PIL" or any(base.__module__.startswith("PIL.") for base in kind.__mro__):
        return pixels_of_pillow(image, name)
    if module == "torch" and hasattr(image, "detach"):
        return _of_tensor(image, name)
    raise TypeError(f"{name} is of type {module}.{kind.__qualname__}; expected {TAKEN}")


def _of_array(array: np.ndarray[Any, Any], name: str) -> Pixels:
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        raise InputError(f"{name}: array of shape {array.shape}; expected [H, W, 3]: transpose(1, 2, 0) turns it")
    if array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InputError(f"{name}: array of shape {array.shape}; expected [H, W, 3], RGB")
    if array.dtype != np.uint8:
        raise InputError(f"{name}: array of type {array.dtype}; expected uint8, 0…255")
    return np.ascontiguousarray(array)


def _of_tensor(tensor: Any, name: str) -> Pixels:
    array = tensor.detach().cpu().numpy()
    if array.ndim != 3 or array.shape[0] != 3 or not array.size:
        raise InputError(f"{name}: tensor of shape {tuple(array.shape)}; expected [3, H, W], RGB")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array.transpose(1, 2, 0))
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name}: tensor of type {tensor.dtype}; expected uint8, or floats 0…1")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):
        raise InputError(f"{name}: tensor with values {low:.4g}…{high:.4g}; expected floats 0…1, not normalised")
    return np.ascontiguousarray((array.transpose(1, 2, 0) * 255).round().astype(np.uint8))
