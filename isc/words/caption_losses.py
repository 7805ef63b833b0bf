"""Losses of caption networks over batches of captions; all are means over words or captions, 0 or more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from isc.words.caption_batches import IGNORED, Batch
from isc.words.networks import CaptionNetwork, GridTransformer, State
from isc.words.vocabulary import Vocabulary

HIDDEN = 0.25  # share of the words that masked language modelling hides


def captioning_loss(
    network: CaptionNetwork, memory: State, batch: Batch, vocabulary: Vocabulary, *, smoothing: float
) -> Tensor:
    """Return the cross-entropy of each next word; `smoothing` is the share of all words together as target."""
    vectors = network.read(memory, batch.inputs, batch.lengths)
    return _at(network, vectors, batch.targets, vocabulary.span(batch.language), smoothing)


def masked_loss(network: GridTransformer, memory: State, batch: Batch, vocabulary: Vocabulary) -> Tensor:
    """Return the cross-entropy of hidden words, read from the picture and the words on both sides.

    A quarter of the words is hidden, as in BERT (Devlin et al., NAACL 2019) but more, because captions are short.
    """
    first, _ = vocabulary.span(batch.language)
    inside = torch.arange(batch.inputs.shape[2]) < batch.lengths[:, :, None]
    inside[:, :, 0] = False
    hidden = inside & (torch.rand(inside.shape) < HIDDEN)
    targets = torch.where(hidden, batch.inputs - first, IGNORED)
    targets = torch.where(targets == 1, IGNORED, targets)  # an unknown word
    vectors = network.read_all(memory, batch.inputs, batch.lengths, hidden=hidden)
    return _at(network, vectors, targets, vocabulary.span(batch.language), 0.0)


def matching_loss(network: GridTransformer, memory: State, batch: Batch) -> Tensor:
    """Return the cross-entropy of telling a picture's captions from those of the next picture in the batch."""
    rows = torch.cat((batch.inputs[:, :1], batch.inputs[:, :1].roll(1, dims=0)), dim=1)
    lengths = torch.cat((batch.lengths[:, :1], batch.lengths[:, :1].roll(1, dims=0)), dim=1)
    logits = network.matching(memory, rows, lengths)
    return F.binary_cross_entropy_with_logits(logits, torch.tensor([1.0, 0.0]).expand_as(logits))


def _at(network: CaptionNetwork, vectors: Tensor, targets: Tensor, span: tuple[int, int], smoothing: float) -> Tensor:
    """Return the cross-entropy at the places that have a target."""
    known = targets != IGNORED
    if not known.any():
        return vectors.sum() * 0.0
    return F.cross_entropy(network.outputs(vectors[known], span), targets[known], label_smoothing=smoothing)
