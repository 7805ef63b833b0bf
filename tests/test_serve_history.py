"""Votes in the grid and in a picture's history: can't tell, undo, and rejecting what was accepted."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from isc.serve import schema
from isc.serve.intake import NewImage, take_in
from isc.serve.requests import lease, register
from isc.serve.results import Label
from isc.serve.storing import store
from tests.serving import Service, settings_in
from tests.test_serve_api import client_of


class Said:
    """A provider as the registry sees it."""

    version = "1"
    kinds = frozenset(("label",))


@pytest.fixture
def service(database_url, tmp_path):
    one = Service.made(settings_in(tmp_path, database_url))
    number = register(one.database, {"said": Said()})["said"]
    take_in(one.database, [NewImage(f"{at:064x}", 10, f"{at}.jpg") for at in range(3)])
    for held in lease(one.database, [number], limit=3, seconds=60):
        assert store(one.database, one.settings, held, "said", [Label("cat", 0.8)])
    yield one
    one.close()


def _states(service):
    return [row.state for row in service.rows(sa.select(schema.suggestion.c.state).order_by(schema.suggestion.c.id))]


def test_an_accepted_label_can_be_rejected_again_in_its_history(service):
    client = client_of(service)
    page = client.get("/images/1").text
    assert 'hx-post="/ui/history/1"' in page
    assert 'value="undo"' not in page  # nothing was voted yet
    entry = client.post("/ui/history/1", data={"decision": "accept"}).text
    assert _states(service)[0] == "accepted"
    assert 'id="entry-1"' in entry
    assert 'value="undo"' in entry
    assert "cat" in entry
    entry = client.post("/ui/history/1", data={"decision": "reject"}).text
    assert _states(service)[0] == "rejected"
    assert entry.count("local: ") == 2  # both votes stay in the record
    client.post("/ui/history/1", data={"decision": "undo"})
    assert _states(service)[0] == "unreviewed"
    assert client.post("/ui/history/99", data={"decision": "accept"}).status_code == 404


def test_the_grid_takes_cannot_tell_and_undoes_what_was_decided_last(service):
    client = client_of(service)
    page = client.get("/review?view=grid").text
    assert 'value="unsure"' in page
    assert "Undo the last" not in page
    page = client.post("/ui/batch", data={"decision": "accept", "chosen": ["1", "3"]}).text
    assert _states(service) == ["accepted", "unreviewed", "accepted"]
    assert "Undo the last 2 decisions" in page
    page = client.post("/ui/batch", data={"decision": "undo", "chosen": ["1", "3"]}).text
    assert _states(service) == ["unreviewed"] * 3
    assert "Undo the last" not in page
    page = client.post("/ui/batch", data={"decision": "unsure", "chosen": ["2"]}).text
    assert [row.decision for row in service.rows(sa.select(schema.vote).where(schema.vote.c.suggestion_id == 2))] == [
        "unsure"
    ]
    assert page.count('type="checkbox" name="chosen"') == 2
