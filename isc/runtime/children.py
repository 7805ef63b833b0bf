"""Processes of this package's own Python code."""

from __future__ import annotations

import sys
from pathlib import Path

import isc

ROOT = Path(isc.__file__).resolve().parent.parent


def python(code: str, *arguments: str) -> list[str]:
    """Return the command that runs `code` with this Python, and with this package.

    A folder isc/ in the working directory does not hide it: Python does not look there (-P).
    """
    return [sys.executable, "-P", "-c", f"import sys; sys.path.append({str(ROOT)!r}); {code}", *arguments]
