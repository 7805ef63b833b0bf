"""What may be done to descriptors between extraction and search, fitted on training descriptors alone.

Queries are treated one by one, and so are references; they are compared by Euclidean distance afterwards, so that a
result of at most 256 dimensions is legal for the descriptor track. `forms` holds the steps with their derivations.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from isc.config.chain import Chain
from isc.data.descriptors import Descriptors
from isc.errors import InputError
from isc.search.normalize.files import Stored, stored_for
from isc.search.normalize.transforms import Form, Training, dim_of, form

__all__ = ["Fitted", "Stored", "dim_of", "fit", "require_unit", "stored_for"]


@dataclass(frozen=True)
class Fitted:
    """A chain fitted on a training set: what it makes of queries and of references, each of them alone."""

    chain: Chain
    forms: tuple[Form, ...]

    def queries(self, descriptors: Descriptors) -> Descriptors:
        self._check(descriptors)
        vectors = functools.reduce(lambda x, one: one.queries(x), self.forms, descriptors.vectors)
        return dataclasses.replace(descriptors, vectors=vectors)

    def references(self, descriptors: Descriptors) -> Descriptors:
        self._check(descriptors)
        vectors = functools.reduce(lambda x, one: one.references(x), self.forms, descriptors.vectors)
        return dataclasses.replace(descriptors, vectors=vectors)

    def _check(self, descriptors: Descriptors) -> None:
        if self.chain.needs_unit:
            require_unit(descriptors)


def fit(chain: Chain, training: Descriptors) -> Fitted:
    """Each step fitted on the training set as the steps before leave it.

    InputError where the training set is too small for a step, or has not the length 1 that the first step takes.
    """
    if chain.needs_unit:
        require_unit(training)
    forms: list[Form] = []
    left = Training(training.vectors)
    for step in chain.steps:
        left = forms[-1].training() if forms else left
        forms.append(form(step, left))
    return Fitted(chain, tuple(forms))


def require_unit(descriptors: Descriptors) -> None:
    """InputError naming the row that is farthest from unit length, if it is far."""
    length = np.linalg.norm(descriptors.vectors, axis=1)
    row = int(np.argmax(np.abs(length - 1)))
    if abs(length[row] - 1) > 1e-3:
        where = f"row {row}: id {descriptors.ids[row]!r}"
        raise InputError(f"{where} has length {length[row]:.3g}; expected unit length, or pca or whiten as first step")
