"""Calibrations that `isc-calibrate` fitted, kept in a file of their own or with the model they were fitted for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isc import __version__
from isc.data.model_files import beside_model, reading
from isc.evaluate.calibration.maps import Map, read_map
from isc.evaluate.calibration.score_origin import DISTANCE, PROBABILITY, Made
from isc.evaluate.calibration.shift import Best
from isc.evaluate.calibration.thresholds import Threshold
from isc.evaluate.metrics import Bin

FORMAT = "isc-calibration-1"
FILES = {DISTANCE: "calibration.json", PROBABILITY: "calibration.matching.json"}  # in a run folder, by kind of score
MODEL, NONE = "model", "none"  # what calibration= says for the one that is stored with the model, and for no one


@dataclass(frozen=True)
class Calibration:
    """A map from scores to probabilities, the cuts for some precisions (`wanted` is the one that match.py uses), and
    what it was fitted on: so many judged `queries`, of which `with_copies` have a copy, so many `pairs`, `copies` of
    them; `best` are their best scores. `held_out` and `reliability` say how good the probabilities are of queries that
    were kept out."""

    map: Map
    made: Made
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
        """For JSON; `from_dict` makes the same of it."""
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
        """KeyError, TypeError or ValueError for what `as_dict` did not make."""
        return cls(
            map=read_map(values["map"]),
            made=Made.from_dict(values["made"]),
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
class Stored:
    """A calibration and the file it is kept in."""

    path: Path
    calibration: Calibration


def read_calibration(path: Path) -> Stored:
    """InputError for a file that `isc-calibrate` did not write."""
    with reading(path, format=FORMAT, writer="isc-calibrate") as values:
        return Stored(path, Calibration.from_dict(values))


def calibration_for(text: str, made: Made) -> tuple[Stored | None, str | None]:
    """The calibration of calibration=`text` (`model`, `none` or a FILE.json) for scores made like this, or None and, in
    words, why there is one that does not hold for them. A model that has none is no reason for words."""
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
        "isc-calibrate fits one for scores like these, calibration=none asks for none"
    )
