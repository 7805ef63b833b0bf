"""Rendering of results: both pictures side by side, with the part that they share outlined."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from isc import __version__

LONGEST = 320  # pixels of a picture's longest side on a page
IN_NOTEBOOK = 20  # results shown in a notebook

Region = tuple[tuple[float, float], ...]  # corners (x, y) as fractions of the picture's width and height
Values = dict[str, Any]  # what a template shows of one thing


def render(name: str, **values: Any) -> str:
    """Return the HTML of a template with these values."""
    from jinja2 import Environment, PackageLoader

    now = datetime.now().astimezone()
    pages = Environment(loader=PackageLoader("isc.find"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = pages.get_template(name).render(version=__version__, made=now.strftime("%Y-%m-%d %H:%M"), **values)
    return text.encode("utf-8", "replace").decode()


def notebook(*, pairs: list[Values] | None = None, groups: list[Values] | None = None) -> str:
    """Return the HTML view of the first results in a notebook."""
    return render("notebook.html", pairs=(pairs or [])[:IN_NOTEBOOK], groups=(groups or [])[:IN_NOTEBOOK])


def picture(path: str, region: Region | None, folder: Path | None) -> Values:
    """Return what a page shows of a picture; links to files are relative to the page's `folder`, if it has one."""
    from isc.evaluate.report.thumbnails import thumbnail

    points = " ".join(f"{100 * x:.2f},{100 * y:.2f}" for x, y in region or ())
    link = None if folder is None else Path(os.path.relpath(path, folder)).as_posix()
    return {
        "path": path,
        "name": Path(path).name,
        "picture": thumbnail(Path(path), LONGEST),
        "region": points,
        "link": link,
    }
