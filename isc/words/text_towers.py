"""Text towers: texts → vectors of the space of pictures, by the letters of their words or by what they mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import sparse  # type: ignore[import-untyped]
from torch import Tensor, nn

from isc.config.words import Reads
from isc.words.sentences import TextEncoder, encoded, kept_vectors
from isc.words.text_grams import BUCKETS, gram_counts, rarity, weighed

Rows: TypeAlias = "sparse.csr_matrix | npt.NDArray[np.float32]"  # read in N texts; rows[places] takes some
KEPT = "sentences.npz"


class TextTower(nn.Module, ABC):
    """A tower over rows that are computed from texts without a gradient."""

    reads: Reads

    @abstractmethod
    def rows(self, texts: Sequence[str]) -> Rows:
        """Return what the tower reads in the texts."""

    @abstractmethod
    def learn(self, texts: Sequence[str], folder: Path) -> Rows:
        """Take the scale of the rows from these texts, to be learned from; return their rows, kept in `folder`."""

    @abstractmethod
    def forward(self, rows: Rows) -> Tensor:
        """Return the unit vectors [N, dim] of rows."""


class LetterTower(TextTower):
    """The sum of embeddings of weighed buckets, runs of characters; learned from nothing, for every script."""

    reads = Reads.letters
    rarity: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.buckets = nn.EmbeddingBag(BUCKETS, dim, mode="sum")
        self.change = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
        self.register_buffer("rarity", torch.ones(BUCKETS))

    def rows(self, texts: Sequence[str]) -> Rows:
        return weighed(gram_counts(texts), self.rarity.numpy())

    def learn(self, texts: Sequence[str], folder: Path) -> Rows:
        del folder  # they take seconds
        counts = gram_counts(texts)
        self.rarity = torch.from_numpy(rarity(counts))
        return weighed(counts, self.rarity.numpy())

    def forward(self, rows: Rows) -> Tensor:
        assert isinstance(rows, sparse.csr_matrix)
        columns, offsets = (torch.from_numpy(one.astype(np.int64)) for one in (rows.indices, rows.indptr[:-1]))
        summed = self.buckets(columns, offsets, per_sample_weights=torch.from_numpy(rows.data.astype(np.float32)))
        return F.normalize(self.change(summed) + summed)


class MeaningTower(TextTower):
    """A projection of the vectors of a frozen sentence encoder, which puts a hundred languages into one space."""

    reads = Reads.meaning
    center: Tensor
    spread: Tensor

    def __init__(self, dim: int, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("center", torch.zeros(encoder.numbers))
        self.register_buffer("spread", torch.ones(encoder.numbers))
        self.project = nn.Linear(encoder.numbers, dim)
        self.change = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.2), nn.Linear(2 * dim, dim)
        )

    def rows(self, texts: Sequence[str]) -> Rows:
        return encoded(texts, self.encoder, asking=False)

    def learn(self, texts: Sequence[str], folder: Path) -> Rows:
        vectors = kept_vectors(folder / KEPT, texts, self.encoder)
        self.center = torch.from_numpy(vectors.mean(axis=0))
        self.spread = torch.from_numpy(np.maximum(vectors.std(axis=0), 1e-6))
        return vectors

    def forward(self, rows: Rows) -> Tensor:
        projected = self.project((torch.from_numpy(rows) - self.center) / self.spread)
        return F.normalize(self.change(projected) + projected)
