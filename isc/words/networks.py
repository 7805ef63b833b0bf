"""Networks that write captions from the grid of a frozen backbone: an LSTM with attention, and one transformer.

All take grids float [B, C, F] (C cells of F features) and words as rows of the vocabulary. `encode` reads the pictures
once; `step` takes one more word. A state is a tuple of tensors whose first axis is that of the captions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = tuple[Tensor, ...]


class CaptionNetwork(nn.Module, ABC):
    """A network that writes captions, as training and beam search use it; `rows` is the size of the vocabulary."""

    def __init__(self, *, features: int, cells: int, rows: int, width: int, dropout: float) -> None:
        super().__init__()
        self.features, self.cells, self.width = features, cells, width
        self.look = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width), nn.Dropout(dropout))
        self.words = nn.Embedding(rows, width)
        nn.init.normal_(self.words.weight, std=width**-0.5)
        self.bias = nn.Parameter(torch.zeros(rows))
        self.dropout = nn.Dropout(dropout)

    @abstractmethod
    def encode(self, grids: Tensor) -> State:
        """Return what is remembered of the pictures: tensors [B, …]."""

    @abstractmethod
    def begin(self, memory: State) -> State:
        """Return the state [B, …] before the first word."""

    @abstractmethod
    def step(self, memory: State, state: State, row: Tensor) -> tuple[Tensor, State]:
        """Read one word each, int64 [B]; return vectors [B, width] from which the next one follows, and the state."""

    @abstractmethod
    def read(self, memory: State, rows: Tensor, lengths: Tensor) -> Tensor:
        """Read whole captions, int64 [B, K, T], K of each picture; return vectors [B, K, T, width] for each next word.

        `lengths` [B, K] are the words that count; what stands behind them has no meaning.
        """

    def outputs(self, vectors: Tensor, span: tuple[int, int]) -> Tensor:
        """Return the logits of the words of one language, [..., span]; the weights are those of the inputs."""
        first, last = span
        return F.linear(self.dropout(vectors), self.words.weight[first:last], self.bias[first:last])


def repeated(state: State, times: int) -> State:
    """Return each row of the state `times` times in turn: [B, …] → [B · times, …]."""
    return tuple(part.repeat_interleave(times, dim=0) for part in state)


class AttentionLstm(CaptionNetwork):
    """LSTM that looks at the grid before each word (Xu et al., "Show, Attend and Tell", ICML 2015, equations 1–9).

    Attention is additive (Bahdanau et al., ICLR 2015) with a gate on what is seen; the output reads state, word and
    what is seen.
    """

    def __init__(
        self, *, features: int, cells: int, rows: int, width: int = 256, hidden: int = 384, dropout: float = 0.3
    ) -> None:
        super().__init__(features=features, cells=cells, rows=rows, width=width, dropout=dropout)
        self.key = nn.Linear(width, width // 2)
        self.query = nn.Linear(hidden, width // 2, bias=False)
        self.energy = nn.Linear(width // 2, 1, bias=False)
        self.gate = nn.Linear(hidden, width)
        self.start = nn.Linear(width, 2 * hidden)
        self.cell = nn.LSTMCell(2 * width, hidden)
        self.finish = nn.Linear(hidden + 2 * width, width)

    def encode(self, grids: Tensor) -> State:
        seen = self.look(grids)
        return seen, self.key(seen)

    def begin(self, memory: State) -> State:
        hidden, cell = torch.tanh(self.start(memory[0].mean(dim=1))).chunk(2, dim=-1)
        return hidden, cell

    def step(self, memory: State, state: State, row: Tensor) -> tuple[Tensor, State]:
        return self._step(memory, state, self.dropout(self.words(row)))

    def _step(self, memory: State, state: State, word: Tensor) -> tuple[Tensor, State]:
        seen, key = memory
        hidden, cell = state
        weights = torch.softmax(self.energy(torch.tanh(key + self.query(hidden)[:, None])), dim=1)
        context = torch.sigmoid(self.gate(hidden)) * (weights * seen).sum(dim=1)
        hidden, cell = self.cell(torch.cat((word, context), dim=1), (hidden, cell))
        return torch.tanh(self.finish(torch.cat((self.dropout(hidden), word, context), dim=1))), (hidden, cell)

    def read(self, memory: State, rows: Tensor, lengths: Tensor) -> Tensor:
        pictures, captions, length = rows.shape
        sizes, order = lengths.flatten().sort(descending=True)  # at each word only the captions that have it are read
        memory = tuple(part[order // captions] for part in memory)
        state = self.begin(memory)
        words = self.dropout(self.words(rows.flatten(0, 1)[order]))
        vectors = []
        for at in range(length):
            still = int((sizes > at).sum())
            memory, state = (tuple(part[:still] for part in parts) for parts in (memory, state))
            vector, state = self._step(memory, state, words[:still, at])
            vectors.append(F.pad(vector, (0, 0, 0, len(order) - still)))
        read = torch.stack(vectors, dim=1)[order.argsort()]
        return read.view(pictures, captions, length, self.width)


class Layer(nn.Module):
    """A pre-norm transformer layer (Vaswani et al., NeurIPS 2017) that reads other tokens beside its own."""

    def __init__(self, *, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.pair, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.wide = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def keys(self, tokens: Tensor) -> Tensor:
        """Return keys and values of tokens [B, N, width] as [B, heads, N, 2 · width / heads]."""
        return self._by_head(self.pair(self.before(tokens)))

    def forward(self, tokens: Tensor, pairs: Tensor, allowed: Tensor | None) -> Tensor:
        """Let tokens [B, N, width] read keys and values [B, heads, M, …]; `allowed` [N, M] says which may be read."""
        key, value = pairs.chunk(2, dim=-1)
        read = F.scaled_dot_product_attention(self._by_head(self.query(self.before(tokens))), key, value, allowed)
        tokens = tokens + self.dropout(self.out(read.transpose(1, 2).flatten(2)))
        changed: Tensor = tokens + self.dropout(self.wide(self.between(tokens)))
        return changed

    def _by_head(self, tokens: Tensor) -> Tensor:
        return tokens.view(*tokens.shape[:2], self.heads, -1).transpose(1, 2)


class GridTransformer(CaptionNetwork):
    """One transformer over grid cells and words, as in unified vision-language pre-training (Zhou et al., AAAI 2020).

    Cells read cells; words read cells and, by the mask, earlier words (captioning) or all words (masked language
    modelling and image–text matching). Cells never read words, so a picture is encoded once for all its captions.
    """

    def __init__(
        self, *, features: int, cells: int, rows: int, width: int = 256, layers: int = 3, heads: int = 4,
        longest: int = 40, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__(features=features, cells=cells, rows=rows, width=width, dropout=dropout)
        self.longest = longest
        self.places = nn.Parameter(torch.randn(cells, width) * 0.02)
        self.order = nn.Parameter(torch.randn(longest, width) * 0.02)
        self.mask = nn.Parameter(torch.randn(width) * 0.02)  # stands for a hidden word
        self.layers = nn.ModuleList(Layer(width=width, heads=heads, dropout=dropout) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.fits = nn.Linear(width, 1)

    def encode(self, grids: Tensor) -> State:
        tokens = self.look(grids) + self.places
        pairs = []
        for layer in self.layers:
            pair: Tensor = layer.keys(tokens)  # type: ignore[operator]  # of a Layer
            pairs.append(pair)
            tokens = layer(tokens, pair, None)
        return tuple(pairs)

    def begin(self, memory: State) -> State:
        return (torch.zeros(len(memory[0]), 0, dtype=torch.int64, device=memory[0].device),)

    def step(self, memory: State, state: State, row: Tensor) -> tuple[Tensor, State]:
        rows = torch.cat((state[0], row[:, None]), dim=1)
        return self._through(memory, self._embedded(rows), self._earlier(rows.shape[1]))[:, -1], (rows,)

    def read(self, memory: State, rows: Tensor, lengths: Tensor) -> Tensor:
        del lengths  # a word never reads what stands behind it
        tokens, captions = self._embedded(rows.flatten(0, 1)), rows.shape[1]
        read = self._through(repeated(memory, captions), tokens, self._earlier(rows.shape[2]))
        return read.view(*rows.shape, self.width)

    def read_all(self, memory: State, rows: Tensor, lengths: Tensor, *, hidden: Tensor | None = None) -> Tensor:
        """Read captions [B, K, T] in both directions, `hidden` words [B, K, T] masked; return [B, K, T, width]."""
        flat = rows.flatten(0, 1)
        tokens = self._embedded(flat, None if hidden is None else hidden.flatten(0, 1))
        inside = torch.arange(rows.shape[2]) < lengths.flatten()[:, None]
        allowed = torch.cat((torch.ones(len(flat), self.cells, dtype=torch.bool), inside), dim=1)[:, None, None]
        return self._through(repeated(memory, rows.shape[1]), tokens, allowed).view(*rows.shape, self.width)

    def matching(self, memory: State, rows: Tensor, lengths: Tensor) -> Tensor:
        """Return logits [B, K] of captions [B, K, T], which begin with the boundary, fitting their pictures."""
        logits: Tensor = self.fits(self.read_all(memory, rows, lengths)[:, :, 0])[..., 0]
        return logits

    def _embedded(self, rows: Tensor, hidden: Tensor | None = None) -> Tensor:
        words = self.words(rows)
        if hidden is not None:
            words = torch.where(hidden[..., None], self.mask, words)
        embedded: Tensor = self.dropout(words + self.order[: rows.shape[1]])
        return embedded

    def _earlier(self, length: int) -> Tensor:
        """Return the mask [length, cells + length] by which words read all cells, earlier words and themselves."""
        cells = torch.ones(length, self.cells, dtype=torch.bool)
        return torch.cat((cells, torch.ones(length, length, dtype=torch.bool).tril()), dim=1)

    def _through(self, memory: State, tokens: Tensor, allowed: Tensor) -> Tensor:
        for layer, pair in zip(self.layers, memory, strict=True):
            own: Tensor = layer.keys(tokens)  # type: ignore[operator]  # of a Layer
            tokens = layer(tokens, torch.cat((pair, own), dim=2), allowed)
        last: Tensor = self.last(tokens)
        return last
