"""Batches of decoded photos, made in the processes of the loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from isc.errors import InputError
from isc.extract.blocks import Block
from isc.extract.gpu_jpeg import Jpeg, decoded
from isc.extract.loaders import loader_options
from isc.extract.view_plan import ViewPlan
from isc.photos.decode import Pixels, jpeg_orientation, read_bytes, read_image
from isc.photos.views import Region

Rows = Sequence[int] | npt.NDArray[np.int64]
Item = TypeVar("Item")


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
class Batch:
    """The network's input from some photos.

    `pictures` holds uint8 [P, V, 3, S, S] for each of `sides`, `rows` the numbers of the P photos, `failures` {number:
    reason} the unreadable photos, `jpegs` {number: file} the files for a GPU to decode, and `regions` float64 [P, K, 4]
    the regions proposed for each photo, if requested.
    """

    pictures: list[Tensor]
    rows: list[int]
    failures: dict[int, str]
    jpegs: dict[int, Jpeg] = field(default_factory=dict)
    regions: npt.NDArray[np.float64] | None = None

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory, for copies to the GPU without waiting; the loader calls this."""
        return replace(self, pictures=[part.pin_memory() for part in self.pictures])


def read_batch(photos: PhotoSource, rows: Iterable[int], view_plan: ViewPlan, *, jpegs: bool = False) -> Batch:
    """Read the photos of these numbers as input of the network; with `jpegs`, JPEG files stay encoded."""
    shown: dict[int, list[Pixels]] = {}
    failures: dict[int, str] = {}
    files: dict[int, Jpeg] = {}
    found: list[list[Region]] = []
    for row in map(int, rows):
        try:
            if jpegs and (orientation := jpeg_orientation(data := photos.data(row))):
                files[row] = Jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), orientation)
            else:
                picture = photos.read(row)
                views = view_plan.views_of(picture)
                shown[row] = view_plan.pictures(picture, views)
                found.append([view.region for view, asked in zip(views, view_plan.views, strict=True) if asked.found])
        except InputError as error:
            failures[row] = str(error)
    pictures = [torch.from_numpy(np.stack(part)).permute(0, 1, 4, 2, 3) for part in zip(*shown.values(), strict=True)]
    regions = np.array(found, np.float64).reshape(len(shown), view_plan.regions, 4) if view_plan.regions else None
    return Batch(pictures, list(shown), failures, files, regions)


def with_jpegs(batch: Batch, photos: PhotoSource, view_plan: ViewPlan, device: torch.device) -> Batch:
    """Return the batch with its JPEGs decoded on the device; those that cannot be are read like other photos."""
    if not batch.jpegs:
        return batch
    found = dict(zip(batch.jpegs, decoded(list(batch.jpegs.values()), view_plan.image_size, device), strict=True))
    others = read_batch(photos, [row for row, picture in found.items() if picture is None], view_plan)
    there = {row: picture for row, picture in found.items() if picture is not None}
    parts = [part[0][:, 0].to(device) for part in (batch.pictures, others.pictures) if part]
    pictures = torch.cat([*parts, *(picture[None] for picture in there.values())]) if parts or there else None
    rows = [*batch.rows, *others.rows, *there]
    order = np.argsort(rows)
    if pictures is None:
        return Batch([], [], batch.failures | others.failures)
    ordered = pictures[torch.from_numpy(order).to(device)][:, None]
    return Batch([ordered], [rows[at] for at in order], batch.failures | others.failures)


class BatchDataset(Dataset[Batch]):
    """Dataset of batches of pictures, made in the processes of the loader."""

    def __init__(self, photos: PhotoSource, rows: Rows, view_plan: ViewPlan, *, size: int, jpegs: bool = False) -> None:
        self.photos, self.rows, self.view_plan, self.size, self.jpegs = photos, rows, view_plan, size, jpegs

    def __len__(self) -> int:
        return (len(self.rows) + self.size - 1) // self.size

    def __getitem__(self, number: int) -> Batch:
        rows = self.rows[number * self.size : (number + 1) * self.size]
        return read_batch(self.photos, rows, self.view_plan, jpegs=self.jpegs)


def in_order(dataset: Dataset[Item], workers: int) -> Iterator[Item]:
    """Yield the items of the dataset, in order, from `workers` processes. Raises InputError if a process dies."""
    options = loader_options(min(workers, len(dataset)))  # type: ignore[arg-type]  # both have a length
    loader = DataLoader(dataset, batch_size=None, collate_fn=lambda item: item, **options)
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            f"a process that reads photos ended ({error}); with too little memory? Try fewer workers=, and run the "
            "same command again"
        ) from error


def padded(pictures: Tensor, size: int) -> Tensor:
    """Pad [B, …] with black pictures to [size, …]."""
    missing = size - len(pictures)
    return torch.cat([pictures, pictures.new_zeros(missing, *pictures.shape[1:])]) if missing else pictures


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
