"""The results of finding: copies of photos, and groups of photos that show the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

Region = tuple[tuple[float, float], ...]  # corners (x, y) as fractions of the picture's width and height


class Verdict(Enum):
    """What the evidence for a pair amounts to."""

    copy = "copy"
    perhaps = "perhaps"
    none = "none"


@dataclass(frozen=True)
class Match:
    """A suspect and the photo that it was most likely made from, or `photo` None if there is no candidate.

    `probability` 0…1 is that of a copy, `distance` the Euclidean one of the descriptors (about 1.4 for unrelated
    pictures), `inliers` the number of points that agree in both pictures; None if the pixels were not compared. The
    regions are the part that both pictures show, if pixels agree. `flags` say why a probability may not hold.
    """

    suspect: str
    photo: str | None
    verdict: Verdict
    probability: float
    distance: float | None
    inliers: int | None = None
    suspect_region: Region | None = None
    photo_region: Region | None = None
    mirrored: bool = False
    same_file: bool = False
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability {self.probability}; expected 0…1")
        if self.photo is None and self.verdict is not Verdict.none:
            raise ValueError(f"verdict {self.verdict.value} without a photo; expected none")

    def _repr_html_(self) -> str:
        from isc.find.page import matches_html

        return matches_html([self])


@dataclass(frozen=True)
class Matches(Sequence[Match]):
    """The best match of each suspect, most certain first, and the (path, reason) of unreadable files."""

    rows: tuple[Match, ...]
    unreadable: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> Match:  # type: ignore[override]
        return self.rows[at]

    def __iter__(self) -> Iterator[Match]:
        return iter(self.rows)

    def of_verdict(self, verdict: Verdict) -> list[Match]:
        return [row for row in self.rows if row.verdict is verdict]

    def _repr_html_(self) -> str:
        from isc.find.page import matches_html

        return matches_html(self.rows)


class Kind(Enum):
    """How the photos of a group resemble each other, the weakest pair deciding."""

    exact = "exact"  # the same bytes
    edited = "edited"  # the same photo, changed: resized, cropped, compressed, filtered
    near = "near"  # the same scene, perhaps another shot of it


@dataclass(frozen=True)
class Member:
    """A photo of a group: its path, width and height in pixels, and bytes.

    `probability` is that of showing the same as the first photo of the group, or as the member that links it to it.
    """

    path: str
    width: int
    height: int
    bytes: int
    probability: float
    kind: Kind


@dataclass(frozen=True)
class Group:
    """Photos that show the same, the best one to keep first: most pixels, then most bytes."""

    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ValueError(f"a group of {len(self.members)} photos; expected at least 2")

    @property
    def kind(self) -> Kind:
        kinds = {member.kind for member in self.members[1:]}
        return next(kind for kind in (Kind.near, Kind.edited, Kind.exact) if kind in kinds)

    @property
    def probability(self) -> float:
        """The smallest probability of its members."""
        return min(member.probability for member in self.members[1:])


@dataclass(frozen=True)
class Groups(Sequence[Group]):
    """Groups of photos that show the same, the largest saving of bytes first."""

    rows: tuple[Group, ...]
    photos: int  # that were compared
    unreadable: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> Group:  # type: ignore[override]
        return self.rows[at]

    def __iter__(self) -> Iterator[Group]:
        return iter(self.rows)

    @property
    def spare(self) -> list[str]:
        """The paths of all members but the best one of each group; photos of the kind `near` are not among them."""
        return [one.path for group in self.rows for one in group.members[1:] if one.kind is not Kind.near]

    def _repr_html_(self) -> str:
        from isc.find.page import groups_html

        return groups_html(self.rows)


def shown_probability(value: float | None) -> str:
    """Return a probability with the digits that mean something: two, and `> 0.99` or `< 0.01` beyond."""
    if value is None or math.isnan(value):
        return "–"
    if value >= 1:
        return "1"
    if value > 0.99:
        return "> 0.99"
    return "< 0.01" if value < 0.01 else f"{value:.2f}"


def file_name(path: str) -> str:
    return Path(path).name
