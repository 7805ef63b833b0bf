"""The plan of a benchmark: the role of each photo, and the source and the edit of each query."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from isc.benchmark.presets import Cell
from isc.benchmark.sizes import Sizes
from isc.errors import InputError


@dataclass(frozen=True)
class Photo:
    """A reference or training photo, which is written unedited, at most resized."""

    source: Path
    id: str

    @property
    def folder(self) -> str:
        return "references" if self.id.startswith("R") else "training"


@dataclass(frozen=True)
class Query:
    """A query to make; `number` determines its id and its random stream."""

    number: int
    source: Path
    reference_id: str  # "" for a distractor
    cell: Cell | None = None
    neighbour: str = ""  # of a hard negative: the id of its similar reference

    @property
    def id(self) -> str:
        return f"Q{self.number:05d}"


class Nearest(Protocol):
    """A search for the nearest photo in `among` for each of N `photos`: its index [N] and squared distance [N]."""

    def __call__(self, photos: Sequence[Path], among: Sequence[Path]) -> tuple[Sequence[int], Sequence[float]]: ...


@dataclass(frozen=True)
class HardNegatives:
    """The number of distractor queries to make from photos similar to a reference, and the search for such photos."""

    queries: int
    nearest: Nearest


@dataclass(frozen=True)
class Plan:
    """All photos and queries to make.

    `others` are the photos for overlays; `hard` maps each hard negative to the id of its nearest reference and their
    squared distance.
    """

    photos: tuple[Photo, ...]
    queries: tuple[Query, ...]
    others: tuple[Path, ...]
    hard: Mapping[Path, tuple[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Roles:
    references: Sequence[Path]
    training: Sequence[Path]
    distractors: Sequence[Path]
    hard: Mapping[Path, tuple[str, float]]


def planned(
    photos: Sequence[Path],
    sizes: Sizes,
    *,
    seed: int,
    cells: Sequence[Cell] = (),
    groups: Mapping[Path, Any] | None = None,
    hard: HardNegatives | None = None,
) -> Plan:
    """Divide the photos into roles and plan the queries; the same arguments give the same plan.

    `groups` are near duplicates: if one photo of a group is a reference, no other one is a distractor or an overlay.
    `cells` take turns among the copies, and separately among the distractors. Raises InputError if there are too few
    photos.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    drawn = [photos[i] for i in rng.permutation(len(photos))]
    roles = _divided(drawn, sizes, groups or {}, hard)
    plain = [Photo(path, f"R{i:06d}") for i, path in enumerate(roles.references)]
    plain += [Photo(path, f"T{i:06d}") for i, path in enumerate(roles.training)]
    queries = _dealt(roles, sizes, rng, cells, hard.queries if hard else 0)
    known = {(groups or {}).get(path) for path in roles.references} - {None}
    others = [path for path in (*roles.training, *roles.distractors) if (groups or {}).get(path) not in known]
    return Plan(tuple(plain), tuple(queries), tuple(others), roles.hard)


def _divided(drawn: Sequence[Path], sizes: Sizes, groups: Mapping[Path, Any], hard: HardNegatives | None) -> _Roles:
    """Divide the drawn photos: first references, then distractors (hard ones first), then training photos.

    Raises InputError if too few photos are left for the distractors or the training.
    """
    references, rest = drawn[: sizes.references], drawn[sizes.references :]
    rest = rest[: sizes.photos - sizes.references] if hard is None and not groups else rest
    known = {groups.get(path) for path in references} - {None}
    strangers = [path for path in rest if groups.get(path) not in known]
    if len(strangers) < sizes.distractors or len(rest) < sizes.distractors + sizes.training:
        raise InputError(
            f"{len(strangers):,} photos show nothing that a reference shows; expected at least {sizes.distractors:,} "
            "for the distractors: fewer references= or distractors=, or near_duplicates=leave_out"
        )
    found = _hard(references, strangers, sizes, hard)
    distractors = list(found) + [path for path in reversed(strangers) if path not in found]
    distractors = distractors[: sizes.distractors]
    if hard is None:
        distractors.reverse()  # the order of the draw
    taken = set(distractors)
    training = [path for path in rest if path not in taken][: sizes.training]
    return _Roles(references, training, distractors, found)


def check_hard_negatives(queries: int, sizes: Sizes) -> None:
    """Raise InputError if there are fewer distractor queries than hard negatives."""
    if queries > sizes.distractor_queries:
        raise InputError(
            f"hard_negatives={queries}; expected at most the number of distractor queries, {sizes.distractor_queries}"
        )


def _hard(
    references: Sequence[Path], strangers: Sequence[Path], sizes: Sizes, hard: HardNegatives | None
) -> dict[Path, tuple[str, float]]:
    """Return the photos nearest to a reference, nearest first; their number follows the share of hard queries."""
    if hard is None or hard.queries == 0:
        return {}
    check_hard_negatives(hard.queries, sizes)
    number = math.ceil(hard.queries * sizes.distractors / sizes.distractor_queries)
    if hard.queries < sizes.distractor_queries:
        number = min(number, sizes.distractors - 1)  # the other queries need a photo too
    if number < 1:
        raise InputError(f"hard_negatives={hard.queries}: one photo makes all distractors; expected more distractors=")
    nearest, distance = hard.nearest(strangers, references)
    order = np.argsort(np.asarray(distance), kind="stable")[:number].tolist()
    return {strangers[i]: (f"R{int(nearest[i]):06d}", float(distance[i])) for i in order}


def _dealt(
    roles: _Roles, sizes: Sizes, rng: np.random.Generator, cells: Sequence[Cell], hard_queries: int
) -> list[Query]:
    """Return all queries in the order of their ids, copies and distractors mixed, with photos used about equally."""
    copied = roles.references[: sizes.copied]
    sources = [(copied[i % len(copied)], f"R{i % len(copied):06d}") for i in range(sizes.positive_queries)]
    hard, plain = list(roles.hard), [path for path in roles.distractors if path not in roles.hard]
    sources += [(hard[i % len(hard)], "") for i in range(hard_queries)]
    sources += [(plain[i % len(plain)], "") for i in range(sizes.distractor_queries - hard_queries)]
    places = rng.permutation(len(sources))
    dealt = _turns(cells, sizes, rng)
    neighbours = {path: reference for path, (reference, _) in roles.hard.items()}
    return [
        Query(number, source, reference, dealt[i] if dealt else None, neighbours.get(source, ""))
        for number, i in enumerate(places)
        for source, reference in [sources[i]]
    ]


def _turns(cells: Sequence[Cell], sizes: Sizes, rng: np.random.Generator) -> list[Cell]:
    """Return a cell for every query, copies first; every cell comes once, in random order, before any is repeated."""
    if not cells:
        return []
    dealt: list[Cell] = []
    for number in (sizes.positive_queries, sizes.distractor_queries):
        rounds = math.ceil(number / len(cells))
        dealt += [cells[i] for _ in range(rounds) for i in rng.permutation(len(cells))][:number]
    return dealt
