"""A normalisation chain between extraction and search, fitted on training descriptors only.

Each query and each reference is transformed alone; they are compared by Euclidean distance afterwards, so that a result
of at most 256 dimensions is legal in the descriptor track. `transforms` has the steps and their derivations.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from isc.config.chain import Chain
from isc.data.descriptors import Descriptors
from isc.errors import InputError
from isc.search.normalize.transforms import FittedStep, Training, form


@dataclass(frozen=True)
class Fitted:
    """A chain fitted on a training set; it transforms each query and each reference alone."""

    chain: Chain
    forms: tuple[FittedStep, ...]

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
    """Fit each step on the training set as transformed by the steps before.

    Raises InputError if the training set is too small for a step, or lacks the unit length that the first step
    requires.
    """
    if chain.needs_unit:
        require_unit(training)
    forms: list[FittedStep] = []
    left = Training(training.vectors)
    for step in chain.steps:
        left = forms[-1].training() if forms else left
        forms.append(form(step, left))
    return Fitted(chain, tuple(forms))


def require_unit(descriptors: Descriptors) -> None:
    """Raise InputError, naming the row farthest from unit length, if its length is off by more than 0.001."""
    length = np.linalg.norm(descriptors.vectors, axis=1)
    row = int(np.argmax(np.abs(length - 1)))
    if abs(length[row] - 1) > 1e-3:
        where = f"row {row}: id {descriptors.ids[row]!r}"
        raise InputError(f"{where} has length {length[row]:.3g}; expected unit length, or pca or whiten as first step")
