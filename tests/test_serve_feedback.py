"""Decisions reach the models and the providers: exported pairs, the outbox, acceptance rates, the record of figures."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from isc.cli.main import main
from isc.data.csv_files import read_ground_truth, read_predictions
from isc.data.hdf5 import read_descriptors
from isc.errors import InputError
from isc.evaluate.calibration.score_origin import read_made
from isc.serve import schema
from isc.serve.api.app import create_app, shielded
from isc.serve.intake import NewImage, take_in
from isc.serve.kinds import Decision, Kind, SuggestionState, Verification
from isc.serve.labelled import write_labelled
from isc.serve.outbox import ATTEMPTS, Message, NotDelivered, addresses, deliver, post
from isc.serve.requests import lease, register
from isc.serve.results import CopyMatch, Label
from isc.serve.settings import ProviderSettings, Review
from isc.serve.statistics import figures
from isc.serve.storing import store
from isc.serve.votes import Reviewer, Standing, cast, verified
from tests.serving import PHOTOS, Service, edited, settings_in
from tests.test_serve_providers import Servant


class Said:
    """A provider as the registry sees it."""

    version = "1"
    kinds = frozenset(("label", "copy"))


@pytest.fixture
def made(database_url, tmp_path):
    """Return a function that makes a service with other settings on the database; it is closed at the end."""
    services = []

    def make(**given):
        services.append(Service.made(replace(settings_in(tmp_path, database_url), **given)))
        register(services[-1].database, {"said": Said()})
        return services[-1]

    yield make
    for one in services:
        one.close()


def _labels(service, scores, name="cat"):
    """Let the provider say a label of each of these scores, and return the suggestions by id."""
    number = register(service.database, {"said": Said()})["said"]
    start = len(service.rows(sa.select(schema.image)))
    take_in(service.database, [NewImage(f"{start + at:064x}", 1, "x") for at in range(len(scores))])
    for one, score in zip(lease(service.database, [number], limit=len(scores), seconds=60), scores, strict=True):
        assert store(service.database, service.settings, one, "said", [Label(name, score)])
    return service.rows(sa.select(schema.suggestion).order_by(schema.suggestion.c.id))[start:]


def _vote(service, number, decision, who="ann", trusted=False):
    return cast(service.database, service.settings, Reviewer(who, trusted), {number: Decision(decision)})[0].state


@pytest.mark.parametrize(
    ("rule", "votes", "state"),
    [
        ("one", "+", "accepted"), ("one", "+-", "rejected"), ("one", "?", "unreviewed"), ("one", "+?", "accepted"),
        ("two", "+", "unreviewed"), ("two", "++", "accepted"), ("two", "+-", "unreviewed"), ("two", "--", "rejected"),
        ("two", "++-", "unreviewed"), ("two", "+++-", "accepted"), ("trusted", "+", "unreviewed"),
        ("trusted", "+T", "accepted"), ("trusted", "TF", "rejected"), ("trusted", "F+", "rejected"),
    ],
)  # fmt: skip
def test_what_counts_as_verified_is_a_rule(rule, votes, state):
    said = {"+": (Decision.accept, False), "-": (Decision.reject, False), "?": (Decision.unsure, False),
            "T": (Decision.accept, True), "F": (Decision.reject, True)}  # fmt: skip
    standing = [Standing(*said[one]) for one in votes]
    assert verified(standing, Verification(rule), SuggestionState.unreviewed) == state


def test_thresholds_hide_and_withhold_and_the_list_too(made):
    rules = {Kind.label: Review(show=0.2, withhold=0.5, audit=0)}
    service = made(review=rules)
    states = [(row.state, row.why) for row in _labels(service, [0.1, 0.3, 0.9])]
    assert [state for state, _ in states] == ["hidden", "withheld", "unreviewed"]
    assert [why for _, why in states] == ["below", "below", None]
    with service.database.writing() as connection:
        row = {"action": "withhold", "kind": "label", "value": "dog", "created": 0.0}
        connection.execute(sa.insert(schema.listing).values(row))
    assert _labels(service, [0.9], name="dog")[0].why == "listed"
    own = {"said": ProviderSettings("said", "said", withhold=0.95)}
    strict = Service(replace(service.settings, providers=own), service.database)
    assert _labels(strict, [0.9])[0].state == "withheld"


@pytest.mark.slow
def test_a_provider_that_people_reject_is_withheld_and_audited_at_random(made):
    rules = {Kind.label: Review(withhold=0.3, audit=0.2, acceptance=0.3, window=40)}
    service = made(review=rules)
    for row in _labels(service, [0.8] * 40):
        _vote(service, row.id, "reject")
    later = _labels(service, [0.8] * 200)
    withheld = [row for row in later if row.state == "withheld"]
    audited = [row for row in later if row.audit]
    assert len(withheld) + len(audited) == 200
    assert 15 < len(audited) < 70
    assert (withheld[0].why, withheld[0].why_values) == ("rarely_accepted", {"accepted": 0, "of": 40})
    for row in audited:
        _vote(service, row.id, "accept")
    with service.database.reading() as connection:
        found = figures(connection)[0]
    assert (found.acceptance.accepted, found.acceptance.decided) == (0, 40)
    assert found.audit.share == 1
    assert found.days[0].rejected == 40


def test_figures_are_of_a_window_of_time(made):
    service = made()
    rows = _labels(service, [0.55, 0.65, 0.75, 0.85])
    for row, decision in zip(rows, ("reject", "reject", "accept", "accept"), strict=True):
        _vote(service, row.id, decision)
    for at, row in enumerate(rows, 1):  # suggested, answered and decided at 100, 200, 300, 400 seconds
        with service.database.writing() as connection:
            mine = schema.suggestion.c.id == row.id
            times = {"decided": 100.0 * at, "created": 100.0 * at}
            connection.execute(sa.update(schema.suggestion).where(mine).values(times))
            asked = schema.request.c.id == row.request_id
            times = {"created": 100.0 * at - 10 * at, "finished": 100.0 * at}
            connection.execute(sa.update(schema.request).where(asked).values(times))
    client = TestClient(shielded(create_app(service.settings, service.database)), base_url="http://localhost:8008")

    def told(**window):
        (one,) = client.get("/api/statistics", params=window).json()
        bins = [(found["low"], found["accepted"]) for found in one["calibration"]]
        taken = one["latency"]
        return one["acceptance"]["decided"], one["acceptance"]["accepted"], bins, (taken["p50"], taken["answers"])

    assert told() == (4, 2, [(0.5, 0), (0.6, 0), (0.7, 1), (0.8, 1)], (30.0, 4))
    assert told(since=300) == (2, 2, [(0.7, 1), (0.8, 1)], (40.0, 2))
    assert told(until=300) == (2, 0, [(0.5, 0), (0.6, 0)], (20.0, 2))
    assert told(since=200, until=400) == (2, 1, [(0.6, 0), (0.7, 1)], (30.0, 2))
    (one,) = client.get("/api/statistics", params={"since": 200, "until": 400}).json()
    assert one["states"] == {"rejected": 1, "accepted": 1}
    assert one["days"] == [{"day": "1970-01-01", "accepted": 1, "rejected": 1}]
    assert told(since=1000) == (0, 0, [], (None, 0))
    assert client.get("/api/statistics", params={"since": "nan"}).status_code == 422


def test_verdicts_go_to_their_provider_in_order_and_once_as_it_sees_them(made, monkeypatch):
    servant = Servant()
    own = {"said": ProviderSettings("said", "said", feedback=servant.url)}
    service = made(providers=own, webhooks={"hook": servant.url})
    monkeypatch.setenv("ISC_SERVE_WEBHOOK_SECRET", "key")
    number = _labels(service, [0.8])[0].id
    for decision in ("accept", "reject", "undo"):
        _vote(service, number, decision)
    urls = addresses(service.settings)
    assert urls.keys() == {"webhook:hook", "feedback:said"}

    def dying(url: str, message: Message) -> None:
        post(url, message)
        raise KeyboardInterrupt  # killed after the delivery, before it is noted

    with pytest.raises(KeyboardInterrupt):
        deliver(service.database, {"feedback:said": servant.url}, dying, holder="a")
    assert deliver(service.database, {"feedback:said": servant.url}, post, holder="b") == 0  # the dead one's lease
    assert deliver(service.database, {"feedback:said": servant.url}, post, holder="a") == 3
    seen = [json.loads(body) for _, body in servant.seen]
    assert len(seen) == 4
    assert [one["state"] for one in seen] == ["accepted", "accepted", "rejected", "unreviewed"]
    known = {one["id"]: one["state"] for one in seen}
    assert list(known.values()) == [
        "accepted",
        "rejected",
        "unreviewed",
    ]  # a receiver that knows the ids sees each once
    headers = servant.seen[0][0]
    assert headers["Idempotency-Key"] == seen[0]["id"]
    assert headers["X-Signature-256"].startswith("sha256=")
    assert deliver(service.database, urls, post, holder="a") == 4  # the webhook's own copy: one answer, three decisions
    servant.server.shutdown()


def test_a_receiver_that_is_down_delays_its_own_messages_alone_and_order_stays(made):
    service = made(webhooks={"down": "http://a", "up": "http://b"})
    number = _labels(service, [0.8])[0].id
    _vote(service, number, "accept")
    got = []

    def send(url, message):
        if url == "http://a":
            raise NotDelivered("HTTP 500")
        got.append(message.body["event"])

    assert deliver(service.database, addresses(service.settings), send, holder="a") == 2
    assert got == ["answered", "decided"]
    rows = service.rows(
        sa.select(schema.outbox).where(schema.outbox.c.destination == "webhook:down").order_by(schema.outbox.c.id)
    )
    assert [row.attempts for row in rows] == [1, 0]  # the second never overtakes the first

    def refuse(url, message):
        raise NotDelivered("HTTP 404", refused=True)

    for _ in range(ATTEMPTS):
        with service.database.writing() as connection:
            connection.execute(sa.update(schema.outbox).values(run_after=0.0))
        deliver(service.database, {"webhook:down": "http://a"}, refuse, holder="a")
    states = {row.id: row.state for row in service.rows(sa.select(schema.outbox))}
    assert states[rows[0].id] == "dead"


@pytest.mark.slow
def test_what_was_decided_is_exported_for_the_verbs(database_url, tmp_path, capsys, monkeypatch):
    service = Service.made(settings_in(tmp_path, database_url))
    monkeypatch.setenv("ISC_SERVE_DATABASE", database_url)
    with pytest.raises(InputError, match="nothing was decided"):
        write_labelled(service.database, service.settings, tmp_path / "none")
    service.take(*PHOTOS[:4])
    service.worker.drain()
    service.take(*(edited(one) for one in PHOTOS[:4]))
    service.worker.drain()
    joined = sa.select(schema.suggestion).join(schema.provider, schema.provider.c.id == schema.suggestion.c.provider_id)
    copies = service.rows(joined.where(schema.provider.c.name == "copy"))
    assert len(copies) == 4
    for row in copies[:3]:
        _vote(service, row.id, "accept")
    _vote(service, copies[3].id, "reject")
    output = tmp_path / "out"
    main(["feedback", "export", "--data", str(service.settings.data), str(output)])
    assert "4 decisions, of them 3 copies and 1 other pairs" in capsys.readouterr().out
    predictions = read_predictions(output / "predictions.csv")
    truth = read_ground_truth(output / "ground_truth.csv")
    assert int(truth.correct(predictions).sum()) == 3
    assert read_made(output).scores == "probability"
    queries = read_descriptors(output / "queries.h5")
    assert set(queries.ids) == set(predictions.query_ids)
    assert {one.stem for one in (output / "photos").iterdir()} >= set(queries.ids)
    assert (output / "photos" / f"{queries.ids[0]}.jpg").read_bytes()
    lines = [json.loads(line) for line in (output / "decisions.jsonl").read_text().splitlines()]
    assert [one["state"] for one in lines].count("accepted") == 3
    service.close()


@pytest.mark.slow
def test_500_verdicts_calibrate_a_provider_whose_scores_are_too_high(tmp_path):
    """Simulated verdicts: the provider says p, the truth is p³. The fit on 500 halves the error on 2,000 others."""
    from isc.evaluate.calibration.fit import LabelledRun, fit

    service = Service.made(settings_in(tmp_path, review={Kind.copy: Review(show=0, withhold=0, acceptance=0)}))
    rng = np.random.default_rng(3)
    scores = rng.random(500) ** 0.5
    number = register(service.database, {"copy": Said()})["copy"]
    take_in(service.database, [NewImage(f"{at:064x}", 1, "x") for at in range(501)])
    for one, score in zip(lease(service.database, [number], limit=500, seconds=600), scores, strict=True):
        match = CopyMatch(
            other=1 if one.image_id > 1 else 2, distance=1 - score, probability=float(score), verdict="perhaps"
        )
        assert store(service.database, service.settings, one, "copy", [match])
    decisions = {}
    for row in service.rows(sa.select(schema.suggestion.c.id, schema.suggestion.c.score)):
        decisions[row.id] = Decision.accept if rng.random() < row.score**3 else Decision.reject
    cast(service.database, service.settings, Reviewer("ann"), decisions)
    write_labelled(service.database, service.settings, tmp_path / "out")
    predictions = read_predictions(tmp_path / "out" / "predictions.csv")
    made = read_made(tmp_path / "out")
    truth = read_ground_truth(tmp_path / "out" / "ground_truth.csv")
    fitted = fit([LabelledRun("votes", predictions, truth, made)], precision=0.9)
    fresh = rng.random(2000).astype(np.float32) ** 0.5
    before = np.abs(fresh - fresh**3).mean()
    after = np.abs(fitted.fitted(fresh, None, None) - fresh**3).mean()
    assert before > 0.2
    assert after < before / 4
    service.close()


def test_two_reviewers_at_once_and_one_outbox_message_for_each_state(made):
    service = made(webhooks={"hook": "http://x"})
    number = _labels(service, [0.8])[0].id
    threads = [threading.Thread(target=_vote, args=(service, number, "accept", f"r{at}")) for at in range(5)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    told = [row.body["event"] for row in service.rows(sa.select(schema.outbox))]
    assert told.count("decided") == 1
    assert len(service.rows(sa.select(schema.vote))) == 5
