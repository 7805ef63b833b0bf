"""A small benchmark in the challenge's layout, made out of a folder of photos.

references/R000000.jpg …   queries/Q00000.jpg …   training/T000000.jpg …
ground_truth.csv   query_id,reference_id; a distractor's reference id is empty
edits.jsonl        a line a query: what was done to which photo, and where the photo lies in the query
photos.csv         the photo of every reference and training id
benchmark.json     what it was made with
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from isc.cores import cores
from isc.edits import EDITS, RECOMPRESSION, Edit, edit_chain, region
from isc.errors import InputError
from isc.images import Pixels, encode_jpeg, fit_within, list_hash, list_images, read_image
from isc.io import write_csv, write_ground_truth, write_json, write_text
from isc.progress import progress

VERSION = 1  # raise it whenever the same seed and photos give other files
QUALITY, RECOMPRESSED_QUALITY = 92, 95  # of JPEG; the second keeps the artefacts of a recompression as they are
MIN_PHOTO_SIDE = 32


@dataclass(frozen=True)
class Sizes:
    """How many photos go where, and how many queries are made of them; all positive.

    Of the `references` the first `copied` are edited into `positive_queries`, as evenly as possible; of further
    `distractors` photos the `distractor_queries` are made, which have no reference; `training` photos are apart.
    """

    references: int
    copied: int
    distractors: int
    training: int
    positive_queries: int
    distractor_queries: int

    def __post_init__(self) -> None:
        for knob in fields(self):
            value = getattr(self, knob.name)
            if value < 1:
                raise InputError(f"sizes.{knob.name}={value}; expected at least 1")
        for few, many in (
            ("copied", "references"),
            ("copied", "positive_queries"),
            ("distractors", "distractor_queries"),
        ):
            if getattr(self, few) > getattr(self, many):
                raise InputError(f"sizes.{few}={getattr(self, few)}; expected at most {many}={getattr(self, many)}")

    @property
    def photos(self) -> int:
        return self.references + self.distractors + self.training


@dataclass(frozen=True)
class _Run:
    """What all pictures of a benchmark share: where photos come from and go to, and how large they are."""

    images: Path
    folder: Path
    seed: int
    max_side: int

    def name_of(self, photo: Path) -> str:
        return photo.relative_to(self.images).as_posix()


@dataclass(frozen=True)
class _Photo:
    """A reference or training photo, which is written as it is but for its size."""

    source: Path
    id: str


@dataclass(frozen=True)
class _Query:
    """A query to make: `number` is that of its id and of its random stream."""

    number: int
    source: Path
    reference_id: str  # "" for a distractor

    @property
    def id(self) -> str:
        return f"Q{self.number:05d}"


def make_benchmark(
    images: Path, output: Path, *, sizes: Sizes, seed: int, max_side: int = 320, workers: int | None = None
) -> None:
    """Write the benchmark to the folder `output`, with photos of at most `max_side` pixels.

    The same photos, seed and sizes give the same bytes, whatever the number of `workers` (threads; one a core where
    None). The folder is whole or absent. One that was made with the same parameters is left as it is. Raises
    InputError where it was made with others, or the photos are too few.
    """
    if seed < 0 or max_side < 64:
        raise InputError(f"seed={seed}, max_side={max_side}; expected a seed ≥ 0 and a side of at least 64 pixels")
    photos = list_images(images)
    made_with = _made_with(photos, sizes, seed, max_side)
    if output.exists() and _is_made(output, made_with):
        return
    if len(photos) < sizes.photos:
        raise InputError(
            f"images={images}: holds {len(photos):,} photos; expected at least {sizes.photos:,} = {sizes.references:,} "
            f"references + {sizes.distractors:,} distractors + {sizes.training:,} training"
        )
    with _folder_beside(output) as beside:
        _write(_Run(images, beside, seed, max_side), list(photos.values()), sizes, workers or cores())
        write_json(beside / "benchmark.json", made_with)


def _made_with(photos: dict[str, Path], sizes: Sizes, seed: int, max_side: int) -> dict[str, Any]:
    what = {"version": VERSION, "sizes": asdict(sizes), "seed": seed, "max_side": max_side}
    return what | {"photos_sha256": list_hash(photos)}


def _is_made(output: Path, made_with: dict[str, Any]) -> bool:
    """Whether this very benchmark is there; False for an empty folder, InputError for anything else."""
    record = output / "benchmark.json"
    if output.is_dir() and not any(output.iterdir()):
        return False
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"output={output}: exists but is no benchmark (no {record.name}); remove it") from error
    found, wanted = _flat(found), _flat(made_with)
    differences = [
        f"{key} {found.get(key)} there, {wanted.get(key)} asked for"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    ]
    if differences:
        raise InputError(f"output={output}: was made differently ({'; '.join(differences)}); remove it or name another")
    return True


def _flat(record: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(record, dict):
        return {prefix.removesuffix("."): record}
    return {key: value for name, part in record.items() for key, value in _flat(part, f"{prefix}{name}.").items()}


@contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """A folder that becomes `output` on success and vanishes on any failure, an interruption included."""
    beside = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        beside.mkdir(parents=True)
        yield beside
        beside.rename(output)
    except OSError as error:
        raise InputError(f"output={output}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(run: _Run, photos: Sequence[Path], sizes: Sizes, workers: int) -> None:
    _read_photo.cache_clear()  # a file may have changed since the last run
    for name in ("references", "queries", "training"):
        (run.folder / name).mkdir()
    rng = np.random.default_rng(np.random.SeedSequence(run.seed, spawn_key=(0,)))
    drawn = [photos[i] for i in rng.permutation(len(photos))[: sizes.photos]]
    references, training = drawn[: sizes.references], drawn[sizes.references : -sizes.distractors]
    distractors = drawn[-sizes.distractors :]
    plain = [_Photo(path, f"R{i:06d}") for i, path in enumerate(references)]
    plain += [_Photo(path, f"T{i:06d}") for i, path in enumerate(training)]
    queries = _plan(references[: sizes.copied], distractors, sizes, rng)
    total = len(plain) + len(queries)
    lines: list[str] = []
    with progress("making a benchmark", "pictures") as report, _threads(workers) as pool:
        for done, _ in enumerate(pool.map(functools.partial(_write_photo, run), plain), 1):
            report(done, total)
        for line in pool.map(functools.partial(_make_query, run, tuple(training + distractors)), queries):
            lines.append(f"{line}\n")
            report(len(plain) + len(lines), total)
    write_ground_truth(run.folder / "ground_truth.csv", [(query.id, query.reference_id) for query in queries])
    write_text(run.folder / "edits.jsonl", "".join(lines))
    write_csv(run.folder / "photos.csv", ("id", "file"), ((photo.id, run.name_of(photo.source)) for photo in plain))


def _plan(copied: Sequence[Path], distractors: Sequence[Path], sizes: Sizes, rng: np.random.Generator) -> list[_Query]:
    """All queries in the order of their ids, positives and distractors mixed, each photo used about equally often."""
    sources = [(copied[i % len(copied)], f"R{i % len(copied):06d}") for i in range(sizes.positive_queries)]
    sources += [(distractors[i % len(distractors)], "") for i in range(sizes.distractor_queries)]
    return [_Query(number, *sources[i]) for number, i in enumerate(rng.permutation(len(sources)))]


@contextmanager
def _threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads, for the decoders and filters release the interpreter; on a failure what has not begun is dropped."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _write_photo(run: _Run, photo: _Photo) -> None:
    folder = run.folder / ("references" if photo.id.startswith("R") else "training")
    pixels = _read_photo(photo.source, run.max_side)
    (folder / f"{photo.id}.jpg").write_bytes(encode_jpeg(pixels, quality=QUALITY))


@functools.lru_cache(maxsize=256)
def _read_photo(path: Path, max_side: int) -> Pixels:
    pixels = read_image(path)
    if min(pixels.shape[:2]) < MIN_PHOTO_SIDE:
        raise InputError(
            f"{path}: {pixels.shape[1]} × {pixels.shape[0]} pixels; expected at least {MIN_PHOTO_SIDE} a side"
        )
    return fit_within(pixels, max_side)


def _make_query(run: _Run, others: tuple[Path, ...], query: _Query) -> str:
    """Write one query, with any of `others` in its overlays but its own source; returns its line of edits.jsonl."""
    rng = np.random.default_rng(np.random.SeedSequence([run.seed, query.number]))
    apart = [path for path in others if path != query.source]
    pixels = _read_photo(query.source, run.max_side)
    copy, edits, matrix = edit_chain(
        pixels, rng, lambda: _read_photo(apart[int(rng.integers(len(apart)))], run.max_side)
    )
    quality = RECOMPRESSED_QUALITY if edits[-1].name in RECOMPRESSION else QUALITY
    (run.folder / "queries" / f"{query.id}.jpg").write_bytes(encode_jpeg(copy, quality=quality))
    line = {
        "query_id": query.id,
        "reference_id": query.reference_id,
        "source": run.name_of(query.source),
        "edits": [{"name": edit.name, "params": dict(edit.params)} for edit in edits],
        "region": region(pixels, copy, matrix),
        "seed": [run.seed, query.number],
    }
    return json.dumps(line, ensure_ascii=False, allow_nan=False)


def read_edits(path: Path) -> dict[str, tuple[Edit, ...]]:
    """The edits of every query of an edits.jsonl, by query id. Raises InputError with the row for a malformed line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected the edits.jsonl of a benchmark") from error
    found: dict[str, tuple[Edit, ...]] = {}
    for row, line in enumerate(lines, 1):
        try:
            query, edits = _parse_edits(line)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: row {row}: {error}; expected query_id and edits of name and params") from error
        if query in found:
            raise InputError(f"{path}: row {row}: query {query!r} was already given; expected each query once")
        found[query] = edits
    return found


def _parse_edits(line: str) -> tuple[str, tuple[Edit, ...]]:
    record = json.loads(line)
    query, edits = record["query_id"], tuple(Edit(edit["name"], dict(edit["params"])) for edit in record["edits"])
    if not isinstance(query, str) or not query:
        raise ValueError(f"query_id {query!r} is no name")
    for edit in edits:
        if edit.name not in EDITS:
            raise ValueError(f"edit {edit.name!r} is unknown")
        edit.describe()
    return query, edits
