"""Rendering of the page's templates, in the language that the reader's browser asks for."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined

from isc import __version__
from isc.serve.api.plots import calibration_plot, days_plot
from isc.serve.storing import area

TEXTS = Path(__file__).parents[1] / "texts"


@cache
def _catalogue(language: str) -> dict[str, str]:
    """Return the texts of a language; those that it lacks are English."""
    own: dict[str, str] = tomllib.loads((TEXTS / f"{language}.toml").read_text(encoding="utf-8"))
    return own if language == "en" else {**_catalogue("en"), **own}


def language_of(header: str) -> str:
    """Return the first language of an Accept-Language header that there is a catalogue for, else English."""
    for part in header.split(","):
        name = part.partition(";")[0].strip().partition("-")[0].lower()
        if name.isalpha() and (TEXTS / f"{name}.toml").is_file():
            return name
    return "en"


@cache
def _environment() -> Environment:
    pages = Environment(
        loader=PackageLoader("isc.serve"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    pages.globals |= {"calibration_plot": calibration_plot, "days_plot": days_plot, "version": __version__}
    pages.filters |= {"points": points, "area": area}
    return pages


def points(region: list[tuple[float, float]]) -> str:
    """Return the corners of a region as an SVG polygon in a square of 100 × 100."""
    return " ".join(f"{100 * x:.2f},{100 * y:.2f}" for x, y in region)


def render(http: Request, name: str, **values: Any) -> str:
    """Return the HTML of a template."""
    language = language_of(http.headers.get("accept-language", ""))
    texts = _catalogue(language)

    def text(key: str, **parts: Any) -> str:
        return texts[key].format(**parts)

    here = http.url.path
    return (
        _environment()
        .get_template(name)
        .render(t=text, language=language, direction=texts["direction"], here=here, **values)
    )
