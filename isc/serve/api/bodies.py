"""The bodies of requests; unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from isc.serve.api.models import Id, Text
from isc.serve.kinds import Decision, ImageState

Note = Annotated[str | None, Field(max_length=500, pattern=r"^[^\x00]*$")]


class Strict(BaseModel):
    """A body of a request: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class NewVote(Strict):
    """A decision about a suggestion."""

    decision: Decision


class SuggestionVote(Strict):
    """A decision about one suggestion of a batch."""

    suggestion: Id
    decision: Decision


class NewVotes(Strict):
    """Decisions about several suggestions: all are recorded, or none."""

    votes: Annotated[list[SuggestionVote], Field(min_length=1, max_length=500)]


Answer = Literal[Decision.accept, Decision.reject, Decision.unsure]


class NewRating(Strict):
    """Answers about a caption: is it right, is it helpful, does it sound like an encyclopaedia? Accept is yes."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    right: Answer | SkipJsonSchema[None] = None
    helpful: Answer | SkipJsonSchema[None] = None
    encyclopaedic: Answer | SkipJsonSchema[None] = None


class NewCaption(Strict):
    """A caption of a picture by a person, in a language (a code such as en)."""

    text: Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]
    language: Annotated[str | None, Field(min_length=1, max_length=16, pattern=r"^[A-Za-z0-9-]+$")] = None


class NewState(Strict):
    """The state that a person gives a picture: `negative` ones must never match, `quarantined` ones rest."""

    state: Literal[ImageState.active, ImageState.negative, ImageState.quarantined]


class NewBlock(Strict):
    """An entry of the block list: uploads with this SHA-256, 64 hexadecimal digits, are refused."""

    action: Literal["block"]
    value: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    note: Note = None


class NewWithhold(Strict):
    """An entry of the withhold list: suggestions of this label, a name or a Wikidata id, are withheld."""

    action: Literal["withhold"]
    value: Text
    note: Note = None


NewListing = Annotated[NewBlock | NewWithhold, Field(discriminator="action")]


class NewImport(Strict):
    """A folder of photos, or an index of `isc index`, on the machine of the service, in one of its allowed folders."""

    path: Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^/[^\x00]*$")]


class NewUrl(Strict):
    """The address of a picture, on one of the allowed hosts."""

    url: Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^https?://[^\x00-\x20\x7f]+$")]


class Retry(Strict):
    """Dead letters to send again: some by id, or all of a provider."""

    ids: Annotated[list[Id], Field(max_length=1000)] = []
    provider: Annotated[str | None, Field(max_length=64, pattern=r"^[A-Za-z0-9_-]+$")] = None


class Again(Strict):
    """Pictures that a provider's new version is asked about: with open suggestions, decided ones, or all."""

    which: Annotated[str, Field(pattern="^(open|decided|all)$")] = "open"
