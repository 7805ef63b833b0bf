"""Results of providers about a picture, one class per kind of metadata."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from isc.serve.kinds import Kind

Region = tuple[tuple[float, float], ...]  # corners (x, y) as fractions of the picture's width and height
MOST_JPEG = 500_000  # bytes of a shop's picture as it is shown
WIKIDATA = re.compile(r"Q[1-9][0-9]{0,15}")


class Nonsense(ValueError):
    """A result that cannot be right; the request of its provider fails."""


def _text(name: str, value: str, most: int) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise Nonsense(f"{name} {value!r:.60}; expected a text of 1 to {most} characters")


def _share(name: str, value: float) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1):
        raise Nonsense(f"{name} {value!r}; expected a number 0…1")


@dataclass(frozen=True)
class CopyMatch:
    """A picture of the collection that shows the same.

    `other` is its number in the table of images; `distance` that of the method; `probability` that of a copy, None if
    the method gives none; the regions are the part that both show; `evidence` says why, in numbers and words.
    """

    kind: ClassVar[Kind] = Kind.copy
    other: int
    distance: float
    probability: float | None
    verdict: str
    image_region: Region | None = None
    other_region: Region | None = None
    mirrored: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.distance) and self.distance >= 0):
            raise Nonsense(f"distance {self.distance!r}; expected at least 0")
        if self.probability is not None:
            _share("probability", self.probability)
        if self.verdict not in ("copy", "perhaps", "none"):
            raise Nonsense(f"verdict {self.verdict!r}; expected copy, perhaps or none")

    @property
    def score(self) -> float:
        """The confidence of the provider, 0…1."""
        return self.probability if self.probability is not None else 0.5

    def row(self) -> dict[str, Any]:
        return {
            "other_id": self.other,
            "distance": float(self.distance),
            "probability": self.probability,
            "verdict": self.verdict,
            "image_region": self.image_region,
            "other_region": self.other_region,
            "mirrored": self.mirrored,
            "evidence": dict(self.evidence),
        }


@dataclass(frozen=True)
class Label:
    """Something that the picture shows, with the id of Wikidata where one is known."""

    kind: ClassVar[Kind] = Kind.label
    name: str
    score: float
    wikidata: str | None = None

    def __post_init__(self) -> None:
        _text("label", self.name, 200)
        _share(f"score of {self.name!r}", self.score)
        if self.wikidata is not None and not WIKIDATA.fullmatch(self.wikidata):
            raise Nonsense(f"wikidata id {self.wikidata!r:.40}; expected Q and a number")

    def row(self) -> dict[str, Any]:
        return {"name": self.name, "wikidata": self.wikidata, "score": float(self.score)}


@dataclass(frozen=True)
class Caption:
    """A text about the picture, or that stands in it."""

    kind: ClassVar[Kind] = Kind.caption
    text: str
    language: str | None = None
    certainty: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not 0 < len(self.text) <= 10_000:
            raise Nonsense("a caption without text, or above 10,000 characters")
        if self.language is not None and not 0 < len(self.language) <= 16:
            raise Nonsense(f"language {self.language!r:.40}; expected a code of at most 16 characters")
        if self.certainty is not None:
            _share("certainty", self.certainty)

    @property
    def score(self) -> float:
        return self.certainty if self.certainty is not None else 0.5

    def row(self) -> dict[str, Any]:
        return {"text": self.text, "language": self.language, "score": self.certainty}


@dataclass(frozen=True)
class ShopPicture:
    """A picture of a shop: the name of its file, and a small JPEG of it, which the service keeps and shows."""

    name: str
    jpeg: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _text("picture", self.name, 255)
        if not self.jpeg.startswith(b"\xff\xd8") or len(self.jpeg) > MOST_JPEG:
            raise Nonsense(f"picture {self.name!r:.60}: {len(self.jpeg)} bytes; expected a JPEG up to {MOST_JPEG:,}")


@dataclass(frozen=True)
class Product:
    """An item of a shop that the picture shows.

    `item_kind` is what the shop calls such items, maybe nothing; `region` is the part that shows it; `picture` is that
    of the shop which it is most like; `evidence` says what else it may be, in numbers and words.
    """

    kind: ClassVar[Kind] = Kind.product
    item_id: str
    title: str
    probability: float
    picture: ShopPicture
    item_kind: str = ""
    region: Region | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _text("item", self.item_id, 200)
        _text("title", self.title, 500)
        if len(self.item_kind) > 200:
            raise Nonsense(f"kind {self.item_kind!r:.60}; expected at most 200 characters")
        _share("probability", self.probability)

    @property
    def score(self) -> float:
        return self.probability

    def row(self) -> dict[str, Any]:
        return {
            "item_id": self.item_id,
            "title": self.title,
            "item_kind": self.item_kind,
            "probability": float(self.probability),
            "region": self.region,
            "picture": self.picture.name,
            "evidence": dict(self.evidence),
        }


@dataclass(frozen=True)
class Number:
    """A number of a classifier, of any range. Nobody is asked about it."""

    kind: ClassVar[Kind] = Kind.number
    classifier: str
    value: float

    def __post_init__(self) -> None:
        _text("classifier", self.classifier, 100)
        if not (isinstance(self.value, int | float) and math.isfinite(self.value)):
            raise Nonsense(f"{self.classifier}: {self.value!r}; expected a finite number")

    def row(self) -> dict[str, Any]:
        return {"classifier": self.classifier, "value": float(self.value)}


@dataclass(frozen=True)
class Hash:
    """The PDQ hash of the picture, 64 hexadecimal digits; it is kept with the picture itself."""

    pdq: str

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.pdq):
            raise Nonsense(f"pdq {self.pdq!r:.80}; expected 64 hexadecimal digits")


Suggested = CopyMatch | Label | Caption | Product  # what people may be asked about
Result = Suggested | Number | Hash
