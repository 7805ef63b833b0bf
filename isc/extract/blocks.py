"""An extraction on its way: the finished blocks of photos, in a folder beside the file that they will become.

    run.json        what the run is: of which photos, by which model, how treated
    run.lock        held by the process that leads the run
    00000012.npz    block 12: the photos 12 · size … 13 · size − 1, in the order of their ids

A block is whole or absent, so a run that was killed goes on with those that are missing, and it does not matter which
process, on which machine, made which block.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.data.files import atomic_path, write_json
from isc.errors import InputError
from isc.runtime.locks import sole_writer

RUN, LOCK = "run.json", "run.lock"
LEAST, MOST = 256, 16_384  # photos in a block: what a kill may cost, and what keeps a folder of millions small
FEW = 1024  # blocks of a run that is neither small nor large
SPARE = 64 << 20  # bytes that a disk should have left


@dataclass(frozen=True)
class Block:
    """What became of some photos: `vectors` float32 [P, V, D], V rows for each of the P that could be read, whose
    numbers in the run are `rows` int64 [P], ascending; `failures` {number: reason} of the others; `regions` float64
    [P, K, 4] of those that regions:K found in each photo, None where it was not asked for."""

    rows: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    failures: Mapping[int, str]
    regions: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.vectors.ndim != 3 or len(self.rows) != len(self.vectors):
            raise ValueError(f"{len(self.rows)} rows for vectors of shape {self.vectors.shape}; expected [P, V, D]")
        if self.regions is not None and (self.regions.shape[2:] != (4,) or len(self.regions) != len(self.rows)):
            raise ValueError(f"regions of shape {self.regions.shape} for {len(self.rows)} photos; expected [P, K, 4]")

    def part(self, chosen: npt.NDArray[np.bool_], failures: Mapping[int, str]) -> Block:
        """The photos that `chosen` [P] holds of, with these failures."""
        regions = None if self.regions is None else self.regions[chosen]
        return Block(self.rows[chosen], self.vectors[chosen], failures, regions)


def joined(parts: Sequence[Block]) -> Block:
    """One block of several of one run, in their order."""
    regions = [part.regions for part in parts if part.regions is not None]
    return Block(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.vectors for part in parts]),
        {row: why for part in parts for row, why in part.failures.items()},
        np.concatenate(regions) if regions else None,
    )


@dataclass(frozen=True)
class Run:
    """What a run is: `count` photos in blocks of `size`, `provenance` of the file to be."""

    count: int
    size: int
    provenance: Mapping[str, str]

    def __len__(self) -> int:
        """The number of blocks."""
        return (self.count + self.size - 1) // self.size

    def rows(self, number: int) -> range:
        """The numbers of the photos of a block."""
        return range(number * self.size, min((number + 1) * self.size, self.count))


def block_size(count: int) -> int:
    """Photos in a block of a run of so many; a power of two."""
    size = LEAST
    while size < MOST and size * FEW < count:
        size *= 2
    return size


def block_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.npz"


def write_block(folder: Path, number: int, block: Block) -> None:
    """Put a finished block into the folder; from any process that sees it."""
    reasons = np.frombuffer(json.dumps(sorted(block.failures.items())).encode(), np.uint8)
    regions: dict[str, Any] = {} if block.regions is None else {"regions": block.regions}
    with atomic_path(block_path(folder, number)) as beside, beside.open("wb") as file:
        np.savez(file, rows=block.rows, vectors=block.vectors, failures=reasons, **regions)


def read_block(folder: Path, number: int) -> Block:
    """Raises InputError where the block is absent or damaged."""
    with _opened(block_path(folder, number)) as arrays:
        return Block(arrays["rows"], arrays["vectors"], _reasons(arrays), arrays.get("regions"))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The arrays of a block, read as they are asked for."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it and run the same command again") from error


def _reasons(arrays: Any) -> dict[int, str]:
    return dict(json.loads(arrays["failures"].tobytes()))


@dataclass(frozen=True)
class Store:
    """The folder of a run."""

    folder: Path
    run: Run

    def missing(self) -> list[int]:
        """The blocks that are still to be made; those that a machine cut short as it went down are among them."""
        there = {path.name for path in self.folder.glob("*.npz") if zipfile.is_zipfile(path)}
        return [number for number in range(len(self.run)) if block_path(self.folder, number).name not in there]

    def blocks(self) -> Iterator[Block]:
        """All blocks in order, one in memory at a time."""
        for number in range(len(self.run)):
            yield read_block(self.folder, number)

    def failures(self) -> dict[int, str]:
        """{number: reason} of all photos that could not be read; the vectors are left where they are."""
        found: dict[int, str] = {}
        for number in range(len(self.run)):
            with _opened(block_path(self.folder, number)) as arrays:
                found |= _reasons(arrays)
        return found

    def remove(self) -> None:
        """Take away the folder and all that is in it."""
        shutil.rmtree(self.folder)


def parts_folder(output: Path) -> Path:
    """Where the blocks of an output lie while it is made."""
    return output.with_name(f"{output.name}.parts")


def clear_finished(output: Path, run: Run) -> None:
    """Take away the blocks of a run whose file is there: it was killed between the two."""
    folder = parts_folder(output)
    if not (folder / RUN).is_file() or _read_run(folder / RUN, overwrite=True) != _facts(run):
        return
    with sole_writer(folder / LOCK):
        shutil.rmtree(folder)


@contextmanager
def open_store(output: Path, run: Run, *, row_bytes: int, overwrite: bool) -> Iterator[Store]:
    """The folder of this run, made where it is not there; this process alone leads it.

    Raises InputError where the folder cannot be written, another process leads it, blocks of another run lie in it
    (`overwrite` removes them), or the disk has not the room for what is missing and for the file, at `row_bytes` bytes
    a photo. A folder in which nothing was finished is removed at the end.
    """
    folder = parts_folder(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output={output}: cannot be written ({error.strerror or error})") from error
    store = Store(folder, run)
    try:
        with sole_writer(folder / LOCK):
            _claim(store, overwrite=overwrite)
            _refuse_full_disk(store, row_bytes)
            yield store
    finally:
        if folder.is_dir() and not any(folder.glob("*.npz")):
            shutil.rmtree(folder, ignore_errors=True)


def _claim(store: Store, *, overwrite: bool) -> None:
    """Refuse or remove the blocks of another run, then say whose the folder is."""
    path, mine = store.folder / RUN, _facts(store.run)
    if path.exists():
        before = _read_run(path, overwrite=overwrite)
        changed = [name for name in {**before, **mine} if before.get(name) != mine.get(name)]
        if not changed:
            return
        if not overwrite:
            name = changed[0]
            raise InputError(
                f"{store.folder}: was begun with {name}={before.get(name)}, now {name}={mine.get(name)}; give another "
                "output, or overwrite=true to begin anew"
            )
        for block in store.folder.glob("*.npz"):
            block.unlink()
    write_json(path, mine)


def _facts(run: Run) -> dict[str, str]:
    return {**run.provenance, "images": str(run.count), "block": str(run.size)}


def _read_run(path: Path, *, overwrite: bool) -> dict[str, str]:
    """What the folder says it is of; nothing where that cannot be read and does not matter."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(value) for name, value in values.items()}
    except (OSError, ValueError, AttributeError) as error:
        if overwrite:
            return {}
        raise InputError(f"{path}: cannot be read ({error}); overwrite=true begins anew") from error


def _refuse_full_disk(store: Store, row_bytes: int) -> None:
    """A row is written twice: in its block, and in the file that all blocks become."""
    missing = sum(len(store.run.rows(number)) for number in store.missing())
    needed = (missing + store.run.count) * row_bytes + SPARE
    free = shutil.disk_usage(store.folder).free
    if free < needed:
        raise InputError(
            f"{store.folder}: the disk has {free / 1e9:.2f} GB free; expected at least {needed / 1e9:.2f} GB for "
            f"{store.run.count:,} photos at {row_bytes:,} bytes, written twice"
        )
