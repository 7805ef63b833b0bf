"""The API against its own description: schemathesis makes requests from it, and checks every answer."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from isc.serve import schema
from isc.serve.api import broker
from isc.serve.api.app import create_app, shielded
from isc.serve.api.models import CaptionResult, LabelResult
from isc.serve.api.problems import MEDIA
from isc.serve.api.streams import EVENT_DATA, DecidedCopy, DecidedProduct, ExportedDecision
from isc.serve.intake import NewImage, take_in
from isc.serve.kinds import Role
from isc.serve.providers.base import Limits, Refused
from isc.serve.requests import failed, lease, register
from isc.serve.results import Caption, CopyMatch, Label, Product, ShopPicture
from isc.serve.settings import Caps
from isc.serve.storing import store
from isc.serve.tokens import create_token
from tests.serving import PHOTOS, Service, settings_in

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis (pip install isc[dev])")
hypothesis = pytest.importorskip("hypothesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")


ITEM = Product("I1", "An item", 0.8, ShopPicture("i1.jpg", b"\xff\xd8\xff\xd9"), evidence={"none": 0.1})


class Said:
    """A provider as the registry sees it."""

    version = "1"
    kinds = frozenset(("copy", "label", "caption", "product"))


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """The description of an application with a picture and a suggestion in it."""
    folder = tmp_path_factory.mktemp("openapi")
    service = Service.made(replace(settings_in(folder), caps=Caps(calls=10**6, guesses=10**6)))

    number = register(service.database, {"said": Said()})["said"]
    new = [NewImage(f"{at:064x}", 10, f"{at}.jpg", str(PHOTOS[at])) for at in range(2)]
    images = [one for one, _ in take_in(service.database, new)]
    held = lease(service.database, [number], limit=1, seconds=60)[0]
    store(service.database, service.settings, held, "said", [CopyMatch(images[1], 0.3, 0.7, "perhaps"), ITEM])
    found = schemathesis.openapi.from_asgi("/openapi.json", create_app(service.settings, service.database))
    yield found, create_token(service.database, "tester", Role.admin)
    service.close()


MEANING = {"cursor", "files"}  # that a schema cannot say: a cursor is one that was given, a file is a picture
STREAM = "/api/events"  # it has no end, and is tested with the page


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_every_answer_is_as_described(described, mode):
    api, token = described
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 25
    for operation in operations:
        if operation.path != STREAM and (mode == "positive" or _takes_something(operation)):
            _check(operation, token, mode)


def _takes_something(operation):
    """Return whether there is a parameter or a body that can be wrong; cookies and tokens are tested elsewhere."""
    return any((*operation.query, *operation.path_parameters, *operation.body))


def _check(operation, token, mode):
    """Make requests from the description of one operation, as it says or against it, and check each answer."""
    known = {one.name for one in operation.query}
    known |= {"files"} if operation.label == "POST /api/images" else set()
    left_out = [checks.positive_data_acceptance] if known & MEANING else []
    headers = {"Host": "localhost", "Authorization": f"Bearer {token}"}

    @hypothesis.settings(
        max_examples=10, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def agrees(case):
        statuses.append(case.call_and_validate(headers=headers, excluded_checks=left_out).status_code)

    statuses = []
    agrees()
    assert mode == "positive" or any(400 <= one < 500 for one in statuses), f"{operation.label} refused nothing"


def test_the_description_is_openapi_3_1_and_every_answer_is_typed(tmp_path):
    service = Service.made(settings_in(tmp_path))
    found = create_app(service.settings, service.database).openapi()
    assert found["openapi"].startswith("3.1")
    schemas = found["components"]["schemas"]
    assert set(re.findall("#/components/schemas/([A-Za-z0-9_]+)", str(found))) <= set(schemas)
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            for status, answer in answers.items():
                where = f"{method} {path} {status}"
                assert status == "204" or answer["content"], where
                assert all(one.get("schema") for one in answer.get("content", {}).values()), where
                if status >= "4" and (path, status) != ("/readyz", "503"):
                    assert answer["content"] == {MEDIA: {"schema": {"$ref": "#/components/schemas/Problem"}}}, where
            expected = {"400", "403", "500"}
            expected |= {"401", "422", "429", "503"} if operation.get("security") else set()
            expected |= {"413"} if "requestBody" in operation else set()
            expected |= {"404"} if "{" in path else set()
            assert expected <= set(answers), (method, path, expected - set(answers))
    service.close()


def test_lines_of_the_export_and_events_are_as_described(database_url, tmp_path):
    """The real data of each kind: of a copy, a label, a caption and an item, decided by people."""
    service = Service.made(settings_in(tmp_path, database_url))
    number = register(service.database, {"said": Said()})["said"]
    new = [NewImage(f"{at:064x}", 10, f"{at}.jpg", str(PHOTOS[at])) for at in range(3)]
    images = [one for one, _ in take_in(service.database, new)]
    held = lease(service.database, [number], limit=3, seconds=60)
    told = [CopyMatch(images[1], 0.3, 0.7, "perhaps", image_region=((0, 0), (1, 0), (1, 1)), evidence={"bits": 3}),
            Label("cat", 0.8, "Q146"), Caption("a cat", "en", 0.7), ITEM]  # fmt: skip
    assert store(service.database, service.settings, held[0], "said", told)
    failed(service.database, held[1], Refused("never"), Limits())
    client = TestClient(shielded(create_app(service.settings, service.database)), base_url="http://localhost:8008")
    for one in client.get("/api/suggestions").json()["items"]:
        assert client.put(f"/api/suggestions/{one['id']}/vote", json={"decision": "accept"}).json()["new"]
        if one["kind"] == "caption":
            rated = client.put(f"/api/suggestions/{one['id']}/rating", json={"helpful": "unsure"})
            assert rated.status_code == 200
    assert client.put(f"/api/images/{images[2]}/state", json={"state": "negative"}).status_code == 200
    assert client.post(f"/api/images/{images[2]}/captions", json={"text": "a dog"}).status_code == 201
    lines = [ExportedDecision.model_validate_json(one) for one in client.get("/api/export").iter_lines()]
    assert {str(one.kind) for one in lines} == {"copy", "label", "caption", "product"}
    assert {type(one.result) for one in lines} == {DecidedCopy, LabelResult, CaptionResult, DecidedProduct}
    rows = service.rows(sa.select(schema.event))
    assert {row.kind for row in rows} == set(EVENT_DATA)
    for row in rows:
        sent = {"id": row.id, "image": row.image_id, "kind": row.kind, "body": row.body, "created": row.created}
        kind, data = broker._text(sent, broker.Place(0)).splitlines()[1:3]
        read = EVENT_DATA[kind.removeprefix("event: ")].model_validate_json(data.removeprefix("data: "))
        assert read.image == row.image_id
    service.close()


def test_an_error_of_the_service_itself_is_a_problem_too(tmp_path, monkeypatch):
    service = Service.made(settings_in(tmp_path))
    app = create_app(service.settings, service.database)
    monkeypatch.setattr("isc.serve.api.admin.provider_states", lambda _: 1 / 0)
    answer = TestClient(app, base_url="http://localhost", raise_server_exceptions=False).get("/api/providers")
    assert (answer.status_code, answer.headers["content-type"]) == (500, MEDIA)
    assert "zero" not in answer.text
    service.close()
