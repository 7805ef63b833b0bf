"""Benchmarks in the challenge's layout from photos, edited by AugLy or by the tools of benchmarks/tool_judge.

references/R000000.jpg …   queries/Q00000.jpg …
ground_truth.csv   query_id,reference_id; the reference id of a distractor is empty
edits.jsonl        one line per query: AugLy's functions or the tools' kinds in their order, with their parameters
photos.csv         the photo of every reference
judge.json         how the benchmark was made

isc benchmark edits=augly makes such benchmarks for users, with a training split, regions, and photos that are shrunk
before editing. This module divides the photos differently and edits them at full size. Its output must stay the same,
byte for byte, because published figures come from it. Both draw the same edits, from isc.benchmark.edits.augly. The
judge of the tools divides the photos in the same way.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import tool_judge
from isc.benchmark.edits import augly
from isc.benchmark.edits.augly_draws import require_augly
from isc.data.csv_files import write_csv, write_ground_truth
from isc.data.files import atomic_folder, write_json, write_text
from isc.errors import InputError
from isc.photos.decode import encode_jpeg, read_image
from isc.photos.folders import list_images
from isc.photos.resizing import fit_within
from isc.photos.sources import list_photos
from isc.runtime.cpus import cores

VERSION = 1  # raise it whenever the same seed and photos give other files
REFERENCES, DISTRACTORS = 0.66, 0.24  # shares of the photos; the rest is for combinations with other photos
MAX_SIDE = 320  # pixels
PHOTO_QUALITY, QUERY_QUALITIES = 92, (85, 95)  # of JPEG


@dataclass(frozen=True)
class _Editor:
    """A set of edits: the check that it is installed, its chain for one picture, and its entry in judge.json."""

    require: Callable[[], None]
    edit_chain: Callable[..., tuple[Image.Image, tuple[Any, ...]]]  # picture, stream, ids of other photos, opener
    made_with: Callable[[], Mapping[str, str]]


EDITORS: Mapping[str, _Editor] = MappingProxyType(
    {
        "augly": _Editor(require_augly, augly.edit_chain, lambda: {"augly": version("augly")}),
        "tools": _Editor(
            tool_judge.require_tools, tool_judge.edit_chain, lambda: {"edits": "tools", **tool_judge.versions()}
        ),
    }
)


@dataclass(frozen=True)
class _Query:
    """A query to make from a photo; `number` gives its id and its random stream."""

    number: int
    source: str
    reference_id: str  # "" for a distractor

    @property
    def id(self) -> str:
        return f"Q{self.number:05d}"


@dataclass(frozen=True)
class _Run:
    """The values that all queries share.

    They are the photos by id, the ids of photos that others are pasted on, the output folder, the seed, and a key of
    EDITORS.
    """

    images: Mapping[str, Path]
    backgrounds: tuple[str, ...]
    folder: Path
    seed: int
    edits: str

    def photo(self, photo_id: str) -> Image.Image:
        return Image.fromarray(read_image(self.images[photo_id]))


def make(
    photos: Path, output: Path, *, seed: int, queries: int = 1200, workers: int | None = None, edits: str = "augly"
) -> None:
    """Write a benchmark in the challenge's layout: half of the queries are copies of references, half distractors.

    Files: references/, queries/ and ground_truth.csv; edits.jsonl has the edits of every query with their parameters,
    photos.csv the photo of every reference, judge.json how the benchmark was made. No photo has two roles. The same
    photos, seed, number of queries and `edits` (a key of EDITORS) give the same files. Raises InputError if the tools
    are not installed, an argument is out of range, the output folder is not empty, or there are too few photos.
    """
    EDITORS[edits].require()
    if queries < 2 or seed < 0:
        raise InputError(f"queries={queries}, seed={seed}; expected at least 2 queries and a seed ≥ 0")
    if output.is_dir() and any(output.iterdir()):
        raise InputError(f"output={output}: is not empty; remove it or name another")
    images = list_images(photos)
    rng = np.random.default_rng(np.random.SeedSequence([seed]))
    drawn = [list(images)[i] for i in rng.permutation(len(images))]
    ends = round(REFERENCES * len(drawn)), round((REFERENCES + DISTRACTORS) * len(drawn))
    references, distractors, backgrounds = drawn[: ends[0]], drawn[ends[0] : ends[1]], drawn[ends[1] :]
    if not (references and distractors and backgrounds):
        raise InputError(f"photos={photos}: holds {len(images)} photos; expected at least 8")
    plan = _plan(references, distractors, queries, rng)
    with atomic_folder(output) as folder:
        for name in ("references", "queries"):
            (folder / name).mkdir()
        for number, name in enumerate(references):
            pixels = fit_within(read_image(images[name]), MAX_SIDE)
            (folder / "references" / f"R{number:06d}.jpg").write_bytes(encode_jpeg(pixels, quality=PHOTO_QUALITY))
        run = _Run(images, tuple(backgrounds), folder, seed, edits)
        with ProcessPoolExecutor(workers or cores()) as pool:
            lines = list(pool.map(functools.partial(_make_query, run), plan, chunksize=16))
        write_text(folder / "edits.jsonl", "".join(f"{line}\n" for line in lines))
        write_ground_truth(folder / "ground_truth.csv", [(query.id, query.reference_id) for query in plan])
        write_csv(
            folder / "photos.csv",
            ("id", "file"),
            ((f"R{i:06d}", images[name].name) for i, name in enumerate(references)),
        )
        write_json(folder / "judge.json", _made_with(list_photos(photos).sha256(), seed, queries, edits))


def _plan(
    references: Sequence[str], distractors: Sequence[str], queries: int, rng: np.random.Generator
) -> list[_Query]:
    """Return all queries by id: copies and distractors mixed, each photo used about equally often."""
    copies = queries // 2
    order = rng.permutation(len(references))
    sources = [(references[order[i % len(order)]], f"R{order[i % len(order)]:06d}") for i in range(copies)]
    sources += [(distractors[i % len(distractors)], "") for i in range(queries - copies)]
    return [_Query(number, *sources[i]) for number, i in enumerate(rng.permutation(len(sources)))]


def _make_query(run: _Run, query: _Query) -> str:
    """Write one query and return its line of edits.jsonl."""
    rng = np.random.default_rng(np.random.SeedSequence([run.seed, query.number]))
    copy, edits = EDITORS[run.edits].edit_chain(run.photo(query.source), rng, run.backgrounds, run.photo)
    low, high = QUERY_QUALITIES
    data = encode_jpeg(fit_within(np.array(copy), MAX_SIDE), quality=int(rng.integers(low, high + 1)))
    (run.folder / "queries" / f"{query.id}.jpg").write_bytes(data)
    line = {
        "query_id": query.id,
        "reference_id": query.reference_id,
        "source": query.source,
        "edits": [{"name": edit.name, "params": edit.params} for edit in edits],
    }
    return json.dumps(line, ensure_ascii=False, allow_nan=False)


def _made_with(photos_sha256: str, seed: int, queries: int, edits: str) -> dict[str, Any]:
    what = {"version": VERSION, "seed": seed, "queries": queries, "photos_sha256": photos_sha256}
    ours = {name: version(name) for name in ("pillow", "numpy", "opencv-python-headless")}
    return {**what, **EDITORS[edits].made_with(), **ours}
