"""Queries that may be negatives of a photo: which pairs are compared once more, and what of it counts.

In a negative every slope of grey levels points the other way, so that no local feature of the photo is found again. The
descriptor still is near the photo's. So the nearest candidates of a query that aligns with none are compared with its
negative.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from isc.data.groups import rank_in_group
from isc.data.matches import Matches
from isc.evaluate.calibration.chance import ALIGNED
from isc.match.verification.quantities import EVIDENCE

NEAREST = 2  # candidates of a query that are compared with its negative
# evidence that is said of the pictures as they are
AS_THEY_ARE = [EVIDENCE.index(name) for name in ("flat", "light")]
FEATURES = [EVIDENCE.index(name) for name in ("features_query", "features_reference")]
LOG_NFA = EVIDENCE.index("log_nfa")

Floats = npt.NDArray[np.float32]


def aligned(evidence: Floats) -> bool:
    """Return whether a pair with this evidence [len(EVIDENCE)] is aligned."""
    return bool(evidence[LOG_NFA] >= ALIGNED)


def rows_of_negatives(candidates: Matches, evidence: Floats) -> npt.NDArray[np.int64]:
    """Return the rows of the candidates, rising, to compare with the negatives of their queries.

    They are the NEAREST candidates, the first in the order of the rows, of queries with no pair that is aligned by its
    `evidence` [P, len(EVIDENCE)]. Pairs that could not be compared, or of a picture without features, are left out.
    """
    done = np.unique(candidates.query[evidence[:, LOG_NFA] >= ALIGNED])
    near = rank_in_group(candidates.query) < NEAREST
    usable = (np.nan_to_num(evidence[:, FEATURES]) > 0).all(axis=1)
    return np.flatnonzero(near & ~np.isin(candidates.query, done) & usable)
