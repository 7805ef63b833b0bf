"""Probabilities and verdicts of pairs, from the distance of their descriptors and the agreement of their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from isc.data.model_files import beside_model
from isc.evaluate.calibration.files import FILES, Calibration, read_calibration
from isc.evaluate.calibration.score_origin import DISTANCE, PROBABILITY, WEIGHTS
from isc.find.results import Verdict
from isc.match.verification.alignment import EVIDENCE
from isc.match.verification.fusion import Fusion
from isc.match.verification.fusion_files import fusion_for

Floats = npt.NDArray[np.float64]

SURE, POSSIBLE = 0.9, 0.5  # probabilities from which a pair is a copy, or may be one
SIGNIFICANT = 12.0  # log_nfa from which pixels speak for a copy (chosen on dev judges, docs/results.md)
AGREEING = 0.4  # agreement of the grey values from which they do
FEW_FEATURES = 40  # local features below which a picture is plain: there is too little in it to compare
PLAIN, NO_PIXELS, OTHER_MODEL = "plain", "pixels not compared", "uncalibrated"
COLUMN = {name: at for at, name in enumerate(EVIDENCE)}


@dataclass(frozen=True)
class Judge:
    """The fusion and the calibrations of a model; without its own, those of isc_small, and `calibrated` is False."""

    fusion: Fusion
    by_pixels: Calibration | None
    by_distance: Calibration | None
    calibrated: bool

    def probabilities(self, distance: Floats, evidence: npt.NDArray[np.float32] | None) -> Floats:
        """Return the probability [P] of each pair; `distance` [P] is squared, `evidence` [P, E] NaN where unknown."""
        if evidence is None:
            score = -distance.astype(np.float32)
            if self.by_distance is not None:
                return np.asarray(self.by_distance.map(score), np.float64)
            return self.fusion.probability(distance)
        fused = self.fusion.probability(distance, evidence)
        return np.asarray(self.by_pixels.map(fused), np.float64) if self.by_pixels is not None else fused


@cache
def judge_of(weights: str, weights_sha256: str | None = None) -> Judge:
    """Return the judge of a model by its name, run folder or file.

    What was fitted for the model counts only for descriptors of the same weights, if their hash is given.
    """
    made = {"weights": weights} | ({} if weights_sha256 is None else {WEIGHTS: weights_sha256})
    fusion, note = fusion_for("model", made)
    found = {kind: one for kind in (PROBABILITY, DISTANCE) if (one := _calibration(weights, kind, weights_sha256))}
    return Judge(fusion, found.get(PROBABILITY), found.get(DISTANCE), note is None or PROBABILITY in found)


def _calibration(weights: str, kind: str, weights_sha256: str | None) -> Calibration | None:
    path = beside_model(weights, FILES[kind])
    if not path.is_file():
        return None
    stored = read_calibration(path).calibration
    return stored if weights_sha256 in (None, stored.made.descriptors.get(WEIGHTS)) else None


def verdict_of(probability: float, evidence: npt.NDArray[np.float32] | None, *, aligned: bool) -> Verdict:
    """Return the verdict of a pair; only pixels that agree make it a copy, never the lack of evidence.

    `evidence` is None if the pixels of no pair were compared: then the probability alone decides.
    """
    if evidence is None:
        return Verdict.copy if probability >= SURE else Verdict.perhaps if probability >= POSSIBLE else Verdict.none
    agrees = aligned and evidence[COLUMN["log_nfa"]] >= SIGNIFICANT and evidence[COLUMN["agreement"]] >= AGREEING
    if agrees and probability >= SURE:
        return Verdict.copy
    return Verdict.perhaps if probability >= POSSIBLE and aligned else Verdict.none


def flags_of(evidence: npt.NDArray[np.float32] | None) -> tuple[str, ...]:
    """Return why the probability of a pair may not hold."""
    if evidence is None:
        return ()
    if np.isnan(evidence).all():
        return (NO_PIXELS,)
    few = min(evidence[COLUMN["features_query"]], evidence[COLUMN["features_reference"]]) < FEW_FEATURES
    return (PLAIN,) if few else ()
