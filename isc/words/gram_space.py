"""Captions as vectors of their runs of one to four words, weighed by rarity, as CIDEr compares them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]

from isc.errors import InputError
from isc.words.caption_metrics import ORDERS, SIGMA, Tokens, grams

Matrix = npt.NDArray[np.float32]


class GramSpace:
    """The runs of words of training captions, given as lists of captions of each picture.

    A caption's vector has, for each order, the weights count · log(pictures / pictures with the run) at unit length,
    divided by 2: a dot product is the mean cosine of the four orders, CIDEr (Vedantam et al., CVPR 2015, equation 2)
    without its clipping. Runs of two and more words that only one picture has are left out. Raises InputError without
    captions.
    """

    def __init__(self, captions: Sequence[Sequence[Tokens]]) -> None:
        if not captions:
            raise InputError("no captions to compare with; expected at least one")
        frequency: Counter[tuple[str, ...]] = Counter()
        for several in captions:
            frequency.update({run for one in several for order in range(1, ORDERS + 1) for run in grams(one, order)})
        kept = [run for run, count in frequency.items() if count > 1 or len(run) == 1]
        self._column = {run: at for at, run in enumerate(kept)}
        self._rarity = np.array([math.log(len(captions) / frequency[run]) for run in kept], np.float32)
        self._captions = captions

    @property
    def size(self) -> int:
        """The number of runs."""
        return len(self._column)

    def vectors(self, captions: Sequence[Tokens]) -> sparse.csr_matrix:
        """Return the vectors of captions, sparse float32 [N, runs]."""
        columns: list[int] = []
        weights: list[float] = []
        ends = [0]
        for caption in captions:
            for order in range(1, ORDERS + 1):
                found = [(self._column[run], n) for run, n in grams(caption, order).items() if run in self._column]
                values = np.array([n * self._rarity[column] for column, n in found], np.float32)
                norm = float(np.linalg.norm(values))
                if norm > 0:
                    columns += [column for column, _ in found]
                    weights += (values / (2 * norm)).tolist()
            ends.append(len(columns))
        shape = (len(captions), len(self._column))
        return sparse.csr_matrix((np.array(weights, np.float32), columns, ends), shape=shape)

    @cached_property
    def training(self) -> sparse.csr_matrix:
        """The vectors of all training captions, pictures in turn."""
        return self.vectors([one for several in self._captions for one in several])

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The words of each training caption."""
        return np.array([len(one) for several in self._captions for one in several])

    @cached_property
    def owners(self) -> npt.NDArray[np.int64]:
        """The picture of each training caption, as its place in the training set."""
        return np.repeat(np.arange(len(self._captions)), [len(several) for several in self._captions])


def agreement(
    ours: sparse.csr_matrix, lengths: npt.NDArray[np.int64], others: sparse.csr_matrix,
    other_lengths: npt.NDArray[np.int64],
) -> Matrix:  # fmt: skip
    """Return the likeness [N, M], 0…1, of captions: the mean cosine, times CIDEr-D's Gaussian of the lengths."""
    apart = lengths[:, None] - other_lengths[None, :]
    likeness = (ours @ others.T).toarray() * np.exp(-(apart**2) / (2 * SIGMA * SIGMA))
    return np.asarray(likeness, np.float32)
