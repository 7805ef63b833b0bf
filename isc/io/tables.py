"""CSV: predictions and ground truth. Row 1 is the first line of a file, header included."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.config import MAX_PREDICTIONS
from isc.descriptors import GroundTruth, Ids, Matches, first_repeat, id_problem
from isc.errors import InputError
from isc.io.files import atomic_path

PREDICTION_COLUMNS = ("query_id", "reference_id", "score")
GROUND_TRUTH_COLUMNS = ("query_id", "reference_id")


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
    (query, reference, text), first = _read_columns(path, PREDICTION_COLUMNS, max_rows)
    _check_ids(path, query, first, "query", query_ids)
    _check_ids(path, reference, first, "reference", reference_ids)
    score = _parse_scores(path, text, first, query, reference)
    try:
        return Matches.from_ids(query, reference, score)
    except InputError as error:
        repeat = first_repeat([f"{q},{r}" for q, r in zip(query, reference, strict=True)])
        if repeat is None:
            raise
        one, two = (row + first for row in repeat)
        pair = f"{query[repeat[1]]},{reference[repeat[1]]}"
        message = f"{path}: row {two}: the pair {pair} was already given in row {one}; expected each pair once"
        raise InputError(message) from error


def read_ground_truth(path: Path, *, query_ids: Ids | None = None, reference_ids: Ids | None = None) -> GroundTruth:
    """`query_id,reference_id`, header optional; an empty reference id marks a distractor. Repeated lines count once."""
    (query, reference), first = _read_columns(path, GROUND_TRUTH_COLUMNS, None)
    if not query:
        raise InputError(f"{path}: holds no rows; expected query_id,reference_id")
    _check_ids(path, query, first, "query", query_ids)
    _check_ids(path, reference, first, "reference", reference_ids, may_be_empty=True)
    pairs = [(q, r) for q, r in zip(query, reference, strict=True) if r]
    if not pairs:
        raise InputError(f"{path}: holds distractors alone; expected at least one query with a reference id")
    return GroundTruth(frozenset(query), frozenset(pairs), num_repeated=len(pairs) - len(set(pairs)))


def _read_columns(path: Path, names: Sequence[str], max_rows: int | None) -> tuple[list[list[str]], int]:
    """The columns of a CSV file and the number of their first row. Blank lines may end a file, not part it."""
    columns: list[list[str]] = [[] for _ in names]
    first = 1
    blank = False
    try:
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
    return columns, first


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
        unknown = f"is not among the {len(known):,} {what} images given (strict=false lets it pass)"
        wrong |= dict.fromkeys(set(names) - allowed - wrong.keys(), unknown)
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
