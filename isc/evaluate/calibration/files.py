"""Calibrations fitted by `isc calibrate`, stored in a separate file or with their model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isc import __version__
from isc.data.model_files import beside_model, reading
from isc.evaluate.calibration.maps import Map, read_map
from isc.evaluate.calibration.score_origin import DISTANCE, PROBABILITY, ScoreOrigin
from isc.evaluate.calibration.shift import Best
from isc.evaluate.calibration.thresholds import Threshold
from isc.evaluate.metrics import Bin

FORMAT = "isc-calibration-1"
FILES = {DISTANCE: "calibration.json", PROBABILITY: "calibration.matching.json"}  # in a run folder, by kind of score
MODEL, NONE = "model", "none"  # values of calibration=: the one stored with the model, and no calibration


@dataclass(frozen=True)
class Calibration:
    """A map from scores to probabilities, thresholds for some precisions, and facts about the run of the fit.

    `wanted` is the threshold that match.py uses. The fit had `queries` judged queries, `with_copies` of them with a
    copy, and `pairs` pairs, `copies` of them correct; `best` holds the best scores of the queries. `held_out` and
    `reliability` show the quality of the probabilities on held-out queries.
    """

    map: Map
    made: ScoreOrigin
    wanted: Threshold
    thresholds: tuple[Threshold, ...]
    best: Best
    queries: int
    with_copies: int
    pairs: int
    copies: int
    held_out: Mapping[str, float]
    reliability: tuple[Bin, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the values for JSON, which `from_dict` reads."""
        return {
            "format": FORMAT,
            "code_version": __version__,
            "made": self.made.as_dict(),
            "queries": self.queries,
            "queries_with_copies": self.with_copies,
            "share_of_copies": self.with_copies / self.queries,
            "pairs": self.pairs,
            "copies": self.copies,
            "held_out_log_likelihood": dict(self.held_out),
            "map": self.map.as_dict(),
            "wanted": self.wanted.as_dict(),
            "thresholds": [one.as_dict() for one in self.thresholds],
            "reliability": [asdict(one) for one in self.reliability],
            "best_scores": self.best.as_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Build a calibration from `as_dict`. Raises KeyError, TypeError or ValueError for other values."""
        return cls(
            map=read_map(values["map"]),
            made=ScoreOrigin.from_dict(values["made"]),
            wanted=Threshold.from_dict(values["wanted"]),
            thresholds=tuple(map(Threshold.from_dict, values["thresholds"])),
            best=Best.from_dict(values["best_scores"]),
            queries=int(values["queries"]),
            with_copies=int(values["queries_with_copies"]),
            pairs=int(values["pairs"]),
            copies=int(values["copies"]),
            held_out={str(name): float(value) for name, value in values["held_out_log_likelihood"].items()},
            reliability=tuple(Bin(**one) for one in values["reliability"]),
        )


@dataclass(frozen=True)
class CalibrationFile:
    """A calibration and its file."""

    path: Path
    calibration: Calibration


def read_calibration(path: Path) -> CalibrationFile:
    """Read a file of `isc calibrate`. Raises InputError for any other file."""
    with reading(path, format=FORMAT, writer="isc calibrate") as values:
        return CalibrationFile(path, Calibration.from_dict(values))


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
