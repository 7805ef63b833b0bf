"""Photos → descriptors, as fast as the machine reads photos or runs the network, whichever is slower.

On a CPU every worker process reads photos and embeds them itself, on one core, a few at a time: nothing but descriptors
is sent, and every group has the same shape, so that a descriptor does not depend on batches, workers or neighbours, to
the bit. Before a GPU the workers read, and send pictures in pinned memory that are copied while the batch before them
is embedded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from isc.blocks import Block
from isc.config import Combine
from isc.data import loader_options, worker_count
from isc.device import one_thread
from isc.errors import InputError
from isc.gpu_jpeg import Jpeg, decoded
from isc.images import Pixels, jpeg_orientation, read_bytes, read_image, resize
from isc.matching.proposals import propose
from isc.network import Network
from isc.progress import progress
from isc.views import Region, View, parse_views, placed

ITEM = 8  # photos that a worker process is given at a time
LARGEST_BATCH = 256  # pictures on a GPU: more make nothing faster
PROBE = 8  # pictures that show how much memory one takes
USED = 0.6  # share of a GPU's free memory that a batch may take

Rows = Sequence[int] | npt.NDArray[np.int64]
Item = TypeVar("Item")


@runtime_checkable
class PhotoSource(Protocol):
    """Photos by number; `isc.sources.Listing` is one."""

    def __len__(self) -> int: ...

    def data(self, row: int) -> bytes:
        """The bytes of the photo's file; InputError where they cannot be read."""
        ...

    def read(self, row: int) -> Pixels:
        """The picture; InputError where it cannot be read."""
        ...


@dataclass(frozen=True)
class Files:
    """Photos in files of their own."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def data(self, row: int) -> bytes:
        return read_bytes(self.paths[row])

    def read(self, row: int) -> Pixels:
        return read_image(self.paths[row])


@dataclass(frozen=True)
class Looks:
    """How each photo is looked at: the views, the network's input size in pixels, and what becomes of the views."""

    image_size: int
    views: tuple[View, ...] = parse_views("whole")
    combine: Combine = Combine.average

    @property
    def rows(self) -> int:
        """Descriptors of each photo."""
        return len(self.views) if self.combine is Combine.rows else 1

    @property
    def sides(self) -> dict[int, list[int]]:
        """Which views are shown to the network at which size, in pixels."""
        found: dict[int, list[int]] = {}
        for number, view in enumerate(self.views):
            found.setdefault(view.side(self.image_size), []).append(number)
        return found

    @property
    def regions(self) -> int:
        """Views whose region is looked for in each photo."""
        return sum(view.found > 0 for view in self.views)

    def views_of(self, picture: Pixels) -> tuple[View, ...]:
        """The views of a photo [H, W, 3], its regions among them."""
        return placed(self.views, propose(picture, count=self.regions)) if self.regions else self.views

    def pictures(self, picture: Pixels, views: Sequence[View]) -> list[Pixels]:
        """What the network is shown of a photo [H, W, 3] by its own views: for each of the `sides` [V, S, S, 3]."""
        return [
            np.stack([resize(views[number].pixels(picture), side) for number in numbers])
            for side, numbers in self.sides.items()
        ]

    def combined(self, found: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Descriptors of P photos, for each of the `sides` [P, V, D], → [P, rows, D] in the order of the views."""
        order = np.argsort(list(itertools.chain.from_iterable(self.sides.values())))
        vectors: npt.NDArray[np.float32] = np.concatenate(found, axis=1)[:, order]
        if self.rows == vectors.shape[1]:
            return vectors
        mean: npt.NDArray[np.float32] = vectors.mean(axis=1, keepdims=True)
        mean /= np.maximum(np.linalg.norm(mean, axis=2, keepdims=True), np.finfo(np.float32).tiny)
        return mean


@dataclass(frozen=True)
class Batch:
    """Photos on their way to the network: for each of the `sides` uint8 [P, V, 3, S, S], the numbers of the P photos,
    and {number: reason} of those that cannot be read. `jpegs` are files, by number, that a GPU is to decode; `regions`
    float64 [P, K, 4] are those found in each photo, where any are asked for."""

    pictures: list[Tensor]
    rows: list[int]
    failures: dict[int, str]
    jpegs: dict[int, Jpeg] = field(default_factory=dict)
    regions: npt.NDArray[np.float64] | None = None

    def pin_memory(self) -> Batch:
        """The loader calls this, so that copies to the GPU need not wait."""
        return replace(self, pictures=[part.pin_memory() for part in self.pictures])


# --- reading ---------------------------------------------------------------------------------------------------------


def read_batch(photos: PhotoSource, rows: Iterable[int], looks: Looks, *, jpegs: bool = False) -> Batch:
    """The photos of these numbers, as the network is to see them; with `jpegs`, JPEGs as they are."""
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
                views = looks.views_of(picture)
                shown[row] = looks.pictures(picture, views)
                found.append([view.region for view, asked in zip(views, looks.views, strict=True) if asked.found])
        except InputError as error:
            failures[row] = str(error)
    pictures = [torch.from_numpy(np.stack(part)).permute(0, 1, 4, 2, 3) for part in zip(*shown.values(), strict=True)]
    regions = np.array(found, np.float64).reshape(len(shown), looks.regions, 4) if looks.regions else None
    return Batch(pictures, list(shown), failures, files, regions)


def with_jpegs(batch: Batch, photos: PhotoSource, looks: Looks, device: torch.device) -> Batch:
    """The same batch with its JPEGs decoded on the device; those that cannot be are read as other photos are."""
    if not batch.jpegs:
        return batch
    found = dict(zip(batch.jpegs, decoded(list(batch.jpegs.values()), looks.image_size, device), strict=True))
    others = read_batch(photos, [row for row, picture in found.items() if picture is None], looks)
    there = {row: picture for row, picture in found.items() if picture is not None}
    parts = [part[0][:, 0].to(device) for part in (batch.pictures, others.pictures) if part]
    pictures = torch.cat([*parts, *(picture[None] for picture in there.values())]) if parts or there else None
    rows = [*batch.rows, *others.rows, *there]
    order = np.argsort(rows)
    if pictures is None:
        return Batch([], [], batch.failures | others.failures)
    ordered = pictures[torch.from_numpy(order).to(device)][:, None]
    return Batch([ordered], [rows[at] for at in order], batch.failures | others.failures)


class _Batches(Dataset[Batch]):
    """Batches of pictures, made by the loader's processes."""

    def __init__(self, photos: PhotoSource, rows: Rows, looks: Looks, *, size: int, jpegs: bool = False) -> None:
        self.photos, self.rows, self.looks, self.size, self.jpegs = photos, rows, looks, size, jpegs

    def __len__(self) -> int:
        return (len(self.rows) + self.size - 1) // self.size

    def __getitem__(self, number: int) -> Batch:
        rows = self.rows[number * self.size : (number + 1) * self.size]
        return read_batch(self.photos, rows, self.looks, jpegs=self.jpegs)


class _Blocks(Dataset[Block | InputError]):
    """Descriptors, made by the loader's processes, one core each. What ends the run comes as it is: raised in another
    process, it would come wrapped in the story of that process."""

    def __init__(self, batches: _Batches, network: Network) -> None:
        self.batches, self.network = batches, network

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Block | InputError:
        try:
            return embed_batch(self.network, self.batches[number], self.batches.looks)
        except InputError as error:
            return error


def _loader(dataset: Dataset[Item], workers: int) -> Iterator[Item]:
    """What the dataset holds, in order."""
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


# --- embedding -------------------------------------------------------------------------------------------------------


def embed_photos(
    network: Network,
    photos: PhotoSource,
    rows: Rows,
    *,
    looks: Looks,
    batch_size: int | None = None,
    workers: int = 0,
    gpu_jpeg: bool = False,
) -> Iterator[Block]:
    """Descriptors of the photos of these numbers, in their order, a few at a time as they are made.

    `workers` processes read the photos, −1 for one a core; 0 stays in this process. `batch_size` photos are embedded at
    once on a GPU, which with `gpu_jpeg` decodes JPEGs.
    """
    if network.device.type == "cuda":
        size = batch_size or fitting_batch(network, looks)
        batches = _Batches(photos, rows, looks, size=size, jpegs=gpu_jpeg)
        yield from _beside_gpu(network, batches, workers=worker_count(workers))
        return
    blocks = _Blocks(_Batches(photos, rows, looks, size=ITEM), network)
    for block in _loader(blocks, worker_count(workers, most=None)):
        if isinstance(block, InputError):
            raise block
        yield block


def embed_batch(network: Network, batch: Batch, looks: Looks) -> Block:
    """Descriptors of one batch on a CPU, by one thread, in groups of one size."""
    found = [_in_groups(network, part) for part in batch.pictures]
    return _block(batch, found, looks, network.dim)


def _in_groups(network: Network, pictures: Tensor) -> npt.NDArray[np.float32]:
    """uint8 [P, V, 3, S, S] → float32 [P, V, D]. The last group is filled up: kernels of another shape would round
    otherwise."""
    flat = pictures.flatten(0, 1)
    size = network.group(flat.shape[-1])
    with one_thread():
        found = [network(_filled(flat[start : start + size], size)) for start in range(0, len(flat), size)]
    vectors: npt.NDArray[np.float32] = torch.cat(found)[: len(flat)].numpy()
    return vectors.reshape(*pictures.shape[:2], -1)


def _filled(pictures: Tensor, size: int) -> Tensor:
    """[B, …] with black pictures up to [size, …]."""
    missing = size - len(pictures)
    return torch.cat([pictures, pictures.new_zeros(missing, *pictures.shape[1:])]) if missing else pictures


def _block(batch: Batch, found: Sequence[npt.NDArray[np.float32]], looks: Looks, dim: int) -> Block:
    """Refuses descriptors that are not finite, which no photo should give."""
    vectors = looks.combined(found) if batch.rows else np.zeros((0, looks.rows, dim), np.float32)
    finite = np.isfinite(vectors).all(axis=(1, 2))
    if not finite.all():
        raise InputError(
            f"photo {batch.rows[int(np.argmin(finite))]}: the network gives NaN or infinite numbers; expected finite: "
            "try precision=float32, or another model"
        )
    return Block(np.array(batch.rows, np.int64), vectors, batch.failures, batch.regions)


# --- a GPU -----------------------------------------------------------------------------------------------------------


def _beside_gpu(network: Network, batches: _Batches, *, workers: int) -> Iterator[Block]:
    """While one batch is embedded the next is copied there, and the one before comes back."""
    waiting: tuple[Batch, list[Tensor], torch.cuda.Event | None] | None = None
    copies = torch.cuda.Stream() if network.device.type == "cuda" else None  # type: ignore[no-untyped-call]
    for read in _loader(batches, workers):
        batch = with_jpegs(read, batches.photos, batches.looks, network.device)
        started = _start(network, batch, batches.size, copies)
        if waiting:
            yield _finished(waiting, batches.looks, network.dim)
        waiting = started
    if waiting:
        yield _finished(waiting, batches.looks, network.dim)


def _start(
    network: Network, batch: Batch, size: int, copies: torch.cuda.Stream | None
) -> tuple[Batch, list[Tensor], torch.cuda.Event | None]:
    """Queue the copy there, the network, and the copy back; nothing is waited for."""
    found = []
    for part in batch.pictures:
        views = part.shape[1]
        pictures = _filled(_copied(part.flatten(0, 1), network.device, copies), size * views)  # one shape: one graph
        vectors = network(pictures)[: len(part) * views].reshape(len(part), views, -1)
        here = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=copies is not None)
        found.append(here.copy_(vectors, non_blocking=True))
    if copies is None:
        return batch, found, None
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record()
    return batch, found, done


def _copied(pictures: Tensor, device: torch.device, copies: torch.cuda.Stream | None) -> Tensor:
    """The pictures on the device, by a stream of their own, which the network's waits for."""
    if copies is None:
        return pictures.to(device)
    with torch.cuda.stream(copies):
        there = pictures.to(device, non_blocking=True)
    torch.cuda.current_stream().wait_stream(copies)
    there.record_stream(torch.cuda.current_stream())
    return there


def _finished(waiting: tuple[Batch, list[Tensor], torch.cuda.Event | None], looks: Looks, dim: int) -> Block:
    batch, found, done = waiting
    if done is not None:
        done.synchronize()
    return _block(batch, [part.numpy() for part in found], looks, dim)


def fitting_batch(network: Network, looks: Looks) -> int:
    """Photos whose views, all at once, take at most `USED` of the GPU's free memory; a power of two, and no more than
    `LARGEST_BATCH` pictures."""
    side, views = max(looks.sides), max(len(numbers) for numbers in looks.sides.values())
    plain = replace(network, forward=network.plain or network.forward)  # a compiler would learn shapes that do not come
    needed = [_peak(plain, count, side) for count in (PROBE, 2 * PROBE)]
    each = max(1, (needed[1] - needed[0]) // PROBE)
    free, _ = torch.cuda.mem_get_info(network.device)
    most = min(LARGEST_BATCH, int(USED * free / each)) // views
    return 1 << (max(1, most).bit_length() - 1)


def _peak(network: Network, count: int, side: int) -> int:
    """Bytes that so many pictures take on the GPU at the most."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(network.device)
    before = torch.cuda.memory_allocated(network.device)
    network(torch.zeros(count, 3, side, side, dtype=torch.uint8, device=network.device))
    torch.cuda.synchronize(network.device)
    return torch.cuda.max_memory_allocated(network.device) - before


# --- all at once -----------------------------------------------------------------------------------------------------


def embed(
    network: Network,
    photos: PhotoSource | Sequence[Path],
    *,
    image_size: int | None = None,
    batch_size: int | None = None,
    workers: int = 0,
) -> tuple[npt.NDArray[np.float32], dict[int, str]]:
    """Descriptors float32 [N, D] of unit length of N photos, and {row: reason} of those that cannot be read, whose rows
    are zero."""
    source = photos if isinstance(photos, PhotoSource) else Files(photos)
    vectors, failures = np.zeros((len(photos), network.dim), np.float32), dict[int, str]()
    looks, done = Looks(image_size or network.image_size), 0
    with progress("extracting", "photos") as report:
        for block in embed_photos(
            network, source, range(len(photos)), looks=looks, batch_size=batch_size, workers=workers
        ):
            vectors[block.rows] = block.vectors[:, 0]
            failures |= block.failures
            done += len(block.rows) + len(block.failures)
            report(done, len(photos))
    return vectors, failures
