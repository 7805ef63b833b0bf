"""CSV files of predictions and ground truth. Row 1 is the first line of a file, even if it is the header."""

from __future__ import annotations

import codecs
import csv
import logging
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.files import atomic_path
from isc.data.ids import Ids, IntArray, all_usable, first_repeat, id_problem, needs_quotes, numbered
from isc.data.limits import MAX_PREDICTIONS
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError

log = logging.getLogger(__name__)

PREDICTION_COLUMNS = ("query_id", "reference_id", "score")
GROUND_TRUTH_COLUMNS = ("query_id", "reference_id")
BYTES_PER_ROW = 256  # more than any usual row has; limits the size of a file that is read in one go

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Columns:
    """The fields of a CSV file, column by column, and the number of the first row.

    `keys` may hold, for each of the first two columns, numbers [M] that are equal if and only if the fields are.
    """

    fields: Sequence[Sequence[str]]
    first: int
    keys: Sequence[Keys | None] = (None, None)


def write_csv(path: Path, columns: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    with atomic_path(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_predictions(path: Path, matches: Matches) -> None:
    """Write `query_id,reference_id,score`, highest score first. A score has the digits that its float type needs."""
    order = matches.order()
    score = [str(value) for value in matches.score[order]]  # numpy's shortest text that reads back as the same number
    query, reference = matches.query_ids[matches.query[order]], matches.reference_ids[matches.reference[order]]
    if (quoted := needs_quotes([*matches.query_ids, *matches.reference_ids])) is not None:
        log.warning("%s: id %r is in quotes (RFC 4180); the challenge's own evaluators take no such id", path, quoted)
    write_csv(path, PREDICTION_COLUMNS, zip(query, reference, score, strict=True))


def write_ground_truth(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    """Write `query_id,reference_id`; the reference id of a distractor is empty."""
    write_csv(path, GROUND_TRUTH_COLUMNS, iter(rows))


def read_predictions(
    path: Path,
    *,
    max_rows: int = MAX_PREDICTIONS,
    query_ids: Ids | None = None,
    reference_ids: Ids | None = None,
) -> Matches:
    """Read a matching-track submission: `query_id,reference_id,score`, header optional, rows in any order.

    `query_ids` and `reference_ids` are the ids of the images; None allows every id. Raises InputError for another id,
    a repeated pair, a score that is not a finite number, or more than `max_rows` rows.
    """
    columns = _read_columns(path, PREDICTION_COLUMNS, max_rows)
    (query, reference, text), first = columns.fields, columns.first
    queries, references = (numbered(ids, keys) for ids, keys in zip((query, reference), columns.keys, strict=True))
    _check_ids(path, query, first, "query", query_ids, once=queries[0].tolist())
    _check_ids(path, reference, first, "reference", reference_ids, once=references[0].tolist())
    score = _parse_scores(path, text, first, query, reference)
    try:
        return Matches.from_numbered(queries, references, score)
    except InputError as error:
        repeat = first_repeat([f"{q}\0{r}" for q, r in zip(query, reference, strict=True)])
        if repeat is None:
            raise
        one, two = (row + first for row in repeat)
        pair = f"{query[repeat[1]]},{reference[repeat[1]]}"
        message = f"{path}: row {two}: the pair {pair} was already given in row {one}; expected each pair once"
        raise InputError(message) from error


def read_ground_truth(path: Path, *, query_ids: Ids | None = None, reference_ids: Ids | None = None) -> GroundTruth:
    """Read `query_id,reference_id`, header optional; an empty reference id marks a distractor.

    Repeated rows count once. Raises InputError for a malformed file, unknown ids, or a file without a true pair.
    """
    columns = _read_columns(path, GROUND_TRUTH_COLUMNS, None)
    (query, reference), first = columns.fields, columns.first
    if not query:
        raise InputError(f"{path}: holds no rows; expected query_id,reference_id")
    _check_ids(path, query, first, "query", query_ids, once=list(dict.fromkeys(query)))
    named = list(dict.fromkeys(filter(None, reference)))  # a distractor names no reference
    _check_ids(path, reference, first, "reference", reference_ids, once=named)
    pairs = [(q, r) for q, r in zip(query, reference, strict=True) if r]
    if not pairs:
        raise InputError(f"{path}: holds distractors alone; expected at least one query with a reference id")
    return GroundTruth(frozenset(query), frozenset(pairs), num_repeated=len(pairs) - len(set(pairs)))


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the rows of a CSV with these columns. Raises InputError, with the row, for another file."""
    return list(zip(*_read_columns(path, columns, None).fields, strict=True))


def _read_columns(path: Path, names: Sequence[str], max_rows: int | None) -> Columns:
    """Read the columns `names`; blank lines are allowed only at the end of the file."""
    return _split_plain(path, names, max_rows) or _parse_csv(path, names, max_rows)


def _split_plain(path: Path, names: Sequence[str], max_rows: int | None) -> Columns | None:
    """Return the same as `_parse_csv`, several times faster, if all rows have the same form and no quotes; else None.

    It also returns None for a file with a bad row, which `_parse_csv` then reports.
    """
    data = _regular_bytes(path, BYTES_PER_ROW * (1 + (max_rows or MAX_PREDICTIONS)))
    if data is None:
        return None
    data = data.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").rstrip(b"\n")
    letters = np.frombuffer(data, np.uint8)
    ends = np.append(np.flatnonzero((letters == ord(",")) | (letters == ord("\n"))), len(data))
    starts = np.append(0, ends[:-1] + 1)
    row = b"," * (len(names) - 1) + b"\n"
    equal_rows = letters[ends[:-1]].tobytes() + b"\n" == row * (len(ends) // len(names))
    too_long = (ends - starts).max() > csv.field_size_limit()
    if not equal_rows or too_long or any(byte in data for byte in (b'"', b"\r", b"\0")):
        return None
    try:
        fields = data.decode("utf-8").replace("\n", ",").split(",")
    except UnicodeDecodeError:
        return None
    width = len(names)
    header = _is_header(path, fields[:width], names)
    columns = [slice(width * header + i, None, width) for i in range(width)]
    if max_rows is not None and len(fields) // width - header > max_rows:
        return None
    keys = [_keys(data, starts[column], ends[column]) for column in columns[:2]]
    return Columns([fields[column] for column in columns], 1 + header, keys)


def _regular_bytes(path: Path, most: int) -> bytes | None:
    """Return the bytes of a regular file of at most `most` bytes; None for other files (a pipe is read only once)."""
    try:
        state = path.stat()
        return path.read_bytes() if stat.S_ISREG(state.st_mode) and state.st_size <= most else None
    except OSError:
        return None


def _keys(data: bytes, starts: IntArray, ends: IntArray) -> Keys | None:
    """Return a number for each field, equal if and only if the bytes are; None if a field is longer than 32 bytes.

    A field of up to eight bytes, such as an id of the challenge, is its own number.
    """
    width = int((ends - starts).max(initial=1))
    if width > 32:
        return None
    from_here = np.ndarray(len(data) + 1, np.dtype("<u8"), data + bytes(8), strides=(1,))  # eight bytes from each byte
    kept = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
    keys = np.zeros(len(starts), np.uint64)
    for skipped in range(0, width, 8):
        part = from_here[np.minimum(starts + skipped, len(data))] & kept[np.clip(ends - starts - skipped, 0, 8)]
        keys = _joint(keys, part) if skipped else part
    return keys


def _joint(one: Keys, other: Keys) -> Keys:
    """Return numbers that are equal if and only if both given numbers are."""
    ones, others = (np.unique(keys, return_inverse=True)[1].astype(np.uint64) for keys in (one, other))
    return np.asarray(ones * np.uint64(len(others)) + others)


def _parse_csv(path: Path, names: Sequence[str], max_rows: int | None) -> Columns:
    """Parse any CSV file row by row. Raises InputError with the row of the first error."""
    columns: list[list[str]] = [[] for _ in names]
    first = 1
    blank = False
    try:
        if stat.S_ISCHR(path.stat().st_mode) and not path.samefile("/dev/stdin"):
            raise InputError(f"{path}: is a device; expected a CSV file")
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.reader(file, strict=True):
                if not columns[0] and first == 1 and _is_header(path, row, names):
                    first = 2
                elif not row:
                    blank = True
                else:
                    _check_row(path, first + len(columns[0]), [] if blank else row, names)
                    if len(columns[0]) == max_rows:
                        raise InputError(
                            f"{path}: row {first + max_rows}: {','.join(row)!r}: more than {max_rows:,} predictions; "
                            "keep the best, or raise max_predictions"
                        )
                    for column, field in zip(columns, row, strict=True):
                        column.append(field)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: row {_row_of_bad_byte(path)}: not UTF-8 text; expected a CSV file in UTF-8"
        ) from error
    except csv.Error as error:
        raise InputError(f"{path}: row {first + len(columns[0])}: not CSV ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a CSV file") from error
    return Columns(columns, first)


def _is_header(path: Path, row: Sequence[str], names: Sequence[str]) -> bool:
    found = [field.strip().lower() for field in row]
    if found != list(names) and set(found) & set(names):
        raise InputError(f"{path}: row 1: {','.join(row)!r} is no header; expected {','.join(names)}")
    return found == list(names)


def _check_row(path: Path, number: int, row: Sequence[str], names: Sequence[str]) -> None:
    if len(row) != len(names):
        raise InputError(
            f"{path}: row {number}: {','.join(row)!r} has {len(row)} field{'s' * (len(row) != 1)}; "
            f"expected {len(names)}: {','.join(names)}"
        )


def _row_of_bad_byte(path: Path) -> int:
    """Return the line, from 1, of the first byte that is not UTF-8; decoding in blocks does not report it."""
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1
    return 1


def _check_ids(
    path: Path,
    names: Sequence[str],
    first: int,
    what: str,
    known: Ids | None,
    *,
    once: Sequence[str],
) -> None:
    """Raise InputError, with the row, for an unusable or unknown id. `once` holds each name to check once."""
    allowed = None if known is None else set(known)
    if all_usable(once) and (allowed is None or allowed.issuperset(once)):
        return
    wrong = {name: problem for name in once if (problem := id_problem(name))}
    if known is not None and allowed is not None:
        unknown = f"is not among the {len(known):,} {what} images given (strict=false of match.py lets it pass)"
        wrong |= dict.fromkeys(set(once) - allowed - wrong.keys(), unknown)
    row = next(i for i, name in enumerate(names) if name in wrong)
    raise InputError(f"{path}: row {row + first}: {what} id {names[row]!r} {wrong[names[row]]}")


def _parse_scores(
    path: Path, text: Sequence[str], first: int, query: Sequence[str], reference: Sequence[str]
) -> npt.NDArray[np.float64]:
    try:
        score = np.fromiter(map(float, text), np.float64, len(text))
        together = "".join(text)
        if "_" in together or not together.isascii():  # Python's float reads 1_0 as ten, and digits of all scripts
            raise ValueError
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
        return float("nan") if "_" in field or not field.isascii() else float(field)
    except ValueError:
        return float("nan")
