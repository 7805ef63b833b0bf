"""Descriptors: ids and vectors of one set of images, checked when they are built."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.data.ids import Ids, as_ids, first_repeat, numbered
from isc.errors import InputError


@dataclass(frozen=True)
class Descriptors:
    """The descriptors of one set of images: `ids` [N] unique strings, `vectors` [N, D] finite float32.

    Row i belongs to id i. With `views` [N], the names of the view that each row shows, an image may have several rows:
    ids repeat, pairs of id and view do not. The rows are in any order, also those of one image. Raises InputError for
    other values.
    """

    ids: Ids
    vectors: npt.NDArray[np.float32]
    views: Ids | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", as_ids(self.ids))
        object.__setattr__(self, "vectors", _as_vectors(self.vectors))
        if not len(self.ids):
            raise InputError("holds no descriptors; expected at least one row")
        if len(self.ids) != len(self.vectors):
            raise InputError(f"{len(self.ids)} ids for {len(self.vectors)} rows of vectors; expected one id a row")
        if self.views is not None:
            object.__setattr__(self, "views", as_ids(self.views, what="view"))
        repeat = first_repeated_row(self.ids, self.views)
        if repeat:
            view = "" if self.views is None else f" with view {self.views[repeat[0]]!r}"
            raise InputError(f"rows {repeat[0]} and {repeat[1]}: id {self.ids[repeat[0]]!r}{view} occurs twice")
        bad = non_finite_row(self.vectors)
        if bad is not None:
            raise InputError(f"row {bad}: id {self.ids[bad]!r} has NaN or infinite values; expected finite float32")

    def __len__(self) -> int:
        """Return the number of rows; the number of images is `len(self.images)`."""
        return len(self.ids)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def images(self) -> Ids:
        """The distinct ids, in order of first appearance."""
        return self.ids if self.views is None else numbered(self.ids.tolist())[0]

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Descriptors:
        """Return the set with these rows only, in this order."""
        return Descriptors(self.ids[rows], self.vectors[rows], None if self.views is None else self.views[rows])

    def sorted(self) -> Descriptors:
        """Return the set sorted by id (by code point, as the challenge sorts); rows of one image keep their order."""
        if all(one <= two for one, two in itertools.pairwise(self.ids)):
            return self
        return self.take(np.argsort(self.ids, kind="stable"))


def first_repeated_row(ids: Sequence[str] | Ids, views: Sequence[str] | Ids | None) -> tuple[int, int] | None:
    """Return the rows (first, second) of the first id, or with `views` id and view, that occurs twice; or None.

    Raises InputError if there are not as many views as ids.
    """
    if views is None:
        return first_repeat(ids)
    if len(views) != len(ids):
        raise InputError(f"{len(views)} views for {len(ids)} ids; expected one view a row")
    return first_repeat([f"{name}\0{view}" for name, view in zip(ids, views, strict=True)])  # no id holds a NUL


def _as_vectors(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"vectors have shape {array.shape}; expected [N, D] with D ≥ 1")
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"vectors have type {array.dtype}; expected float32")
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite and is refused by row
        return np.ascontiguousarray(array, dtype=np.float32)


def non_finite_row(vectors: npt.NDArray[np.float32]) -> int | None:
    """Return the first row of [N, D] that holds a NaN or an infinity, or None."""
    for start in range(0, len(vectors), 65536):
        finite = np.isfinite(vectors[start : start + 65536]).all(axis=1)
        if not finite.all():
            return start + int(np.argmin(finite))
    return None
