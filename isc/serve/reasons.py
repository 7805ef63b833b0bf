"""Reasons for the state of a suggestion or a picture: a key of the catalogue and its values, in two columns.

A row that has no values was written before there were keys, or by a decoder: its text is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from isc.serve.catalogue import texts_of

Value = str | int | float


@dataclass(frozen=True)
class Why:
    """A reason: the text `why_KEY` of the catalogue, and what stands in its braces."""

    key: str
    values: Mapping[str, Value] = field(default_factory=dict)

    def of_suggestion(self) -> dict[str, object]:
        """Return the columns of the table of suggestions."""
        return {"why": self.key, "why_values": dict(self.values)}

    def of_image(self) -> dict[str, object]:
        """Return the columns of the table of pictures."""
        return {"reason": self.key, "reason_values": dict(self.values)}


NEGATIVE = Why("negative")
QUARANTINED = Why("quarantined")
FLOODED = Why("flooded")
PLAIN = Why("plain")
WRITTEN = Why("written")
TOLD_BEFORE = Why("told_before")
RENEWED = Why("renewed")
MANY_MATCHES = Why("many_matches")
BY_PERSON = Why("by_person")
DECODER_ENDED = Why("decoder_ended")


def below(score: float, limit: float) -> Why:
    return Why("below", {"score": score, "limit": limit})


def listed(value: str) -> Why:
    return Why("listed", {"value": value})


def rarely_accepted(accepted: int, of: int) -> Why:
    return Why("rarely_accepted", {"accepted": accepted, "of": of})


def slow_to_decode(seconds: float) -> Why:
    return Why("slow_to_decode", {"seconds": seconds})


def reason_text(text: str, values: Mapping[str, Value] | None, texts: Mapping[str, str] | None = None) -> str:
    """Return a stored reason in words, in English unless there are `texts` of another language."""
    form = (texts or texts_of("en")).get(f"why_{text}") if values is not None else None
    return text if form is None else form.format(**(values or {}))
