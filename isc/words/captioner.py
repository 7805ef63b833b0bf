"""The captioner for people: photos in, several sentences with probabilities and an alternative text out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from isc.errors import InputError
from isc.photos.decode import Pixels, read_image
from isc.words.caption_files import LANGUAGES
from isc.words.caption_model import propose, ranked
from isc.words.captioner_files import CARD, COMMAND, NETWORK, RETRIEVAL, CaptionerParts, load_captioner
from isc.words.grids import GridNetwork
from isc.words.retrieval import pooled
from isc.words.vocabulary import Words

SURE = 0.5  # probability below which a caption begins with "may show"
ALT_TEXT = 125  # characters, as screen readers take them
MAY_SHOW = {
    "en": "May show: {}", "zh": "可能显示：{}", "ar": "قد تُظهر الصورة: {}", "de": "Zeigt vielleicht: {}",
    "fr": "Montre peut-être : {}", "cs": "Možná ukazuje: {}",
}  # fmt: skip


@dataclass(frozen=True)
class Caption:
    """A sentence about a picture, and the probability, 0…1, that it is as good as most people's.

    The probability was fitted on pictures like those of the training; of one that is not `familiar` it may not hold.
    Raises InputError for a probability outside 0…1, or an empty sentence.
    """

    text: str
    probability: float
    language: str
    familiar: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1 or not self.text:
            raise InputError(f"caption {self.text!r} with probability {self.probability}; expected a text and 0…1")

    @property
    def sure(self) -> bool:
        return self.familiar and self.probability >= SURE

    @property
    def shown(self) -> str:
        """The sentence; one that is not sure says so."""
        return self.text if self.sure else MAY_SHOW[self.language].format(self.text)

    @property
    def alt_text(self) -> str:
        """`shown` in at most 125 characters, cut between words."""
        return shortened(self.shown, ALT_TEXT)


def shortened(text: str, longest: int) -> str:
    """Return the text in at most `longest` characters: whole words and … if it is cut."""
    if len(text) <= longest:
        return text
    kept = text[: longest - 1]
    return (kept.rsplit(" ", 1)[0] if " " in kept else kept).rstrip(" ,;:") + "…"


class Captioner:
    """Captions of pictures by a folder that `isc train task=captioning` wrote.

    Raises InputError if the folder is none, and names the command that makes one.
    """

    def __init__(self, model: str | os.PathLike[str] | None = None) -> None:
        if model is None:
            raise InputError(
                f"model= is missing: captions are learned from data for research alone, so no model comes with the "
                f"package; train one: {COMMAND}"
            )
        self.folder = Path(model)
        self.parts: CaptionerParts = load_captioner(self.folder)

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self.parts.languages)

    @cached_property
    def weights(self) -> str:
        """The SHA-256 of the folder's card and weights, by which captioners are told apart."""
        digest = hashlib.sha256()
        for name in (CARD, RETRIEVAL, NETWORK):
            if (self.folder / name).is_file():
                digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()

    def caption(
        self, *photos: str | os.PathLike[str] | Pixels, language: str = "en", count: int = 3
    ) -> list[list[Caption]]:
        """Return up to `count` captions of each photo, the likeliest to be good first.

        A photo is a path, or uint8 [H, W, 3] RGB. Raises InputError for one that cannot be read, and for a language
        that the model does not have.
        """
        return list(self.captions(photos, language=language, count=count))

    def captions(
        self, photos: Sequence[str | os.PathLike[str] | Pixels], *, language: str = "en", count: int = 3
    ) -> Iterator[list[Caption]]:
        """Yield the captions of each photo in turn."""
        self.check(language)
        if count < 1:
            raise InputError(f"count={count}; expected at least 1")
        known = self.parts.languages[language]
        words = self._words(language)
        writer = self.parts.writer if known.uses_network else None
        for photo in photos:
            pixels = read_image(Path(photo)) if isinstance(photo, str | os.PathLike) else photo
            grids = self._network.grids([pixels])
            [proposed] = propose(
                known.retriever, known.flat, grids, pooled(grids), language=language, writer=writer,
                nearest=self.parts.nearest,
            )  # fmt: skip
            probability = known.fusion.probability(proposed.rows).tolist()
            familiar = bool(known.retriever.familiarity(pooled(grids))[0] >= known.familiar)
            best = ranked(proposed, known.fusion)[:count]
            yield [Caption(words.sentence(proposed.captions[at]), probability[at], language, familiar) for at in best]

    def check(self, language: str) -> None:
        """Raise InputError for a language that the model does not write."""
        if language not in self.parts.languages:
            known = "unknown" if language not in LANGUAGES else "not learned by this model"
            raise InputError(f"language={language}: {known}; expected one of {', '.join(self.parts.languages)}")

    @cached_property
    def _network(self) -> GridNetwork:
        return GridNetwork(self.parts.shape)

    def _words(self, language: str) -> Words:
        return self.parts.languages[language].words
