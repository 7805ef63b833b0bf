"""Screening of photos: usable photos can be decoded completely and are not too small."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isc.data.csv_files import write_csv
from isc.errors import InputError
from isc.photos.decode import read_image
from isc.runtime.pool import sharing
from isc.runtime.progress import progress

CHUNK = 16  # photos per task of a worker process
COLUMNS = ("id", "width", "height", "reason")


@dataclass(frozen=True)
class Screened:
    """The (width, height) in pixels of each usable photo, and the problem of each other photo, by id."""

    sizes: Mapping[str, tuple[int, int]]
    problems: Mapping[str, str]


def screened(photos: Mapping[str, Path], *, least: int, workers: int, kept: Path | None = None) -> Screened:
    """Decode every photo once; a photo with a side below `least` pixels is too small.

    The result is stored in the file `kept`, and read from there if it exists.
    """
    if kept is not None and kept.exists():
        return _read(kept)
    ids = list(photos)
    chunks = [[(name, photos[name]) for name in ids[start : start + CHUNK]] for start in range(0, len(ids), CHUNK)]
    found: dict[str, tuple[int, int] | str] = {}
    with sharing(_Look(least), workers=min(workers, len(chunks))) as share, progress("reading", "photos") as report:
        for seen in share(chunks):
            found |= seen
            report(len(found), len(ids))
    in_order = {name: found[name] for name in ids}
    result = Screened(
        {name: what for name, what in in_order.items() if not isinstance(what, str)},
        {name: what for name, what in in_order.items() if isinstance(what, str)},
    )
    if kept is not None:
        _write(kept, result)
    return result


@dataclass(frozen=True)
class _Look:
    least: int

    def __call__(self, photos: Sequence[tuple[str, Path]]) -> dict[str, tuple[int, int] | str]:
        return {name: self._one(path) for name, path in photos}

    def _one(self, path: Path) -> tuple[int, int] | str:
        try:
            height, width = read_image(path).shape[:2]
        except InputError as error:
            return str(error).removeprefix(f"{path}: ")
        if min(width, height) < self.least:
            return f"{width} × {height} pixels; expected at least {self.least} a side"
        return width, height


def _write(path: Path, result: Screened) -> None:
    rows = [(name, width, height, "") for name, (width, height) in result.sizes.items()]
    write_csv(path, COLUMNS, iter([*rows, *((name, 0, 0, why) for name, why in result.problems.items())]))


def _read(path: Path) -> Screened:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return Screened(
        {row["id"]: (int(row["width"]), int(row["height"])) for row in rows if not row["reason"]},
        {row["id"]: row["reason"] for row in rows if row["reason"]},
    )
