"""The distance from queries to unrelated pictures, which shows how near a query comes to any picture by chance.

The descriptors of text pages, charts, screenshots and plain pictures lie near one another, so that a distance which is
small for a photo means nothing for a page. A calibration therefore holds descriptors of unrelated pictures of all
kinds, and uses the gap between the distance to them and the distance to the reference. This is the query's half of the
score normalisation of Z. Papakipos et al., "Results and findings of the 2021 Image Similarity Challenge", 2022.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from isc.config.choices import Engine
from isc.search.exact import nearest

NEAREST = 5  # unrelated pictures that count (chosen on dev judges, docs/calibration.md)


def unrelated_distance(
    queries: npt.NDArray[np.float32], unrelated: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Return the mean squared distance [Q] of queries [Q, D] to their NEAREST nearest of the unrelated [U, D]."""
    found = nearest(queries, np.asarray(unrelated, np.float32), k=NEAREST, engine=Engine.numpy)[1]
    return np.asarray(found.mean(axis=1), np.float64)
