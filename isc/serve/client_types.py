"""The answers of the API for its Python client, made from its OpenAPI description by docs/serve_types.py."""

from typing import Any, Literal, NotRequired, TypedDict


class Accepted(TypedDict):
    """A picture that was taken in; its results come at `results`, and as events at `events`."""

    id: int
    sha256: str
    name: str
    new: bool
    results: str
    events: str


class RefusedFile(TypedDict):
    """A file of an upload that was not taken in."""

    name: str
    reason: str


class Uploaded(TypedDict):
    """The result of an upload, file by file."""

    images: list[Accepted]
    refused: list[RefusedFile]


ImageState = Literal["active", "unreadable", "negative", "quarantined"]


class Reason(TypedDict):
    """Why something stands where it stands."""

    text: str
    key: str | None
    values: dict[str, str | int | float]


class Image(TypedDict):
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


SuggestionState = Literal["unreviewed", "accepted", "rejected", "withheld", "hidden"]


class Copy(TypedDict):
    """A copy match: the other picture, and the part that both show, as corners (x, y) in fractions."""

    other: Image
    distance: float
    probability: float | None
    verdict: str
    image_region: list[list[float]] | None
    other_region: list[list[float]] | None
    mirrored: bool
    evidence: dict[str, Any]


class SaidCopy(TypedDict):
    """Said[Copy]."""

    provider: str
    version: str
    suggestion: int | None
    state: SuggestionState | None
    why: Reason | None
    result: Copy


class LabelResult(TypedDict):
    """A label."""

    name: str
    wikidata: str | None
    score: float


class SaidLabelResult(TypedDict):
    """Said[LabelResult]."""

    provider: str
    version: str
    suggestion: int | None
    state: SuggestionState | None
    why: Reason | None
    result: LabelResult


class CaptionResult(TypedDict):
    """A caption, or a text in the picture."""

    text: str
    language: str | None
    score: float | None


class SaidCaptionResult(TypedDict):
    """Said[CaptionResult]."""

    provider: str
    version: str
    suggestion: int | None
    state: SuggestionState | None
    why: Reason | None
    result: CaptionResult


class ProductResult(TypedDict):
    """An item of a shop that the picture shows."""

    item_id: str
    title: str
    item_kind: str
    probability: float
    region: list[list[float]] | None
    picture: str
    preview: str
    evidence: dict[str, float | str]


class SaidProductResult(TypedDict):
    """Said[ProductResult]."""

    provider: str
    version: str
    suggestion: int | None
    state: SuggestionState | None
    why: Reason | None
    result: ProductResult


class WrittenCaption(TypedDict):
    """A caption that a person wrote, the last one in its language."""

    text: str
    language: str | None
    writer: str
    created: float


class NumberResult(TypedDict):
    """A number of a classifier."""

    classifier: str
    value: float


class SaidNumberResult(TypedDict):
    """Said[NumberResult]."""

    provider: str
    version: str
    suggestion: int | None
    state: SuggestionState | None
    why: Reason | None
    result: NumberResult


RequestState = Literal["queued", "leased", "submitted", "done", "dead", "superseded"]


class ProviderRequest(TypedDict):
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


class Results(TypedDict):
    """The results about a picture, by kind; `open` requests have no answer yet."""

    image: Image
    open: int
    copies: list[SaidCopy]
    labels: list[SaidLabelResult]
    captions: list[SaidCaptionResult]
    products: list[SaidProductResult]
    written: list[WrittenCaption]
    numbers: list[SaidNumberResult]
    requests: list[ProviderRequest]


Kind = Literal["copy", "label", "caption", "product", "number"]


class Suggestion(TypedDict):
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
    copy_match: NotRequired[Copy | None]
    label: NotRequired[LabelResult | None]
    caption: NotRequired[CaptionResult | None]
    product: NotRequired[ProductResult | None]


class Suggestions(TypedDict):
    """A page of suggestions; `next` is the cursor of the page after it."""

    items: list[Suggestion]
    next: str | None


class VoteResult(TypedDict):
    """The state of a suggestion after a vote; `new` is False for a vote that was there already."""

    suggestion: int
    state: SuggestionState
    new: bool


class VoteResults(TypedDict):
    """The results of a batch of votes."""

    items: list[VoteResult]


class Acceptance(TypedDict):
    """The share of decided suggestions that were accepted, with the interval of 95 %."""

    accepted: int
    decided: int
    share: float | None
    low: float
    high: float


class Bin(TypedDict):
    """Decided suggestions with a score in [low, high): their number, and the share that was accepted."""

    low: float
    high: float
    decided: int
    accepted: int
    mean_score: float | None


class Day(TypedDict):
    """The decisions of one day (UTC, as YYYY-MM-DD)."""

    day: str
    accepted: int
    rejected: int


class Latency(TypedDict):
    """The seconds from request to answer below which half, and 99 in 100, of the last answers lie, and their number."""

    p50: float | None
    p99: float | None
    answers: int


class ProviderFigures(TypedDict):
    """The figures of one version of a provider and one kind."""

    provider: str
    version: str
    current: bool
    kind: str
    states: dict[str, int]
    acceptance: Acceptance
    audit: Acceptance
    calibration: list[Bin]
    days: list[Day]
    latency: Latency
