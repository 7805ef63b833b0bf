"""The presets of a benchmark: chains of edits by difficulty, and one preset for every kind of edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isc.benchmark.edit_log import AUGLY
from isc.benchmark.edits.chain import EDITS, Edit, edit_chain, region
from isc.benchmark.edits.pixels import RECOMPRESSION
from isc.benchmark.edits.strengths import STRENGTHS, kinds_and_strengths, single_edit, strength_of
from isc.benchmark.edits.values import Matrix
from isc.config.choices import Library
from isc.errors import InputError
from isc.photos.decode import Pixels
from isc.photos.resizing import fit_within

CHAINS: Mapping[str, tuple[int, int]] = {"easy": (1, 1), "challenge": (1, 4), "hard": (3, 6)}  # (fewest, most) edits
EACH = "each"
QUALITY, RECOMPRESSED_QUALITY = 92, 95  # of JPEG files; the second preserves the artefacts of a recompression
LONGEST = 640  # most pixels per side of a query by AugLy; our own edits have this limit built in

Cell = tuple[str, str | None]  # a kind of edit and a strength; None means any strength
Other = Callable[[str], Pixels]  # returns the photo of this name


@dataclass(frozen=True)
class Recipe:
    """The choice of edits: a preset, optionally a strength, and the library of the edits.

    Raises InputError for an unknown preset or strength, or if the two do not go together.
    """

    preset: str = "challenge"
    strength: str | None = None
    library: Library = Library.own

    def __post_init__(self) -> None:
        kinds = kinds_of(self.library)
        if self.preset not in (*CHAINS, EACH, *kinds):
            expected = ", ".join((*CHAINS, EACH, *kinds))
            raise InputError(f"preset={self.preset}: no such preset with edits={self.library.value}; one of {expected}")
        if self.strength is None:
            return
        if self.library is Library.augly:
            raise InputError(f"strength={self.strength}: AugLy's edits have no strengths here; leave it out")
        if self.strength not in STRENGTHS:
            raise InputError(f"strength={self.strength}; expected one of {', '.join(STRENGTHS)}")
        if self.preset in CHAINS:
            raise InputError(f"strength={self.strength}: goes with one kind of edit, or with {EACH}; leave it out")
        if not self.cells:
            raise InputError(f"strength={self.strength}: {self.preset} has no degrees; leave it out")

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The kinds and strengths that the queries take in turn; empty for chains of edits."""
        if self.preset in CHAINS:
            return ()
        one_kind = self.preset != EACH
        if self.library is Library.augly or (one_kind and self.strength is None):
            return tuple((kind, None) for kind in kinds_of(self.library) if not one_kind or kind == self.preset)
        every = [cell for cell in kinds_and_strengths() if not one_kind or cell[0] == self.preset]
        return tuple(cell for cell in every if self.strength is None or cell[1] == self.strength)


@dataclass(frozen=True)
class EditedQuery:
    """A finished query: its pixels, its edits, the region of the source photo in it, and the JPEG quality to write.

    `region` holds the photo's corners (x, y), clockwise from the upper left, as fractions of width and height; None if
    it is unknown.
    """

    pixels: Pixels
    edits: tuple[Edit, ...]
    region: list[list[float]] | None
    quality: int

    def line(self, library: Library) -> dict[str, Any]:
        """Return the entries of the query's line in edits.jsonl that describe its edits."""
        edits = [_described(edit, library) for edit in self.edits]
        by = {"library": AUGLY} if library is Library.augly else {}
        return {"edits": edits, "region": self.region} | by


def kinds_of(library: Library) -> tuple[str, ...]:
    if library is Library.own:
        return tuple(EDITS)
    from isc.benchmark.edits import augly_draws

    return tuple(sorted(augly_draws.EDITS))


def make_query(
    recipe: Recipe, cell: Cell | None, pixels: Pixels, rng: np.random.Generator, *, others: Sequence[str], other: Other
) -> EditedQuery:
    """Return a copy of the picture by this recipe; `other` opens any of `others`, the photos for overlays."""
    if recipe.library is Library.augly:
        return _by_augly(recipe, cell, pixels, rng, others=others, other=other)

    def any_other() -> Pixels:
        return other(others[int(rng.integers(len(others)))])

    copy, edits, matrix = _by_us(recipe, cell, pixels, rng, any_other)
    quality = RECOMPRESSED_QUALITY if edits[-1].name in RECOMPRESSION else QUALITY
    return EditedQuery(copy, edits, region(pixels, copy, matrix), quality)


def _by_us(
    recipe: Recipe, cell: Cell | None, pixels: Pixels, rng: np.random.Generator, other: Callable[[], Pixels]
) -> tuple[Pixels, tuple[Edit, ...], Matrix]:
    if recipe.preset == "easy":
        light = [cell for cell in kinds_and_strengths() if cell[1] in (None, "light")]
        cell = light[int(rng.integers(len(light)))]
    if cell is not None:
        return single_edit(pixels, rng, other, kind=cell[0], strength=cell[1])
    return edit_chain(pixels, rng, other, count=CHAINS[recipe.preset])


def _by_augly(
    recipe: Recipe, cell: Cell | None, pixels: Pixels, rng: np.random.Generator, *, others: Sequence[str], other: Other
) -> EditedQuery:
    from isc.benchmark.edits.augly_geometry import augly_copy

    kind, count = (None, CHAINS[recipe.preset]) if cell is None else (cell[0], (1, 1))
    copy, edits, matrix = augly_copy(pixels, rng, others, other, kind=kind, count=count)
    where = None if matrix is None else region(pixels, copy, matrix)
    return EditedQuery(fit_within(copy, LONGEST), edits, where, QUALITY)


def _described(edit: Edit, library: Library) -> dict[str, Any]:
    """Return the name, parameters and text of an edit, and its strength if it has one."""
    strength = strength_of(edit) if library is Library.own else None
    line: dict[str, Any] = {"name": edit.name, "params": dict(edit.params), "text": edit.describe()}
    return line if strength is None else line | {"strength": strength}
