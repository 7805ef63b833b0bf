"""Reading and writing the challenge's files. The only module that opens HDF5.

Readers refuse anything malformed with the file, row and id; row 1 is the first line of a CSV file, header included,
and row 0 the first row of an HDF5 dataset. Writers write beside the target and rename, so that a file is either whole
or absent.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from isc.descriptors import (
    Descriptors,
    GroundTruth,
    Ids,
    Matches,
    first_repeat,
    id_problem,
    non_finite_row,
    repeated_key,
)
from isc.errors import InputError

if TYPE_CHECKING:
    import h5py

MAX_DIM = 256  # of the descriptor track
MAX_PREDICTIONS = 500_000  # of the matching track
PREDICTION_COLUMNS = ("query_id", "reference_id", "score")
GROUND_TRUTH_COLUMNS = ("query_id", "reference_id")


# --- whole files or none ---------------------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; on success it becomes `path`, on any failure it is removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o666 & ~_umask())  # mkstemp's files are private, ours are not
        beside.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, owned: Sequence[str] = ()) -> Iterator[Path]:
    """A folder beside the contents of `path` to write to; on success its files take their places in `path`, replacing
    those of the same name; on any failure none does. Of the `owned` names those that were not written are removed, so
    that no file of an earlier run stays beside those of this one."""
    if path.exists() and not path.is_dir():
        raise InputError(f"output={path}: is a file; expected a folder")
    try:
        parent = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
        beside = Path(tempfile.mkdtemp(dir=parent, prefix=".isc-", suffix=".part"))
    except OSError as error:
        raise InputError(f"output={path}: cannot be written ({error.strerror or error})") from error
    try:
        yield beside
        with _uninterrupted():
            stale = [path / name for name in owned if not (beside / name).exists()]
            for source in sorted(beside.rglob("*")):
                target = path / source.relative_to(beside)
                if source.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    source.replace(target)
            for leftover in stale:
                leftover.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"output={path}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back for the moment that files take their places."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


# --- CSV -------------------------------------------------------------------------------------------------------------


def write_csv(path: Path, columns: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    with atomic_path(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_predictions(path: Path, matches: Matches) -> None:
    """`query_id,reference_id,score`, best first. A score is written with the digits its own float type needs."""
    order = matches.order()
    score = [str(value) for value in matches.score[order]]  # numpy's shortest text that reads back as the same number
    query, reference = matches.query_ids[matches.query[order]], matches.reference_ids[matches.reference[order]]
    write_csv(path, PREDICTION_COLUMNS, zip(query, reference, score, strict=True))


def write_ground_truth(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    """`query_id,reference_id`; a distractor's reference id is empty."""
    write_csv(path, GROUND_TRUTH_COLUMNS, iter(rows))


def read_predictions(
    path: Path,
    *,
    max_rows: int = MAX_PREDICTIONS,
    query_ids: Ids | None = None,
    reference_ids: Ids | None = None,
) -> Matches:
    """A matching-track submission: `query_id,reference_id,score`, header optional, any order.

    `query_ids` and `reference_ids` are the known images, where they are known; an id that is not among them is
    refused, as are a repeated pair, a score that is not a finite number, and more than `max_rows` rows.
    """
    rows, first = _read_rows(path, PREDICTION_COLUMNS, max_rows)
    query, reference, text = zip(*rows, strict=True) if rows else ((), (), ())
    _check_ids(path, query, first, "query", query_ids)
    _check_ids(path, reference, first, "reference", reference_ids)
    score = _parse_scores(path, text, first, query, reference)
    query_at = {name: i for i, name in enumerate(dict.fromkeys(query))}
    reference_at = {name: i for i, name in enumerate(dict.fromkeys(reference))}
    q = np.fromiter(map(query_at.__getitem__, query), np.int64, len(query))
    r = np.fromiter(map(reference_at.__getitem__, reference), np.int64, len(reference))
    repeat = repeated_key(q * len(reference_at) + r)
    if repeat:
        one, two = (row + first for row in repeat)
        pair = f"{query[repeat[1]]},{reference[repeat[1]]}"
        raise InputError(f"{path}: row {two}: the pair {pair} was already given in row {one}; expected each pair once")
    return Matches(np.array(list(query_at), dtype=object), np.array(list(reference_at), dtype=object), q, r, score)


def read_ground_truth(path: Path, *, query_ids: Ids | None = None, reference_ids: Ids | None = None) -> GroundTruth:
    """`query_id,reference_id`, header optional; an empty reference id marks a distractor. Repeated lines count once."""
    rows, first = _read_rows(path, GROUND_TRUTH_COLUMNS, None)
    if not rows:
        raise InputError(f"{path}: holds no rows; expected query_id,reference_id")
    query, reference = zip(*rows, strict=True)
    _check_ids(path, query, first, "query", query_ids)
    _check_ids(path, reference, first, "reference", reference_ids, may_be_empty=True)
    pairs = [(q, r) for q, r in rows if r]
    if not pairs:
        raise InputError(f"{path}: holds distractors alone; expected at least one query with a reference id")
    return GroundTruth(frozenset(query), frozenset(pairs), num_repeated=len(pairs) - len(set(pairs)))


def _read_rows(path: Path, columns: Sequence[str], max_rows: int | None) -> tuple[list[list[str]], int]:
    """The data rows of a CSV file and the row number of the first of them."""
    rows: list[list[str]] = []
    first = 1
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if reader.line_num == 1 and tuple(field.strip().lower() for field in row) == tuple(columns):
                    first = 2
                    continue
                rows.append(row)
                if max_rows is not None and len(rows) > max_rows and any(row):
                    raise InputError(
                        f"{path}: row {len(rows) - 1 + first}: {','.join(row)!r}: more than {max_rows:,} predictions; "
                        "keep the best, or raise max_predictions"
                    )
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: row {_row_of_bad_byte(path)}: not UTF-8 text; expected a CSV file in UTF-8"
        ) from error
    except csv.Error as error:
        raise InputError(f"{path}: row {len(rows) + first}: not CSV ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a CSV file") from error
    while rows and not rows[-1]:
        rows.pop()
    width = len(columns)
    for number, row in enumerate(rows, first):
        if len(row) != width:
            raise InputError(
                f"{path}: row {number}: {','.join(row)!r} has {len(row)} field{'s' * (len(row) != 1)}; "
                f"expected {width}: {','.join(columns)}"
            )
    return rows, first


def _row_of_bad_byte(path: Path) -> int:
    """The line of the first byte that is not UTF-8, counted from 1; decoding in blocks does not tell."""
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1
    return 1


def _check_ids(
    path: Path, names: Sequence[str], first: int, what: str, known: Ids | None, *, may_be_empty: bool = False
) -> None:
    wrong = {name: problem for name in set(names) if name or not may_be_empty if (problem := id_problem(name))}
    if known is not None:
        allowed = set(known) | ({""} if may_be_empty else set())
        wrong |= {n: f"is not among the {len(known):,} {what} images" for n in set(names) - allowed if n not in wrong}
    if wrong:
        row = next(i for i, name in enumerate(names) if name in wrong)
        raise InputError(f"{path}: row {row + first}: {what} id {names[row]!r} {wrong[names[row]]}")


def _parse_scores(
    path: Path, text: Sequence[str], first: int, query: Sequence[str], reference: Sequence[str]
) -> npt.NDArray[np.float64]:
    try:
        # Python's float takes 1_0 for ten
        score = np.array([float("nan") if "_" in field else field for field in text], dtype=object).astype(np.float64)
    except ValueError:
        score = np.array([_number_or_nan(field) for field in text])
    if not np.isfinite(score).all():
        row = int(np.argmin(np.isfinite(score)))
        raise InputError(
            f"{path}: row {row + first}: score {text[row]!r} of {query[row]},{reference[row]}; expected a finite number"
        )
    return score


def _number_or_nan(field: str) -> float:
    try:
        return float("nan") if "_" in field else float(field)
    except ValueError:
        return float("nan")


# --- HDF5 ------------------------------------------------------------------------------------------------------------


def write_descriptors(path: Path, descriptors: Descriptors, provenance: Mapping[str, str]) -> None:
    """One set in the layout of the challenge's tools: `vectors` float32 [N, D], `image_names` bytes [N].

    `provenance` (model, weight hash, preprocessing, code version …) goes into the file's attributes.
    """
    _write_hdf5(path, {"vectors": descriptors.vectors, "image_names": _encode(descriptors.ids)}, provenance)


def write_submission(path: Path, queries: Descriptors, references: Descriptors, provenance: Mapping[str, str]) -> None:
    """The descriptor-track file: `query`, `reference`, `query_ids`, `reference_ids`, rows sorted by id."""
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
    """Raise InputError unless the two sets may be compared by distance and are short enough for the track."""
    check_same_dim(queries, references)
    if queries.dim > MAX_DIM:
        raise InputError(
            f"descriptors have {queries.dim} dimensions; the descriptor track allows {MAX_DIM}: use track=matching"
        )


def check_same_dim(queries: Descriptors, references: Descriptors) -> None:
    if queries.dim != references.dim:
        raise InputError(
            f"queries have {queries.dim} dimensions and references {references.dim}; expected the same model for both"
        )


def read_descriptors(path: Path, *, role: Literal["query", "reference", "training"] = "query") -> Descriptors:
    """One set of descriptors, from either layout; of a submission file the `role` half (it has no training half)."""
    with _open_hdf5(path) as file:
        if "vectors" in file or role not in file:
            return _read_set(path, file, "vectors", "image_names")
        return _read_set(path, file, role, f"{role}_ids")


def read_submission(path: Path, *, strict: bool = True) -> tuple[Descriptors, Descriptors]:
    """Queries and references of a descriptor-track file; `strict` refuses rows that are not sorted by id."""
    with _open_hdf5(path) as file:
        queries = _read_set(path, file, "query", "query_ids", sorted_by_id=strict)
        references = _read_set(path, file, "reference", "reference_ids", sorted_by_id=strict)
    try:
        check_submission(queries, references)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return queries, references


def read_provenance(path: Path) -> dict[str, str]:
    """The attributes that the file was written with."""
    with _open_hdf5(path) as file:
        return {str(key): _text(value) for key, value in file.attrs.items()}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _encode(ids: Ids) -> npt.NDArray[np.bytes_]:
    return np.array([name.encode() for name in ids], dtype=np.bytes_)


def _write_hdf5(path: Path, datasets: Mapping[str, npt.NDArray[Any]], attributes: Mapping[str, str]) -> None:
    import h5py

    with atomic_path(path) as beside, h5py.File(beside, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values)
        for key, value in attributes.items():
            file.attrs[key] = np.bytes_(value.encode())  # of fixed length: a damaged heap of texts can hang HDF5


@contextmanager
def _open_hdf5(path: Path) -> Iterator[h5py.File]:
    import h5py

    if not path.is_file():
        raise InputError(f"{path}: no such file; expected HDF5 descriptors")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: not an HDF5 file, or cut short ({error}); write it again") from error
    try:
        with file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{path}: damaged ({error}); write it again") from error


def _read_set(path: Path, file: h5py.File, vectors: str, names: str, *, sorted_by_id: bool = False) -> Descriptors:
    for key in (vectors, names):
        if key not in file:
            raise InputError(f"{path}: has no dataset {key!r}; found {sorted(file)}, expected vectors and image_names, "
                             "or query, reference, query_ids and reference_ids")  # fmt: skip
    try:
        values, raw = file[vectors][()], file[names][()]
    except (OSError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path}: dataset {vectors!r} or {names!r} cannot be read ({error}); write it again"
        ) from error
    ids = _decode_ids(path, names, raw)
    if not isinstance(values, np.ndarray) or values.ndim != 2 or 0 in values.shape or values.dtype.kind != "f":
        shape, kind = getattr(values, "shape", ()), getattr(values, "dtype", type(values).__name__)
        raise InputError(f"{path}: {vectors!r} is {kind} of shape {shape}; expected float32 [N, D], N and D ≥ 1")
    if len(ids) != len(values):
        raise InputError(f"{path}: {len(ids)} {names} for {len(values)} rows of {vectors!r}; expected one id a row")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    if (row := non_finite_row(values)) is not None:
        raise InputError(f"{path}: {vectors!r} row {row}: id {ids[row]!r} has NaN or infinite values; expected finite")
    if repeat := first_repeat(ids):
        before, again = repeat
        what = f"{names} row {again}: id {ids[again]!r}"
        raise InputError(f"{path}: {what} was already given in row {before}; expected each once")
    if sorted_by_id:
        for row, (one, two) in enumerate(itertools.pairwise(ids), 1):
            if two < one:
                raise InputError(
                    f"{path}: {names} row {row}: id {two!r} comes after {one!r}; "
                    "expected rows sorted by id (or strict=false)"
                )
    return Descriptors(np.array(ids, dtype=object), values)


def _decode_ids(path: Path, names: str, raw: object) -> list[str]:
    if not isinstance(raw, np.ndarray) or raw.ndim != 1 or raw.dtype.kind not in "SOU":
        raise InputError(f"{path}: {names!r} is not a list of byte strings; expected one id a row")
    ids: list[str] = []
    for row, value in enumerate(raw.tolist()):
        if not isinstance(value, bytes | str):
            raise InputError(f"{path}: {names} row {row}: {value!r} is no byte string; expected one id a row")
        try:
            name = value.decode("utf-8") if isinstance(value, bytes) else value
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: {names} row {row}: id {value!r} is not UTF-8 text") from error
        if problem := id_problem(name):
            raise InputError(f"{path}: {names} row {row}: id {name!r} {problem}")
        ids.append(name)
    return ids
