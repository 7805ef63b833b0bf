"""Videos among the sources of an extraction: their frames become photos in a folder beside the output."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from isc.data.csv_files import write_csv
from isc.photos.decode import encode_jpeg
from isc.video.reading import Frame, frames, is_video, videos_below

log = logging.getLogger(__name__)

QUALITY = 95
TABLE = "frames.csv"


def with_frames(sources: Sequence[str] | str, output: Path) -> list[str]:
    """Return the sources with the frames of each video, of those in a folder too, in the place of the video.

    They are written into OUTPUT.frames/, a folder and a table for each video, and stay there: as images of a query,
    say. The id of a frame is `clip.mp4#t=12.50`, with its time in seconds. Frames that are newer than their video are
    not made again. Raises InputError for a video that cannot be read.
    """
    made: list[str] = []
    for source in [sources] if isinstance(sources, str) else sources:
        path = Path(source)
        if is_video(path) and path.is_file():
            made.append(str(_table(path, path.name, output)))
            continue
        made.append(source)
        made += [str(_table(video, video.relative_to(path).as_posix(), output)) for video in videos_below(path)]
    return made


def _table(video: Path, name: str, output: Path) -> Path:
    folder = output.with_name(output.name + ".frames") / name
    table = folder / TABLE
    if table.exists() and table.stat().st_mtime_ns > video.stat().st_mtime_ns:
        return table
    found = frames(video)
    first = next(found)  # nothing is written for a video that cannot be read
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(table, ("id", "file"), _written(itertools.chain([first], found), name, folder))
    log.info("%s: frames are in %s", video, folder)
    return table


def _written(found: Iterable[Frame], name: str, folder: Path) -> Iterator[tuple[str, str]]:
    for frame in found:
        file = f"{frame.start:010.2f}.jpg"
        (folder / file).write_bytes(encode_jpeg(frame.pixels, quality=QUALITY))
        yield f"{name}#t={frame.start:.2f}", file
