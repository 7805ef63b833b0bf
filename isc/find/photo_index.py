"""Descriptors of photo files on disk, in step with the files."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.data.descriptors import Descriptors
from isc.errors import InputError
from isc.extract.batches import Files
from isc.extract.embedding import embed_photos
from isc.extract.view_plan import ViewPlan
from isc.find.file_table import forget, read_states, read_unreadable, write_states
from isc.find.photos import FileState, PhotoFiles, absolute, below, file_state, photo_files
from isc.model.download import cache_folder
from isc.model.inference import InferenceModel
from isc.model.load_inference import DEFAULT_MODEL, load_inference_model
from isc.runtime.allocator import keep_freed_memory
from isc.runtime.progress import Report, progress
from isc.search.index.index import Index as DescriptorIndex
from isc.search.index.index import is_index
from isc.search.index.writer import Writer

log = logging.getLogger(__name__)

Source = str | os.PathLike[str]
GROUP = 512  # photos that are described and written to disk together


@dataclass(frozen=True)
class Changes:
    """The photos that a change of an index touched; `unreadable` holds (path, reason) of those left out."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    unreadable: tuple[tuple[str, str], ...] = field(default=())

    @property
    def given(self) -> int:
        """The number of files that were looked at."""
        return self.added + self.changed + self.unchanged + len(self.unreadable)

    def __str__(self) -> str:
        parts = {"added": self.added, "changed": self.changed, "removed": self.removed, "unchanged": self.unchanged}
        said = [f"{count:,} {what}" for what, count in parts.items() if count]
        if self.unreadable:
            said.append(f"{len(self.unreadable):,} unreadable")
        return ", ".join(said) or "nothing to do"


class PhotoIndex:
    """Descriptors of photo files in a folder on disk. It is made when the first photos are added.

    A photo's id is the absolute path of its file. Every change is on disk when a method returns; a killed process
    leaves the index whole, and the next call goes on from there. One process writes, any number read.
    """

    def __init__(self, path: Source, *, model: str | None = None) -> None:
        """Open the index at `path`, or name where a new one for `model` (default `isc_small`) will be made.

        For an index that is there, `model` may name another place of its model. Raises InputError if the path is
        another kind of file, or the index is for another model than the one named.
        """
        self.path = Path(path)
        if self.path.exists() and not is_index(self.path):
            raise InputError(f"{self.path}: is there and is no index; expected an index, or a path that is free")
        there = DescriptorIndex.open(self.path).manifest.model if self.path.exists() else None
        self.model = located(model) if model else there or DEFAULT_MODEL
        self._network: InferenceModel | None = None
        if there not in (None, self.model):
            self.network()  # raises if it is another model

    def __len__(self) -> int:
        """The number of photos that are in the index."""
        if not self.path.exists():
            return 0
        with DescriptorIndex.open(self.path).snapshot() as now:
            return len(now)

    def __repr__(self) -> str:
        return f"isc.Index({str(self.path)!r}): {len(self):,} photos, {self.model}"

    @property
    def photos(self) -> list[str]:
        """The absolute paths of the photos, sorted."""
        return list(read_states(self.path))

    def create(self, *, image_size: int | None = None) -> DescriptorIndex:
        """Make the empty index. Raises InputError if there is one."""
        if self.path.exists():
            raise InputError(f"{self.path}: is there already; expected a new path")
        network = self.network()
        made = {**network.provenance, "image_size": str(image_size or network.image_size)}
        return DescriptorIndex.create(self.path, dim=network.dim, provenance=made, model=self.model)

    def add(self, *sources: Source, acknowledge: Report | None = None) -> Changes:
        """Add the photos of files and folders; photos that are unchanged since they were added are left as they are.

        `acknowledge` is called with (described photos on disk, photos to describe).
        """
        return self._update(photo_files(sources), missing=(), acknowledge=acknowledge)

    def sync(self, folder: Source, *, acknowledge: Report | None = None) -> Changes:
        """Bring the index in step with a folder: add new photos, describe changed ones anew, remove those gone.

        A photo has changed if its size or its content has. Photos of other folders stay.
        """
        if not Path(folder).is_dir():
            raise InputError(f"{folder}: no such folder; expected one of photos")
        listed = photo_files([folder])
        known = {*read_states(self.path), *read_unreadable(self.path)}
        missing = [name for name in known - listed.files.keys() if name.startswith(below(folder))]
        return self._update(listed, missing=missing, acknowledge=acknowledge)

    def remove(self, *photos: Source, missing_ok: bool = False) -> int:
        """Remove photos, all or none, and return their number.

        A photo is named by its id, its path, or its file name if only one photo has it. Raises InputError for an
        ambiguous name, and for one that is not in the index unless `missing_ok`.
        """
        with DescriptorIndex.open(self.path).writer() as writer:
            names = self._resolved([str(photo) for photo in photos], writer)
            if missing_ok or writer.present(names) == set(names):
                forget(self.path, names)  # first: a photo that is known but not described would be left out for ever
            return writer.remove(names, missing_ok=missing_ok)

    @property
    def weights_sha256(self) -> str:
        """The hash of the weights that described the photos; `unknown` for descriptors that do not say it."""
        return DescriptorIndex.open(self.path).manifest.provenance.get("weights_sha256", "unknown")

    def network(self) -> InferenceModel:
        """Return the network of the index's model, loaded once. Raises InputError if it is not the index's."""
        if self._network is None:
            network = load_inference_model(self.model)
            if self.path.exists():
                manifest = DescriptorIndex.open(self.path).manifest
                made = {**network.provenance, "image_size": str(manifest.image_size or network.image_size)}
                manifest.check(f"model {self.model}", network.dim, made)
            keep_freed_memory()
            self._network = network
        return self._network

    def _resolved(self, given: Sequence[str], writer: Writer) -> list[str]:
        """Return the ids of photos that are given by id, path or file name; names of no photo stay as they are."""
        forms = {one: (one, absolute(one), str(Path(one).with_suffix(""))) for one in given}
        known = writer.present(form for one in forms.values() for form in one)
        ids = {one: next((form for form in forms[one] if form in known), None) for one in given}
        named = by_file_name(read_states(self.path)) if None in ids.values() else {}
        return [ids[one] or _only(one, named.get(one, ())) for one in given]

    def _update(self, listed: PhotoFiles, *, missing: Sequence[str], acknowledge: Report | None) -> Changes:
        """Describe the listed photos that are new or have changed, and remove the missing ones."""
        states = read_states(self.path)
        refused = read_unreadable(self.path)
        moved = {name: now for name, path in listed.files.items() if (now := _same(states.get(name), path))}
        still = {name: why for name, path in listed.files.items() if (why := _still_refused(refused.get(name), path))}
        todo = {name: path for name, path in listed.files.items() if name not in moved and name not in still}
        unreadable = [*listed.unusable, *((listed.shown(name), why) for name, why in still.items())]
        if todo:
            unreadable += [(listed.shown(name), why) for name, why in self._describe(todo, acknowledge).items()]
        if touched := {name: now for name, now in moved.items() if now != states[name]}:
            write_states(self.path, touched)
        removed = self._forget_missing(missing)
        failed = len(unreadable) - len(listed.unusable) - len(still)
        changed = sum(name in states for name in todo)
        return Changes(
            added=len(todo) - changed - failed,
            changed=changed,
            removed=removed,
            unchanged=len(moved),
            unreadable=tuple(unreadable),
        )

    def _forget_missing(self, missing: Sequence[str]) -> int:
        if not missing:
            return 0
        with DescriptorIndex.open(self.path).writer() as writer:
            forget(self.path, missing)
            return writer.remove(missing, missing_ok=True)

    def _describe(self, todo: Mapping[str, Path], acknowledge: Report | None) -> dict[str, str]:
        """Add the descriptors of these photos, group by group on disk; return {id: reason} of unreadable ones."""
        network = self.network()
        index = DescriptorIndex.open(self.path) if self.path.exists() else self.create()
        provenance, size = index.manifest.provenance, index.manifest.image_size or network.image_size
        failures: dict[str, str] = {}
        names = list(todo)
        with index.writer() as writer, progress("describing", "photos") as report:
            for start in range(0, len(names), GROUP):
                part = names[start : start + GROUP]
                states = {name: state for name in part if (state := _state(todo[name])) is not None}
                found, why = describe({name: todo[name] for name in part}, network, size, done=start, report=report)
                failures |= why
                if found is not None:
                    writer.add(found, provenance=provenance, replace=True)
                writer.remove(why, missing_ok=True)  # a photo that was readable before
                write_states(self.path, states, reasons=why)
                done = min(start + GROUP, len(names))
                report(done, len(names))
                if acknowledge:
                    acknowledge(done - len(failures), len(names))
        return failures


def describe(
    photos: Mapping[str, Path], network: InferenceModel, size: int, *, done: int = 0, report: Any = None
) -> tuple[Descriptors | None, dict[str, str]]:
    """Return the descriptors of the readable photos, None without any, and the {id: reason} of the others."""
    names, source = list(photos), Files(list(photos.values()))
    blocks = []
    for block in embed_photos(network, source, range(len(names)), view_plan=ViewPlan(size), workers=-1):
        blocks.append(block)
        if report:
            done += len(block.rows) + len(block.failures)
            report(done, done)
    failures = {names[row]: _reason(why, photos[names[row]]) for one in blocks for row, why in one.failures.items()}
    rows = np.concatenate([one.rows for one in blocks])
    if not len(rows):
        return None, failures
    vectors: npt.NDArray[np.float32] = np.concatenate([one.vectors[:, 0] for one in blocks])
    return Descriptors(np.array(names, dtype=object)[rows], vectors), failures


def by_file_name(photos: Iterable[str]) -> dict[str, list[str]]:
    """Return {file name: paths of the photos that have it}."""
    found: dict[str, list[str]] = {}
    for photo in photos:
        found.setdefault(Path(photo).name, []).append(photo)
    return found


def _only(name: str, photos: Sequence[str]) -> str:
    """Return the one photo of this file name, or the name if there is none. Raises InputError if there are several."""
    if len(photos) > 1:
        raise InputError(f"{name!r}: {len(photos)} photos have this name, such as {photos[0]}; give the path")
    return photos[0] if photos else name


def located(model: str) -> str:
    """Return the name of a model, or the absolute path of its file or folder."""
    return str(Path(model).resolve()) if Path(model).exists() else model


def cached_path(folder: Path, *, model: str = DEFAULT_MODEL) -> Path:
    """Return the place in the user's cache for the index of a folder by a model."""
    key = hashlib.sha256(f"{folder.resolve()}\0{model}".encode(errors="surrogateescape")).hexdigest()[:16]
    return cache_folder() / "indexes" / f"{folder.resolve().name or 'root'}-{key}"


def _same(before: FileState | None, path: Path) -> FileState | None:
    return before.unchanged(path) if before is not None else None


def _still_refused(before: tuple[FileState, str] | None, path: Path) -> str | None:
    """Return the reason why an unchanged file could not be read before, or None."""
    return before[1] if before is not None and before[0].unchanged(path) is not None else None


def _state(path: Path) -> FileState | None:
    with suppress(OSError):
        return file_state(path)
    return None


def _reason(text: str, path: Path) -> str:
    return text.removeprefix(f"{path}: ")
