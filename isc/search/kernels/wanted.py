"""The result that a search on a device is for: the best pairs of all queries together, or the best of each query.

Both say which computed scores may matter, and settle pairs with exact distances. All work stays on the device.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MOST = 1 << 30  # values whose largest are taken at once


@dataclass(frozen=True)
class Pairs:
    """Pairs [M] on a device: query and reference rows int64, and squared distances float64."""

    query: Tensor
    reference: Tensor
    distance: Tensor

    def __len__(self) -> int:
        return len(self.query)

    def take(self, at: Tensor) -> Pairs:
        return Pairs(self.query[at], self.reference[at], self.distance[at])

    def joined(self, other: Pairs) -> Pairs:
        import torch

        parts = zip(vars(self).values(), vars(other).values(), strict=True)
        return Pairs(*(torch.cat([one, two.to(one.device)]) for one, two in parts))


class Wanted(abc.ABC):
    """The size of the answer, per query or in all; scores are −‖q − r‖²/2."""

    @abc.abstractmethod
    def of_chunks(self, maxima: Tensor) -> Tensor:
        """Return a score that enough pairs reach, float32 [Q] or [1], from the maxima [Q, C]; −∞ if none is known."""

    @abc.abstractmethod
    def of_pairs(self, query: Tensor, score: Tensor, num_queries: int) -> Tensor:
        """Return such a score from the scores [M] of pairs with the rows `query` [M] of `num_queries` queries."""

    @abc.abstractmethod
    def of_settled(self, best: Pairs, first: int, num_queries: int) -> tuple[Tensor, Tensor]:
        """Return such a score [Q] from settled pairs, and the first reference row [Q] that comes too late.

        A reference comes too late for a query whose list is full and ends at distance 0. The queries are those from
        row `first` on.
        """

    @abc.abstractmethod
    def settled(self, pairs: Pairs) -> Pairs:
        """Return the best of the pairs, in the order of the answer."""


@dataclass(frozen=True)
class BestOfAll(Wanted):
    """The best `num_pairs` pairs, by (distance, query, reference)."""

    num_pairs: int

    def of_chunks(self, maxima: Tensor) -> Tensor:
        return _nth(maxima.reshape(-1), self.num_pairs)

    def of_pairs(self, query: Tensor, score: Tensor, num_queries: int) -> Tensor:  # noqa: ARG002
        return _nth(score, self.num_pairs)

    def of_settled(self, best: Pairs, first: int, num_queries: int) -> tuple[Tensor, Tensor]:
        import torch

        device = best.query.device
        least = torch.full((num_queries,), -torch.inf, device=device)
        late = torch.full((num_queries,), torch.iinfo(torch.int64).max, device=device)
        if len(best) == self.num_pairs:
            end = best.distance[-1]
            least[:] = (-end / 2).float()
            after = torch.arange(first, first + num_queries, device=device) > best.query[-1]
            late[(end == 0) & after] = 0
        return least, late

    def settled(self, pairs: Pairs) -> Pairs:
        if len(pairs) > self.num_pairs:
            end = pairs.distance.topk(self.num_pairs, largest=False, sorted=False).values.max()
            pairs = pairs.take((pairs.distance <= end).nonzero()[:, 0])
        return _sorted(pairs, by_query=False).take(slice(self.num_pairs))  # type: ignore[arg-type]


@dataclass(frozen=True)
class BestOfEach(Wanted):
    """The best `k` pairs of each query, by (query, distance, reference)."""

    k: int

    def of_chunks(self, maxima: Tensor) -> Tensor:
        import torch

        if maxima.shape[1] < self.k:
            return maxima.new_full((len(maxima),), float("-inf"))
        step = max(1, MOST // maxima.shape[1])
        parts = [part.topk(self.k, dim=1, sorted=False).values.amin(dim=1) for part in torch.split(maxima, step)]
        return torch.cat(parts)

    def of_pairs(self, query: Tensor, score: Tensor, num_queries: int) -> Tensor:
        import torch

        order = torch.argsort(score, descending=True)
        order = order[torch.argsort(query[order], stable=True)]
        numbers = torch.arange(num_queries, device=query.device)
        ranked = query[order]
        kth = torch.searchsorted(ranked, numbers) + self.k - 1
        full = kth < torch.searchsorted(ranked, numbers, right=True)
        least = score.new_full((num_queries,), float("-inf"))
        if len(score):
            least = torch.where(full, score[order][kth.clamp(max=len(score) - 1)], least)
        return least

    def of_settled(self, best: Pairs, first: int, num_queries: int) -> tuple[Tensor, Tensor]:
        import torch

        device = best.query.device
        late = torch.full((num_queries,), torch.iinfo(torch.int64).max, device=device)
        numbers = torch.arange(first, first + num_queries, device=device)
        if not len(best):
            return torch.full((num_queries,), -torch.inf, device=device), late
        at = torch.searchsorted(best.query, numbers) + self.k - 1
        full = at < torch.searchsorted(best.query, numbers, right=True)
        at = at.clamp(max=len(best) - 1)
        distance = best.distance[at]
        least = torch.where(full, (-distance / 2).float(), -torch.inf)
        return least, torch.where(full & (distance == 0), best.reference[at] + 1, late)

    def settled(self, pairs: Pairs) -> Pairs:
        import torch

        pairs = _sorted(pairs, by_query=True)
        rank = torch.arange(len(pairs), device=pairs.query.device) - torch.searchsorted(pairs.query, pairs.query)
        return pairs.take((rank < self.k).nonzero()[:, 0])


def _nth(scores: Tensor, count: int) -> Tensor:
    """Return the `count`th largest of the scores [M] as [1], −∞ if there are fewer."""
    import torch

    if len(scores) < count:
        return scores.new_full((1,), float("-inf"))
    while len(scores) > MOST:
        best = [part.topk(min(count, len(part)), sorted=False).values for part in torch.split(scores, MOST)]
        shorter = torch.cat(best)
        if len(shorter) == len(scores):
            break
        scores = shorter
    return scores.topk(count, sorted=False).values.min()[None]


def _sorted(pairs: Pairs, *, by_query: bool) -> Pairs:
    """Sort pairs by (distance, query, reference), or by (query, distance, reference)."""
    import torch

    order = torch.argsort(pairs.reference)
    for values in (pairs.distance, pairs.query) if by_query else (pairs.query, pairs.distance):
        order = order[torch.argsort(values[order], stable=True)]
    return pairs.take(order)
