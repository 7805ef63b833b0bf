"""Queries that may be drawings of a photo: which are compared once more, and which of these comparisons count.

A pencil or charcoal drawing keeps the places of edges, but turns what was light or dark beside them into strokes on
white, so that no local feature of the photo is found again. The features of a line drawing of the photo are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from isc.data.matches import Matches
from isc.match.verification.quantities import EVIDENCE

COLOURLESS = 0.1  # chroma below which a query may be a drawing
ALIGNED = 4.0  # log_nfa from which a photo is aligned: by chance in one of 10,000 pairs
CERTAIN, AGREEING = 15.0, 0.35  # least log_nfa and agreement of a drawing: pages align with 25 and 0.14, 14 and 0.67
# evidence of the pictures as they are
OF_PHOTOS = [EVIDENCE.index(name) for name in ("colour_difference", "flat", "light")]
LOG_NFA, AGREEMENT = EVIDENCE.index("log_nfa"), EVIDENCE.index("agreement")

Floats = npt.NDArray[np.float32]


def rows_of_drawings(candidates: Matches, evidence: Floats, chroma: Mapping[int, float]) -> npt.NDArray[np.int64]:
    """Return the rows of the candidates, rising, whose queries may be drawings.

    Such a query has hardly any colour, and none of its pairs, whose `evidence` is [P, len(EVIDENCE)], is aligned.
    `chroma` is that of each query by its number; a query that could not be read has none.
    """
    aligned = np.unique(candidates.query[evidence[:, LOG_NFA] >= ALIGNED])
    colourless = [number for number, value in chroma.items() if value < COLOURLESS]
    compared = ~np.isnan(evidence[:, LOG_NFA])
    return np.flatnonzero(np.isin(candidates.query, colourless) & ~np.isin(candidates.query, aligned) & compared)


def with_drawings(evidence: Floats, drawn: Floats, rows: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the evidence [P, E] with that of the drawings [R, E] in these rows [R], and which of them count [R].

    A drawing counts if its log_nfa is at least CERTAIN and its agreement at least AGREEING. The colours and grey
    levels of whole pictures stay those of the pictures as they are.
    """
    known = np.nan_to_num(drawn)
    accepted = (known[:, LOG_NFA] >= CERTAIN) & (known[:, AGREEMENT] >= AGREEING)
    taken = drawn[accepted]
    taken[:, OF_PHOTOS] = evidence[rows[accepted]][:, OF_PHOTOS]
    joined = evidence.copy()
    joined[rows[accepted]] = taken
    return joined, accepted
