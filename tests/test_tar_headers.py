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
from benchmarks.damaged_files import END, damaged_tars, pax_record, tar_block, tar_extension, tar_padded
from isc.errors import InputError
from isc.photos.sources import list_photos
from isc.photos.tar_headers import Member, members

PHOTO = (Path(isc.__file__).parent / "sample" / "S000.jpg").read_bytes()
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def block(name: bytes = b"a.jpg", *, size: bytes = b"", kind: bytes = b"0", magic: bytes = b"ustar\x0000") -> bytes:
    """A header; `size` is the field as it stands, by default that of PHOTO."""
    return tar_block(name, size=size or b"%011o\0" % len(PHOTO), kind=kind, magic=magic)


PHOTO_DATA = tar_padded(PHOTO)
DAMAGED = damaged_tars(PHOTO)


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
        tar_extension(b"g", pax_record(b"comment", b"of all") + pax_record(b"mtime", b"1.5")),
        tar_extension(b"x", pax_record(b"path", "é\n=.jpg".encode()) + pax_record(b"size", str(len(PHOTO)).encode())),
        block(b"short.jpg", size=b"00000000001\0"),
        PHOTO_DATA,
        tar_extension(b"K", b"unused\0") + tar_extension(b"L", b"d/" * 120 + b"l.jpg\0") + block() + PHOTO_DATA,
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
