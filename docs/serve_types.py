"""Generator of isc/serve/client_types.py: the answers of the API as typed dictionaries, from its OpenAPI description.

python docs/serve_types.py
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from isc.serve.api.app import create_app
from isc.serve.settings import read_settings

PLACE = Path(__file__).resolve().parents[1] / "isc" / "serve" / "client_types.py"
ANSWERS = ("Uploaded", "Results", "Suggestions", "VoteResults", "ProviderFigures")  # and what they consist of
HEAD = '''"""The answers of the API for its Python client, made from its OpenAPI description by docs/serve_types.py."""

from typing import Any, Literal, NotRequired, TypedDict
'''
PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def types(schemas: Mapping[str, Any]) -> str:
    """Return the module: a class for each schema that the client's answers are made of."""
    wanted = list(dict.fromkeys(name for answer in ANSWERS for name in _named(schemas, answer)))
    parts = [_written(_name(name), schemas[name]) for name in wanted]
    return HEAD + "".join(f"\n\n{part}\n" if part.startswith("class") else f"\n{part}\n" for part in parts)


def _named(schemas: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield the schemas that this one needs, and then itself."""
    for other in re.findall(r"#/components/schemas/(\w+)", str(schemas[name])):
        if other != name:
            yield from _named(schemas, other)
    yield name


def _name(schema: str) -> str:
    """Return the name of a class: that of the schema, without the marks of its parameters."""
    return schema.replace("_", "")


def _written(name: str, schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f"{name} = Literal[{', '.join(repr(one).replace(chr(39), chr(34)) for one in schema['enum'])}]"
    about = " ".join(str(schema.get("description", schema["title"])).split("\n\n")[0].split())
    needed = set(schema.get("required", ()))
    lines = [f"class {name}(TypedDict):", f'    """{about.rstrip(".")}."""', ""]
    for key, one in schema["properties"].items():
        kind = _kind(one)
        lines.append(f"    {key}: {kind if key in needed else f'NotRequired[{kind}]'}")
    return "\n".join(lines)


def _kind(schema: Mapping[str, Any]) -> str:
    """Return the type of a value."""
    if "$ref" in schema:
        return _name(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " | ".join(_kind(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        parts = schema.get("prefixItems", [schema.get("items", {})])
        return f"list[{_kind(parts[0])}]"
    if schema.get("type") == "object":
        more = schema.get("additionalProperties")
        return f"dict[str, {_kind(more) if isinstance(more, dict) else 'Any'}]"
    return PLAIN.get(schema.get("type", ""), "Any")


def described() -> Mapping[str, Any]:
    """Return the schemas of the API."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(read_settings(None, data=Path(folder)))
        schemas: Mapping[str, Any] = app.openapi()["components"]["schemas"]
        return schemas


if __name__ == "__main__":
    PLACE.write_text(types(described()), encoding="utf-8")
