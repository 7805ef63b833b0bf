"""The pictures of a benchmark, rendered by several processes; finished pictures of an earlier run are kept."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from isc.benchmark.plan import Photo, Plan, Query
from isc.benchmark.presets import QUALITY, Recipe, make_query
from isc.errors import InputError
from isc.photos.decode import Pixels, encode_jpeg, read_image
from isc.photos.resizing import fit_within
from isc.runtime.pool import sharing
from isc.runtime.progress import progress

FOLDERS = ("references", "queries", "training")


@dataclass(frozen=True)
class Run:
    """The options shared by all pictures of a benchmark: source and output folder, seed, size limit, recipe."""

    images: Path
    folder: Path
    seed: int
    max_side: int
    recipe: Recipe

    def name_of(self, photo: Path) -> str:
        return photo.relative_to(self.images).as_posix()


def make_pictures(run: Run, plan: Plan, *, journal: Path, workers: int) -> list[str]:
    """Write all missing pictures, and return the lines of edits.jsonl in the order of the queries.

    `journal` is the file that keeps the lines of finished queries.
    """
    for name in FOLDERS:
        (run.folder / name).mkdir(parents=True, exist_ok=True)
    lines = _finished(run, journal)
    there = {entry.name for name in FOLDERS for entry in os.scandir(run.folder / name)}
    _remove_torn(run.folder)
    todo: list[Photo | Query] = [photo for photo in plan.photos if f"{photo.id}.jpg" not in there]
    todo += [query for query in plan.queries if query.id not in lines]
    total = len(plan.photos) + len(plan.queries)
    done = total - len(todo)
    work = _Work(run, tuple(run.name_of(path) for path in plan.others))
    _read_photo.cache_clear()  # files may have changed since the last run in this process
    with (
        journal.open("a", encoding="utf-8") as file,
        sharing(work, workers=max(1, min(workers, len(todo)))) as share,
        progress("making a benchmark", "pictures") as report,
    ):
        for made in share(todo):
            if made is not None:
                query_id, line = made
                lines[query_id] = line
                file.write(f"{line}\n")
                file.flush()  # so that the line survives a kill of this process
            done += 1
            report(done, total)
    return [lines[query.id] for query in plan.queries]


def _remove_torn(folder: Path) -> None:
    """Remove the unfinished pictures of a killed run."""
    for name in FOLDERS:
        for path in (folder / name).glob(".*.part"):
            path.unlink(missing_ok=True)


def _finished(run: Run, journal: Path) -> dict[str, str]:
    """Return the lines of the journal by query id, without truncated lines and lines whose picture is missing.

    The journal is rewritten with these lines.
    """
    lines: dict[str, str] = {}
    if journal.exists():
        for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                name = json.loads(line)["query_id"]
            except (ValueError, KeyError, TypeError):
                continue
            if (run.folder / "queries" / f"{name}.jpg").exists():
                lines[name] = line
        beside = journal.with_suffix(".new")
        beside.write_text("".join(f"{line}\n" for line in lines.values()), encoding="utf-8")
        beside.replace(journal)
    return lines


@dataclass(frozen=True)
class _Work:
    """The task of a worker process: write one picture; for a query, return its id and its line of edits.jsonl."""

    run: Run
    others: tuple[str, ...]  # names of photos for overlays

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.others)}

    def __call__(self, item: Photo | Query) -> tuple[str, str] | None:
        if isinstance(item, Query):
            return item.id, self._query(item)
        self._write(item.folder, item.id, self._read(item.source), quality=QUALITY)
        return None

    def _query(self, query: Query) -> str:
        run = self.run
        rng = np.random.default_rng(np.random.SeedSequence([run.seed, query.number]))
        source, pixels = run.name_of(query.source), self._read(query.source)
        others = _Without(self.others, self._places.get(source))
        try:
            made = make_query(
                run.recipe, query.cell, pixels, rng, others=others, other=lambda name: self._read(run.images / name)
            )
        except InputError as error:
            raise InputError(f"{query.source}: {error}; remove it from the photos") from error
        self._write("queries", query.id, made.pixels, quality=made.quality)
        line: dict[str, Any] = {
            "query_id": query.id,
            "reference_id": query.reference_id,
            "source": source,
            **made.line(run.recipe.library),
            "seed": [run.seed, query.number],
        }
        if query.neighbour:
            line["neighbour"] = query.neighbour
        return json.dumps(line, ensure_ascii=False, allow_nan=False)

    def _read(self, path: Path) -> Pixels:
        return _read_photo(path, self.run.max_side)

    def _write(self, folder: str, name: str, pixels: Pixels, *, quality: int) -> None:
        """Write a JPEG atomically; the temporary name holds this process's id, as a dying run may still be writing."""
        beside = self.run.folder / folder / f".{name}.{os.getpid()}.part"
        beside.write_bytes(encode_jpeg(pixels, quality=quality))
        beside.replace(self.run.folder / folder / f"{name}.jpg")


@dataclass(frozen=True)
class _Without(Sequence[str]):
    """A view of all names except the one at index `place`, without a copy."""

    names: Sequence[str]
    place: int | None

    def __len__(self) -> int:
        return len(self.names) - (self.place is not None)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        return self.names[at if self.place is None or at < self.place else at + 1]


@functools.lru_cache(maxsize=256)
def _read_photo(path: Path, max_side: int) -> Pixels:
    return fit_within(read_image(path), max_side)
