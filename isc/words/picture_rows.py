"""The pictures of captions: which photos of a listing have captions, and their grids."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isc.data.csv_files import write_csv
from isc.errors import InputError
from isc.photos.listing import Listing
from isc.words.caption_files import Captions
from isc.words.grids import Grids, GridShape, kept_grids

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureRows:
    """The grids [N, C, F] of the pictures that have captions, and the row of each picture that could be read."""

    grids: Grids
    places: Mapping[str, int]


def rows_of_pictures(photos: Listing, pictures: Iterable[str]) -> dict[str, int]:
    """Return the row in the listing of each of these pictures; an id is a photo's id or its last part.

    Raises InputError for a picture that is not among the photos, or fits several.
    """
    ids = photos.ids()
    exact = {name: row for row, name in enumerate(ids)}
    short: dict[str, list[int]] = {}
    for row, name in enumerate(ids):
        short.setdefault(name.rsplit("/", 1)[-1], []).append(row)
    found = {}
    for picture in dict.fromkeys(pictures):
        rows = [exact[picture]] if picture in exact else short.get(picture, [])
        if len(rows) != 1:
            what = "is not among the photos" if not rows else f"fits {len(rows)} photos"
            raise InputError(f"pairs: picture {picture!r} {what} of images=; expected exactly one")
        found[picture] = rows[0]
    return found


def picture_rows(photos: Listing, captions: Captions, *, shape: GridShape, path: Path, output: Path) -> PictureRows:
    """Return the grids of all pictures with captions, kept in `path`; unreadable ones go to OUTPUT/failures.csv."""
    rows = rows_of_pictures(photos, captions.pictures)
    identity = hashlib.sha256("\n".join([photos.sha256(), *rows]).encode()).hexdigest()
    order = np.fromiter(rows.values(), np.int64, len(rows))
    grids, unreadable = kept_grids(
        path, lambda at: photos.read(int(order[at])), count=len(rows), identity=identity, shape=shape
    )
    missing = {row for row, _ in unreadable}
    names = list(rows)
    if unreadable:
        log.warning("%d pictures cannot be read, and are left out: %s", len(unreadable), output / "failures.csv")
        write_csv(output / "failures.csv", ("id", "reason"), ((names[row], why) for row, why in unreadable))
    if len(missing) == len(names):
        raise InputError(f"images: none of the {len(names)} pictures can be read ({unreadable[0][1]})")
    return PictureRows(grids, {name: at for at, name in enumerate(names) if at not in missing})
