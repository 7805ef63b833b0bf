"""Items of a shop in the service: the provider, the queue, the API, the page and what is exported."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import sqlalchemy as sa

from isc.config.train import ModelConfig
from isc.errors import InputError
from isc.model.files import MODEL_FILE, save_model
from isc.model.load import initial_model
from isc.photos.decode import read_image
from isc.products.catalogue import read_catalogue, read_labelled
from isc.products.evidence import NAMES
from isc.products.fusion import FILE, ProductFusion, save_fusion
from isc.serve import schema
from isc.serve.feedback import shown_items
from isc.serve.kinds import Decision, Kind, Verification
from isc.serve.labelled import write_labelled
from isc.serve.picture import Picture
from isc.serve.providers.registry import build
from isc.serve.requests import ask, lease, register
from isc.serve.results import Nonsense, Product, ShopPicture
from isc.serve.settings import ProviderSettings, Review, read_settings
from isc.serve.statistics import figures
from isc.serve.storing import store
from isc.serve.votes import Reviewer, cast
from tests.serving import PHOTOS, Service, settings_in
from tests.test_serve_api import _problem, client_of

JPEG = cv2.imencode(".jpg", np.full((40, 30, 3), 200, np.uint8))[1].tobytes()
SOLD = 3  # items of the shop, each a photo of the sample
# none of the shop, below a cosine of 0.99: descriptors of an untrained network lie close together
SHARP = ProductFusion(tuple(400.0 if name == "best" else 0.0 for name in NAMES), none=396.0, said=0.0)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop of three items, each with a photo of the sample as its picture."""
    folder = tmp_path_factory.mktemp("shop")
    rows = ["item_id,title,kind"]
    for number, photo in enumerate(PHOTOS[:SOLD]):
        (folder / f"I{number}.jpg").write_bytes(photo.read_bytes())
        rows.append(f'I{number},"Item {number}, <b>framed</b>",Print')
    (folder / "items.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of an untrained network: it knows a picture again, and little else."""
    folder = tmp_path_factory.mktemp("run")
    model = initial_model(ModelConfig(weights="none", image_size=64, dim=32)).eval()
    save_model(folder / MODEL_FILE, model, {})
    save_fusion(folder / FILE, SHARP)
    return folder


def _options(shop, run, **more):
    return {"model": str(run), "catalogue": str(shop), **more}


def _service(tmp_path, shop, run, **more):
    chosen = {"shop": ProviderSettings("shop", "product", _options(shop, run, **more))}
    return Service.made(settings_in(tmp_path, None, providers=chosen))


class Said:
    """A provider as the registry sees it."""

    version = "1"
    kinds = frozenset(("product",))


def product(item="I1", probability=0.8, **more):
    corners = ((0.1, 0.1), (0.9, 0.1), (0.9, 0.6), (0.1, 0.6))
    more = {"region": corners, "evidence": {"next_title": "Green Box", "next_probability": 0.15, "none": 0.05}, **more}
    return Product(item, f"Title of {item}", probability, ShopPicture(f"{item}.jpg", JPEG), "Box", **more)


def say(service, *results, name="shop", image=1):
    """Let a provider say items about a picture, and return the rows of the suggestions."""
    number = register(service.database, {**(service.worker._providers if name != "shop" else {}), name: Said()})[name]
    with service.database.writing() as connection:
        ask(connection, [image], [number], priority=1)
    (held,) = [one for one in lease(service.database, [number], limit=9, seconds=60) if one.image_id == image]
    assert store(service.database, service.settings, held, name, results)
    return service.rows(
        sa.select(schema.suggestion)
        .where(schema.suggestion.c.provider_id == number, schema.suggestion.c.image_id == image)
        .order_by(schema.suggestion.c.id)
    )


@pytest.fixture
def service(tmp_path):
    """A service with three pictures that nobody has been asked about."""
    one = Service.made(settings_in(tmp_path, None, providers={}))
    one.take(*PHOTOS[:3])
    yield one
    one.close()


@pytest.mark.slow
def test_the_provider_finds_the_items_that_pictures_show_and_nothing_in_others(tmp_path, shop, run):
    service = _service(tmp_path, shop, run)
    images = service.take(*PHOTOS[:SOLD], PHOTOS[0].read_bytes()[:900], PHOTOS[9])
    service.worker.drain()
    rows = service.rows(sa.select(schema.product).order_by(schema.product.c.image_id))
    found = {row.image_id: row for row in rows}
    assert {one: found[one].item_id for one in found} == dict(zip(images, ("I0", "I1", "I2"), strict=False))
    first = found[images[0]]
    assert (first.title, first.item_kind, first.picture) == ("Item 0, <b>framed</b>", "Print", "I0.jpg")
    assert first.region == [[0, 0], [1, 0], [1, 1], [0, 1]]
    assert first.evidence["cosine"] > 0.99
    assert first.evidence["next_item"] in ("I1", "I2")
    assert first.probability > 0.9
    assert first.probability + first.evidence["next_probability"] + first.evidence["none"] <= 1.000001
    states = {row.image_id: row.state for row in service.rows(sa.select(schema.request))}
    assert states[images[3]] == "dead"
    assert {states[one] for one in images if one != images[3]} == {"done"}
    service.close()


class Decoded:
    """An examiner without a process of its own."""

    def examine(self, _, path):
        return SimpleNamespace(pixels=read_image(path))


@pytest.mark.slow
def test_none_of_the_shop_makes_no_suggestion_and_count_allows_several(tmp_path, shop, run):
    (tmp_path / MODEL_FILE).write_bytes((run / MODEL_FILE).read_bytes())
    picture = Picture(1, "a" * 64, PHOTOS[0], Decoded())

    def said(fusion, **more):
        save_fusion(tmp_path / FILE, fusion)
        return build(ProviderSettings("shop", "product", _options(shop, tmp_path, **more)), None).describe([picture])

    assert said(ProductFusion(SHARP.weights, none=1_000.0, said=0.0)) == [[]]
    alike = ProductFusion((0.0,) * len(NAMES), none=-1.0, said=0.0)
    assert len(said(alike)[0]) == 1
    ((first, second),) = said(alike, count=2)
    assert first.evidence["next_item"] == second.item_id != first.item_id
    assert len(said(alike, count=9)[0]) == SOLD


def test_the_version_follows_the_weights_the_fusion_and_the_shop(tmp_path, shop, run):
    service = _service(tmp_path, shop, run)
    context = service.worker.context

    def version(folder, made):
        return build(ProviderSettings("shop", "product", _options(folder, made)), context).version

    assert version(shop, run) == version(shop / "items.csv", run)
    copies = []
    for name in ("shop", "run"):
        source = {"shop": shop, "run": run}[name]
        copy = tmp_path / name
        copy.mkdir()
        for path in source.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        copies.append(copy)
    other_shop, other_run = copies
    assert version(other_shop, other_run) == version(shop, run)
    seen = {version(shop, run)}
    (other_shop / "I2.jpg").write_bytes(PHOTOS[7].read_bytes())
    seen.add(version(other_shop, run))
    save_fusion(other_run / FILE, ProductFusion(SHARP.weights, none=395.0, said=0.0))
    seen.add(version(shop, other_run))
    save_model(other_run / MODEL_FILE, initial_model(ModelConfig(weights="none", image_size=64, dim=32), seed=1), {})
    seen.add(version(shop, other_run))
    assert len(seen) == 4
    service.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"count": 0}, "count=0; expected at least 1"),
        ({"model": "gone"}, "gone is not there; expected the run folder"),
        ({"model": "isc_small"}, "is not there; expected the run folder"),
        ({"catalogue": "gone"}, "gone is not there"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, shop, run, change, says):
    service = Service.made(settings_in(tmp_path, None, providers={}))
    with pytest.raises(InputError, match=says):
        build(ProviderSettings("shop", "product", {**_options(shop, run), **change}), service.worker.context)
    service.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"item": ""}, {"item": "x" * 201}, {"probability": 1.5}, {"probability": float("nan")},
        {"picture": ("", JPEG)}, {"picture": ("a.jpg", b"<svg>")}, {"picture": ("a.jpg", JPEG + bytes(500_000))},
    ],
)  # fmt: skip
def test_a_result_that_cannot_be_is_refused(wrong):
    picture = wrong.pop("picture", None)
    with pytest.raises(Nonsense):
        product(**wrong) if picture is None else ShopPicture(*picture)


def test_a_picture_of_the_shop_is_kept_once_and_served_to_reviewers_alone(service):
    say(service, product(), product("I2", 0.7))
    say(service, product(), image=2)
    assert len(service.rows(sa.select(schema.shop_picture))) == 1
    client = client_of(service)
    (one, _) = client.get("/api/images/1/results").json()["products"]
    answer = client.get(one["result"]["preview"])
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, JPEG, "image/jpeg")
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    _problem(client.get("/pictures/shop/99.jpg"), 404)
    _problem(client.get("/pictures/shop/..%2f..%2fitems.csv"), 404)


def test_products_are_suggested_voted_on_counted_and_said_to_webhooks(service):
    sure, unsure = say(service, product(probability=0.9), product("I2", 0.05))
    assert (sure.state, unsure.state) == ("unreviewed", "hidden")
    client = client_of(service)
    (item,) = client.get("/api/suggestions", params={"kind": "product"}).json()["items"]
    assert item["product"]["title"] == "Title of I1"
    assert item["product"]["region"] == [[0.1, 0.1], [0.9, 0.1], [0.9, 0.6], [0.1, 0.6]]
    assert item["product"]["evidence"]["next_title"] == "Green Box"
    assert item["copy_match"] is None
    vote = f"/api/suggestions/{item['id']}/vote"
    assert client.put(vote, json={"decision": "accept"}).json()["state"] == "accepted"
    with service.database.reading() as connection:
        (figure,) = figures(connection)
    assert (figure.kind, figure.acceptance.accepted) == ("product", 1)
    said = json.loads(client.get("/api/export").text)
    assert (said["kind"], said["result"]["item_id"], said["result"]["picture"]) == ("product", "I1", "I1.jpg")
    assert "picture_id" not in said["result"]
    assert 'kind="product"' in client.get("/metrics").text
    assert client.delete(vote).json()["state"] == "unreviewed"


def test_rules_and_thresholds_of_products_are_settings(tmp_path, shop, run):
    path = tmp_path / "serve.toml"
    table = f'use = "product"\nmodel = "{run}"\ncatalogue = "{shop}"\nwithhold = 0.6\n'
    path.write_text(f'[review.product]\nverified_by = "two"\nshow = 0.2\n[providers.shop]\n{table}')
    found = read_settings(path, data=tmp_path / "data")
    assert found.rules(Kind.product).verified_by is Verification.two
    assert found.thresholds("shop", Kind.product) == (0.2, 0.6)
    assert build(found.providers["shop"], None).kinds == {Kind.product}
    rules = {Kind.product: Review(verified_by=Verification.two, show=0.2, withhold=0.5, audit=0)}
    service = Service.made(settings_in(tmp_path, None, providers={}, review=rules))
    service.take(PHOTOS[0])
    rows = say(service, product("I0", 0.1), product("I1", 0.4), product("I2", 0.9))
    assert [row.state for row in rows] == ["hidden", "withheld", "unreviewed"]
    states = [
        cast(service.database, service.settings, Reviewer(who), {rows[2].id: Decision.accept})[0].state
        for who in ("ann", "bob")
    ]
    assert states == ["unreviewed", "accepted"]
    service.close()


def test_accepted_items_are_exported_as_a_training_takes_them(service, tmp_path, shop):
    first, second = say(service, product("I0", 0.9), product("I1", 0.8))
    (third,) = say(service, product("I2", 0.9), image=2)
    (fourth,) = say(service, product("I2", 0.9), image=3)
    ann = Reviewer("ann")
    for number, decision in ((second.id, Decision.accept), (first.id, Decision.accept), (third.id, Decision.accept)):
        cast(service.database, service.settings, ann, {number: decision})
    cast(service.database, service.settings, ann, {fourth.id: Decision.reject})
    assert {one.item_id for one in shown_items(service.database)} == {"I0", "I2"}  # of two, the later decision
    said = write_labelled(service.database, service.settings, tmp_path / "out")
    assert said.endswith("2 photos of items of a shop")
    with (tmp_path / "out" / "products.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0].keys() == {"photo_id", "item_id", "split"}
    digests = {row.id: row.sha256 for row in service.rows(sa.select(schema.image))}
    assert {row["photo_id"]: row["item_id"] for row in rows} == {digests[1]: "I0", digests[2]: "I2"}
    assert len(read_labelled(tmp_path / "out" / "products.csv", read_catalogue(shop))["train"]) == 2
    assert {path.stem for path in (tmp_path / "out" / "photos").iterdir()} == {digests[1], digests[2]}


@pytest.mark.slow
def test_the_page_shows_the_picture_with_its_region_beside_that_of_the_shop(service):
    (one,) = say(service, product(item="<i>", probability=0.876))
    client = client_of(service)
    page = client.get("/review", params={"kind": "product"}).text
    assert "Does the picture show this item of the shop?" in page
    assert "Title of &lt;i&gt;" in page
    assert 'points="10.00,10.00 90.00,10.00 90.00,60.00 10.00,60.00"' in page
    assert '<img src="/pictures/shop/1.jpg" alt="Title of &lt;i&gt;"' in page
    assert "probability 0.876; next is Green Box with 0.150; none of the shop&#39;s items 0.050" in page
    assert "/pictures/shop/1.jpg" in client.get("/review?view=grid").text
    assert "Items of the shop" in client.get("/images/1").text
    assert "Products" in client.get("/providers").text
    following = client.post(f"/ui/review/{one.id}?kind=product", data={"decision": "accept"}).text
    assert "Nothing waits" in following
    again = client.post(f"/ui/review/{one.id}?kind=product", data={"decision": "undo"}).text
    assert f'data-suggestion="{one.id}"' in again
