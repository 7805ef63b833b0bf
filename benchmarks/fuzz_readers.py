"""Readers of each class of inputs: they read a file, or raise InputError in one line that names it."""

from __future__ import annotations

import io
import os
import sqlite3
import struct
import sys
from collections.abc import Callable
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.fuzz_corpus import approximate_files, descriptors, index_files, photo_key
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import read_descriptors, read_provenance
from isc.data.model_files import SHIPPED
from isc.errors import InputError
from isc.photos.sources import list_photos
from isc.search.index.index import Index


def read_hdf5(path: Path) -> None:
    read_provenance(path)
    read_descriptors(path)


def read_tar(path: Path) -> None:
    listing = list_photos(path)
    for row in range(len(listing)):
        listing.data(row)


def read_model(path: Path) -> None:
    from isc.model.files import load_run

    header = path.read_bytes()
    tensors = (SHIPPED / "isc_small.safetensors").read_bytes()
    path.write_bytes(header + tensors[8 + struct.unpack("<Q", tensors[:8])[0] :])
    load_run(path)


def read_index(path: Path) -> None:
    index = Index.create(path.with_suffix(".index"), dim=16, provenance={})
    with index.writer() as writer:
        writer.add(descriptors(), provenance={})
        writer.remove(["R003", "R004"])
    with closing(sqlite3.connect(index.path / "index.sqlite")) as database, database:
        for statement in path.read_bytes().decode().split(";"):
            try:
                database.execute(statement)
            except sqlite3.Error:
                return  # SQLite itself refuses the change
    _use_index(index, path, provenance={})


def _use_index(index: Index, path: Path, *, provenance: dict[str, str]) -> None:
    """Search, verify and compact an index. Raises InputError in the name of `path` if any of them is refused."""
    queries = Descriptors(["q"], np.ones((1, 16), np.float32))
    refusals = []
    for act in (
        lambda: index.knn(queries, k=5, provenance=provenance), index.stats, lambda: _verify(index),
        lambda: _compact(index),
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


def read_arguments(path: Path) -> None:
    """Call a command with the lines of the file as its arguments; everything that it writes goes to /dev/null."""
    from isc.cli import verbs

    verb, *arguments = path.read_bytes().decode("utf-8", "surrogateescape").replace("\0", "").split("\n")
    said = io.StringIO()
    with (
        mock.patch.dict(os.environ, XDG_CACHE_HOME=str(path.parent)),
        mock.patch.object(sys, "argv", [f"{verb}.py", *arguments]),
        redirect_stderr(said),
        redirect_stdout(io.StringIO()),
    ):
        try:
            getattr(verbs, verb if verb in verbs.SCHEMAS else "match")()
        except SystemExit as end:
            if end.code == 2:
                raise InputError(f"{path}: {said.getvalue().strip()}") from None


def index_with(name: str) -> Callable[[Path], None]:
    """Return the reader of an index in which one file, named by how its name begins, is the file that is read."""

    def read(path: Path) -> None:
        folder = path.with_suffix(".index")
        folder.mkdir()
        for file, data in index_files().items():
            (folder / file).write_bytes(path.read_bytes() if file.startswith(name) else data)
        try:
            index = Index.open(folder)
        except InputError as error:
            raise InputError(str(error).replace(str(folder), str(path))) from None
        _use_index(index, path, provenance={"model": "m"})

    return read


def read_feature_store(path: Path) -> None:
    """Check a store, look a photo up, and store another; what is damaged may also be passed over with a warning."""
    from isc.match.verification.feature_store import FeatureStore

    folder = path.with_suffix(".features")
    folder.mkdir()
    store = FeatureStore(folder)
    store.path.write_bytes(path.read_bytes())
    try:
        store.check()
        found = store.get_many([photo_key()])
        store.present([photo_key()])
        for features in found.values():
            store.put_many({photo_key(): features})
    except InputError as error:
        raise InputError(str(error).replace(str(folder), str(path))) from None


def read_video(path: Path) -> None:
    from isc.video.reading import frames, rate_and_size

    rate_and_size(path)
    for frame in frames(path, most=20):
        assert frame.pixels.ndim == 3


def read_onnx(path: Path) -> None:
    from isc.model.onnx import load_onnx

    load_onnx(path)


def read_checkpoint(path: Path) -> None:
    from isc.model.published import read_checkpoint, read_state

    read_state(path)
    with suppress(InputError):  # most states are no published model
        read_checkpoint(path)


def read_tensors(path: Path) -> None:
    """Load the shipped model with other bytes in the place of some of its tensors."""
    from isc.model.files import load_run

    data = bytearray((SHIPPED / "isc_small.safetensors").read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    for line in path.read_bytes().splitlines():
        share, _, change = line.partition(b" ")
        with suppress(ValueError, OverflowError):
            at = start + int(min(1.0, max(0.0, float(share))) * (len(data) - start))
            if change == b"cut":
                del data[at:]
            else:
                new = bytes.fromhex(change.decode("ascii"))
                data[at : at + len(new)] = new
    path.write_bytes(data)
    load_run(path)


def approximate_with(name: str) -> Callable[[Path], None]:
    """Return the reader of an approximate index in which one file is the file that is read."""

    def read(path: Path) -> None:
        from isc.search.approximate.files import load

        folder = path.with_suffix(".approximate")
        folder.mkdir()
        for file, data in approximate_files().items():
            (folder / file).write_bytes(path.read_bytes() if file == name else data)
        try:
            load(folder).knn(np.ones((1, 16), np.float32), k=3)
        except InputError as error:
            raise InputError(str(error).replace(str(folder), str(path))) from None

    return read


def read_click(path: Path) -> None:
    """Call `isc` with the lines of the file as its arguments."""
    from isc.cli.main import main

    arguments = path.read_bytes().decode("utf-8", "surrogateescape").replace("\0", "").split("\n")
    said = io.StringIO()
    with (
        mock.patch.dict(os.environ, XDG_CACHE_HOME=str(path.parent)),
        redirect_stderr(said),
        redirect_stdout(io.StringIO()),
    ):
        try:
            main(arguments)
        except SystemExit as end:
            if end.code not in (0, None):
                last = said.getvalue().strip().split("\n")[-1]
                raise InputError(f"{path}: {last if end.code == 2 else said.getvalue()}") from None
