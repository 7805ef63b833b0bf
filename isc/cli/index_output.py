"""The output of isc-index as a table, CSV, JSON or text."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import numpy.typing as npt

from isc.data.csv_files import PREDICTION_COLUMNS
from isc.data.matches import Matches
from isc.search.index.index import Stats
from isc.search.index.manifest import Manifest
from isc.search.index.writer import Added


def added_text(added: Added) -> str:
    return f"{added.new:,} added, {added.replaced:,} replaced, {added.skipped:,} left as they were"


def distances(matches: Matches) -> npt.NDArray[np.float64]:
    return np.sqrt(0.0 - matches.score.astype(np.float64))


def _by_query(matches: Matches) -> npt.NDArray[np.int64]:
    """Return the order of the matches: by query, then by descending score."""
    return np.lexsort((matches.reference, -matches.score, matches.query)).astype(np.int64)


def as_table(matches: Matches) -> str:
    """Format the matches as a text table, query by query, the best match first; queries without a match come last."""
    order, distance = _by_query(matches), distances(matches)
    rows = [("query", "reference", "distance", "score")]
    for at in order:
        query, reference = matches.query_ids[matches.query[at]], matches.reference_ids[matches.reference[at]]
        rows.append((query, reference, f"{distance[at]:.4f}", f"{matches.score[at]:z.4f}"))
    without = np.setdiff1d(np.arange(len(matches.query_ids)), matches.query)
    rows += [(matches.query_ids[at], "–", "", "") for at in without]
    wide, wider = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "".join(f"{q:{wide}}  {r:{wider}}  {d:>8}  {s:>8}".rstrip() + "\n" for q, r, d, s in rows)


def as_csv(matches: Matches) -> str:
    """Format the matches as predictions `query_id,reference_id,score`, as `match.py` reads and writes them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(PREDICTION_COLUMNS)
    for at in matches.order():
        query, reference = matches.query_ids[matches.query[at]], matches.reference_ids[matches.reference[at]]
        writer.writerow((query, reference, str(matches.score[at])))
    return text.getvalue()


def as_json(matches: Matches) -> str:
    """Format the matches as a list of {query, matches: [{reference, score, distance}]}, including empty queries."""
    distance = distances(matches)
    found: dict[int, list[dict[str, object]]] = {at: [] for at in range(len(matches.query_ids))}
    for at in _by_query(matches):
        reference = matches.reference_ids[matches.reference[at]]
        score = float(str(matches.score[at]))  # only the digits that a float32 needs
        one = {"reference": reference, "score": score, "distance": float(distance[at])}
        found[int(matches.query[at])].append(one)
    answer = [{"query": matches.query_ids[at], "matches": one} for at, one in found.items()]
    return json.dumps(answer, indent=2, ensure_ascii=False) + "\n"


def as_text(stats: Stats) -> str:
    weights = stats.provenance.get("weights_sha256", "not said")[:12]
    lines = {
        "images": f"{stats.images:,}",
        "numbers each": f"{stats.dim}",
        "model": f"{stats.model or stats.provenance.get('model', 'not said')} (weights {weights})",
        "on the disk": f"{stats.bytes:,} bytes",
        "rows": f"{stats.rows:,}, {stats.dead_rows:,} of them dead",
        "generation": f"{stats.generation}",
        "created": stats.created,
        "changed": stats.changed,
    }
    return "\n".join(f"{name:14}{value}" for name, value in lines.items())


def model_text(manifest: Manifest) -> str:
    model = manifest.model or manifest.provenance.get("model", "a model that is not named")
    return f"descriptors of {manifest.dim} numbers by {model}"
