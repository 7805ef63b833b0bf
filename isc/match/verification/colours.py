"""The colours of two pictures under an alignment, which tell two drawings of one shape apart."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Colours = npt.NDArray[np.uint8]
COVERED = 200  # of 255: from here on a cell of the query counts as shown by the reference
LEAST_CELLS = 3


def colours_apart(matrix: npt.NDArray[np.float64], query: Colours, reference: Colours) -> float:
    """Return the mean difference of the colours in the common region, 0…1; 0 if it has almost no cells.

    `query` and `reference` [S, S, 3] are small RGB pictures of the whole, `matrix` [3, 3] maps fractions of the
    reference to those of the query.
    """
    side = len(query)
    to_cells = np.array([[side, 0, -0.5], [0, side, -0.5], [0, 0, 1]])
    pixels = (to_cells @ matrix @ np.linalg.inv(to_cells))[:2]
    moved = cv2.warpAffine(reference, pixels, (side, side), flags=cv2.INTER_LINEAR)
    everywhere = np.full((side, side), 255, np.uint8)
    common = cv2.warpAffine(everywhere, pixels, (side, side), flags=cv2.INTER_LINEAR) > COVERED
    if np.count_nonzero(common) < LEAST_CELLS:
        return 0.0
    return float(np.abs(query[common].astype(float) - moved[common]).mean() / 255)
