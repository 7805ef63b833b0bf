"""The tasks of the worker processes: describe photos, and compare a query with its candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.errors import InputError
from isc.match.verification.affine_fit import Fit
from isc.match.verification.alignment import Alignment, compare, evidence_of
from isc.match.verification.drawings import may_be_a_drawing
from isc.match.verification.feature_store import FeatureStore, PhotoKey, photo_key
from isc.match.verification.features import (
    LocalFeatures,
    drawn_features,
    local_features,
    negative_features,
    stroke_features,
)
from isc.match.verification.negatives import NEAREST, seen_as_negative
from isc.photos.decode import Pixels, read_image

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Looks:
    """Functions that turn the pictures of either side into local features, and what the progress bars say.

    With `negatives`, the nearest candidates of a query that aligns with none are compared with its negative.
    """

    query: Callable[[Pixels], LocalFeatures]
    reference: Callable[[Pixels], LocalFeatures]
    making: str = "local features of references"
    comparing: str = "comparing pixels"
    negatives: bool = False

    @property
    def alike(self) -> bool:
        """Return whether the stored features of a reference are those that it has as a query."""
        return self.query is self.reference


AS_PHOTOS = Looks(local_features, local_features)
WITH_NEGATIVES = replace(AS_PHOTOS, negatives=True)
# the same in a second run, where a device looks for the maps
AS_NEGATIVES = Looks(negative_features, local_features, comparing="comparing negatives")
# queries that may be drawings of the references
AS_DRAWINGS = Looks(stroke_features, drawn_features, "line drawings of references", "comparing drawings")


@dataclass(frozen=True)
class Describe:
    """A task: make the features of references, or of queries, each given as (number, file)."""

    photos: Sequence[tuple[int, Path]]
    queries: bool = False


@dataclass(frozen=True)
class Described:
    """The result of `Describe`: (number, state of the file before it was read, features or error text) per photo."""

    photos: Sequence[tuple[int, PhotoKey | None, LocalFeatures | str]]


@dataclass(frozen=True)
class ReferenceFeatures:
    """A candidate of a query: its number, its file, and its features if they are held in memory."""

    number: int
    file: Path
    features: LocalFeatures | None


@dataclass(frozen=True)
class Compare:
    """A task: compare a query with its candidates."""

    query: int
    file: Path
    references: Sequence[ReferenceFeatures]


@dataclass(frozen=True)
class Finish:
    """A task: the evidence for pairs of a query with the map that a device found; None: `compare` looks for it."""

    query: int
    features: LocalFeatures
    references: Sequence[tuple[int, LocalFeatures, Fit | None]]


@dataclass(frozen=True)
class Compared:
    """The result of a comparison: the error of the query, or by candidate its evidence and alignment, or its error.

    The error of a candidate concerns its reference or the pair. `drawing` says whether the query may be one.
    """

    query: int
    query_problem: str | None = None
    found: Mapping[int, tuple[Floats, Alignment | None]] = field(default_factory=dict)
    reference_problems: Mapping[int, str] = field(default_factory=dict)
    pair_problems: Mapping[int, str] = field(default_factory=dict)
    drawing: bool = False


@dataclass(frozen=True)
class PairWork:
    """The work of a process; it reads from the store and does not write."""

    store: FeatureStore | None
    looks: Looks = AS_PHOTOS

    def __call__(self, item: Describe | Compare | Finish) -> Described | Compared:
        if isinstance(item, Describe):
            look = self.looks.query if item.queries else self.looks.reference
            return Described([(number, photo_key(file), _features(file, look)) for number, file in item.photos])
        return self._compared(item) if isinstance(item, Compare) else _finished(item)

    def _compared(self, item: Compare) -> Compared:
        query_key, keys, stored = self._stored(item)
        known = stored.get(query_key) if query_key is not None else None
        query = known if known is not None else _features(item.file, self.looks.query)
        if isinstance(query, str):
            return Compared(item.query, query)
        found: dict[int, tuple[Floats, Alignment | None]] = {}
        reference_problems: dict[int, str] = {}
        pair_problems: dict[int, str] = {}
        near: dict[int, LocalFeatures] = {}
        for place, one in enumerate(item.references):
            reference = self._reference(one, stored.get(keys[one.number]) if one.number in keys else None)
            if isinstance(reference, str):
                reference_problems[one.number] = reference
                continue
            if place < NEAREST:
                near[one.number] = reference
            try:
                found[one.number] = compare(query, reference)
            except Exception as error:  # of OpenCV or of linear algebra, for unexpected pictures
                pair_problems[one.number] = cannot_be_compared(error)
        if self.looks.negatives:
            found |= seen_as_negative(query, near, found)
        return Compared(item.query, None, found, reference_problems, pair_problems, may_be_a_drawing(query))

    def _stored(self, item: Compare) -> tuple[PhotoKey | None, dict[int, PhotoKey], dict[PhotoKey, LocalFeatures]]:
        """Return the keys of the query and of the references that are not held, and what the store has of them.

        A query may be stored as well, as a reference of this run or of another one.
        """
        if self.store is None:
            return None, {}, {}
        query = photo_key(item.file) if self.looks.alike else None
        keys = {
            one.number: key
            for one in item.references
            if one.features is None and (key := photo_key(one.file)) is not None
        }
        return query, keys, self.store.get_many([*keys.values(), *([query] if query is not None else [])])

    def _reference(self, one: ReferenceFeatures, stored: LocalFeatures | None) -> LocalFeatures | str:
        """Return the features or error text of a reference: held, stored, or made now."""
        if one.features is not None:
            return replace(one.features)  # a copy: its cached vectors are not held
        return stored if stored is not None else _features(one.file, self.looks.reference)


def _finished(item: Finish) -> Compared:
    found: dict[int, tuple[Floats, Alignment | None]] = {}
    problems: dict[int, str] = {}
    for number, reference, fit in item.references:
        try:
            found[number] = (
                compare(item.features, reference) if fit is None else evidence_of(item.features, reference, fit)
            )
        except Exception as error:
            problems[number] = cannot_be_compared(error)
    return Compared(item.query, None, found, {}, problems, may_be_a_drawing(item.features))


def cannot_be_compared(error: Exception) -> str:
    """Return the reason why a pair has no evidence."""
    return f"cannot be compared ({_one_line(error)})"


def _features(file: Path, look: Callable[[Pixels], LocalFeatures]) -> LocalFeatures | str:
    """Return the local features of a photo, or an error text."""
    try:
        return look(read_image(file))
    except InputError as error:
        return str(error).removeprefix(f"{file}: ")
    except Exception as error:
        return f"has no local features ({_one_line(error)})"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
