"""Evidence that a clip shows an item: cosines of its frames' regions, and what is said."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rapidfuzz import fuzz

from isc.products.catalogue import Item
from isc.words.names import plain
from isc.words.text_grams import gram_counts, rarity, weighed

PIXELS = ("best", "top", "mean", "mutual")
WORDS = ("title_cosine", "text_cosine", "title_partial", "kind")
NAMES = PIXELS + WORDS
TOP = 3  # frames whose mean is the evidence `top`
Floats = npt.NDArray[np.float64]


def pixel_evidence(cosines: npt.NDArray[np.floating], seconds: Sequence[float]) -> Floats:
    """Return the evidence of the frames for each item [I, 4], in the order of PIXELS.

    cosines [F, R, I] are those of R regions of F frames with I items; seconds [F] is how long each frame stands.

    best    largest cosine of any region of any frame
    top     mean, over the TOP frames that are best for the item, of the best region's cosine
    mean    mean over time of the best region's cosine
    mutual  share of the time in which no other item has a better region
    """
    frames = np.asarray(cosines, np.float64).max(axis=1)
    time = np.asarray(seconds, np.float64)
    share = time / time.sum() if time.sum() > 0 else np.full(len(time), 1 / len(time))
    ordered = np.sort(frames, axis=0)[::-1]
    first = frames >= frames.max(axis=1, keepdims=True)
    return np.column_stack((ordered[0], ordered[:TOP].mean(axis=0), share @ frames, share @ first))


class ItemWords:
    """The words of a shop's items, ready to be compared with what is said: TF-IDF of hashed runs of characters."""

    def __init__(self, items: Sequence[Item]) -> None:
        texts = [item.words for item in items]
        counts = gram_counts(texts)
        self._rarity = rarity(counts)
        self._texts = weighed(counts, self._rarity)
        self._titles = weighed(gram_counts([item.title for item in items]), self._rarity)
        self._plain = [plain(item.title) for item in items]
        self._kinds = [plain(item.kind) for item in items]

    def evidence(self, text: str) -> Floats:
        """Return how the items fit what is said [I, 4], each 0…1, in the order of WORDS; zeros if nothing is said.

        title_cosine   cosine of TF-IDF with the title
        text_cosine    the same with title, kind and description
        title_partial  rapidfuzz's partial_ratio of the title, so that a misheard name counts
        kind           whether the kind is named as a word
        """
        said = plain(text)
        if not said:
            return np.zeros((len(self._plain), len(WORDS)))
        vector = weighed(gram_counts([said]), self._rarity)
        cosines = [(part @ vector.T).toarray().ravel() for part in (self._titles, self._texts)]
        partial = [fuzz.partial_ratio(title, said) / 100 if title else 0.0 for title in self._plain]
        words = set(re.findall(r"\w+", said))
        named = [bool(kind) and set(kind.split()) <= words for kind in self._kinds]
        return np.column_stack((*cosines, partial, np.array(named, np.float64)))
