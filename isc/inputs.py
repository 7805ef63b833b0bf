"""What `match.py` is given, read and held against one another before anything is searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
SAME_IN_BOTH = ("weights_sha256", "image_size", "gem_power", "preprocessing")  # what makes descriptors comparable
OUTPUTS = ("predictions.csv", "submission.h5", "metrics.json", "evidence.jsonl")  # beside report/index.html


@dataclass(frozen=True)
class Sets:
    """The two sides of a run, of the same number of dimensions, and where they came from."""

    queries: Descriptors
    references: Descriptors
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """`predictions` of a submitted CSV file, otherwise `sets` to search; `ground_truth` where one is given; `notes` are
    what the user should know, said once nothing is refused any more."""

    sets: Sets | None
    predictions: Matches | None
    ground_truth: GroundTruth | None
    notes: tuple[str, ...] = ()


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
    return Inputs(sets, predictions, truth, tuple(_notes(config, truth)))


def _notes(config: MatchConfig, truth: GroundTruth | None) -> Iterator[str]:
    if truth and truth.num_repeated:
        yield f"{config.ground_truth} repeats {truth.num_repeated} pairs; each counts once"
    if config.training is not None and config.normalize is Normalize.none:
        yield f"training={config.training} has no effect with normalize=none"


def _is_hdf5(path: Path) -> bool:
    """By the name, or where that does not tell, by the first bytes."""
    suffix = path.suffix.lower()
    if suffix in {".h5", ".hdf5", ".csv"} or not path.is_file():
        return suffix in {".h5", ".hdf5"}
    with path.open("rb") as file:
        return file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE


def _read_sets(config: MatchConfig) -> Sets | None:
    """Queries and references, normalised as asked; None where neither is given."""
    if config.queries is None or config.references is None:
        return None
    if config.submission is None:
        _refuse_own_input(config)
    query_path, reference_path = Path(config.queries), Path(config.references)
    # sorted by id, as a submission is: where equal distances meet the cut, both must keep the same pairs
    queries = read_descriptors(query_path).sorted()
    references = read_descriptors(reference_path, role="reference").sorted()
    _refuse_other_dim(reference_path, references, query_path, queries)
    provenance, other = read_provenance(query_path), read_provenance(reference_path)
    _refuse_other_model(reference_path, other, query_path, provenance)
    if config.training is not None:
        training = read_descriptors(Path(config.training), role="training")
        _refuse_other_dim(Path(config.training), training, query_path, queries)
        _refuse_other_model(Path(config.training), read_provenance(Path(config.training)), query_path, provenance)
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


def _refuse_other_model(path: Path, one: Mapping[str, str], other_path: Path, other: Mapping[str, str]) -> None:
    """Two files that both say how they were made must say the same."""
    for key in SAME_IN_BOTH:
        if key in one and key in other and one[key] != other[key]:
            made, otherwise = one[key][:12], other[key][:12]
            raise InputError(f"{path}: made with {key} {made}, {other_path} with {otherwise}; expected the same")
