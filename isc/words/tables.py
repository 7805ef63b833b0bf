"""Tables of texts in CSV and TSV files, plain or gzipped, read row by row with the line of each row."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from isc.errors import InputError

LONGEST = 1 << 24  # characters of a field; a whole page of Wikipedia has less


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, {column: text}) of each row; `columns` are those that the header must name.

    A name that ends in .tsv or .tsv.gz is a file with tabs, any other one with commas. The line is that where the row
    ends, from 1. Raises InputError for a file that cannot be read, is not UTF-8, or lacks a column, and for a row that
    has not as many fields as the header.
    """
    tabs = path.name.removesuffix(".gz").endswith(".tsv")
    line = 0
    try:
        with _long_fields(), _opened(path) as lines:
            reader = csv.reader(lines, delimiter="\t" if tabs else ",", strict=not tabs)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, columns)
            for fields in reader:
                line = reader.line_num
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise InputError(f"{path}: line {line}: {len(fields)} fields; expected {len(header)}")
                yield line, dict(zip(header, fields, strict=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: after line {line}: not UTF-8 text; expected UTF-8") from error
    except (csv.Error, zlib.error, EOFError) as error:
        raise InputError(f"{path}: after line {line}: not a table ({error}); expected CSV or TSV") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); expected a table") from error


def required(path: Path, line: int, row: Mapping[str, str], column: str) -> str:
    """Return the text of a column without blanks around it. Raises InputError, with the line, if it is empty."""
    text = row[column].strip()
    if not text:
        raise InputError(f"{path}: line {line}: {column} is empty; expected a text")
    return text


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(f"{path}: line 1: no column {missing[0]}; expected {', '.join(columns)}")


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[str]]:
    if path.name.endswith(".gz"):
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield iter(file)
    else:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)
