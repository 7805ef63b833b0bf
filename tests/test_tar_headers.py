"""Headers of tars against Python's tarfile on sound files, and every kind of damage refused in one line, soon."""

from __future__ import annotations

import io
import resource
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import isc
from isc.errors import InputError
from isc.photos.sources import list_photos
from isc.photos.tar_headers import Member, members

PHOTO = (Path(isc.__file__).parent / "sample" / "S000.jpg").read_bytes()
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
BLOCK = 512


def block(name: bytes = b"a.jpg", *, size: bytes = b"", kind: bytes = b"0", magic: bytes = b"ustar\x0000") -> bytes:
    """A header with a right sum; `size` is the field as it stands, by default that of PHOTO."""
    header = bytearray(BLOCK)
    header[: len(name)] = name
    header[100:108] = b"0000644\0"
    field = size or b"%011o\0" % len(PHOTO)
    header[124 : 124 + len(field)] = field
    header[156:157] = kind
    header[257:265] = magic
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def extension(kind: bytes, content: bytes) -> bytes:
    return block(b"././@x", size=b"%011o\0" % len(content), kind=kind) + padded(content)


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = next(n for n in range(len(rest), len(rest) + 20) if n == len(rest) + len(str(n)))
    return str(length).encode() + rest


END, PHOTO_DATA = bytes(2 * BLOCK), padded(PHOTO)
DAMAGED = {
    "size above 2^63": block(size=b"\x80" + bytes(2) + (1 << 63).to_bytes(9, "big")) + PHOTO_DATA,
    "size 2^80": block(size=b"\x80" + (1 << 80).to_bytes(11, "big")) + PHOTO_DATA,
    "size below 0": block(size=b"\xff" * 12) + PHOTO_DATA,
    "size no number": block(size=b"00x00000000\0") + PHOTO_DATA,
    "size with digits of another script": block(size="٣".encode() + b"000\0") + PHOTO_DATA,
    "long name of 2^40 bytes": block(kind=b"L", size=b"\x80" + (1 << 40).to_bytes(11, "big")) + PHOTO_DATA,
    "long name of 1 GiB that ends": block(kind=b"L", size=b"%011o\0" % (1 << 30)) + PHOTO_DATA,
    "pax size of 5,000 digits": extension(b"x", record(b"size", b"9" * 5000)) + block() + PHOTO_DATA,
    "pax size 10^18 as text": extension(b"x", record(b"size", b"1e18")) + block() + PHOTO_DATA,
    "pax size below 0": extension(b"x", record(b"size", b"-512")) + block() + PHOTO_DATA,
    "pax record of 5,000 digits": extension(b"x", b"9" * 5000 + b" path=a\n") + block() + PHOTO_DATA,
    "pax record that is longer": extension(b"x", b"99999999999999999999 path=a\n") + block() + PHOTO_DATA,
    "pax record of no length": extension(b"x", b"0 path=a\n") + block() + PHOTO_DATA,
    "pax record without =": extension(b"x", b"8 path\n\n") + block() + PHOTO_DATA,
    "a chain of 5,000 pax headers": extension(b"x", record(b"path", b"a.jpg")) * 5000 + block() + PHOTO_DATA,
    "a chain of 5,000 long names": extension(b"L", b"a.jpg\0") * 5000 + block() + PHOTO_DATA,
    "a sparse file": block(kind=b"S") + PHOTO_DATA,
    "a sparse file of pax": extension(b"x", record(b"GNU.sparse.major", b"1")) + block() + PHOTO_DATA,
    "sparse with a map that is none": extension(
        b"x", record(b"GNU.sparse.map", b"a,b") + record(b"GNU.sparse.size", b"x" * 9)
    )
    + block()
    + PHOTO_DATA,
    "digits without an end": extension(b"x", b"1" * (1 << 20)) + block() + PHOTO_DATA,
    "a wrong sum": block()[:300] + b"x" + block()[301:] + PHOTO_DATA,
    "a name without its member": block() + PHOTO_DATA + extension(b"L", b"b.jpg\0"),
    "a pipe's worth of zeros": block() + PHOTO_DATA + bytes(5 << 20),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_refused_in_one_line_soon_and_in_little_memory(tmp_path, name):
    path = tmp_path / "s.tar"
    path.write_bytes(DAMAGED[name] + END)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError) as caught:
        list_photos(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.process_time() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@pytest.mark.parametrize("magic", [b"ustar\x0000", b"ustar  \0", bytes(8)], ids=["posix", "gnu", "v7"])
@pytest.mark.parametrize("kind", [b"0", b"\0", b"7", b"Z"])
def test_regular_files_of_all_kinds(tmp_path, magic, kind):
    (tmp_path / "s.tar").write_bytes(block(kind=kind, magic=magic) + PHOTO_DATA + END)
    listing = list_photos(tmp_path / "s.tar")
    assert listing.ids() == ["a"]
    assert listing.data(0) == PHOTO


def test_names_and_sizes_of_extended_headers(tmp_path):
    parts = [
        extension(b"g", record(b"comment", b"of all") + record(b"mtime", b"1.5")),
        extension(b"x", record(b"path", "é\n=.jpg".encode()) + record(b"size", str(len(PHOTO)).encode())),
        block(b"short.jpg", size=b"00000000001\0"),
        PHOTO_DATA,
        extension(b"K", b"unused\0") + extension(b"L", b"d/" * 120 + b"l.jpg\0") + block() + PHOTO_DATA,
        block(b"folder/", size=b"00000000000\0", kind=b"\0"),
        END,
    ]
    (tmp_path / "s.tar").write_bytes(b"".join(parts))
    found = list(members(tmp_path / "s.tar"))
    assert [(one.name, one.size) for one in found] == [("é\n=.jpg", len(PHOTO)), ("d/" * 120 + "l.jpg", len(PHOTO))]
    listing = list_photos(tmp_path / "s.tar")
    assert [listing.data(row) == PHOTO for row in range(2)] == [True, True]


names = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0/\\"), min_size=1, max_size=60), max_size=4)


@given(st.lists(st.tuples(names, st.binary(max_size=1200)), max_size=6), st.sampled_from(FORMATS))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_members_are_those_that_tarfile_finds(tmp_path, files, format):
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=format) as tar:
        for number, (parts, data) in enumerate(files):
            member = tarfile.TarInfo("/".join(("d", *(one.strip() or "x" for one in parts), str(number))))
            member.size = len(data)
            try:
                tar.addfile(member, io.BytesIO(data))
            except ValueError:  # ustar has no room for it
                return
    with tarfile.open(path) as tar:
        expected = [Member(one.name, one.offset_data, one.size) for one in tar]
    assert list(members(path)) == expected
