"""Keys with their sentences, and checks of their values.

The checks raise InputError with the key, the value and the expected values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import field
from typing import Any

from isc.errors import InputError

HELP = "help"  # key of a field's metadata: what the configuration key is for
REQUIRED = "???"  # OmegaConf's mark of a value that must be given


def key(default: object, sentence: str) -> Any:
    """Return the field of a configuration key, with the sentence that --help says of it."""
    return field(default=default, metadata={HELP: sentence})


def part(factory: Callable[[], object], sentence: str) -> Any:
    """Return the field of a list, or of a group of keys, with the sentence that --help says of it."""
    return field(default_factory=factory, metadata={HELP: sentence})


def check(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise InputError(f"{name}={value}: expected {expected}")


def check_at_least(least: float, **values: float) -> None:
    for name, value in values.items():
        check(least <= value < math.inf, name.replace("__", "."), value, f"a finite number, at least {least:g}")


def check_texts(config: object) -> None:
    """Raise InputError for an empty text: an empty path would mean the working directory."""
    for name, value in vars(config).items():
        check(value != "", name, value, "a name or a path")


def check_share(**values: float) -> None:
    for name, value in values.items():
        check(0 <= value <= 1, name.replace("__", "."), value, "a share in 0…1")
