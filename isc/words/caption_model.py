"""The model of captions of one language: retrieval, a network if there is one, and the fusion of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from isc.words.beam import beam_search
from isc.words.caption_metrics import Tokens
from isc.words.evidence import CaptionFusion, Floats, evidence
from isc.words.grids import Grids
from isc.words.networks import CaptionNetwork, GridTransformer
from isc.words.retrieval import Array, Retriever, best_neighbours, neighbours
from isc.words.vocabulary import BOUNDARY, UNKNOWN, Vocabulary

RETRIEVED = 10  # captions of neighbours that are candidates
BEAMS = 5


@dataclass(frozen=True)
class Nearest:
    """Search for neighbours: pictures that count, how much more near ones do, and the weight of text vectors."""

    count: int = 60
    sharpness: float = 12.0
    by_text: float = 0.8


@dataclass(frozen=True)
class Proposed:
    """Candidates for a picture: their words, their evidence [N, 6], and which of them the network wrote."""

    captions: tuple[tuple[str, ...], ...]
    rows: Floats
    written: tuple[bool, ...]


@dataclass(frozen=True)
class Writer:
    """A trained network with its vocabulary."""

    network: CaptionNetwork
    vocabulary: Vocabulary


def propose(
    retriever: Retriever, flat: Sequence[Tokens], grids: Grids, pictures: Array, *, language: str,
    writer: Writer | None, nearest: Nearest,
) -> list[Proposed]:  # fmt: skip
    """Return the candidates for each picture of grids [B, C, F] with pooled features `pictures` [B, F].

    `flat` are the retriever's training captions. Candidates are the neighbours' best agreeing captions and, with a
    writer, the captions of its beams.
    """
    texts = retriever.texts_of(pictures)
    likeness = retriever.likeness(pictures, by_text=nearest.by_text)
    written: list[list[tuple[str, ...]]] = [[] for _ in pictures]
    if writer is not None:
        grid = torch.from_numpy(np.asarray(grids, np.float32))
        found = beam_search(writer.network, grid, writer.vocabulary, language=language, beams=BEAMS)
        written = [[one.tokens for one in several if one.tokens] for several in found]
    proposed = []
    for at in range(len(pictures)):
        near = neighbours(retriever, likeness[at], count=nearest.count, sharpness=nearest.sharpness)
        own = [tuple(flat[row]) for row in best_neighbours(retriever, near, count=RETRIEVED)]
        captions = tuple(dict.fromkeys([*written[at], *own]))
        log_probability, matching = None, None
        if writer is not None:
            log_probability, matching = network_evidence(writer, grids[at : at + 1], captions, language=language)
        mean = float(np.sort(likeness[at])[-10:].mean())
        rows = evidence(
            retriever, near, texts[at], captions, log_probability=log_probability, likeness=mean, matching=matching
        )  # fmt: skip
        proposed.append(Proposed(captions, rows, tuple(one in written[at] for one in captions)))
    return proposed


def ranked(proposed: Proposed, fusion: CaptionFusion) -> list[int]:
    """Return the places of the candidates, the best by the fusion first."""
    return [int(at) for at in np.argsort(-fusion.expected(proposed.rows), kind="stable")]


@torch.inference_mode()
def network_evidence(
    writer: Writer, grid: Grids, captions: Sequence[Tokens], *, language: str
) -> tuple[Floats, Floats | None]:
    """Return what the network says of each caption [N] of one picture of grid [1, C, F].

    First the mean log-probability of a word, words that the network does not know left out; then the log-odds of the
    caption fitting the picture, by a transformer's matching head, which reads the caption in both directions; None for
    an LSTM.
    """
    words, (first, last) = writer.vocabulary.of(language), writer.vocabulary.span(language)
    rows = [[words.place.get(token, UNKNOWN) for token in one] for one in captions]
    longest = 1 + max(len(row) for row in rows)
    inputs = np.full((1, len(rows), longest), BOUNDARY, np.int64)
    targets = np.full_like(inputs, UNKNOWN)
    for at, row in enumerate(rows):
        inputs[0, at, 1 : len(row) + 1] = row
        targets[0, at, : len(row)], targets[0, at, len(row)] = row, BOUNDARY
    lengths = torch.tensor([[len(row) + 1 for row in rows]])
    memory = writer.network.encode(torch.from_numpy(np.asarray(grid, np.float32)))
    numbers = torch.from_numpy(inputs + first)
    vectors = writer.network.read(memory, numbers, lengths)
    logs = writer.network.outputs(vectors, (first, last)).log_softmax(-1)
    target = torch.from_numpy(targets)
    each = logs.gather(3, target[..., None])[0, :, :, 0]
    known = (target[0] != UNKNOWN).float()
    mean = np.asarray(((each * known).sum(1) / known.sum(1).clamp(min=1)).numpy(), np.float64)
    if not isinstance(writer.network, GridTransformer):
        return mean, None
    return mean, np.asarray(writer.network.matching(memory, numbers, lengths)[0].numpy(), np.float64)
