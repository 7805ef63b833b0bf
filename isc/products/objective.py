"""The losses of the product model: InfoNCE against shop pictures, and ArcFace against learned centres."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ShopMemory(nn.Module):
    """The last embedding of each shop picture, float32 [P, D]; those of the batch take part with their gradient."""

    rows: Tensor

    def __init__(self, pictures: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(pictures, dim))

    def with_batch(self, places: Tensor, embeddings: Tensor) -> Tensor:
        """Return all rows [P, D], those at `places` [S] replaced by `embeddings` [S, D]; remember these."""
        found = self.rows.index_put((places,), embeddings)
        self.rows = found.detach()
        return found


def shop_loss(photos: Tensor, items: Tensor, shop: Tensor, shop_items: Tensor, *, temperature: float) -> Tensor:
    """Return InfoNCE (van den Oord et al., arXiv 1807.03748, equation 4) of photos against all known shop pictures.

    photos [B, D] and shop [P, D] have unit length, or 0 for a picture that has not been seen yet, which is left out;
    items [B] and shop_items [P] say what they show. A photo without a picture of its item counts nothing.
    """
    seen = (shop != 0).any(dim=1)
    logits = (photos @ shop[seen].T) / temperature
    right = items[:, None] == shop_items[seen][None]
    known = right.any(dim=1)
    if not known.any():
        return photos.sum() * 0
    logits, right = logits[known], right[known]
    return (logits.logsumexp(dim=1) - logits.masked_fill(~right, -math.inf).logsumexp(dim=1)).mean()


def centre_loss(embeddings: Tensor, items: Tensor, centres: Tensor, *, temperature: float, margin: float) -> Tensor:
    """Return the cross-entropy of cosines to the centres of the items, at margin 0 a normalised softmax.

    embeddings [B, D] of unit length, centres [C, D] of any; with a margin it is ArcFace (Deng et al., CVPR 2019,
    equation 3), scale 1 / temperature: the angle to the right centre counts as larger by `margin`, in radians.
    """
    cosine = embeddings @ F.normalize(centres).T
    if margin:
        angle = torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
        right = F.one_hot(items, len(centres)).bool()
        cosine = torch.where(right, torch.cos((angle + margin).clamp(max=math.pi)), cosine)
    return F.cross_entropy(cosine / temperature, items)
