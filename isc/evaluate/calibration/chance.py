"""Chance as a maker of wrong pairs, which alone grow in number with the references.

A new reference is one more that may come near a query by chance. It adds nothing to pairs that chance cannot make:
those whose alignment would occur by chance in one of 10¹² pairs, and those much nearer than unrelated pictures ever
are. Wrong ones among these are second shots of one thing and the like, of which a larger collection has no more beside
each of its pictures.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ALIGNED = 4.0  # log_nfa from which two pictures are aligned: by chance in one of 10,000 pairs
SIGNIFICANT = 12.0  # log_nfa from which chance has no part in it (chosen on dev judges, docs/results.md)
# squared distance of a pair as a share of that to unrelated pictures, below which chance has no part, and from which it
# has all: of 3.9 million pairs of unrelated photos two are below 0.7, 22 below 0.8, 353 below 0.9, at least ten times
# fewer for each 0.1 (two dev judges)
NEARER, NEAR = 0.4, 0.8


def by_alignment(log_nfa: npt.NDArray[np.floating]) -> Floats:
    """Return the part [M], 0…1, that chance may have in pairs with these values; 1 for NaN, a pair not compared."""
    known = np.nan_to_num(np.asarray(log_nfa, np.float64), nan=0.0)
    return np.asarray(((SIGNIFICANT - known) / (SIGNIFICANT - ALIGNED)).clip(0, 1), np.float64)


def by_distance(squared: npt.NDArray[np.floating], unrelated: Floats) -> Floats:
    """Return the part [M], 0…1, that chance may have in pairs of these squared distances.

    `unrelated` [M] is the squared distance of each pair's query to unrelated pictures.
    """
    share = np.asarray(squared, np.float64) / np.maximum(unrelated, 1e-12)
    return np.asarray(((share - NEARER) / (NEAR - NEARER)).clip(0, 1), np.float64)
