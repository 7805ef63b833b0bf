"""The description of the API (OpenAPI 3.1): what FastAPI makes of the routes, with the streams and the problems."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from isc.serve.api.problems import Problem, problems
from isc.serve.api.streams import EventData, ExportedDecision

REF = "#/components/schemas/{model}"
EVERYWHERE = (400, 403, 500)  # of the shield before all routes, and of what went wrong here
WITH_BODY = (413,)


def install(app: FastAPI) -> None:
    """Let the app describe all answers, also those that no route makes itself."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = plain()
            more = models_json_schema(
                [(Problem, "serialization"), (EventData, "serialization"), (ExportedDecision, "serialization")],
                ref_template=REF,
            )[1]["$defs"]
            found["components"]["schemas"] = more | found["components"]["schemas"]
            for operations in found["paths"].values():
                for operation in operations.values():
                    _complete(operation)
        return dict(app.openapi_schema or {})

    app.openapi = described  # type: ignore[method-assign]


def _complete(operation: dict[str, Any]) -> None:
    """Add the problems that any operation may end with."""
    for status, answer in problems(*EVERYWHERE, *(WITH_BODY if "requestBody" in operation else ())).items():
        operation["responses"].setdefault(str(status), answer)
