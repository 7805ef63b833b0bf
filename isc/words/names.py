"""File names as evidence: their words, and how they fit a text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt

from isc.words.caption_files import title_and_description

NAMES = ("token_set", "partial", "title", "numbers", "script")
CAMEL = re.compile(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")
PIXELS = re.compile(r"^\d+px-")  # of a thumbnail of Wikipedia


def name_words(url: str) -> str:
    """Return the words of a URL's or path's file name, without accents: "Red_dogTwo3.jpg" → "red dog two 3"."""
    name = unquote(urlsplit(url).path or url).rsplit("/", 1)[-1]
    stem = PIXELS.sub("", name.rsplit(".", 1)[0] if "." in name else name)
    return plain(" ".join(re.split(r"[\W_]+", CAMEL.sub(" ", stem))))


def plain(text: str) -> str:
    """Return the text in lower case, compatibility forms resolved and accents taken away."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(one for one in parts if not unicodedata.combining(one)).split())


def script_of(text: str) -> str:
    """Return the most frequent script of a text's letters by the first word of their Unicode names; "" without any."""
    counts: dict[str, int] = {}
    for letter in text[:200]:
        if letter.isalpha():
            script = unicodedata.name(letter, "").split(" ")[0]
            counts[script] = counts.get(script, 0) + 1
    return max(counts, key=lambda one: (counts[one], one)) if counts else ""


def name_evidence(name: str, texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return how the words of a name fit each text [N, 5], each 0…1, in the order of NAMES.

    token_set  rapidfuzz's token_set_ratio with the whole text
    partial    its partial_ratio with the whole text
    title      its token_sort_ratio with the title alone
    numbers    share of the name's numbers that the text has; 0.5 if the name has none
    script     whether name and text are mostly of one script
    """
    from rapidfuzz import fuzz

    rows = np.zeros((len(texts), len(NAMES)))
    numbers, script = set(re.findall(r"\d+", name)), script_of(name)
    for at, text in enumerate(texts):
        whole, title = plain(text.replace("[SEP]", " ")), plain(title_and_description(text)[0])
        shared = len(numbers & set(re.findall(r"\d+", whole))) / len(numbers) if numbers else 0.5
        rows[at] = (
            fuzz.token_set_ratio(name, whole) / 100,
            fuzz.partial_ratio(name, whole) / 100,
            fuzz.token_sort_ratio(name, title) / 100,
            shared,
            float(script == script_of(whole)),
        )
    return rows
