"""The answer of isc index query, from suspects of all kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from isc.cli.index_sources import is_set, picture_of, read_sets
from isc.find.copies import find_by_descriptors, find_copies
from isc.find.photo_index import PhotoIndex
from isc.find.results import Match, Matches, Verdict
from isc.search.index.index import Index


def matches_of(
    index: PhotoIndex, suspects: Sequence[str], *, k: int, pixels: bool, workers: int, allow_url: bool
) -> Matches:
    """Return the `k` best matches of each suspect: first those of pictures, then those of descriptors."""
    sets = [Path(suspect) for suspect in suspects if is_set(Path(suspect))]
    described = read_sets(Index.open(index.path).manifest, sets)
    pictures = [picture_of(one, allow_url=allow_url) for one in suspects if Path(one) not in sets]
    parts = []
    if pictures:
        parts.append(find_copies(index, pictures, k=k, pixels=pixels, workers=workers))
    if described is not None:
        parts.append(find_by_descriptors(index, described, k=k))
    return Matches(
        tuple(row for part in parts for row in part), tuple(one for part in parts for one in part.unreadable)
    )


def within(found: Matches, distance: float) -> Matches:
    """Return the matches without the photos that are farther; a suspect that has none left keeps a row without one."""
    near = {match.suspect for match in found if match.distance is not None and match.distance <= distance}
    rows: list[Match] = []
    for match in found:
        if match.distance is not None and match.distance <= distance:
            rows.append(match)
        elif match.suspect not in near:
            near.add(match.suspect)
            rows.append(replace(match, photo=None, verdict=Verdict.none, distance=None, inliers=None))
    return replace(found, rows=tuple(rows))
