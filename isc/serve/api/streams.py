"""Models of the streams: the lines of the export, and the data of each kind of event."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel

from isc.serve.api.models import CaptionResult, LabelResult
from isc.serve.kinds import Decision, ImageState, Kind, Question, SuggestionState

Corners = list[tuple[float, float]]


class Exact(BaseModel):
    """An object with these keys and no others."""

    model_config = ConfigDict(extra="forbid")


class DecidedCopy(Exact):
    """A copy match that was decided; the regions are the part that both pictures show, in fractions."""

    distance: float
    probability: float | None
    verdict: str
    image_region: Corners | None
    other_region: Corners | None
    mirrored: bool
    evidence: dict[str, Any]


class DecidedProduct(Exact):
    """An item of a shop that was decided."""

    item_id: str
    title: str
    item_kind: str
    probability: float
    region: Corners | None
    picture: str
    evidence: dict[str, float | str]


class Verdict(Exact):
    """The state of a suggestion: `image`, and `other` of a copy, are pictures by their SHA-256."""

    suggestion: int
    kind: Kind
    state: SuggestionState
    provider: str
    version: str
    result: DecidedCopy | DecidedProduct | LabelResult | CaptionResult
    other: str | None = None


class CastVote(Exact):
    """A vote of the record."""

    reviewer: str
    decision: Decision
    created: float


class ExportedDecision(Verdict):
    """A line of the export: a decided suggestion with its votes, and of a caption the standing answers by reviewer."""

    image: str
    audit: bool
    score: float
    votes: list[CastVote]
    ratings: dict[Question, dict[str, Decision]] | None = None


class OfImage(Exact):
    """The data of every event: the number of the picture, and when it happened, in seconds since 1970."""

    image: int
    at: float


class Received(OfImage):
    """The data of the event `received`, when a picture was taken in."""


class Answered(OfImage):
    """The data of the event `answered`: results of a provider, and how many of them people are asked about."""

    request: int
    provider: str
    results: int
    suggestions: int


class Failed(OfImage):
    """The data of the event `failed`, when a request waits for a person as a dead letter."""

    request: int
    provider_id: int
    error: str


class Decided(Verdict, OfImage):
    """The data of the event `decided`, when people gave a suggestion another state; `sha256` is that of the picture."""

    sha256: str


class StateChanged(OfImage):
    """The data of the event `state`, when a person gave the picture another state."""

    state: ImageState


class CaptionWritten(OfImage):
    """The data of the event `caption`, when a person wrote a caption of the picture."""

    writer: str


EVENT_DATA: dict[str, type[OfImage]] = {
    "received": Received,
    "answered": Answered,
    "failed": Failed,
    "decided": Decided,
    "state": StateChanged,
    "caption": CaptionWritten,
}


class EventData(RootModel[Received | Answered | Failed | Decided | StateChanged | CaptionWritten]):
    """The data of an event, by its kind."""


def stream_of(media: str, model: type[BaseModel], about: str) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a stream: a text whose lines, or events, have JSON of this model."""
    part = {"$ref": f"#/components/schemas/{model.__name__}"}
    schema = {"type": "string", "contentMediaType": media, "contentSchema": part}
    return {200: {"content": {media: {"schema": schema}}, "description": about}}


def file_of(media: str, about: str) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a file."""
    schema = {"type": "string", "format": "binary", "contentMediaType": media}
    return {200: {"content": {media: {"schema": schema}}, "description": about}}
