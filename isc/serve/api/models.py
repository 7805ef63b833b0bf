"""The bodies of requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, Field

from isc.serve.kinds import Decision, ImageState, Kind, RequestState, Role, SuggestionState

Value = TypeVar("Value")

MOST_ID = 2**53 - 1  # ids are exact in JSON
Id = Annotated[int, Field(ge=1, le=MOST_ID)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Accepted(BaseModel):
    """A picture that was taken in; its results come at `results`, and as events at `events`."""

    id: int
    sha256: str
    name: str
    new: bool = Field(description="False: the picture was there already, and nothing is asked twice.")
    results: str
    events: str


class RefusedFile(BaseModel):
    """A file of an upload that was not taken in."""

    name: str
    reason: str


class Uploaded(BaseModel):
    """The result of an upload, file by file."""

    images: list[Accepted]
    refused: list[RefusedFile]


class Reason(BaseModel):
    """Why something stands where it stands.

    `text` says it in English; `key` and `values` are those of the catalogue of texts, None and empty for a reason that
    a decoder gave, or an older version stored.
    """

    text: str
    key: str | None
    values: dict[str, str | int | float]


class Image(BaseModel):
    """A picture of the collection."""

    id: int
    sha256: str
    name: str
    bytes: int
    width: int | None
    height: int | None
    pdq: str | None
    state: ImageState
    reason: Reason | None
    uploader: str | None
    first_seen: float
    preview: str


class Images(BaseModel):
    """A page of pictures; `next` is the cursor of the page after it."""

    items: list[Image]
    next: str | None


class ProviderRequest(BaseModel):
    """A request to a provider about a picture."""

    id: int
    image: int
    provider: str
    version: str
    state: RequestState
    attempts: int
    error: str | None
    created: float
    finished: float | None


class ProviderRequests(BaseModel):
    """A page of requests."""

    items: list[ProviderRequest]
    next: str | None


class Copy(BaseModel):
    """A copy match: the other picture, and the part that both show, as corners (x, y) in fractions."""

    other: Image
    distance: float
    probability: float | None
    verdict: str
    image_region: list[tuple[float, float]] | None
    other_region: list[tuple[float, float]] | None
    mirrored: bool
    evidence: dict[str, Any]


class LabelResult(BaseModel):
    """A label."""

    name: str
    wikidata: str | None
    score: float


class CaptionResult(BaseModel):
    """A caption, or a text in the picture."""

    text: str
    language: str | None
    score: float | None


class ProductResult(BaseModel):
    """An item of a shop that the picture shows.

    `region` are the corners (x, y) of the part that shows it, in fractions; `picture` is the file of the shop's picture
    that it is most like, `preview` where that is shown; `evidence` says what else it may be.
    """

    item_id: str
    title: str
    item_kind: str
    probability: float
    region: list[tuple[float, float]] | None
    picture: str
    preview: str
    evidence: dict[str, float | str]


class WrittenCaption(BaseModel):
    """A caption that a person wrote, the last one in its language."""

    text: str
    language: str | None
    writer: str
    created: float


class NumberResult(BaseModel):
    """A number of a classifier."""

    classifier: str
    value: float


class Results(BaseModel):
    """The results about a picture, by kind; `open` requests have no answer yet."""

    image: Image
    open: int
    copies: list[Said[Copy]]
    labels: list[Said[LabelResult]]
    captions: list[Said[CaptionResult]]
    products: list[Said[ProductResult]]
    written: list[WrittenCaption]
    numbers: list[Said[NumberResult]]
    requests: list[ProviderRequest]


class Said(BaseModel, Generic[Value]):
    """A result with the provider and version that said it, and the suggestion that it became."""

    provider: str
    version: str
    suggestion: int | None
    state: SuggestionState | None
    why: Reason | None
    result: Value


class Vote(BaseModel):
    """A vote of a reviewer, as it stands in the record."""

    reviewer: str
    decision: Decision
    trusted: bool
    created: float


class Suggestion(BaseModel):
    """A suggestion: what is said about which picture, by whom, how surely, and why it stands where it stands."""

    id: int
    kind: Kind
    state: SuggestionState
    why: Reason | None
    audit: bool
    score: float
    priority: float
    provider: str
    version: str
    created: float
    image: Image
    copy_match: Copy | None = None
    label: LabelResult | None = None
    caption: CaptionResult | None = None
    product: ProductResult | None = None


class SuggestionHistory(BaseModel):
    """A suggestion and all votes about it, the earliest first."""

    suggestion: Suggestion
    votes: list[Vote]


class Suggestions(BaseModel):
    """A page of suggestions; `next` is the cursor of the page after it."""

    items: list[Suggestion]
    next: str | None


class VoteResult(BaseModel):
    """The state of a suggestion after a vote; `new` is False for a vote that was there already."""

    suggestion: int
    state: SuggestionState
    new: bool


class VoteResults(BaseModel):
    """The results of a batch of votes."""

    items: list[VoteResult]


class ListEntry(BaseModel):
    """An entry of the block and withhold lists."""

    id: int
    action: str
    kind: str | None
    value: str
    note: str | None
    created: float


class Listings(BaseModel):
    """All entries of the lists."""

    items: list[ListEntry]


class Import(BaseModel):
    """An import: `found` counts the new pictures."""

    id: int
    path: str
    state: str
    found: int
    error: str | None
    created: float


class Counted(BaseModel):
    """The number of rows that were changed."""

    count: int


class Message(BaseModel):
    """A message of the outbox."""

    id: int
    destination: str
    key: str
    state: str
    attempts: int
    error: str | None
    created: float
    delivered: float | None


class Messages(BaseModel):
    """A page of the outbox."""

    items: list[Message]
    next: str | None


class ProviderState(BaseModel):
    """A provider: its version in use or an earlier one, its queue, and whether its circuit is open."""

    provider: str
    version: str
    current: bool
    kinds: list[Kind]
    states: dict[str, int]
    oldest_seconds: float | None
    latency_p50: float | None
    latency_p99: float | None
    circuit_open_seconds: float
    circuit_reason: str | None


class ProviderStates(BaseModel):
    """All providers."""

    items: list[ProviderState]


class Me(BaseModel):
    """Whoever calls."""

    name: str
    role: Role
    trusted: bool


class Health(BaseModel):
    """The state of the service, and what is wrong."""

    status: str
    problems: list[str] = []


Results.model_rebuild()
