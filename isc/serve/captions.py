"""Captions as people see them: three questions about each, and captions that a person wrote.

Answers are a record like votes: a later answer of the same reviewer replaces the one before, and both stay. The answer
to `right` is the reviewer's vote about the suggestion as well. A written caption has a table of its own, to which no
provider writes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from isc.errors import InputError
from isc.serve.database import Database, trying_again
from isc.serve.kinds import Decision, Kind, Question, SuggestionState
from isc.serve.schema import event, image, rating, suggestion, written_caption
from isc.serve.settings import Settings
from isc.serve.votes import NoSuggestion, Reviewer, Voted, record_vote

LONGEST = 2_000  # characters of a written caption


@dataclass(frozen=True)
class Written:
    """A caption that a person wrote about a picture, by its SHA-256. Raises InputError for one without text."""

    sha256: str
    text: str
    language: str | None
    writer: str
    created: float

    def __post_init__(self) -> None:
        if not self.text.strip() or len(self.text) > LONGEST:
            raise InputError(f"a caption of {len(self.text)} characters; expected 1 to {LONGEST:,}, not blank")


def rate(
    database: Database, settings: Settings, reviewer: Reviewer, number: int, answers: Mapping[Question, Decision]
) -> Voted:
    """Record a reviewer's answers about a caption, all or none; return its state, and whether an answer was new.

    Raises NoSuggestion for a suggestion that is not there, or is no caption.
    """

    def write() -> Voted:
        with database.writing() as connection:
            kind = connection.scalar(sa.select(suggestion.c.kind).where(suggestion.c.id == number).with_for_update())
            if kind != Kind.caption:
                raise NoSuggestion(f"suggestion {number}: is no caption")
            new = [_rated(connection, reviewer.name, number, *one) for one in answers.items()]
            if (vote := answers.get(Question.right)) is not None:
                record_vote(connection, settings, reviewer, number, vote)
            state = connection.scalar(sa.select(suggestion.c.state).where(suggestion.c.id == number))
            return Voted(number, SuggestionState(str(state)), new=any(new))

    result: Voted = trying_again(write)
    return result


def _rated(connection: Connection, reviewer: str, number: int, question: Question, answer: Decision) -> bool:
    """Write an answer, unless it is the reviewer's last one about this question; return whether it was written."""
    mine = (rating.c.suggestion_id == number) & (rating.c.reviewer == reviewer) & (rating.c.question == question)
    last = connection.execute(
        sa.select(rating.c.answer, rating.c.number).where(mine).order_by(rating.c.number.desc()).limit(1)
    ).first()
    if answer == (last.answer if last else Decision.undo):
        return False
    row = {"suggestion_id": number, "reviewer": reviewer, "question": question, "answer": answer,
           "number": last.number + 1 if last else 1, "created": time.time()}  # fmt: skip
    connection.execute(sa.insert(rating).values(row))
    return True


def standing_answers(
    connection: Connection, *, suggestions: Sequence[int] | None = None, provider_id: int | None = None
) -> dict[tuple[int, Question], dict[str, Decision]]:
    """Return each reviewer's last answer by suggestion and question; an answer that was taken back is left out."""
    wanted = sa.select(rating).order_by(rating.c.id)
    if suggestions is not None:
        wanted = wanted.where(rating.c.suggestion_id.in_(suggestions))
    if provider_id is not None:
        wanted = wanted.join(suggestion, suggestion.c.id == rating.c.suggestion_id)
        wanted = wanted.where(suggestion.c.provider_id == provider_id)
    found: dict[tuple[int, Question], dict[str, Decision]] = {}
    for row in connection.execute(wanted):
        said = found.setdefault((row.suggestion_id, Question(row.question)), {})
        if row.answer == Decision.undo:
            said.pop(row.reviewer, None)
        else:
            said[row.reviewer] = Decision(row.answer)
    return found


def write_caption(database: Database, writer: str, image_id: int, text: str, *, language: str | None = None) -> Written:
    """Keep a caption that a person wrote; the one before it in the same language stays in the record.

    Raises LookupError for a picture that is not there, and InputError for a caption without text.
    """

    def write() -> Written:
        with database.writing() as connection:
            digest = connection.scalar(sa.select(image.c.sha256).where(image.c.id == image_id))
            if digest is None:
                raise LookupError(f"image {image_id}: is not there")
            one = Written(str(digest), " ".join(text.split()), language, writer, time.time())
            row = {
                "image_id": image_id,
                "text": one.text,
                "language": language,
                "writer": writer,
                "created": one.created,
            }
            connection.execute(sa.insert(written_caption).values(row))
            said = {"image_id": image_id, "kind": "caption", "body": {"writer": writer}, "created": one.created}
            connection.execute(sa.insert(event).values(said))
            return one

    result: Written = trying_again(write)
    return result


def written_captions(connection: Connection, *, image_id: int | None = None) -> list[Written]:
    """Return the last caption that a person wrote in each language, of one picture or of all, by their numbers."""
    columns = (image.c.sha256, written_caption.c.text, written_caption.c.language, written_caption.c.writer,
               written_caption.c.created)  # fmt: skip
    wanted = sa.select(*columns).join(image, image.c.id == written_caption.c.image_id).order_by(written_caption.c.id)
    if image_id is not None:
        wanted = wanted.where(image.c.id == image_id)
    last: dict[tuple[str, str | None], Written] = {}
    for row in connection.execute(wanted):
        last[row.sha256, row.language] = Written(*row)
    return list(last.values())


def is_written(connection: Connection, image_id: int, language: str | None) -> bool:
    """Return whether a person wrote a caption of the picture in this language."""
    same = written_caption.c.language == language if language else written_caption.c.language.is_(None)
    asked = sa.select(written_caption.c.id).where(written_caption.c.image_id == image_id, same)
    return connection.execute(asked.limit(1)).first() is not None
