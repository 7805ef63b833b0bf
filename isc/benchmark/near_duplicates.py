"""Near-duplicate photos: candidates by descriptor, decided by pixels.

A query made from a near duplicate has several correct references, so a benchmark with near duplicates would count
correct pairs as wrong. Candidates are the nearest neighbours of every photo by isc_small. A pair is a near duplicate
if many points of both photos agree on one geometric map and the grey values agree inside it. The bounds are
conservative: different photos of one product, with the same label, agree in as many points, but not in the rest of
the picture.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from isc.data.csv_files import write_csv
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import read_descriptors
from isc.data.ids import FloatArray
from isc.data.matches import Matches
from isc.match.query_views import run_extract
from isc.match.verification.compare import verify
from isc.match.verification.quantities import EVIDENCE
from isc.runtime.progress import progress
from isc.search.exact import nearest

log = logging.getLogger(__name__)

MODEL = "isc_small"
NEIGHBOURS = 5  # neighbours of each photo taken as candidates
FARTHEST = 0.9  # largest squared distance of a candidate; unrelated photos have about 2
LEAST = {"inliers": 12.0, "log_nfa": 30.0, "agreement": 0.4}  # lower bounds for a near-duplicate pair


@dataclass(frozen=True)
class NearDuplicate:
    """A pair of near-duplicate photos, with its evidence.

    `inliers` counts agreeing points, `area_a` and `area_b` are the shares 0…1 of each photo that the other one shows,
    `agreement` −1…1 compares the grey values; all are None for identical files. `group` numbers the connected
    component of such pairs.
    """

    file_a: str
    file_b: str
    distance: float  # squared, of the descriptors
    inliers: int | None
    area_a: float | None
    area_b: float | None
    agreement: float | None
    group: int

    def in_words(self) -> str:
        if self.inliers is None:
            return f"{self.file_a} and {self.file_b} are the same file"
        return f"{self.file_a} and {self.file_b}: {self.inliers} points agree, distance {self.distance:.2f}"


COLUMNS = tuple(field.name for field in fields(NearDuplicate))


def describe(photos: Mapping[str, Path], part: Path) -> Descriptors:
    """Return descriptors of the photos by isc_small, made by extract.py in a process of its own.

    They are kept in the folder `part`, where an interrupted run resumes.
    """
    listing, made = part / "listing.csv", part / "photos.h5"
    if not made.exists():
        write_csv(listing, ("id", "file"), ((name, path.absolute()) for name, path in photos.items()))
        log.info("describing %d photos, to find those that show the same", len(photos))
        run_extract(f"images={listing}", f"output={made}", f"model={MODEL}", "strict=true")
    return read_descriptors(made)


def near_duplicates(
    photos: Mapping[str, Path], described: Descriptors, *, names: Mapping[str, str], workers: int, kept: Path
) -> tuple[NearDuplicate, ...]:
    """Return all near-duplicate pairs, sorted; `names` maps a photo's id to its file name.

    The result is stored in the file `kept`, and read from there if it exists.
    """
    if not kept.exists():
        write_near_duplicates(kept, _found(photos, described, names=names, workers=workers))
    return read_near_duplicates(kept)


def write_near_duplicates(path: Path, pairs: Iterable[NearDuplicate]) -> None:
    write_csv(path, COLUMNS, (["" if value is None else value for value in astuple(pair)] for pair in pairs))


def read_near_duplicates(path: Path) -> tuple[NearDuplicate, ...]:
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(_parsed(row) for row in csv.DictReader(file))


def groups_of(pairs: Iterable[NearDuplicate]) -> dict[str, int]:
    """Return the group number of every file that has a near duplicate."""
    return {name: pair.group for pair in pairs for name in (pair.file_a, pair.file_b)}


def left_out(pairs: Iterable[NearDuplicate], sizes: Mapping[str, tuple[int, int]]) -> set[str]:
    """Return all files of each group except the one with the most pixels (the first by name if equal).

    `sizes` maps a file to its (width, height).
    """
    members = defaultdict(list)
    for name, group in groups_of(pairs).items():
        members[group].append(name)
    best = {min(names, key=lambda name: (-sizes[name][0] * sizes[name][1], name)) for names in members.values()}
    return {name for names in members.values() for name in names} - best


def _parsed(row: Mapping[str, str]) -> NearDuplicate:
    told: _Told = (None,) * 4
    if row["inliers"]:
        told = int(row["inliers"]), float(row["area_a"]), float(row["area_b"]), float(row["agreement"])
    return NearDuplicate(row["file_a"], row["file_b"], float(row["distance"]), *told, int(row["group"]))


def _found(
    photos: Mapping[str, Path], described: Descriptors, *, names: Mapping[str, str], workers: int
) -> list[NearDuplicate]:
    place = {name: i for i, name in enumerate(described.ids)}
    equal = [(place[one], place[other]) for one, other in _same_bytes(photos)]
    candidates = _candidates(described, apart_from=equal)
    evidence = verify(candidates, photos, photos, workers=workers).evidence
    column = {name: evidence[:, place] for place, name in enumerate(EVIDENCE)}
    rows = np.flatnonzero(np.logical_and.reduce([column[name] >= least for name, least in LEAST.items()]))
    seen = [(int(candidates.reference[row]), int(candidates.query[row])) for row in rows]
    told: list[_Told] = [_told(column, row) for row in rows.tolist()]
    group = _groups([*seen, *equal])
    found = []
    for (a, b), what in zip([*seen, *equal], [*told, *[(None,) * 4] * len(equal)], strict=True):
        distance = round(float(np.sum((described.vectors[a] - described.vectors[b]) ** 2)), 4)
        found.append(NearDuplicate(names[described.ids[a]], names[described.ids[b]], distance, *what, group[a]))
    return sorted(found, key=lambda pair: (pair.group, pair.file_a, pair.file_b))


_Told = tuple[int | None, float | None, float | None, float | None]


def _told(column: Mapping[str, FloatArray], row: int) -> _Told:
    """Return inliers, area of the first photo, area of the second, and agreement; the first photo is the reference."""
    area_a, area_b, agreement = (
        round(float(column[name][row]), 4) for name in ("area_reference", "area_query", "agreement")
    )
    return int(column["inliers"][row]), area_a, area_b, agreement


def _candidates(described: Descriptors, *, apart_from: Sequence[tuple[int, int]]) -> Matches:
    """Return each pair of neighbours once, without the pairs in `apart_from`; the earlier photo is the reference."""
    with progress("nearest photos", "pairs") as report:
        row, distance = nearest(described.vectors, described.vectors, k=NEIGHBOURS + 1, progress=report)
    one, other = np.repeat(np.arange(len(described)), row.shape[1]), row.reshape(-1)
    low, high = np.minimum(one, other), np.maximum(one, other)
    known = np.array([a * len(described) + b for a, b in apart_from], np.int64)
    key = low * len(described) + high
    near = (low < high) & (distance.reshape(-1) <= FARTHEST) & ~np.isin(key, known)
    _, first = np.unique(key[near], return_index=True)
    rows = np.flatnonzero(near)[first]
    return Matches(described.ids, described.ids, high[rows], low[rows], -distance.reshape(-1)[rows])


def _groups(pairs: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Return the group number, from 1, of every photo that occurs in the pairs."""
    root: dict[int, int] = {}

    def find(one: int) -> int:
        while root.setdefault(one, one) != one:
            root[one] = root[root[one]]
            one = root[one]
        return one

    for a, b in pairs:
        one, other = sorted((find(a), find(b)))
        root[other] = one
    numbers = {first: number for number, first in enumerate(sorted({find(one) for one in root}), 1)}
    return {one: numbers[find(one)] for one in root}


def _same_bytes(photos: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Return (first file, later file) for files with identical bytes; only files of equal size are read."""
    by_size = defaultdict(list)
    for name, path in photos.items():
        by_size[path.stat().st_size].append(name)
    first: dict[tuple[int, bytes], str] = {}
    pairs = []
    for size, names in by_size.items():
        for name in names if len(names) > 1 else ():
            key = size, hashlib.sha256(photos[name].read_bytes()).digest()
            if key in first:
                pairs.append((first[key], name))
            else:
                first[key] = name
    return pairs
