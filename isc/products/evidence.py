"""Evidence that a clip shows an item: cosines of its frames' regions, and what is said."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from rapidfuzz import fuzz

from isc.products.catalogue import Item
from isc.words.names import plain
from isc.words.sentences import Vectors, sentence_vectors
from isc.words.text_grams import gram_counts, rarity, weighed

PIXELS = ("best", "top", "mean", "attention", "mutual", "kind_seen")
WORDS = ("title_cosine", "text_cosine", "title_partial", "kind", "name", "numbers", "meaning")
NAMES = PIXELS + WORDS
TOP = 3  # frames whose mean is the evidence `top`
SHARPNESS = 20.0  # of the attention: a frame whose best cosine is higher by 0.05 counts e times as much
MEANING = "a model of products that was trained with sentences=true"
ALIKE = 80.0  # rapidfuzz's ratio from which a word is heard as the word of a name
Floats = npt.NDArray[np.float64]


def pixel_evidence(cosines: npt.NDArray[np.floating], seconds: Sequence[float], kinds: Sequence[str]) -> Floats:
    """Return the evidence of the frames for each item [I, 6], in the order of PIXELS.

    cosines [F, R, I] are those of R regions of F frames with I items; seconds [F] is how long each frame stands; kinds
    [I] are the items' kinds, "" where none is known.

    best       largest cosine of any region of any frame
    top        mean, over the TOP frames that are best for the item, of the best region's cosine
    mean       mean over time of the best region's cosine
    attention  the same mean, in which frames that look like any item of the shop count more: the softmax of their
               largest cosine
    mutual     share of the time in which no other item has a better region
    kind_seen  mean of `attention` over the items of the same kind, what is seen of the kind; the item's own without one
    """
    frames = np.asarray(cosines, np.float64).max(axis=1)
    time = np.asarray(seconds, np.float64)
    share = time / time.sum() if time.sum() > 0 else np.full(len(time), 1 / len(time))
    ordered = np.sort(frames, axis=0)[::-1]
    nearest = frames.max(axis=1, keepdims=True)
    heed = share * np.exp(SHARPNESS * (nearest[:, 0] - nearest.max()))
    attention = heed / heed.sum() @ frames
    pooled = ordered[0], ordered[:TOP].mean(axis=0), share @ frames, attention, share @ (frames >= nearest)
    return np.column_stack((*pooled, _means_by_kind(attention, kinds)))


def _means_by_kind(values: Floats, kinds: Sequence[str]) -> Floats:
    """Return the mean of the values [I] over the items of each item's kind; the item's own value without a kind."""
    names = [kind or f"item {at}" for at, kind in enumerate(kinds)]
    _, group = np.unique(names, return_inverse=True)
    means = np.bincount(group, weights=values) / np.bincount(group)
    return np.asarray(means[group], np.float64)


class ItemWords:
    """The words of a shop's items, ready to be compared with what is said: TF-IDF of hashed runs of characters.

    With `sentences` what they mean is compared too (`isc.words.sentences`, 50 ms a text). Raises
    InputError if its package is not installed.
    """

    def __init__(self, items: Sequence[Item], *, sentences: bool = False) -> None:
        texts = [item.words for item in items]
        self._meant = sentence_vectors(texts, asking=False, wanted=MEANING) if sentences else None
        counts = gram_counts(texts)
        self._rarity = rarity(counts)
        self._texts = weighed(counts, self._rarity)
        self._titles = weighed(gram_counts([item.title for item in items]), self._rarity)
        self._plain = [plain(item.title) for item in items]
        self._kinds = [plain(item.kind) for item in items]
        self._names = _own_words(self._plain, self._kinds)
        self._numbers = [set(re.findall(r"\d+", title)) for title in self._plain]

    def evidence(self, text: str) -> Floats:
        """Return how the items fit what is said [I, 7], each 0…1, in the order of WORDS; zeros if nothing is said.

        title_cosine   cosine of TF-IDF with the title
        text_cosine    the same with title, kind and description
        title_partial  rapidfuzz's partial_ratio of the title, so that a misheard name counts
        kind           whether the kind is named as a word
        name           share of the words of the title that few titles have, a brand or a sort, that are heard
        numbers        share of the numbers of the title that are said, 0 if it has none
        meaning        by how much the cosine of sentence vectors with title, kind and description exceeds the mean of
                       all items; 0 without sentences
        """
        said = plain(text)
        if not said:
            return np.zeros((len(self._plain), len(WORDS)))
        vector = weighed(gram_counts([said]), self._rarity)
        cosines = [(part @ vector.T).toarray().ravel() for part in (self._titles, self._texts)]
        partial = [fuzz.partial_ratio(title, said) / 100 if title else 0.0 for title in self._plain]
        words = set(re.findall(r"\w+", said))
        named = [bool(kind) and set(kind.split()) <= words for kind in self._kinds]
        heard = {word: max((fuzz.ratio(word, one) for one in words), default=0.0) >= ALIKE for word in self._all_names}
        name = [_share([heard[word] for word in own]) for own in self._names]
        numbers = [_share([number in words for number in own]) for own in self._numbers]
        meant = np.zeros(len(partial)) if self._meant is None else _meaning(self._meant, text)
        return np.column_stack((*cosines, partial, np.array(named, np.float64), name, numbers, meant))

    @cached_property
    def _all_names(self) -> set[str]:
        return set().union(*self._names)


def _meaning(vectors: Vectors, text: str) -> Floats:
    """Return the cosines [I] of sentence vectors with that of a text, above their mean; 0 for those below."""
    (said,) = sentence_vectors([text], asking=True, wanted=MEANING)
    cosines = (vectors @ said).astype(np.float64)
    return np.asarray(np.maximum(cosines - cosines.mean(), 0.0))


def _own_words(titles: Sequence[str], kinds: Sequence[str]) -> list[set[str]]:
    """Return the words of each title that at most a tenth of the titles, or two, have, and that are not its kind."""
    words = [set(re.findall(r"[^\W\d_]{3,}", title)) for title in titles]
    count = Counter(word for one in words for word in one)
    most = max(2, len(titles) // 10)
    return [
        {word for word in one if count[word] <= most and word not in kind.split()}
        for one, kind in zip(words, kinds, strict=True)
    ]


def _share(told: Sequence[bool]) -> float:
    return sum(told) / len(told) if told else 0.0
