"""Copies of known photos: which photo each suspect was made from, where, and how surely."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from isc.config.choices import Combine
from isc.data.descriptors import Descriptors
from isc.data.matches import Matches as Pairs
from isc.errors import InputError
from isc.evaluate.calibration.versions import picture_by_distance
from isc.extract.batches import Files
from isc.extract.embedding import embed_photos
from isc.extract.view_plan import ViewPlan
from isc.find.file_table import read_states
from isc.find.images import as_pixels
from isc.find.page import Region
from isc.find.photo_index import PhotoIndex
from isc.find.photos import FileState, PhotoFiles, file_state
from isc.find.results import Match, Matches, Verdict, certainty, surest
from isc.find.verdicts import OTHER_MODEL, judge_of, verdict_of
from isc.find.videos import joined, suspect_files
from isc.match.flags import COLUMN, NO_PIXELS, flags_of
from isc.match.verification.alignment import Alignment
from isc.match.verification.compare import Verified, verify
from isc.match.verification.feature_store import FeatureStore
from isc.match.verification.rivals import are_sure, part_of, picture_by_pixels
from isc.model.download import cache_folder
from isc.photos.views import parse_views
from isc.runtime.cpus import worker_count
from isc.runtime.progress import progress
from isc.search.index.index import Index as DescriptorIndex
from isc.search.index.manifest import require_one_row_each

CANDIDATES = 10  # photos per view of a suspect whose pixels are compared with the suspect's
VIEWS = "regions:1"  # of a suspect, besides the whole: the likeliest picture in the picture


@dataclass(frozen=True)
class Picture:
    """The bytes of a picture file from elsewhere (a URL, standard input), and what to call it."""

    name: str
    data: bytes


def find_copies(
    index: PhotoIndex, suspects: Sequence[Any], *, k: int = 1, pixels: bool = True, workers: int = -1
) -> Matches:
    """Return the `k` best matches of each suspect; see `Index.find`."""
    if not suspects:
        raise InputError("no suspects; expected at least one picture")
    _refuse_empty(index)
    with tempfile.TemporaryDirectory(prefix="isc-find-") as folder:
        listed = _as_files(suspects, Path(folder))
        described, failures = _described(index, listed.files, workers=workers)
        unreadable = (*listed.unusable, *((listed.shown(name), why) for name, why in failures.items()))
        if described is None:
            why = ": ".join(unreadable[0])
            raise InputError(f"none of {len(unreadable):,} suspects can be read; the first: {why}")
        candidates = _candidates(index, described, k=max(k, CANDIDATES))
        found = _compared(index, candidates, described, listed.files, pixels=pixels, workers=workers).best(k)
    rows = (row if row.frame is not None else replace(row, suspect=listed.shown(row.suspect)) for row in joined(found))
    return Matches(tuple(rows), unreadable)


def find_by_descriptors(index: PhotoIndex, suspects: Descriptors, *, k: int = 1) -> Matches:
    """Return the `k` best matches of each suspect by the distance of descriptors alone, which the index's model made.

    Raises InputError for suspects of several rows, or of another dimension.
    """
    require_one_row_each(suspects)
    _refuse_empty(index)
    candidates = _candidates(index, suspects, k=k)
    return Matches(tuple(_compared(index, candidates, suspects, {}, pixels=False, workers=1).best(k)))


def _refuse_empty(index: PhotoIndex) -> None:
    if not len(index):
        raise InputError(f"{index.path}: holds no photos; add some first")


def _as_files(suspects: Sequence[Any], folder: Path) -> PhotoFiles:
    """List the suspects' files; pictures in memory are written to the folder, losslessly, and named by their number."""
    files: dict[str, Path] = {}
    unusable: list[tuple[str, str]] = []
    for number, suspect in enumerate(suspects):
        if isinstance(suspect, str | Path):
            one = suspect_files(Path(suspect), folder)
            files |= one.files
            unusable += one.unusable
            continue
        name, data = (suspect.name, suspect.data) if isinstance(suspect, Picture) else _as_png(suspect, number)
        files[name] = folder / f"{number}.png"
        files[name].write_bytes(data)
    return PhotoFiles(files, tuple(unusable))


def _as_png(suspect: Any, number: int) -> tuple[str, bytes]:
    name = f"suspect {number}"
    pixels = as_pixels(suspect, name=name)
    return name, cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()


def _compared(
    index: PhotoIndex,
    candidates: _Candidates,
    described: Descriptors,
    files: Mapping[str, Path],
    *,
    pixels: bool,
    workers: int,
) -> _Compared:
    """Judge the candidates: by the pixels of pairs whose pictures are there, and by the distance of the others."""
    judge = judge_of(index.model, index.weights_sha256)
    pairs = candidates.pairs
    squared = 0.0 - pairs.score.astype(np.float64)
    apart = judge.unrelated_distance(described.vectors)
    unrelated = None if apart is None else apart[candidates.row]
    suspects, known = len(pairs.query_ids), len(index)
    states = read_states(index.path)
    evidence: dict[int, npt.NDArray[np.float32]] = {}
    alignments: dict[int, Alignment] = {}
    near = None if unrelated is None else picture_by_distance(pairs, candidates.vectors, pairs.reference, unrelated)
    probability = judge.probabilities(
        squared, unrelated=unrelated, suspect=pairs.query, picture=near, suspects=suspects, photos=known
    )
    photos = {name: Path(name) for name in pairs.reference_ids.tolist() if name in states and Path(name).is_file()}
    there = np.array([name in photos for name in pairs.reference_ids], bool)[pairs.reference]
    if rows := np.flatnonzero(there).tolist() if pixels else []:
        count = None if workers < 0 else max(1, workers)
        store = FeatureStore(features_folder())
        verified = verify(pairs.take(there), files, photos, store=store, workers=count)
        evidence = dict(zip(rows, verified.evidence, strict=True))
        alignments = {rows[at]: one for at, one in verified.alignments.items()}
        fused = replace(pairs.take(there), score=judge.fusion.probability(squared[rows], verified.evidence))
        probability[rows] = judge.probabilities(
            squared[rows],
            verified.evidence,
            unrelated=None if unrelated is None else unrelated[rows],
            suspect=_part_of(fused, verified),
            picture=picture_by_pixels(fused, photos, store=store, workers=count),
            suspects=suspects,
            photos=known,
        )
    same = _same_files(states, files, pairs)
    return _Compared(pairs, probability, evidence, alignments, same, judge.calibrated)


def _part_of(pairs: Pairs, verified: Verified) -> npt.NDArray[np.int64]:
    """Return the number of the part of its suspect that each pair shows."""
    sure = are_sure(verified.evidence[:, COLUMN["log_nfa"]], verified.evidence[:, COLUMN["agreement"]])
    return part_of(pairs, {row: one.query_region for row, one in verified.alignments.items() if sure[row]})


def _described(
    index: PhotoIndex, files: Mapping[str, Path], *, workers: int
) -> tuple[Descriptors | None, dict[str, str]]:
    """Return the descriptors of each suspect and of its likeliest region, and {id: reason} of unreadable suspects."""
    network, names = index.network(), list(files)
    size = DescriptorIndex.open(index.path).manifest.image_size or network.image_size
    plan = ViewPlan(size, parse_views(VIEWS), Combine.rows)
    failures: dict[str, str] = {}
    ids: list[str] = []
    vectors: list[npt.NDArray[np.float32]] = []
    with progress("describing", "suspects") as report:
        for block in embed_photos(
            network, Files(list(files.values())), range(len(names)), view_plan=plan, workers=worker_count(workers)
        ):
            failures |= {names[row]: why.removeprefix(f"{files[names[row]]}: ") for row, why in block.failures.items()}
            ids += [names[row] for row in block.rows]
            vectors += list(block.vectors)
            report(len(ids) + len(failures), len(names))
    if not ids:
        return None, failures
    views = np.concatenate([np.full(plan.rows, name, object) for name in ids])
    number = np.array([str(at % plan.rows) for at in range(len(views))], dtype=object)
    return Descriptors(views, np.concatenate(vectors), number), failures


@dataclass(frozen=True)
class _Candidates:
    """Pairs sorted by suspect, with the score −(smallest distance)², and the `row` [P] of the suspect that gave it.

    `vectors` [R, D] are the descriptors of the photos, in the order of the pairs' table of ids.
    """

    pairs: Pairs
    row: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]


def _candidates(index: PhotoIndex, described: Descriptors, *, k: int) -> _Candidates:
    """Return the `k` nearest photos of every row of each suspect, each photo once."""
    names = np.array(list(dict.fromkeys(described.ids)), dtype=object)
    owner = np.arange(len(described)) // (len(described) // len(names))
    plain = Descriptors(np.array([str(row) for row in range(len(described))], dtype=object), described.vectors)
    opened = DescriptorIndex.open(index.path)
    with progress("searching", "suspects") as report, opened.snapshot() as now:
        found = now.knn(plain, k=k, provenance=opened.manifest.provenance, progress=report)
        vectors = now.vectors[now.rows(found.reference_ids)]
    suspect = owner[found.query]
    order = np.lexsort((-found.score, found.reference, suspect))
    first = np.r_[True, (np.diff(suspect[order]) != 0) | (np.diff(found.reference[order]) != 0)]
    rows = order[first]
    pairs = Pairs(names, found.reference_ids, suspect[rows], found.reference[rows], found.score[rows])
    return _Candidates(pairs, found.query[rows], vectors)


def _same_files(states: Mapping[str, FileState], files: Mapping[str, Path], candidates: Pairs) -> set[tuple[str, str]]:
    """Return (suspect, photo) of candidates with the same bytes; only files of equal size are read."""
    sizes = {name: path.stat().st_size for name, path in files.items() if path.exists()}
    pairs = zip(candidates.query_ids[candidates.query], candidates.reference_ids[candidates.reference], strict=True)
    alike = [(q, r) for q, r in pairs if r in states and states[r].size == sizes.get(q)]
    digest = {name: file_state(files[name]).sha256 for name in {q for q, _ in alike}}
    return {(q, r) for q, r in alike if states[r].sha256 == digest[q]}


@dataclass(frozen=True)
class _Compared:
    """The candidates of all suspects, sorted by suspect, with their probabilities [P].

    `evidence` and `alignments` are those of the pairs, by row, whose pixels were compared.
    """

    candidates: Pairs
    probability: npt.NDArray[np.float64]
    evidence: Mapping[int, npt.NDArray[np.float32]]
    alignments: Mapping[int, Alignment]
    same: set[tuple[str, str]]
    calibrated: bool

    def best(self, k: int) -> list[Match]:
        """Return the `k` best matches of each suspect, the surest first, and the suspect with the surest one first."""
        rows = groupby(range(len(self.candidates)), key=lambda row: int(self.candidates.query[row]))
        groups = [sorted(map(self._match, group), key=certainty)[:k] for _, group in rows]
        groups.sort(key=lambda group: surest(group[0]))
        return [match for group in groups for match in group]

    def _match(self, row: int) -> Match:
        pairs, alignment = self.candidates, self.alignments.get(row)
        suspect, photo = pairs.query_ids[pairs.query[row]], pairs.reference_ids[pairs.reference[row]]
        told = self.evidence.get(row)
        identical = (suspect, photo) in self.same
        probability = 1.0 if identical else float(self.probability[row])
        verdict = Verdict.copy if identical else verdict_of(probability, told, aligned=alignment is not None)
        flags = (NO_PIXELS,) if told is None else flags_of(told)
        return Match(
            suspect=suspect,
            photo=photo,
            verdict=verdict,
            probability=probability,
            distance=float(np.sqrt(0.0 - float(pairs.score[row]))),
            inliers=None if told is None or np.isnan(told).all() else int(told[COLUMN["inliers"]]),
            suspect_region=region(alignment.query_region) if alignment else None,
            photo_region=region(alignment.reference_region) if alignment else None,
            mirrored=alignment.mirrored if alignment else False,
            same_file=identical,
            flags=flags if self.calibrated else (*flags, OTHER_MODEL),
        )


def region(corners: npt.NDArray[np.float64]) -> Region:
    return tuple((round(float(x), 4), round(float(y), 4)) for x, y in corners)


def features_folder() -> Path:
    """Return the folder of the user's cache that keeps local features of photos."""
    return cache_folder() / "features"
