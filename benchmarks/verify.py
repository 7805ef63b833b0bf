"""Time to compare a query's pixels with ten candidates: its steps on one core, and queries per second on all cores.

    python -m benchmarks.verify [--judge FOLDER | --images FOLDER] [--queries N]

The pictures are sample photos, or those of --images, scaled to 384 pixels, and edited copies of them; with --judge they
are the unchanged queries and references of that benchmark. The candidates of a copy are its reference and nine others.
The features of the references are in a store. Steps are in milliseconds of one core's processor time, which other
programs on the machine hardly change; the speed of several processes is wall-clock time. The figures are compared with
the bound of 150 ms and with a simple prototype: SIFT of the query and of its mirror image, OpenCV's brute-force matcher
and an affine RANSAC fit for both, and nothing else.
"""

import argparse
import csv
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import save
from benchmarks.ship import _processor
from isc.benchmark.make import make_benchmark
from isc.benchmark.sizes import Sizes
from isc.data.matches import Matches
from isc.match.verification import affine_fit, tasks
from isc.match.verification import alignment as geometry
from isc.match.verification import features as local
from isc.match.verification.compare import _planned, verify
from isc.match.verification.feature_store import FeatureStore
from isc.match.verification.features import LONGEST_SIDE, MAX_FEATURES
from isc.match.verification.tasks import PairWork
from isc.photos.decode import encode_jpeg, read_image
from isc.photos.folders import SAMPLE, list_images
from isc.photos.resizing import fit_within
from isc.runtime.cpus import cores
from isc.runtime.progress import Report

BOUND = 150.0  # ms a query on one core
CANDIDATES = 10
REPEATS = 3
Row = dict[str, object]


@dataclass(frozen=True)
class Pairs:
    """Candidate pairs, and the files of their pictures."""

    candidates: Matches
    queries: Mapping[str, Path]
    references: Mapping[str, Path]

    def verified(self, store: FeatureStore | None, *, workers: int, bars: Any) -> None:
        found = verify(self.candidates, self.queries, self.references, store=store, workers=workers, bars=bars)
        if found.problems:
            raise SystemExit(f"{len(found.problems)} pictures could not be compared, the first: {found.problems[0]}")


def read_pairs(folder: Path, *, queries: int) -> Pairs:
    """Return the first queries of a benchmark folder, each with its reference, if it has one, and others."""
    images, references = list_images(folder / "queries"), list_images(folder / "references")
    with (folder / "ground_truth.csv").open(newline="") as file:
        true = {row["query_id"]: row["reference_id"] for row in csv.DictReader(file)}
    rng, names = np.random.default_rng(0), np.array(list(references), dtype=object)
    rows: list[tuple[str, str]] = []
    for query in list(images)[:queries]:
        drawn = [true[query]] * bool(true.get(query)) + rng.choice(names, CANDIDATES + 1, replace=False).tolist()
        rows += [(query, reference) for reference in list(dict.fromkeys(drawn))[:CANDIDATES]]
    return Pairs(Matches.from_ids(*zip(*rows, strict=True), np.zeros(len(rows))), images, references)


def make_pairs(photos: Path, folder: Path, *, queries: int) -> Pairs:
    """Make a benchmark of 384-pixel photos and edited copies of them, and return its pairs."""
    large = folder / "photos"
    large.mkdir()
    for number, path in enumerate(list(list_images(photos).values())[:400]):
        pixels = read_image(path)
        scale = LONGEST_SIDE / max(pixels.shape[:2])
        grown = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else pixels
        data = encode_jpeg(fit_within(grown, LONGEST_SIDE), quality=95)
        (large / f"{number:04d}.jpg").write_bytes(data)
    distractors = max(1, queries // 3)
    sizes = Sizes(
        references=60,
        copied=min(40, queries - distractors),
        distractors=min(20, distractors),
        training=20,
        positive_queries=queries - distractors,
        distractor_queries=distractors,
    )
    make_benchmark(large, folder / "made", sizes=sizes, seed=0, max_side=LONGEST_SIDE)
    return read_pairs(folder / "made", queries=queries)


@dataclass
class Clock:
    """Processor time of this thread in milliseconds, for each step of each query."""

    queries: list[dict[str, float]] = field(default_factory=list)
    _now: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _since: float = 0.0

    def timed(self, step: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **options: Any) -> Any:
            start = time.thread_time()
            try:
                return action(*args, **options)
            finally:
                self._now[step] += 1000 * (time.thread_time() - start)

        return instead

    @contextmanager
    def bars(self, _what: str, _units: str) -> Iterator[Report]:
        """Replace the progress bar; each report ends a query."""
        self.queries.clear()
        self._now.clear()
        self._since = time.thread_time()
        yield self._end_query

    def _end_query(self, _done: int, _total: int) -> None:
        now = time.thread_time()
        self.queries.append({**self._now, "whole": 1000 * (now - self._since)})
        self._now.clear()
        self._since = time.thread_time()


def whole(pairs: Pairs, store: FeatureStore) -> list[float]:
    """Return the milliseconds of each query, without timers in its steps."""
    clock = Clock()
    pairs.verified(store, workers=1, bars=clock.bars)
    return [query["whole"] for query in clock.queries]


def steps(pairs: Pairs, store: FeatureStore) -> dict[str, list[float]]:
    """Return the milliseconds of each step, by query; a step that calls another is given without it."""
    clock = Clock()
    with ExitStack() as patched:
        for where, name in (
            (tasks, "read_image"), (tasks, "local_features"), (FeatureStore, "get_many"), (local, "mirrored"),
            (affine_fit, "tentative_pairs"), (affine_fit, "_best_of"), (geometry, "agreement"),
        ):  # fmt: skip
            patched.enter_context(mock.patch.object(where, name, clock.timed(name, getattr(where, name))))
        pairs.verified(store, workers=1, bars=clock.bars)

    def column(name: str, *less: str) -> list[float]:
        return [query.get(name, 0) - sum(query.get(other, 0) for other in less) for query in clock.queries]

    return {
        "reading and decoding the query": column("read_image"),
        "its local features": column("local_features"),
        "its mirrored descriptors": column("mirrored"),
        f"reading features from the store, × {CANDIDATES}": column("get_many"),
        f"matching as it is and mirrored, × {CANDIDATES}": column("tentative_pairs", "mirrored"),
        f"fitting as it is and mirrored, × {CANDIDATES}": column("_best_of", "tentative_pairs"),
        f"pixel agreement, × {CANDIDATES}": column("agreement"),
    }


def prototype(pairs: Pairs) -> list[float]:
    """Return the milliseconds of each query by the simple prototype, on the same pairs."""
    sift, matcher = cv2.SIFT.create(nfeatures=MAX_FEATURES), cv2.BFMatcher(cv2.NORM_L2)

    def described(gray: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], Any]:
        points, descriptors = sift.detectAndCompute(gray, None)
        return np.array([point.pt for point in points], np.float32), descriptors

    def gray_of(path: Path) -> np.ndarray[Any, Any]:
        return cv2.cvtColor(fit_within(read_image(path), LONGEST_SIDE), cv2.COLOR_RGB2GRAY)

    wanted = [pairs.candidates.reference_ids[i] for i in np.unique(pairs.candidates.reference)]
    references = {name: described(gray_of(pairs.references[name])) for name in wanted}

    def fit(query: tuple[np.ndarray[Any, Any], Any], reference: tuple[np.ndarray[Any, Any], Any]) -> int:
        if query[1] is None or reference[1] is None or len(reference[0]) < 2:
            return 0
        near = matcher.knnMatch(query[1], reference[1], k=2)
        good = [(one.queryIdx, one.trainIdx) for one, two in near if one.distance < 0.8 * two.distance]
        if len(good) < 4:
            return 0
        q, r = np.array(good).T
        _, mask = cv2.estimateAffine2D(reference[0][r], query[0][q], method=cv2.RANSAC, ransacReprojThreshold=4)
        return 0 if mask is None else int(mask.sum())

    taken = []
    for number in np.unique(pairs.candidates.query):
        rows = np.flatnonzero(pairs.candidates.query == number)
        start = time.thread_time()
        gray = gray_of(pairs.queries[pairs.candidates.query_ids[number]])
        both = described(gray), described(cv2.flip(gray, 1))
        for row in rows:
            reference = references[pairs.candidates.reference_ids[pairs.candidates.reference[row]]]
            max(fit(one, reference) for one in both)
        taken.append(1000 * (time.thread_time() - start))
    return taken


def table(found: Mapping[str, Sequence[float]], plain: Sequence[float]) -> list[Row]:
    return [
        {
            "ms of one core a query": what,
            "mean": round(float(np.mean(times)), 2),
            "p95": round(float(np.percentile(times, 95)), 2),
            f"of {BOUND:.0f} ms": round(float(np.mean(times)) / BOUND, 3),
            "of the plain prototype": round(float(np.mean(times) / np.mean(plain)), 3),
        }
        for what, times in found.items()
    ]


def _environment(rows: list[Row], pairs: Pairs) -> Row:
    """Return a last row in the same columns, with machine and versions."""
    images = len(np.unique(pairs.candidates.query))
    what = (
        f"{images} queries on {_processor()}, Python {platform.python_version()}, OpenCV {cv2.__version__}, "
        f"numpy {np.__version__}"
    )
    return dict.fromkeys(rows[0], "") | {next(iter(rows[0])): what}


@contextmanager
def _silent(_what: str, _units: str) -> Iterator[Report]:
    yield lambda _done, _total: None


def on_all_cores(pairs: Pairs, store: FeatureStore) -> list[Row]:
    """Return queries per second (wall-clock, best of REPEATS) by processes, and by threads of one process."""
    count = cores()

    def threads(number: int) -> None:
        plan = _planned(pairs.candidates, pairs.queries, pairs.references)
        own = [FeatureStore(store.folder) for _ in range(number)]  # a connection serves only one thread
        shares = [list(plan.comparisons({}))[start::number] for start in range(number)]
        with threadpool_limits(1), ThreadPoolExecutor(number) as pool:
            list(pool.map(lambda one, share: [PairWork(one)(item) for item in share], own, shares))

    ways: dict[str, Callable[[], None]] = {
        "one process": lambda: pairs.verified(store, workers=1, bars=_silent),
        f"{count} processes": lambda: pairs.verified(store, workers=count, bars=_silent),
        f"{count} threads": lambda: threads(count),
    }
    best: dict[str, float] = defaultdict(lambda: float("inf"))
    for _ in range(REPEATS):  # in turns, because the machine may have other work
        for what, way in ways.items():
            start = time.perf_counter()
            way()
            best[what] = min(best[what], time.perf_counter() - start)
    queries = len(np.unique(pairs.candidates.query))
    return [
        {
            f"a second, with {CANDIDATES} candidates": what,
            "queries": round(queries / taken, 2),
            "times one process": round(best["one process"] / taken, 2),
            "others' load": round(os.getloadavg()[0], 1),
        }
        for what, taken in best.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--judge", type=Path, metavar="FOLDER")
    source.add_argument("--images", type=Path, metavar="FOLDER", default=SAMPLE)
    parser.add_argument("--queries", type=int, default=60)
    given = parser.parse_args()
    if given.queries < 2:
        parser.error(f"--queries={given.queries}; expected at least 2")
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        if given.judge is not None:
            pairs = read_pairs(given.judge, queries=given.queries)
        else:
            pairs = make_pairs(given.images, Path(name), queries=given.queries)
        store = FeatureStore(Path(name) / "store")
        pairs.verified(store, workers=cores(), bars=_silent)  # fills the store with the references' features
        plain = prototype(pairs)
        found = {**steps(pairs, store), "all of it": whole(pairs, store), "the plain prototype": plain}
        rows = table(found, plain)
        save("verify", [*rows, _environment(rows, pairs)])
        save("verify_cores", on_all_cores(pairs, store))


if __name__ == "__main__":
    main()
