"""Losses on embeddings: pure functions of unit vectors [N, D] and the photos that each of them shows.

`instances` holds the photo numbers of each embedding: [N], or [N, L] if a picture can be mixed from several photos,
with −1 in unused places. Two embeddings with a common photo are a positive pair. Embeddings of a memory (Wang et al.,
"Cross-Batch Memory", arXiv:1912.06798) are further positives and negatives of the rows; they are never anchors, and
receive no gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ABSENT = -1  # an unused place in [N, L] instances, and an empty row of a memory


def same_instance(one: Tensor, two: Tensor) -> Tensor:
    """Return the mask bool [N, M] of the pairs with a common photo, from [N] or [N, L] and [M] or [M, L]."""
    a, b = (numbers if numbers.ndim == 2 else numbers[:, None] for numbers in (one, two))
    same = torch.zeros(len(a), len(b), dtype=torch.bool, device=a.device)
    for x in a.unbind(dim=1):
        for y in b.unbind(dim=1):
            same |= (x[:, None] == y) & (x != ABSENT)[:, None]
    return same


def _with_memory(embeddings: Tensor, instances: Tensor, memory: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Return the rows followed by the memory, float32 [M, D], and the same-photo mask bool [N, M] of rows with them."""
    z = embeddings.float()
    if memory is None:
        return z, same_instance(instances, instances)
    kept, shows = memory
    return torch.cat([z, kept.detach().float()]), torch.cat(
        [same_instance(instances, instances), same_instance(instances, shows)], dim=1
    )


def _without_itself(same: Tensor) -> Tensor:
    """Return the mask bool [N, M] of positive pairs: the same photo without each row's pair with itself."""
    return same & ~torch.eye(*same.shape, dtype=torch.bool, device=same.device)


def info_nce(
    embeddings: Tensor, instances: Tensor, *, temperature: float, memory: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Return InfoNCE with any number of positives, as the mean over anchors and their positives; ≥ 0.

    For anchor i with positives P(i), the other rows of the same photo:
    −1/|P(i)| Σ_{p ∈ P(i)} log( exp(z_i·z_p/τ) / (exp(z_i·z_p/τ) + Σ_{n of other photos} exp(z_i·z_n/τ)) )
    (van den Oord et al., arXiv:1807.03748, eq. 4; several positives as in SSCD, Pizzi et al., arXiv:2202.10261,
    section 3.3). `memory` holds (embeddings [M, D], instances [M]) of earlier steps. Rows without a positive are left
    out of the mean.
    """
    others, same = _with_memory(embeddings, instances, memory)
    similarity = embeddings.float() @ others.T / temperature
    negatives = torch.logsumexp(similarity.masked_fill(same, -torch.inf), dim=1, keepdim=True)
    each = torch.logaddexp(similarity, negatives) - similarity
    positive = _without_itself(same)
    count = positive.sum(dim=1)
    per_anchor = torch.where(positive, each, 0.0).sum(dim=1) / count.clamp(min=1)
    return per_anchor.sum() / (count > 0).sum().clamp(min=1)


def contrastive(
    embeddings: Tensor,
    instances: Tensor,
    *,
    positive_margin: float = 0.0,
    negative_margin: float = 1.0,
    memory: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return the contrastive loss on Euclidean distances d in 0…2; ≥ 0.

    The loss is the mean of max(0, d − positive_margin) over positive pairs plus the mean of max(0, negative_margin − d)
    over negative pairs; each mean runs over its non-zero terms (Hadsell et al., CVPR 2006, without the squares;
    Musgrave et al., arXiv:2003.08505; the margins 0 and 1 as in Yokoo, arXiv:2112.04323, section 3).
    """
    others, same = _with_memory(embeddings, instances, memory)
    squared = (2 - 2 * embeddings.float() @ others.T).clamp(min=1e-12)  # of unit vectors; the root has no gradient at 0
    distance = squared.sqrt()
    pulled = torch.where(_without_itself(same), (distance - positive_margin).clamp(min=0), 0.0)
    pushed = torch.where(~same, (negative_margin - distance).clamp(min=0), 0.0)
    return sum((term.sum() / (term > 0).sum().clamp(min=1) for term in (pulled, pushed)), distance.new_zeros(()))


def copy_nce(cells: Tensor, keys: Tensor, places: Tensor, *, temperature: float = 1 / 16, power: float = 3.0) -> Tensor:
    """Return CopyNCE: the cross-entropy between the true and the predicted origin of each cell of a copy; ≥ 0.

    `cells` and `keys` are the feature maps [N, D, G, G] of the copies and of the originals, with vectors of any length.
    `places` [N, P, P, 2] holds the position (x, y in 0…1) in the original of P × P points of each copy; a point that
    the original does not show is negative. For cell i of the copy, the target over the cells j of the original is the
    share of its points in j, to the power `power`, normalised; the prediction is
    softmax_j(cos(c_i, k_j) / temperature). The mean runs over cells with at least one visible point (Lu et al.,
    arXiv:2602.17484, section 3). Without any visible point the loss and its gradient are 0.
    """
    grid = cells.shape[2]
    share = _overlap(places, grid).pow(power)  # [N, G², G²]
    total = share.sum(dim=2, keepdim=True)
    target = share / total.clamp(min=1e-12)
    one, two = (F.normalize(part.float().flatten(2), dim=1) for part in (cells, keys))
    log_odds = F.log_softmax(torch.einsum("ndi,ndj->nij", one, two) / temperature, dim=2)
    seen = total.squeeze(2) > 0
    each = -(target * log_odds).sum(dim=2).masked_fill(~seen, 0.0)
    return each.sum() / seen.sum().clamp(min=1)


def _overlap(places: Tensor, grid: int) -> Tensor:
    """Return the share [N, G², G²] of the points of each cell of the copy that lie in each cell of the original."""
    count, points = places.shape[:2]
    row = torch.arange(points, device=places.device) * grid // points
    cell = (row[:, None] * grid + row[None, :]).flatten()  # of the copy, [P²]
    at = (places.float().clamp(max=1 - 1e-6) * grid).floor().long().clamp(min=0)
    there = (at[..., 1] * grid + at[..., 0]).flatten(1)  # of the original, [N, P²]
    seen = (places >= 0).all(dim=3).flatten(1).float()
    number = torch.arange(count, device=places.device)[:, None] * grid**4 + cell[None, :] * grid**2 + there
    found = torch.zeros(count * grid**4, device=places.device).index_add_(0, number.flatten(), seen.flatten())
    return found.view(count, grid**2, grid**2) * (grid / points) ** 2


def koleo(
    embeddings: Tensor, instances: Tensor, *, memory: tuple[Tensor, Tensor] | None = None, floor: float = 1e-6
) -> Tensor:
    """Return the KoLeo regulariser −mean_i log min_{j of another photo} ‖z_i − z_j‖; lower if neighbours are far apart.

    This is the differential-entropy regulariser of Sablayrolles et al. (arXiv:1806.03198, eq. 5), without positives
    as in SSCD. Distances below `floor` count as `floor`.
    """
    others, same = _with_memory(embeddings, instances, memory)
    z = embeddings.float()
    alone = same.all(dim=1)  # rows without a negative are left out of the mean
    with torch.no_grad():
        nearest = (z @ others.T).masked_fill(same, -torch.inf).argmax(dim=1)
    distance = (z - others[nearest]).square().sum(dim=1).clamp(min=floor**2).sqrt()
    return -distance.log().masked_fill(alone, 0.0).sum() / (~alone).sum().clamp(min=1)
