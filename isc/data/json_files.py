"""JSON of strangers: read within bounds, and taken apart by type."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isc.errors import InputError

MAX_BYTES = 256 << 20  # of a JSON file
MAX_DEPTH = 64  # lists and objects inside one another
LARGEST = 1 << 53  # of whole numbers: JSON's other readers know none beyond


class NotRegularError(ValueError):
    """A file that is not read: a device or pipe, or one that is too large."""


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError for anything else, numbers that are not finite, and deep nesting."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError(f"lists or objects more than {MAX_DEPTH} deep") from error
    level, depth = [value], 0
    while level := [inner for outer in level for inner in _parts(outer)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"lists or objects more than {MAX_DEPTH} deep")
    return value


def read_text(path: Path) -> str:
    """Read a regular file of UTF-8 text, of at most MAX_BYTES. Raises OSError, or ValueError for another file."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise NotRegularError("is no regular file")
    if state.st_size > MAX_BYTES:
        raise NotRegularError(f"{state.st_size:,} bytes; expected at most {MAX_BYTES:,}")
    return path.read_text(encoding="utf-8")


def read_json(path: Path, *, expected: str) -> Any:
    """Read a JSON file. Raises InputError, which says what was `expected`, if it cannot be read or is none."""
    try:
        return parse_json(read_text(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    except NotRegularError as error:
        raise InputError(f"{path}: {error}; expected {expected}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON, or cut short ({error}); expected {expected}") from error


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [inner for inner in value.values() if isinstance(inner, dict | list)]
    return [inner for inner in value if isinstance(inner, dict | list)] if isinstance(value, list) else []


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


@dataclass(frozen=True)
class Fields:
    """The values of a JSON object, each taken by its name and type; `where` leads to the object, for messages.

    Every method raises ValueError for a value that is missing or of another type.
    """

    values: Mapping[str, Any]
    where: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise ValueError(f"{self.where.rstrip('.') or 'the file'} is {_shown(self.values)}; expected an object")

    @classmethod
    def of(cls, values: Mapping[str, Any] | Fields) -> Fields:
        """Return the fields of a mapping; fields as they are."""
        return values if isinstance(values, Fields) else cls(values)

    def value(self, name: str) -> Any:
        if name not in self.values:
            raise ValueError(f"no {self.where}{name}")
        return self.values[name]

    def text(self, name: str) -> str:
        return str(self._of(str, name, "a text"))

    def text_or_none(self, name: str) -> str | None:
        return None if self.value(name) is None else self.text(name)

    def flag(self, name: str) -> bool:
        return bool(self._of(bool, name, "true or false"))

    def count(self, name: str, *, least: int = 0) -> int:
        """Return a whole number of at least `least`."""
        found = self.value(name)
        if type(found) is not int or not least <= found <= LARGEST:
            self._refuse(name, f"a whole number, at least {least}")
        return int(found)

    def count_or_none(self, name: str, *, least: int = 0) -> int | None:
        return None if self.value(name) is None else self.count(name, least=least)

    def number(self, name: str) -> float:
        return _number(self.value(name), f"{self.where}{name}")

    def number_or_none(self, name: str) -> float | None:
        return None if self.value(name) is None else self.number(name)

    def numbers(self, name: str) -> tuple[float, ...]:
        return tuple(_number(one, f"{self.where}{name}") for one in self._of((list, tuple), name, "a list of numbers"))

    def fields(self, name: str) -> Fields:
        return Fields(self.value(name), f"{self.where}{name}.")

    def list(self, name: str) -> tuple[Fields, ...]:
        """Return a list of objects."""
        found = self._of(list, name, "a list of objects")
        return tuple(Fields(one, f"{self.where}{name}[{at}].") for at, one in enumerate(found))

    def _of(self, kind: type[Any] | tuple[type[Any], ...], name: str, expected: str) -> Any:
        found = self.value(name)
        if not isinstance(found, kind):
            self._refuse(name, expected)
        return found

    def _refuse(self, name: str, expected: str) -> None:
        raise ValueError(f"{self.where}{name} is {_shown(self.values[name])}; expected {expected}")


def _number(value: Any, name: str) -> float:
    if type(value) not in (int, float) or not abs(value) < 1e300:
        raise ValueError(f"{name} is {_shown(value)}; expected a finite number")
    return float(value)


def _shown(value: object) -> str:
    """Return a value as JSON, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}…"
