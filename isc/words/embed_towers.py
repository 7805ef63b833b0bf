"""Vectors of texts and of picture grids by the two towers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse  # type: ignore[import-untyped]

from isc.words.grids import Grids
from isc.words.matching_model import MatchingModel
from isc.words.text_grams import gram_counts, weighed


@dataclass(frozen=True)
class Texts:
    """Weighed texts as one list of buckets: `columns` and `weights` stand one text behind another from `offsets` on."""

    columns: torch.Tensor
    offsets: torch.Tensor
    weights: torch.Tensor


def texts_of(rows: sparse.csr_matrix) -> Texts:
    """Return the rows of a sparse matrix for the text tower."""
    return Texts(
        torch.from_numpy(rows.indices.astype(np.int64)),
        torch.from_numpy(rows.indptr[:-1].astype(np.int64)),
        torch.from_numpy(rows.data.astype(np.float32)),
    )


@torch.inference_mode()
def embed_texts(
    model: MatchingModel, texts: Sequence[str], weights: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the unit vectors [N, dim] of texts."""
    found = []
    for first in range(0, len(texts), 4096):
        taken = texts_of(weighed(gram_counts(list(texts[first : first + 4096])), weights))
        found.append(model.texts(taken.columns, taken.offsets, taken.weights).numpy())
    return np.concatenate([np.zeros((0, model.dim), np.float32), *found])


@torch.inference_mode()
def embed_grids(model: MatchingModel, grids: Grids) -> npt.NDArray[np.float32]:
    """Return the unit vectors [N, dim] of pictures by their grids [N, C, F]."""
    found = [
        model.pictures(torch.from_numpy(grids[first : first + 256].astype(np.float32))).numpy()
        for first in range(0, len(grids), 256)
    ]
    return np.concatenate([np.zeros((0, model.dim), np.float32), *found])
