"""HDF5 files of descriptors and submissions. Row 0 is the first row of a dataset.

Headers, and texts of variable length, are read by `isc.data.hdf5_header`; files are created by `isc.data.hdf5_file`.
Only these three modules import h5py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from isc.data.descriptors import Descriptors, first_repeated_row, non_finite_row
from isc.data.files import atomic_path
from isc.data.hdf5_file import created
from isc.data.hdf5_header import Dataset, Header, read_header, read_texts
from isc.data.ids import Ids, all_usable, id_problem
from isc.errors import InputError

if TYPE_CHECKING:
    import h5py

MAX_DIM = 256  # limit of the descriptor track
VIEWS = "views"  # the dataset with the view that each row shows; only in files with image_names
SAME_IN_BOTH = ("weights_sha256", "image_size", "gem_power", "preprocessing")  # equal for comparable descriptors


def write_descriptors(path: Path, descriptors: Descriptors, provenance: Mapping[str, str]) -> None:
    """Write one set in the layout of the challenge's tools: `vectors` float32 [N, D], `image_names` bytes [N].

    A set with views also gets `views` bytes [N], the view that each row shows. `provenance` (model, weight hash,
    preprocessing, code version …) is written to the file's attributes.
    """
    datasets = {"vectors": descriptors.vectors, "image_names": _encode(descriptors.ids)}
    if descriptors.views is not None:
        datasets[VIEWS] = _encode(descriptors.views)
    _write_hdf5(path, datasets, provenance)


def write_descriptor_blocks(
    path: Path,
    blocks: Iterable[Descriptors],
    *,
    rows: int,
    id_bytes: int,
    view_bytes: int = 0,
    provenance: Mapping[str, str],
) -> None:
    """Write the file of `write_descriptors` from blocks, `rows` rows in total, with one block in memory at a time.

    `id_bytes` and `view_bytes` are the lengths of the longest id and view in UTF-8; `view_bytes` is 0 without views.
    Raises ValueError if the blocks do not have `rows` rows.
    """
    with atomic_path(path) as beside, created(beside) as file:
        start = 0
        for block in blocks:
            if not start:
                file.create_dataset("vectors", (rows, block.dim), np.float32)
                file.create_dataset("image_names", (rows,), f"S{id_bytes}")
                if view_bytes:
                    file.create_dataset(VIEWS, (rows,), f"S{view_bytes}")
            part = slice(start, start + len(block))
            file["vectors"][part], file["image_names"][part] = block.vectors, _encode(block.ids)
            if block.views is not None:
                file[VIEWS][part] = _encode(block.views)
            start = part.stop
        if start != rows:
            raise ValueError(f"{start} rows in all blocks; expected {rows}")
        _write_attributes(file, provenance)


def write_submission(path: Path, queries: Descriptors, references: Descriptors, provenance: Mapping[str, str]) -> None:
    """Write the descriptor-track file: `query`, `reference`, `query_ids`, `reference_ids`, rows sorted by id."""
    check_submission(queries, references)
    queries, references = queries.sorted(), references.sorted()
    _write_hdf5(
        path,
        {
            "query": queries.vectors,
            "reference": references.vectors,
            "query_ids": _encode(queries.ids),
            "reference_ids": _encode(references.ids),
        },
        provenance,
    )


def check_submission(queries: Descriptors, references: Descriptors) -> None:
    """Raise InputError unless both sets have the same dimension, at most MAX_DIM, and one descriptor per image."""
    check_same_dim(queries, references)
    for what, one in (("queries", queries), ("references", references)):
        if one.views is not None:
            raise InputError(f"{what}: {one_row_each(one)}")
    if queries.dim > MAX_DIM:
        raise InputError(
            f"descriptors have {queries.dim} dimensions; the descriptor track allows {MAX_DIM}: use track=matching"
        )


def one_row_each(descriptors: Descriptors) -> str:
    """Return the error message for descriptors with views on the descriptor track."""
    return (
        f"{len(descriptors):,} views of {len(descriptors.images):,} images; the descriptor track allows one descriptor "
        "an image: use track=matching, or descriptors that were extracted with combine=average"
    )


def check_same_dim(queries: Descriptors, references: Descriptors) -> None:
    if queries.dim != references.dim:
        raise InputError(
            f"queries have {queries.dim} dimensions and references {references.dim}; expected the same model for both"
        )


def read_descriptors(path: Path, *, role: Literal["query", "reference", "training"] = "query") -> Descriptors:
    """Read one set of descriptors from either layout; `role` chooses the set of a submission file.

    Raises InputError for a file that is malformed or lacks the set; a submission file has no training set.
    """
    with _opened(path) as file:
        return _read_set(file, *_datasets(file, role))


def descriptor_blocks(
    path: Path, *, rows: int, first: int = 0, role: Literal["query", "reference", "training"] = "query"
) -> Iterator[Descriptors]:
    """Yield the set of `read_descriptors` from row `first` on, in file order, in blocks of at most `rows` rows.

    For sets larger than memory. Each block is checked as it is read, but an id (with views: an id and view) that occurs
    in two blocks is not noticed.
    """
    if rows < 1:
        raise InputError(f"rows={rows}; expected at least 1")
    with _opened(path) as file:
        vectors, names = _datasets(file, role)
        shape = _shape_of_vectors(file, vectors)
        for start in range(first, max(first + 1, shape[0]), rows):
            yield _read_set(file, vectors, names, rows=slice(start, start + rows))


def _datasets(file: _File, role: str) -> tuple[str, str]:
    """Return the names of the datasets of the vectors and of the ids."""
    held = file.header.datasets
    return ("vectors", "image_names") if "vectors" in held or role not in held else (role, f"{role}_ids")


def read_submission(path: Path, *, strict: bool = True) -> tuple[Descriptors, Descriptors]:
    """Read queries and references of a descriptor-track file; with `strict`, rows must be sorted by id.

    Raises InputError for a malformed file, and if the dimensions differ or exceed MAX_DIM.
    """
    with _opened(path) as file:
        queries = _read_set(file, "query", "query_ids", sorted_by_id=strict)
        references = _read_set(file, "reference", "reference_ids", sorted_by_id=strict)
    if queries.dim != references.dim or queries.dim > MAX_DIM:
        raise InputError(
            f"{path}: queries have {queries.dim} dimensions and references {references.dim}; the descriptor track "
            f"allows {MAX_DIM}, expected the same for both"
        )
    return queries, references


def read_provenance(path: Path) -> dict[str, str]:
    """Read the file's attributes as text."""
    return dict(read_header(path).attributes)


def _encode(ids: Ids) -> npt.NDArray[np.bytes_]:
    return np.array([name.encode() for name in ids], dtype=np.bytes_)


def _write_hdf5(path: Path, datasets: Mapping[str, npt.NDArray[Any]], attributes: Mapping[str, str]) -> None:
    with atomic_path(path) as beside, created(beside) as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values)
        _write_attributes(file, attributes)


def _write_attributes(file: h5py.File, attributes: Mapping[str, str]) -> None:
    for key, value in attributes.items():
        file.attrs[key] = np.bytes_(value.encode())  # fixed length: a damaged heap of other texts can hang HDF5


@dataclass(frozen=True)
class _File:
    """An open file with its header, which has been read before."""

    path: Path
    header: Header
    file: h5py.File

    def dataset(self, key: str) -> Dataset:
        """Return the header of a dataset. Raises InputError if there is none, or it has a problem."""
        if key not in self.header.datasets:
            raise InputError(
                f"{self.path}: has no dataset {key!r}; found {list(self.header.names)}, expected vectors and "
                "image_names, or query, reference, query_ids and reference_ids"
            )
        if problem := self.header.datasets[key].problem:
            raise InputError(f"{self.path}: dataset {key!r} {problem}")
        return self.header.datasets[key]

    def texts(self, key: str, rows: slice | tuple[()]) -> npt.NDArray[np.bytes_] | list[object]:
        """Read ids or views, those of variable length as a list."""
        held = self.dataset(key)
        if held.variable and held.shape:
            count = len(range(*rows.indices(held.shape[0]))) if isinstance(rows, slice) else held.shape[0]
            return read_texts(self.path, key, rows, count=count)
        return np.asarray(self.file[key][rows])


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    """Open a file whose header can be read. Raises InputError for one that cannot, and while it is read."""
    import h5py

    header = read_header(path)
    try:
        with h5py.File(path, "r") as file:
            yield _File(path, header, file)
    except (OSError, KeyError, RuntimeError, MemoryError) as error:
        raise InputError(f"{path}: damaged ({error}); write it again") from error


def _read_set(
    file: _File, vectors: str, names: str, *, sorted_by_id: bool = False, rows: slice | None = None
) -> Descriptors:
    """Read the set in these two datasets, or its `rows`; messages count rows from the start of the file.

    Everything is checked by its header before anything is read, and the ids before the vectors.
    """
    path, first = file.path, rows.start if rows else 0
    columns = [names, VIEWS] if names == "image_names" and VIEWS in file.header.datasets else [names]
    shapes = {key: file.dataset(key).shape or () for key in (vectors, *columns)}
    for column in columns:
        if shapes[vectors] and shapes[column] and shapes[column][0] != shapes[vectors][0]:
            raise InputError(_other_length(path, column, shapes[column][0], vectors, shapes[vectors][0]))
    for column in columns:
        if file.dataset(column).kind not in "SU" or len(shapes[column]) != 1:
            raise InputError(f"{path}: {column!r} is not a list of byte strings; expected one {_word(column)} a row")
    _shape_of_vectors(file, vectors)
    part = rows or ()
    ids, *views = (_decode_texts(path, column, file.texts(column, part), first) for column in columns)
    _refuse_repeat(path, names, ids, views[0] if views else None, first=first)
    if sorted_by_id:
        _require_sorted(path, names, ids)
    with np.errstate(over="ignore"):
        values = np.asarray(file.file[vectors][part]).astype(np.float32, copy=False)
    if (row := non_finite_row(values)) is not None:
        raise InputError(
            f"{path}: {vectors!r} row {first + row}: id {ids[row]!r} has NaN or infinite values; expected finite"
        )
    return Descriptors(np.array(ids, dtype=object), values, np.array(views[0], dtype=object) if views else None)


def _shape_of_vectors(file: _File, key: str) -> tuple[int, ...]:
    """Return (N, D) of a dataset of vectors. Raises InputError for another shape or type."""
    held = file.dataset(key)
    if held.shape is None or len(held.shape) != 2 or 0 in held.shape or held.kind != "f":
        raise InputError(
            f"{file.path}: {key!r} is {held.type} of shape {held.shape or ()}; expected float32 [N, D], N and D ≥ 1"
        )
    return held.shape


def _other_length(path: Path, key: str, found: int, vectors: str, rows: int) -> str:
    return f"{path}: {found} {key} for {rows} rows of {vectors!r}; expected one {_word(key)} a row"


def _word(key: str) -> str:
    """Return the name of one entry of a dataset of texts, for messages."""
    return "view" if key == VIEWS else "id"


def _refuse_repeat(path: Path, names: str, ids: list[str], views: list[str] | None, *, first: int) -> None:
    if repeat := first_repeated_row(ids, views):
        before, again = repeat
        view = f" with view {views[again]!r}" if views else ""
        what = f"{names} row {first + again}: id {ids[again]!r}{view}"
        raise InputError(f"{path}: {what} was already given in row {first + before}; expected each once")


def _require_sorted(path: Path, names: str, ids: list[str]) -> None:
    for row, (one, two) in enumerate(itertools.pairwise(ids), 1):
        if two < one:
            raise InputError(
                f"{path}: {names} row {row}: id {two!r} comes after {one!r}; "
                "expected rows sorted by id (or strict=false)"
            )


def _decode_texts(path: Path, key: str, raw: npt.NDArray[np.bytes_] | list[object], first: int) -> list[str]:
    """Decode the ids or views of a dataset of byte strings. Raises InputError with the row of a bad one."""
    word = _word(key)
    if isinstance(raw, np.ndarray) and (plain := _decode_together(raw.tolist())) is not None:
        return plain
    texts: list[str] = []
    for row, value in enumerate(raw if isinstance(raw, list) else raw.tolist(), first):
        if not isinstance(value, bytes | str):
            raise InputError(f"{path}: {key} row {row}: {value!r} is no byte string; expected one {word} a row")
        try:
            text = value.decode("utf-8") if isinstance(value, bytes) else value
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: {key} row {row}: {word} {value!r} is not UTF-8 text") from error
        if problem := id_problem(text):
            raise InputError(f"{path}: {key} row {row}: {word} {text!r} {problem}")
        texts.append(text)
    return texts


def _decode_together(values: list[bytes]) -> list[str] | None:
    """Decode all texts at once, which takes a fifth of the time; return None if any text is bad."""
    try:
        texts = b"\0".join(values).decode("utf-8").split("\0")  # no id holds a NUL
    except UnicodeDecodeError:
        return None
    return texts if len(texts) == len(values) and all_usable(texts) else None
