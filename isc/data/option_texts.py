"""Option texts: steps joined by `+`, each `name`, `name:…` or `name:option=value,…`; a shell needs no quotes for them.

The reader of a text says which names it knows, and what a value may be.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

from isc.errors import InputError


def split_steps(text: str, known: Collection[str], *, expected: str) -> list[tuple[str, str | None]]:
    """Split `flip+crop:0.7` to (name, text after its colon) for each step; without a colon the second is None.

    Raises InputError for a name that is not `known`; `expected` ends the message.
    """
    steps: list[tuple[str, str | None]] = []
    for step in text.split("+"):
        name, colon, rest = step.partition(":")
        if name not in known:
            raise InputError(f"unknown step {name!r}; expected {expected}{nearest_name(name, known)}")
        steps.append((name, rest if colon else None))
    return steps


def split_options(text: str, known: Collection[str] | None = None) -> dict[str, str]:
    """Split `dim=128,ridge=0.01` to {name: text of the value}, in the order of the text.

    Raises InputError for a name that is not `known` (None: any is), that comes twice, or that has no value.
    """
    options: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if known is not None and name not in known:
            hint = nearest_name(name, known)
            raise InputError(f"{part}: unknown option {name!r}; expected {', '.join(known)}{hint}")
        if not equals or name in options:
            raise InputError(f"{part}: expected each option once, as {name}=VALUE")
        options[name] = value
    return options


def nearest_name(name: str, known: Collection[str]) -> str:
    """Return `: did you mean NAME?` with the most similar of the `known` names; nothing if none is similar."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f": did you mean {close[0]}?" if close else ""
