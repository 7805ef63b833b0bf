"""Batches of decoded photos, as input of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from isc.errors import InputError
from isc.extract.blocks import Block
from isc.extract.view_plan import ViewPlan
from isc.photos.decode import Pixels, read_bytes, read_image
from isc.photos.views import Region

Rows = Sequence[int] | npt.NDArray[np.int64]
Pictures = npt.NDArray[np.uint8]


@runtime_checkable
class PhotoSource(Protocol):
    """Photos by number; `isc.photos.listing.Listing` is one."""

    def __len__(self) -> int: ...

    def data(self, row: int) -> bytes:
        """Return the bytes of the photo's file. Raises InputError if they cannot be read."""
        ...

    def read(self, row: int) -> Pixels:
        """Return the picture. Raises InputError if it cannot be read."""
        ...


@dataclass(frozen=True)
class Files:
    """Photos in separate files."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def data(self, row: int) -> bytes:
        return read_bytes(self.paths[row])

    def read(self, row: int) -> Pixels:
        return read_image(self.paths[row])


@dataclass(frozen=True)
class Jpeg:
    """A file for a GPU: its bytes, or its pixels uint8 [3, H, W] of `size` (H, W), and its EXIF orientation, 1…8."""

    data: bytes
    orientation: int
    size: tuple[int, int] | None = None


Leave = Callable[[bytes], Jpeg | None]


@dataclass(frozen=True)
class Subset:
    """The photos of some rows of a source, numbered from 0 in the order of `rows`."""

    photos: PhotoSource
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def data(self, row: int) -> bytes:
        return self.photos.data(self.rows[row])

    def read(self, row: int) -> Pixels:
        return self.photos.read(self.rows[row])


@dataclass(frozen=True)
class Batch:
    """The network's input from some photos.

    `pictures` holds uint8 [P, V, 3, S, S] for each of `sides`, `rows` the numbers of the P photos, `failures` {number:
    reason} the unreadable photos, `jpegs` {number: file} the files for a GPU to go on with, and `regions` float64
    [P, K, 4] the regions proposed for each photo, if requested.
    """

    pictures: list[Pictures]
    rows: list[int]
    failures: dict[int, str]
    jpegs: dict[int, Jpeg] = field(default_factory=dict)
    regions: npt.NDArray[np.float64] | None = None


def read_batch(photos: PhotoSource, rows: Iterable[int], view_plan: ViewPlan, *, leave: Leave | None = None) -> Batch:
    """Read the photos of these numbers as input of the network; `leave` takes the files that a GPU goes on with."""
    shown: dict[int, list[Pixels]] = {}
    failures: dict[int, str] = {}
    files: dict[int, Jpeg] = {}
    found: list[list[Region]] = []
    for row in map(int, rows):
        try:
            if leave is not None and (left := leave(photos.data(row))) is not None:
                files[row] = left
            else:
                picture = photos.read(row)
                views = view_plan.views_of(picture)
                shown[row] = view_plan.pictures(picture, views)
                found.append([view.region for view, asked in zip(views, view_plan.views, strict=True) if asked.found])
        except InputError as error:
            failures[row] = str(error)
    pictures = [np.stack(part).transpose(0, 1, 4, 2, 3) for part in zip(*shown.values(), strict=True)]
    regions = np.array(found, np.float64).reshape(len(shown), view_plan.regions, 4) if view_plan.regions else None
    return Batch(pictures, list(shown), failures, files, regions)


def finite_block(batch: Batch, found: Sequence[npt.NDArray[np.float32]], view_plan: ViewPlan, dim: int) -> Block:
    """Return the batch's descriptors as a block. Raises InputError if one is not finite."""
    vectors = view_plan.combined(found) if batch.rows else np.zeros((0, view_plan.rows, dim), np.float32)
    finite = np.isfinite(vectors).all(axis=(1, 2))
    if not finite.all():
        raise InputError(
            f"photo {batch.rows[int(np.argmin(finite))]}: the network gives NaN or infinite numbers; expected finite: "
            "try precision=float32, or another model"
        )
    return Block(np.array(batch.rows, np.int64), vectors, batch.failures, batch.regions)
