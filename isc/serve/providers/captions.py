"""Captions of our own models, as suggestions that people accept, reject or correct."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from isc.errors import InputError, needing
from isc.serve.kinds import Kind
from isc.serve.picture import Picture
from isc.serve.providers.base import Answer, Provider
from isc.serve.providers.context import Context
from isc.serve.reading import Unreadable
from isc.serve.results import Caption, Result

if TYPE_CHECKING:
    from isc.words.captioner import Captioner


class CaptionProvider(Provider):
    """Writes captions by the folder `model` of a trained captioner, `count` in each of `languages`."""

    name = "caption"
    kinds: ClassVar[frozenset[Kind]] = frozenset((Kind.caption,))
    group = "captions"

    def __init__(self, *, context: Context, model: str, languages: Sequence[str] = ("en",), count: int = 1) -> None:
        del context
        if count < 1:
            raise InputError(f"count={count}; expected at least 1")
        self._folder, self._count, self._languages = Path(model), count, tuple(languages)
        for language in self._languages:
            self._captioner.check(language)
        self.version = f"caption-{self._captioner.weights[:16]}"

    @cached_property
    def _captioner(self) -> Captioner:
        with needing("provider caption", extra="words"):
            from isc.words.captioner import Captioner

        return Captioner(self._folder)

    def describe(self, pictures: Sequence[Picture]) -> Sequence[Answer]:
        return [self._answer(one) for one in pictures]

    def _answer(self, picture: Picture) -> Answer:
        try:
            pixels = picture.pixels
        except Unreadable as error:
            return error
        found: list[Result] = []
        for language in self._languages:
            [captions] = self._captioner.caption(pixels, language=language, count=self._count)
            # of an unfamiliar picture no probability is told, since it may not hold
            found += [Caption(one.text, language, one.probability if one.familiar else None) for one in captions]
        return found
