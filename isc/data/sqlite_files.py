"""SQLite files that others may have changed: checks before a statement relies on what is in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection


def require_tables_alone(database: sqlite3.Connection, tables: Collection[str]) -> None:
    """Raise sqlite3.DatabaseError for anything but these tables and their indexes.

    A view in the place of a table, or a trigger, could run for ever.
    """
    database.execute("PRAGMA trusted_schema = OFF")
    try:
        held = database.execute("SELECT type, name FROM sqlite_master").fetchall()
    except UnicodeDecodeError as error:  # in a message of SQLite's too, which repeats the damaged text
        raise sqlite3.DatabaseError("its list of tables is damaged") from error
    for kind, name in held:
        if kind != "index" and (kind != "table" or name not in tables):
            raise sqlite3.DatabaseError(f"it holds the {kind} {name!r}; expected the tables {', '.join(tables)} alone")
