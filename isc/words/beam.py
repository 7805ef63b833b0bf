"""Beam search over the words of one language, for every caption network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isc.words.networks import CaptionNetwork, State, repeated
from isc.words.vocabulary import BOUNDARY, UNKNOWN, Vocabulary

LONGEST = 30  # words of a caption


@dataclass(frozen=True)
class Candidate:
    """A caption as words in lower case, and the sum of its words' log-probabilities, that of the end included."""

    tokens: tuple[str, ...]
    log_probability: float

    @property
    def mean(self) -> float:
        """The mean log-probability of a word; the end counts as one."""
        return self.log_probability / (len(self.tokens) + 1)


@torch.inference_mode()
def beam_search(
    network: CaptionNetwork,
    grids: Tensor,
    vocabulary: Vocabulary,
    *,
    language: str,
    beams: int = 5,
    longest: int = LONGEST,
) -> list[list[Candidate]]:
    """Return the finished captions of each picture of grids [B, C, F], by falling mean log-probability.

    `beams` captions are followed at a time; no word follows itself. A caption that is not finished after `longest`
    words is left out, unless no other is there.
    """
    words, span = vocabulary.of(language), vocabulary.span(language)
    pictures, size = len(grids), len(words)
    memory = repeated(network.encode(grids), beams)
    state = network.begin(memory)
    row = torch.full((pictures * beams,), span[0], dtype=torch.int64)
    scores = torch.full((pictures, beams), float("-inf"))
    scores[:, 0] = 0.0  # all beams are equal at first
    written = torch.zeros(pictures, beams, 0, dtype=torch.int64)
    finished: list[list[Candidate]] = [[] for _ in range(pictures)]
    for _ in range(longest):
        vectors, state = network.step(memory, state, row)
        following = network.outputs(vectors, span).log_softmax(-1).view(pictures, beams, size)
        following[:, :, UNKNOWN] = float("-inf")
        if written.shape[2]:
            following.scatter_(2, written[:, :, -1:], float("-inf"))
        else:
            following[:, :, BOUNDARY] = float("-inf")
        total = scores[:, :, None] + following
        _finish(finished, written, total[:, :, BOUNDARY], words.decode)
        total[:, :, BOUNDARY] = float("-inf")
        scores, chosen = total.flatten(1).topk(beams)
        beam, word = chosen // size, chosen % size
        written = torch.cat((written.gather(1, beam[:, :, None].expand(-1, -1, written.shape[2])), word[:, :, None]), 2)
        state = _chosen(state, beam)
        row = (word + span[0]).flatten()
        if all(_settled(found, best) for found, best in zip(finished, scores, strict=True)):
            break
    for at, found in enumerate(finished):
        if not found:
            best = int(scores[at].argmax())
            found.append(Candidate(tuple(words.decode(written[at, best].tolist())), float(scores[at, best])))
    return [sorted(found, key=lambda one: -one.mean) for found in finished]


def _finish(finished: list[list[Candidate]], written: Tensor, ending: Tensor, decode: object) -> None:
    """Add the captions that end here, the best `beams` of each picture kept."""
    assert callable(decode)
    beams = written.shape[1]
    for at, found in enumerate(finished):
        least = sorted((one.mean for one in found), reverse=True)[beams - 1 : beams]
        for beam in range(beams):
            score = float(ending[at, beam])
            if score == float("-inf") or (least and score / (written.shape[2] + 1) <= least[0]):
                continue
            found.append(Candidate(tuple(decode(written[at, beam].tolist())), score))


def _settled(found: list[Candidate], scores: Tensor) -> bool:
    """Return whether enough captions are finished, and none that is followed can become more probable than they."""
    beams = len(scores)
    return (
        len(found) >= beams
        and float(scores.max()) < sorted((c.log_probability for c in found), reverse=True)[beams - 1]
    )


def _chosen(state: State, beam: Tensor) -> State:
    pictures, beams = beam.shape
    rows = (beam + torch.arange(pictures)[:, None] * beams).flatten()
    return tuple(part[rows] for part in state)
