"""The inputs of `match.py`, loaded and cross-checked before the search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from isc import __version__
from isc.config.chain import Chain, is_stored, parse
from isc.config.choices import Track
from isc.config.match import InputOptions
from isc.data.csv_files import read_ground_truth, read_predictions
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import MAX_DIM, SAME_IN_BOTH, one_row_each, read_descriptors, read_provenance, read_submission
from isc.data.matches import GroundTruth, Matches
from isc.data.near_ids import require_same_ids
from isc.errors import InputError
from isc.search.index.index import read_index

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# files besides report/index.html
OUTPUTS = (
    "predictions.csv", "probabilities.csv", "match.json", "views.csv", "submission.h5", "metrics.json",
    "comparison.json", "evidence.jsonl", "not_compared.csv", "versions.csv",
)  # fmt: skip


@dataclass(frozen=True)
class DescriptorSets:
    """The queries and references of a run, of the same dimension, with their provenance and notes for the user.

    `training` holds training descriptors, normalised like the references.
    """

    queries: Descriptors
    references: Descriptors
    provenance: Mapping[str, str] = field(default_factory=dict)
    training: Descriptors | None = None
    notes: tuple[str, ...] = ()

    @property
    def have_views(self) -> bool:
        """Return whether an image of either side may have several rows."""
        return self.queries.views is not None or self.references.views is not None


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run: `predictions` of a submitted CSV file, else `sets` to search; and `ground_truth`, if given.

    `notes` are messages for the user, logged after all checks.
    """

    sets: DescriptorSets | None
    predictions: Matches | None
    ground_truth: GroundTruth | None
    notes: tuple[str, ...] = ()


def read_inputs(options: InputOptions) -> Inputs:
    """Load and cross-check the inputs of match. Raises InputError for malformed or inconsistent input."""
    submission = None if options.submission is None else Path(options.submission)
    if submission is not None and _is_hdf5(submission):
        sets: DescriptorSets | None = DescriptorSets(
            *read_submission(submission, strict=options.strict), read_provenance(submission)
        )
        submission = None
    else:
        sets = _read_sets(options)
    known = (sets.queries.images, sets.references.images) if sets and options.strict else (None, None)
    predictions = truth = None
    if submission is not None:
        query_ids, reference_ids = known
        rows = options.max_predictions
        predictions = read_predictions(submission, max_rows=rows, query_ids=query_ids, reference_ids=reference_ids)
    notes = sets.notes if sets else ()
    if options.ground_truth is not None:
        query_ids, reference_ids = known
        truth = read_ground_truth(Path(options.ground_truth), query_ids=query_ids, reference_ids=reference_ids)
        if predictions is not None:
            require_same_ids(Path(options.ground_truth), truth, predictions.query_ids, predictions.reference_ids)
        elif sets is not None:
            require_same_ids(Path(options.ground_truth), truth, sets.queries.images, sets.references.images)
        if truth.num_repeated:
            notes = (*notes, f"{options.ground_truth} repeats {truth.num_repeated} pairs; each counts once")
    return Inputs(sets, predictions, truth, notes)


def read_set(
    path: Path, *, role: Literal["query", "reference", "training"] = "query"
) -> tuple[Descriptors, dict[str, str]]:
    """Read the descriptors of a file or of an index, and their provenance."""
    if path.is_dir():
        return read_index(path)
    return read_descriptors(path, role=role), read_provenance(path)


def _is_hdf5(path: Path) -> bool:
    """Return whether the file is HDF5, by its suffix, or for an unknown suffix by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in {".h5", ".hdf5", ".csv"} or not path.is_file():
        return suffix in {".h5", ".hdf5"}
    with path.open("rb") as file:
        return file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE


def _read_sets(options: InputOptions) -> DescriptorSets | None:
    """Read and normalise queries and references; return None if they are not given."""
    if options.queries is None or options.references is None:
        return None
    from isc.search.normalize.files import stored_for

    paths = Path(options.queries), Path(options.references)
    sets = read_sides(*paths)
    stored = stored_for(options.normalize, paths[0], sets.provenance) if is_stored(options.normalize) else None
    chain = stored.chain if stored else parse(options.normalize)
    if options.track is Track.descriptor and options.submission is None:
        _refuse_views(paths, sets)
        _refuse_too_many_dims(paths[0], sets.queries, chain)
    if options.training is not None:
        training_path = Path(options.training)
        training, notes = read_training(training_path, sets, paths, strict=options.strict)
        if stored and stored.training_rows != len(training):
            found_with, here = f"{stored.training_rows:,}", f"{len(training):,}"
            note = f"{stored.path}: found with {found_with} training photos, training={options.training} holds {here}"
            notes = (*notes, note)
        sets = replace(_normalized(sets, paths, chain, training_path, training), notes=notes)
    return replace(sets, provenance={**sets.provenance, "normalize": str(chain), "code_version": __version__})


def read_sides(queries: Path, references: Path) -> DescriptorSets:
    """Read queries and references of the same model. Raises InputError, with the difference, if models differ."""
    # sorted by id like a submission: with equal distances at the end, both must keep the same pairs
    one, provenance = read_set(queries)
    two, other = read_set(references, role="reference")
    _refuse_other_dim(references, two, queries, one)
    _refuse_other_model(references, other, queries, provenance)
    return DescriptorSets(one.sorted(), two.sorted(), provenance)


def read_training(
    path: Path, sets: DescriptorSets, paths: tuple[Path, Path], *, strict: bool = True
) -> tuple[Descriptors, tuple[str, ...]]:
    """Read training descriptors of the same model as the queries and references of `paths`, and notes for the user.

    Rows that equal a query or reference are left out. Raises InputError for such rows if `strict`, or if all rows are
    such, and if the models differ.
    """
    training, provenance = read_set(path, role="training")
    _refuse_other_dim(path, training, paths[0], sets.queries)
    _refuse_other_model(path, provenance, paths[0], sets.provenance)
    notes: list[str] = []
    for other_path, other in zip(paths, (sets.queries, sets.references), strict=True):
        shared = shared_rows(training, other)
        if not shared:
            continue
        row, there = shared[0]
        what = f"{path}: row {row}: id {training.ids[row]!r} has the very descriptor of {other.ids[there]!r}"
        if strict or len(shared) == len(training):
            raise InputError(
                f"{what} in {other_path}; expected training photos that are neither queries nor references "
                "(strict=false leaves such rows out)"
            )
        notes.append(f"{path}: {len(shared)} rows left out, whose descriptors are in {other_path}")
        kept = np.setdiff1d(np.arange(len(training)), [row for row, _ in shared])
        training = training.take(kept)
    return training, tuple(notes)


def _normalized(
    sets: DescriptorSets, paths: tuple[Path, Path], chain: Chain, training_path: Path, training: Descriptors
) -> DescriptorSets:
    if not chain.steps:
        return replace(sets, training=training)
    from isc.search.normalize.fitted import fit

    with named(training_path):
        fitted = fit(chain, training)
    with named(paths[0]):
        queries = fitted.queries(sets.queries)
    with named(paths[1]):
        references = fitted.references(sets.references)
    return replace(sets, queries=queries, references=references, training=fitted.references(training))


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Add the path of the file to the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _refuse_views(paths: tuple[Path, Path], sets: DescriptorSets) -> None:
    for path, one in zip(paths, (sets.queries, sets.references), strict=True):
        if one.views is not None:
            raise InputError(f"{path}: {one_row_each(one)}")


def _refuse_too_many_dims(path: Path, queries: Descriptors, chain: Chain) -> None:
    """Raise InputError, before any computation, if the chain gives too many dimensions for the descriptor track."""
    from isc.search.normalize.transforms import dim_of

    dim, most = dim_of(chain, queries.dim), MAX_DIM - sum(step.MORE for step in chain.steps)
    if dim > MAX_DIM:
        what = f"{path}: {dim}" if dim == queries.dim else f"normalize={chain}: gives {dim}"
        raise InputError(
            f"{what} dimensions; the descriptor track allows {MAX_DIM}: use track=matching, or pca:dim={most} in "
            "normalize="
        )


def shared_rows(one: Descriptors, other: Descriptors) -> list[tuple[int, int]]:
    """Return the rows of `one` whose vector occurs in `other`, bit by bit, each with the first such row there."""
    keys, (others, first) = _row_keys(one.vectors), np.unique(_row_keys(other.vectors), return_index=True)
    rows = np.flatnonzero(np.isin(keys, others))
    there = first[np.searchsorted(others, keys[rows])]
    same = (one.vectors[rows].view(np.uint32) == other.vectors[there].view(np.uint32)).all(axis=1)
    return list(zip(rows[same].tolist(), there[same].tolist(), strict=True))


def _row_keys(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    """Return a number for each row [N]: equal for equal bits, and hardly ever for others (multilinear hashing)."""
    factors = np.random.default_rng(0).integers(1, 1 << 63, size=vectors.shape[1], dtype=np.uint64)
    keys = np.empty(len(vectors), np.uint64)
    for start in range(0, len(vectors), 1 << 14):
        keys[start : start + (1 << 14)] = vectors[start : start + (1 << 14)].view(np.uint32) @ factors
    return keys


def refuse_own_input(options: InputOptions, output: str) -> None:
    """Raise InputError if an input is a file that this run would replace in its folder `output`."""
    outputs = {(Path(output) / name).resolve() for name in OUTPUTS}
    for name in ("queries", "references", "training", "ground_truth"):
        value = getattr(options, name)
        if value is not None and Path(value).resolve() in outputs:
            raise InputError(f"{name}={value} lies where output={output} would replace it; give another folder")


def _refuse_other_dim(path: Path, one: Descriptors, other_path: Path, other: Descriptors) -> None:
    if one.dim != other.dim:
        raise InputError(f"{path}: {one.dim} dimensions, {other_path}: {other.dim}; expected the same model for both")


def _refuse_other_model(path: Path, one: Mapping[str, str], other_path: Path, other: Mapping[str, str]) -> None:
    """Raise InputError if two files both state their origin and the origins differ."""
    for key in SAME_IN_BOTH:
        if key in one and key in other and one[key] != other[key]:
            made, otherwise = one[key][:12], other[key][:12]
            raise InputError(f"{path}: made with {key} {made}, {other_path} with {otherwise}; expected the same")
