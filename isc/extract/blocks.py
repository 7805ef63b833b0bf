"""The blocks of an unfinished extraction, in a folder beside its output file.

    run.json        the description of the run: its photos, its model, its processing
    run.lock        held by the process that leads the run
    00000012.npz    block 12: the photos 12 · size … 13 · size − 1, in the order of their ids

A block is complete or absent, so a killed run continues with the missing blocks, and any process on any machine may
make a block.
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
from isc.data.json_files import parse_json, read_text
from isc.errors import InputError
from isc.runtime.locks import sole_writer

RUN, LOCK = "run.json", "run.lock"
PHOTO_LIST = "image_list_sha256"  # fact of a run: the hash of its list of photos
LEAST, MOST = 256, 16_384  # photos per block: limits the loss of a kill, and the number of files for millions
FEW = 1024  # the most blocks of a run of medium size
SPARE = 64 << 20  # bytes that the disk should keep free


@dataclass(frozen=True)
class Block:
    """The results of some photos.

    `vectors` float32 [P, V, D] has V rows for each of the P readable photos, `rows` int64 [P] their numbers in the run,
    ascending, `failures` {number: reason} the unreadable photos, and `regions` float64 [P, K, 4] the regions that
    regions:K proposed for each photo, None if it was not requested.
    """

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
        """Return the photos that `chosen` [P] selects, with these failures."""
        regions = None if self.regions is None else self.regions[chosen]
        return Block(self.rows[chosen], self.vectors[chosen], failures, regions)


def joined(parts: Sequence[Block]) -> Block:
    """Return several blocks of one run as one, in their order."""
    regions = [part.regions for part in parts if part.regions is not None]
    return Block(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.vectors for part in parts]),
        {row: why for part in parts for row, why in part.failures.items()},
        np.concatenate(regions) if regions else None,
    )


@dataclass(frozen=True)
class Run:
    """Description of a run: `count` photos in blocks of `size`, and `provenance` of the output file."""

    count: int
    size: int
    provenance: Mapping[str, str]

    def __len__(self) -> int:
        """Return the number of blocks."""
        return (self.count + self.size - 1) // self.size

    def rows(self, number: int) -> range:
        """Return the numbers of the photos of a block."""
        return range(number * self.size, min((number + 1) * self.size, self.count))


def block_size(count: int) -> int:
    """Return the number of photos per block in a run of `count` photos; a power of two."""
    size = LEAST
    while size < MOST and size * FEW < count:
        size *= 2
    return size


def block_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.npz"


def write_block(folder: Path, number: int, block: Block) -> None:
    """Write a finished block into the folder; any process that sees the folder may do so."""
    reasons = np.frombuffer(json.dumps(sorted(block.failures.items())).encode(), np.uint8)
    regions: dict[str, Any] = {} if block.regions is None else {"regions": block.regions}
    with atomic_path(block_path(folder, number)) as beside, beside.open("wb") as file:
        np.savez(file, rows=block.rows, vectors=block.vectors, failures=reasons, **regions)


def read_block(folder: Path, number: int) -> Block:
    """Read a block. Raises InputError if it is absent or damaged."""
    with _opened(block_path(folder, number)) as arrays:
        return Block(arrays["rows"], arrays["vectors"], _reasons(arrays), arrays.get("regions"))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open the arrays of a block; each is read on access. Raises InputError if one cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it and run the same command again") from error


def _reasons(arrays: Any) -> dict[int, str]:
    return dict(parse_json(arrays["failures"].tobytes()))


@dataclass(frozen=True)
class Store:
    """The folder of a run."""

    folder: Path
    run: Run

    def missing(self) -> list[int]:
        """Return the numbers of the blocks to make; blocks that a crash of the machine cut short are among them."""
        there = {path.name for path in self.folder.glob("*.npz") if zipfile.is_zipfile(path)}
        return [number for number in range(len(self.run)) if block_path(self.folder, number).name not in there]

    def blocks(self) -> Iterator[Block]:
        """Yield all blocks in order, one in memory at a time."""
        for number in range(len(self.run)):
            yield read_block(self.folder, number)

    def failures(self) -> dict[int, str]:
        """Return {number: reason} of all unreadable photos, without reading the vectors."""
        found: dict[int, str] = {}
        for number in range(len(self.run)):
            with _opened(block_path(self.folder, number)) as arrays:
                found |= _reasons(arrays)
        return found

    def remove(self) -> None:
        """Remove the folder and its content."""
        shutil.rmtree(self.folder)


def parts_folder(output: Path) -> Path:
    """Return the folder of an output's blocks."""
    return output.with_name(f"{output.name}.parts")


def clear_finished(output: Path, run: Run) -> None:
    """Remove the blocks of a run whose output file exists: it was killed before it could remove them."""
    folder = parts_folder(output)
    if not (folder / RUN).is_file() or _read_run(folder / RUN, overwrite=True) != _facts(run):
        return
    with sole_writer(folder / LOCK):
        shutil.rmtree(folder)


@contextmanager
def open_store(output: Path, run: Run, *, row_bytes: int, overwrite: bool) -> Iterator[Store]:
    """Open the folder of this run, created if it is absent; only this process leads the run.

    Raises InputError if the folder cannot be written, another process leads the run, the folder has blocks of another
    run (`overwrite` removes them), or the disk has no room for the missing blocks and the file, at `row_bytes` bytes
    per photo. A folder without a finished block is removed at the end.
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
    """Refuse or remove the blocks of another run, then write the description of this run."""
    path, mine = store.folder / RUN, _facts(store.run)
    if path.exists():
        before = _read_run(path, overwrite=overwrite)
        changed = [name for name in {**before, **mine} if before.get(name) != mine.get(name)]
        if not changed:
            return
        if not overwrite:
            raise InputError(
                f"{store.folder}: {_change(changed[0], before, mine)}; give another output, or overwrite=true to begin "
                "anew"
            )
        for block in store.folder.glob("*.npz"):
            block.unlink()
    write_json(path, mine)


def _change(name: str, before: Mapping[str, str], mine: Mapping[str, str]) -> str:
    """Return in words that a fact of the run is another one than when it was begun."""
    if name == PHOTO_LIST:
        return f"the photos have changed since it was begun: {before.get('images')} then, {mine['images']} now"
    return f"was begun with {name}={before.get(name)}, now {name}={mine.get(name)}"


def _facts(run: Run) -> dict[str, str]:
    return {**run.provenance, "images": str(run.count), "block": str(run.size)}


def _read_run(path: Path, *, overwrite: bool) -> dict[str, str]:
    """Return the description of the folder's run; an empty one if it is unreadable and `overwrite` is set."""
    try:
        values = parse_json(read_text(path))
        return {str(name): str(value) for name, value in values.items()}
    except (OSError, ValueError, AttributeError) as error:
        if overwrite:
            return {}
        raise InputError(f"{path}: cannot be read ({error}); overwrite=true begins anew") from error


def _refuse_full_disk(store: Store, row_bytes: int) -> None:
    """Raise InputError if the disk is too full: each row is written twice, in its block and in the file."""
    missing = sum(len(store.run.rows(number)) for number in store.missing())
    needed = (missing + store.run.count) * row_bytes + SPARE
    free = shutil.disk_usage(store.folder).free
    if free < needed:
        raise InputError(
            f"{store.folder}: the disk has {free / 1e9:.2f} GB free; expected at least {needed / 1e9:.2f} GB for "
            f"{store.run.count:,} photos at {row_bytes:,} bytes, written twice"
        )
