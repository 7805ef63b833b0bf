"""Tables on a terminal, drawn by rich, and plain aligned lines elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence, Set

from isc.cli.console import printable

log = logging.getLogger(__name__)
LISTED = 5  # unreadable files that are named
COLOURS = {"copy": "bold blue", "perhaps": "bold yellow", "none": "dim", "exact": "bold blue", "near": "bold yellow"}


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Set[int] = frozenset()) -> None:
    """Print the rows under their column names, control characters written out; the columns in `right` are numbers."""
    if not sys.stdout.isatty():
        print(plain_table(columns, rows, right=right), end="")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(columns):
        table.add_column(name, justify="right" if at in right else "left", overflow="fold")
    for row in _written_out(rows):
        table.add_row(*(Text(cell, style=COLOURS.get(cell, "") if not at else "") for at, cell in enumerate(row)))
    Console().print(table)


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Set[int] = frozenset()) -> str:
    """Return the rows under their column names as aligned lines; the columns in `right` are numbers.

    Control characters, line breaks too, are written out.
    """
    rows = _written_out(rows)
    widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]
    lines = []
    for row in (columns, *rows):
        cells = (
            f"{cell:>{w}}" if at in right else f"{cell:{w}}"
            for at, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def _written_out(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[printable(cell).replace("\n", r"\n") for cell in row] for row in rows]


def shown_unreadable(unreadable: Sequence[tuple[str, str]]) -> None:
    """Log the first files that could not be read, and how many there are."""
    for path, reason in unreadable[:LISTED]:
        log.warning("left out: %s: %s", path, reason)
    if len(unreadable) > LISTED:
        log.warning("and %d more files that cannot be read", len(unreadable) - LISTED)
