"""The photos of a folder, by id."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from isc.data.ids import id_problem
from isc.errors import InputError

log = logging.getLogger(__name__)

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
)
SAMPLE = Path(__file__).parents[1] / "sample"  # photos that come with the package


def image_files(folder: Path, *, key: str = "images") -> Iterator[str]:
    """Yield the path of each image file below `folder`, relative to it, with "/" between the parts.

    Hidden files are left out. Links are followed, except to a parent folder of the walk. The order is that of the walk.
    Raises InputError if the folder, or one in it, cannot be listed.
    """
    if not folder.is_dir():
        raise InputError(f"{key}={folder}: no such folder; expected a folder of photos")
    top = str(folder)
    for root, folders, files in os.walk(top, followlinks=True, onerror=_refuse_listing):
        above = {Path(root).resolve(), *Path(root).resolve().parents}  # a link back up would list everything again
        folders[:] = sorted(f for f in folders if not f.startswith(".") and Path(root, f).resolve() not in above)
        below = root[len(top) :].lstrip("/") if top != "." else root[2:]
        for name in sorted(files):
            if not name.startswith(".") and has_image_suffix(name):
                yield f"{below}/{name}" if below else name


def image_ids(folder: Path, *, key: str = "images") -> Iterator[tuple[str, str]]:
    """Yield (id, path relative to the folder) of each image file below `folder`, in the order of the walk.

    An id is the path without its suffix. Files of one folder that differ in their suffixes alone, such as the HEIC and
    JPEG files of a camera, keep them. A name that is not UTF-8 text is logged and left out. Raises InputError as
    `image_files` does, and for another id that is not usable.
    """
    for _, group in groupby(image_files(folder, key=key), key=lambda name: name.rpartition("/")[0]):
        names = list(group)
        stems = Counter(name.rpartition(".")[0] for name in names)
        for name in names:
            stem = name.rpartition(".")[0]
            photo_id = stem if stems[stem] == 1 else name
            if not _is_utf8(name):
                log.warning("left out: %r: its name is not UTF-8 text", str(Path(folder, name)))
            elif problem := id_problem(photo_id):
                raise InputError(f"{str(Path(folder, name))!r}: id {photo_id!r} {problem}")
            else:
                yield photo_id, name


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_image_suffix(name: str) -> bool:
    """Return whether the listing of a folder counts a file of this name or path as an image."""
    stem, dot, suffix = name.rpartition(".")
    return f"{dot}{suffix}".lower() in SUFFIXES and bool(stem) and not stem.endswith("/")


def list_images(folder: Path, *, key: str = "images") -> dict[str, Path]:
    """Return all image files below `folder` by id, sorted by id.

    An id is the path below the folder without its suffix; see `image_ids`. Hidden files are left out. `key` is the name
    of the folder in error messages. Raises InputError if the folder is missing or holds no image, an id is unusable, or
    two files have the same id.
    """
    found: dict[str, Path] = {}
    for photo_id, name in image_ids(folder, key=key):
        path = Path(folder, name)
        if photo_id in found:
            raise InputError(f"{found[photo_id]} and {path} would both get the id {photo_id!r}; rename one")
        found[photo_id] = path
    if not found:
        raise InputError(f"{key}={folder}: holds no image; expected files ending in {', '.join(sorted(SUFFIXES))}")
    return dict(sorted(found.items()))


def _refuse_listing(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def path_of(images: Mapping[str, Path], name: str) -> Path:
    """Return the file of an id. Raises InputError, with the id, if it has no file."""
    if name not in images:
        raise InputError(f"id {name!r} has no image file; expected one of {len(images):,} listed")
    return images[name]
