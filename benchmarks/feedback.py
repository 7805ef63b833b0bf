"""Gain from verdicts: a reviewer decides 500 suggestions of a service, and a calibration is fitted with them.

python -m benchmarks.feedback JUDGE=RUN_DIR:GT.csv …

Each RUN_DIR is an output of `isc match track=matching` for a dev judge. Its pairs become the results of the provider of
copies, as isc serve would store them; half of the queries, drawn at random, are reviewed in the order of the queue by
somebody who follows the ground truth but for 3 % slips. `isc feedback export` and `isc calibrate` do the rest. Measured
are the suggestions of the other half, about which nobody voted: how many of those above the threshold for 90 %
precision are copies, and the calibration error, with the shipped calibration and with the new one. The intervals are
percentiles of 1,000 bootstrap samples of the queries. The shipped calibration was fitted on these judges, so that it
has seen the collection already; a calibration fitted on the other judges has not.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from benchmarks import save
from benchmarks.calibration import aligned
from isc.cli.main import main as isc
from isc.data.csv_files import read_ground_truth, read_predictions
from isc.data.matches import GroundTruth, Matches
from isc.evaluate.calibration.chance import by_alignment
from isc.evaluate.calibration.files import Calibration, read_calibration
from isc.evaluate.calibration.prior import corrected
from isc.evaluate.calibration.score_origin import read_made
from isc.evaluate.calibration.versions import read_versions
from isc.evaluate.metrics import reliability
from isc.find.results import Verdict
from isc.find.verdicts import judge_of, verdict_of
from isc.match.flags import COLUMN
from isc.serve import schema
from isc.serve.database import Database
from isc.serve.intake import NewImage, take_in
from isc.serve.kinds import Decision, Kind
from isc.serve.requests import lease, register
from isc.serve.results import CopyMatch
from isc.serve.settings import Settings, read_settings
from isc.serve.storing import store
from isc.serve.votes import Reviewer, cast

VERDICTS, SLIPS, DRAWS, PRECISION = 500, 0.03, 1_000, 0.9
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """A suggestion: its fused score before calibration, the probability that is shown, and the truth."""

    query: str
    reference: str
    fused: float
    shown: float
    distance: float
    verdict: Verdict
    copy: bool


@dataclass(frozen=True)
class Scored:
    """All pairs of a run by their fused score, and what else their probabilities depend on, see `apply`."""

    pairs: Matches
    picture: npt.NDArray[np.int64]
    part: npt.NDArray[np.int64]
    log_nfa: Floats


@dataclass(frozen=True)
class Collection:
    """The suggestions of a judge's queries, and the number of its references.

    `every` are all pairs of the run, and `told` [S] the rows of the suggestions among them: a probability depends on
    the query's other pairs, too.
    """

    name: str
    pairs: list[Pair]
    queries: list[str]
    references: int
    every: Scored
    told: list[int]


class Stored:
    """The provider whose results are those of the run."""

    version = "run"
    kinds = frozenset((Kind.copy,))


@dataclass(frozen=True)
class Run:
    """A judge's run: its folder and truth, and its pairs that could be aligned, each as a line of evidence.jsonl."""

    name: str
    folder: Path
    truth_path: Path
    truth: GroundTruth
    every: Scored
    aligned: list[dict[str, Any]]
    references: int


def read(text: str) -> Run:
    """Read NAME=RUN_DIR:GT.csv."""
    name, _, rest = text.partition("=")
    folder, truth_path = map(Path, rest.split(":"))
    lines = [json.loads(line) for line in (folder / "evidence.jsonl").read_text(encoding="utf-8").splitlines()]
    made, truth = read_made(folder), read_ground_truth(truth_path)
    pairs = read_predictions(folder / "predictions.csv", max_rows=made.queries * made.references)
    pairs = pairs.take(truth.judged(pairs))
    shown = read_versions(folder, pairs)
    picture = pairs.reference if shown is None else shown
    part, log_nfa = aligned(folder, pairs)
    assert part is not None and log_nfa is not None, "a run of the matching track"  # noqa: PT018
    return Run(name, folder, truth_path, truth, Scored(pairs, picture, part, log_nfa), lines, made.references)


def collection_of(run: Run, base: Calibration) -> Collection:
    """Return the pairs that the provider of copies tells with this calibration."""
    aligned = {(line["query_id"], line["reference_id"]): line for line in run.aligned}
    shown = probabilities(base, run.every, run.references)
    pairs, rows = [], []
    for row in range(len(shown)):
        pair = run.every.pairs.ids(row)
        if (line := aligned.get(pair)) is None:
            continue
        told = np.full(len(COLUMN), np.nan, np.float32)
        told[COLUMN["log_nfa"]], told[COLUMN["agreement"]] = line["log_nfa"], line["agreement"]
        verdict = verdict_of(shown[row], told, aligned=True)
        if verdict is not Verdict.none:
            facts = (line["score"], float(shown[row]), line["distance"], verdict, pair in run.truth.pairs)
            pairs.append(Pair(*pair, *facts))
            rows.append(row)
    return Collection(run.name, pairs, sorted(run.truth.queries), run.references, run.every, rows)


def _shipped() -> Calibration:
    found = judge_of("isc_small").by_pixels
    assert found is not None, "the shipped model has a calibration"
    return found


def probabilities(calibration: Calibration, every: Scored, references: int) -> Floats:
    """Return the probabilities [M] of all pairs as the provider of copies computes them: picture by picture."""
    pairs, chance = every.pairs, by_alignment(every.log_nfa)
    fitted = calibration.fitted(pairs.score, None, every.part, every.picture)
    found = np.empty(len(pairs))
    order = np.argsort(pairs.query, kind="stable")
    first = np.flatnonzero(np.diff(pairs.query[order], prepend=-1))
    for rows in np.split(order, first[1:]):
        of_picture = {"queries": 1, "references": references, "chance": chance[rows]}
        found[rows], _ = corrected(fitted[rows], calibration.prior, **of_picture)
    return found


def reviewed(collections: Sequence[Collection], half: frozenset[str], folder: Path) -> tuple[Path, int, int]:
    """Review suggestions of these queries in a service; return the exported folder, the verdicts, and the slips."""
    settings = read_settings(None, data=folder / "data")
    database = Database(settings.database)
    database.upgrade()
    known = [_known(database, one) for one in collections]  # before there is a provider, so that nobody is asked
    number = register(database, {"copy": Stored()})["copy"]  # type: ignore[dict-item]
    truth = {}
    for collection, numbers in zip(collections, known, strict=True):
        truth |= _told(database, settings, number, collection=collection, known=numbers, half=half)
    queue = sa.select(schema.suggestion.c.id).order_by(schema.suggestion.c.priority.desc(), schema.suggestion.c.id)
    with database.reading() as connection:
        chosen = connection.scalars(queue.where(schema.suggestion.c.state == "unreviewed").limit(VERDICTS)).all()
        columns = (schema.suggestion.c.id, schema.copy_match.c.image_id, schema.copy_match.c.other_id)
        joined = schema.suggestion.join(schema.copy_match, schema.copy_match.c.id == schema.suggestion.c.result_id)
        pair = {row[0]: (row[1], row[2]) for row in connection.execute(sa.select(*columns).select_from(joined))}
    slips = set(random.Random(1).sample(list(chosen), round(SLIPS * len(chosen))))
    for one in chosen:
        right = truth[pair[one]] != (one in slips)
        cast(database, settings, Reviewer("simulated"), {one: Decision.accept if right else Decision.reject})
    database.close()
    with contextlib.redirect_stdout(io.StringIO()):
        isc(["feedback", "export", "--data", str(settings.data), str(folder / "exported")])
    return folder / "exported", len(chosen), len(slips)


def _told(
    database: Database, settings: Settings, number: int, *, collection: Collection, known: Mapping[str, int],
    half: frozenset[str],
) -> dict[tuple[int, int], bool]:  # fmt: skip
    """Store what the provider says about the queries of this half; return the truth by both pictures' numbers."""
    by_query: dict[str, list[Pair]] = {}
    for pair in collection.pairs:
        if f"{collection.name} {pair.query}" in half:
            by_query.setdefault(pair.query, []).append(pair)
    truth = {}
    for query, pairs in by_query.items():
        (asked,) = _taken(database, collection.name, [query])
        (held,) = lease(database, [number], limit=1, seconds=600)
        matches = [
            CopyMatch(known[p.reference], p.distance**0.5, p.shown, p.verdict.value, evidence={"fused": p.fused})
            for p in pairs
        ]
        assert store(database, settings, held, "copy", matches)
        truth |= {(asked, known[pair.reference]): pair.copy for pair in pairs}
    return truth


def _known(database: Database, collection: Collection) -> dict[str, int]:
    """Take the references in; those that no pair names have names of ours."""
    named = list(dict.fromkeys(pair.reference for pair in collection.pairs))
    names = [*named, *(f"other {at}" for at in range(collection.references - len(named)))]
    return dict(zip(names, _taken(database, collection.name, names), strict=True))


def _taken(database: Database, name: str, pictures: Sequence[str]) -> list[int]:
    new = [NewImage(hashlib.sha256(f"{name} {one}".encode()).hexdigest(), 1, one, "/nonexistent") for one in pictures]
    return [number for number, _ in take_in(database, new)]


def calibrated(runs: Sequence[tuple[Path, Path]], output: Path) -> Calibration | None:
    """Fit a calibration to (run, ground truth) by the command; None if it says that there are too few of a kind."""
    given = [word for run, truth in runs for word in ("--run", str(run), "--ground-truth", str(truth))]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            isc(["calibrate", *given, "--precision", str(PRECISION), "--output", str(output)])
    except SystemExit:
        return None
    return read_calibration(output).calibration


def error(probabilities: Floats, copy: npt.NDArray[np.bool_]) -> float:
    """Return the calibration error: the mean distance of ten bins' mean probability from their share of copies."""
    bins = reliability(probabilities, copy)
    return sum(one.pairs * abs(one.mean - one.correct) for one in bins) / max(1, len(copy))


def threshold(calibration: Calibration) -> float:
    """Return the probability from which pairs are accepted for the promised precision; 1 if it was never reached."""
    found = next(one.threshold for one in calibration.thresholds if one.precision == PRECISION)
    return 1.0 if found is None else found


def measured(
    pairs: Sequence[Pair], queries: Sequence[str], base: Calibration, new: Calibration, *, after: Floats
) -> dict[str, object]:
    """Return precision above the threshold and calibration error on these pairs, before and with `after` [S]."""
    copy = np.array([pair.copy for pair in pairs])
    before = np.array([pair.shown for pair in pairs])
    bars = (threshold(base), threshold(new))

    def figures(rows: npt.NDArray[np.intp]) -> tuple[float, ...]:
        kept = [copy[rows][values[rows] >= bar] for values, bar in zip((before, after), bars, strict=True)]
        shares = [float(one.mean()) if len(one) else np.nan for one in kept]
        errors = [error(values[rows], copy[rows]) for values in (before, after)]
        return (*shares, shares[1] - shares[0], *errors, errors[1] - errors[0])

    whole = figures(np.arange(len(pairs)))
    draws = np.array([figures(rows) for rows in resampled([pair.query for pair in pairs], queries)])
    low, high = np.nanpercentile(draws, [2.5, 97.5], axis=0)
    said = [
        "none accepted" if np.isnan(value) else f"{value:.3f} ({a:.3f} … {b:.3f})"
        for value, a, b in zip(whole, low, high, strict=True)
    ]
    recall = [
        int(copy[values >= bar].sum()) / int(copy.sum()) for values, bar in zip((before, after), bars, strict=True)
    ]
    return {
        "suggestions without a verdict": f"{len(pairs):,}", "of them copies": f"{int(copy.sum()):,}",
        "promised": PRECISION, "precision before": said[0], "precision after": said[1], "gain": said[2],
        "copies kept before": f"{recall[0]:.3f}", "copies kept after": f"{recall[1]:.3f}",
        "calibration error before": said[3], "calibration error after": said[4], "change of the error": said[5],
    }  # fmt: skip


def resampled(of: Sequence[str], queries: Sequence[str]) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the rows of bootstrap samples of the queries."""
    rows: dict[str, list[int]] = {query: [] for query in queries}
    for at, query in enumerate(of):
        rows[query].append(at)
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        drawn = rng.integers(0, len(queries), len(queries))
        yield np.array([row for at in drawn for row in rows[queries[at]]], np.intp)


def row(before: str, runs: Sequence[Run], base: Calibration) -> dict[str, object]:
    """Review half of the queries of these runs, and measure on the other half; `before` names the calibration."""
    collections = [collection_of(run, base) for run in runs]
    every = [f"{one.name} {query}" for one in collections for query in one.queries]
    half = frozenset(np.random.default_rng(3).permutation(every)[: len(every) // 2].tolist())
    with tempfile.TemporaryDirectory(prefix="isc-feedback-") as folder:
        exported, verdicts, slips = reviewed(collections, half, Path(folder))
        new = calibrated([(exported, exported / "ground_truth.csv")], Path(folder) / "mine.json")
    rest, after = [], []
    references = sum(one.references for one in collections)
    for one in collections:
        anew = probabilities(new or base, one.every, references)
        for pair, row in zip(one.pairs, one.told, strict=True):
            if (query := f"{one.name} {pair.query}") not in half:
                rest.append(replace(pair, query=query))
                after.append(float(anew[row]))
    queries = [query for query in every if query not in half]
    found = measured(rest, queries, base, new or base, after=np.array(after))
    if new is None:  # the command has said why
        found |= {name: "not fitted" for name in found if "after" in name or name in ("gain", "change of the error")}
    names = " and ".join(one.name for one in collections)
    return {"collection": names, "calibration before": before, "verdicts": verdicts, "slips": slips, **found}


def fitted_without(run: Run, runs: Sequence[Run]) -> Calibration | None:
    """Return a calibration of the other runs: this collection is then one that no calibration has seen."""
    others = [(one.folder, one.truth_path) for one in runs if one is not run]
    with tempfile.TemporaryDirectory(prefix="isc-feedback-") as folder:
        return calibrated(others, Path(folder) / "others.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="JUDGE=RUN_DIR:GT.csv")
    runs = [read(text) for text in parser.parse_args().runs]
    rows = [row("as shipped", runs, _shipped())] if len(runs) > 1 else []
    for run in runs:
        if len(runs) > 1 and (others := fitted_without(run, runs)) is not None:
            rows.append(row("fitted on the others", [run], others))
        rows.append(row("as shipped", [run], _shipped()))
    save("feedback", rows)


if __name__ == "__main__":
    main()
