"""Videos among the sources of an extraction: their frames become photos in a folder beside the output."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from isc.data.csv_files import write_csv
from isc.errors import InputError
from isc.photos.decode import encode_jpeg
from isc.video.reading import Frame, frames, is_video, videos_below

log = logging.getLogger(__name__)

QUALITY = 95
TABLE = "frames.csv"


def with_frames(sources: Sequence[str] | str, output: Path) -> list[str]:
    """Return the sources with the frames of each video, of those in a folder too, in the place of the video.

    They are written into OUTPUT.frames/, a folder and a table for each video, and stay there: as images of a query,
    say. The id of a frame is `clip.mp4#t=12.50`, with its time in seconds. Frames are not made again while their video
    stays as it is. A video of a folder that cannot be read is logged and left out; for one that is a source itself,
    InputError is raised.
    """
    made: list[str] = []
    for source in [sources] if isinstance(sources, str) else sources:
        path = Path(source)
        if is_video(path) and path.is_file():
            made.append(str(_table(path, path.name, output)))
            continue
        made.append(source)
        for video in videos_below(path):
            try:
                made.append(str(_table(video, video.relative_to(path).as_posix(), output)))
            except InputError as error:
                log.warning("%s; left out", error)
    return made


def _table(video: Path, name: str, output: Path) -> Path:
    folder = output.with_name(output.name + ".frames") / name
    table = folder / TABLE
    changed = video.stat().st_mtime_ns
    if table.exists() and table.stat().st_mtime_ns == changed:
        return table
    found = frames(video)
    first = next(found)  # nothing is written for a video that cannot be read
    folder.mkdir(parents=True, exist_ok=True)
    for old in (table, *folder.glob("*.jpg")):
        old.unlink(missing_ok=True)
    write_csv(table, ("id", "file"), _written(itertools.chain([first], found), name, folder))
    os.utime(table, ns=(changed, changed))  # the frames are those of the video as it was at this time
    log.info("%s: frames are in %s", video, folder)
    return table


def _written(found: Iterable[Frame], name: str, folder: Path) -> Iterator[tuple[str, str]]:
    for frame in found:
        file = f"{frame.start:010.2f}.jpg"
        (folder / file).write_bytes(encode_jpeg(frame.pixels, quality=QUALITY))
        yield f"{name}#t={frame.start:.2f}", file
