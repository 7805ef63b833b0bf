"""Captions by retrieval: the training pictures that a picture is most like, and what their captions agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse  # type: ignore[import-untyped]
from scipy.sparse.linalg import svds  # type: ignore[import-untyped]

from isc.errors import InputError
from isc.words.caption_metrics import Tokens
from isc.words.gram_space import GramSpace, agreement

Array = npt.NDArray[np.float32]
TEXT_DIM = 256  # numbers of a picture's text vector
RIDGE = 1.0  # of the regression, × the mean variance of a feature
ALIKE = 10  # training pictures by which a picture is familiar or not
POWER = 0.5  # of the features of a picture, which are 0 or more: large ones count less


def pooled(grids: npt.NDArray[np.floating]) -> Array:
    """Return one unit vector [B, F] a picture: the square roots of the means over the cells of grids [B, C, F]."""
    mean = np.stack([np.maximum(grid.astype(np.float32).mean(axis=0), 0) for grid in grids]) ** POWER
    return unit(mean)


def unit(vectors: npt.NDArray[np.floating]) -> Array:
    """Return the rows at unit length; a row of zeros stays."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norm, 1e-12), np.float32)


@dataclass(frozen=True)
class Retriever:
    """Pictures and captions of a training set in one language, and the regression from pictures to text.

    `pictures` [N, F] are pooled features, `texts` [N, D] the unit text vectors of their captions, `center` [F] and
    `weights` [F, D] the ridge regression from the one to the other (Hoerl and Kennard, Technometrics 1970), `axes`
    [runs, D] lead from the space of runs to text vectors.
    """

    space: GramSpace
    pictures: Array
    texts: Array
    center: Array
    weights: Array
    axes: Array

    def texts_of(self, pictures: Array) -> Array:
        """Return the text vectors [B, D], of unit length, that pooled features [B, F] lead to."""
        return unit((pictures - self.center) @ self.weights)

    def vectors(self, captions: Sequence[Tokens]) -> Array:
        """Return the text vectors [N, D], of unit length, of captions."""
        return unit(np.asarray(self.space.vectors(captions) @ self.axes, np.float32))

    def familiarity(self, pictures: Array) -> Array:
        """Return the mean cosine [B] of pooled features [B, F] with those of the ALIKE likest training pictures."""
        cosines = np.sort(pictures @ self.pictures.T, axis=1)
        return np.asarray(cosines[:, -ALIKE:].mean(axis=1), np.float32)

    def likeness(self, pictures: Array, *, by_text: float) -> Array:
        """Return how like pooled features [B, F] are to each training picture [B, N].

        `by_text` in 0…1 is the weight of the cosine of the text vectors; the rest is that of the pictures.
        """
        likeness = by_text * self.texts_of(pictures) @ self.texts.T + (1 - by_text) * pictures @ self.pictures.T
        return np.asarray(likeness, np.float32)


def fit_retriever(captions: Sequence[Sequence[Tokens]], pictures: Array, *, ridge: float = RIDGE) -> Retriever:
    """Fit the retriever to the captions and the pooled features [N, F] of the same N pictures.

    Text vectors are the singular vectors of the pictures' summed captions (latent semantic analysis, Deerwester et
    al., JASIS 1990). Raises InputError if the numbers differ.
    """
    if len(captions) != len(pictures):
        raise InputError(f"{len(captions)} lists of captions for {len(pictures)} pictures; expected one a picture")
    space = GramSpace(captions)
    owners = space.owners
    adding = sparse.csr_matrix((np.ones(len(owners), np.float32), (owners, np.arange(len(owners)))))
    summed = adding @ space.training
    norm = np.sqrt(np.asarray(summed.multiply(summed).sum(axis=1))).ravel()
    summed = sparse.diags((1 / np.maximum(norm, 1e-12)).astype(np.float32)) @ summed
    dim = min(TEXT_DIM, min(summed.shape) - 1)
    if dim < 1:
        raise InputError(f"{len(captions)} pictures with captions; expected at least 2 of different words")
    start = np.random.default_rng(0).standard_normal(min(summed.shape)).astype(np.float32)
    _, _, axes = svds(summed, k=dim, v0=start)
    axes = np.ascontiguousarray(axes.T, np.float32)
    texts = unit(np.asarray(summed @ axes, np.float32))
    center = pictures.mean(axis=0)
    moved = (pictures - center).astype(np.float64)
    gram = moved.T @ moved
    gram[np.diag_indices_from(gram)] += ridge * np.trace(gram) / len(gram) + 1e-9
    weights = linalg.solve(gram, moved.T @ (texts - texts.mean(axis=0)), assume_a="pos")
    return Retriever(space, pictures, texts, center, weights.astype(np.float32), axes)


@dataclass(frozen=True)
class Neighbours:
    """Captions of the training pictures that are most like one picture.

    `rows` [M] are those of the training captions; the weights [M] sum to 1.
    """

    rows: npt.NDArray[np.int64]
    weights: Array


def neighbours(retriever: Retriever, likeness: Array, *, count: int, sharpness: float) -> Neighbours:
    """Return the captions of the `count` likest training pictures; weights rise as exp(sharpness · likeness [N])."""
    count = min(count, len(likeness))
    nearest = np.argpartition(-likeness, count - 1)[:count]
    weight = np.exp(sharpness * (likeness[nearest] - likeness[nearest].max()))
    order = np.argsort(nearest)
    nearest, weight = nearest[order], weight[order]
    rows = np.flatnonzero(np.isin(retriever.space.owners, nearest))
    owner = np.searchsorted(nearest, retriever.space.owners[rows])
    shared = weight[owner] / np.bincount(owner, minlength=count)[owner]
    return Neighbours(rows, np.asarray(shared / shared.sum(), np.float32))


def consensus(retriever: Retriever, near: Neighbours, captions: Sequence[Tokens]) -> Array:
    """Return how well each caption [N] agrees with the neighbours' captions, 0…1: the mean of `agreement`.

    This is consensus re-ranking (Devlin et al., "Exploring Nearest Neighbor Approaches for Image Captioning", 2015).
    """
    space = retriever.space
    lengths = np.array([len(one) for one in captions])
    likeness = agreement(space.vectors(captions), lengths, space.training[near.rows], space.lengths[near.rows])
    return np.asarray(likeness @ near.weights, np.float32)


def best_neighbours(
    retriever: Retriever, near: Neighbours, *, count: int, pool: int = 150
) -> list[int]:  # fmt: skip
    """Return the rows of the `count` captions of neighbours with which the others agree best, the best first.

    Only the `pool` captions of the likest pictures are candidates; of equal captions the first is kept.
    """
    rows = near.rows[np.argsort(-near.weights, kind="stable")[:pool]]
    space = retriever.space
    likeness = agreement(space.training[rows], space.lengths[rows], space.training[near.rows], space.lengths[near.rows])
    order = np.argsort(-(likeness @ near.weights), kind="stable")
    return [int(row) for row in rows[order[:count]]]
