"""Storage of a provider's results in the table of their kind, and of suggestions from them, in one transaction."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from isc.evaluate.metrics import wilson
from isc.serve.captions import is_written
from isc.serve.database import Database, insert_ignoring, trying_again
from isc.serve.kinds import ImageState, Kind, RequestState, SuggestionState
from isc.serve.outbox import WEBHOOK, enqueue
from isc.serve.reasons import (
    FLOODED,
    MANY_MATCHES,
    NEGATIVE,
    PLAIN,
    QUARANTINED,
    RENEWED,
    TOLD_BEFORE,
    WRITTEN,
    Why,
    below,
    listed,
    rarely_accepted,
)
from isc.serve.requests import Leased, close
from isc.serve.results import Caption, CopyMatch, Hash, Label, Number, Product, Result, ShopPicture, Suggested
from isc.serve.schema import RESULTS, copy_match, event, image, listing, number, request, shop_picture, suggestion
from isc.serve.schema import provider as provider_table
from isc.serve.settings import Settings

TOO_PLAIN = 0.9  # plainness from which a copy is explained by the lack of anything to see
HOUR = 3600.0


@dataclass(frozen=True)
class Asked:
    """The state of a new suggestion, and why."""

    state: SuggestionState
    why: Why | None = None
    audit: bool = False


def store(database: Database, settings: Settings, held: Leased, provider: str, results: Sequence[Result]) -> bool:
    """Write the results of a leased request; return False, and write nothing, if the lease was lost.

    Results about a picture that is gone go with it.
    """

    def write() -> bool:
        with database.writing() as connection:
            if not close(connection, held, RequestState.done, finished=time.time(), error=None):
                return False
            _hide_earlier(connection, held, provider, results)
            kept = [one for one in results if not isinstance(one, CopyMatch) or _there(connection, one.other)]
            asked = [_stored(connection, settings, held, provider, one) for one in kept]
            said = {
                "request": held.id,
                "provider": provider,
                "results": len(kept),
                "suggestions": sum(one is not None and one.state is SuggestionState.unreviewed for one in asked),
            }
            _tell(connection, settings, held, said)
            return True

    return bool(trying_again(write))


def _hide_earlier(connection: Connection, held: Leased, provider: str, results: Sequence[Result]) -> None:
    """Hide what other versions of the provider suggested about the picture, so that nobody is asked a thing twice.

    This holds for the same pairs of pictures the other way round as well. What people have decided stays.
    """
    others_of = provider_table.c.id != held.provider_id
    versions = sa.select(provider_table.c.id).where(provider_table.c.name == provider, others_of)
    if not (earlier := list(connection.scalars(versions))):
        return
    others = [one.other for one in results if isinstance(one, CopyMatch)]
    turned = sa.select(copy_match.c.id).where(copy_match.c.image_id.in_(others), copy_match.c.other_id == held.image_id)
    pair = (suggestion.c.kind == Kind.copy) & suggestion.c.result_id.in_(turned)
    open_ = suggestion.c.provider_id.in_(earlier) & (suggestion.c.state == SuggestionState.unreviewed)
    same = (suggestion.c.image_id == held.image_id) | pair
    hidden = {"state": SuggestionState.hidden, **RENEWED.of_suggestion()}
    connection.execute(sa.update(suggestion).where(open_, same).values(hidden))


def _there(connection: Connection, other: int) -> bool:
    return connection.execute(sa.select(image.c.id).where(image.c.id == other)).first() is not None


def _tell(connection: Connection, settings: Settings, held: Leased, said: dict[str, object]) -> None:
    now = time.time()
    connection.execute(sa.insert(event).values(image_id=held.image_id, kind="answered", body=said, created=now))
    for name in settings.webhooks:
        body = {"event": "answered", "image": held.sha256, **said}
        enqueue(connection, f"{WEBHOOK}{name}", f"{name}:answered:{held.id}", body)


def _stored(connection: Connection, settings: Settings, held: Leased, provider: str, result: Result) -> Asked | None:
    """Write one result, and the suggestion that it makes; numbers and hashes make none."""
    if isinstance(result, Hash):
        connection.execute(sa.update(image).where(image.c.id == held.image_id).values(pdq=result.pdq))
        return None
    row = {"request_id": held.id, "image_id": held.image_id, **result.row()}
    if isinstance(result, Product):
        row["picture_id"] = _kept(connection, result.picture)
    key = connection.execute(sa.insert(RESULTS[result.kind]).values(row)).inserted_primary_key
    if isinstance(result, Number):
        return None
    if isinstance(result, CopyMatch) and result.verdict == "none":
        return None
    asked = _asked(connection, settings, held, provider, result)
    if isinstance(result, CopyMatch) and _told_before(connection, held, result.other):
        asked = Asked(SuggestionState.hidden, TOLD_BEFORE)
    connection.execute(
        sa.insert(suggestion).values(
            image_id=held.image_id,
            request_id=held.id,
            provider_id=held.provider_id,
            kind=result.kind,
            result_id=key[0] if key else None,
            state=asked.state,
            **(asked.why.of_suggestion() if asked.why else {}),
            audit=asked.audit,
            score=result.score,
            priority=priority(result.score, impact(result)),
            shuffle=random.random(),
            created=time.time(),
        )
    )
    return asked


def _kept(connection: Connection, picture: ShopPicture) -> int:
    """Return the number of a shop's picture, which is kept once."""
    digest = hashlib.sha256(picture.jpeg).hexdigest()
    known = sa.select(shop_picture.c.id).where(shop_picture.c.sha256 == digest)
    if (found := connection.scalar(known)) is None:
        insert_ignoring(connection, shop_picture, {"sha256": digest, "jpeg": picture.jpeg})
        found = connection.scalars(known).one()
    return int(found)


def _told_before(connection: Connection, held: Leased, other: int) -> bool:
    """Return whether the provider has suggested this pair the other way round: both arrived at once.

    The rows of both pictures are locked, so that two workers cannot overlook each other.
    """
    pair = sorted((held.image_id, other))
    connection.execute(sa.select(image.c.id).where(image.c.id.in_(pair)).order_by(image.c.id).with_for_update())
    same = sa.select(copy_match.c.id).join(request, request.c.id == copy_match.c.request_id)
    turned = (copy_match.c.image_id == other) & (copy_match.c.other_id == held.image_id)
    return connection.execute(same.where(turned, request.c.provider_id == held.provider_id)).first() is not None


def priority(score: float, weight: float) -> float:
    """Return the likely impact times the uncertainty of a suggestion: a coin flip of the largest impact gives 1."""
    return weight * 4 * score * (1 - score) + 0.001 * weight


def impact(result: Suggested) -> float:
    """Return how much a decision changes, 0…1: a copy of the whole picture more than one of a corner."""
    if isinstance(result, CopyMatch):
        return 0.5 + 0.5 * area(result.other_region) if result.other_region else 0.5
    return 0.3 if isinstance(result, Label | Product) else 0.2


def area(corners: Sequence[tuple[float, float]]) -> float:
    """Return the area of a polygon (the shoelace formula), of fractions at most 1."""
    ends = zip(corners, [*corners[1:], corners[0]], strict=True)
    return min(1.0, abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in ends)) / 2)


def _asked(connection: Connection, settings: Settings, held: Leased, provider: str, result: Suggested) -> Asked:
    """Return whether a person is asked about a result. A share of the withheld is shown at random, for audits."""
    show, withhold = settings.thresholds(provider, result.kind)
    if result.score < show:
        return Asked(SuggestionState.hidden, below(result.score, show))
    firm = _explained(connection, settings, held, result) or _listed(connection, result)
    if firm is None and isinstance(result, Caption) and is_written(connection, held.image_id, result.language):
        firm = WRITTEN
    if firm:
        return Asked(SuggestionState.withheld, firm)
    why = below(result.score, withhold) if result.score < withhold else None
    why = why or _rarely_accepted(connection, settings, held.provider_id, result.kind)
    if why and random.random() < settings.rules(result.kind).audit:
        return Asked(SuggestionState.unreviewed, why, audit=True)
    return Asked(SuggestionState.withheld, why) if why else Asked(SuggestionState.unreviewed)


def _explained(connection: Connection, settings: Settings, held: Leased, result: Suggested) -> Why | None:
    """Return what else explains a match: a negative picture, a flood, or pictures that are almost empty."""
    if not isinstance(result, CopyMatch):
        return None
    states = sa.select(image.c.state).where(image.c.id.in_((held.image_id, result.other)))
    found = set(connection.scalars(states))
    if ImageState.negative in found:
        return NEGATIVE
    if ImageState.quarantined in found:
        return QUARANTINED
    if _flooded(connection, settings, result.other):
        return FLOODED
    plain = sa.select(sa.func.max(number.c.value)).where(
        number.c.image_id.in_((held.image_id, result.other)), number.c.classifier == "plainness"
    )
    if not result.evidence.get("same_file") and (connection.execute(plain).scalar() or 0) >= TOO_PLAIN:
        return PLAIN
    return None


def _flooded(connection: Connection, settings: Settings, other: int) -> bool:
    """Return whether a picture had more matches within an hour than the limit; it is in quarantine then.

    Only its last matches are read, as many as the limit: a picture may have had millions.
    """
    most = settings.rules(Kind.copy).flood
    same = (suggestion.c.result_id == copy_match.c.id) & (suggestion.c.kind == Kind.copy)
    matches = sa.select(suggestion.c.created).select_from(copy_match.join(suggestion, same))
    last = matches.where(copy_match.c.other_id == other).order_by(copy_match.c.id.desc()).limit(most)
    times = connection.scalars(last).all()
    if len(times) < most or times[-1] <= time.time() - HOUR:
        return False
    connection.execute(
        sa.update(image)
        .where(image.c.id == other, image.c.state == ImageState.active)
        .values(state=ImageState.quarantined, **MANY_MATCHES.of_image())
    )
    return True


def _listed(connection: Connection, result: Suggested) -> Why | None:
    if not isinstance(result, Label):
        return None
    values = [result.name, *([result.wikidata] if result.wikidata else [])]
    found = connection.execute(
        sa.select(listing.c.value)
        .where(listing.c.action == "withhold", listing.c.kind == result.kind, listing.c.value.in_(values))
        .limit(1)
    ).scalar()
    return None if found is None else listed(str(found))


def _rarely_accepted(connection: Connection, settings: Settings, provider_id: int, kind: Kind) -> Why | None:
    """Return why a provider's suggestions are withheld, if people have rejected almost all of the last ones."""
    rules = settings.rules(kind)
    decided = (SuggestionState.accepted, SuggestionState.rejected)
    last = connection.scalars(
        sa.select(suggestion.c.state)
        .where(suggestion.c.provider_id == provider_id, suggestion.c.kind == kind)
        .where(suggestion.c.decided.is_not(None), suggestion.c.state.in_(decided))
        .order_by(suggestion.c.decided.desc())
        .limit(rules.window)
    ).all()
    if len(last) < min(20, rules.window):
        return None
    accepted = sum(state == SuggestionState.accepted for state in last)
    high = wilson(accepted, len(last))[1]
    return rarely_accepted(accepted, len(last)) if high < rules.acceptance else None
