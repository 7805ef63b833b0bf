"""Sound files of each class of inputs that the fuzzer changes, made when they are first asked for."""

from __future__ import annotations

import functools
import io
import json
import sqlite3
import struct
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from benchmarks.damaged_files import damaged_tars, nested_json
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import write_descriptors, write_submission
from isc.data.model_files import SHIPPED
from isc.photos.decode import read_image
from isc.search.index.index import Index

SAMPLE = SHIPPED.parents[1] / "sample"


def written(write: Callable[[Path], object], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        write(path)
        return path.read_bytes()


def descriptors() -> Descriptors:
    return Descriptors([f"R{row:03}" for row in range(20)], np.eye(20, 16, dtype=np.float32) + 1)


def other_hdf5(path: Path) -> None:
    held = descriptors()
    with h5py.File(path, "w") as file:
        file.create_dataset("vectors", data=held.vectors, chunks=(7, 16), compression="gzip")
        file.create_dataset("image_names", data=held.ids.tolist(), dtype=h5py.string_dtype())
        file.attrs["model"], file.attrs["numbers"] = "of variable length", [1, 2, 3]


def hdf5_files() -> Sequence[bytes]:
    own = written(lambda path: write_descriptors(path, descriptors(), {"model": "m"}), "a.h5")
    return own, written(other_hdf5, "b.h5")


def submissions() -> Sequence[bytes]:
    held = descriptors()
    return [written(lambda path: write_submission(path, held, held, {"model": "m"}), "s.h5")]


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


def shipped(name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [(SHIPPED / name).read_bytes()]


def chains() -> Sequence[bytes]:
    values = {"format": "isc-normalize-1", "normalize": "whiten:dim=8+score", "weights_sha256": "a", "training_rows": 9}
    return [json.dumps(values).encode()]


def model() -> Sequence[bytes]:
    import isc.model.files  # noqa: F401 -- here: a limited process has no room for torch

    data = (SHIPPED / "isc_small.safetensors").read_bytes()
    return [data[: 8 + struct.unpack("<Q", data[:8])[0]]]  # the header alone: what is behind it is numbers


def statements() -> Sequence[bytes]:
    return [
        f"UPDATE {table} SET {column} = ?".encode()
        for table, column in (
            ("state", "generation"), ("state", "rows"), ("state", "live"), ("state", "changed"), ("images", "row"),
            ("images", "id"),
        )
    ] + [b"DELETE FROM images WHERE row > ?", b"INSERT INTO state VALUES (?, ?, ?, 'now')"]  # fmt: skip


def arguments() -> Sequence[bytes]:
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


def odd_tars() -> Sequence[bytes]:
    return [data + bytes(1024) for data in damaged_tars(b"no photo").values()]


def odd_json(name: str) -> Callable[[], Sequence[bytes]]:
    """Return the maker of nested JSON, with the keys of a shipped file."""
    return lambda: nested_json(list(json.loads((SHIPPED / name).read_bytes())))


def match_files() -> Sequence[bytes]:
    values = {
        "format": "isc-match-1", "track": "matching", "scores": "probability", "normalize": "none", "k": None,
        "queries": 3, "references": 4, "fusion_sha256": "ab", "descriptors": {"model": "m", "dim": "16"},
    }  # fmt: skip
    return [json.dumps(values).encode()]


def edit_files() -> Sequence[bytes]:
    lines = [
        {
            "query_id": f"Q{row}",
            "reference_id": "R1",
            "edits": [{"name": "crop", "text": "cropped", "values": {"share": 0.5}}],
        }
        for row in range(3)
    ]
    return ["".join(json.dumps(line) + "\n" for line in lines).encode()]


def patches() -> Sequence[bytes]:
    """Return changes of the tensors of a model: lines of a place, 0…1 of the file, and the bytes in hexadecimal."""
    return [b"0.5 00\n", b"0.999 0000c07f0000c07f\n0.2 ffff\n", b"0.7 cut\n"]


@functools.cache
def onnx_files() -> Sequence[bytes]:
    """Return networks of one layer, with and without a fixed size."""
    from onnx import TensorProto, helper, numpy_helper

    import isc.model.onnx  # noqa: F401 -- here: a limited process has no room for what it loads

    found = []
    for size in (8, None):
        nodes = [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["mean", "weight"], ["y"]),
        ]
        weight = numpy_helper.from_array(np.eye(3, 4, dtype=np.float32), "weight")
        ends = [
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3, size, size])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
        ]
        graph = helper.make_graph(nodes, "net", *ends, [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, {"mean": "0, 0, 0", "std": "1, 1, 1"})
        found.append(model.SerializeToString())
    return found


@functools.cache
def checkpoints() -> Sequence[bytes]:
    """Return states of torch.save, in both of its formats."""
    import torch

    state = {"conv.weight": torch.ones(2, 3), "module.bn.bias": torch.zeros(2)}
    found = []
    for held, zipped in ((state, True), ({"state_dict": state, "arch": "a", "epoch": 3}, True), (state, False)):
        file = io.BytesIO()
        torch.save(held, file, _use_new_zipfile_serialization=zipped)
        found.append(file.getvalue())
    return found


def _index(path: Path) -> Index:
    index = Index.create(path, dim=16, provenance={"model": "m"})
    with index.writer() as writer:
        writer.add(descriptors(), provenance={"model": "m"})
        writer.remove(["R003", "R004"])
    return index


@functools.cache
def index_files() -> dict[str, bytes]:
    """Return the files of an index by name; the database as one file, without its log."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "an.index")
        _index(path)
        with closing(sqlite3.connect(path / "index.sqlite")) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return {file.name: file.read_bytes() for file in path.iterdir() if file.suffix not in (".lock", ".sqlite-wal")}


def index_file(name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [data for file, data in index_files().items() if file.startswith(name)]


def feature_stores() -> Sequence[bytes]:
    """Return a store of the local features of one photo, whose path, size and time are those of PHOTO_KEY."""
    from isc.match.verification.feature_store import FeatureStore
    from isc.match.verification.features import local_features

    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder))
        assert store.put_many({photo_key(): local_features(read_image(SAMPLE / "S000.jpg"))})
        store.close()
        with closing(sqlite3.connect(store.path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return [store.path.read_bytes()]


def photo_key() -> Any:
    from isc.match.verification.feature_store import PhotoKey

    return PhotoKey(Path("/a/photo.jpg"), 1000, 2000)


def videos() -> Sequence[bytes]:
    """Return films of ten frames, in each container that PyAV writes here."""
    import av

    photo = np.asarray(Image.open(SAMPLE / "S000.jpg").resize((64, 48)))
    found = []
    for suffix, codec in ((".mp4", "mpeg4"), (".mkv", "mpeg4"), (".avi", "mjpeg"), (".ts", "mpeg2video")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"a{suffix}")
            with av.open(str(path), "w") as out:
                stream = out.add_stream(codec, rate=25)
                stream.width, stream.height = 64, 48
                stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                for at in range(10):
                    frame = av.VideoFrame.from_ndarray(np.roll(photo, 5 * at, axis=1), format="rgb24")
                    frame.pts, frame.time_base = at, Fraction(1, 25)
                    out.mux(stream.encode(frame))
                out.mux(stream.encode())
            found.append(path.read_bytes())
    return found


@functools.cache
def approximate_files() -> dict[str, bytes]:
    """Return the files of an approximate index by name."""
    from isc.search.approximate.index import Approximate

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "approximate")
        made = Approximate.train("IVF2,Flat", descriptors().vectors)
        made.add(descriptors().vectors)
        made.save(path)
        return {file.name: file.read_bytes() for file in path.iterdir()}


def approximate_file(name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [approximate_files()[name]]


def click_arguments() -> Sequence[bytes]:
    import isc.cli.main
    import isc.model.export
    import isc.model.files  # noqa: F401 -- here: a limited process has no room for what they load

    return [
        "\n".join(line).encode()
        for line in (
            ("find", "photos", "suspect.jpg", "-o", "out", "--format=csv"),
            ("duplicates", "photos", "-o", "out"),
            ("index", "create", "an.index", "--model", "isc_small"),
            ("index", "add", "an.index", "photos", "--replace"),
            ("index", "remove", "an.index", "--from", "names.txt", "a"),
            ("index", "query", "an.index", "s.jpg", "-k", "3", "--max-distance", "1", "--format", "json"),
            ("index", "approximate", "an.index", "--factory", "Flat", "--training", "t.h5", "--output", "o"),
            ("calibrate", "--run", "run", "--ground-truth", "g.csv", "--precision=0.9", "--output", "o.json"),
            ("fusion", "--queries", "q.h5", "--references", "r.h5", "--query-images", "q", "--reference-images", "r",
             "--ground-truth", "g.csv", "--output", "o.json"),
            ("normalize", "search", "--queries", "q.h5", "--references", "r.h5", "--training", "t.h5",
             "--ground-truth", "g.csv", "--chains", "pca:dim=8+score", "--output", "o.json"),
            ("export", "absent.safetensors", "o.onnx", "--images", "photos", "--overwrite"),
            ("products", "check", "shop", "answers.csv"),
            ("words", "check", "submission.csv", "--images", "i.csv"),
        )
    ]  # fmt: skip
