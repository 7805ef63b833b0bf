"""The pages of isc find and isc duplicates, which open from disk and need no network."""

from __future__ import annotations

from pathlib import Path

from isc.data.files import write_text
from isc.find.page import render
from isc.find.results import Groups, Matches, Verdict

ON_PAGE = 500  # pairs of one verdict, or groups, on a page; the CSV and the JSON hold all


def write_matches_page(path: Path, found: Matches, *, title: str) -> None:
    """Write a page of the copies, the doubtful pairs, and the suspects without a copy."""
    sections = []
    for verdict in Verdict:
        rows = found.of_verdict(verdict)
        pairs = [row.card(path.parent) for row in rows[:ON_PAGE]]
        sections.append({"verdict": verdict.value, "count": len(rows), "pairs": pairs})
    write_text(path, render("matches.html", title=title, sections=sections, unreadable=found.unreadable))


def write_groups_page(path: Path, found: Groups, *, title: str) -> None:
    """Write a page of the groups, the largest saving first."""
    groups = [group.card(path.parent) for group in found.rows[:ON_PAGE]]
    counts = {"total": len(found), "photos": found.photos}
    write_text(path, render("groups.html", title=title, groups=groups, **counts, unreadable=found.unreadable))
