"""Providers that answer any JSON: a mapping says where labels, captions and numbers stand in it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from isc.errors import InputError
from isc.serve.kinds import Kind
from isc.serve.picture import Picture
from isc.serve.providers.base import Answer, Limits, Provider
from isc.serve.providers.calls import call, key_of, secret
from isc.serve.results import Caption, Label, Nonsense, Number, Result

FIELDS = {  # of each kind: the fields that a mapping must name, and may name
    "labels": ({"items", "name", "score"}, {"wikidata"}),
    "captions": ({"items", "text"}, {"language", "score"}),
    "numbers": ({"items", "classifier", "value"}, set()),
}
KINDS = {"labels": Kind.label, "captions": Kind.caption, "numbers": Kind.number}


class MappingProvider(Provider):
    """Sends each picture by POST, as its bytes or inside JSON, and reads the answer by a mapping.

    `labels = {items = "result.tags", name = "tag.en", score = "confidence"}`: names with dots lead into the JSON,
    `items` to a list or an object. A `scale` divides all scores, 100 for percent.
    """

    name = "http"
    kinds: ClassVar[frozenset[Kind]] = frozenset(KINDS.values())

    def __init__(
        self,
        *,
        url: str,
        version: str = "1",
        key_env: str | None = None,
        key_header: str = "Authorization",
        json_field: str | None = None,
        scale: float = 1.0,
        seconds: float = 30.0,
        concurrency: int = 4,
        **mappings: Mapping[str, str],
    ) -> None:
        self.url, self.version, self._field, self._scale = url, f"http-{version}", json_field, scale
        key = secret(key_env)
        self._headers = {key_header: key} if key else {}
        self.limits = Limits(batch=concurrency, concurrency=1, seconds=seconds)
        self._mappings = {kind: _checked(kind, mapping) for kind, mapping in mappings.items()}
        if not self._mappings:
            raise InputError(f"a provider for {url} without a mapping; expected some of {', '.join(FIELDS)}")

    def describe(self, pictures: Sequence[Picture]) -> Sequence[Answer]:
        with ThreadPoolExecutor(len(pictures)) as pool:
            return list(pool.map(self._described, pictures))

    def _described(self, picture: Picture) -> Answer:
        try:
            seconds, key = self.limits.seconds * 0.8, key_of(self.url, self.version, [picture])
            said = call(self.url, seconds=seconds, key=key, headers=self._headers, **self._body(picture))
            return list(self._results(said))
        except Exception as error:
            return error

    def _body(self, picture: Picture) -> dict[str, Any]:
        if self._field is None:
            return {"content": picture.data}
        return {"json": {self._field: base64.b64encode(picture.data).decode(), "sha256": picture.sha256}}

    def _results(self, said: Any) -> Iterator[Result]:
        return results_by(self._mappings, said, scale=self._scale)


def results_by(mappings: Mapping[str, Mapping[str, str]], said: Any, *, scale: float = 1.0) -> Iterator[Result]:
    """Yield the results that mappings find in a JSON value. Raises Nonsense for another shape."""
    for kind, mapping in mappings.items():
        items = at(said, mapping["items"])
        for one in items if isinstance(items, list) else [items]:
            found = {field: at(one, path) for field, path in mapping.items() if field != "items"}
            yield _result(kind, found, scale)


def _result(kind: str, found: Mapping[str, Any], scale: float) -> Result:
    try:
        score = float(found["score"]) / scale if found.get("score") is not None else None
        if kind == "labels":
            if score is None:
                raise Nonsense("a label without a score")
            return Label(str(found["name"]), score, found.get("wikidata"))
        if kind == "captions":
            return Caption(str(found["text"]), found.get("language"), score)
        return Number(str(found["classifier"]), float(found["value"]))
    except (TypeError, ValueError) as error:
        raise Nonsense(str(error)) from error


def at(value: Any, path: str) -> Any:
    """Return what a path of names with dots leads to; an empty path to the value itself. Raises Nonsense."""
    for name in filter(None, path.split(".")):
        if isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, dict) and name in value:
            value = value[name]
        else:
            raise Nonsense(f"the answer has no {path!r}")
    return value


def _checked(kind: str, mapping: Mapping[str, str]) -> dict[str, str]:
    if kind not in FIELDS or not isinstance(mapping, Mapping):
        raise InputError(f"mapping {kind!r}; expected a table {', '.join(FIELDS)}")
    must, may = FIELDS[kind]
    if not must <= mapping.keys() <= must | may:
        raise InputError(f"mapping {kind} has {', '.join(mapping)}; expected {', '.join(sorted(must))}")
    return dict(mapping)
