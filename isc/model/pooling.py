"""From feature maps to unit vectors: GeM pooling, background subtraction, and the whitening fitted with it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def gem(features: Tensor, power: float, *, floor: float = 1e-6) -> Tensor:
    """Return the generalised mean over space: [B, C, H, W] → [B, C], (mean x^p)^(1/p) with x clamped to ≥ `floor`.

    Radenović et al., arXiv:1711.02512, eq. 3. p = 1 is the average, p → ∞ the maximum.
    """
    x = features.float().clamp(min=floor)
    largest = x.amax(dim=(2, 3), keepdim=True)  # factored out, so that no power overflows
    if math.isinf(power):
        return largest.flatten(1)
    return largest.flatten(1) * (x / largest).pow(power).mean(dim=(2, 3)).pow(1.0 / power)


def subtract_background(embeddings: Tensor, background: Tensor, *, weight: float, temperature: float) -> Tensor:
    """Subtract the background from unit vectors z [N, D], given unit vectors t [M, D] of training photos.

    norm(z − weight · Σ_m softmax_m(z·t_m / temperature) t_m): what an image shares with unrelated photos is removed, so
    that equal distances mean the same in crowded and in empty regions. Negative embedding subtraction (Yokoo,
    arXiv:2112.04323, section 3.4) with soft weights instead of the ten nearest neighbours. A background of zeros
    changes nothing.
    """
    near = torch.softmax(embeddings @ background.T / temperature, dim=1)
    return F.normalize(embeddings - weight * near @ background)


def whitening_of(embeddings: Tensor, *, ridge: float) -> tuple[Tensor, Tensor]:
    """Return the mean m [D] of embeddings [M, D], and V (Λ + ridge · λ₁)^−½ [D, D] of their covariance V Λ Vᵀ.

    λ₁ is its largest eigenvalue. This gives all directions the same variance (Jégou and Chum, ECCV 2012); the matrix is
    scaled to a largest factor of 1.
    """
    center = embeddings.double().mean(dim=0)
    values, directions = torch.linalg.eigh(torch.cov((embeddings - center).double().T))
    scales = (values.clamp(min=0) + ridge * values[-1]).rsqrt()
    return center.float(), (directions * scales / scales.max()).float()


def as_grid(features: Tensor, backbone: Any) -> Tensor:
    """Return maps [B, C, H, W], maps [B, H, W, C], or tokens [B, N, C] (without prefix tokens) as [B, C, H, W]."""
    channels = backbone.num_features
    if features.ndim == 3:
        return features[:, getattr(backbone, "num_prefix_tokens", 0) :].transpose(1, 2).unsqueeze(3)
    return features if features.shape[1] == channels else features.permute(0, 3, 1, 2)
