"""Beam search over the words of one language, for every caption network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isc.words.networks import CaptionNetwork, State, repeated
from isc.words.vocabulary import BOUNDARY, UNKNOWN, Vocabulary

LONGEST = 30  # words of a caption, the end included
LENGTH_POWER = 0.8  # of a score; 1 would prefer long captions, 0 short ones (docs/decisions.md)


@dataclass(frozen=True)
class Candidate:
    """A caption as words in lower case, and the sum of its words' log-probabilities, that of the end included."""

    tokens: tuple[str, ...]
    log_probability: float

    @property
    def score(self) -> float:
        """The log-probability for its length, by which captions are ordered."""
        return _score(self.log_probability, len(self.tokens) + 1)


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
    """Return the finished captions of each picture of grids [B, C, F], by falling score.

    `beams` captions are followed at a time, as long as one can come among the best: what is found for a picture does
    not depend on the others of the batch. The score is log-probability / length^0.8 (Wu et al., arXiv:1609.08144,
    equation 14, with lengths counted from 0). No word follows itself. A caption that is not finished after `longest`
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
        if all(_settled(found, best, longest) for found, best in zip(finished, scores, strict=True)):
            break
    for at, found in enumerate(finished):
        if not found:
            best = int(scores[at].argmax())
            found.append(Candidate(tuple(words.decode(written[at, best].tolist())), float(scores[at, best])))
    return [sorted(found, key=lambda one: -one.score) for found in finished]


def _finish(finished: list[list[Candidate]], written: Tensor, ending: Tensor, decode: object) -> None:
    """Add the captions that end here, the best `beams` of each picture kept."""
    assert callable(decode)
    beams = written.shape[1]
    for at, found in enumerate(finished):
        least = sorted((one.score for one in found), reverse=True)[beams - 1 : beams]
        for beam in range(beams):
            total = float(ending[at, beam])
            if total == float("-inf") or (least and _score(total, written.shape[2] + 1) <= least[0]):
                continue
            found.append(Candidate(tuple(decode(written[at, beam].tolist())), total))


def _settled(found: list[Candidate], followed: Tensor, longest: int) -> bool:
    """Return whether `found` holds enough captions, and none that is followed can come among the best of them.

    At best, a followed caption ends at the greatest length with the log-probability that it has now.
    """
    beams = len(followed)
    least = sorted((one.score for one in found), reverse=True)[beams - 1 : beams]
    return bool(least) and _score(float(followed.max()), longest) <= least[0]


def _score(log_probability: float, words: int) -> float:
    """Return log-probability / words^0.8 of a caption; its end counts as a word."""
    return log_probability / float(words**LENGTH_POWER)


def _chosen(state: State, beam: Tensor) -> State:
    pictures, beams = beam.shape
    rows = (beam + torch.arange(pictures)[:, None] * beams).flatten()
    return tuple(part[rows] for part in state)
