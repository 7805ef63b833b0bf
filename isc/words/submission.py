"""Submissions of the caption competition: `id,caption_title_and_reference_description`, at most five rows an id."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from isc.data.csv_files import write_csv
from isc.errors import InputError
from isc.words.caption_files import CAPTION
from isc.words.tables import required, rows

MOST = 5  # rows of an id; only these count in the score


def write_submission(path: Path, found: Mapping[str, Sequence[str]]) -> None:
    """Write the texts of each id, best first. Raises InputError for an id with more than five, or one text twice."""
    for name, texts in found.items():
        if len(texts) > MOST:
            raise InputError(f"id {name!r}: {len(texts)} captions; expected at most {MOST}")
        if len(set(texts)) < len(texts):
            raise InputError(f"id {name!r}: a caption occurs twice; expected each once")
    write_csv(path, ("id", CAPTION), ((name, text) for name, texts in found.items() for text in texts))


def read_submission(
    path: Path, *, ids: Collection[str] | None = None, texts: Collection[str] | None = None
) -> dict[str, list[str]]:
    """Read and check a submission; return the texts of each id, best first.

    Raises InputError, with the line and the id, for a sixth row of an id, a text that the id already has, an id that is
    not in `ids`, a text that is not in `texts`, and for an id of `ids` without a row.
    """
    known_ids = None if ids is None else set(ids)
    known_texts = None if texts is None else {text.strip() for text in texts}
    found: dict[str, list[str]] = {}
    for line, row in rows(path, ("id", CAPTION)):
        name, text = required(path, line, row, "id"), required(path, line, row, CAPTION)
        place = f"{path}: line {line}: id {name!r}"
        if known_ids is not None and name not in known_ids:
            raise InputError(f"{place} is not among the {len(known_ids):,} pictures")
        if known_texts is not None and text not in known_texts:
            raise InputError(f"{place}: {text[:60]!r} is not among the {len(known_texts):,} captions")
        given = found.setdefault(name, [])
        if text in given:
            raise InputError(f"{place}: {text[:60]!r} was already given; expected each caption once")
        if len(given) == MOST:
            raise InputError(f"{place}: row {MOST + 1} of this id; expected at most {MOST}, best first")
        given.append(text)
    missing = next((name for name in ids or () if name not in found), None)
    if missing is not None:
        raise InputError(f"{path}: id {missing!r} has no caption; expected 1 to {MOST} rows for each picture")
    return found
