"""Tokens of captions: sentences to words (Chinese: characters) and back, and the words that a model knows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from isc.errors import InputError
from isc.words.caption_files import LANGUAGES

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
HAN = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+")
ARABIC_SIGNS = re.compile(
    r"[\u064b-\u0652\u0640]"
)  # short vowels and the stretching line, which most writers leave out
BOUNDARY, UNKNOWN = 0, 1  # of each language: the beginning as an input and the end as an output; a word that is none


def tokens_of(text: str, language: str) -> list[str]:
    """Return the words of a sentence in lower case without punctuation; of Chinese the characters."""
    return [token.lower() for token in _surface(text, language)]


def _surface(text: str, language: str) -> list[str]:
    """Return the words as they are written."""
    if language == "zh":
        return HAN.findall(text)
    return WORD.findall(ARABIC_SIGNS.sub("", text) if language == "ar" else text)


@dataclass(frozen=True)
class Words:
    """The words of one language: `tokens` in lower case, most frequent first, and `written` as people write them."""

    language: str
    tokens: tuple[str, ...]
    written: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise InputError(f"language {self.language!r}; expected one of {', '.join(LANGUAGES)}")
        if len(self.tokens) != len(self.written) or not self.tokens:
            raise InputError(f"language {self.language}: {len(self.tokens)} words; expected at least 1, each written")

    def __len__(self) -> int:
        """Return the number of outputs: the words, the boundary and the unknown word."""
        return len(self.tokens) + 2

    @cached_property
    def place(self) -> dict[str, int]:
        return {token: at for at, token in enumerate(self.tokens, start=2)}

    def encode(self, text: str) -> list[int]:
        """Return the numbers of the words of a sentence, without boundaries."""
        return [self.place.get(token, UNKNOWN) for token in tokens_of(text, self.language)]

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Return the words, in lower case, of numbers up to the first boundary."""
        found = []
        for number in numbers:
            if number == BOUNDARY:
                break
            if number != UNKNOWN:
                found.append(self.tokens[number - 2])
        return found

    def sentence(self, tokens: Sequence[str]) -> str:
        """Return the words as a sentence: a capital first, no full stop; Chinese without blanks."""
        words = [self.written[self.place[token] - 2] if token in self.place else token for token in tokens]
        joined = ("" if self.language == "zh" else " ").join(words)
        return joined[:1].upper() + joined[1:]


def words_of(texts: Iterable[str], language: str, *, least: int) -> Words:
    """Return the words that occur at least `least` times in the texts.

    A word is written as it is most often inside sentences, so that German nouns keep their capital. Raises InputError
    if there are none.
    """
    counts: Counter[str] = Counter()
    inside: dict[str, Counter[str]] = {}
    for text in texts:
        for at, token in enumerate(_surface(text, language)):
            counts[token.lower()] += 1
            if at:
                inside.setdefault(token.lower(), Counter())[token] += 1
    kept = [token for token, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if count >= least]
    if not kept:
        raise InputError(f"language {language}: no word occurs {least} times; expected more captions, or fewer times")
    written = tuple(inside[token].most_common(1)[0][0] if token in inside else token for token in kept)
    return Words(language, tuple(kept), written)


@dataclass(frozen=True)
class Vocabulary:
    """The words of several languages, in one table of a network: language l has the rows start(l) … start(l) + len."""

    languages: Mapping[str, Words]

    def __post_init__(self) -> None:
        if not self.languages:
            raise InputError("a vocabulary without a language; expected at least one")

    def __len__(self) -> int:
        return sum(len(words) for words in self.languages.values())

    def of(self, language: str) -> Words:
        """Return the words of a language. Raises InputError for one that was not trained."""
        if language not in self.languages:
            raise InputError(
                f"language={language}: this model writes {', '.join(self.languages)}; expected one of these"
            )
        return self.languages[language]

    def span(self, language: str) -> tuple[int, int]:
        """Return the first row of a language and the one after its last."""
        self.of(language)
        start = 0
        for name, words in self.languages.items():
            if name == language:
                break
            start += len(words)
        return start, start + len(self.languages[language])

    def as_dict(self) -> dict[str, Any]:
        return {name: [list(words.tokens), list(words.written)] for name, words in self.languages.items()}

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> Vocabulary:
        """Return the vocabulary of `as_dict`. Raises InputError for another form."""
        try:
            return Vocabulary(
                {name: Words(name, tuple(tokens), tuple(written)) for name, (tokens, written) in stored.items()}
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"a vocabulary of another form ({error}); expected lists of words by language") from error
