"""Providers that speak the JSON of Google Vision's `images:annotate`: labels and texts of pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from isc.serve.kinds import Kind
from isc.serve.picture import Picture
from isc.serve.providers.base import Answer, Limits, Provider, Refused, Unavailable
from isc.serve.providers.calls import call, key_of, secret
from isc.serve.results import Caption, Label, Nonsense, Result

TRANSIENT = frozenset((4, 8, 13, 14))  # of the status codes of gRPC: timed out, exhausted, internal, unavailable
MOST_TEXT = 10_000  # characters


class VisionProvider(Provider):
    """Asks a server with `LABEL_DETECTION` and `TEXT_DETECTION`; `key_env` names the variable that holds its key."""

    name = "vision"
    kinds: ClassVar[frozenset[Kind]] = frozenset((Kind.label, Kind.caption))

    def __init__(
        self, *, url: str, version: str = "1", key_env: str | None = None, most_labels: int = 10, seconds: float = 30.0
    ) -> None:
        self.url, self.version, self._most = url, f"vision-{version}", most_labels
        self._key = secret(key_env)
        self.limits = Limits(batch=8, concurrency=4, seconds=seconds)

    def describe(self, pictures: Sequence[Picture]) -> Sequence[Answer]:
        asked = [{"type": "LABEL_DETECTION", "maxResults": self._most}, {"type": "TEXT_DETECTION"}]
        requests = [{"image": {"content": base64.b64encode(one.data).decode()}, "features": asked} for one in pictures]
        headers = {"X-Goog-Api-Key": self._key} if self._key else {}
        key = key_of(self.url, self.version, pictures)
        said = call(self.url, seconds=self.limits.seconds * 0.8, key=key, headers=headers, json={"requests": requests})
        answers = said.get("responses") if isinstance(said, dict) else None
        if not isinstance(answers, list) or len(answers) != len(pictures):
            raise Nonsense(f"no list of {len(pictures)} responses")
        return [_answer(one) for one in answers]


def _answer(said: Any) -> Answer:
    """Return what a response says about one picture."""
    try:
        if error := said.get("error"):
            text = f"{error.get('code')}: {error.get('message')}"
            return Unavailable(text) if error.get("code") in TRANSIENT else Refused(text)
        results: list[Result] = [_label(one) for one in said.get("labelAnnotations", ())]
        if texts := said.get("textAnnotations"):
            first = texts[0]
            results.append(Caption(str(first["description"])[:MOST_TEXT], first.get("locale")))
        return results
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        return Nonsense(f"a response of another shape ({type(error).__name__}: {error})")
    except Nonsense as error:
        return error


def _label(one: Mapping[str, Any]) -> Label:
    return Label(str(one["description"]), float(one["score"]))
