"""Checks of single values. They raise InputError with the key, the value and the expected values."""

from __future__ import annotations

import math

from isc.errors import InputError

REQUIRED = "???"  # OmegaConf's mark of a value that must be given


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
