"""The edits of `deferred`, for many views at once on the device of the training.

Bilinear sampling, rounding and clipping are those of OpenCV to within a grey level. Nothing is read from the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isc.train.augment.deferred import GRAY, KERNEL, NUMBERS, Edit, Kind


@dataclass(frozen=True)
class Group:
    """Edits of one kind at one place of their chains: a part of the rows of `Edits`; `seed` is that of the noise."""

    kind: Kind
    part: slice
    seed: int


@dataclass(frozen=True)
class Edits:
    """The edits of a batch, in groups that are made one after the other.

    rows int64 [E] are the edited views, numbers float32 [E, NUMBERS] those of each edit. There are two tensors however
    many groups there are: each tensor of a loader's process takes a file descriptor.
    """

    groups: tuple[Group, ...]
    rows: Tensor
    numbers: Tensor

    @classmethod
    def of(cls, chains: Sequence[Sequence[Edit]], *, seed: int) -> Edits | None:
        """Return the edits of all views, given as the chain of each; None if there are none."""
        groups: list[Group] = []
        edits: list[Edit] = []
        rows: list[int] = []
        for place in range(max((len(chain) for chain in chains), default=0)):
            for kind in Kind:
                mine = [row for row, chain in enumerate(chains) if len(chain) > place and chain[place].kind is kind]
                if mine:
                    groups.append(Group(kind, slice(len(rows), len(rows) + len(mine)), seed + len(groups)))
                    rows += mine
                    edits += [chains[row][place] for row in mine]
        if not rows:
            return None
        numbers = np.zeros((len(rows), NUMBERS), np.float32)
        for at, edit in enumerate(edits):
            numbers[at, : len(edit.numbers)] = edit.numbers
        return cls(tuple(groups), torch.tensor(rows), torch.from_numpy(numbers))

    def pin_memory(self) -> Edits:
        return Edits(self.groups, self.rows.pin_memory(), self.numbers.pin_memory())


@torch.no_grad()
def edited(views: Tensor, edits: Edits) -> Tensor:
    """Return views uint8 [N, 3, S, S] with all edits, made in their order; the views given are kept."""
    result = views.clone()
    all_rows = edits.rows.to(views.device, non_blocking=True)
    all_numbers = edits.numbers.to(views.device, non_blocking=True)
    for group in edits.groups:
        rows, numbers = all_rows[group.part], all_numbers[group.part]
        given = result[rows].float()
        if group.kind in RANDOM:
            made = RANDOM[group.kind](given, numbers, torch.Generator(views.device).manual_seed(group.seed))
        else:
            made = PLAIN[group.kind](given, numbers)
        result[rows] = _whole(made).to(torch.uint8)
    return result


def _whole(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255)


def _warped(views: Tensor, numbers: Tensor) -> Tensor:
    """Sample each view where its map points to, over a border of one colour or of the view's mirror image."""
    size = views.shape[-1]
    steps = torch.arange(size, device=views.device, dtype=torch.float32)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], dim=2).view(-1, 3)
    mapped = points @ numbers[:, :9].view(-1, 3, 3).transpose(1, 2)
    depth = mapped[..., 2:]
    place = mapped[..., :2] / torch.where(depth.abs() < 1e-6, 1e-6, depth)
    grid = ((2 * place + 1) / size - 1).view(-1, size, size, 2).clamp(-1e4, 1e4)
    reflected = numbers[:, 9].bool()[:, None, None, None]
    end = size - 1
    mirrored = ((place + end) % (2 * end) - end).abs()  # as 0 1 2 1 0
    inner = ((2 * mirrored + 1) / size - 1).view(-1, size, size, 2)
    inside = F.grid_sample(views, torch.where(reflected, inner, grid), align_corners=False)
    covered = F.grid_sample(torch.ones_like(views[:, :1]), torch.where(reflected, inner, grid), align_corners=False)
    return inside + (1 - covered) * numbers[:, 10:13, None, None]


def _convolved(views: Tensor, numbers: Tensor) -> Tensor:
    count, channels, size, _ = views.shape
    edge = KERNEL // 2
    kernels = numbers.view(count, 1, KERNEL, KERNEL).repeat_interleave(channels, dim=0)
    padded = F.pad(views, (edge,) * 4, mode="reflect").reshape(1, count * channels, size + 2 * edge, size + 2 * edge)
    return F.conv2d(padded, kernels, groups=count * channels).view_as(views)


def _recoloured(views: Tensor, numbers: Tensor) -> Tensor:
    return torch.einsum("nij,njhw->nihw", numbers[:, :9].view(-1, 3, 3), views)


def _looked_up(views: Tensor, numbers: Tensor) -> Tensor:
    return numbers[:, :256].gather(1, views.long().flatten(1)).view_as(views)


def _jittered(views: Tensor, numbers: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue, each view in its own order, rounded after each."""
    order = numbers[:, 4:8].long()
    steps = (_brighter, _contrasted, _saturated, _shifted)
    for place in range(4):
        made = torch.stack([step(views, numbers[:, at, None, None, None]) for at, step in enumerate(steps)])
        views = _whole(made[order[:, place], torch.arange(len(views), device=views.device)])
    return views


def _brighter(views: Tensor, factor: Tensor) -> Tensor:
    return (views * factor).floor()  # as a table of whole numbers has it


def _gray(views: Tensor) -> Tensor:
    return sum((weight * views[:, at] for at, weight in enumerate(GRAY)), views.new_zeros(()))[:, None].round()


def _contrasted(views: Tensor, factor: Tensor) -> Tensor:
    return (views * factor + _gray(views).mean(dim=(2, 3), keepdim=True) * (1 - factor)).floor()


def _saturated(views: Tensor, factor: Tensor) -> Tensor:
    return views * factor + _gray(views) * (1 - factor)


def _shifted(views: Tensor, factor: Tensor) -> Tensor:
    """Add `factor` turns to the hue, with OpenCV's 180 steps of the hue and 256 of the saturation."""
    high, low = views.amax(dim=1), views.amin(dim=1)
    spread = (high - low).clamp(min=1e-6)
    red, green, blue = views.unbind(dim=1)
    bluer = torch.where(high == green, 2 + (blue - red) / spread, 4 + (red - green) / spread)
    sector = torch.where(high == red, (green - blue) / spread, bluer)
    hue = ((30 * sector).round() % 180 + 180 * factor[:, 0]) % 180
    hue = hue.floor() / 30
    chroma = high * (255 * (high - low) / high.clamp(min=1)).round() / 255
    parts = [(hue + offset) % 6 for offset in (5.0, 3.0, 1.0)]  # of red, green, blue
    shifted = torch.stack([high - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in parts], dim=1)
    return torch.where(factor == 0, views, shifted)


def _noisy(views: Tensor, numbers: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(views.shape, generator=generator, device=views.device)
    return views + noise * numbers[:, 0, None, None, None]


def _specked(views: Tensor, numbers: Tensor, generator: torch.Generator) -> Tensor:
    """Make this share of the pixels white or black."""
    drawn = torch.rand(views[:, :1].shape, generator=generator, device=views.device)
    share, white = numbers[:, 0, None, None, None], numbers[:, 1, None, None, None]
    return torch.where(drawn < share * white, 255.0, torch.where(drawn < share, 0.0, views))


PLAIN: dict[Kind, Callable[[Tensor, Tensor], Tensor]] = {
    Kind.warp: _warped,
    Kind.kernel: _convolved,
    Kind.linear: _recoloured,
    Kind.table: _looked_up,
    Kind.jitter: _jittered,
}
RANDOM: dict[Kind, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {Kind.noise: _noisy, Kind.specks: _specked}
