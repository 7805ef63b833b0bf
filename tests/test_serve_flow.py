"""From an upload to suggestions, with the real model and real photos: copies, hashes, numbers, and what is withheld."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import sqlalchemy as sa

from isc.find.index import Index
from isc.photos.decode import read_image
from isc.serve import schema
from isc.serve.forgetting import delete_image
from isc.serve.importing import import_path
from isc.serve.kinds import ImageState, Kind, RequestState, SuggestionState
from isc.serve.pdq import pdq
from isc.serve.providers.hashes import HashTable
from isc.serve.settings import Review
from tests.serving import PHOTOS, SAMPLE, Service, edited, settings_in


@pytest.fixture
def service(tmp_path):
    one = Service.made(settings_in(tmp_path))
    yield one
    one.close()


def _copies(service):
    columns = (
        schema.copy_match.c.image_id,
        schema.copy_match.c.other_id,
        schema.suggestion.c.state,
        schema.suggestion.c.why,
    )
    joined = schema.copy_match.join(
        schema.suggestion,
        (schema.suggestion.c.result_id == schema.copy_match.c.id) & (schema.suggestion.c.kind == Kind.copy),
    )
    named = joined.join(schema.provider, schema.provider.c.id == schema.suggestion.c.provider_id)
    return service.rows(sa.select(*columns).select_from(named).where(schema.provider.c.name == "copy"))


@pytest.mark.slow
def test_a_cropped_mirrored_copy_is_found_where_it_was_cropped(service):
    known = service.take(*PHOTOS[:6])
    service.worker.drain()
    (copy,) = service.take(edited(PHOTOS[3]))
    service.worker.drain()
    match = service.rows(sa.select(schema.copy_match))[0]
    assert (match.image_id, match.other_id, match.verdict, match.mirrored) == (copy, known[3], "copy", True)
    assert match.probability > 0.9
    left, top = np.min(match.other_region, axis=0)
    assert left == pytest.approx(0.15, abs=0.02)
    assert top == pytest.approx(0.15, abs=0.02)
    states = {row.state for row in service.rows(sa.select(schema.request.c.state))}
    assert states == {RequestState.done}
    columns = (schema.number.c.classifier, schema.number.c.value)
    numbers = dict(map(tuple, service.rows(sa.select(*columns).where(schema.number.c.image_id == copy))))
    assert numbers.keys() == {"sharpness", "contrast", "brightness", "plainness", "megapixels", "pdq_quality"}
    assert numbers["plainness"] < 0.5


def test_a_picture_that_is_there_in_many_sizes_is_found_in_each(service, tmp_path):
    whole = read_image(PHOTOS[3])
    sizes = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(sizes):
        cv2.imwrite(str(path), cv2.resize(whole, None, fx=1 - number / 10, fy=1 - number / 10)[:, :, ::-1])
    known = service.take(*sizes)
    service.worker.drain()
    (copy,) = service.take(edited(PHOTOS[3]))
    service.worker.drain()
    found = service.rows(sa.select(schema.copy_match).where(schema.copy_match.c.image_id == copy))
    told = {row.other_id: row for row in found if "inliers" in row.evidence}
    assert told.keys() == set(known)
    assert min(row.probability for row in told.values()) > 0.9
    assert {row.evidence.get("version_of") for row in told.values()} <= {None, *known}
    assert sum("version_of" not in row.evidence for row in told.values()) == 1


def test_a_negative_is_found(service, tmp_path):
    known = service.take(*PHOTOS[:6])
    service.worker.drain()
    cv2.imwrite(str(tmp_path / "negative.jpg"), 255 - read_image(PHOTOS[3])[:, :, ::-1])
    (copy,) = service.take(tmp_path / "negative.jpg")
    service.worker.drain()
    match = service.rows(sa.select(schema.copy_match))[0]
    assert (match.image_id, match.other_id, match.verdict) == (copy, known[3], "copy")


def test_copies_that_arrive_together_make_one_suggestion(service):
    service.take(PHOTOS[0], edited(PHOTOS[0], mirror=False))
    service.worker.drain()
    states = sorted(row.state for row in _copies(service))
    assert states == [SuggestionState.hidden, SuggestionState.unreviewed]


def test_a_deleted_picture_matches_nothing_more(service):
    (known,) = service.take(PHOTOS[0])
    service.worker.drain()
    assert delete_image(service.database, service.files, known)
    service.take(edited(PHOTOS[0]))
    service.worker.drain()
    assert _copies(service) == []
    assert len(service.worker.context.index) == 1


@pytest.mark.slow
def test_the_negative_bank_and_floods_withhold(tmp_path):
    rules = {Kind.copy: Review(flood=1)}
    service = Service.made(replace(settings_in(tmp_path), review=rules))
    negative, flooded = service.take(PHOTOS[0], PHOTOS[1])
    service.worker.drain()
    with service.database.writing() as connection:
        named = sa.update(schema.image).where(schema.image.c.id == negative)
        connection.execute(named.values(state=ImageState.negative))
    service.take(edited(PHOTOS[0]))
    service.worker.drain()
    service.take(edited(PHOTOS[1]))
    service.worker.drain()
    service.take(edited(PHOTOS[1], crop=0.1))
    service.worker.drain()
    found = [row for row in _copies(service) if row.other_id in (negative, flooded)]
    assert [row.state for row in found][:2] == [SuggestionState.withheld, SuggestionState.unreviewed]
    assert found[0].why == "negative"
    assert found[2].state == SuggestionState.withheld
    assert found[2].why == "flooded"
    state = service.rows(sa.select(schema.image.c.state).where(schema.image.c.id == flooded))[0].state
    assert state == ImageState.quarantined
    service.close()


def test_a_picture_that_cannot_be_read_is_said_and_hurts_no_other(service):
    broken = PHOTOS[0].read_bytes()[:2000]
    bad, good = service.take(broken, PHOTOS[1])
    service.worker.drain()
    states = {row.id: (row.state, row.reason) for row in service.rows(sa.select(schema.image))}
    assert states[bad][0] == ImageState.unreadable
    assert "cannot be decoded" in states[bad][1]
    assert states[good] == (ImageState.active, None)
    asked = service.rows(sa.select(schema.request.c.state).where(schema.request.c.image_id == bad))
    assert {row.state for row in asked} == {RequestState.dead}


@pytest.mark.slow
def test_a_bomb_is_refused_before_it_is_decoded_and_a_slow_one_is_killed(tmp_path):
    settings = settings_in(tmp_path)
    service = Service.made(replace(settings, caps=replace(settings.caps, pixels=1_000_000)))
    black = cv2.imencode(".png", np.zeros((1200, 1200, 3), np.uint8))[1].tobytes()
    (bomb,) = service.take(black)
    service.worker.drain()
    row = service.rows(sa.select(schema.image).where(schema.image.c.id == bomb))[0]
    assert "expected at most 1,000,000" in row.reason
    service.close()
    slow = Service.made(replace(settings_in(tmp_path / "slow"), caps=replace(settings.caps, decode_seconds=0.0001)))
    (one,) = slow.take(PHOTOS[0])
    slow.worker.drain()
    row = slow.rows(sa.select(schema.image).where(schema.image.c.id == one))[0]
    assert (row.reason, row.reason_values) == ("slow_to_decode", {"seconds": 0.0001})
    slow.close()


@pytest.mark.slow
def test_a_folder_and_an_index_are_imported_and_their_files_stay(service, tmp_path):
    weights = service.worker.context.weights
    assert import_path(service.database, SAMPLE, weights=weights) == len(PHOTOS)
    assert import_path(service.database, SAMPLE, weights=weights) == 0
    paths = {row.path for row in service.rows(sa.select(schema.image.c.path))}
    assert str(PHOTOS[0]) in paths
    other = Service.made(settings_in(tmp_path / "other"))
    index = Index(tmp_path / "made.index")
    index.add(*PHOTOS[:5])
    _ = other.worker
    assert import_path(other.database, tmp_path / "made.index", weights=weights) == 5
    assert len(other.rows(sa.select(schema.descriptor))) == 5
    other.take(edited(PHOTOS[2]))
    other.worker.context.index.follow()
    assert len(other.worker.context.index) == 5
    other.close()


@pytest.mark.slow
def test_a_new_version_asks_again_about_what_is_open_and_results_keep_their_version(service, monkeypatch):
    from isc.serve.providers.hashes import PdqProvider

    service.take(PHOTOS[0], PHOTOS[0].read_bytes() + b" ", PHOTOS[1])
    service.worker.drain()
    before = len(service.rows(sa.select(schema.copy_match)))
    assert before > 0
    monkeypatch.setattr(PdqProvider, "version", "pdq-next")
    next_worker = Service(service.settings, service.database)
    next_worker.worker.drain()
    versions = [row.version for row in service.rows(
        sa.select(schema.provider.c.version).join(schema.request, schema.request.c.provider_id == schema.provider.c.id)
        .where(schema.provider.c.name == "pdq"))]  # fmt: skip
    assert versions.count("pdq-within-31") == 3
    assert versions.count("pdq-next") == 1
    next_worker._worker.context.examiner.reader.close()


def test_pdq_is_that_of_the_authors():
    pdqhash = pytest.importorskip("pdqhash", reason="needs pdqhash, which has to be compiled")
    for photo in PHOTOS[:40]:
        pixels = read_image(photo)
        bits, quality = pdqhash.compute(pixels)
        assert pdq(pixels) == (np.packbits(bits).tobytes().hex(), quality), photo.name


def test_the_table_of_hashes_finds_what_a_slow_search_finds():
    rng = np.random.default_rng(1)
    hashes = [rng.bytes(32) for _ in range(3000)]
    hashes[7] = (int.from_bytes(hashes[0]) ^ 0b10101).to_bytes(32)
    table = HashTable()
    table.add([(number, one.hex()) for number, one in enumerate(hashes, 1)])
    slow = [
        ((int.from_bytes(one) ^ int.from_bytes(hashes[0])).bit_count(), number) for number, one in enumerate(hashes, 1)
    ]
    assert table.near(hashes[0].hex(), within=110) == sorted(one for one in slow if one[0] <= 110)
    assert table.near(hashes[0].hex(), within=31) == [(0, 1), (3, 8)]
