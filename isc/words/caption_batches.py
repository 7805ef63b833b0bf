"""Batches of captions: several captions of each picture in one language, as padded numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isc.words.caption_files import Captions
from isc.words.vocabulary import BOUNDARY, UNKNOWN, Vocabulary

IGNORED = -100  # a target that no loss counts
LONGEST = 25  # words of a caption in training; longer ones are cut


@dataclass(frozen=True)
class Batch:
    """Captions of one language: `pictures` [B] are rows of the grids, `inputs` [B, K, T] rows of the vocabulary.

    `targets` [B, K, T] are the numbers of the next words within the language, IGNORED where there is none or an unknown
    one; `lengths` [B, K] are the words of each caption with its beginning.
    """

    language: str
    pictures: Tensor
    inputs: Tensor
    targets: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class Numbered:
    """The captions of one language as numbers, by picture: `rows[i]` are those of the picture `pictures[i]`."""

    language: str
    pictures: tuple[int, ...]
    rows: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def each(self) -> int:
        """The captions of a picture that a batch takes: as many as most pictures have."""
        return int(np.median([len(several) for several in self.rows]))


def numbered(captions: Captions, vocabulary: Vocabulary, places: Mapping[str, int]) -> list[Numbered]:
    """Return the captions of each language of the vocabulary; `places` is the row of each picture in the grids."""
    found = []
    for language, words in vocabulary.languages.items():
        texts = captions.of(language=language).by_picture()
        pictures = [picture for picture in texts if picture in places]
        rows = [tuple(tuple(words.encode(text)[:LONGEST]) for text in texts[picture]) for picture in pictures]
        if pictures:
            found.append(Numbered(language, tuple(places[picture] for picture in pictures), tuple(rows)))
    return found


def batches(
    languages: Sequence[Numbered], vocabulary: Vocabulary, *, captions: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """Yield the batches of an epoch, of about `captions` captions each, in random order of pictures and languages.

    Of a picture with more captions than `each` some are drawn; with fewer, some come twice.
    """
    plan: list[tuple[Numbered, np.ndarray]] = []
    for one in languages:
        order = rng.permutation(len(one.pictures))
        size = max(1, captions // one.each)
        plan += [(one, order[at : at + size]) for at in range(0, len(order), size)]
    for at in rng.permutation(len(plan)):
        one, chosen = plan[at]
        drawn = []
        for row in chosen:
            several = one.rows[row]
            drawn.append([several[place] for place in _drawn(len(several), one.each, rng)])
        yield _batch(one, chosen, drawn, vocabulary)


def _drawn(count: int, wanted: int, rng: np.random.Generator) -> list[int]:
    order: list[int] = rng.permutation(count).tolist()
    return (order * (wanted // count + 1))[:wanted]


def _batch(
    one: Numbered, chosen: np.ndarray, drawn: Sequence[Sequence[Sequence[int]]], vocabulary: Vocabulary
) -> Batch:
    first, _ = vocabulary.span(one.language)
    longest = 1 + max(len(row) for several in drawn for row in several)
    inputs = np.full((len(chosen), one.each, longest), BOUNDARY, np.int64)
    targets = np.full_like(inputs, IGNORED)
    lengths = np.zeros((len(chosen), one.each), np.int64)
    for at, several in enumerate(drawn):
        for place, row in enumerate(several):
            inputs[at, place, 1 : len(row) + 1] = row
            targets[at, place, : len(row)] = [IGNORED if word == UNKNOWN else word for word in row]
            if len(row) < LONGEST:
                targets[at, place, len(row)] = BOUNDARY
            lengths[at, place] = len(row) + 1
    pictures = np.array([one.pictures[row] for row in chosen], np.int64)
    made = (torch.from_numpy(value) for value in (pictures, inputs + first, targets, lengths))
    return Batch(one.language, *made)
