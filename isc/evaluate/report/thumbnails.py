"""The thumbnails of a page, small enough to be embedded in it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from isc.errors import InputError

LONGEST = 224  # pixels of a picture's longest side
MAX_JPEG = 8_000  # bytes of a picture; five sheets of 24 pairs then stay below 3 MB


class Evidence(Protocol):
    """The matching regions of a pair: polygons [K, 2] of (x, y) as fractions of the picture's width and height."""

    @property
    def query_region(self) -> npt.NDArray[np.float64]: ...
    @property
    def reference_region(self) -> npt.NDArray[np.float64]: ...
    @property
    def inliers(self) -> int: ...


@dataclass(frozen=True)
class Pictures:
    """The image files of queries and references, by id."""

    queries: Mapping[str, Path]
    references: Mapping[str, Path]


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, or the reason for its absence."""

    uri: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


def picture_maker(pictures: Pictures) -> Callable[[str, str, int], Thumbnail]:
    """Return a function from ("query" or "reference", id, longest side) to a thumbnail, which it makes once."""
    files = {"query": pictures.queries, "reference": pictures.references}
    return cache(lambda side, name, longest: thumbnail(files[side].get(name), longest))


def thumbnail(path: Path | None, longest: int) -> Thumbnail:
    """Return the picture at most `longest` pixels wide and high, as JPEG of quality 80, or less if too large."""
    from isc.photos.decode import read_image

    if path is None:
        return Thumbnail(reason="no image file has this id")
    try:
        return thumbnail_of(read_image(path), longest)
    except InputError as error:
        return Thumbnail(reason=str(error).replace(str(path), path.name))


def thumbnail_of(picture: npt.NDArray[np.uint8], longest: int) -> Thumbnail:
    """Return a picture [H, W, 3] RGB as `thumbnail` does."""
    from isc.photos.decode import encode_jpeg
    from isc.photos.resizing import fit_within

    pixels = fit_within(picture, longest)
    jpegs = (encode_jpeg(pixels, quality=quality) for quality in (80, 60, 40, 20))
    data = next((jpeg for jpeg in jpegs if len(jpeg) <= MAX_JPEG), None) or encode_jpeg(pixels, quality=10)
    uri = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    return Thumbnail(uri, width=pixels.shape[1], height=pixels.shape[0])
