"""Rendering of results: both pictures side by side, with the part that they share outlined."""

from __future__ import annotations

import os
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isc import __version__
from isc.errors import InputError
from isc.video.reading import Stretch, frame_at

if TYPE_CHECKING:
    from jinja2 import Environment

    from isc.evaluate.report.thumbnails import Thumbnail

LONGEST = 320  # pixels of a picture's longest side on a page
IN_NOTEBOOK = 20  # results shown in a notebook

Region = tuple[tuple[float, float], ...]  # corners (x, y) as fractions of the picture's width and height
Values = dict[str, Any]  # what a template shows of one thing


def render(name: str, **values: Any) -> str:
    """Return the HTML of a template with these values."""
    now = datetime.now().astimezone()
    text = _pages().get_template(name).render(version=__version__, made=now.strftime("%Y-%m-%d %H:%M"), **values)
    return text.encode("utf-8", "replace").decode()


@cache
def _pages() -> Environment:
    from jinja2 import Environment, PackageLoader

    return Environment(loader=PackageLoader("isc.find"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def notebook(*, pairs: list[Values] | None = None, groups: list[Values] | None = None) -> str:
    """Return the HTML view of the first results in a notebook."""
    return render("notebook.html", pairs=(pairs or [])[:IN_NOTEBOOK], groups=(groups or [])[:IN_NOTEBOOK])


def picture(path: str, region: Region | None, folder: Path | None, *, frame: float | None = None) -> Values:
    """Return what a page shows of a picture, or of the frame of a video at this time in seconds.

    Links to files are relative to the page's `folder`, if it has one.
    """
    from isc.evaluate.report.thumbnails import thumbnail

    points = " ".join(f"{100 * x:.2f},{100 * y:.2f}" for x, y in region or ())
    stretch = None if frame is None else Stretch.parse(path)
    file = path if stretch is None else stretch.video
    shown = thumbnail(Path(file), LONGEST) if frame is None else _of_frame(Path(file), frame)
    link = None if folder is None else Path(os.path.relpath(file, folder)).as_posix()
    return {
        "path": path,
        "name": Path(path).name,
        "picture": shown,
        "region": points,
        "link": link,
    }


def _of_frame(video: Path, seconds: float) -> Thumbnail:
    from isc.evaluate.report.thumbnails import Thumbnail, thumbnail_of

    try:
        return thumbnail_of(frame_at(video, seconds), LONGEST)
    except InputError as error:
        return Thumbnail(reason=str(error).replace(str(video), video.name))
