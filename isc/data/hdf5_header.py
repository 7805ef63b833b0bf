"""The contents of an HDF5 file, read in a process of its own: HDF5 may loop, crash or fill memory on a damaged one.

A dataset is described by its header. What would not give the numbers that its writer stored is a `problem`: a dataset
of parts in other files (virtual, external, behind a link), and one that was never written to the end, which HDF5 reads
as zeros.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from isc.data.limited import StoppedError, limited
from isc.errors import InputError

if TYPE_CHECKING:
    import h5py

Result = TypeVar("Result")
DATASETS = (
    "vectors", "image_names", "views", "query", "query_ids", "reference", "reference_ids", "training", "training_ids",
)  # fmt: skip
SECONDS = 5.0  # of one CPU, for a header
ROWS_A_SECOND = 100_000  # texts of variable length
MEMORY = 512 << 20  # bytes that reading it may take, besides eight times the size of the file
NAMES_SHOWN = 20
MAX_CHUNK = 512 << 20  # bytes of one chunk when it is unpacked
MAX_RATIO, SPARE = 200, 64 << 20  # a dataset may take 200 times its stored bytes, and 64 MiB in any case
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}  # by HDF5's numbers


@dataclass(frozen=True)
class Dataset:
    """The header of a dataset: its shape (None: it holds nothing), its type in numpy's words, and what is wrong.

    `variable` texts have no fixed length; `read_texts` reads them.
    """

    shape: tuple[int, ...] | None = None
    kind: str = ""
    type: str = ""
    variable: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class Header:
    """The known datasets of a file, its attributes as text, and the first names in it, for messages."""

    datasets: Mapping[str, Dataset]
    attributes: Mapping[str, str]
    names: tuple[str, ...]


def read_header(path: Path) -> Header:
    """Read the header of an HDF5 file. Raises InputError if there is none, or it is damaged."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected HDF5 descriptors")
    state = path.stat()
    return _read_once(path, (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))


@functools.lru_cache(maxsize=8)
def _read_once(path: Path, stamp: tuple[int, ...]) -> Header:  # noqa: ARG001 -- the stamp tells a file that changed
    return _apart(path, partial(_header, path), seconds=SECONDS)


def read_texts(path: Path, key: str, rows: slice | tuple[()], *, count: int) -> list[Any]:
    """Read `count` texts of variable length from a dataset. Raises InputError if they cannot be read."""
    return _apart(path, partial(_texts, path, key, rows), seconds=SECONDS + count / ROWS_A_SECOND)


def _apart(path: Path, function: Callable[[], Result], *, seconds: float) -> Result:
    import h5py  # noqa: F401 -- before the fork

    try:
        return limited(function, seconds=seconds, memory=MEMORY + 8 * path.stat().st_size)
    except StoppedError as error:
        raise InputError(f"{path}: damaged (HDF5 {error}); write it again") from error
    except InputError:
        raise
    except Exception as error:  # h5py raises nearly every kind of exception on damaged files
        told = " ".join(f"{error}".split()) or type(error).__name__
        raise InputError(f"{path}: damaged ({told}); write it again") from error


def _header(path: Path) -> Header:
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: not an HDF5 file, or cut short ({error}); write it again") from error
    with file:
        names = [os.fsdecode(name) for name in itertools.islice(file, NAMES_SHOWN)]
        found = {key: _dataset(file, key) for key in DATASETS if file.get(key, getlink=True) is not None}
        attributes = {os.fsdecode(key): _text(value) for key, value in file.attrs.items()}
        return Header(found, attributes, tuple(sorted(names)))


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _texts(path: Path, key: str, rows: slice | tuple[()]) -> list[Any]:
    import h5py

    with h5py.File(path, "r") as file:
        values = file[key][rows]
        assert isinstance(values, np.ndarray)
        return list(values.tolist())


def _dataset(file: h5py.File, key: str) -> Dataset:
    import h5py

    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        return Dataset(problem="is a link to another place; expected the numbers in this file")
    try:
        held = file[key]
        if not isinstance(held, h5py.Dataset):
            return Dataset(problem=f"is a {type(held).__name__.lower()}; expected a dataset")
        text = h5py.check_string_dtype(held.dtype)
        return Dataset(
            shape=held.shape,
            kind="S" if text else held.dtype.kind,
            type=str(held.dtype),
            variable=text is not None and text.length is None,
            problem=_problem(file, held),
        )
    except Exception as error:  # h5py raises nearly every kind of exception on damaged files
        return Dataset(problem=f"cannot be read ({' '.join(str(error).split())}); write it again")


def _problem(file: h5py.File, held: h5py.Dataset) -> str | None:
    """Return why a dataset would not be read as it was written, or None."""
    if held.is_virtual:
        return "is virtual: its numbers are in other files; expected them in this one"
    if held.external:
        return f"has its numbers in another file, {held.external[0][0]!r}; expected them in this one"
    if held.shape is None:
        return None
    itemsize = held.id.get_type().get_size()  # in the file; for texts of variable length that of their place
    if held.chunks is not None:
        return _problem_of_chunks(held, itemsize)
    needed, stored, offset = math.prod(held.shape) * itemsize, held.id.get_storage_size(), held.id.get_offset()
    if stored < needed:
        return f"takes {needed:,} bytes, of which {stored:,} were written; write it again"
    beyond = offset is not None and offset + stored > Path(file.filename).stat().st_size
    return "ends after the end of the file; write it again" if beyond else None


def _problem_of_chunks(held: h5py.Dataset, itemsize: int) -> str | None:
    plan = held.id.get_create_plist()
    filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
    if strange := [number for number in filters if number not in FILTERS]:
        return f"is packed by filter {strange[0]} of HDF5; expected {', '.join(FILTERS.values())} or none"
    chunk, needed = math.prod(held.chunks) * itemsize, math.prod(held.shape) * itemsize
    stored = held.id.get_storage_size()
    if chunk > MAX_CHUNK or needed > MAX_RATIO * stored + SPARE:
        return f"takes {max(chunk, needed):,} bytes, packed as {stored:,}; expected less"
    expected = math.prod(-(-side // part) for side, part in zip(held.shape, held.chunks, strict=True))
    if (written := held.id.get_num_chunks()) < expected:
        return f"has {expected:,} chunks, of which {written:,} were written; write it again"
    return None
