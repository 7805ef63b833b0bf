"""Flags of pairs: why a probability may not hold, from the evidence of the pixels."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.csv_files import write_csv
from isc.data.files import write_text
from isc.data.matches import Matches
from isc.match.verification.quantities import EVIDENCE

Evidence = npt.NDArray[np.float32]
Texts = npt.NDArray[np.object_]
Mask = npt.NDArray[np.bool_]

FEW_FEATURES = 40  # local features below which a picture is plain: there is too little in it to compare
DOCUMENT = 0.5  # share of one grey level from which a picture is like a document: a page, a chart, a window, a drawing
DARK = 0.25  # grey level, 0…1, that 5 % of a picture have to exceed, or it is dark
PLAIN, DOCUMENT_LIKE, TOO_DARK = "plain", "document-like", "dark"
NO_PIXELS = "pixels not compared"
SIDES = ("query", "reference")
COLUMN = {name: at for at, name in enumerate(EVIDENCE)}


def flags_of(evidence: Evidence | None) -> tuple[str, ...]:
    """Return why the probability of a pair may not hold, from its evidence [E]: the flags of either picture."""
    if evidence is None:
        return ()
    if np.isnan(evidence).all():
        return (NO_PIXELS,)
    return tuple(name for name, held in _held(evidence[None]).items() if held[0])


def pair_flags(pairs: Matches, candidates: Matches | None = None, evidence: Evidence | None = None) -> Texts:
    """Return the flags of each pair [M] as a text such as `plain:query;dark`; empty if there is none.

    `evidence` [P, E] is that of the candidates, over the same tables of ids; a pair without evidence has NO_PIXELS, as
    all have if no pixels were compared. A flag has the side, query or reference, if it holds for this picture alone. Of
    page-like and dark pictures the evidence has the value of the pair; the other candidates tell which picture it is: a
    picture with a pair that has no such flag has none itself. Without a side the flag holds for both, or for one of
    them that the candidates do not tell.
    """
    texts = np.full(len(pairs), NO_PIXELS, object)
    if candidates is None or evidence is None or not len(candidates):
        return texts
    compared = np.asarray(~np.isnan(evidence).all(axis=1))
    flags = _sided(candidates, evidence, compared)
    order = np.argsort(candidates.keys(), kind="stable")
    keys = candidates.keys()[order]
    at = np.searchsorted(keys, pairs.keys()).clip(0, len(keys) - 1)
    rows = order[at]
    known = (keys[at] == pairs.keys()) & compared[rows]
    texts[known] = flags[rows[known]]
    return texts


def write_flags(path: Path, flags: Sequence[str]) -> None:
    """Add the column `flags` to a CSV with a header and a row for each of the texts."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    write_csv(path, (*header, "flags"), ((*row, told) for row, told in zip(rows, flags, strict=True)))


def write_evidence_flags(path: Path, flags: Mapping[tuple[str, str], str]) -> None:
    """Add `flags`, a list of texts, to each record of an evidence.jsonl, by (query, reference) id."""
    records = (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line)
    lines = (one | {"flags": as_list(flags.get((one["query_id"], one["reference_id"]), ""))} for one in records)
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def flagged(pairs: Matches, flags: Texts) -> dict[tuple[str, str], str]:
    """Return the flags [M] of the pairs that have some, by (query, reference) id."""
    return {
        (pairs.query_ids[pairs.query[row]], pairs.reference_ids[pairs.reference[row]]): flags[row]
        for row in np.flatnonzero(flags != "").tolist()
    }


def as_list(flags: str) -> list[str]:
    """Return the flags of a text that `pair_flags` made."""
    return flags.split(";") if flags else []


def _held(evidence: Evidence) -> dict[str, Mask]:
    """Return for each flag whether either picture of each pair [P] has it."""
    few = evidence[:, [COLUMN["features_query"], COLUMN["features_reference"]]].min(axis=1) < FEW_FEATURES
    return {
        PLAIN: few,
        DOCUMENT_LIKE: ~few & (evidence[:, COLUMN["flat"]] > DOCUMENT),
        TOO_DARK: evidence[:, COLUMN["light"]] < DARK,
    }


def _sided(candidates: Matches, evidence: Evidence, compared: Mask) -> Texts:
    """Return the flags of each candidate [P] with their sides, as texts."""
    texts = np.full(len(evidence), "", object)
    for name, held in _held(evidence).items():
        if name == PLAIN:
            query, reference = (evidence[:, COLUMN[f"features_{side}"]] < FEW_FEATURES for side in SIDES)
        else:
            without = compared & ~(evidence[:, COLUMN["flat"]] > DOCUMENT if name == DOCUMENT_LIKE else held)
            query = ~_are_in(candidates.query, without)
            reference = ~_are_in(candidates.reference, without)
        for rows, side in ((held & query & ~reference, ":query"), (held & reference & ~query, ":reference"),
                           (held & (query == reference), "")):  # fmt: skip
            texts[rows & (texts != "")] += ";"
            texts[rows] += name + side
    return texts


def _are_in(pictures: npt.NDArray[np.integer], rows: Mask) -> Mask:
    """Return for each pair [P] whether its picture, by number, is in one of the pairs of the mask."""
    found = np.zeros(int(pictures.max()) + 1, bool)
    found[pictures[rows]] = True
    return np.asarray(found[pictures])
