"""A model's predictions on a benchmark, made once by the verbs' own commands."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.judge_score import MODEL_FILE, ROLES, Scored, _extract, _match
from isc.benchmark.baselines import HASHES, hasher, write_hashes
from isc.data.csv_files import read_predictions
from isc.data.matches import Matches
from isc.data.model_files import SHIPPED, beside_model
from isc.errors import InputError
from isc.photos.folders import list_images

TIMM = "timm:"
FUSION = "fusion.json"
NEAREST = 10  # references of each query


@dataclass(frozen=True)
class Model:
    """A row's name, and its model: a value of extract.py's model=, timm:NAME, PDQ, pHash or dHash."""

    name: str
    model: str


@dataclass(frozen=True)
class Judged:
    """A model's predictions, and the metrics of match.py over all queries."""

    name: str
    matches: Matches
    metrics: Mapping[str, Any]


def named(argument: str) -> Model:
    """Return the model of NAME=MODEL, or of a MODEL alone, whose name is the last part of its path.

    Raises InputError if the name or the model is empty.
    """
    name, equals, model = argument.partition("=")
    if not equals or "://" in name or Path(argument).exists():
        return Model(Path(argument.partition("#")[0]).name, argument)
    if not name or not model:
        raise InputError(f"{argument!r}: expected MODEL or NAME=MODEL")
    return Model(name, model)


def models(arguments: Sequence[str]) -> list[Model]:
    """Return the models of the arguments. Raises InputError if two have the same name."""
    found = [named(argument) for argument in arguments]
    for at, one in enumerate(found):
        for other in found[:at]:
            if other.name == one.name:
                raise InputError(f"{other.model} and {one.model} are both called {one.name}; give NAME=MODEL")
    return found


def has_fusion(model: Model) -> bool:
    """Return whether a fusion of local evidence is stored with the model."""
    return beside_model(model.model, FUSION).is_file()


def judge(model: Model, bench: Path, work: Path) -> Judged:
    """Return the ten nearest references of each query by descriptors, which are kept below `work`."""
    descriptors = work / _key(model.model)
    if model.model in HASHES:
        by = hasher(model.model)
        for role in ROLES:
            write_hashes(bench / role, descriptors / f"{role}.h5", by=by)
    else:
        file = _timm_file(model.model, work) if model.model.startswith(TIMM) else model.model
        for role in ROLES:
            _extract(bench / role, descriptors / f"{role}.h5", file, ())
    return _read(_match(model.name, bench, descriptors, descriptors / "matched", f"k={_nearest(bench)}"))


def judge_matching(model: Model, bench: Path, work: Path) -> Judged:
    """Return the ten best references of each query by the matching track; call `judge` first.

    An existing result by the same model and the same fusion is used again.
    """
    descriptors, name = work / _key(model.model), f"{model.name}, local verification"
    fusion = hashlib.sha256(beside_model(model.model, FUSION).read_bytes()).hexdigest()[:16]
    output = descriptors / f"matching-{fusion}"
    if (output / "metrics.json").is_file():
        return _read(Scored(name, json.loads((output / "metrics.json").read_text(encoding="utf-8")), output))
    pictures = (f"query_images={bench / 'queries'}", f"reference_images={bench / 'references'}")
    options = ("track=matching", *pictures, f"features={work / 'features'}", f"k={_nearest(bench)}")
    return _read(_match(name, bench, descriptors, output, *options))


def _nearest(bench: Path) -> int:
    return min(NEAREST, len(list_images(bench / "references")))


def _read(scored: Scored) -> Judged:
    path = scored.folder / "predictions.csv"
    return Judged(scored.name, read_predictions(path, max_rows=10**9), scored.metrics)


def _key(model: str) -> str:
    """Return a folder name for a model's results, by a hash of its weights if they are a file."""
    shipped, path = SHIPPED / f"{model}.safetensors", Path(model)
    path = shipped if shipped.is_file() else path / MODEL_FILE if path.is_dir() else path
    readable = re.sub(r"\W+", "_", path.stem if path.is_file() else model)[-60:]
    return f"{readable}-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}" if path.is_file() else readable


def _timm_file(model: str, work: Path) -> str:
    """Return a model file with a backbone and weights of timm; write it if it does not exist.

    Features are pooled by GeM with p = 3 and projected to 256 numbers by a random orthogonal matrix, which nearly keeps
    their angles. For the default backbone this is the model `imagenet`.
    """
    path = work / "timm" / f"{re.sub(r'[^-.0-9A-Za-z]+', '_', model.removeprefix(TIMM))}.safetensors"
    if not path.is_file():
        from isc.config.train import ModelConfig
        from isc.model.files import save_model
        from isc.model.load import initial_model

        path.parent.mkdir(parents=True, exist_ok=True)
        save_model(path, initial_model(ModelConfig(backbone=model.removeprefix(TIMM))), {"model": model})
    return str(path)
