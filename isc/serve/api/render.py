"""Rendering of the page's templates, in the language that the reader's browser asks for."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined

from isc import __version__
from isc.serve.api.models import Reason
from isc.serve.api.plots import calibration_plot, days_plot
from isc.serve.catalogue import language_of, texts_of
from isc.serve.reasons import reason_text
from isc.serve.storing import area


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
    texts = texts_of(language)

    def text(key: str, **parts: Any) -> str:
        return texts[key].format(**parts)

    def reason(one: Reason) -> str:
        return one.text if one.key is None else reason_text(one.key, one.values, texts)

    here = http.url.path
    return (
        _environment()
        .get_template(name)
        .render(t=text, in_words=reason, language=language, direction=texts["direction"], here=here, **values)
    )
