"""The tasks of the worker processes: describe photos, and compare a query with its candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.errors import InputError
from isc.match.verification.alignment import Alignment, compare
from isc.match.verification.feature_store import FeatureStore, PhotoKey, photo_key
from isc.match.verification.features import LocalFeatures, local_features
from isc.photos.decode import read_image

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Describe:
    """A task: make the features of references, each given as (number, file)."""

    photos: Sequence[tuple[int, Path]]


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
class Compared:
    """The result of `Compare`: the error of the query, or by candidate the evidence and alignment, or the error.

    The error of a candidate concerns its reference or the pair.
    """

    query: int
    query_problem: str | None = None
    found: Mapping[int, tuple[Floats, Alignment | None]] = field(default_factory=dict)
    reference_problems: Mapping[int, str] = field(default_factory=dict)
    pair_problems: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PairWork:
    """The work of a process; it reads from the store and does not write."""

    store: FeatureStore | None

    def __call__(self, item: Describe | Compare) -> Described | Compared:
        if isinstance(item, Describe):
            return Described([(number, photo_key(file), _features(file)) for number, file in item.photos])
        return self._compared(item)

    def _compared(self, item: Compare) -> Compared:
        query = _features(item.file)
        if isinstance(query, str):
            return Compared(item.query, query)
        found: dict[int, tuple[Floats, Alignment | None]] = {}
        reference_problems: dict[int, str] = {}
        pair_problems: dict[int, str] = {}
        for number, reference in self._references(item.references):
            if isinstance(reference, str):
                reference_problems[number] = reference
                continue
            try:
                found[number] = compare(query, reference)
            except Exception as error:  # of OpenCV or of linear algebra, for unexpected pictures
                pair_problems[number] = f"cannot be compared ({_one_line(error)})"
        return Compared(item.query, None, found, reference_problems, pair_problems)

    def _references(self, wanted: Sequence[ReferenceFeatures]) -> Iterator[tuple[int, LocalFeatures | str]]:
        """Yield the features or error text of each reference: held, stored, or made now."""
        unheld = [one for one in wanted if one.features is None] if self.store is not None else []
        keys = {one.number: key for one in unheld if (key := photo_key(one.file)) is not None}
        stored = self.store.get_many(keys.values()) if self.store is not None else {}
        for one in wanted:
            if one.features is not None:
                features: LocalFeatures | None = replace(one.features)  # a copy: its cached vectors are not held
            else:
                features = stored.get(keys[one.number]) if one.number in keys else None
            yield one.number, features if features is not None else _features(one.file)


def _features(file: Path) -> LocalFeatures | str:
    """Return the local features of a photo, or an error text."""
    try:
        return local_features(read_image(file))
    except InputError as error:
        return str(error).removeprefix(f"{file}: ")
    except Exception as error:
        return f"has no local features ({_one_line(error)})"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
