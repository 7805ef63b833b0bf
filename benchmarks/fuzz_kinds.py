"""The classes of inputs that the fuzzer changes: sound files of each, odd ones, and what reads them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import fuzz_corpus as corpus
from benchmarks import fuzz_readers as readers
from benchmarks.damaged_files import nested_json, odd_hdf5, odd_pictures
from benchmarks.fuzz_changes import (
    changed_arguments,
    changed_bytes,
    changed_patches,
    changed_statement,
    changed_text,
    resealed_tar,
)
from isc.data.csv_files import read_ground_truth, read_predictions
from isc.data.hdf5 import read_submission
from isc.evaluate.calibration.files import read_calibration
from isc.evaluate.calibration.score_origin import FILE, read_made
from isc.evaluate.report.edit_texts import read_edit_texts
from isc.match.verification.fusion_files import read_fusion
from isc.photos.decode import read_image
from isc.search.normalize.files import read_stored

Maker = Callable[[], Sequence[bytes]]
Change = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Kind:
    """A class of inputs: sound files, what reads one of them, how they are changed, and odd files.

    Odd files are damaged or hostile by construction; the fuzzer changes them too. What is built into the folder of the
    file is the reader's own.
    """

    sound: Maker
    read: Callable[[Path], object]
    suffix: str
    change: Change
    odd: Maker = tuple


def _read_made(path: Path) -> None:
    folder = path.with_suffix(".run")
    folder.mkdir()
    (folder / FILE).write_bytes(path.read_bytes())
    try:
        read_made(folder)
    except readers.InputError as error:
        raise readers.InputError(str(error).replace(str(folder), str(path))) from None


def _photo_pictures() -> Sequence[bytes]:
    return odd_pictures(read_image(corpus.SAMPLE / "S000.jpg")[:40, :60])


KINDS = {
    "CSV: predictions": Kind(corpus.csv_files, read_predictions, ".csv", changed_bytes),
    "CSV: ground truth": Kind(corpus.truth_files, read_ground_truth, ".csv", changed_bytes),
    "HDF5: descriptors": Kind(corpus.hdf5_files, readers.read_hdf5, ".h5", changed_bytes, odd_hdf5),
    "HDF5: submission": Kind(corpus.submissions, read_submission, ".h5", changed_bytes, odd_hdf5),
    "tar": Kind(corpus.tar_files, readers.read_tar, ".tar", resealed_tar, corpus.odd_tars),
    "picture": Kind(corpus.pictures, read_image, ".jpg", changed_bytes, _photo_pictures),
    "video": Kind(corpus.videos, readers.read_video, ".mp4", changed_bytes),
    "JSON: calibration": Kind(
        corpus.shipped("isc_small.calibration.matching.json"), read_calibration, ".json", changed_text,
        corpus.odd_json("isc_small.calibration.matching.json"),
    ),
    "JSON: fusion": Kind(
        corpus.shipped("isc_small.fusion.json"), read_fusion, ".json", changed_text,
        corpus.odd_json("isc_small.fusion.json"),
    ),
    "JSON: chain": Kind(corpus.chains, read_stored, ".json", changed_text, nested_json),
    "JSON: match.json": Kind(corpus.match_files, _read_made, ".json", changed_text, nested_json),
    "JSON: edits": Kind(corpus.edit_files, read_edit_texts, ".jsonl", changed_text, nested_json),
    "model: header": Kind(corpus.model, readers.read_model, ".safetensors", changed_bytes),
    "model: tensors": Kind(corpus.patches, readers.read_tensors, ".safetensors", changed_patches),
    "model: ONNX": Kind(corpus.onnx_files, readers.read_onnx, ".onnx", changed_bytes),
    "model: checkpoint": Kind(corpus.checkpoints, readers.read_checkpoint, ".pt", changed_bytes),
    "index: tables": Kind(corpus.statements, readers.read_index, ".sql", changed_statement),
    "index: manifest": Kind(
        corpus.index_file("manifest"), readers.index_with("manifest"), ".json", changed_text, nested_json
    ),
    "index: database": Kind(corpus.index_file("index"), readers.index_with("index"), ".sqlite", changed_bytes),
    "index: vectors": Kind(corpus.index_file("vectors"), readers.index_with("vectors"), ".f32", changed_bytes),
    "index: approximate, card": Kind(
        corpus.approximate_file("index.json"), readers.approximate_with("index.json"), ".json", changed_text,
        nested_json,
    ),
    "index: approximate, lists": Kind(
        corpus.approximate_file("index.faiss"), readers.approximate_with("index.faiss"), ".faiss", changed_bytes
    ),
    "feature store": Kind(corpus.feature_stores, readers.read_feature_store, ".sqlite", changed_bytes),
    "command line: verbs": Kind(corpus.arguments, readers.read_arguments, ".txt", changed_arguments),
    "command line: isc": Kind(corpus.click_arguments, readers.read_click, ".txt", changed_arguments),
}  # fmt: skip
