"""Decisions on their way back to the models: lines of JSON, and files of labelled pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from isc.serve.captions import standing_answers
from isc.serve.database import Database, rows_among
from isc.serve.kinds import Kind, SuggestionState
from isc.serve.schema import copy_match, image, product, provider, suggestion, vote
from isc.serve.votes import verdict_body

PAGE = 500
DECIDED = (SuggestionState.accepted, SuggestionState.rejected)


def decided_lines(database: Database, *, after: int = 0) -> Iterator[str]:
    """Yield every decided suggestion after this id with its votes, one JSON object a line, by id."""
    while True:
        with database.reading() as connection:
            wanted = sa.select(suggestion).where(suggestion.c.id > after, suggestion.c.state.in_(DECIDED))
            rows = connection.execute(wanted.order_by(suggestion.c.id).limit(PAGE)).all()
            lines = []
            for row in rows:
                votes = connection.execute(sa.select(vote).where(vote.c.suggestion_id == row.id).order_by(vote.c.id))
                cast = [{"reviewer": v.reviewer, "decision": v.decision, "created": v.created} for v in votes]
                body = {
                    **verdict_body(connection, row, row.state),
                    "audit": row.audit,
                    "score": row.score,
                    "votes": cast,
                }
                if row.kind == Kind.caption:
                    body["ratings"] = _ratings(connection, row.id)
                lines.append(json.dumps(body, ensure_ascii=False) + "\n")
        yield from lines
        if len(rows) < PAGE:
            return
        after = rows[-1].id


def _ratings(connection: Connection, number: int) -> dict[str, dict[str, str]]:
    """Return the standing answers about a caption: {question: {reviewer: answer}}."""
    found = standing_answers(connection, suggestions=[number])
    return {
        question.value: {who: one.value for who, one in said.items()} for (_, question), said in found.items() if said
    }


@dataclass(frozen=True)
class LabelledPair:
    """A pair that people decided: the later picture, the earlier one, its scores, and the decision.

    `score` is the calibrated probability that was shown, `fused` the one before calibration; `version_of` the SHA-256
    of a likelier picture that shows the same as the reference, None if there was none.
    """

    query: str
    reference: str
    query_path: str | None
    reference_path: str | None
    distance: float
    score: float
    fused: float
    copy: bool
    audit: bool
    version_of: str | None = None


def labelled_pairs(database: Database, *, provider_name: str = "copy") -> list[LabelledPair]:
    """Return the decided copy matches of a provider, by the SHA-256 of both pictures; of a pair, the last one."""
    one, other = image.alias("one"), image.alias("other")
    columns = (one.c.id, one.c.sha256, one.c.path, other.c.id, other.c.sha256, other.c.path, copy_match.c.distance,
               suggestion.c.score, copy_match.c.evidence, suggestion.c.state, suggestion.c.audit)  # fmt: skip
    wanted = (
        sa.select(*columns)
        .select_from(suggestion)
        .join(copy_match, copy_match.c.id == suggestion.c.result_id)
        .join(provider, provider.c.id == suggestion.c.provider_id)
        .join(one, one.c.id == copy_match.c.image_id)
        .join(other, other.c.id == copy_match.c.other_id)
        .where(suggestion.c.kind == Kind.copy, suggestion.c.state.in_(DECIDED), provider.c.name == provider_name)
        .order_by(suggestion.c.id)
    )
    found: dict[tuple[str, str], LabelledPair] = {}
    with database.reading() as connection:
        rows = connection.execute(wanted).all()
        versions = {row.evidence["version_of"] for row in rows if "version_of" in row.evidence}
        digests = rows_among(connection, sa.select(image.c.id, image.c.sha256), image.c.id, versions)
        known = {row.id: row.sha256 for row in digests}
    for a, sha_a, path_a, b, sha_b, path_b, distance, score, evidence, state, audit in rows:
        pair = (sha_a, sha_b, path_a, path_b) if a > b else (sha_b, sha_a, path_b, path_a)
        copy = state == SuggestionState.accepted
        fused = float(evidence.get("fused", score))
        version_of = known.get(evidence.get("version_of")) if a > b else None
        found[pair[0], pair[1]] = LabelledPair(*pair, distance, score, fused, copy, bool(audit), version_of)
    return list(found.values())


@dataclass(frozen=True)
class ShownItem:
    """A picture, by its SHA-256, and the item of a shop that people accepted for it; `path` as in `image`."""

    sha256: str
    path: str | None
    item_id: str


def shown_items(database: Database) -> list[ShownItem]:
    """Return the accepted items by picture; of a picture with several, the one that was decided last."""
    wanted = (
        sa.select(image.c.sha256, image.c.path, product.c.item_id)
        .select_from(suggestion)
        .join(product, product.c.id == suggestion.c.result_id)
        .join(image, image.c.id == product.c.image_id)
        .where(suggestion.c.kind == Kind.product, suggestion.c.state == SuggestionState.accepted)
        .order_by(suggestion.c.decided, suggestion.c.id)
    )
    with database.reading() as connection:
        found = {row.sha256: ShownItem(*row) for row in connection.execute(wanted)}
    return [found[digest] for digest in sorted(found)]
