"""Simulated clips, from descriptors of held photos and made sentences, on which the fusion is fitted."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from isc.products.catalogue import Item, rows_by_item
from isc.products.evidence import ItemWords, pixel_evidence
from isc.products.fusion import Judged

FILLERS = ("so", "well", "you see", "look at this", "today", "and", "really", "okay")
NONE, SAID, MISNAMED = 0.25, 0.6, 0.1  # shares of clips: item not in the shop; with words; words of another item


def simulated_clips(
    cosines: npt.NDArray[np.floating],
    items: Sequence[int],
    shop: Sequence[Item],
    *,
    count: int,
    seed: int,
    sentences: bool = False,
) -> list[Judged]:
    """Return simulated clips with their evidence, with `sentences` also of what texts mean (`ItemWords`).

    cosines [H, R, I] are those of regions of held photos with the items of the shop, and items [H] say what the photos
    show. A clip has one to five photos of an item, up to five of others between them, and in three of five clips a
    sentence. One clip in four shows an item that the shop does not have: it is taken out of the shop.
    """
    rng = np.random.default_rng(seed)
    by_item = rows_by_item(items)
    known, words, everything = list(by_item), ItemWords(shop, sentences=sentences), np.arange(len(shop))
    kinds = np.array([item.kind for item in shop], object)
    found = []
    for _ in range(count):
        item = known[rng.integers(len(known))]
        views = rng.choice(by_item[item], rng.integers(1, 6))
        others = rng.choice(len(items), rng.integers(0, 6))
        rows = np.concatenate([views, others])
        seconds = np.concatenate([rng.uniform(0.8, 2, len(views)), rng.uniform(0.2, 1.5, len(others))])
        said = rng.random() < SAID
        spoken = ""
        if said:
            named = int(rng.integers(len(shop))) if rng.random() < MISNAMED else item
            spoken = sentence(shop[named], rng)
        absent = rng.random() < NONE
        there = everything[everything != item] if absent else everything
        evidence = np.column_stack(
            [
                pixel_evidence(cosines[rows][:, :, there], seconds.tolist(), kinds[there].tolist()),
                words.evidence(spoken)[there],
            ]
        )
        found.append(Judged(evidence, None if absent else item, said))
    return found


def sentence(item: Item, rng: np.random.Generator) -> str:
    """Return what a person might say of an item, as a poor recogniser hears it.

    It is the title or the kind alone, and at times a part of the description; words are lost and misheard.
    """
    title, kind, about = (re.findall(r"\w+", part) for part in (item.title, item.kind, item.description))
    heard = list(title if rng.random() < 0.75 else (kind or title))
    if about and rng.random() < 0.6:
        begin = int(rng.integers(0, len(about)))
        heard += about[begin : begin + int(rng.integers(3, 12))]
    kept = [_misheard(word, rng) for word in heard if rng.random() >= 0.2]
    for _ in range(int(rng.integers(0, 4))):
        kept.insert(int(rng.integers(0, len(kept) + 1)), FILLERS[rng.integers(len(FILLERS))])
    return " ".join(kept)


def _misheard(word: str, rng: np.random.Generator) -> str:
    """Return the word, one time in five with a letter lost, doubled or replaced."""
    if len(word) < 3 or rng.random() >= 0.2:
        return word
    at = int(rng.integers(1, len(word)))
    other = ("", word[at] * 2, "aeioustrn"[rng.integers(9)])[rng.integers(3)]
    return word[:at] + other + word[at + 1 :]
