"""The keys of a verb, read from the dataclass of its configuration."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

from isc.config.checks import HELP

CONF = Path(__file__).parents[1] / "conf"
KINDS = {int: "whole number", float: "number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Key:
    """A key of a verb: its dotted name, its type, and its default and sentence as --help shows them."""

    name: str
    type: Any
    default: str
    sentence: str

    @property
    def kind(self) -> str:
        """The type in words."""
        return _kind(self.type)


def keys_of(schema: type[Any], prefix: str = "") -> tuple[Key, ...]:
    """Return all keys of a configuration dataclass, nested ones with dots, in their order."""
    return _keys_of(cast(Hashable, schema), prefix)


@cache
def _keys_of(hashable: Hashable, prefix: str) -> tuple[Key, ...]:
    schema = cast(type[Any], hashable)
    hints, found = get_type_hints(schema), list[Key]()
    for field in fields(schema):
        kind: Any = hints[field.name]
        if is_dataclass(kind) and isinstance(kind, type):
            found += keys_of(kind, f"{prefix}{field.name}.")
            continue
        default = field.default if field.default is not MISSING else []
        found.append(Key(prefix + field.name, kind, _written(default), field.metadata.get(HELP, "")))
    return tuple(found)


def keys(schema: type[Any], prefix: str = "") -> list[str]:
    """Return the names of all keys of a configuration dataclass."""
    return [key.name for key in keys_of(schema, prefix)]


def type_of(schema: type[Any], key: str) -> Any:
    """Return the type of a dotted key."""
    head, _, rest = key.partition(".")
    kind = get_type_hints(schema)[head]
    return type_of(kind, rest) if rest else kind


def items_of(kind: Any) -> type[Any] | None:
    """Return the dataclass of the items of a list, None for any other type."""
    [item, *_] = get_args(kind) or (None,)
    return item if get_origin(kind) is list and is_dataclass(item) and isinstance(item, type) else None


def _kind(kind: Any) -> str:
    if isinstance(kind, UnionType):
        return _kind(next(one for one in get_args(kind) if one is not type(None)))
    if get_origin(kind) is list:
        return "list"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(one.value for one in kind)
    return KINDS[kind]


def _written(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
