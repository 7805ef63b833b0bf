"""Whether uploads can be taken in, and what stands in their way."""

from __future__ import annotations

import shutil

import sqlalchemy as sa

from isc.serve.api.state import State
from isc.serve.database import DatabaseAway

ROOM = 200_000_000  # bytes that must be free


def troubles(state: State) -> list[str]:
    """Return what is in the way of uploads, in words."""
    found = [] if _database_answers(state) else ["the database cannot be reached"]
    if disk_is_full(state):
        found.append("the disk is almost full")
    if state.broker.closing:
        found.append("the service is stopping")
    return found


def disk_is_full(state: State) -> bool:
    """Return whether the disk of the data folder has almost no room left."""
    return shutil.disk_usage(state.settings.data).free < ROOM


def _database_answers(state: State) -> bool:
    try:
        with state.database.reading() as connection:
            connection.execute(sa.select(sa.literal(1)))
    except DatabaseAway:
        return False
    return True
