"""The page in a real Chromium: nothing is fetched, nothing overflows, and it is usable by keyboard and without script.

Needs Playwright for Python and a Chromium of the system; skipped where one of them is absent.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isc.data.matches import GroundTruth, Matches
from isc.evaluate.report.comparison import OtherRun, compare
from isc.evaluate.report.page import write_report
from isc.evaluate.report.thumbnails import Pictures
from isc.photos.decode import encode_jpeg, read_image
from isc.photos.folders import list_images

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install isc[dev])")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium or google-chrome on PATH")

SAMPLE = Path(__file__).parents[1] / "isc" / "sample"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = 1200, 390
LOOKS = [(width, scheme) for width in (WIDE, NARROW) for scheme in ("light", "dark")]
COPIES = 60

# every element with text of its own, its contrast to what lies behind it (WCAG 2.2, relative luminance)
CONTRASTS = """() => {
  const parse = text => { const v = text.match(/[\\d.]+/g).map(Number); return [v[0], v[1], v[2], v[3] ?? 1]; };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
  const behind = e => {
    const stack = [];
    for (; e; e = e.parentElement) stack.push(parse(getComputedStyle(e).backgroundColor));
    return stack.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    if (["SCRIPT", "STYLE", "OPTION", "TITLE", "DESC", "title", "desc"].includes(e.tagName)) continue;
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), back = behind(e);
    const ink = over(parse(e instanceof SVGElement ? style.fill : style.color), back);
    const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), `${e.tagName} ${e.className}: ${e.textContent.trim().slice(0, 30)}`]);
  }
  return found;
}"""
FOCUSABLE = """() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")]
  .filter(e => e.checkVisibility()).map(e => { e.dataset.place ??= String(Math.random()); return e.dataset.place; })"""
FOCUSED = """() => { const e = document.activeElement, style = getComputedStyle(e);
  const height = e.getBoundingClientRect().height;
  return [e.dataset.place ?? e.tagName, style.outlineStyle, parseFloat(style.outlineWidth), height]; }"""
SHOWN = """sheet => [...document.querySelectorAll((sheet ? "#" + sheet + " " : "") + "[data-pair]")]
  .filter(e => e.checkVisibility()).map(e => ({...e.dataset}))"""


@dataclass(frozen=True)
class Region:
    query_region: np.ndarray
    reference_region: np.ndarray
    inliers: int


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 60 copies and 60 distractors of real photos beside another run: some found, missed, gained and lost."""
    folder = tmp_path_factory.mktemp("page")
    sources = sorted(SAMPLE.glob("S*.jpg"))[:12]
    for role in ("queries", "references"):
        (folder / role).mkdir()
    for i, source in enumerate(sources):
        pixels = read_image(source)
        half = np.ascontiguousarray(pixels[:, : pixels.shape[1] // 2])
        (folder / "references" / f"R{i}.jpg").write_bytes(encode_jpeg(pixels, quality=80))
        for k in range(10):
            (folder / "queries" / f"Q{10 * i + k:03d}.jpg").write_bytes(
                encode_jpeg(half if k % 2 else pixels, quality=60)
            )
    queries, rng = [f"Q{i:03d}" for i in range(120)], np.random.default_rng(4)
    copies = {query: f"R{i // 10}" for i, query in enumerate(queries) if i % 2}
    truth = GroundTruth(frozenset(queries), frozenset(copies.items()))
    now, before = (_scores(queries, copies, rng) for _ in range(2))
    square = np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]])
    write_report(
        folder / "index.html",
        now,
        title="A run on <real> photos",
        ground_truth=truth,
        pictures=Pictures(list_images(folder / "queries"), list_images(folder / "references")),
        edits={query: ["half", "JPEG quality 60"][: 1 + i % 4] for i, query in enumerate(copies)},
        evidence={pair: Region(square, square, 20) for pair in sorted(truth.pairs)[::2]},
        provenance={"seed": "4", "queries": "a/rather/long/path/" * 8},
        compare=compare(now, truth, other=OtherRun("the-run-before", before)),
    )
    return folder / "index.html"


def _scores(queries: list[str], copies: dict[str, str], rng: np.random.Generator) -> Matches:
    """Each query with its right reference, where it has one and that is not forgotten, and with two wrong ones."""
    rows = [(q, r, rng.normal(2.5, 1)) for q, r in copies.items() if rng.random() < 0.9]
    rows += [(q, f"R{(i // 10 + k) % 12}", rng.normal(0, 1)) for i, q in enumerate(queries) for k in (1, 2)]
    return Matches.from_ids(*zip(*rows, strict=True))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield running
        running.close()


@dataclass
class Heard:
    """What a page said and asked for."""

    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def opened(
    browser: Any, file: Path, *, width: int = WIDE, scheme: str = "light", script: bool = True, at: str = ""
) -> Any:
    """A page with an attribute `heard`; its context closes with it."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script
    )
    page, heard = context.new_page(), Heard()
    page.on("console", lambda message: heard.said.append(message.text))
    page.on("pageerror", lambda error: heard.said.append(str(error)))
    page.on("request", lambda request: heard.asked.append(request.url[:60]))
    page.goto(file.as_uri() + at)
    page.heard = heard
    return page


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    page = opened(browser, page_file)
    yield page
    assert page.heard.said == []
    page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_it_opens_without_a_word_asks_for_nothing_and_fits(browser, page_file, width, scheme):
    page = opened(browser, page_file, width=width, scheme=scheme)
    page.wait_for_load_state("networkidle")
    assert page.heard.said == []
    assert [url for url in page.heard.asked if not url.startswith("data:")] == [page_file.as_uri()[:60]]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate(
        "() => [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, nav, svg')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []
    page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(browser, page_file, scheme):
    page = opened(browser, page_file, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 500
    assert [(round(ratio, 2), what) for ratio, what in contrasts if ratio < 4.5][:5] == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor").startswith("rgb(20")
    assert dark == (scheme == "dark")
    page.context.close()


def test_every_picture_is_there_and_says_what_it_is(page):
    images = page.evaluate("[...document.images].map(i => [i.alt, i.naturalWidth, i.complete])")
    assert len(images) > 100
    assert all(complete and width > 0 for _, width, complete in images)
    assert all(alt.split(",")[0].split()[0] in ("query", "reference") for alt, *_ in images)
    assert all(alt.split(",")[0].split()[1][0] in "QR" for alt, *_ in images)
    assert any(alt.endswith("its matching region outlined") for alt, *_ in images)
    drawings = page.evaluate(
        "[...document.querySelectorAll('svg:not([aria-hidden])')]"
        ".map(s => [s.getAttribute('role'), s.querySelector('title').textContent])"
    )
    assert {tuple(drawing) for drawing in drawings} == {
        ("img", "Precision–recall curve"),
        ("img", "Histogram of scores"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_tab_reaches_everything_in_order_and_shows_where_it_is(browser, page_file, width):
    page = opened(browser, page_file, width=width)
    expected = page.evaluate(FOCUSABLE)
    assert len(expected) > 25
    reached = []
    for _ in expected:
        page.keyboard.press("Tab")
        place, style, thickness, height = page.evaluate(FOCUSED)
        reached.append(place)
        assert style != "none"
        assert thickness >= 2
        assert height >= 8
    assert reached == expected
    page.context.close()


def test_a_heading_of_each_link_is_where_it_leads(page):
    for link in page.query_selector_all("nav a"):
        target = page.query_selector(link.get_attribute("href"))
        assert target.query_selector("h2").inner_text().startswith(link.inner_text())


def test_filtering_by_words_shows_the_pairs_that_have_them_all(page):
    everything = page.evaluate(SHOWN, "")
    page.get_by_role("searchbox").fill("Q01 half")
    shown = page.evaluate(SHOWN, "")
    assert 0 < len(shown) < len(everything)
    assert {pair["query"][:3] for pair in shown} == {"Q01"}
    assert all("half" in pair["kinds"] for pair in shown)
    assert page.get_by_role("status").inner_text() == f"{len(shown)} pairs"
    page.get_by_role("searchbox").fill("nothing has this")
    assert page.evaluate(SHOWN, "") == []
    assert page.get_by_role("status").inner_text() == "0 pairs"
    page.get_by_role("searchbox").fill("")
    assert len(page.evaluate(SHOWN, "")) >= len(everything)
    assert page.get_by_role("status").inner_text() == ""


def test_filtering_by_edit_opens_what_is_listed_without_pictures(page):
    closed = page.evaluate(SHOWN, "wrong")
    assert len(closed) == 24
    page.get_by_role("combobox", name="Kind of edit").select_option("JPEG quality")
    shown = page.evaluate(SHOWN, "wrong")
    assert all("JPEG quality" in pair["kinds"].split("|") for pair in shown)
    assert page.locator("#wrong details").get_attribute("open") is not None
    assert page.evaluate("[...document.querySelectorAll('#wrong tr[data-pair]')].some(e => e.checkVisibility())")


@pytest.mark.slow
def test_a_button_shows_its_sheet_alone_and_says_that_it_is_pressed(page):
    buttons = page.get_by_role("group", name="Filter and sort the pairs").get_by_role("button")
    assert buttons.all_inner_texts() == ["All", "Gained", "Lost", "Found", "Missed", "Wrong"]
    buttons.get_by_text("Missed").focus()
    page.keyboard.press("Enter")
    pressed = {b.inner_text(): b.get_attribute("aria-pressed") for b in buttons.all()}
    assert pressed == {name: "true" if name == "Missed" else "false" for name in pressed}
    assert page.evaluate(
        "[...document.querySelectorAll('.pairs')].filter(s => s.checkVisibility()).map(s => s.id)"
    ) == ["missed"]
    page.get_by_role("link", name="Gained", exact=True).click()
    assert page.locator("#gained").is_visible()


def numbers(pairs: list[dict[str, str]], key: str, absent: float) -> list[float]:
    return [float(pair[key]) if pair[key] else absent for pair in pairs]


@pytest.mark.slow
def test_sorting_orders_the_pairs_of_every_sheet_and_back(page):
    order = page.get_by_role("combobox", name="Order of the pairs")
    given = {sheet: page.evaluate(SHOWN, sheet) for sheet in ("found", "missed", "wrong")}
    assert None not in given.values()
    for sheet, before in given.items():
        order.select_option("highest")
        scores = numbers(page.evaluate(SHOWN, sheet), "score", -np.inf)
        assert scores == sorted(numbers(before, "score", -np.inf), reverse=True)
        order.select_option("lowest")
        scores = numbers(page.evaluate(SHOWN, sheet), "score", np.inf)
        assert scores == sorted(numbers(before, "score", np.inf))
        order.select_option("query")
        assert [p["query"] for p in page.evaluate(SHOWN, sheet)] == sorted(p["query"] for p in before)
        order.select_option("edits")
        assert numbers(page.evaluate(SHOWN, sheet), "edits", 0) == sorted(numbers(before, "edits", 0), reverse=True)
        order.select_option("rank")
        ranks = numbers(page.evaluate(SHOWN, sheet), "rank", np.inf)
        assert ranks == sorted(ranks, reverse=True)
        order.select_option("")
        assert page.evaluate(SHOWN, sheet) == before
    assert "" in [pair["score"] for pair in given["missed"]]  # never predicted


@pytest.mark.slow
def test_the_address_brings_the_same_view_back(page, browser, page_file):
    page.get_by_role("group", name="Filter").get_by_role("button", name="Found").click()
    page.get_by_role("searchbox").fill("Q0 half")
    page.get_by_role("combobox", name="Order of the pairs").select_option("highest")
    address = page.evaluate("location.hash")
    again = opened(browser, page_file, at=address)
    assert again.evaluate(SHOWN, "") == page.evaluate(SHOWN, "")
    assert again.get_by_role("searchbox").input_value() == "Q0 half"
    again.context.close()
    foreign = opened(browser, page_file, at="#show=nowhere&sort=no&edit=%3Cb%3E")
    assert len(foreign.evaluate(SHOWN, "")) > 50
    assert foreign.heard.said == []
    foreign.context.close()


def test_columns_sort_by_number_and_by_name_and_say_so(page):
    table = page.get_by_role("region", name="Edits", exact=True)

    def column(at: int) -> list[str]:
        return page.evaluate(
            "at => [...document.querySelectorAll('#edits tbody tr')].map(r => r.cells[at])"
            ".map(cell => cell.dataset.value ?? cell.textContent)",
            at,
        )

    table.get_by_role("button", name="copies").click()
    total, *rest = [int(value) for value in column(1)]
    assert total == COPIES
    assert rest == sorted(rest, reverse=True)
    assert table.get_by_role("columnheader", name="copies").get_attribute("aria-sort") == "descending"
    table.get_by_role("button", name="copies").click()
    assert [int(value) for value in column(1)] == [total, *sorted(rest)]
    table.get_by_role("button", name="edit", exact=True).press("Enter")
    assert column(0) == ["any edit", "half", "JPEG quality"]
    heads = [head.get_attribute("aria-sort") for head in table.get_by_role("columnheader").all()]
    assert heads == ["ascending", None, None, None]


def test_without_script_all_is_there_but_the_tools(browser, page_file):
    page = opened(browser, page_file, script=False)
    assert not page.locator(".tools").is_visible()
    assert page.locator("table button").count() == 0
    assert page.get_by_role("heading", name="Missed").is_visible()
    assert page.get_by_role("img", name="query Q").first.is_visible()
    assert page.get_by_role("heading", name="Compared with the-run-before").is_visible()
    page.locator("#found summary").click()
    assert page.locator("#found tr[data-pair]").first.is_visible()
    page.context.close()
