"""Captions of pictures and their files: our CSV, the tables of WIT, and the lists of the Wikipedia competition.

The competition is "Wikipedia - Image/Caption Matching" (2021); its data are WIT (Srinivasan et al., SIGIR 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.ids import Ids, as_ids
from isc.errors import InputError
from isc.words.tables import required, rows

SEPARATOR = " [SEP] "  # between the title and the description of a caption of the competition
CAPTION = "caption_title_and_reference_description"
LANGUAGES = {"en": "English", "zh": "Chinese", "ar": "Arabic", "de": "German", "fr": "French", "cs": "Czech"}


@dataclass(frozen=True)
class Captions:
    """Captions of pictures: `pictures`, `languages`, `splits` and `texts`, each [N]; row i is one caption.

    A picture may have several captions in a language. Raises InputError for lists of different lengths, an empty
    caption, or an unusable id.
    """

    pictures: Ids
    languages: Ids
    splits: Ids
    texts: Ids

    def __post_init__(self) -> None:
        for name in ("languages", "splits", "texts"):
            object.__setattr__(self, name, np.array(list(getattr(self, name)), dtype=object))
        object.__setattr__(self, "pictures", as_ids(self.pictures, what="picture"))
        lengths = {len(self.pictures), len(self.languages), len(self.splits), len(self.texts)}
        if len(lengths) != 1:
            raise InputError(f"columns of {sorted(lengths)} rows; expected as many pictures, languages and texts")
        empty = next((row for row, text in enumerate(self.texts) if not text.strip()), None)
        if empty is not None:
            raise InputError(f"row {empty}: the caption of {self.pictures[empty]!r} is empty; expected a text")

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.integer]) -> Captions:
        """Return these rows only, in this order."""
        return Captions(self.pictures[chosen], self.languages[chosen], self.splits[chosen], self.texts[chosen])

    def of(self, *, language: str | None = None, split: str | None = None) -> Captions:
        """Return the captions of a language and of a split; None takes all."""
        chosen = np.ones(len(self), bool)
        if language is not None:
            chosen &= self.languages == language
        if split is not None:
            chosen &= self.splits == split
        return self.take(chosen)

    def by_picture(self) -> dict[str, list[str]]:
        """Return the captions of each picture, pictures in order of first appearance."""
        found: dict[str, list[str]] = {}
        for picture, text in zip(self.pictures, self.texts, strict=True):
            found.setdefault(picture, []).append(text)
        return found


def read_captions(path: Path) -> Captions:
    """Read `photo_id,language,split,caption`; a file without the column split is all `train`.

    Raises InputError, with the line, for an empty field and for a picture that is in two splits.
    """
    read: list[tuple[str, str, str, str]] = []
    split_of: dict[str, str] = {}
    for line, row in rows(path, ("photo_id", "language", "caption")):
        picture, language, text = (required(path, line, row, name) for name in ("photo_id", "language", "caption"))
        split = row.get("split", "train").strip() or "train"
        if split_of.setdefault(picture, split) != split:
            raise InputError(
                f"{path}: line {line}: {picture!r} is in {split_of[picture]} and {split}; expected one split a picture"
            )
        read.append((picture, language, split, text))
    if not read:
        raise InputError(f"{path}: holds no captions; expected photo_id,language,split,caption")
    return Captions(*zip(*read, strict=True))  # type: ignore[arg-type]


@dataclass(frozen=True)
class WitRow:
    """A row of WIT: a picture by its URL, and the texts that a page of Wikipedia gives it.

    `caption` is the competition's text, title [SEP] description; `description` is empty where the page has none.
    """

    url: str
    language: str
    title: str
    description: str

    @property
    def caption(self) -> str:
        return caption_of(self.title, self.description)


def read_wit(path: Path) -> Iterator[WitRow]:
    """Yield the rows of a WIT table as it is published; other columns may stand beside these.

    Raises InputError, with the line, for a row without a URL, a language or a title.
    """
    for line, row in rows(path, ("language", "image_url", "page_title", "caption_reference_description")):
        url, language, title = (required(path, line, row, name) for name in ("image_url", "language", "page_title"))
        yield WitRow(url, language, title, row["caption_reference_description"].strip())


def caption_of(title: str, description: str) -> str:
    """Return the competition's text of a title and a description, which may be empty."""
    return f"{title.strip()}{SEPARATOR}{description.strip()}".strip()


def title_and_description(caption: str) -> tuple[str, str]:
    """Return the title and the description of a caption; the description is empty where there is no [SEP]."""
    title, _, description = caption.partition(SEPARATOR.strip())
    return title.strip(), description.strip()


def read_images(path: Path) -> dict[str, str]:
    """Read the competition's pictures, `id,image_url`; return {id: URL or file name}, in order.

    Raises InputError, with the line, for an id that is empty or occurs twice.
    """
    found: dict[str, str] = {}
    for line, row in rows(path, ("id", "image_url")):
        name, url = required(path, line, row, "id"), required(path, line, row, "image_url")
        if name in found:
            raise InputError(f"{path}: line {line}: id {name!r} occurs twice; expected each id once")
        found[name] = url
    if not found:
        raise InputError(f"{path}: holds no pictures; expected id,image_url")
    return found


def read_caption_list(path: Path) -> list[str]:
    """Read the competition's list of texts, one column; a text that occurs twice is kept once.

    Raises InputError for a list without a text, and, with the line, for an empty one.
    """
    texts = [required(path, line, row, CAPTION) for line, row in rows(path, (CAPTION,))]
    if not texts:
        raise InputError(f"{path}: holds no captions; expected the column {CAPTION}")
    return list(dict.fromkeys(texts))
