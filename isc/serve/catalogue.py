"""The catalogue of texts: one file for each language in `texts/`."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

TEXTS = Path(__file__).parent / "texts"


@cache
def texts_of(language: str) -> dict[str, str]:
    """Return the texts of a language; those that it lacks are English."""
    own: dict[str, str] = tomllib.loads((TEXTS / f"{language}.toml").read_text(encoding="utf-8"))
    return own if language == "en" else {**texts_of("en"), **own}


def language_of(header: str) -> str:
    """Return the first language of an Accept-Language header that there is a catalogue for, else English."""
    for part in header.split(","):
        name = part.partition(";")[0].strip().partition("-")[0].lower()
        if name.isalpha() and (TEXTS / f"{name}.toml").is_file():
            return name
    return "en"
