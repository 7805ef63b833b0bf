"""A new version of a provider: what it is asked again."""

from __future__ import annotations

import sqlalchemy as sa

from isc.serve.database import Database, trying_again
from isc.serve.kinds import SuggestionState
from isc.serve.requests import AGAIN, ask
from isc.serve.schema import image, provider, request, suggestion

TOGETHER = 500  # pictures in one transaction
STATES = {
    "open": (SuggestionState.unreviewed,),
    "decided": (SuggestionState.accepted, SuggestionState.rejected),
}


def ask_again(database: Database, name: str, which: str = "open") -> int | None:
    """Ask the current version of a provider about pictures of its earlier versions; None if it is not in use.

    `which` are the pictures with open suggestions, with decided ones, or all. What earlier versions said stays theirs.
    Returns the number of new requests.
    """
    with database.reading() as connection:
        current = connection.execute(
            sa.select(provider.c.id).where(provider.c.name == name, provider.c.current)
        ).scalar()
        if current is None:
            return None
        earlier = sa.select(provider.c.id).where(provider.c.name == name, provider.c.id != current)
        asked = sa.select(request.c.image_id).where(request.c.provider_id == current)
        if which == "all":
            wanted = sa.select(image.c.id).where(image.c.id.not_in(asked))
        else:
            wanted = sa.select(suggestion.c.image_id).where(
                suggestion.c.provider_id.in_(earlier),
                suggestion.c.state.in_(STATES[which]),
                suggestion.c.image_id.not_in(asked),
            )
        images = sorted(set(connection.scalars(wanted)), reverse=True)

    def write(part: list[int]) -> int:
        with database.writing() as connection:
            return ask(connection, part, [current], priority=AGAIN)

    parts = (images[start : start + TOGETHER] for start in range(0, len(images), TOGETHER))
    return sum(int(trying_again(lambda part=part: write(part))) for part in parts)
