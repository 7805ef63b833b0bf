"""The tables: migrations up and down with data in them, transactions and leases, on all three databases."""

from __future__ import annotations

import threading
import time

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from isc.errors import InputError
from isc.serve import schema
from isc.serve.backup import read_backup, write_backup
from isc.serve.circuit import Circuit
from isc.serve.database import HEAD, MIGRATIONS, Database, DatabaseAway, insert_ignoring, rows_among
from isc.serve.forgetting import delete_image
from isc.serve.intake import NewImage, take_in
from isc.serve.kinds import Decision, RequestState, SuggestionState
from isc.serve.providers.base import Busy, Limits, Refused, Unavailable
from isc.serve.reasons import BY_PERSON, WRITTEN
from isc.serve.requests import close, failed, lease, register, send_again
from isc.serve.results import CopyMatch, Label, Product, ShopPicture
from isc.serve.storing import store
from isc.serve.votes import Reviewer, cast
from tests.serving import Service, settings_in

KINDS = ("sqlite", "postgresql", "mariadb")


@pytest.fixture(params=KINDS)
def url(request, servers, tmp_path):
    """An empty database without tables."""
    return f"sqlite:///{tmp_path}/serve.sqlite" if request.param == "sqlite" else servers(request.param).new_database()


@pytest.fixture
def service(database_url, tmp_path):
    one = Service.made(settings_in(tmp_path, database_url))
    yield one
    one.close()


class Said:
    """A provider as the registry sees it."""

    version = "1"
    kinds = frozenset(("copy", "label"))


def _asked(service, count=3):
    """Take `count` pictures in for one provider, and return (image ids, provider id)."""
    numbers = register(service.database, {"said": Said()})
    new = [NewImage(f"{at:064x}", 10, f"{at}.jpg") for at in range(count)]
    return [number for number, _ in take_in(service.database, new)], numbers["said"]


def test_migrations_make_the_tables_of_the_schema(url):
    database = Database(url)
    database.upgrade()
    with database.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), schema.metadata)
    assert differences == []
    database.close()


def test_the_revision_that_needs_no_migration_is_the_last_one():
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def _accepted(service, provider, images, other):
    """Write that each of these pictures was suggested as a copy of the other, and accepted, two hours ago."""
    then = time.time() - 7200
    with service.database.writing() as connection:
        asked = sa.select(schema.request.c.image_id, schema.request.c.id)
        request_of = dict(connection.execute(asked.where(schema.request.c.image_id.in_(images))).all())
        for one in images:
            match = {"request_id": request_of[one], "image_id": one, **CopyMatch(other, 0.5, 0.9, "copy").row()}
            key = connection.execute(sa.insert(schema.copy_match).values(match)).inserted_primary_key[0]
            connection.execute(sa.insert(schema.suggestion).values(
                image_id=one, request_id=request_of[one], provider_id=provider, kind="copy", result_id=key,
                state=SuggestionState.accepted, score=0.9, priority=0.1, shuffle=0.5, created=then, decided=then,
            ))  # fmt: skip


def test_what_a_match_costs_does_not_grow_with_all_that_was_suggested_before(tmp_path):
    """Counted in steps of SQLite's machine, since a service that stores a match keeps all uploads waiting."""
    service = Service.made(settings_in(tmp_path))
    (other, *images), provider = _asked(service, 1_300)
    steps = [0]

    def step():
        steps[0] += 1

    sa.event.listen(service.database.engine, "checkout", lambda raw, *_: raw.set_progress_handler(step, 1))
    costs = []
    for earlier in (images[100:300], images[300:]):
        _accepted(service, provider, earlier, other)
        (held,) = lease(service.database, [provider], limit=1, seconds=600)
        steps[0] = 0
        assert store(service.database, service.settings, held, "said", [CopyMatch(other, 0.5, 0.9, "copy")])
        costs.append(steps[0])
    assert 0 < costs[1] < 1.2 * costs[0]
    service.close()


def test_a_long_backlog_of_one_provider_delays_no_other_and_the_urgent_come_first(service):
    numbers = register(service.database, {"slow": Said(), "quick": Said()})
    new = [NewImage(f"{at:064x}", 10, f"{at}.jpg") for at in range(40)]
    images = [number for number, _ in take_in(service.database, new, priority=10)]
    urgent = [number for number, _ in take_in(service.database, [NewImage("f" * 64, 10, "u.jpg")])]
    held = lease(service.database, [numbers["quick"]], limit=3, seconds=60)
    assert [one.image_id for one in held] == [*urgent, *images[:2]]
    both = lease(service.database, list(numbers.values()), limit=4, seconds=60)
    assert [one.image_id for one in both] == [*urgent, *images[:2], images[2]]
    assert {one.provider_id for one in both[:3]} == {numbers["slow"]}


def test_migrations_go_up_and_down_with_data_in_the_tables(url):
    database = Database(url)
    database.upgrade("0001")
    now = time.time()
    with database.writing() as connection:
        image = {"sha256": "a" * 64, "name": "ä 😀.jpg", "bytes": 5, "state": "active", "first_seen": now}
        connection.execute(sa.insert(schema.image).values(image))
        connection.execute(
            sa.insert(schema.provider).values(name="p", version="1", kinds=["label"], current=True, first_seen=now)
        )
        request = {
            "image_id": 1,
            "provider_id": 1,
            "state": "done",
            "priority": 1,
            "attempts": 1,
            "run_after": now,
            "created": now,
        }
        connection.execute(sa.insert(schema.request).values(request))
        old = sa.table(
            "suggestion", *(sa.column(c.name) for c in schema.suggestion.c if c.name not in ("audit", "why_values"))
        )
        values = {"id": 1, "image_id": 1, "request_id": 1, "provider_id": 1, "kind": "label", "result_id": 1,
                  "state": "unreviewed", "score": 0.5, "priority": 0.5, "shuffle": 0.5, "created": now}  # fmt: skip
        connection.execute(sa.insert(old).values(values))
    database.upgrade()
    with database.writing() as connection:
        assert connection.execute(sa.select(schema.suggestion.c.audit)).scalar_one() is False
        assert connection.execute(sa.select(schema.image.c.name)).scalar_one() == "ä 😀.jpg"
        connection.execute(sa.insert(schema.circuit).values(name="p", failures=1, open_until=0.0))
        jpeg = bytes(range(256)) * 1_000
        connection.execute(sa.insert(schema.shop_picture).values(sha256="b" * 64, jpeg=jpeg))
        item = {"request_id": 1, "image_id": 1, "picture_id": 1, "item_id": "I", "title": "ä 😀", "item_kind": "",
                "probability": 0.5, "picture": "i.jpg", "evidence": {}}  # fmt: skip
        connection.execute(sa.insert(schema.product).values(item))
        connection.execute(sa.insert(schema.suggestion).values(values | {"id": 2, "kind": "product"}))
        assert connection.execute(sa.select(schema.shop_picture.c.jpeg)).scalar_one() == jpeg
        gone = {"image_id": 9, "created": now, "sha256": "c" * 64, "path": "/photos/ä.jpg"}
        connection.execute(sa.insert(schema.removal).values(gone))
        connection.execute(sa.update(schema.suggestion).values(WRITTEN.of_suggestion()))
        connection.execute(sa.update(schema.image).values(BY_PERSON.of_image()))
        said = {"suggestion_id": 1, "reviewer": "ann", "number": 1, "decision": "accept", "trusted": False}
        connection.execute(sa.insert(schema.vote).values(said | {"created": now}))
    database.downgrade("0001")
    names = sa.inspect(database.engine).get_table_names()
    assert not {"circuit", "product", "shop_picture"} & set(names)
    with database.reading() as connection:
        assert connection.execute(sa.select(schema.image.c.sha256)).scalar_one() == "a" * 64
        assert connection.scalars(sa.text("SELECT score FROM suggestion")).all() == [0.5]
        assert connection.execute(sa.select(schema.vote.c.reviewer)).scalar_one() == "ann"
        assert tuple(connection.execute(sa.text("SELECT * FROM removal")).one()) == (1, 9, now)
    database.upgrade()
    database.downgrade("base")
    assert set(sa.inspect(database.engine).get_table_names()) <= {"alembic_version", "sqlite_sequence"}
    database.close()


def test_texts_compare_by_bytes(service):
    row = {"action": "withhold", "kind": "label", "note": None, "created": 0.0}
    with service.database.writing() as connection:
        assert insert_ignoring(connection, schema.listing, {**row, "value": "Cat"})
        assert insert_ignoring(connection, schema.listing, {**row, "value": "cat"})
        assert insert_ignoring(connection, schema.listing, {**row, "value": "cät"})
        assert not insert_ignoring(connection, schema.listing, {**row, "value": "cat"})


def test_rows_among_more_values_than_a_statement_takes_are_found(service):
    numbers, _ = _asked(service, 2)
    wanted = [*range(1_000_000, 1_070_000), *numbers]
    with service.database.reading() as connection:
        found = rows_among(connection, sa.select(schema.image.c.id), schema.image.c.id, wanted)
        assert rows_among(connection, sa.select(schema.image.c.id), schema.image.c.id, []) == []
    assert [row.id for row in found] == sorted(numbers)


def test_a_picture_is_taken_in_once_and_asked_about_once(service):
    images, number = _asked(service, 2)
    again = take_in(service.database, [NewImage(f"{0:064x}", 10, "other name.jpg")])
    assert again == [(images[0], False)]
    assert len(service.rows(sa.select(schema.request))) == 2
    assert number


def test_a_request_is_leased_by_one_worker_and_taken_up_after_its_lease(service):
    _, number = _asked(service, 3)
    first = lease(service.database, [number], limit=2, seconds=60)
    assert [one.attempts for one in first] == [1, 1]
    assert len(lease(service.database, [number], limit=5, seconds=60)) == 1
    assert lease(service.database, [number], limit=5, seconds=60) == []
    ended = schema.request.c.id.in_([one.id for one in first])
    with service.database.writing() as connection:
        connection.execute(sa.update(schema.request).where(ended).values(lease_until=0))
    second = lease(service.database, [number], limit=5, seconds=60)
    assert [one.id for one in second] == [one.id for one in first]
    assert [one.attempts for one in second] == [2, 2]
    assert not store(service.database, service.settings, first[0], "said", [Label("cat", 0.9)])
    assert store(service.database, service.settings, second[0], "said", [Label("cat", 0.9)])
    assert not store(service.database, service.settings, second[0], "said", [Label("cat", 0.9)])
    assert len(service.rows(sa.select(schema.label))) == 1


def test_many_workers_lease_each_request_once(service):
    _, number = _asked(service, 40)
    found, problems = [], []

    def work():
        try:
            while part := lease(service.database, [number], limit=3, seconds=60):
                found.extend(one.id for one in part)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert problems == []
    assert len(found) == len(set(found)) == 40


def test_failures_wait_longer_each_time_and_end_as_dead_letters(service):
    _, number = _asked(service, 1)
    limits = Limits(attempts=2)
    held = lease(service.database, [number], limit=1, seconds=60)
    assert failed(service.database, held[0], Unavailable("down"), limits) is RequestState.queued
    row = service.rows(sa.select(schema.request))[0]
    assert row.run_after > time.time()
    assert row.error == "Unavailable: down"
    assert lease(service.database, [number], limit=1, seconds=60) == []
    with service.database.writing() as connection:
        connection.execute(sa.update(schema.request).values(run_after=0))
    held = lease(service.database, [number], limit=1, seconds=60)
    assert failed(service.database, held[0], Unavailable("down"), limits) is RequestState.dead
    with service.database.writing() as connection:
        assert send_again(connection, provider_name="said") == 1
        assert send_again(connection, provider_name="said") == 0
    assert lease(service.database, [number], limit=1, seconds=60)[0].attempts == 1


def test_a_busy_provider_costs_no_attempt_and_a_refusal_ends_at_once(service):
    _, number = _asked(service, 2)
    held = lease(service.database, [number], limit=2, seconds=60)
    assert failed(service.database, held[0], Busy("429", retry_after=30), Limits(attempts=1)) is RequestState.queued
    assert failed(service.database, held[1], Refused("no"), Limits()) is RequestState.dead
    rows = service.rows(sa.select(schema.request).order_by(schema.request.c.id))
    assert rows[0].attempts == 0
    assert 25 < rows[0].run_after - time.time() <= 30


def test_a_circuit_opens_after_failures_in_a_row_and_closes_after_a_success(service):
    circuit = Circuit(service.database, "said", Limits(failures=3))
    for _ in range(2):
        circuit.failed(Unavailable("down"))
    circuit.succeeded()
    for _ in range(2):
        circuit.failed(Unavailable("down"))
    assert circuit.admits()
    circuit.failed(Unavailable("down"))
    assert circuit.is_open()
    assert not circuit.admits()
    circuit.succeeded()
    assert circuit.admits()


def test_of_a_half_open_circuit_one_call_is_a_probe(service):
    circuits = [Circuit(service.database, "said", Limits(failures=1)) for _ in range(3)]
    circuits[0].failed(Unavailable("down"))
    with service.database.writing() as connection:
        connection.execute(sa.update(schema.circuit).values(open_until=time.time() - 1))
    assert [one.admits() for one in circuits] == [True, False, False]
    circuits[0].failed(Unavailable("still down"))
    assert not any(one.admits() for one in circuits)
    circuits[0].failed(Busy("429", retry_after=60))
    assert service.rows(sa.select(schema.circuit.c.open_until))[0].open_until > time.time() + 50
    circuits[0].succeeded()
    assert all(one.admits() for one in circuits)


def test_a_picture_of_a_shop_that_comes_at_once_is_kept_once_and_goes_into_a_backup(service, tmp_path):
    images, number = _asked(service, 6)
    held = lease(service.database, [number], limit=6, seconds=60)
    shown = ShopPicture("i.jpg", b"\xff\xd8" + bytes(100_000))
    problems = []

    def work(one):
        try:
            store(service.database, service.settings, one, "said", [Product("I", "Item", 0.8, shown)])
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in held]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert problems == []
    assert [row.jpeg for row in service.rows(sa.select(schema.shop_picture))] == [shown.jpeg]
    assert len(service.rows(sa.select(schema.product))) == 6
    assert delete_image(service.database, service.files, images[0])
    assert len(service.rows(sa.select(schema.product))) == 5
    write_backup(service.database, service.settings, tmp_path / "backup.tar")
    other = Service.made(settings_in(tmp_path / "other"))
    read_backup(other.database, other.settings, tmp_path / "backup.tar")
    assert [row.jpeg for row in other.rows(sa.select(schema.shop_picture))] == [shown.jpeg]
    other.close()


def _suggested(service):
    """Return the id of a suggestion that the first picture is a copy of the second."""
    images, number = _asked(service, 2)
    held = lease(service.database, [number], limit=1, seconds=60)
    match = CopyMatch(other=images[1], distance=0.4, probability=0.8, verdict="copy")
    assert store(service.database, service.settings, held[0], "said", [match])
    return service.rows(sa.select(schema.suggestion.c.id))[0].id, images


def test_votes_are_a_record_and_the_same_vote_twice_is_one(service):
    number, _ = _suggested(service)

    def voted(who, decision, trusted=False):
        return cast(service.database, service.settings, Reviewer(who, trusted), {number: decision})[0]

    assert voted("ann", Decision.accept).state is SuggestionState.accepted
    assert not voted("ann", Decision.accept).new
    assert voted("ann", Decision.reject).state is SuggestionState.rejected
    assert voted("bob", Decision.unsure).state is SuggestionState.rejected
    assert voted("ann", Decision.undo).state is SuggestionState.unreviewed
    assert not voted("ann", Decision.undo).new
    record = service.rows(sa.select(schema.vote.c.reviewer, schema.vote.c.decision).order_by(schema.vote.c.id))
    assert [tuple(row) for row in record] == [("ann", "accept"), ("ann", "reject"), ("bob", "unsure"), ("ann", "undo")]


def test_the_same_vote_at_once_is_one(service):
    number, _ = _suggested(service)
    results = []

    def work():
        results.append(cast(service.database, service.settings, Reviewer("ann"), {number: Decision.accept})[0].new)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(results) == [False] * 5 + [True]


def test_a_deleted_picture_is_gone_with_all_that_was_said(service):
    _, images = _suggested(service)
    assert delete_image(service.database, service.files, images[1])
    assert not delete_image(service.database, service.files, images[1])
    for table in (schema.copy_match, schema.vote):
        assert service.rows(sa.select(table)) == []
    assert [row.image_id for row in service.rows(sa.select(schema.removal))] == [images[1]]


def test_a_backup_is_read_into_another_database(service, tmp_path):
    number, _ = _suggested(service)
    cast(service.database, service.settings, Reviewer("ann"), {number: Decision.accept})
    path = tmp_path / "backup.tar"
    write_backup(service.database, service.settings, path)
    other = Service.made(settings_in(tmp_path / "other"))
    read_backup(other.database, other.settings, path)
    for table in (schema.image, schema.copy_match, schema.suggestion, schema.vote):
        assert [tuple(row) for row in service.rows(sa.select(table))] == [
            tuple(row) for row in other.rows(sa.select(table))
        ]
    with pytest.raises(InputError, match="holds pictures already"):
        read_backup(other.database, other.settings, path)
    back = tmp_path / "back.tar"
    write_backup(other.database, other.settings, back)
    with service.database.writing() as connection:
        connection.execute(sa.delete(schema.image))
    read_backup(service.database, service.settings, back)
    assert take_in(service.database, [NewImage("f" * 64, 3, "new.jpg")])[0][1]
    other.close()


def test_a_lost_lease_is_not_closed(service):
    _, number = _asked(service, 1)
    held = lease(service.database, [number], limit=1, seconds=60)[0]
    with service.database.writing() as connection:
        connection.execute(sa.update(schema.request).values(lease="someone else"))
        assert not close(connection, held, RequestState.done)


@pytest.mark.parametrize("text", ["nonsense", "oracle://x/y", "sqlite://"])
def test_a_url_of_no_database_is_refused(text):
    with pytest.raises(InputError, match="expected sqlite"):
        Database(text)


def test_a_database_that_is_away_is_said():
    database = Database("postgresql://postgres@127.0.0.1:1/none")
    with pytest.raises(DatabaseAway), database.reading():
        pass
