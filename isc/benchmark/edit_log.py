"""The reader of edits.jsonl, which holds the source photo and the edits of each query, one line per query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isc.benchmark.edits.chain import EDITS, Edit
from isc.data.json_files import parse_json, read_text
from isc.errors import InputError

AUGLY = "augly"  # value of the key "library" in a line with edits by AugLy


def read_edits(path: Path) -> dict[str, tuple[Edit, ...]]:
    """Return the edits of every query of an edits.jsonl, our own or AugLy's, by query id.

    Raises InputError, with the row, if a line is malformed.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected the edits.jsonl of a benchmark") from error
    found: dict[str, tuple[Edit, ...]] = {}
    for row, line in enumerate(lines, 1):
        try:
            query, edits = _parsed(line)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: row {row}: {error}; expected query_id and edits of name and params") from error
        if query in found:
            raise InputError(f"{path}: row {row}: query {query!r} was already given; expected each query once")
        found[query] = edits
    return found


def _parsed(line: str) -> tuple[str, tuple[Edit, ...]]:
    record = parse_json(line)
    query, edits = record["query_id"], [(edit["name"], dict(edit["params"])) for edit in record["edits"]]
    if not isinstance(query, str) or not query:
        raise ValueError(f"query_id {query!r} is no name")
    return query, _augly(edits) if record.get("library") == AUGLY or _only_augly(edits) else _own(edits)


def _own(edits: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Edit, ...]:
    found = tuple(Edit(name, params) for name, params in edits)
    for edit in found:
        if edit.name not in EDITS:
            raise ValueError(f"edit {edit.name!r} is unknown")
        edit.describe()
    return found


def _augly(edits: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Edit, ...]:
    from isc.benchmark.edits import augly, augly_draws

    found = tuple(augly.Edit(name, params) for name, params in edits)
    for edit in found:
        if edit.name not in augly_draws.EDITS:
            raise ValueError(f"edit {edit.name!r} is unknown to AugLy")
        edit.describe()
    return found


def _only_augly(edits: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    """Return True if the edits of a line without "library" can only be AugLy's; some names are in both libraries."""
    try:
        _own(edits)
    except (ValueError, TypeError, KeyError):
        try:
            _augly(edits)
        except (ValueError, TypeError, KeyError):
            return False  # in neither library: report the error of our own edits
        return True
    return False
