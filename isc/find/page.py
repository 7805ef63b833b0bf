"""Pages and notebook views of results: both pictures side by side, with the part that they share outlined."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from isc import __version__
from isc.data.files import write_text
from isc.evaluate.report.thumbnails import thumbnail
from isc.find.results import Group, Groups, Match, Matches, Region, Verdict, shown_probability

LONGEST = 320  # pixels of a picture's longest side on a page
IN_NOTEBOOK = 20  # results shown in a notebook
ON_PAGE = 500  # pairs or groups shown on a page; the CSV and JSON hold all


def write_matches_page(path: Path, found: Matches, *, title: str) -> None:
    """Write a page of the copies, the doubtful pairs and the suspects without a copy, that opens from disk."""
    verdicts = [(verdict, found.of_verdict(verdict)) for verdict in Verdict]
    sections = [
        {"verdict": verdict.value, "count": len(rows), "pairs": _cards(rows[:ON_PAGE], path.parent)}
        for verdict, rows in verdicts
    ]
    write_text(path, _render("matches.html", title=title, sections=sections, unreadable=found.unreadable))


def write_groups_page(path: Path, found: Groups, *, title: str) -> None:
    """Write a page of the groups that opens from disk."""
    groups = [_group(group, path.parent) for group in found.rows[:ON_PAGE]]
    text = _render(
        "groups.html", title=title, groups=groups, total=len(found), photos=found.photos, unreadable=found.unreadable
    )
    write_text(path, text)


def matches_html(rows: Iterable[Match]) -> str:
    """Return the HTML view of matches in a notebook."""
    shown = list(rows)[:IN_NOTEBOOK]
    return _render("notebook.html", pairs=_cards(shown, None), groups=[])


def groups_html(rows: Sequence[Group]) -> str:
    """Return the HTML view of groups in a notebook."""
    return _render("notebook.html", pairs=[], groups=[_group(group, None) for group in rows[:IN_NOTEBOOK]])


def _render(name: str, **values: Any) -> str:
    now = datetime.now().astimezone()
    pages = Environment(loader=PackageLoader("isc.find"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = pages.get_template(name).render(version=__version__, made=now.strftime("%Y-%m-%d %H:%M"), **values)
    return text.encode("utf-8", "replace").decode()


def _cards(rows: Iterable[Match], folder: Path | None) -> list[dict[str, Any]]:
    return [
        {
            "verdict": row.verdict.value,
            "probability": shown_probability(row.probability),
            "distance": None if row.distance is None else f"{row.distance:.3f}",
            "inliers": row.inliers,
            "mirrored": row.mirrored,
            "same_file": row.same_file,
            "flags": row.flags,
            "suspect": _picture(row.suspect, row.suspect_region, folder),
            "photo": None if row.photo is None else _picture(row.photo, row.photo_region, folder),
        }
        for row in rows
    ]


def _group(group: Group, folder: Path | None) -> dict[str, Any]:
    return {
        "kind": group.kind.value,
        "probability": shown_probability(group.probability),
        "members": [
            {
                **_picture(member.path, None, folder),
                "size": f"{member.width} × {member.height}",
                "bytes": f"{member.bytes / 1e6:.2f} MB",
                "kind": member.kind.value,
                "probability": shown_probability(member.probability),
            }
            for member in group.members
        ],
    }


def _picture(path: str, region: Region | None, folder: Path | None) -> dict[str, Any]:
    """Return what the page shows of a picture; links to files are relative to the page's folder, if it has one."""
    made = thumbnail(Path(path), LONGEST)
    points = " ".join(f"{100 * x:.2f},{100 * y:.2f}" for x, y in region or ())
    link = None if folder is None else Path(os.path.relpath(path, folder)).as_posix()
    return {"path": path, "name": Path(path).name, "picture": made, "region": points, "link": link}
