"""The report on 1,000, 100,000 and 500,000 predictions: time to write it, its size, and time to open it in Chromium.

Each figure has a peer in the same run: resampling is compared with judging as often, writing the page with the
resampling that it needs, and the page of a large run with that of 1,000 predictions. Opening needs playwright and
Chromium; without them it is skipped, and a message says so.
"""

import importlib.util
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import save, seconds
from isc.data.matches import GroundTruth, Matches
from isc.evaluate.bootstrap import bootstrap
from isc.evaluate.metrics import evaluate
from isc.evaluate.report.page import write_report
from isc.evaluate.report.thumbnails import Pictures
from isc.photos.folders import SAMPLE, list_images

SIZES = (1_000, 100_000, 500_000)
PER_QUERY = 10  # predictions
RESAMPLES = 1000
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
EDITS = ("crop 42 %", "blur σ 2 px", "text, lines: 2", "JPEG quality 30", "rotate 12°")

Run = tuple[Matches, GroundTruth]


def run_of(predictions: int) -> Run:
    """Return ten predictions per query; every fifth query has a correct one, usually with a higher score."""
    rng = np.random.default_rng(0)
    number = predictions // PER_QUERY
    queries = np.array([f"Q{i:05d}" for i in range(number)], dtype=object)
    references = np.array([f"R{i:06d}" for i in range(2 * number)], dtype=object)
    query = np.repeat(np.arange(number), PER_QUERY)
    reference = (query * 7 + np.tile(np.arange(PER_QUERY), number)) % (2 * number)
    score = rng.standard_normal(predictions)
    correct = np.arange(0, predictions, 5 * PER_QUERY)
    score[correct] += 3
    matches = Matches(queries, references, query, reference, score.astype(np.float32))
    pairs = {(queries[query[i]], references[reference[i]]) for i in correct}
    return matches, GroundTruth(frozenset(queries), frozenset(pairs))


def pictures_of(matches: Matches) -> Pictures:
    """Return pictures that give one of the shipped photos to each id, in turn."""
    photos = list(list_images(SAMPLE).values())
    sides = ({name: photos[i % len(photos)] for i, name in enumerate(ids.tolist())} for ids in
             (matches.query_ids, matches.reference_ids))  # fmt: skip
    return Pictures(*sides)


def write(path: Path, run: Run, *, pictures: Pictures) -> None:
    matches, truth = run
    edits = {name: (EDITS[i % 5], EDITS[i % 3]) for i, name in enumerate(matches.query_ids.tolist())}
    write_report(path, matches, title="A made run", ground_truth=truth, pictures=pictures, edits=edits)


def opening(paths: list[Path]) -> list[tuple[float, float]] | None:
    """Return for each page the median seconds to load it, and to filter its pairs by one typed letter.

    The pages take turns, so that all meet the same load of the machine. Returns None without playwright or a browser.
    """
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None or importlib.util.find_spec("playwright") is None:
        print("opening is left out: it needs playwright (pip install isc[dev]) and chromium on PATH")
        return None
    from playwright.sync_api import sync_playwright

    taken: dict[Path, list[tuple[float, float]]] = {path: [] for path in paths}
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=list(QUIET))
        for _ in range(7):
            for path in paths:
                page = browser.new_page(viewport={"width": 390, "height": 844})
                start = time.perf_counter()
                page.goto(path.as_uri(), wait_until="load")
                loaded = time.perf_counter()
                page.get_by_role("searchbox").fill("q")
                page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
                taken[path].append((loaded - start, time.perf_counter() - loaded))
                page.close()
        browser.close()
    return [(median(t[0] for t in times), median(t[1] for t in times)) for times in taken.values()]


def row(what: str, unit: str, ours: float, peer: str, its: float) -> dict[str, object]:
    return {"what": what, "unit": unit, "ours": ours, "beside": peer, "its": its, "ratio": round(ours / its, 2)}


def writing_rows(size: int, folder: Path) -> tuple[list[dict[str, object]], Path]:
    run = run_of(size)
    pictures, path = pictures_of(run[0]), folder / f"{size}.html"
    judge = seconds(lambda: evaluate(*run))
    resample = seconds(lambda: bootstrap(*run, resamples=RESAMPLES), repeats=3)
    page = seconds(lambda: write(path, run, pictures=pictures), repeats=3)
    rows = [
        row(
            f"{RESAMPLES:,} resamples of {size:,} predictions", "s", round(resample, 3),
            f"evaluate, {RESAMPLES:,} times", round(RESAMPLES * judge, 3),
        ),
        row(
            f"write the page of {size:,} predictions", "s", round(page, 3),
            f"{RESAMPLES:,} resamples alone", round(resample, 3),
        ),
    ]  # fmt: skip
    return rows, path


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        made = [writing_rows(size, Path(name)) for size in SIZES]
        rows = [one for rows, _ in made for one in rows]
        paths = [path for _, path in made]
        small, *large = SIZES
        peer = f"that of {small:,}"
        kilobytes = [round(path.stat().st_size / 1000) for path in paths]
        for size, ours in zip(large, kilobytes[1:], strict=True):
            rows.append(row(f"size of the page of {size:,} predictions", "kB", ours, peer, kilobytes[0]))
        opened = opening(paths)
    for at, what in enumerate(("load the page", "filter the page")) if opened else ():
        times = [round(one[at], 3) for one in opened or ()]
        for size, taken in zip(large, times[1:], strict=True):
            rows.append(row(f"{what} of {size:,} predictions in Chromium", "s", taken, peer, times[0]))
    save("report", rows)


if __name__ == "__main__":
    main()
