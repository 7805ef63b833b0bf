"""Groups of pairs: the place of each element within its group."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def rank_in_group(group: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the place 0, 1, … of each element [M] among the elements of its group, in their order in the array.

    Groups are numbers ≥ 0. Fast if the array is sorted by group.
    """
    order = np.argsort(group, kind="stable")
    count = np.bincount(group)
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count)
    return rank
