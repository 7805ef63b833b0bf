"""Captions: three questions, agreement, and captions by people that no provider overwrites."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import sqlalchemy as sa

from isc.errors import InputError
from isc.serve import schema
from isc.serve.agreement import agreement_of, agreements, cohen, fleiss
from isc.serve.captions import Written, rate, write_caption, written_captions
from isc.serve.kinds import Decision, Question
from isc.serve.labelled import write_labelled
from isc.serve.requests import ask, lease, register
from isc.serve.results import Caption
from isc.serve.storing import store
from isc.serve.votes import Reviewer
from tests.serving import PHOTOS, Service, settings_in
from tests.test_serve_api import _problem, client_of

YES, NO, UNSURE = Decision.accept, Decision.reject, Decision.unsure


class Words:
    """A provider as the registry sees it."""

    version = "1"
    kinds = frozenset(("caption",))


@pytest.fixture
def service(database_url, tmp_path):
    one = Service.made(settings_in(tmp_path, database_url))
    one.take(PHOTOS[0], PHOTOS[1])
    yield one
    one.close()


def _said(service, text="a harbour", image=1, version="1", language="en"):
    """Let the provider say a caption about a picture, and return its suggestion."""
    words = Words()
    words.version = version
    number = register(service.database, {"words": words})["words"]
    with service.database.writing() as connection:
        ask(connection, [image], [number], priority=1)
    (held,) = lease(service.database, [number], limit=1, seconds=60)
    assert store(service.database, service.settings, held, "words", [Caption(text, language, 0.7)])
    return service.rows(sa.select(schema.suggestion).order_by(schema.suggestion.c.id.desc()))[0]


def _rate(service, number, who="ann", **answers):
    said = {Question(name): answer for name, answer in answers.items()}
    return rate(service.database, service.settings, Reviewer(who), number, said)


def test_answers_are_a_record_and_the_first_question_is_the_vote(service):
    number = _said(service).id
    assert _rate(service, number, helpful=YES).state == "unreviewed"
    assert _rate(service, number, right=YES, helpful=NO).state == "accepted"
    assert not _rate(service, number, right=YES, helpful=NO).new
    assert _rate(service, number, right=NO).state == "rejected"
    rows = service.rows(sa.select(schema.rating).order_by(schema.rating.c.id))
    said = [(row.question, row.number, row.answer) for row in rows]
    assert said == [("helpful", 1, "accept"), ("right", 1, "accept"), ("helpful", 2, "reject"), ("right", 2, "reject")]
    assert [row.decision for row in service.rows(sa.select(schema.vote))] == ["accept", "reject"]


def test_cohens_and_fleiss_kappa_are_those_of_worked_examples():
    # Cohen: 20 times both yes, 5 and 10 times one of them, 15 times both no: (0.7 - 0.5) / (1 - 0.5)
    first, second = [0] * 25 + [1] * 25, [0] * 20 + [1] * 5 + [0] * 10 + [1] * 15
    assert cohen(first, second) == pytest.approx(0.4)
    assert cohen([0, 0], [0, 0]) is None
    # Fleiss with two raters and every item agreed on but one: P = 3/4, shares 5/8 and 3/8
    counts = np.array([[2, 0, 0], [2, 0, 0], [0, 2, 0], [1, 1, 0]])
    chance = (5 / 8) ** 2 + (3 / 8) ** 2
    assert fleiss(counts) == pytest.approx((0.75 - chance) / (1 - chance))
    # items with more raters: of three yes and one no, half of the pairs agree
    assert fleiss(np.array([[3, 1, 0], [0, 2, 0]])) == pytest.approx((0.75 - 0.5) / 0.5)
    assert agreement_of([{"a": YES, "b": YES}]) == ("cohen", None, None, None)


def test_agreement_has_an_interval_and_counts_those_that_two_answered(service):
    numbers = [_said(service, f"text {at}", version=str(at)).id for at in range(3)]
    assert len(numbers) == 3
    rng = np.random.default_rng(1)
    items = [{"a": one, "b": one if rng.random() < 0.8 else NO} for one in ([YES] * 20 + [NO] * 20)]
    statistic, kappa, low, high = agreement_of(items)
    assert statistic == "cohen"
    assert -1 <= low < kappa < high <= 1
    three = agreement_of([{**one, "c": YES} for one in items])
    assert three[0] == "fleiss"
    assert three[1] < kappa
    for who in ("ann", "bob"):
        _rate(service, numbers[2], who, right=YES, helpful=UNSURE)
    _rate(service, numbers[1], right=NO)
    with service.database.reading() as connection:
        found = {(one.version, one.question): one for one in agreements(connection)}
    assert found["2", Question.right].captions == 1
    assert (found["2", Question.right].yes.accepted, found["2", Question.helpful].unsure) == (2, 2)
    assert (found["1", Question.right].captions, found["1", Question.right].kappa) == (0, None)


def test_a_caption_that_a_person_wrote_is_never_overwritten_by_a_provider(service):
    assert _said(service).state == "unreviewed"
    write_caption(service.database, "ann", 1, "  The old harbour of Genoa,\n at night ", language="en")
    later = _said(service, "a boat", version="2")
    assert (later.state, later.why) == ("withheld", "written")
    assert _said(service, "ein Boot", version="3", language="de").state == "unreviewed"
    with service.database.reading() as connection:
        (kept,) = written_captions(connection, image_id=1)
    assert (kept.text, kept.writer) == ("The old harbour of Genoa, at night", "ann")
    write_caption(service.database, "bob", 1, "Genoa's harbour", language="en")
    assert len(service.rows(sa.select(schema.written_caption))) == 2  # the first stays in the record
    with pytest.raises(InputError, match="not blank"):
        Written("a", " ", None, "ann", 0.0)
    with pytest.raises(LookupError):
        write_caption(service.database, "ann", 77, "text")


def test_corrections_are_exported_as_pairs_of_picture_and_caption(service, tmp_path):
    write_caption(service.database, "ann", 2, 'Ships, "moored"', language="en")
    write_caption(service.database, "ann", 2, 'Three ships, "moored"', language="en")
    said = write_labelled(service.database, service.settings, tmp_path / "out")
    assert said.endswith("1 captions that people wrote")
    with (tmp_path / "out" / "captions.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    digest = service.rows(sa.select(schema.image.c.sha256).where(schema.image.c.id == 2))[0].sha256
    assert row == {"image_id": digest, "caption": 'Three ships, "moored"', "language": "en", "writer": "ann"}


def test_the_api_rates_corrects_and_says_how_far_people_agree(service):
    number = _said(service).id
    client = client_of(service)
    rating = f"/api/suggestions/{number}/rating"
    assert client.put(rating, json={"right": "accept", "encyclopaedic": "reject"}).json()["state"] == "accepted"
    assert not client.put(rating, json={"right": "accept"}).json()["new"]
    assert client.delete(rating).json()["state"] == "unreviewed"
    assert "no answer" in _problem(client.put(rating, json={}), 422)
    _problem(client.put(rating, json={"right": "undo"}), 422)
    _problem(client.put("/api/suggestions/99/rating", json={"right": "accept"}), 404)
    written = client.post("/api/images/1/captions", json={"text": "A harbour", "language": "en"})
    assert (written.status_code, written.json()["writer"]) == (201, "local")
    assert client.get("/api/images/1/results").json()["written"][0]["text"] == "A harbour"
    _problem(client.post("/api/images/1/captions", json={"text": " "}), 422)
    _problem(client.post("/api/images/99/captions", json={"text": "x"}), 404)
    assert client.get("/api/agreement").json() == []
    client.put(rating, json={"right": "accept"})
    assert client.get("/api/agreement").json()[0]["yes"]["accepted"] == 1
    assert '"ratings": {"right": {"local": "accept"}}' in client.get("/api/export").text
    assert "How far reviewers agree" in client.get("/providers").text


def test_the_page_asks_three_questions_keeps_a_better_text_and_goes_back(service):
    number = _said(service).id
    client = client_of(service)
    page = client.get("/captions").text
    assert page.count("<fieldset") == 3
    assert "a harbour" in page
    form = {"right": "reject", "helpful": "accept", "encyclopaedic": "unsure", "text": "A lighthouse"}
    following = client.post(f"/ui/captions/{number}", data=form).text
    assert "No caption waits" in following
    state = service.rows(sa.select(schema.suggestion.c.state))[0].state
    assert state == "rejected"
    again = client.post(f"/ui/captions/{number}/undo").text
    assert again.count(" checked") == 3
    assert "Written by local" in again
    assert "A lighthouse" in again
    client.post(f"/ui/captions/{number}", data={"right": "accept", "text": "a harbour"})
    assert len(service.rows(sa.select(schema.written_caption))) == 1  # an unchanged text is no correction
