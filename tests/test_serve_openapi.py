"""The API against its own description: schemathesis makes requests from it, and checks every answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isc.serve.api.app import create_app
from isc.serve.intake import NewImage, take_in
from isc.serve.kinds import Role
from isc.serve.requests import lease, register
from isc.serve.results import CopyMatch, Product, ShopPicture
from isc.serve.settings import Caps
from isc.serve.storing import store
from isc.serve.tokens import create_token
from tests.serving import PHOTOS, Service, settings_in

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis (pip install isc[dev])")
hypothesis = pytest.importorskip("hypothesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """The description of an application with a picture and a suggestion in it."""
    folder = tmp_path_factory.mktemp("openapi")
    service = Service.made(replace(settings_in(folder), caps=Caps(calls=10**6, guesses=10**6)))

    class Said:
        version = "1"
        kinds = frozenset(("copy", "product"))

    number = register(service.database, {"said": Said()})["said"]
    new = [NewImage(f"{at:064x}", 10, f"{at}.jpg", str(PHOTOS[at])) for at in range(2)]
    images = [one for one, _ in take_in(service.database, new)]
    held = lease(service.database, [number], limit=1, seconds=60)[0]
    item = Product("I1", "An item", 0.8, ShopPicture("i1.jpg", b"\xff\xd8\xff\xd9"), evidence={"none": 0.1})
    store(service.database, service.settings, held, "said", [CopyMatch(images[1], 0.3, 0.7, "perhaps"), item])
    found = schemathesis.openapi.from_asgi("/openapi.json", create_app(service.settings, service.database))
    yield found, create_token(service.database, "tester", Role.admin)
    service.close()


MEANING = {"cursor", "files"}  # that a schema cannot say: a cursor is one that was given, a file is a picture
STREAM = "/api/events"  # it has no end, and is tested with the page


@pytest.mark.slow
def test_every_answer_is_as_described(described):
    api, token = described
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 25
    for operation in operations:
        if operation.path != STREAM:
            _check(operation, token)


def _check(operation, token):
    """Make requests from the description of one operation, and check each answer."""
    known = {one.name for one in operation.query}
    known |= {"files"} if operation.label == "POST /api/images" else set()
    left_out = [checks.positive_data_acceptance] if known & MEANING else []
    headers = {"Host": "localhost", "Authorization": f"Bearer {token}"}

    @hypothesis.settings(
        max_examples=10, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=operation.as_strategy())
    def agrees(case):
        case.call_and_validate(headers=headers, excluded_checks=left_out)

    agrees()


def test_the_description_is_openapi_3_1_and_every_answer_is_typed(tmp_path):
    service = Service.made(settings_in(tmp_path))
    found = create_app(service.settings, service.database).openapi()
    assert found["openapi"].startswith("3.1")
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                assert status == "204" or answer["content"], f"{method} {path} {status}"
    service.close()
