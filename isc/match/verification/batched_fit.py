"""The fits of `affine_fit` for many pairs of pictures at once, in torch, on a GPU or a CPU.

Products of descriptors are sums of whole numbers below 2²⁴, so they are exact in float32 in any order, and in TF32;
everything else is float64 with the operations of `affine_fit`. So the tentative pairs are the same, and the maps agree
to rounding. A least-squares problem that has no unique solution is left to `affine_fit` (`Fits.unsolved`).

Letters: P pairs of pictures, B = 2P problems (as it is, mirrored), K features a picture, M tentative pairs, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from isc.match.verification.affine_fit import (
    ANGLE_TOLERANCE,
    ANY_POSE,
    LARGEST_SCALE,
    LARGEST_STRETCH,
    LEAST_INLIERS,
    MOST_TENTATIVE,
    RATIO,
    ROUNDS,
    SCALE_TOLERANCE,
    SEEDS,
    TOLERANCE,
    Flags,
    Floats,
)
from isc.match.verification.feature_rows import FeatureRows
from isc.match.verification.features import MAX_FEATURES, mirrored

if TYPE_CHECKING:
    from torch import Tensor

PAIR = 2 * (5 * MAX_FEATURES**2 + 6 * 8 * MOST_TENTATIVE**2)  # bytes of a pair at most, while it is compared
WIDTHS = (32, 64, 128, MOST_TENTATIVE)  # tentative pairs; problems of about the same number share a batch
SINGULAR = 1e-7  # least share of a column of the least-squares problem that the columns before it do not explain


@dataclass(frozen=True)
class Fits:
    """The best map of each of P pairs, on the host.

    fitted [P] is whether there is one; unsolved [P] whether `affine_fit` must look for it. Where fitted: flip [P], the
    map [P, 2, 3], the rows of the tentative pairs [P, 200] in both pictures with their `number` [P], those `inside`
    [P, 200], inliers [P] and log_nfa [P].
    """

    fitted: Flags
    unsolved: Flags
    flip: Flags
    affine: Floats
    query: npt.NDArray[np.int64]
    reference: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    inside: Flags
    inliers: npt.NDArray[np.int64]
    log_nfa: Floats

    @classmethod
    def joined(cls, parts: Sequence[Fits]) -> Fits:
        """Join the fits of parts of the pairs."""
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))


def best_fits(
    queries: FeatureRows, references: FeatureRows, query: npt.NDArray[np.int64], reference: npt.NDArray[np.int64]
) -> Fits:
    """Return the best map of each pair [P], given by its rows in both sets. The caller bounds P by PAIR bytes each."""
    import torch

    with tf32(), torch.inference_mode():
        device = queries.points.device
        q, r = (torch.from_numpy(rows).to(device) for rows in (query, reference))
        tentative = _tentative(queries, references, q, r)
        counts = tentative.number.cpu()
        parts: list[tuple[Tensor, dict[str, Tensor]]] = []
        for narrow, wide in zip((LEAST_INLIERS - 1, *WIDTHS), WIDTHS, strict=False):
            rows = ((counts > narrow) & (counts <= wide)).nonzero()[:, 0].to(device)
            if len(rows):
                parts.append((rows, _fitted(tentative.take(rows, wide))))
        return _joined(tentative, parts, pairs=len(query))


@dataclass(frozen=True)
class _Tentative:
    """The tentative pairs of B problems: rows of both pictures [B, M], their number [B], and what `affine_fit` needs.

    points [B, M, 2] of both pictures, turn and scale [B, M], and the width and height of the query [B, 2].
    """

    query: Tensor
    reference: Tensor
    number: Tensor
    query_points: Tensor
    reference_points: Tensor
    turn: Tensor
    scale: Tensor
    extent: Tensor

    def take(self, rows: Tensor, width: int) -> _Tentative:
        """Return these problems [B'], with the first `width` pairs of each."""
        pairs = (self.query, self.reference, self.query_points, self.reference_points, self.turn, self.scale)
        query, reference, at, to, turn, scale = (values[rows, :width] for values in pairs)
        return _Tentative(query, reference, self.number[rows], at, to, turn, scale, self.extent[rows])

    @property
    def real(self) -> Tensor:
        """Flags [B, M] of the pairs that are no padding."""
        import torch

        return torch.arange(self.query.shape[1], device=self.query.device) < self.number[:, None]

    @property
    def tolerance(self) -> Tensor:
        """The largest error of an agreeing point [B], in pixels."""
        return TOLERANCE * self.extent.amax(dim=1)


def _tentative(queries: FeatureRows, references: FeatureRows, q: Tensor, r: Tensor) -> _Tentative:
    """Return the tentative pairs of pairs of pictures [P], as they are [0, P) and mirrored [P, 2P)."""
    import torch

    first, second, nearest = _nearest(queries.descriptors[q], references.descriptors[r], references.number[r])
    ratio = torch.sqrt((1 - first).clamp(min=0) / (1 - second).clamp(min=1e-6))
    q, r = q.repeat(2), r.repeat(2)
    padding = torch.arange(MAX_FEATURES, device=q.device) >= queries.number[q][:, None]
    few = torch.minimum(queries.number[q], references.number[r]) < LEAST_INLIERS
    ratio = ratio.masked_fill(padding | few[:, None], torch.inf)
    ratio, at = (values[:, :MOST_TENTATIVE] for values in torch.sort(ratio, dim=1, stable=True))
    to = nearest.gather(1, at)
    flip = torch.arange(len(q), device=q.device)[:, None] >= len(q) // 2
    extent = queries.extent[q]
    points, angles = queries.points[q[:, None], at], queries.angles[q[:, None], at]
    across = torch.where(flip, extent[:, :1] - 1 - points[..., 0], points[..., 0])
    turn = torch.where(flip, math.pi - angles, angles) - references.angles[r[:, None], to]
    scale = queries.sizes[q[:, None], at] / references.sizes[r[:, None], to].clamp(min=1e-30)
    return _Tentative(
        at, to, (ratio < RATIO).sum(dim=1), torch.stack([across, points[..., 1]], dim=2),
        references.points[r[:, None], to], turn, scale.clamp(min=1e-30), extent,
    )  # fmt: skip


def _nearest(query: Tensor, reference: Tensor, number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for each feature [2P, K], the cosine of the nearest and of the second-nearest feature, and the nearest.

    The first half is the query as it is, the second the mirrored one.
    """
    import torch

    order = torch.from_numpy(mirrored(np.arange(128)[None])[0]).to(query.device)
    both = torch.cat([query, query[:, :, order]], dim=1).float()
    cosine = torch.bmm(both, reference.float().transpose(1, 2)) / 255**2
    padding = torch.arange(reference.shape[1], device=query.device) >= number[:, None]
    cosine.masked_fill_(padding[:, None], -1)
    first, nearest = cosine.max(dim=2)
    second = cosine.scatter_(2, nearest[:, :, None], -1).amax(dim=2)

    def halves(values: Tensor) -> Tensor:
        return torch.cat(values.chunk(2, dim=1))

    return halves(first), halves(second), halves(nearest)


def _fitted(pairs: _Tentative) -> dict[str, Tensor]:
    """Return the best map of each problem [B] as named tensors: affine, inside, inliers, log_nfa (−1: none), odd."""
    import torch

    alike, near = _votes(pairs)
    votes, seeds = torch.sort(near.sum(dim=2), dim=1, descending=True, stable=True)
    seeds, enough = seeds[:, :SEEDS], votes[:, :SEEDS] >= LEAST_INLIERS
    rows = torch.arange(len(seeds), device=seeds.device)[:, None]
    inside, alike = near[rows, seeds] & enough[:, :, None], alike[rows, seeds]
    found = _refined(pairs, inside, alike, active=enough)
    chance = (math.pi * pairs.tolerance**2 / pairs.extent.prod(dim=1)).clamp(max=1.0) * ANY_POSE
    nfa = _log_nfa(found["inliers"], pairs.number[:, None], chance[:, None])
    nfa = nfa.masked_fill(found["inliers"] < LEAST_INLIERS, -1.0)
    best = nfa.argmax(dim=1)
    row = rows[:, 0]
    return {name: values[row, best] for name, values in found.items() if name != "odd"} | {
        "log_nfa": nfa[row, best],
        "odd": found["odd"].any(dim=1),
    }


def _votes(pairs: _Tentative) -> tuple[Tensor, Tensor]:
    """Return two flags [B, M, M], as `affine_fit.votes_of`; a product of four columns gives each error."""
    import torch

    real = pairs.real
    cosine, sine = pairs.turn.cos(), pairs.turn.sin()
    turns = torch.stack([cosine, sine], dim=2)
    alike = torch.bmm(turns, turns.transpose(1, 2)) > math.cos(ANGLE_TOLERANCE)
    logs = pairs.scale.log()
    alike &= (logs[:, :, None] - logs[:, None, :]).abs_() < SCALE_TOLERANCE
    alike &= real[:, :, None] & real[:, None, :]
    (qx, qy), (rx, ry) = pairs.query_points.unbind(2), pairs.reference_points.unbind(2)
    a, b, one = pairs.scale * cosine, pairs.scale * sine, torch.ones_like(qx)
    away = torch.bmm(torch.stack([a, -b, qx - a * rx + b * ry, -one], 2), torch.stack([rx, ry, one, qx], 1)).square_()
    away += torch.bmm(torch.stack([b, a, qy - b * rx - a * ry, -one], 2), torch.stack([rx, ry, one, qy], 1)).square_()
    return alike, alike & (away < (2 * pairs.tolerance[:, None, None]) ** 2)


def _refined(pairs: _Tentative, inside: Tensor, alike: Tensor, *, active: Tensor) -> dict[str, Tensor]:
    """Fit and widen each set `inside` [B, S, M], as `affine_fit.refined`; inliers are 0 where it finds no map."""
    import torch

    groups = [_groups(points, pairs.real) for points in (pairs.query_points, pairs.reference_points)]
    affine = torch.zeros(*inside.shape[:2], 2, 3, dtype=torch.float64, device=inside.device)
    found, odd = torch.zeros_like(active), torch.zeros_like(active)
    for _ in range(ROUNDS):
        active = active & (_distinct(inside, groups[1]) >= LEAST_INLIERS)
        solved, singular = _solved(pairs, inside)
        odd |= active & singular
        active = active & _plausible(solved)
        found |= active
        affine = torch.where(active[:, :, None, None], solved, affine)
        mapped = pairs.reference_points[:, None] @ solved[..., :2].transpose(2, 3) + solved[:, :, None, :, 2]
        misses = torch.linalg.vector_norm(mapped - pairs.query_points[:, None], dim=3)
        wider = alike & (misses < pairs.tolerance[:, None, None])
        wider = torch.where(active[:, :, None], wider, inside)
        active = active & (wider != inside).any(dim=2)
        inside = wider
    inliers = torch.minimum(*(_distinct(inside, group) for group in groups))
    return {"affine": affine, "inside": inside, "inliers": torch.where(found, inliers, 0), "odd": odd}


def _groups(points: Tensor, real: Tensor) -> Tensor:
    """Number the distinct points [B, M, 2], rounded to whole pixels; equal ones have one number."""
    import torch

    whole = points.round().long()
    code = (whole[..., 0] * (1 << 20) + whole[..., 1]).masked_fill(~real, torch.iinfo(torch.int64).max)
    code, order = torch.sort(code, dim=1)
    first = torch.zeros_like(code)
    first[:, 1:] = code[:, 1:] != code[:, :-1]
    return torch.zeros_like(code).scatter_(1, order, first.cumsum(dim=1))


def _distinct(inside: Tensor, groups: Tensor) -> Tensor:
    """Return the number of distinct points [B, S] inside [B, S, M]."""
    import torch

    counts = torch.zeros(inside.shape, dtype=torch.int32, device=inside.device)
    counts.scatter_add_(2, groups[:, None].expand_as(inside), inside.int())
    return (counts > 0).sum(dim=2)


def _solved(pairs: _Tentative, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least-squares maps [B, S, 2, 3] of the pairs inside, and where they are not unique [B, S].

    The columns x, y, 1 of the problem are made orthogonal one after the other (Gram and Schmidt), which keeps the
    digits that normal equations lose.
    """
    import torch

    weight = inside.double()
    count = weight.sum(dim=2).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return torch.einsum("bsm,bm->bs", weight, values) / count

    def centred(values: Tensor, middle: Tensor) -> Tensor:
        return (values[:, None] - middle[:, :, None]) * weight

    (qx, qy), (rx, ry) = pairs.query_points.unbind(2), pairs.reference_points.unbind(2)
    means = [mean(values) for values in (rx, ry, qx, qy)]
    u, v, to_x, to_y = (centred(values, middle) for values, middle in zip((rx, ry, qx, qy), means, strict=True))
    square = u.square().sum(dim=2)
    along = (u * v).sum(dim=2) / square.clamp(min=1e-300)
    across = v - along[:, :, None] * u
    rest = across.square().sum(dim=2)
    extent = torch.maximum(square, v.square().sum(dim=2))
    singular = (square <= SINGULAR**2 * extent) | (rest <= SINGULAR**2 * extent)
    rows = []
    for to, middle in ((to_x, means[2]), (to_y, means[3])):
        second = (across * to).sum(dim=2) / rest.clamp(min=1e-300)
        first = (u * to).sum(dim=2) / square.clamp(min=1e-300) - second * along
        rows.append(torch.stack([first, second, middle - first * means[0] - second * means[1]], dim=2))
    return torch.stack(rows, dim=2), singular


def _plausible(affine: Tensor) -> Tensor:
    """Return whether maps [..., 2, 3] have the scale, stretch and sense of an edit, as `affine_fit.plausible`."""
    import torch

    (a, b), (c, d) = (affine[..., row, :2].unbind(-1) for row in (0, 1))
    sums, differences = torch.hypot(a + d, b - c), torch.hypot(a - d, b + c)
    large, small = (sums + differences) / 2, (sums - differences).abs() / 2
    turned = a * d - b * c < 0
    return ~turned & (small > 1 / LARGEST_SCALE) & (large < LARGEST_SCALE) & (large < LARGEST_STRETCH * small)


def _log_nfa(inliers: Tensor, tentative: Tensor, chance: Tensor) -> Tensor:
    """Return `affine_fit.log_nfa` of each element."""
    import torch

    n, k = (tentative - 2).double(), (inliers - 2).double()
    share = (k / n).clamp(1e-9, 1.0)
    rest = 1 - share
    apart = share * (share / chance).log() + torch.special.xlogy(rest, rest / (1 - chance))
    value = ((n * apart - 2 * tentative.double().log()) / math.log(10)).clamp(min=0)
    return torch.where((k <= 0) | (k <= chance * n), 0.0, value)


def _joined(tentative: _Tentative, parts: list[tuple[Tensor, dict[str, Tensor]]], *, pairs: int) -> Fits:
    """Bring the fits to the host, of each pair the likelier one; the unmirrored one if they are equal."""
    import torch

    device, count = tentative.query.device, 2 * pairs
    affine = torch.zeros(count, 2, 3, dtype=torch.float64, device=device)
    inside = torch.zeros(count, MOST_TENTATIVE, dtype=torch.bool, device=device)
    inliers = torch.zeros(count, dtype=torch.int64, device=device)
    nfa = torch.full((count,), -1.0, dtype=torch.float64, device=device)
    odd = torch.zeros(count, dtype=torch.bool, device=device)
    for rows, found in parts:
        affine[rows], inliers[rows], nfa[rows], odd[rows] = (
            found[name] for name in ("affine", "inliers", "log_nfa", "odd")
        )
        inside[rows, : found["inside"].shape[1]] = found["inside"]
    flip = nfa[pairs:] > nfa[:pairs]
    at = torch.arange(pairs, device=device) + pairs * flip
    unsolved = odd[:pairs] | odd[pairs:]
    chosen = (affine[at], tentative.query[at], tentative.reference[at], tentative.number[at], inside[at], inliers[at])
    host = [values.cpu().numpy() for values in (nfa[at] >= 0, unsolved, flip, *chosen, nfa[at])]
    return Fits(*host)


@contextmanager
def tf32() -> Iterator[None]:
    """Let float32 products use TF32 on GPUs: 8 bits of a descriptor fit its 10, and its sums have 24."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
