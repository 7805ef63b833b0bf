"""What may be done to descriptors between extraction and search. Fitted on training descriptors alone.

Each function takes and returns `Descriptors`, stays within the dimensions given, and leaves comparison by Euclidean
distance, so its result is legal for the descriptor track. Queries are treated one by one, and so are references.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from isc.config import Normalize
from isc.descriptors import Descriptors
from isc.errors import InputError
from isc.io import MAX_DIM, check_same_dim
from isc.search import knn

Vectors = npt.NDArray[np.float32]


def normalize(
    method: Normalize, queries: Descriptors, references: Descriptors, training: Descriptors
) -> tuple[Descriptors, Descriptors]:
    """Queries and references after `method`, fitted on `training`."""
    check_same_dim(queries, references)
    check_same_dim(queries, training)
    match method:
        case Normalize.none:
            return queries, references
        case Normalize.whiten:
            mean, projection = fit_whitening(training, dim=min(MAX_DIM, training.dim))
            return whiten(queries, mean, projection), whiten(references, mean, projection)
        case Normalize.subtract:
            return subtract(queries, training), subtract(references, training)
        case Normalize.stretch:
            return stretch(queries, training), references


def fit_whitening(training: Descriptors, *, dim: int, ridge: float = 1e-3) -> tuple[Vectors, Vectors]:
    """Mean [D] and projection [D, dim] such that (x − mean) · projection has unit covariance over `training`.

    PCA-whitening (Jégou and Chum, ECCV 2012, section 3.1): with the covariance C = V Λ Vᵀ the projection is
    V (Λ + ridge · λ₁)^(−1/2) for the `dim` largest eigenvalues; the ridge keeps directions without variance quiet.
    """
    if len(training) < 2:
        raise InputError(f"{len(training)} training descriptors; whitening expects at least 2")
    x = training.vectors.astype(np.float64)
    mean = x.mean(axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(x - mean, rowvar=False)))
    values, vectors = values[::-1][:dim].clip(min=0), vectors[:, ::-1][:, :dim]
    if values[0] <= 0:
        raise InputError("the training descriptors are all the same; whitening expects them to differ")
    return mean.astype(np.float32), (vectors / np.sqrt(values + ridge * values[0])).astype(np.float32)


def whiten(descriptors: Descriptors, mean: Vectors, projection: Vectors) -> Descriptors:
    """(x − mean) · projection, scaled to unit length."""
    return _replace(descriptors, _unit((descriptors.vectors - mean) @ projection))


def subtract(
    descriptors: Descriptors, training: Descriptors, *, share: float = 0.35, neighbours: int = 10
) -> Descriptors:
    """e ← unit(e − share · mean of its nearest training vectors): away from what many photos look like.

    Negative embedding subtraction of the descriptor track's winner (Yokoo, arXiv:2112.04323, section 3.4).
    """
    _, near = _nearest(descriptors, training, neighbours)
    return _replace(descriptors, _unit(descriptors.vectors - share * training.vectors[near].mean(axis=1)))


def stretch(queries: Descriptors, training: Descriptors, *, factor: float = 2.5, neighbours: int = 5) -> Descriptors:
    """q ← factor · b · q with b the mean cosine of q to its nearest training vectors.

    BoT's form of score normalisation (Wang et al., arXiv:2112.02373). For unit r: ‖aq − r‖² = a² + 1 − 2a q·r, so that
    pairs of a query with much in common with the training set (large a) need a larger cosine for the same distance.
    """
    cosine, _ = _nearest(queries, training, neighbours)
    scale = factor * cosine.mean(axis=1, keepdims=True).clip(min=1e-3)
    return _replace(queries, (queries.vectors * scale).astype(np.float32))


def require_unit(descriptors: Descriptors) -> None:
    """InputError naming the row that is farthest from unit length, if it is far."""
    length = np.linalg.norm(descriptors.vectors, axis=1)
    row = int(np.argmax(np.abs(length - 1)))
    if abs(length[row] - 1) > 1e-3:
        where = f"row {row}: id {descriptors.ids[row]!r}"
        raise InputError(f"{where} has length {length[row]:.3g}; expected unit length, or normalize=whiten")


def _nearest(descriptors: Descriptors, training: Descriptors, neighbours: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Cosines [N, k] and rows [N, k] of the nearest training vectors of each descriptor; all have unit length."""
    require_unit(descriptors)
    require_unit(training)
    found = knn(descriptors, training, k=neighbours)
    k = min(neighbours, len(training))
    order = np.lexsort((-found.score, found.query))
    cosine = 1 + found.score[order].reshape(-1, k) / 2  # ‖x − t‖² = 2 − 2 x·t
    return cosine.astype(np.float32), found.reference[order].reshape(-1, k)


def _unit(vectors: npt.NDArray[np.floating]) -> Vectors:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


def _replace(descriptors: Descriptors, vectors: Vectors) -> Descriptors:
    return dataclasses.replace(descriptors, vectors=vectors)
