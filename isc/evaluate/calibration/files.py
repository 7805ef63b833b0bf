"""Calibrations fitted by `isc calibrate`, stored in a separate file or with their model."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isc import __version__
from isc.data.json_files import Fields
from isc.data.model_files import beside_model, reading
from isc.evaluate.calibration.maps import Map, read_map
from isc.evaluate.calibration.margins import seen
from isc.evaluate.calibration.prior import Floats, Prior
from isc.evaluate.calibration.score_origin import DISTANCE, PROBABILITY, ScoreOrigin
from isc.evaluate.calibration.thresholds import Threshold
from isc.evaluate.metrics import Bin

FORMAT = "isc-calibration-2"
FILES = {DISTANCE: "calibration.json", PROBABILITY: "calibration.matching.json"}  # in a run folder, by kind of score
MODEL, NONE = "model", "none"  # values of calibration=: the one stored with the model, and no calibration


@dataclass(frozen=True)
class FittedRun:
    """A run of the fit: its queries, how many have a copy, its references, and what the wanted threshold gave there.

    `precision` and `recall` are those of held-out pairs at or above the threshold; None if no pair reached it.
    """

    name: str
    queries: int
    with_copies: int
    references: int
    pairs: int
    copies: int
    precision: float | None
    recall: float

    def __post_init__(self) -> None:
        if not (0 <= self.with_copies <= self.queries and 0 <= self.copies <= self.pairs and self.references >= 1):
            raise ValueError(
                f"run {self.name!r}: {self.with_copies} of {self.queries} queries, {self.copies} of {self.pairs} pairs"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | Fields) -> FittedRun:
        """Build the facts from their dictionary. Raises ValueError for other values."""
        said = Fields.of(values)
        return cls(
            name=said.text("name"),
            queries=said.count("queries"),
            with_copies=said.count("with_copies"),
            references=said.count("references"),
            pairs=said.count("pairs"),
            copies=said.count("copies"),
            precision=said.number_or_none("precision"),
            recall=said.number("recall"),
        )


@dataclass(frozen=True)
class Calibration:
    """A map from scores to probabilities, thresholds for some precisions, and facts about the runs of the fit.

    The map takes the score, on the matching track with the margin to the query's next references. With `unrelated`,
    float16 [U, D], it takes the gap to the query's squared distance to these unrelated pictures (isc.search.unrelated)
    and the margin (`isc.evaluate.calibration.margins`). Its probabilities hold for the `prior` of the fit. `wanted` is
    the threshold that match.py uses; thresholds are probabilities after the correction for the run's own prior, and
    those of the run that needs the highest. `held_out` and `reliability` show the quality on held-out queries.
    """

    map: Map
    prior: Prior
    unrelated: npt.NDArray[np.float16] | None = field(compare=False)
    made: ScoreOrigin
    wanted: Threshold
    thresholds: tuple[Threshold, ...]
    runs: tuple[FittedRun, ...]
    held_out: Mapping[str, float]
    reliability: tuple[Bin, ...]

    @property
    def pairs(self) -> int:
        return sum(run.pairs for run in self.runs)

    @property
    def copies(self) -> int:
        return sum(run.copies for run in self.runs)

    def fitted(
        self,
        score: npt.NDArray[np.floating],
        unrelated: npt.NDArray[np.float64] | None,
        query: npt.NDArray[np.int64] | None,
        picture: npt.NDArray[np.int64] | None = None,
    ) -> Floats:
        """Return the probability [M] under the prior of the fit; `unrelated` [M] is each pair's distance of the query.

        `query` [M] is the number of the query of each pair, None if each pair stands alone; `picture` [M] the number of
        the picture of which its reference is a version, None if each is its own. Raises ValueError if the distance is
        missing, or not wanted.
        """
        if (unrelated is None) != (self.unrelated is None):
            raise ValueError("the distance to unrelated pictures goes with a calibration that has some")
        return self.map(seen(score, self.made, unrelated, query, picture))

    def as_dict(self) -> dict[str, Any]:
        """Return the values for JSON, which `from_dict` reads."""
        return {
            "format": FORMAT,
            "code_version": __version__,
            "made": self.made.as_dict(),
            "runs": [asdict(run) for run in self.runs],
            "prior": self.prior.as_dict(),
            "held_out_log_likelihood": dict(self.held_out),
            "map": self.map.as_dict(),
            "wanted": self.wanted.as_dict(),
            "thresholds": [one.as_dict() for one in self.thresholds],
            "reliability": [asdict(one) for one in self.reliability],
            "unrelated": None if self.unrelated is None else _packed(self.unrelated),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | Fields) -> Calibration:
        """Build a calibration from `as_dict`. Raises ValueError for other values."""
        said = Fields.of(values)
        held_out = said.fields("held_out_log_likelihood")
        return cls(
            map=read_map(said.fields("map")),
            prior=Prior.from_dict(said.fields("prior")),
            unrelated=None if said.value("unrelated") is None else _unpacked(said.fields("unrelated")),
            made=ScoreOrigin.from_dict(said.fields("made")),
            wanted=Threshold.from_dict(said.fields("wanted")),
            thresholds=tuple(map(Threshold.from_dict, said.list("thresholds"))),
            runs=tuple(map(FittedRun.from_dict, said.list("runs"))),
            held_out={name: held_out.number(name) for name in held_out.values},
            reliability=tuple(map(_bin, said.list("reliability"))),
        )


def _packed(vectors: npt.NDArray[np.float16]) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(vectors, "<f2").tobytes()).decode()
    return {"rows": len(vectors), "dim": vectors.shape[1], "float16": data}


def _unpacked(said: Fields) -> npt.NDArray[np.float16]:
    rows, dim = said.count("rows", least=1), said.count("dim", least=1)
    data = base64.b64decode(said.text("float16"), validate=True)
    if len(data) != 2 * rows * dim:
        raise ValueError(f"unrelated: {len(data)} bytes; expected {rows} × {dim} float16")
    vectors = np.frombuffer(data, "<f2").reshape(rows, dim)
    if not np.isfinite(vectors).all():
        raise ValueError("unrelated: NaN or infinity; expected finite numbers")
    return vectors


@dataclass(frozen=True)
class CalibrationFile:
    """A calibration and its file."""

    path: Path
    calibration: Calibration


def read_calibration(path: Path) -> CalibrationFile:
    """Read a file of `isc calibrate`. Raises InputError for any other file."""
    with reading(path, format=FORMAT, writer="isc calibrate") as said:
        return CalibrationFile(path, Calibration.from_dict(said))


def _bin(said: Fields) -> Bin:
    low, high, mean, correct = map(said.number, ("low", "high", "mean", "correct"))
    if not (0 <= low <= high <= 1 and 0 <= mean <= 1 and 0 <= correct <= 1):
        raise ValueError(f"{said.where.rstrip('.')} leaves 0…1")
    return Bin(low, high, said.count("pairs"), mean, correct)


def calibration_for(text: str, made: ScoreOrigin) -> tuple[CalibrationFile | None, str | None]:
    """Return the calibration of calibration=`text` for scores of the origin `made`, or None, and a note or None.

    `text` is `model`, `none` or a FILE.json. The note says why an existing calibration does not hold for these scores;
    there is no note if the model has no calibration. Raises InputError if the file cannot be read.
    """
    if text == NONE:
        return None, None
    path = Path(text)
    if text == MODEL:
        if "weights" not in made.descriptors:
            return None, None
        path = beside_model(made.descriptors["weights"], FILES[made.scores])
        if not path.is_file():
            return None, None
    stored = read_calibration(path)
    differences = list(made.differences(stored.calibration.made))
    if not differences:
        return stored, None
    return None, (
        f"{path} is not applied, so no probabilities are written: it was fitted on {'; '.join(differences)}; "
        "isc calibrate fits one for scores like these, calibration=none asks for none"
    )
