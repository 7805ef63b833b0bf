"""The page in a real Chromium: uploads, review by keyboard, comparison, widths, light and dark, and axe.

Needs Playwright for Python and a Chromium of the system; skipped where one of them is absent. axe-core comes from npm
(`npm pack axe-core@4.10.3`), where npm is installed.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
import uvicorn

from isc.serve import catalogue, schema
from isc.serve.api.app import create_app, shielded
from isc.serve.results import Caption, Label, Product, ShopPicture
from isc.serve.storing import store
from tests.serving import PHOTOS, Service, edited, free_port, settings_in

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install isc[dev])")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium or google-chrome on PATH")

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
PAGES = ("/", "/review", "/review?view=grid", "/review?kind=product", "/captions", "/images", "/images/1", "/images/7",
         "/providers", "/login")  # fmt: skip
LOOKS = ((360, "light"), (1300, "dark"), (3840, "light"))
COPIES = 4
# press Z as soon as the next card is there: a form that htmx does not know yet would be sent as a plain one
UNDO_AT_ONCE = """addEventListener("htmx:afterSwap", () => {
  addEventListener("htmx:afterSwap", () => { document.documentElement.dataset.undone = ""; }, {once: true});
  setTimeout(() => document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "z", bubbles: true})));
}, {once: true})"""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service with six photos and four copies of them, described, with a label, a caption and a dead letter."""
    one = Service.made(settings_in(tmp_path_factory.mktemp("page")))
    one.take(*PHOTOS[:6])
    one.worker.drain()
    one.take(*(edited(photo) for photo in PHOTOS[:COPIES]), PHOTOS[0].read_bytes()[:900])
    one.worker.drain()
    _say_more(one)
    yield one
    one.close()


def _say_more(service):
    """Let another provider say a label, a caption and an item of a shop."""
    from isc.serve.requests import ask, lease, register

    class Said:
        version = "1"
        kinds = frozenset(("label", "caption", "product"))

    providers = {**service.worker._providers, "objects": Said()}
    number = register(service.database, providers)["objects"]
    with service.database.writing() as connection:
        ask(connection, [1], [number], priority=1)
    held = lease(service.database, [number], limit=1, seconds=60)[0]
    seen = ((0.15, 0.15), (0.85, 0.15), (0.85, 0.85), (0.15, 0.85))
    item = Product(
        "B-0042", "Print of a fish, framed in oak", 0.83, ShopPicture("B-0042_2.jpg", PHOTOS[0].read_bytes()), "Print",
        seen, {"next_item": "B-7", "next_title": "Print of a boat", "next_probability": 0.11, "none": 0.04},
    )  # fmt: skip
    said = [Label("lighthouse", 0.6, "Q39715"), Caption("שלום, welcome", "he", 0.5), item]
    assert store(service.database, service.settings, held, "objects", said)
    service.worker.register_all()  # nobody answers for it from now on


@pytest.fixture(scope="module")
def site(service):
    """The address of the service; its worker works in a thread, as a process of its own would."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            shielded(create_app(service.settings, service.database)), port=port, log_level="warning", lifespan="off"
        )
    )
    stop = threading.Event()

    def work():
        while not stop.is_set():
            service.worker.drain()
            time.sleep(0.05)

    threads = [threading.Thread(target=server.run, daemon=True), threading.Thread(target=work, daemon=True)]
    for one in threads:
        one.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    stop.set()
    server.should_exit = True
    for one in threads:
        one.join()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        one = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield one
        one.close()


@pytest.fixture
def page(browser, site):
    """A page that fails the test for every message of the console, such as a violation of the CSP."""
    context = browser.new_context(base_url=site, viewport={"width": 1300, "height": 900})
    one = context.new_page()
    one.problems = []
    one.on("console", lambda said: one.problems.append(said.text) if said.type in ("error", "warning") else None)
    one.on("pageerror", lambda error: one.problems.append(str(error)))
    yield one
    assert one.problems == []
    context.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """axe-core's script, from npm."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm, for axe-core")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(["npm", "pack", "--silent", "axe-core@4.10.3"], cwd=folder, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("axe-core cannot be had from npm here")
    with tarfile.open(next(folder.glob("*.tgz"))) as tar:
        return tar.extractfile("package/axe.min.js").read().decode()


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES)
def test_no_page_overflows_and_axe_finds_nothing(browser, site, axe, path):
    for width, scheme in LOOKS:
        # the test's own script needs the CSP out of its way; all other tests keep it
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
        page = context.new_page()
        page.goto(site + path, wait_until="networkidle")
        inner = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert inner[0] <= inner[1], (path, width)
        if width != 3840:
            page.add_script_tag(content=axe)
            found = page.evaluate("axe.run().then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.html)]))")
            assert found == [], (path, width, scheme)
        context.close()


@pytest.mark.slow
def test_a_dropped_picture_shows_its_copy_within_seconds(page):
    page.goto("/")
    begun = time.monotonic()
    page.set_input_files("#files", {"name": "späti <b>.jpg", "mimeType": "image/jpeg", "buffer": edited(PHOTOS[5])})
    page.wait_for_selector("article[data-open='0'] .verdict.copy", timeout=30_000)
    assert time.monotonic() - begun < 15
    assert page.locator("article .region polygon").count() >= 2
    assert page.locator("article h2").inner_text() == "späti <b>.jpg"
    page.set_input_files("#files", {"name": "no.png", "mimeType": "image/png", "buffer": b"text"})
    page.wait_for_selector("p.bad:has-text('no picture')")
    page.problems.clear()  # Chromium reports the refusal as an error of the network


def test_a_pasted_picture_is_taken_in_and_pasted_text_is_not(page):
    page.goto("/")
    page.evaluate("""data => { const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0));
      const clipboard = new DataTransfer();
      clipboard.items.add(new File([bytes], "pasted.jpg", { type: "image/jpeg" }));
      clipboard.items.add("some text", "text/plain");
      document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: clipboard, bubbles: true })); }""",
      base64.b64encode(edited(PHOTOS[4], crop=0.2)).decode())  # fmt: skip
    page.wait_for_selector("article[data-open='0'] .verdict.copy", timeout=120_000)
    assert page.locator("article h2").all_inner_texts() == ["pasted.jpg"]
    assert page.locator(".verdict.copy").first.inner_text() == "A copy"


def test_captions_are_rated_by_keys_and_corrected(page, service):
    page.goto("/captions")
    number = int(page.locator("form.rate").get_attribute("data-suggestion"))
    for key in "ynu":
        page.keyboard.press(key)
    chosen = page.eval_on_selector_all("form.rate :checked", "all => all.map(one => `${one.name} ${one.value}`)")
    assert chosen == ["right accept", "helpful reject", "encyclopaedic unsure"]
    page.fill("form.rate textarea", "A clown fish")
    page.click("form.rate button")
    page.wait_for_selector(f"#card:not(:has(form.rate[data-suggestion='{number}']))")
    said = service.rows(sa.select(schema.rating.c.question, schema.rating.c.answer).order_by(schema.rating.c.id))
    assert [tuple(row) for row in said[-3:]] == [
        ("right", "accept"), ("helpful", "reject"), ("encyclopaedic", "unsure")
    ]  # fmt: skip
    assert service.rows(sa.select(schema.written_caption.c.text))[-1].text == "A clown fish"
    page.keyboard.press("z")
    page.wait_for_selector(f"form.rate[data-suggestion='{number}']")
    assert page.locator("form.rate :checked").count() == 3


def _shown(page):
    return page.locator("form.decide").get_attribute("data-suggestion")


def test_review_by_keyboard_with_undo(page, service):
    page.goto("/review?kind=copy&provider=copy")
    first = _shown(page)
    page.keyboard.press("a")
    page.wait_for_selector(f"form.decide:not([data-suggestion='{first}'])")
    second = _shown(page)
    assert page.evaluate("document.activeElement.id") == "question"
    states = dict(map(tuple, service.rows(sa.select(schema.suggestion.c.id, schema.suggestion.c.state))))
    assert states[int(first)] == "accepted"
    page.keyboard.press("z")
    page.wait_for_selector(f"form.decide[data-suggestion='{first}']")
    page.keyboard.press("r")
    page.wait_for_selector(f"form.decide[data-suggestion='{second}']")
    votes = service.rows(sa.select(schema.vote.c.decision).where(schema.vote.c.suggestion_id == int(first)))
    assert [row.decision for row in votes] == ["accept", "undo", "reject"]


def test_an_item_of_a_shop_is_shown_beside_the_picture_and_decided_by_keys(page, service):
    page.goto("/review?kind=product", wait_until="networkidle")
    first = _shown(page)
    sizes = page.eval_on_selector_all(".pair.big img", "all => all.map(one => one.complete && one.naturalWidth)")
    assert len(sizes) == 2
    assert min(sizes) > 0
    assert page.locator(".pair.big .region polygon").count() == 1
    assert "Print of a fish, framed in oak" in page.locator("#question").inner_text()
    page.evaluate(UNDO_AT_ONCE)
    page.keyboard.press("a")
    page.wait_for_selector("html[data-undone]")
    page.wait_for_selector(f"form.decide[data-suggestion='{first}']")
    votes = service.rows(sa.select(schema.vote.c.decision).where(schema.vote.c.suggestion_id == int(first)))
    assert [row.decision for row in votes] == ["accept", "undo"]


@pytest.mark.slow
def test_flicker_swipe_and_zoom_lay_the_common_part_on_each_other(page):
    page.goto("/review?kind=copy&provider=copy")
    page.keyboard.press("f")
    layers = page.locator(".stage > div")
    assert layers.count() == 2
    hidden = page.evaluate("""async () => { const seen = new Set(); const end = Date.now() + 1500;
      while (Date.now() < end) { seen.add(document.querySelectorAll('.stage > div')[1].hidden);
        await new Promise(done => setTimeout(done, 50)); } return [...seen].length; }""")
    assert hidden == 2
    boxes = page.evaluate("[...document.querySelectorAll('.stage img')].map(one => one.getBoundingClientRect().width)")
    assert boxes[0] != boxes[1]  # the copy shows a part: the original is drawn larger, so that both parts agree
    width = page.locator(".stage").bounding_box()["width"]
    page.keyboard.press("+")
    assert page.locator(".stage").bounding_box()["width"] > 1.4 * width
    page.keyboard.press("s")
    page.locator(".swipe-at input").focus()
    page.keyboard.press("ArrowRight")
    assert "51%" in page.evaluate("document.querySelectorAll('.stage > div')[1].style.clipPath")
    page.keyboard.press("d")
    assert page.locator(".stage").count() == 0
    assert page.locator("button[data-show=side]").get_attribute("aria-pressed") == "true"


def test_the_next_picture_is_loaded_before_it_is_shown(page):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/review?kind=copy&provider=copy", wait_until="networkidle")
    ahead = page.eval_on_selector_all(".ahead img", "all => all.map(one => one.src)")
    assert ahead
    assert set(ahead) <= set(asked)


def test_several_are_decided_at_once(page, service):
    page.goto("/review?view=grid&provider=pdq")
    boxes = page.locator("#grid input[type=checkbox][name=chosen]")
    if not boxes.count():
        page.goto("/review?view=grid&kind=caption")
    count = boxes.count()
    assert count
    chosen = boxes.first.get_attribute("value")
    box = f"#grid input[type=checkbox][value='{chosen}']"
    page.check("#choose-all")
    page.click("#grid button[value=reject]")
    page.wait_for_selector(f"#grid:not(:has({box.removeprefix('#grid ')}))")
    rejected = sa.select(schema.vote).where(schema.vote.c.decision == "reject")
    assert service.rows(rejected)
    page.keyboard.press("z")
    page.wait_for_selector(box)
    page.check(box)
    page.click("#grid button[value=unsure]")
    page.wait_for_selector(f"#grid:not(:has({box.removeprefix('#grid ')}))")
    last = sa.select(schema.vote.c.decision).where(schema.vote.c.suggestion_id == int(chosen))
    assert [row.decision for row in service.rows(last.order_by(schema.vote.c.id))][-3:] == ["reject", "undo", "unsure"]


def test_an_accepted_label_is_rejected_again_in_the_history_of_its_picture(page, service):
    wanted = sa.select(schema.suggestion).where(schema.suggestion.c.kind == "label")
    (label, *_) = service.rows(wanted)
    page.goto(f"/images/{label.image_id}")
    entry = page.locator(f"#entry-{label.id}")
    for decision, state in (("accept", "accepted"), ("reject", "rejected")):
        entry.locator(f"button[value={decision}]").click()
        page.wait_for_selector(f"#entry-{label.id} h3:has-text('{state}')")
        assert service.rows(wanted.where(schema.suggestion.c.id == label.id))[0].state == state


@pytest.mark.slow
def test_the_page_works_from_right_to_left_and_in_another_language(browser, site, tmp_path, monkeypatch):
    english = (catalogue.TEXTS / "en.toml").read_text(encoding="utf-8")
    (tmp_path / "en.toml").write_text(english, encoding="utf-8")
    (tmp_path / "he.toml").write_text('direction = "rtl"\nreview = "סקירה"\n', encoding="utf-8")
    monkeypatch.setattr(catalogue, "TEXTS", tmp_path)
    catalogue.texts_of.cache_clear()
    context = browser.new_context(base_url=site, locale="he-IL", viewport={"width": 360, "height": 800})
    page = context.new_page()
    for path in PAGES:
        page.goto(path, wait_until="networkidle")
        assert page.evaluate("document.documentElement.dir") == "rtl"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert "סקירה" in page.inner_text("body") or path == "/login"
    brand, menu = (page.locator(one).bounding_box() for one in (".brand", "main"))
    assert brand["x"] > menu["x"] + menu["width"] / 2
    context.close()
    catalogue.texts_of.cache_clear()


def test_every_text_of_the_templates_is_in_the_catalogue():
    import re
    import tomllib

    folder = Path(catalogue.TEXTS).parent / "templates"
    texts = tomllib.loads((catalogue.TEXTS / "en.toml").read_text(encoding="utf-8"))
    used = set()
    for template in folder.glob("*.html"):
        used |= set(re.findall(r"""\bt\(["']([a-z_]+)["'][,)]""", template.read_text(encoding="utf-8")))
    assert used <= texts.keys()
