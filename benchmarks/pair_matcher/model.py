"""The pair matcher: maps of two pictures → a logit that both show the same photo. Trained here, run by
`network.PairMatcher`, which computes the same with numpy."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isc.io import atomic_path

FORMAT = "isc-pair-1"


@dataclass(frozen=True)
class PairConfig:
    """`coarse` and `fine` are channels of the two maps; the fine one has 4 places in each of the `places` of the
    coarse one, which form a square."""

    coarse: int = 256
    fine: int = 112
    places: int = 49
    width: int = 96
    heads: int = 4
    blocks: int = 2
    look_heads: int = 4  # of the search for likes
    look_width: int = 24  # of each
    place_width: int = 8  # of the code by which a place is told


class PairNetwork(nn.Module):
    """Tokens [B, places, coarse + 4 · fine] of queries and of references → logits [B].

    A token holds a place of the coarse map and then the four places of the fine map that lie in it. First every token
    looks for its like among the other picture's places, coarse and fine, by cosine alone, wherever it lies, and notes
    how alike it is and where; the tokens with these notes then go through blocks of attention to their own picture and
    to the other. What is compared goes through one projection on both sides, which nearly keeps cosines to begin with:
    else nothing would tell where to start. A learned offset says which picture is the query.
    """

    def __init__(self, config: PairConfig) -> None:
        super().__init__()
        self.config, d = config, config.width
        self.coarse_in = nn.Linear(config.coarse, d)
        looked = config.look_heads * config.look_width
        self.coarse_key, self.fine_key = nn.Linear(config.coarse, looked), nn.Linear(config.fine, looked)
        for linear in (self.coarse_key, self.fine_key):
            nn.init.orthogonal_(linear.weight)
        self.scale = nn.Parameter(torch.full((2, config.look_heads), math.log(12.0)))
        self.code = nn.Parameter(_place_codes(config))
        self.found = nn.Linear(2 * config.look_heads * (config.place_width + 1), d)
        self.place = nn.Parameter(0.02 * torch.randn(config.places, d))
        self.side = nn.Parameter(0.02 * torch.randn(2, d))
        self.blocks = nn.ModuleList(_Block(d, config.heads) for _ in range(config.blocks))
        self.last_norm = nn.LayerNorm(d)
        self.hidden = nn.Linear(4 * d + 8 * config.look_heads, d)
        self.out = nn.Linear(d, 1)

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        (x, *keys_x), (y, *keys_y) = self._enter(query), self._enter(reference)
        notes_x, alike_x = self._look(keys_x, keys_y)
        notes_y, alike_y = self._look(keys_y, keys_x)
        x, y = x + self.side[0] + notes_x, y + self.side[1] + notes_y
        for block in self.blocks:
            x, y = block(x, y)
        told = (self.last_norm(x), self.last_norm(y), alike_x, alike_y)
        pooled = torch.cat([part for z in told for part in (z.mean(1), z.amax(1))], dim=1)
        logits: Tensor = self.out(F.relu(self.hidden(pooled))).squeeze(1)
        return logits

    def _enter(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Coarse tokens [B, places, width], and unit keys [B, look_heads, T, look_width]: of the coarse places, of the
        fine ones within each together, and of the fine ones."""
        c = self.config
        coarse = F.layer_norm(tokens[..., : c.coarse], (c.coarse,))
        fine = F.layer_norm(tokens[..., c.coarse :].reshape(len(tokens), 4 * c.places, c.fine), (c.fine,))
        compared = self.fine_key(fine)
        together = compared.view(len(tokens), c.places, 4, -1).mean(2)
        keys = (F.normalize(_split(z, c.look_heads), dim=3) for z in (self.coarse_key(coarse), together, compared))
        coarse_key, together_key, fine_key = keys
        return self.coarse_in(coarse) + self.place, coarse_key, together_key, fine_key

    def _look(self, own: list[Tensor], other: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What the tokens of one picture find in the other: notes [B, places, width], and how alike the likes are
        [B, places, 2 · look_heads]."""
        inside = self.code.view(self.config.places, 4, -1).mean(1)
        near = self._likes(own[0], other[0], inside, self.scale[0])
        fine = self._likes(own[1], other[2], self.code, self.scale[1])
        notes = torch.cat([near, fine], dim=1)
        return self.found(notes.transpose(1, 2).flatten(2)), notes[..., -1].transpose(1, 2)

    def _likes(self, ask: Tensor, key: Tensor, code: Tensor, scale: Tensor) -> Tensor:
        """Where the likes lie, in codes [T, place_width], and how alike they are [B, heads, T, place_width + 1]."""
        width = code.shape[1]
        value = torch.cat([key, code.expand(*key.shape[:2], -1, -1)], dim=3)
        scaled = F.pad(ask * scale.exp()[:, None, None], (0, width))
        likes: Tensor = F.scaled_dot_product_attention(scaled, F.pad(key, (0, width)), value, scale=1.0)
        alike = (likes[..., :-width] * ask).sum(3, keepdim=True)
        return torch.cat([likes[..., -width:], alike], dim=3)


def _place_codes(config: PairConfig) -> Tensor:
    """Sines and cosines [4 · places, place_width] of the fine places' x and y, to begin with."""
    side = math.isqrt(config.places)
    place, cell = torch.arange(config.places).repeat_interleave(4), torch.arange(4).repeat(config.places)
    x, y = (2 * (place % side) + cell % 2 + 0.5) / (2 * side), (2 * (place // side) + cell // 2 + 0.5) / (2 * side)
    waves = [math.pi * 2**k * axis for k in range(config.place_width // 4) for axis in (x, y)]
    return torch.stack([f(wave) for wave in waves for f in (torch.sin, torch.cos)], dim=1)


class _Block(nn.Module):
    """Attention to the own picture, to the other one, and a hidden layer; each added to what it was given, normed."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.own, self.other = _Attention(width, heads), _Attention(width, heads)
        self.norm_own, self.norm_other, self.norm_hidden = (nn.LayerNorm(width) for _ in range(3))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x, y = x + self._look_around(x), y + self._look_around(y)
        across_x, across_y = self.norm_other(x), self.norm_other(y)
        x, y = x + self.other(across_x, across_y), y + self.other(across_y, across_x)
        return x + self._hidden(x), y + self._hidden(y)

    def _look_around(self, x: Tensor) -> Tensor:
        normed = self.norm_own(x)
        found: Tensor = self.own(normed, normed)
        return found

    def _hidden(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(F.relu(self.up(self.norm_hidden(x))))
        return found


class _Attention(nn.Module):
    """Scaled dot products (Vaswani et al., arXiv:1706.03762, section 3.2.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask, self.told, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        key, value = (_split(part, self.heads) for part in self.told(y).chunk(2, dim=2))
        found = F.scaled_dot_product_attention(_split(self.ask(x), self.heads), key, value)
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out


def _split(x: Tensor, heads: int) -> Tensor:
    """[B, T, heads · C] → [B, heads, T, C]."""
    return x.view(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2)


def save_pair_network(path: Path, network: PairNetwork) -> None:
    """The file that `network.load` reads: weights in float16 and the configuration, as .npz."""
    state = {name: value.detach().cpu().numpy().astype(np.float16) for name, value in network.state_dict().items()}
    settings = {f"config.{name}": np.array(value) for name, value in asdict(network.config).items()}
    arrays: dict[str, Any] = {"format": np.array(FORMAT), **settings, **state}
    with atomic_path(path) as beside, beside.open("wb") as file:
        np.savez(file, **arrays)
