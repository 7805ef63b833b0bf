"""Vectors of texts and of picture grids by the two towers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from isc.words.grids import Grids
from isc.words.matching_model import MatchingModel


@torch.inference_mode()
def embed_texts(model: MatchingModel, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the unit vectors [N, dim] of texts."""
    found = [model.texts(model.text.rows(texts[first : first + 4096])).numpy() for first in range(0, len(texts), 4096)]
    return np.concatenate([np.zeros((0, model.dim), np.float32), *found])


@torch.inference_mode()
def embed_grids(model: MatchingModel, grids: Grids) -> npt.NDArray[np.float32]:
    """Return the unit vectors [N, dim] of pictures by their grids [N, C, F]."""
    found = [
        model.pictures(torch.from_numpy(grids[first : first + 256].astype(np.float32))).numpy()
        for first in range(0, len(grids), 256)
    ]
    return np.concatenate([np.zeros((0, model.dim), np.float32), *found])
