"""Queries that may be drawings of a photo: which are compared once more, and which of these comparisons count.

A pencil or charcoal drawing keeps the places of edges, but turns what was light or dark beside them into strokes on
white, so that no local feature of the photo is found again. The features of a line drawing of the photo are.

Its descriptor is far from the photo's, too: a drawing is compared with FURTHER times as many candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from isc.data.matches import Matches
from isc.evaluate.calibration.chance import ALIGNED
from isc.match.verification.features import LocalFeatures
from isc.match.verification.quantities import EVIDENCE

FURTHER = 3  # times the candidates of other queries
COLOURLESS = 0.1  # chroma below which a query may be a drawing
LIGHT = 0.5  # grey level that 5 % of it exceed at least: paper, and no photo of the night
# least log_nfa and agreement of a changed picture: pages align with 25 and 0.14, 14 and 0.67
CERTAIN, AGREEING = 15.0, 0.35
# evidence that is said of the pictures as they are
AS_THEY_ARE = [EVIDENCE.index(name) for name in ("colour_difference", "flat", "light")]
LOG_NFA, AGREEMENT = EVIDENCE.index("log_nfa"), EVIDENCE.index("agreement")

Floats = npt.NDArray[np.float32]


def may_be_a_drawing(query: LocalFeatures) -> bool:
    """Return whether a picture has hardly any colour, and light parts."""
    return query.chroma < COLOURLESS and query.light >= LIGHT


def rows_of_drawings(candidates: Matches, evidence: Floats, drawings: Collection[int]) -> npt.NDArray[np.int64]:
    """Return the rows of the candidates, rising, to compare with line drawings of their references.

    `drawings` are the numbers of queries that may be drawings; those with a pair that is aligned by its `evidence`
    [P, len(EVIDENCE)] are left out, and so are pairs that could not be compared.
    """
    aligned = np.unique(candidates.query[evidence[:, LOG_NFA] >= ALIGNED])
    compared = ~np.isnan(evidence[:, LOG_NFA])
    return np.flatnonzero(np.isin(candidates.query, list(drawings)) & ~np.isin(candidates.query, aligned) & compared)


def counts(changed: Floats) -> npt.NDArray[np.bool_]:
    """Return [R] whether the evidence of changed pictures [R, E] counts: log_nfa ≥ CERTAIN, agreement ≥ AGREEING."""
    known = np.nan_to_num(changed)
    return np.asarray((known[:, LOG_NFA] >= CERTAIN) & (known[:, AGREEMENT] >= AGREEING))


def with_changed(evidence: Floats, changed: Floats, rows: npt.NDArray[np.int64], *, stay: Sequence[int]) -> Floats:
    """Return the evidence [P, E] with that of changed pictures [R, E] in these rows [R]; the columns `stay` stay."""
    taken = changed.copy()
    taken[:, stay] = evidence[rows][:, stay]
    joined = evidence.copy()
    joined[rows] = taken
    return joined
