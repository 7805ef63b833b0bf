"""Ids of images: arrays of unique strings, their checks and their look-up."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from isc.errors import InputError

Ids = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]
_USABLE_ID = re.compile(r"(?!\s)[^\0\ud800-\udfff]+(?<!\s)")
_PLAIN_ID = re.compile(r"[^,\"\n\r]+")


def as_ids(ids: Iterable[str], *, what: str = "id") -> Ids:
    """Return the ids as a one-dimensional object array of `str`, in the given order.

    Raises InputError for an id that is empty, begins or ends with a blank, or is not UTF-8
    text. `what` is the word for an id in the message.
    """
    names = list(ids)
    if not all_usable(names):
        row, problem = next((row, problem) for row, name in enumerate(names) if (problem := id_problem(name)))
        raise InputError(f"row {row}: {what} {names[row]!r} {problem}")
    return np.array(names, dtype=object)


def all_usable(names: Sequence[str]) -> bool:
    """Return whether every name is a usable id; faster than `id_problem` for each name."""
    try:
        text = "\0".join(names)
        text.encode()
    except (TypeError, UnicodeEncodeError):
        return False
    if not names:
        return True
    if text.count("\0") != len(names) - 1 or "\0\0" in f"\0{text}\0":
        return False
    return text.split(maxsplit=1) == [text] or all(map(operator.eq, map(str.strip, names), names))


def needs_quotes(names: Iterable[str]) -> str | None:
    """Return the first id that a CSV file can hold only in quotes, which the challenge's format forbids, or None."""
    return next((name for name in names if not _PLAIN_ID.fullmatch(name)), None)


def id_problem(name: object) -> str | None:
    """Return the reason why an id is not usable, or None."""
    if isinstance(name, str) and _USABLE_ID.fullmatch(name):
        return None
    if not isinstance(name, str):
        return f"is of type {type(name).__name__}; expected text"
    problems = {
        "is empty; expected a name": not name,
        "has blanks round it; expected none": name != name.strip(),
        "holds a NUL; rename it": "\0" in name,
    }
    return next((problem for problem, holds in problems.items() if holds), "is not UTF-8 text; rename it")


def first_repeat(names: Sequence[str] | Ids) -> tuple[int, int] | None:
    """Return the positions (first, second) of the first value that occurs twice, or None."""
    if len(set(names)) == len(names):  # the usual case; the loop below is slow for a million names
        return None
    seen: dict[str, int] = {}
    for row, name in enumerate(names):
        if name in seen:
            return seen[name], row
        seen[name] = row
    return None


def numbered(names: Sequence[str], keys: npt.NDArray[np.uint64] | None = None) -> tuple[Ids, IntArray]:
    """Return the distinct names in order of first appearance, and for each of `names` its position among them.

    `keys` [M], numbers that are equal if and only if the names are, avoid the comparison of half a million texts.
    """
    if keys is None:
        position = {name: i for i, name in enumerate(dict.fromkeys(names))}
        at = np.fromiter(map(position.__getitem__, names), np.int64, len(names))
        return np.array(list(position), dtype=object), at
    _, first, at = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return np.array([names[row] for row in first[order].tolist()], dtype=object), place[at]


def positions_in(ids: Ids, rows: IntArray, table: Ids) -> IntArray:
    """Return, for each row of `rows`, the position of `ids[row]` in the table, −1 if the table lacks the id."""
    position = dict(zip(table.tolist(), range(len(table)), strict=True)).get
    found = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), 4096):  # small blocks keep the text of the ids in the CPU cache
        block = slice(start, start + 4096)
        found[block] = list(map(position, ids[rows[block]].tolist(), itertools.repeat(-1)))
    return found


def repeated_key(keys: IntArray) -> tuple[int, int] | None:
    """Return the positions (first, second) of a repeated value, with the smallest second position, or None."""
    rising = np.sort(keys)
    if not (rising[1:] == rising[:-1]).any():
        return None
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    at = twice[np.argmin(order[twice + 1])]
    return int(order[at]), int(order[at + 1])
