"""The verb match: descriptors, or a submission → the best pairs, their scores, and a report."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isc.config.choices import Track
from isc.config.match import InputOptions, MatchConfig, SearchOptions, VerifyOptions
from isc.errors import InputError
from isc.evaluate.calibration.files import MODEL, NONE
from isc.evaluate.calibration.score_origin import DISTANCE, PROBABILITY, ScoreOrigin
from isc.evaluate.metrics import Metrics
from isc.evaluate.report.comparison import read_run
from isc.evaluate.report.edit_texts import read_edit_texts
from isc.evaluate.report.thumbnails import Pictures
from isc.match.inputs import DescriptorSets, read_inputs, refuse_own_input
from isc.match.outputs import Results, judge, print_summary, write_results
from isc.match.search import SearchResult, Verification, find

if TYPE_CHECKING:
    from isc.data.matches import Matches
    from isc.evaluate.calibration.apply import Applied
    from isc.evaluate.calibration.files import CalibrationFile
    from isc.match.verification.fusion import Fusion

log = logging.getLogger(__name__)


def match(config: MatchConfig) -> Metrics | None:
    """Match descriptors or read a submission, judge it if there is a ground truth, and write all to `config.output`.

    The folder receives predictions.csv and submission.h5 (unless a submission with the same content was given, or
    images have several rows), match.json, views.csv if images have several rows, probabilities.csv with a calibration,
    metrics.json with a ground truth, comparison.json with another run, evidence.jsonl for compared pixels,
    not_compared.csv for pictures that could not be compared, and report/index.html. Raises InputError for bad input;
    then nothing is written.
    """
    pictures = _pictures(config)
    edits = read_edit_texts(Path(config.edits)) if config.edits else None
    files = InputOptions.of(config)
    if config.submission is None:
        refuse_own_input(files, config.output)
    inputs = read_inputs(files)
    sets, truth = inputs.sets, inputs.ground_truth
    other = read_run(Path(config.compare), ground_truth=truth) if config.compare and truth else None
    fusion = _fusion(config, sets) if pictures else None
    made = _made(config, sets, fusion) if sets and inputs.predictions is None else None
    stored = _calibration(config, made)
    found = None
    if inputs.predictions is not None:
        matches = inputs.predictions
    elif sets is not None:
        verification = Verification(pictures, fusion, VerifyOptions.of(config)) if pictures and fusion else None
        found = find(sets, SearchOptions.of(config), verification)
        matches = found.pairs.matches
    else:
        raise InputError("neither descriptors nor predictions; expected queries= and references=, or submission=")
    judgement = judge(matches, truth, other=other) if truth else None
    for note in inputs.notes:
        log.warning("%s", note)
    if config.training is not None and config.normalize == "none" and config.index is None:
        log.warning("training=%s has no effect with normalize=none and without index=", config.training)
    results = Results(matches, found, made, judgement, _calibrated(stored, matches, made, sets, found))
    write_results(
        results,
        Path(config.output),
        sets=sets,
        submitted=config.submission is not None,
        title=f"{Path(config.output).absolute().name}: {config.track.value} track",
        provenance=_given(config) | dict(sets.provenance if sets else {}),
        pictures=pictures,
        edits=edits,
    )
    print_summary(results, Path(config.output))
    return judgement.metrics if judgement else None


def _given(config: MatchConfig) -> dict[str, str]:
    """Return the options that have a value, as text."""
    return {key: str(getattr(value, "value", value)) for key, value in vars(config).items() if value is not None}


def _pictures(config: MatchConfig) -> Pictures | None:
    if config.query_images is None or config.reference_images is None:
        return None
    from isc.photos.folders import list_images

    return Pictures(
        list_images(Path(config.query_images), key="query_images"),
        list_images(Path(config.reference_images), key="reference_images"),
    )


def _fusion(config: MatchConfig, sets: DescriptorSets | None) -> Fusion | None:
    """Return the fusion of distance and pixels into a probability; None if the pixels are not compared."""
    if config.track is not Track.matching or sets is None:
        return None
    from isc.match.verification.fusion_files import fusion_for

    fusion, note = fusion_for(config.fusion, sets.provenance)
    if note:
        log.warning("%s", note)
    return fusion


def _made(config: MatchConfig, sets: DescriptorSets, fusion: Fusion | None) -> ScoreOrigin:
    if config.track is Track.matching and fusion is None:
        log.info("track=matching without query_images= and reference_images=: the scores are the distances alone")
    text = json.dumps(fusion.as_dict(), sort_keys=True) if fusion else ""
    return ScoreOrigin(
        track=config.track.value,
        scores=PROBABILITY if fusion else DISTANCE,
        normalize=sets.provenance.get("normalize", "none"),
        k=config.k,
        queries=len(sets.queries.images),
        references=len(sets.references.images),
        fusion_sha256=hashlib.sha256(text.encode()).hexdigest() if fusion else None,
        descriptors=sets.provenance,
    )


def _calibration(config: MatchConfig, made: ScoreOrigin | None) -> CalibrationFile | None:
    """Return the requested calibration if it holds for scores of the origin `made`, else None."""
    if made is None:
        if config.calibration not in (MODEL, NONE):
            raise InputError(
                f"calibration={config.calibration}: submission={config.submission} does not say what made its scores; "
                "expected queries= and references=, or a submission.h5"
            )
        return None
    from isc.evaluate.calibration.files import calibration_for

    stored, note = calibration_for(config.calibration, made)
    if note:
        log.warning("%s", note)
    return stored


def _calibrated(
    stored: CalibrationFile | None,
    matches: Matches,
    made: ScoreOrigin | None,
    sets: DescriptorSets | None,
    found: SearchResult | None,
) -> Applied | None:
    if stored is None or made is None:
        return None
    from isc.evaluate.calibration.apply import apply

    unrelated = None
    picture, part, log_nfa = (None, None, None) if found is None else (found.picture, found.part, found.log_nfa)
    if stored.calibration.unrelated is not None:
        if found is None or sets is None:
            raise InputError(
                f"{stored.path}: compares queries with unrelated pictures; expected queries= and references=, or "
                "calibration=none"
            )
        from isc.evaluate.calibration.versions import picture_by_distance
        from isc.search.unrelated import unrelated_distance

        rows, at = np.unique(found.pairs.query_row, return_inverse=True)
        unrelated = unrelated_distance(found.sets.queries.vectors[rows], stored.calibration.unrelated)[at]
        vectors, row = found.sets.references.vectors, found.pairs.reference_row
        picture = picture_by_distance(matches, vectors, row, unrelated)
    return apply(
        stored,
        matches,
        queries=made.queries,
        references=made.references,
        unrelated=unrelated,
        picture=picture,
        part=part,
        log_nfa=log_nfa,
    )
