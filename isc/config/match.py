"""The configuration of match.py: defaults, units and checks.

The keys are flat; what reads, searches and verifies takes its own part of them, each checked when it is built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Self

from isc.config.chain import is_stored, parse
from isc.config.checks import REQUIRED, check, check_at_least, check_texts, key
from isc.config.choices import Device, Engine, Track
from isc.data.limits import MAX_PREDICTIONS
from isc.errors import InputError

WHOLE_ALONE = "whole"  # value of query_views=: find candidates with whole queries only
NO_FEATURES = "none"  # value of features=: keep no local features


@dataclass(frozen=True)
class _Part:
    """A part of the keys of MatchConfig, under the same names."""

    @classmethod
    def of(cls, config: MatchConfig) -> Self:
        return cls(**{one.name: getattr(config, one.name) for one in fields(cls)})


@dataclass(frozen=True)
class InputOptions(_Part):
    """The files to match or to judge, and how they are read. Raises InputError for files that do not go together."""

    queries: str | None
    references: str | None
    training: str | None
    submission: str | None
    ground_truth: str | None
    track: Track
    normalize: str
    strict: bool
    max_predictions: int

    def __post_init__(self) -> None:
        if not is_stored(self.normalize):
            parse(self.normalize)
        check_at_least(1, max_predictions=self.max_predictions)
        if self.submission is None:
            self._check_descriptors_given()
        else:
            self._check_submission_alone(self.submission)

    def _check_descriptors_given(self) -> None:
        missing = [name for name in ("queries", "references") if getattr(self, name) is None]
        if missing:
            given = " and ".join(f"{name}=FILE.h5" for name in missing)
            raise InputError(f"{given} missing; expected queries= and references=, or submission= and ground_truth=")
        if self.normalize != "none" and self.training is None:
            raise InputError(f"normalize={self.normalize} needs training=T.h5, descriptors of training photos")

    def _check_submission_alone(self, submission: str) -> None:
        if (self.queries is None) != (self.references is None) or (_holds_vectors(submission) and self.queries):
            raise InputError("queries= and references= go, both, with a submission.csv whose ids they check; not alone")
        if self.ground_truth is None:
            raise InputError("submission= needs ground_truth=GT.csv to be judged by")
        if self.normalize != "none" or self.training is not None:
            raise InputError(
                "a submission is judged as it is; normalize= and training= go with queries= and references="
            )


@dataclass(frozen=True)
class SearchOptions(_Part):
    """The number of pairs, and the engine or index that finds them. Raises InputError for what excludes each other."""

    num_pairs: int | None
    k: int | None
    engine: Engine
    memory_gb: float
    index: str | None
    index_search: str | None
    address: str | None
    actors: int | None

    def __post_init__(self) -> None:
        for name in ("num_pairs", "k", "actors"):
            if (value := getattr(self, name)) is not None:
                check_at_least(1, **{name: value})
        check(0 < self.memory_gb < math.inf, "memory_gb", self.memory_gb, "a size above 0")
        if self.num_pairs is not None and self.k is not None:
            raise InputError(f"num_pairs={self.num_pairs} and k={self.k} exclude each other; give one")
        if self.engine is not Engine.ray:
            for name in ("address", "actors"):
                check(getattr(self, name) is None, name, getattr(self, name), "engine=ray beside it")
        elif self.index is not None:
            raise InputError(f"engine=ray compares all pairs; index={self.index} does not go with it")
        if self.index is None and self.index_search is not None:
            raise InputError(f"index_search={self.index_search} goes with index=; give both or neither")


@dataclass(frozen=True)
class VerifyOptions(_Part):
    """The candidates whose pixels are compared. Raises InputError for unknown views and for numbers below 1."""

    candidates: int
    query_views: str
    second_views: str
    features: str | None
    workers: int | None
    device: Device

    def __post_init__(self) -> None:
        from isc.photos.views import parse_views  # numpy would make --help slow

        parse_views(self.query_views)
        if any(view.found for view in parse_views(self.second_views)):
            raise InputError(f"second_views={self.second_views}: has regions; expected views that all pictures share")
        check_at_least(1, candidates=self.candidates)
        if self.workers is not None:
            check_at_least(1, workers=self.workers)


@dataclass
class MatchConfig:
    """Options of `match.py`: descriptors or a submission → predictions, scores, a report."""

    output: str = key(REQUIRED, "folder to write")
    queries: str | None = key(None, "descriptors: a .h5 file, or an index")
    references: str | None = key(None, "descriptors: a .h5 file, or an index")
    training: str | None = key(None, "descriptors of training photos, which normalisation and index are fitted on")
    submission: str | None = key(None, "a .h5 or .csv submission to judge, instead of queries= and references=")
    ground_truth: str | None = key(None, "the true pairs, to judge by: query_id,reference_id")
    num_pairs: int | None = key(None, "best pairs over all queries together; null: 10 × the number of queries")
    k: int | None = key(None, "instead of num_pairs: best references of each query")
    track: Track = key(
        Track.descriptor,
        "descriptor: distance of one vector an image; matching: any comparison of two images",
    )
    normalize: str = key(
        "none",
        "steps joined by +: whiten:dim=128+subtract; a FILE.json of isc normalize; or model, the chain that is "
        "stored with the model; all are fitted on training= only (docs/normalization.md)",
    )
    query_images: str | None = key(
        None,
        "the queries' photos: a folder, for pictures in the report and for track=matching",
    )
    reference_images: str | None = key(None, "the references' photos, beside query_images=")
    edits: str | None = key(None, "edits.jsonl of a benchmark: names of the edits for the report")
    strict: bool = key(True, "refuse a submission.h5 with unsorted rows, and ids that the other files do not have")
    max_predictions: int = key(MAX_PREDICTIONS, "largest number of rows of a submission.csv")
    candidates: int = key(50, "references per query whose pixels are compared (track=matching with both image folders)")
    query_views: str = key("regions:1", "further views of the queries to find candidates with, as views= of extract.py")
    second_views: str = key("tiles:2", "more views, for queries that align with no candidate; whole: no second look")
    fusion: str = key("model", "map from distance and pixels to a probability: FILE.json of isc fusion, or the model's")
    calibration: str = key(
        "model",
        "map from scores to probabilities: FILE.json of isc calibrate, the model's, or none",
    )
    compare: str | None = key(None, "folder of another run, or its predictions.csv, judged by the same ground_truth=")
    features: str | None = key(
        None,
        "folder for local features of references; none: do not keep; null: the user's cache",
    )
    workers: int | None = key(None, "processes that compare pixels; null: one per core")
    device: Device = key(
        Device.auto, "device that compares pixels; auto takes the GPU, if there is one, for many pairs"
    )
    engine: Engine = key(Engine.auto, "engine that compares the descriptors; the result is the same")
    memory_gb: float = key(2.0, "GB that the search may take besides the descriptors")
    index: str | None = key(None, "approximate search: faiss's text of an index trained on training=, or a saved index")
    index_search: str | None = key(None, "effort of the index search, e.g. nprobe=32; null: the usual effort")
    address: str | None = key(None, "a running Ray cluster, for engine=ray")
    actors: int | None = key(None, "actors of engine=ray; each has a part of the references")

    def __post_init__(self) -> None:
        check_texts(self)
        for part in (InputOptions, SearchOptions, VerifyOptions):
            part.of(self)  # checks its keys
        if self.submission and not _holds_vectors(self.submission) and (self.num_pairs or self.k):
            raise InputError("num_pairs= and k= choose pairs by distance; a CSV submission is judged as it is")
        if (self.query_images is None) != (self.reference_images is None):
            raise InputError("query_images= and reference_images= go together; give both or neither")
        if self.compare is not None and self.ground_truth is None:
            raise InputError(f"compare={self.compare} needs ground_truth=GT.csv to judge both runs by")


def _holds_vectors(submission: str) -> bool:
    return submission.lower().endswith((".h5", ".hdf5"))
