"""What workers hold in memory of a large collection: it grows in blocks, is read in pages, and misses nothing."""

from __future__ import annotations

import time

import numpy as np
import pytest
import sqlalchemy as sa

from isc.serve import living, schema
from isc.serve.living import LivingIndex
from isc.serve.providers import hashes
from isc.serve.providers.hashes import HashTable, PdqProvider
from isc.serve.requests import lease
from isc.serve.results import Number
from isc.serve.storing import store
from tests.serving import Service, settings_in


@pytest.fixture
def service(database_url, tmp_path):
    one = Service.made(settings_in(tmp_path, database_url))
    yield one
    one.close()


def _pictures(service, numbers, hashed=()):
    """Write pictures without files; those of `hashed` {number: hash} have their hash."""
    rows = [
        {"id": n, "sha256": f"{n:064x}", "name": "x", "bytes": 1, "state": "active", "first_seen": 1.0,
         "pdq": dict(hashed).get(n)}
        for n in numbers
    ]  # fmt: skip
    with service.database.writing() as connection:
        connection.execute(sa.insert(schema.image), rows)


def _hashes(count):
    return [one.tobytes().hex() for one in np.random.default_rng(3).integers(0, 256, (count, 32), np.uint8)]


def test_the_table_grows_in_blocks_and_knows_each_picture_once(monkeypatch):
    monkeypatch.setattr(hashes, "BLOCK", 64)
    monkeypatch.setattr(hashes, "COMPARED", 32)
    digits = _hashes(500)
    rows = list(zip(np.random.default_rng(4).permutation(5_000)[:500].tolist(), digits, strict=True))
    table = HashTable()
    for start in range(0, 500, 70):
        table.add(rows[max(0, start - 30) : start + 70])  # pages overlap
    table.add([*rows[:5], *rows[:5]])
    table.add([])
    assert len(table) == 500
    assert sorted(number for _, number in table.near(digits[0], within=256)) == sorted(number for number, _ in rows)
    for number, one in rows[::50]:
        assert table.near(one, within=0) == [(0, number)]


def test_bits_that_differ_are_counted_up_to_all_256():
    (digits,) = _hashes(1)
    known, table = int(digits, 16), HashTable()
    masks = [0, 1, 1 << 255, (1 << 64) - 1, (1 << 128) - 1, (1 << 256) - 2, (1 << 256) - 1]
    table.add([(number, f"{known ^ mask:064x}") for number, mask in enumerate(masks)])
    assert table.near(digits, within=256) == [(0, 0), (1, 1), (1, 2), (64, 3), (128, 4), (255, 5), (256, 6)]
    assert table.near(digits, within=31) == [(0, 0), (1, 1), (1, 2)]


def test_the_table_gives_up_rows_and_holds_nothing_of_them(monkeypatch):
    monkeypatch.setattr(hashes, "BLOCK", 16)
    monkeypatch.setattr(hashes, "COMPARED", 8)
    digits = dict(enumerate(_hashes(100), 1))
    table, left = HashTable(), dict(digits)
    table.add(list(digits.items()))
    rng = np.random.default_rng(6)
    while left:
        gone = rng.choice(sorted(left), min(len(left), 7), replace=False).tolist()
        assert table.remove([*gone, gone[0], 5_000]) == len(gone)
        for one in gone:
            del left[one]
        kept = np.concatenate([np.empty((0, 4), np.uint64), *table._hashes])
        assert not {bytes(row.astype(">u8")).hex() for row in kept} & {digits[one] for one in digits.keys() - left}
        assert len(table) == len(left)
        assert sorted(one for _, one in table.near(digits[1], within=256)) == sorted(left)
        assert all(table.near(one, within=0) == [(0, number)] for number, one in left.items())
    assert table._hashes == []
    table.add(list(digits.items()))
    assert len(table) == 100


def test_a_worker_reads_hashes_in_pages_and_those_that_come_late(service, monkeypatch):
    monkeypatch.setattr(hashes, "PAGE", 7)
    monkeypatch.setattr(hashes, "OVERLAP", 3)
    monkeypatch.setattr("isc.serve.providers.hashes.MATCH", 0)
    digits = _hashes(40)
    _ = service.worker
    _pictures(service, range(1, 41), {n: digits[n - 1] for n in range(21, 41)})
    pdq = PdqProvider(service.worker.context)
    assert pdq._matches({40: digits[39]}) == {40: []}
    assert len(pdq._table) == 20
    with service.database.writing() as connection:
        row = {"provider_id": 1, "state": "queued", "priority": 1, "attempts": 0, "run_after": 0.0, "created": 1.0}
        connection.execute(sa.insert(schema.request), [{"image_id": n, **row} for n in (2, 3)])
    described, now = lease(service.database, [1], limit=2, seconds=60)
    for one in (described, now):  # by other workers: one has answered, one has not yet
        with service.database.writing() as connection:
            connection.execute(
                sa.update(schema.image).where(schema.image.c.id == one.image_id).values(pdq=digits[one.image_id - 1])
            )
    assert store(service.database, service.settings, described, "pdq", [Number("pdq_quality", 90)])
    found = pdq._matches({40: digits[described.image_id - 1], 39: digits[now.image_id - 1]})
    assert [one.other for one in found[40]] == [described.image_id]
    assert [one.other for one in found[39]] == [now.image_id]


def test_the_index_follows_in_pages(service, tmp_path, monkeypatch):
    monkeypatch.setattr(living, "PAGE", 7)
    monkeypatch.setattr(living, "OVERLAP", 3)
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(30, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    _pictures(service, range(1, 31))
    index = LivingIndex(service.database, tmp_path / "index", model="m", dim=16, provenance={"weights_sha256": "m"})
    index.put({n: vectors[n - 1] for n in range(1, 31)})
    index.follow()
    assert len(index) == 30
    with service.database.writing() as connection:
        gone = [{"image_id": n, "created": time.time()} for n in range(1, 16)]
        connection.execute(sa.insert(schema.removal), gone)
        connection.execute(sa.delete(schema.image).where(schema.image.c.id <= 15))
    index.follow()
    assert len(index) == 15
    assert index.nearest(vectors[15:16], k=1)[0].images == [16]
