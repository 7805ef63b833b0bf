"""The sources of isc-index (photos, descriptor files, other indexes), and the descriptors of the photos."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.descriptors import Descriptors
from isc.data.ids import id_problem
from isc.errors import InputError
from isc.match.inputs import named, read_set
from isc.search.index.index import Index, is_index
from isc.search.index.manifest import Manifest, require_one_row_each

log = logging.getLogger(__name__)
DEFAULT_MODEL = "isc_small"
HDF5 = {".h5", ".hdf5"}
SOURCES = "a folder of photos, a photo, a descriptors .h5 file, or another index"
Vectors = npt.NDArray[np.float32]
Embed = Callable[[list[Path]], tuple[Vectors, dict[int, str]]]


@dataclass(frozen=True)
class Sources:
    """The sources of a command: photos by id, and descriptor files and indexes."""

    photos: Mapping[str, Path]
    sets: Sequence[Path]


def sorted_sources(paths: Sequence[Path]) -> Sources:
    """Sort the paths by kind. Raises InputError for a path of unknown kind, or if two photos have the same id."""
    photos: dict[str, Path] = {}
    sets: list[Path] = []
    for path in paths:
        if is_index(path) or (path.is_file() and path.suffix.lower() in HDF5):
            sets.append(path)
            continue
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; expected {SOURCES}")
        for name, photo in _photos(path).items():
            if name in photos:
                raise InputError(f"{photos[name]} and {photo} would both get the id {name!r}; rename one")
            photos[name] = photo
    return Sources(photos, sets)


def _photos(path: Path) -> dict[str, Path]:
    from isc.photos.folders import SUFFIXES, list_images

    if path.is_dir():
        return list_images(path, key="source")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: of no known kind; expected {SOURCES} ({', '.join(sorted(SUFFIXES))})")
    if problem := id_problem(path.stem):
        raise InputError(f"{path}: id {path.stem!r} {problem}")
    return {path.stem: path}


def embedder(manifest: Manifest, arguments: argparse.Namespace) -> Embed:
    """Return the function that embeds photos for this index. Raises InputError if the index needs another model."""
    from isc.extract.embedding import embed
    from isc.model.load_inference import load_inference_model
    from isc.runtime.allocator import keep_freed_memory

    name = arguments.model or manifest.model or DEFAULT_MODEL
    network = load_inference_model(name, device=arguments.device)
    size = manifest.image_size or network.image_size
    manifest.check(f"--model {name}", network.dim, {**network.provenance, "image_size": str(size)})
    keep_freed_memory()
    return lambda paths: embed(network, paths, image_size=size, workers=arguments.workers)


def describe_photos(photos: Mapping[str, Path], embed: Embed) -> tuple[Descriptors | None, list[str]]:
    """Return the descriptors of the readable photos, if any, and the reasons of the others, which are logged."""
    vectors, failures = embed(list(photos.values()))
    for reason in failures.values():
        log.warning("left out: %s", reason)
    kept = [row for row in range(len(photos)) if row not in failures]
    found = Descriptors(np.array(list(photos), dtype=object)[kept], vectors[kept]) if kept else None
    return found, list(failures.values())


def query_descriptors(index: Index, sources: Sources, arguments: argparse.Namespace) -> Descriptors:
    """Return the descriptors of all sources. Raises InputError if an id occurs twice, or if no photo can be read."""
    sets: list[Descriptors] = []
    for path in sources.sets:
        descriptors, provenance = read_set(path)
        with named(path):
            require_one_row_each(descriptors)
        index.manifest.check(path, descriptors.dim, provenance)
        sets.append(descriptors)
    if sources.photos:
        found, unreadable = describe_photos(sources.photos, embedder(index.manifest, arguments))
        if unreadable:
            log.warning("%d of %d photos cannot be read", len(unreadable), len(sources.photos))
        if found is None:
            raise InputError(f"none of {len(unreadable):,} photos can be read; the first: {unreadable[0]}")
        sets.append(found)
    if len(sets) == 1:
        return sets[0]
    return Descriptors(np.concatenate([one.ids for one in sets]), np.concatenate([one.vectors for one in sets]))


def read_ids(path: Path) -> list[str]:
    """Read one id per line; skip empty lines. Raises InputError for an unreadable file or an invalid id."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected one id a line in UTF-8") from error
    for row, line in enumerate(lines, 1):
        if line and (problem := id_problem(line)):
            raise InputError(f"{path}: row {row}: id {line!r} {problem}")
    return [line for line in lines if line]
