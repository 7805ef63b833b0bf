"""The sources of isc index: photos, descriptor files, other indexes, and pictures from elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isc.cli.index_output import added_text
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import descriptor_blocks, read_provenance
from isc.data.ids import id_problem
from isc.data.json_files import read_text
from isc.errors import InputError
from isc.match.inputs import named, read_set
from isc.search.index.index import Index, is_index
from isc.search.index.manifest import Manifest, require_one_row_each
from isc.search.index.writer import BATCH, Added, Writer, already_there

if TYPE_CHECKING:
    from isc.find.copies import Picture

HDF5 = {".h5", ".hdf5"}
STDIN = "-"


def is_set(path: Path) -> bool:
    """Return whether the path is a file of descriptors, or an index."""
    return is_index(path) or (path.is_file() and path.suffix.lower() in HDF5)


def add_set(writer: Writer, path: Path, *, replace: bool, skip_existing: bool) -> None:
    """Add a descriptor file or an index, read twice: first to check all of it, then to add it block by block.

    A file may be larger than memory. Raises InputError for duplicate ids, and for known ids unless an option allows
    them.
    """
    provenance = Index.open(path).manifest.provenance if is_index(path) else read_provenance(path)
    ids: set[str] = set()
    for block in _blocks(path):
        writer.manifest.check(path, block.dim, provenance)
        if twice := ids.intersection(block.ids):
            raise InputError(f"{path}: id {min(twice)!r} occurs twice; expected each once")
        ids.update(block.ids)
    if not (replace or skip_existing) and (known := writer.present(ids)):
        raise InputError(f"{writer.path}: {already_there(sorted(ids), known)}")
    acknowledge, before, total = acknowledged(f"descriptors of {path}"), 0, Added(0, 0, 0)
    for block in _blocks(path):
        added = writer.add(
            block,
            provenance=provenance,
            replace=replace,
            skip_existing=skip_existing,
            progress=lambda done, _, before=before: acknowledge(before + done, len(ids)),  # type: ignore[misc]
        )
        total = Added(*(one + other for one, other in zip(astuple(total), astuple(added), strict=True)))
        before += len(block)
    print(f"{path}: {added_text(total)}")


def acknowledged(what: str) -> Callable[[int, int], None]:
    """Return a report that prints what is on the disk, whatever happens next."""
    return lambda done, total: print(f"{done:,} of {total:,} {what} are on the disk", flush=True)


def _blocks(path: Path) -> Iterator[Descriptors]:
    if is_index(path):
        yield read_set(path)[0]
        return
    for block in descriptor_blocks(path, rows=BATCH):
        with named(path):
            require_one_row_each(block)
        yield block


def read_sets(manifest: Manifest, paths: Sequence[Path]) -> Descriptors | None:
    """Return the descriptors of all files and indexes, None without any.

    Raises InputError for another model, for views, and if an id occurs twice.
    """
    sets: list[Descriptors] = []
    for path in paths:
        descriptors, provenance = read_set(path)
        with named(path):
            require_one_row_each(descriptors)
        manifest.check(path, descriptors.dim, provenance)
        sets.append(descriptors)
    if len(sets) < 2:
        return sets[0] if sets else None
    return Descriptors(np.concatenate([one.ids for one in sets]), np.concatenate([one.vectors for one in sets]))


def picture_of(suspect: str, *, allow_url: bool) -> Path | Picture:
    """Return the suspect: a path, the picture on standard input (`-`), or that of a URL.

    Raises InputError for a URL unless `allow_url`, and for one that cannot be fetched.
    """
    from isc.find.copies import Picture
    from isc.find.fetch import fetch_picture, is_url

    if is_url(suspect):
        if not allow_url:
            raise InputError(f"{suspect}: nothing is fetched from the web without --allow-url")
        return Picture(suspect, fetch_picture(suspect))
    if suspect != STDIN:
        return Path(suspect)
    data = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
    if not data:
        raise InputError("-: nothing on standard input; expected a picture's file: isc index query INDEX - < photo.jpg")
    return Picture("standard input", data)


def read_names(path: Path) -> list[str]:
    """Read one name per line; skip empty lines. Raises InputError for an unreadable file or an invalid name."""
    try:
        lines = read_text(path).removeprefix("\ufeff").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected one id a line in UTF-8") from error
    for row, line in enumerate(lines, 1):
        if line and (problem := id_problem(line)):
            raise InputError(f"{path}: row {row}: id {line!r} {problem}")
    return [line for line in lines if line]
