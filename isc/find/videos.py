"""Videos among the suspects: their frames as pictures, and the stretches of time in which a photo is seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from isc.errors import InputError
from isc.find.photos import PhotoFiles, photo_files
from isc.find.results import Match, Verdict, certainty, surest
from isc.photos.decode import encode_jpeg
from isc.photos.folders import image_files
from isc.video.reading import EVERY, Stretch, frames, is_video, videos_below

GAP = 2 * EVERY  # seconds without the photo, for instance behind a hand, that do not end its stretch of time
QUALITY = 95  # of the JPEG files that frames are kept in while they are compared


def suspect_files(source: Path, folder: Path) -> PhotoFiles:
    """List a photo, the photos and videos of a folder, or the frames of a video, written into the `folder`.

    The id of a frame is its stretch of time, `clip.mp4#t=12.00,13.50`. A video that cannot be read is among the
    unusable files. Raises InputError as `photo_files` does.
    """
    videos = [source] if is_video(source) and source.is_file() else list(videos_below(source))
    alone = bool(videos) and (source.is_file() or next(image_files(source), None) is None)
    photos = PhotoFiles({}) if alone else photo_files([source], what="suspects")
    files, unusable = dict(photos.files), list(photos.unusable)
    for video in videos:
        try:
            files |= _as_files(video, folder)
        except InputError as error:
            unusable.append((str(video), str(error).removeprefix(f"{video}: ")))
    return PhotoFiles(files, tuple(unusable))


def _as_files(video: Path, folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    begun = len(list(folder.iterdir()))
    for number, frame in enumerate(frames(video), begun):
        path = folder / f"frame {number}.jpg"
        path.write_bytes(encode_jpeg(frame.pixels, quality=QUALITY))
        files[str(Stretch(str(video), frame.start, frame.end))] = path
    return files


def joined(matches: Iterable[Match]) -> list[Match]:
    """Join the matches of a video's frames to stretches of time, one match each; other suspects stay as they are.

    Frames that show one photo belong together if less than GAP lies between them. The match of a stretch is that of its
    surest frame, so that its probability is the largest of its frames. A video without a copy has one match,
    of verdict `none`. The suspect with the surest match comes first; stretches of a video are in the order of time.
    """
    groups = [list(group) for _, group in groupby(matches, key=_suspect)]
    videos: dict[str, list[Match]] = {}
    others: list[list[Match]] = []
    for group in groups:
        stretch = Stretch.parse(group[0].suspect)
        if stretch is None:
            others.append(group)
        else:
            videos.setdefault(stretch.video, []).extend(group)
    found = [*others, *(list(_stretches(video, rows)) for video, rows in videos.items())]
    found.sort(key=lambda group: surest(min(group, key=certainty)))
    return [match for group in found for match in group]


def _suspect(match: Match) -> str:
    return match.suspect


def _stretches(video: str, rows: Sequence[Match]) -> Iterator[Match]:
    seen = [row for row in rows if row.verdict is not Verdict.none]
    if not seen:
        best = min(rows, key=certainty)
        yield replace(best, suspect=video, frame=_time(best).start)
        return
    stretches: list[tuple[float, Match]] = []
    for _, group in groupby(
        sorted(seen, key=lambda row: (str(row.photo), _time(row).start)), key=lambda row: row.photo
    ):
        parts: list[list[Match]] = []
        for row in group:
            if parts and _time(row).start - _time(parts[-1][-1]).end < GAP:
                parts[-1].append(row)
            else:
                parts.append([row])
        for part in parts:
            best, whole = min(part, key=certainty), Stretch(video, _time(part[0]).start, _time(part[-1]).end)
            stretches.append((whole.start, replace(best, suspect=str(whole), frame=_time(best).start)))
    yield from (match for _, match in sorted(stretches, key=lambda each: (each[0], certainty(each[1]))))


def _time(match: Match) -> Stretch:
    stretch = Stretch.parse(match.suspect)
    assert stretch is not None, "only frames come here"
    return stretch
