"""Losses on embeddings: pure functions of `[N, D]` unit vectors and `[N]` instance numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def info_nce(embeddings: Tensor, instances: Tensor, *, temperature: float) -> Tensor:
    """InfoNCE with any number of positives, mean over anchors and their positives; ≥ 0.

    For anchor i with positives P(i), the other rows of the same instance:
    −1/|P(i)| Σ_{p ∈ P(i)} log( exp(z_i·z_p/τ) / (exp(z_i·z_p/τ) + Σ_{n of other instances} exp(z_i·z_n/τ)) )
    (van den Oord et al., arXiv:1807.03748, eq. 4; several positives as in SSCD, Pizzi et al., arXiv:2202.10261,
    section 3.3). Rows without a positive do not count.
    """
    similarity = embeddings.float() @ embeddings.float().T / temperature
    same = instances[:, None] == instances[None, :]
    others = torch.logsumexp(similarity.masked_fill(same, -torch.inf), dim=1, keepdim=True)
    each = torch.logaddexp(similarity, others) - similarity
    positive = same & ~torch.eye(len(instances), dtype=torch.bool, device=same.device)
    count = positive.sum(dim=1)
    per_anchor = torch.where(positive, each, 0.0).sum(dim=1) / count.clamp(min=1)
    return per_anchor.sum() / (count > 0).sum().clamp(min=1)


def koleo(embeddings: Tensor, instances: Tensor, *, floor: float = 1e-6) -> Tensor:
    """−mean_i log min_{j of another instance} ‖z_i − z_j‖: falls as nearest neighbours move apart.

    The differential-entropy regulariser of Sablayrolles et al. (arXiv:1806.03198, eq. 5), as SSCD uses it: positives
    are left out. Distances below `floor` count as `floor`.
    """
    z = embeddings.float()
    same = instances[:, None] == instances[None, :]
    alone = same.all(dim=1)  # rows without another instance do not count
    with torch.no_grad():
        nearest = (z @ z.T).masked_fill(same, -torch.inf).argmax(dim=1)
    distance = (z - z[nearest]).square().sum(dim=1).clamp(min=floor**2).sqrt()
    return -distance.log().masked_fill(alone, 0.0).sum() / (~alone).sum().clamp(min=1)
