"""Scores of models on a judge by the project's own commands, with standard errors and recall by edit."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.apart import left_out
from isc.cli.demo import pdq_descriptors
from isc.data.csv_files import read_ground_truth, read_predictions, write_ground_truth
from isc.data.hdf5 import MAX_DIM, read_descriptors
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.photos.sources import list_photos

ROLES = ("queries", "references")
APART = "ground_truth_apart.csv"  # without the queries of photos that show the same as a training photo
MODEL_FILE = "model.safetensors"  # of a run folder


@dataclass(frozen=True)
class Scored:
    """A model's metrics by match.py, and the folder with its predictions."""

    name: str
    metrics: Mapping[str, Any]
    folder: Path


def judged_truth(judge: Path) -> Path:
    """Return a ground truth without the queries whose photo shows the same as a training photo (benchmarks.apart).

    Without such queries this is the judge's own file, else one beside it, which is written anew.
    """
    known = left_out()
    if not known:
        return judge / "ground_truth.csv"
    lines = map(json.loads, (judge / "edits.jsonl").read_text(encoding="utf-8").splitlines())
    dropped = {line["query_id"] for line in lines if line.get("source") in known}
    if not dropped:
        return judge / "ground_truth.csv"
    truth = read_ground_truth(judge / "ground_truth.csv")
    copies = {query for query, _ in truth.pairs}
    rows = [*truth.pairs, *((query, "") for query in truth.queries - copies)]
    write_ground_truth(judge / APART, sorted(row for row in rows if row[0] not in dropped))
    return judge / APART


def score(
    judge: Path,
    models: Sequence[str],
    *,
    image_size: int | None = None,
    normalize: str | None = None,
    training: Path | None = None,
    verified: str | None = None,
) -> list[Scored]:
    """Return a row for PDQ, if it is installed, and for every model, each given as MODEL or NAME=MODEL.

    Descriptors are kept in judge/descriptors, by model and size. `normalize` is match.py's option, fitted on the photos
    of the folder `training`; give both or neither. The model with the name `verified` gets a second row: the matching
    track with the pictures of both sides. Raises InputError with the error message of a command that fails.
    """
    if (normalize is None) != (training is None):
        raise InputError(f"--normalize={normalize}, --training={training}: they go together; give both or neither")
    rows = []
    pdq = judge / "descriptors" / "pdq"
    if all((pdq / f"{role}.h5").exists() for role in ROLES) or pdq_descriptors(judge, pdq):
        rows.append(_match("PDQ, an outside baseline", judge, pdq, pdq / "matched"))
    for name, model in map(_named, models):
        print(f"{name} …", flush=True)
        folder = judge / "descriptors" / (_key(model) + ("" if image_size is None else f"-{image_size}"))
        size = [] if image_size is None else [f"image_size={image_size}"]
        for role in ROLES:
            _extract(judge / role, folder / f"{role}.h5", model, size)
        row = name + ("" if image_size is None else f", {image_size} px")
        if training is None:
            rows.append(_match(row, judge, folder, folder / "matched"))
            if name == verified:
                pictures = (f"query_images={judge / ROLES[0]}", f"reference_images={judge / ROLES[1]}")
                looked = f"{row} + local verification"
                rows.append(_match(looked, judge, folder, folder / "verified", "track=matching", *pictures))
            continue
        fitted_on = folder / f"training-{list_photos(training, key='training').sha256()[:16]}.h5"
        _extract(training, fitted_on, model, size)
        options = (f"training={fitted_on}", f"normalize={normalize}")
        rows.append(_match(f"{row}, {normalize}", judge, folder, folder / f"matched-{normalize}", *options))
    return rows


def _named(argument: str) -> tuple[str, str]:
    """Return name and model of NAME=MODEL; the name of a MODEL alone is the last part of its path."""
    name, _, model = argument.partition("=")
    if not model or Path(argument).exists():
        return Path(argument).name, argument
    return name, model


def _key(model: str) -> str:
    """Return a folder name for a model's descriptors: a hash of its file, which changes with further training."""
    path = Path(model) / MODEL_FILE if Path(model).is_dir() else Path(model)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else re.sub(r"\W", "_", model)


def _extract(images: Path, output: Path, model: str, size: Sequence[str]) -> None:
    """Run extract.py, which keeps an existing file if it was made in the same way."""
    _command("extract", f"images={images}", f"output={output}", f"model={model}", "strict=true", *size)


def _match(name: str, judge: Path, descriptors: Path, output: Path, *options: str) -> Scored:
    files = [f"{role}={descriptors / f'{role}.h5'}" for role in ROLES]
    # wider than the descriptor track allows; without photos the matching track scores by distance too
    if read_descriptors(descriptors / f"{ROLES[0]}.h5").dim > MAX_DIM:
        options = ("track=matching", *options)
    _command("match", *files, f"ground_truth={judged_truth(judge)}", f"output={output}", *options)
    return Scored(name, json.loads((output / "metrics.json").read_text(encoding="utf-8")), output)


def _command(verb: str, *arguments: str) -> None:
    """Run a verb quietly in its own process. Raises InputError with its error message if it fails."""
    code = f"import sys; from isc.cli.verbs import {verb}; sys.argv[0] = 'isc {verb}'; {verb}()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"isc {verb} {' '.join(arguments)}: {done.stderr.strip().removeprefix('error: ')}")


def standard_error(matches: Matches, truth: GroundTruth, *, resamples: int = 300) -> float:
    """Return the standard error of μAP: queries are drawn again, with repetition (the bootstrap).

    It holds for one model on other queries of this kind; the difference of two models on the same queries varies less.
    """
    matches = matches.take(truth.judged(matches))
    order = np.lexsort((truth.correct(matches), -matches.score))
    correct, query = truth.correct(matches)[order], matches.query[order]
    copies = {query_id for query_id, _ in truth.pairs}
    ids = sorted(truth.queries)
    place = {query_id: i for i, query_id in enumerate(ids)}
    column = np.array([place.get(name, -1) for name in matches.query_ids])[query]
    is_copy = np.array([name in copies for name in ids])
    rng = np.random.default_rng(0)
    found = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(len(ids), size=len(ids)), minlength=len(ids)).astype(float)
        weight = times[column]
        precision = np.cumsum(weight * correct) / np.maximum(np.cumsum(weight), 1e-12)
        found.append(float(np.sum(weight * correct * precision) / max(times[is_copy].sum(), 1)))
    return float(np.std(found))


def judge_name(judge: Path) -> str:
    """Return the name of a judge's tables: `judge` for AugLy's edits, `judge_tools` for those of the tools."""
    made = judge / "judge.json"
    edits = json.loads(made.read_text(encoding="utf-8")).get("edits", "augly") if made.exists() else "augly"
    return "judge" if edits == "augly" else f"judge_{edits}"


def recall_by_edit(judge: Path, rows: Sequence[Scored]) -> list[dict[str, object]]:
    """Return one row per edit: the copies with it in their chain, and the share that each model finds.

    A copy is found if its score reaches the threshold of 90 % precision.
    """
    truth = read_ground_truth(judged_truth(judge))
    chains = {
        line["query_id"]: [edit["name"] for edit in line["edits"]]
        for line in map(json.loads, (judge / "edits.jsonl").read_text(encoding="utf-8").splitlines())
        if line["reference_id"] and line["query_id"] in truth.queries
    }
    found = {row.name: _found(row, truth) for row in rows}
    kinds = {
        name: {query for query, chain in chains.items() if name in chain}
        for name in sorted(set().union(*chains.values()))
    }
    kinds |= {_edits(number): {q for q, chain in chains.items() if len(chain) == number} for number in (1, 2, 3, 4)}
    return [
        {"edit": kind, "copies": len(copies)}
        | {name: f"{len(copies & ids) / len(copies):.2f}" for name, ids in found.items()}
        for kind, copies in kinds.items()
        if copies
    ]


def _edits(number: int) -> str:
    return "one edit" if number == 1 else f"{number} edits"


def _found(row: Scored, truth: GroundTruth) -> set[str]:
    """Return the queries whose correct pair scores at or above the threshold of 90 % precision."""
    threshold = row.metrics["threshold_at_p90"]
    if threshold is None:
        return set()
    matches = read_predictions(row.folder / "predictions.csv")
    kept = matches.take(truth.correct(matches) & (matches.score >= np.float32(threshold)))
    return {str(matches.query_ids[i]) for i in kept.query}


def summary(judge: Path, rows: Sequence[Scored]) -> list[dict[str, object]]:
    truth = read_ground_truth(judged_truth(judge))
    return [
        {
            "": row.name,
            "μAP": f"{row.metrics['average_precision']:.3f}",
            "standard error": f"{standard_error(read_predictions(row.folder / 'predictions.csv'), truth):.3f}",
            "μAP, 95 %": _span(row.metrics["intervals"]["average_precision"]),
            "recall at 90 % precision": f"{row.metrics['recall_at_p90']:.3f}",
            "recall at rank 1": f"{row.metrics['recall_at_rank1']:.3f}",
        }
        for row in rows
    ]


def _span(ends: Sequence[float] | None) -> str:
    return "" if ends is None else " … ".join(f"{end:.3f}" for end in ends)
