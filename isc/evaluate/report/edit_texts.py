"""The edits of each query in words, from the edits.jsonl of a benchmark."""

from __future__ import annotations

from pathlib import Path

from isc.data.json_files import parse_json, read_text
from isc.errors import InputError


def read_edit_texts(path: Path) -> dict[str, list[str]]:
    """Read the texts of each query's edits, in their order, by query id.

    An edit without `text` is described by its `name`. Raises InputError for an unreadable file, and with the row for a
    malformed line.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected the edits.jsonl of a benchmark") from error
    found: dict[str, list[str]] = {}
    for row, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
            query, texts = record["query_id"], [edit.get("text", edit["name"]) for edit in record["edits"]]
            if not all(isinstance(text, str) and text for text in (query, *texts)):
                raise ValueError("an id, name or text is empty or no text")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path}: row {row}: {error}; expected query_id and edits of name and text") from error
        if query in found:
            raise InputError(f"{path}: row {row}: query {query!r} was already given; expected each query once")
        found[query] = texts
    return found
