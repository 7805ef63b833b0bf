"""`isc serve backup` and `isc serve restore`, as one calls them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from isc.cli.main import main
from isc.serve import schema
from isc.serve.kinds import RequestState
from isc.serve.requests import lease
from isc.serve.settings import read_settings
from tests.serving import PHOTOS, Service, settings_in


def test_a_service_is_backed_up_and_restored_by_command(tmp_path, capsys):
    service = Service.made(settings_in(tmp_path))
    first, _ = service.take(*PHOTOS[:2])
    service.worker.drain()
    (later,) = service.take(PHOTOS[2])
    numbers = [row.id for row in service.rows(sa.select(schema.provider.c.id))]
    assert {one.image_id for one in lease(service.database, numbers, limit=9, seconds=600)} == {later}
    place = tmp_path / "all.tar"
    main(["serve", "backup", "--data", str(service.settings.data), str(place)])
    assert "3 images, 3 of them with their files" in capsys.readouterr().out
    fresh = tmp_path / "fresh"
    main(["serve", "restore", "--data", str(fresh), str(place)])
    assert "3 images, 3 files" in capsys.readouterr().out
    other = Service.made(read_settings(None, data=fresh))
    for table in (schema.image, schema.number, schema.descriptor, schema.provider):
        assert other.rows(sa.select(table)) == service.rows(sa.select(table))
    digests = [row.sha256 for row in other.rows(sa.select(schema.image.c.sha256).order_by(schema.image.c.id))]
    assert [other.files.path(one).read_bytes() for one in digests] == [one.read_bytes() for one in PHOTOS[:3]]
    states = sa.select(schema.request.c.image_id, schema.request.c.state).distinct()
    assert dict(map(tuple, other.rows(states)))[later] == RequestState.queued  # a lease means nothing elsewhere
    assert dict(map(tuple, other.rows(states)))[first] == RequestState.done
    other.worker.drain()
    assert {row.state for row in other.rows(sa.select(schema.request.c.state))} == {RequestState.done}
    with pytest.raises(SystemExit) as ended:
        main(["serve", "restore", "--data", str(fresh), str(place)])
    assert ended.value.code == 2
    assert "expected an empty one" in capsys.readouterr().err
    other.close()
    service.close()
