"""HDF5 files that would be read as other numbers, or that bring the library to loop, crash or fill the memory."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from isc.data import hdf5_header, limited
from isc.data.hdf5 import descriptor_blocks, read_descriptors, read_provenance
from isc.errors import InputError

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4) + 1
IDS = np.array([b"a", b"b", b"c"])


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "d.h5"


def put(path: Path, **datasets) -> h5py.File:
    """The file, open, with these datasets; image_names unless given otherwise."""
    file = h5py.File(path, "w")
    for name, values in ({"image_names": IDS} | datasets).items():
        if values is not None:
            file[name] = values
    return file


def refusal(path: Path, *parts: str) -> str:
    """The one line with which every reader refuses the file."""
    messages = []
    for read in (read_descriptors, lambda one: list(descriptor_blocks(one, rows=2))):
        with pytest.raises(InputError) as caught:
            read(path)
        messages.append(str(caught.value))
    for message in messages:
        assert message.startswith(str(path))
        assert message.isprintable() or "\udcff" in message
        for part in parts:
            assert part in message, f"{part!r} is not in {message!r}"
    return messages[0]


@pytest.mark.parametrize("source", ["there", "missing"])
@pytest.mark.parametrize("name", ["vectors", "image_names"])
def test_a_virtual_dataset_is_refused(path, source, name):
    """HDF5 reads the parts of a missing source as zeros."""
    values = VALUES if name == "vectors" else IDS
    with h5py.File(path.with_name("source.h5"), "w") as file:
        file["held"] = values
    with put(path, **({"vectors": VALUES} | {name: None})) as file:
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        layout[:] = h5py.VirtualSource(path.with_name("source.h5"), "held", values.shape)
        file.create_virtual_dataset(name, layout)
    if source == "missing":
        path.with_name("source.h5").unlink()
    refusal(path, f"'{name}' is virtual", "in other files")


def test_numbers_in_another_file_are_refused_and_none_of_them_shown(path):
    secret = path.with_name("secret")
    secret.write_bytes(b"password" * 100)
    with put(path, vectors=VALUES, image_names=None) as file:
        file.create_dataset("image_names", (3,), "S8", external=[(str(secret), 0, 24)])
    assert "password" not in refusal(path, "'image_names' has its numbers in another file")


@pytest.mark.parametrize("kind", ["external", "soft", "soft to nothing"])
def test_links_are_refused(path, kind):
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["vectors"] = VALUES
    with put(path, hidden=VALUES) as file:
        links = {"external": h5py.ExternalLink("other.h5", "/vectors"), "soft": h5py.SoftLink("/hidden")}
        file["vectors"] = links.get(kind, h5py.SoftLink("/nowhere"))
    refusal(path, "'vectors' is a link to another place")


def test_a_second_name_of_a_dataset_is_no_link_to_elsewhere(path):
    with put(path, hidden=VALUES) as file:
        file["vectors"] = file["hidden"]
    assert (read_descriptors(path).vectors == VALUES).all()


@pytest.mark.parametrize("name", ["vectors", "image_names"])
@pytest.mark.parametrize("chunks", [None, True])
def test_rows_that_were_never_written_are_refused(path, name, chunks):
    """As a killed writer leaves them: HDF5 reads them as zeros, or as ids without a letter."""
    with put(path, **({"vectors": VALUES, "image_names": IDS} | {name: None})) as file:
        shape, kind = ((3, 4), np.float32) if name == "vectors" else ((3,), "S1")
        made = file.create_dataset(name, shape, kind, chunks=(1, *shape[1:]) if chunks else None)
        if chunks:
            made[0], made[2] = (VALUES if name == "vectors" else IDS)[[0, 2]]
    refusal(path, f"'{name}'", "were written")


@pytest.mark.parametrize("size", [3_000_000, 40_000_000])
def test_what_is_small_on_disk_and_large_in_memory_is_refused_before_it_is_read(path, size):
    with put(path, image_names=None) as file:
        file.create_dataset("vectors", (size, 8), np.float32, chunks=(1_000_000, 8), compression="gzip")
        file.create_dataset("image_names", (size,), "S8", chunks=(1_000_000,), compression="gzip")
        if size < 10_000_000:
            file["vectors"][:], file["image_names"][:] = np.zeros((size, 8), np.float32), np.zeros(size, "S8")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(path, "'vectors' takes", "bytes, packed as")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_set_that_packs_well_is_still_read(path):
    with put(path, image_names=np.array([b"%08d" % row for row in range(5000)])) as file:
        file.create_dataset("vectors", data=np.ones((5000, 256), np.float32), chunks=(500, 256), compression="gzip")
    assert len(read_descriptors(path)) == 5000


@pytest.mark.parametrize("packing", [{"compression": "lzf"}, {"fletcher32": True}, {"shuffle": True, "compression": 9}])
def test_usual_packing_is_read_and_other_packing_refused(path, packing):
    with put(path) as file:
        file.create_dataset("vectors", data=VALUES, chunks=(1, 4), **packing)
    assert (read_descriptors(path).vectors == VALUES).all()
    with put(path) as file:
        file.create_dataset("vectors", data=VALUES, chunks=(1, 4), scaleoffset=2)
    refusal(path, "'vectors' is packed by filter 6")


def test_names_that_are_no_text_are_shown(path):
    put(path, vectors=VALUES).close()
    path.write_bytes(path.read_bytes().replace(b"image_names", b"image_nam\xff\xff"))
    refusal(path, "no dataset 'image_names'", "'vectors'")


def test_a_type_in_the_place_of_a_dataset_is_refused(path):
    with put(path) as file:
        file["vectors"] = np.dtype("f4")
    refusal(path, "'vectors' is a datatype; expected a dataset")


def test_a_float_that_numpy_has_not_is_refused(path):
    with put(path) as file:
        kind = h5py.h5t.IEEE_F32LE.copy()
        kind.set_size(8)
        kind.set_precision(64)
        kind.set_fields(63, 31, 32, 0, 31)
        h5py.h5d.create(file.id, b"vectors", kind, h5py.h5s.create_simple((3, 4)))
    refusal(path, "dataset 'vectors'", "write it again")


@pytest.mark.slow
def test_an_attribute_that_makes_the_library_loop_ends_soon(path, monkeypatch):
    """Texts of variable length lie in a heap; with zeros in it HDF5 goes round for ever."""
    monkeypatch.setattr(hdf5_header, "SECONDS", 1.0)
    with put(path, vectors=VALUES) as file:
        for number in range(9):
            file.attrs[f"a{number}"] = "x" * 100
    whole = path.read_bytes()
    heap = whole.index(b"GCOL")
    path.write_bytes(whole[: heap + 16] + bytes(600) + whole[heap + 616 :])
    start = time.monotonic()
    for read in (read_provenance, read_descriptors):
        with pytest.raises(InputError, match=r"d\.h5: damaged"):
            read(path)
    assert time.monotonic() - start < 15


@pytest.mark.slow
def test_texts_that_share_one_long_text_do_not_fill_the_memory(path):
    rows, long = 4000, "x" * (1 << 20)
    with put(path, vectors=np.ones((rows, 1), np.float32), image_names=None) as file:
        file["image_names"] = np.array([long] + ["y"] * (rows - 1), dtype=h5py.string_dtype())
        at = file["image_names"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[at : at + 16 * rows] = content[at : at + 16] * rows
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"d\.h5: damaged \(.*memory") as caught:
        read_descriptors(path)
    assert len(str(caught.value)) < 500


def test_attributes_of_every_kind_are_text(path):
    with put(path, vectors=VALUES) as file:
        file.attrs["text"], file.attrs["numbers"], file.attrs["nothing"] = "é", [1, 2], h5py.Empty("f")
        file.attrs["texts"] = np.array(["a", "b"], dtype=h5py.string_dtype())
    found = read_provenance(path)
    assert (found["text"], found["numbers"]) == ("é", "[1 2]")
    assert set(found) == {"text", "numbers", "nothing", "texts"}


def test_a_changed_file_is_read_again(path):
    with put(path, vectors=VALUES) as file:
        file.attrs["model"] = "one"
    assert read_provenance(path)["model"] == "one"
    with put(path, vectors=VALUES) as file:
        file.attrs["model"] = "two"
    assert read_provenance(path)["model"] == "two"


# a function in a process of its own


def test_a_limited_function_returns_and_raises_as_if_it_ran_here():
    assert limited.limited(lambda: {"a": [1]}, seconds=5, memory=1 << 28) == {"a": [1]}
    with pytest.raises(KeyError, match="gone"):
        limited.limited(lambda: {}["gone"], seconds=5, memory=1 << 28)


def loop():
    while True:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "why"),
    [
        (loop, "took longer than 1 s"),
        (lambda: time.sleep(60), "took longer than 1 s"),
        (os.abort, "crashed (SIGABRT)"),
        (lambda: os._exit(3), "crashed (status 3)"),
    ],
)
def test_a_limited_function_that_gives_no_answer_is_stopped(function, why, monkeypatch):
    monkeypatch.setattr(limited, "WAIT", 2)
    with pytest.raises(limited.StoppedError) as caught:
        limited.limited(function, seconds=1, memory=1 << 28)
    assert str(caught.value) == why


def test_a_limited_function_gets_no_more_memory():
    with pytest.raises(MemoryError):
        limited.limited(lambda: bytearray(1 << 30), seconds=5, memory=1 << 28)
    assert limited.limited(lambda: len(bytearray(1 << 26)), seconds=5, memory=1 << 28) == 1 << 26
