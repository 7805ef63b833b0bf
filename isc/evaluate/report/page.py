"""The HTML page of a run: metrics, curves, histogram, edits, and sheets of the hardest finds and the worst mistakes.

It is one file that needs no network. Charts are SVG paths made from numpy arrays, so that a report needs no plotting
library and follows the reader's light or dark scheme.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from isc import __version__
from isc.data.files import write_text
from isc.data.matches import GroundTruth, Matches
from isc.evaluate.bootstrap import Resampled, bootstrap, intervals
from isc.evaluate.metrics import Curve, Metrics, Scores, evaluate, precision_recall, reliability
from isc.evaluate.report.by_edit import edit_changes, edit_kind, edit_table
from isc.evaluate.report.charts import Chart, curve_chart, histogram_chart, number, reliability_chart
from isc.evaluate.report.comparison import Comparison, p_text, signed
from isc.evaluate.report.galleries import Sheet, best_sheet, changed_sheets, sheets
from isc.evaluate.report.pair_outcomes import PairOutcomes, apart, as_score, judge
from isc.evaluate.report.texts import probability_text
from isc.evaluate.report.thumbnails import Evidence, Pictures, picture_maker

if TYPE_CHECKING:
    from jinja2 import Template

Edits = Mapping[str, Sequence[str]]
Key = tuple[str, str]  # (query, reference) id

TIES_SHOWN = 0.001  # difference of μAP by the order of equal scores from which the page has a notice


@dataclass(frozen=True)
class Judgement:
    """A run judged by the ground truth; `threshold` has the float type of the scores."""

    metrics: Metrics
    resampled: Resampled
    judged: PairOutcomes
    threshold: float | None


def write_report(
    path: Path,
    matches: Matches,
    *,
    title: str,
    metrics: Metrics | None = None,
    ground_truth: GroundTruth | None = None,
    pictures: Pictures | None = None,
    edits: Edits | None = None,
    evidence: Mapping[tuple[str, str], Evidence] | None = None,
    flags: Mapping[tuple[str, str], str] | None = None,
    provenance: Mapping[str, str] | None = None,
    probabilities: bool = False,
    calibrated: npt.NDArray[np.float64] | None = None,
    accepted: npt.NDArray[np.bool_] | None = None,
    acceptance: str = "",
    resampled: Resampled | None = None,
    compare: Comparison | None = None,
) -> None:
    """Write the page to `path`.

    `edits` holds the names of each query's edits, by query id; `evidence` the matching regions, by (query, reference)
    id; `flags` why the probability of a pair may not hold, None if no pixels were compared. With `probabilities` the
    scores are probabilities, and the page shows their reliability; with `calibrated` [M], the probabilities of
    `matches`, it shows theirs, and with `accepted` [M] whether each pair reaches the threshold of the calibration,
    which `acceptance` describes. Missing `metrics` and `resampled` (`bootstrap` at 90 % precision) are computed from
    the ground truth; without ground truth the page shows the scores and the best pairs.
    `compare` adds another run judged by the same ground truth. Without `pictures` the sheets are tables. A picture that
    cannot be read is replaced by the reason.
    """
    judgement = _judgement(matches, ground_truth, metrics, resampled) if ground_truth else None
    all_sheets = sheets(judgement.judged, judgement.threshold) if judgement else [best_sheet(matches)]
    if compare:
        all_sheets = [*changed_sheets(compare.judged, compare.before, compare.other.name), *all_sheets]
    believed = calibrated if calibrated is not None else matches.score if probabilities else None
    page = _template().render(
        title=title,
        version=__version__,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        metrics=judgement.metrics if judgement else None,
        intervals=intervals(judgement.resampled) if judgement else {},
        resamples=len(judgement.resampled.average_precision) if judgement else 0,
        num_queries=len(ground_truth.queries) if ground_truth else 0,
        num_predictions=len(matches),
        ties_show=judgement is not None and np.diff(judgement.metrics.tie_range)[0] >= TIES_SHOWN,
        tie_range=apart(*judgement.metrics.tie_range) if judgement else (),
        curve=_curve(judgement, compare) if judgement else None,
        histogram=_histogram(matches, judgement) if len(judgement.judged.matches if judgement else matches) else None,
        reliability=_reliability(matches, ground_truth, believed) if ground_truth and believed is not None else None,
        edit_rows=edit_table(judgement.judged, edits) if judgement and edits else [],
        compare=compare,
        edit_changes=edit_changes(compare.judged, compare.before, edits) if compare and edits else [],
        sheets=all_sheets,
        kinds=_kinds(all_sheets, edits or {}),
        edits=edits or {},
        evidence=evidence or {},
        flags=flags or {},
        no_pixels=flags is None and believed is not None,
        picture=picture_maker(pictures) if pictures else None,
        acceptance=acceptance,
        said=_said(matches, all_sheets, believed, accepted, is_score=calibrated is None),
        links=_links(path.parent, pictures, all_sheets),
        provenance=provenance or {},
    )
    write_text(path, page)


def _said(
    matches: Matches,
    all_sheets: Sequence[Sheet],
    probability: npt.NDArray[np.floating] | None,
    accepted: npt.NDArray[np.bool_] | None,
    *,
    is_score: bool,
) -> dict[Key, dict[str, object]]:
    """Return for each shown pair its probability in words, and whether it is accepted; empty without probabilities."""
    if probability is None:
        return {}
    wanted = {pair.key for sheet in all_sheets for pair in sheet.pairs}
    queries, references = {query for query, _ in wanted}, {reference for _, reference in wanted}
    of_query = np.isin(matches.query, [i for i, name in enumerate(matches.query_ids) if name in queries])
    of_reference = np.isin(matches.reference, [i for i, name in enumerate(matches.reference_ids) if name in references])
    found: dict[Key, dict[str, object]] = {}
    for row in np.flatnonzero(of_query & of_reference).tolist():
        key = matches.query_ids[matches.query[row]], matches.reference_ids[matches.reference[row]]
        if key in wanted:
            verdict = "" if accepted is None else "accepted" if accepted[row] else "not accepted"
            shown = probability_text(float(probability[row]))
            found[key] = {"probability": shown, "verdict": verdict, "is_score": is_score}
    return found


def _links(folder: Path, pictures: Pictures | None, all_sheets: Sequence[Sheet]) -> dict[str, dict[str, str]]:
    """Return for both sides {id: path of the file, relative to the page's folder} of the shown pairs."""
    if pictures is None:
        return {"query": {}, "reference": {}}
    shown = [pair for sheet in all_sheets for pair in sheet.pairs]
    sides = {"query": (pictures.queries, {pair.query for pair in shown})}
    sides["reference"] = (pictures.references, {pair.reference for pair in shown})
    return {
        side: {name: Path(os.path.relpath(files[name], folder)).as_posix() for name in sorted(names) if name in files}
        for side, (files, names) in sides.items()
    }


def _judgement(
    matches: Matches, ground_truth: GroundTruth, metrics: Metrics | None, resampled: Resampled | None
) -> Judgement:
    metrics = metrics or evaluate(matches, ground_truth)
    threshold = as_score(metrics.threshold_at_p90, matches)
    return Judgement(
        metrics=metrics,
        resampled=resampled or bootstrap(matches, ground_truth),
        judged=judge(matches, ground_truth, threshold),
        threshold=threshold,
    )


def _curve(judgement: Judgement, compare: Comparison | None) -> Chart:
    recall = judgement.metrics.recall_at_p90
    before = _whole_curve(compare.before) if compare else None
    return curve_chart(_whole_curve(judgement.judged), recall, band=judgement.resampled.curve, other=before)


def _whole_curve(judged: PairOutcomes) -> Curve:
    return precision_recall(judged.matches.score, judged.correct, len(judged.pairs))


def _histogram(matches: Matches, judgement: Judgement | None) -> Chart:
    if judgement is None:
        return histogram_chart(matches.score, None, None)
    return histogram_chart(judgement.judged.matches.score, judgement.judged.correct, judgement.threshold)


def _reliability(matches: Matches, ground_truth: GroundTruth, probability: Scores) -> Chart | None:
    rows = ground_truth.judged(matches)
    believed = reliability(probability[rows], ground_truth.correct(matches)[rows])
    return reliability_chart(believed) if believed else None


def _kinds(all_sheets: Sequence[Sheet], edits: Edits) -> list[str]:
    """Return the kinds of edit of the shown pairs, for the filter of the page."""
    queries = {pair.query for sheet in all_sheets for pair in (*sheet.pairs, *sheet.more)}
    return sorted({edit_kind(name) for query in queries for name in edits.get(query, ())})


@cache
def _template() -> Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("isc.evaluate.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "signed": signed,
        "p_text": p_text,
        "edit_kind": edit_kind,
    }
    environment.globals |= {"points": _points, "known": _known, "percent": percent}
    return environment.get_template("report.html")


def percent(share: float) -> str:
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def _known(value: float) -> bool:
    return not math.isnan(value)


def _points(region: object) -> str:
    return " ".join(f"{x:.4f},{y:.4f}" for x, y in np.asarray(region))
