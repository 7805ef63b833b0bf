"""Two towers to one space of unit vectors: grids of pictures, and texts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isc.words.text_towers import Rows, TextTower


class MatchingModel(nn.Module):
    """Image tower and text tower, to `dim` numbers both; `scale` is the logarithm of 1 / temperature, which is learned.

    The image tower pools the cells by learned attention (a query of its own, as in Radford et al., ICML 2021).
    """

    def __init__(self, text: TextTower, *, features: int, dim: int = 256) -> None:
        super().__init__()
        self.features, self.dim = features, dim
        self.look = nn.Linear(features, dim)
        self.energy = nn.Linear(features, 1)
        self.picture = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.2))
        self.picture_out = nn.Linear(2 * dim, dim)
        self.text = text
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def pictures(self, grids: Tensor) -> Tensor:
        """Embed grids float [B, C, F] to unit vectors [B, dim]."""
        weights = self.energy(grids).softmax(dim=1)
        mean = (weights * grids).sum(dim=1)
        seen = self.look(mean)
        return F.normalize(self.picture_out(self.picture(seen)) + seen)

    def texts(self, rows: Rows) -> Tensor:
        """Embed N texts by what the text tower reads in them to unit vectors [N, dim]."""
        vectors: Tensor = self.text(rows)
        return vectors


def contrast(pictures: Tensor, texts: Tensor, owners: Tensor, others: Tensor, *, scale: Tensor) -> Tensor:
    """Return the symmetric InfoNCE of pictures [B, D] and texts [N, D]; text n belongs to the picture owners[n].

    A picture's loss is −log of the share that its texts have of all (Khosla et al., NeurIPS 2020, inside the
    logarithm); `others` [M, D] are texts of earlier steps, wrong for all. A text's loss has one right picture.
    """
    logits = scale.exp().clamp(max=100) * pictures @ torch.cat((texts, others)).T
    right = torch.zeros_like(logits, dtype=torch.bool)
    right[owners, torch.arange(len(owners))] = True
    own = logits.masked_fill(~right, float("-inf")).logsumexp(1)
    to_text = (logits.logsumexp(1) - own).mean()
    to_picture = F.cross_entropy(logits[:, : len(texts)].T, owners)
    return (to_text + to_picture) / 2
