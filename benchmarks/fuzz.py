"""A fuzzer of every reader: sound files are changed at random, and each reader has to read them or say no in one line.

    python -m benchmarks.fuzz --minutes 5          # make fuzz
    python -m benchmarks.fuzz --only tar --seed 7  # one case again

A case is made from its class and its number alone, so that a failure can be run again. Each runs in a process of its
own, which may take SECONDS of a CPU and MEMORY. It fails if the reader raises anything but an InputError of one line
that names the file, takes longer or more, or crashes. Failures end the program with status 1, and are printed.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import logging
import os
import random
import sqlite3
import struct
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
from PIL import Image

from benchmarks import save
from isc.data.csv_files import read_ground_truth, read_predictions
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import read_descriptors, read_provenance, read_submission, write_descriptors, write_submission
from isc.data.limited import StoppedError, limited
from isc.data.model_files import SHIPPED
from isc.errors import InputError
from isc.evaluate.calibration.files import read_calibration
from isc.match.verification.fusion_files import read_fusion
from isc.photos.decode import read_image
from isc.photos.sources import list_photos
from isc.search.index.index import Index
from isc.search.normalize.files import read_stored

SECONDS, MEMORY = 10.0, 1 << 30  # of a CPU, and bytes beyond this process, for one case
READ, REFUSED = "read", "refused"
SAMPLE = SHIPPED.parents[1] / "sample"
NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"\xff" * 8, b"\0" * 8, b"\x80" + b"\0" * 10 + b"\1")
WORDS = ("null", "true", "[]", "{}", '""', "-1", "1e999", "NaN", "1.5", "[" * 3000, '"\\u001b[31m"', "9" * 5000)


@dataclass(frozen=True)
class Kind:
    """A class of inputs: sound files, and what reads one of them."""

    sound: Callable[[], Sequence[bytes]]
    read: Callable[[Path], object]
    suffix: str
    change: Callable[[bytes, random.Random], bytes]


def changed_bytes(data: bytes, chance: random.Random) -> bytes:
    """Change bytes, cut, repeat, leave out, or put in numbers at the borders of what is possible."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at, end = sorted((chance.randrange(len(found) + 1), chance.randrange(len(found) + 1)))
        end = min(end, at + chance.choice((1, 8, 100, 4096)))
        how = chance.randrange(7)
        if how == 0 and at < len(found):
            found[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            found[at:end] = bytes(chance.randrange(256) for _ in range(end - at))
        elif how == 2:
            found[at:end] = bytes(end - at)
        elif how == 3:
            number = chance.choice(NUMBERS)
            found[at : at + len(number)] = number
        elif how == 4:
            del found[at:end]
        elif how == 5:
            found[at:at] = found[at:end] * chance.choice((1, 1, 30))
        elif chance.random() < 0.3:
            del found[at:]
    return bytes(found)


def changed_text(data: bytes, chance: random.Random) -> bytes:
    """Change a text as `changed_bytes`, or put a word of JSON in the place of a value."""
    if chance.random() < 0.4:
        return changed_bytes(data, chance)
    text = data.decode()
    places = [at for at, letter in enumerate(text) if letter in ":,["]
    at = chance.choice(places or [0])
    ends = [end for end in (text.find(letter, at + 1) for letter in ",]}\n") if end > 0]
    return (text[: at + 1] + chance.choice(WORDS) + text[min(ends, default=at) :]).encode()


def resealed_tar(data: bytes, chance: random.Random) -> bytes:
    """Change the fields of a tar's headers, and put their sums right, so that the reader looks further."""
    found = bytearray(data if chance.random() < 0.7 else changed_bytes(data, chance))
    for at in range(0, max(0, len(found) - 511), 512):
        if found[at + 257 : at + 262] != b"ustar" or chance.random() < 0.4:
            continue
        field = chance.choice(((0, 100), (124, 12), (156, 1), (157, 100), (345, 155), (257, 8)))
        value = chance.choice((*NUMBERS, b"L", b"x", b"S", b"1", b"2", b"../up.jpg", b"00000001000\0"))[: field[1]]
        found[at + field[0] : at + field[0] + len(value)] = value
        found[at + 148 : at + 156] = b" " * 8
        found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + 512])
    return bytes(found)


def changed_statement(data: bytes, chance: random.Random) -> bytes:
    """Put other values into the table of an index; `data` is a statement with a place for a value."""
    values = ("-5", "-1", "0", "3", "7", "1e99", "NULL", "x'ff'", "'text'", str(1 << 62), "2.5", "'\x1b[31m'")
    return data.replace(b"?", chance.choice(values).encode())


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


def changed_arguments(data: bytes, chance: random.Random) -> bytes:
    words = (
        b"null",
        b"",
        b"~output",
        b"???",
        b"${output}",
        b"x" * 300,
        b"\x1b[31m",
        b"--cfg",
        b"=",
        b"[[[",
        b"{",
        b"-1",
    )
    lines = data.split(b"\n")
    for _ in range(chance.choice((1, 2, 3))):
        at = chance.randrange(1, len(lines))
        key, equals, _ = lines[at].partition(b"=")
        change = chance.choice(
            (key + equals + chance.choice(words), chance.choice(words), lines[at] + b"\n" + lines[at])
        )
        lines[at] = change
    return b"\n".join(lines)


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
_sound = functools.cache(lambda name: tuple(KINDS[name].sound()))


def case(name: str, number: int) -> bytes:
    """Return the input of this class and number; the first ones are the sound files themselves."""
    sound = _sound(name)
    if number < len(sound):
        return bytes(sound[number])
    chance = random.Random(f"{name} {number}")
    return KINDS[name].change(bytes(chance.choice(sound)), chance)


def outcome(name: str, data: bytes) -> str:
    """Return READ, REFUSED, or in words what went wrong when the reader of a class got this input."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"case{KINDS[name].suffix}")
        path.write_bytes(data)
        try:
            return limited(lambda: _said(name, path), seconds=SECONDS, memory=MEMORY)
        except StoppedError as error:
            return str(error)


def _said(name: str, path: Path) -> str:
    """Read the file, and return what came of it; in the folder of the file, so that nothing else is changed."""
    os.chdir(path.parent)
    try:
        KINDS[name].read(path)
    except InputError as error:
        message = str(error)
        return REFUSED if "\n" not in message and str(path) in message else f"a message of another form: {message!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return READ


def run(names: Sequence[str], *, minutes: float, first: int = 0) -> tuple[list[dict[str, object]], list[str]]:
    """Run cases of these classes for some minutes; return a row for each class, and the failures."""
    logging.disable()
    rows: list[dict[str, object]] = []
    failures: list[str] = []
    for name in names:
        _sound(name)
        counts: Counter[str] = Counter()
        end, number = time.monotonic() + 60 * minutes / len(names), first
        while time.monotonic() < end:
            found = outcome(name, case(name, number))
            if found not in (READ, REFUSED):
                failures.append(f"{name} {number}: {found}")
                print(failures[-1], flush=True)
            counts[found if found in (READ, REFUSED) else "failed"] += 1
            number += 1
        sums = {what: counts[what] for what in (READ, REFUSED, "failed")}
        rows.append({"input": name, "cases": sum(counts.values()), **sums})
    return rows, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of all classes together")
    parser.add_argument("--only", choices=KINDS, help="one class")
    parser.add_argument("--seed", type=int, default=0, help="the number of the first case")
    given = parser.parse_args()
    rows, failures = run([given.only] if given.only else list(KINDS), minutes=given.minutes, first=given.seed)
    if given.only is None and given.seed == 0:
        save("fuzz", rows)
    else:
        print(rows)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
