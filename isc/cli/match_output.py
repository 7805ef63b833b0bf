"""The answers of isc find and isc index query: a table, CSV or JSON of matches.

The photo of a pair that is no copy is named only with `nearest`.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isc.find.results import Match, Matches

FORMATS = ("table", "csv", "json")
COLUMNS = ("suspect", "photo", "verdict", "probability", "distance", "inliers", "flags")
TABLE = ("verdict", "suspect", "photo", "probability", "distance", "points", "flags")
NUMBERS = frozenset((3, 4, 5))  # columns of TABLE


def as_csv(found: Matches, *, nearest: bool = False) -> str:
    """Return `suspect,photo,verdict,probability,distance,inliers,flags`; several flags have semicolons between them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_row(match, nearest) for match in found)
    return text.getvalue()


def _named(match: Match, nearest: bool) -> str | None:
    return match.photo if nearest or match.verdict.value != "none" else None


def _row(match: Match, nearest: bool) -> tuple[str, ...]:
    return (
        match.suspect,
        _named(match, nearest) or "",
        match.verdict.value,
        "" if match.photo is None else f"{match.probability:.4f}",
        "" if match.distance is None else f"{match.distance:.4f}",
        "" if match.inliers is None else str(match.inliers),
        ";".join(match.flags),
    )


def as_json(found: Matches, *, nearest: bool = False) -> str:
    """Return {matches: [{suspect, photo, verdict, probability, …, regions}], unreadable: [{path, reason}]}."""
    rows = [
        {
            "suspect": match.suspect,
            "photo": _named(match, nearest),
            "verdict": match.verdict.value,
            "probability": round(match.probability, 6),
            "distance": None if match.distance is None else round(match.distance, 6),
            "inliers": match.inliers,
            "suspect_region": match.suspect_region,
            "photo_region": match.photo_region,
            "mirrored": match.mirrored,
            "same_file": match.same_file,
            "flags": match.flags,
            "frame": match.frame,
            "nearest": match.photo,
        }
        for match in found
    ]
    unreadable = [{"path": path, "reason": reason} for path, reason in found.unreadable]
    return json.dumps({"matches": rows, "unreadable": unreadable}, indent=2, ensure_ascii=False) + "\n"


def table_rows(found: Matches, *, nearest: bool = False) -> list[tuple[str, ...]]:
    """Return the cells of a table with the columns TABLE."""
    from isc.evaluate.report.texts import probability_text

    return [
        (
            match.verdict.value,
            match.suspect,
            _named(match, nearest) or "",
            "" if match.photo is None else "same file" if match.same_file else probability_text(match.probability),
            "" if match.distance is None else f"{match.distance:.3f}",
            "" if match.inliers is None else str(match.inliers),
            ", ".join(match.flags),
        )
        for match in found
    ]
