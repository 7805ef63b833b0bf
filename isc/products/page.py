"""The page of found products: frames, the region, the shop's picture, and the words that spoke for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rapidfuzz import fuzz

from isc.data.files import write_text
from isc.errors import InputError
from isc.evaluate.report.thumbnails import Thumbnail, thumbnail_of
from isc.find.page import picture, render
from isc.products.evidence import PIXELS
from isc.products.find import Choice, Finding, clip_picture
from isc.words.names import plain

LARGE, SMALL = 320, 96  # pixels of the longest side of the frame with the item, and of those of the strip
SHOWN = 5  # items of a clip
ALIKE = 80  # of 100: from which rapidfuzz's ratio on a word counts as heard


def write_products_page(
    path: Path, findings: Sequence[Finding], unreadable: Sequence[tuple[str, str]], *, title: str
) -> None:
    """Write the page; it opens from disk and needs no network."""
    cards = [_Card(one, path.parent).values for one in findings]
    found = sum(one.item is not None for one in findings)
    write_text(path, render("products.html", title=title, cards=cards, found=found, unreadable=unreadable))


class _Card:
    """The card of a clip on the page: what a template shows of it."""

    def __init__(self, finding: Finding, folder: Path) -> None:
        self._finding, self._folder = finding, folder

    @cached_property
    def values(self) -> dict[str, Any]:
        finding, first = self._finding, self._finding.choices[0]
        known = finding.item is not None
        left, top, right, bottom = finding.place.region
        corners = ((left, top), (right, top), (right, bottom), (left, bottom))
        seen = picture(str(finding.clip), corners, self._folder, frame=None if finding.clip.is_dir() else 0.0)
        return {
            "verdict": ("copy" if first.probability >= 0.9 else "perhaps") if known else "none",
            "title": first.item.title if known else f"none of these; nearest: {first.item.title}",
            "kind": first.item.kind,
            "probability": f"{first.probability if known else finding.none:.3f}",
            "time": f"{finding.place.seconds:.1f} s",
            "seen": seen | {"picture": self._shot(finding.place.seconds, LARGE)},
            "shop": picture(str(finding.place.picture), None, self._folder),
            "strip": [
                {"picture": self._shot(at, SMALL), "name": f"at {at:.1f} s", "region": "", "time": f"{at:.1f} s"}
                for at in finding.strip
            ],
            "said": _heard(finding.said, first),
            "rows": [_row(one) for one in finding.choices[:SHOWN]],
        }

    def _shot(self, seconds: float, longest: int) -> Thumbnail:
        try:
            return thumbnail_of(clip_picture(self._finding.clip, seconds), longest)
        except InputError as error:
            return Thumbnail(reason=str(error))


def _row(choice: Choice) -> dict[str, str]:
    groups: dict[str, list[str]] = {"pixels": [], "words": []}
    for name, value in choice.evidence.items():
        groups["pixels" if name in PIXELS else "words"].append(f"{name.replace('_', ' ')} {value:.2f}")
    return {
        "title": choice.item.title,
        "probability": f"{choice.probability:.3f}",
        "pixels": ", ".join(groups["pixels"]),
        "words": ", ".join(groups["words"]),
    }


def _heard(said: str, choice: Choice) -> list[tuple[str, bool]]:
    """Return the words that are said, each with whether it is like a word of the item's title or kind."""
    wanted = plain(f"{choice.item.title} {choice.item.kind}").split()
    return [
        (word, len(word) > 2 and any(fuzz.ratio(plain(word), one) >= ALIKE for one in wanted)) for word in said.split()
    ]
