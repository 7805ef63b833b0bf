"""What `match.py` is given, read and held against one another before anything is searched."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isc import __version__
from isc.config import MatchConfig, Normalize, Track
from isc.descriptors import Descriptors, GroundTruth, Matches
from isc.errors import InputError
from isc.io import (
    MAX_DIM,
    read_descriptors,
    read_ground_truth,
    read_predictions,
    read_provenance,
    read_submission,
)

log = logging.getLogger(__name__)

OUTPUTS = ("predictions.csv", "submission.h5", "metrics.json", "evidence.jsonl")  # beside report/index.html


@dataclass(frozen=True)
class Sets:
    """The two sides of a run, of the same number of dimensions, and where they came from."""

    queries: Descriptors
    references: Descriptors
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """`predictions` of a submitted CSV file, otherwise `sets` to search; `ground_truth` where one is given."""

    sets: Sets | None
    predictions: Matches | None
    ground_truth: GroundTruth | None


def read_inputs(config: MatchConfig) -> Inputs:
    """Everything the configuration names. Raises InputError for what is malformed or does not belong together."""
    submission = None if config.submission is None else Path(config.submission)
    if submission is not None and _is_hdf5(submission):
        sets: Sets | None = Sets(*read_submission(submission, strict=config.strict), read_provenance(submission))
        submission = None
    else:
        sets = _read_sets(config)
    known = (sets.queries.ids, sets.references.ids) if sets and config.strict else (None, None)
    predictions = truth = None
    if submission is not None:
        query_ids, reference_ids = known
        rows = config.max_predictions
        predictions = read_predictions(submission, max_rows=rows, query_ids=query_ids, reference_ids=reference_ids)
    if config.ground_truth is not None:
        query_ids, reference_ids = known
        truth = read_ground_truth(Path(config.ground_truth), query_ids=query_ids, reference_ids=reference_ids)
        if truth.num_repeated:
            log.warning("%s repeats %d pairs; each counts once", config.ground_truth, truth.num_repeated)
    return Inputs(sets, predictions, truth)


def _is_hdf5(path: Path) -> bool:
    return path.suffix.lower() in {".h5", ".hdf5"}


def _read_sets(config: MatchConfig) -> Sets | None:
    """Queries and references, normalised as asked; None where neither is given."""
    if config.queries is None or config.references is None:
        return None
    if config.submission is None:
        _refuse_own_input(config)
    query_path, reference_path = Path(config.queries), Path(config.references)
    queries, references = read_descriptors(query_path), read_descriptors(reference_path, role="reference")
    _refuse_other_dim(reference_path, references, query_path, queries)
    provenance, other = read_provenance(query_path), read_provenance(reference_path)
    _refuse_other_weights(reference_path, other, query_path, provenance)
    if config.training is not None:
        training = read_descriptors(Path(config.training), role="training")
        _refuse_other_dim(Path(config.training), training, query_path, queries)
        _refuse_other_weights(Path(config.training), read_provenance(Path(config.training)), query_path, provenance)
        queries, references = _normalize(config, queries, references, training)
    if config.track is Track.descriptor and config.submission is None and queries.dim > MAX_DIM:
        raise InputError(
            f"{query_path}: {queries.dim} dimensions; the descriptor track allows {MAX_DIM}: use track=matching"
        )
    return Sets(queries, references, provenance | {"normalize": config.normalize.value, "code_version": __version__})


def _normalize(
    config: MatchConfig, queries: Descriptors, references: Descriptors, training: Descriptors
) -> tuple[Descriptors, Descriptors]:
    if config.normalize is Normalize.none:
        log.warning("training=%s has no effect with normalize=none", config.training)
        return queries, references
    from isc.normalize import normalize, require_unit

    if config.normalize is not Normalize.whiten:
        given = {config.queries: queries, config.references: references, config.training: training}
        for path, one in given.items():
            try:
                require_unit(one)
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
    return normalize(config.normalize, queries, references, training)


def _refuse_own_input(config: MatchConfig) -> None:
    """No input may be a file that this run would replace."""
    outputs = {(Path(config.output) / name).resolve() for name in OUTPUTS}
    for name in ("queries", "references", "training", "ground_truth"):
        value = getattr(config, name)
        if value is not None and Path(value).resolve() in outputs:
            raise InputError(f"{name}={value} lies where output={config.output} would replace it; give another folder")


def _refuse_other_dim(path: Path, one: Descriptors, other_path: Path, other: Descriptors) -> None:
    if one.dim != other.dim:
        raise InputError(f"{path}: {one.dim} dimensions, {other_path}: {other.dim}; expected the same model for both")


def _refuse_other_weights(path: Path, one: Mapping[str, str], other_path: Path, other: Mapping[str, str]) -> None:
    """Two files that both say which weights made them must say the same."""
    first, second = one.get("weights_sha256"), other.get("weights_sha256")
    if first and second and first != second:
        raise InputError(
            f"{path}: made by weights {first[:12]}…, {other_path} by {second[:12]}…; expected the same model for both"
        )
