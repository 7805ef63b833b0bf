"""The results of finding: copies of photos, and groups of photos that show the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from isc.evaluate.report.texts import bytes_text, probability_text
from isc.find.page import IN_NOTEBOOK, Region, notebook, picture


class Verdict(Enum):
    """The conclusion from the evidence for a pair."""

    copy = "copy"
    perhaps = "perhaps"
    none = "none"


@dataclass(frozen=True)
class Match:
    """A suspect and the photo that it was most likely made from, or `photo` None if there is no candidate.

    `probability` 0…1 is that of a copy, `distance` the Euclidean one of the descriptors (about 1.4 for unrelated
    pictures), `inliers` the number of points that agree in both pictures; None if the pixels were not compared. The
    regions are the part that both pictures show, if pixels agree. `flags` say why a probability may not hold.
    For a video, the suspect is a stretch of it, and `frame` the time, in seconds, of the frame that all this is about.
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
    frame: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability {self.probability}; expected 0…1")
        if self.photo is None and self.verdict is not Verdict.none:
            raise ValueError(f"verdict {self.verdict.value} without a photo; expected none")

    def card(self, folder: Path | None = None) -> dict[str, Any]:
        """Return what a page in `folder`, or a notebook, shows of the pair."""
        return {
            "verdict": self.verdict.value,
            "probability": probability_text(self.probability),
            "distance": None if self.distance is None else f"{self.distance:.3f}",
            "inliers": self.inliers,
            "mirrored": self.mirrored,
            "same_file": self.same_file,
            "flags": self.flags,
            "suspect": picture(self.suspect, self.suspect_region, folder, frame=self.frame),
            "photo": None if self.photo is None else picture(self.photo, self.photo_region, folder),
        }

    def _repr_html_(self) -> str:
        return notebook(pairs=[self.card()])


@dataclass(frozen=True)
class Matches(Sequence[Match]):
    """The best matches of each suspect, most certain first, and the (path, reason) of unreadable files."""

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
        return notebook(pairs=[row.card() for row in self.rows[:IN_NOTEBOOK]])


ORDER = {verdict: place for place, verdict in enumerate(Verdict)}  # the surest first


def certainty(match: Match) -> tuple[bool, int, float, float]:
    """Return the key that sorts the matches of a suspect, the surest first: the same file, verdict, probability."""
    return not match.same_file, ORDER[match.verdict], -match.probability, match.distance or 0.0


def surest(match: Match) -> tuple[int, float, str]:
    """Return the key that sorts suspects by the best match of each, the surest first, then by name."""
    return ORDER[match.verdict], -match.probability, match.suspect


class Kind(Enum):
    """The resemblance of the photos of a group, the weakest pair deciding."""

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

    def card(self, folder: Path | None = None) -> dict[str, Any]:
        """Return what a page in `folder`, or a notebook, shows of the group."""
        members = [
            {
                **picture(member.path, None, folder),
                "size": f"{member.width} × {member.height}",
                "bytes": bytes_text(member.bytes),
                "kind": member.kind.value,
                "probability": probability_text(member.probability),
            }
            for member in self.members
        ]
        return {"kind": self.kind.value, "probability": probability_text(self.probability), "members": members}


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
        return notebook(groups=[row.card() for row in self.rows[:IN_NOTEBOOK]])
