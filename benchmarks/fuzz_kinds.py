"""The classes of inputs that the fuzzer changes: sound files of each, and what reads them."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import struct
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
from PIL import Image

from benchmarks.fuzz_changes import changed_arguments, changed_bytes, changed_statement, changed_text, resealed_tar
from isc.data.csv_files import read_ground_truth, read_predictions
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import read_descriptors, read_provenance, read_submission, write_descriptors, write_submission
from isc.data.model_files import SHIPPED
from isc.errors import InputError
from isc.evaluate.calibration.files import read_calibration
from isc.match.verification.fusion_files import read_fusion
from isc.photos.decode import read_image
from isc.photos.sources import list_photos
from isc.search.index.index import Index
from isc.search.normalize.files import read_stored

SAMPLE = SHIPPED.parents[1] / "sample"


@dataclass(frozen=True)
class Kind:
    """A class of inputs: sound files, and what reads one of them."""

    sound: Callable[[], Sequence[bytes]]
    read: Callable[[Path], object]
    suffix: str
    change: Callable[[bytes, random.Random], bytes]


# --- sound files -----------------------------------------------------------------------------------------------------


def _written(write: Callable[[Path], object], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        write(path)
        return path.read_bytes()


def _descriptors() -> Descriptors:
    return Descriptors([f"R{row:03}" for row in range(20)], np.eye(20, 16, dtype=np.float32) + 1)


def _other_hdf5(path: Path) -> None:
    held = _descriptors()
    with h5py.File(path, "w") as file:
        file.create_dataset("vectors", data=held.vectors, chunks=(7, 16), compression="gzip")
        file.create_dataset("image_names", data=held.ids.tolist(), dtype=h5py.string_dtype())
        file.attrs["model"], file.attrs["numbers"] = "of variable length", [1, 2, 3]


def _virtual_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((20, 16), np.float32)
        layout[:] = h5py.VirtualSource("missing.h5", "vectors", (20, 16))
        file.create_virtual_dataset("vectors", layout)
        file["image_names"] = np.array([b"%d" % row for row in range(20)])
        file["query"] = h5py.ExternalLink("other.h5", "/vectors")


def hdf5_files() -> Sequence[bytes]:
    own = _written(lambda path: write_descriptors(path, _descriptors(), {"model": "m"}), "a.h5")
    return own, _written(_other_hdf5, "b.h5"), _written(_virtual_hdf5, "c.h5")


def _submissions() -> Sequence[bytes]:
    held = _descriptors()
    return [_written(lambda path: write_submission(path, held, held, {"model": "m"}), "s.h5")]


def tar_files() -> Sequence[bytes]:
    found = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
            for name in ("a.jpg", "b/" * 40 + "é.jpg" if kind != tarfile.USTAR_FORMAT else "b.jpg", "link.jpg"):
                member = tarfile.TarInfo(name)
                member.size = 0 if name == "link.jpg" else 700
                member.type, member.linkname = (tarfile.LNKTYPE, "a.jpg") if name == "link.jpg" else (b"0", "")
                tar.addfile(member, io.BytesIO(bytes(member.size)))
        found.append(file.getvalue())
    return found


def pictures() -> Sequence[bytes]:
    photo = Image.open(SAMPLE / "S000.jpg").resize((60, 40))
    found = []
    for kind, modes, options in (
        ("JPEG", ("RGB", "L", "CMYK"), {}),
        ("JPEG", ("RGB",), {"progressive": True}),
        ("PNG", ("RGB", "RGBA", "L", "P", "1", "I;16"), {}),
        ("GIF", ("P",), {}),
        ("BMP", ("RGB", "RGBA", "1"), {}),
        ("TIFF", ("RGB", "L", "F", "I;16", "1"), {}),
        ("TIFF", ("RGB", "L"), {"compression": "tiff_lzw"}),
        ("WEBP", ("RGB", "RGBA"), {}),
    ):
        for mode in modes:
            file = io.BytesIO()
            image = photo.convert("L").convert("I;16") if mode == "I;16" else photo.convert(mode)
            image.save(file, kind, **options)
            found.append(file.getvalue())
    return found


def csv_files() -> Sequence[bytes]:
    rows = "".join(f"Q{row},R{row % 7},{row / 8}\n" for row in range(40))
    return [text.encode() for text in (rows, "query_id,reference_id,score\n" + rows, rows.replace("Q1,", '"Q,1",'))]


def truth_files() -> Sequence[bytes]:
    return [b"query_id,reference_id\nQ1,R1\nQ2,\nQ3,R3\n", b"Q1,R1\r\nQ2,R2\r\n"]


def _shipped(name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [(SHIPPED / name).read_bytes()]


def _chains() -> Sequence[bytes]:
    values = {"format": "isc-normalize-1", "normalize": "whiten:dim=8+score", "weights_sha256": "a", "training_rows": 9}
    return [json.dumps(values).encode()]


def _model() -> Sequence[bytes]:
    import isc.model.files  # noqa: F401 -- here: a limited process has no room for torch

    data = (SHIPPED / "isc_small.safetensors").read_bytes()
    return [data[: 8 + struct.unpack("<Q", data[:8])[0]]]  # the header alone: what is behind it is numbers


def _statements() -> Sequence[bytes]:
    return [
        f"UPDATE {table} SET {column} = ?".encode()
        for table, column in (
            ("state", "generation"), ("state", "rows"), ("state", "live"), ("state", "changed"), ("images", "row"),
            ("images", "id"),
        )
    ] + [b"DELETE FROM images WHERE row > ?", b"INSERT INTO state VALUES (?, ?, ?, 'now')"]  # fmt: skip


# --- readers ---------------------------------------------------------------------------------------------------------


def _read_hdf5(path: Path) -> None:
    read_provenance(path)
    read_descriptors(path)


def _read_tar(path: Path) -> None:
    listing = list_photos(path)
    for row in range(len(listing)):
        listing.data(row)


def _read_model(path: Path) -> None:
    from isc.model.files import load_run

    header = path.read_bytes()
    tensors = (SHIPPED / "isc_small.safetensors").read_bytes()
    path.write_bytes(header + tensors[8 + struct.unpack("<Q", tensors[:8])[0] :])
    load_run(path)


def _read_index(path: Path) -> None:
    index = Index.create(path.with_suffix(".index"), dim=16, provenance={})
    with index.writer() as writer:
        writer.add(_descriptors(), provenance={})
        writer.remove(["R003", "R004"])
    with closing(sqlite3.connect(index.path / "index.sqlite")) as database, database:
        for statement in path.read_bytes().decode().split(";"):
            try:
                database.execute(statement)
            except sqlite3.Error:
                return  # SQLite itself refuses the change
    queries = Descriptors(["q"], np.ones((1, 16), np.float32))
    refusals = []
    for act in (
        lambda: index.knn(queries, k=5, provenance={}), index.stats, lambda: _verify(index), lambda: _compact(index),
    ):  # fmt: skip
        try:
            act()
        except InputError as error:
            refusals.append(str(error).replace(str(index.path), str(path)))
    if refusals:
        raise InputError(refusals[0])


def _verify(index: Index) -> None:
    with index.snapshot() as now:
        now.verify()
        now.descriptors()


def _compact(index: Index) -> None:
    with index.writer() as writer:
        writer.compact()


def _read_arguments(path: Path) -> None:
    """Call a command with the lines of the file as its arguments; everything that it writes goes to /dev/null."""
    from isc.cli import verbs

    verb, *arguments = path.read_bytes().decode("utf-8", "surrogateescape").replace("\0", "").split("\n")
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [f"{verb}.py", *arguments]),
        redirect_stderr(said),
        redirect_stdout(io.StringIO()),
    ):
        try:
            getattr(verbs, verb if verb in verbs.SCHEMAS else "match")()
        except SystemExit as end:
            if end.code == 2:
                raise InputError(f"{path}: {said.getvalue().strip()}") from None


def _arguments() -> Sequence[bytes]:
    import isc.cli.hydra_app
    import isc.train.run  # noqa: F401 -- here: they take seconds, and a limited process has no room for torch

    return [
        "\n".join(line).encode()
        for line in (
            ("match", "queries=q.h5", "references=r.h5", "output=o", "k=5"),
            ("match", "submission=s.csv", "ground_truth=g.csv", "output=o", "experiment=disc21"),
            ("extract", "images=[a,b]", "output=o.h5", "views=flip+crop:0.7", "hydra.verbose=true"),
            ("extract", "images='shards/{000..127}.tar'", "output=o.h5", "--resolve"),
            ("benchmark", "images=p", "output=o", "preset=each", "queries=9", "~seed"),
            ("train", "images=p", "output=o", "train.steps=5", "train.stages=[{share: 1}]"),
        )
    ]


KINDS = {
    "CSV: predictions": Kind(csv_files, read_predictions, ".csv", changed_bytes),
    "CSV: ground truth": Kind(truth_files, read_ground_truth, ".csv", changed_bytes),
    "HDF5: descriptors": Kind(hdf5_files, _read_hdf5, ".h5", changed_bytes),
    "HDF5: submission": Kind(_submissions, read_submission, ".h5", changed_bytes),
    "tar": Kind(tar_files, _read_tar, ".tar", resealed_tar),
    "picture": Kind(pictures, read_image, ".jpg", changed_bytes),
    "JSON: calibration": Kind(_shipped("isc_small.calibration.json"), read_calibration, ".json", changed_text),
    "JSON: fusion": Kind(_shipped("isc_small.fusion.json"), read_fusion, ".json", changed_text),
    "JSON: chain": Kind(_chains, read_stored, ".json", changed_text),
    "model: header": Kind(_model, _read_model, ".safetensors", changed_bytes),
    "index: tables": Kind(_statements, _read_index, ".sql", changed_statement),
    "command line": Kind(_arguments, _read_arguments, ".txt", changed_arguments),
}
