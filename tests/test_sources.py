"""Listings of folders, lists and tar shards, against `list_images` and plain Python."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import multiprocessing
import os
import pickle
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import isc
from isc.errors import InputError
from isc.photos import sources
from isc.photos import tar as tar_module
from isc.photos.decode import read_image
from isc.photos.folders import list_images
from isc.photos.listing import packed
from isc.photos.place import ListedPhoto, Place
from isc.photos.sources import list_photos

SAMPLE = Path(isc.__file__).parent / "sample"
PHOTOS = sorted(SAMPLE.glob("*.jpg"))
PHOTO = PHOTOS[0]


def fill(folder: Path, *names: str) -> Path:
    """Files of these names, each another photo."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PHOTOS[number].read_bytes())
    return folder


def pack(path: Path, *names: str, format=tarfile.PAX_FORMAT) -> Path:
    """A tar of members of these names; each .jpg another photo."""
    with tarfile.open(path, "w", format=format) as tar:
        for number, name in enumerate(names):
            data = PHOTOS[number].read_bytes() if name.endswith(".jpg") else b"{}"
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def all_ids(listing) -> list[str]:
    return listing.ids(range(len(listing)))


def refused(given, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        list_photos(given)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message, f"{part!r} is not in {message!r}"


# --- folders ---------------------------------------------------------------------------------------------------------


def list_hash(images: dict[str, Path]) -> str:
    """The slow twin of `Listing.sha256`, for a folder; run folders and descriptor files hold these hashes."""
    sizes = {name: path.stat().st_size if path.exists() else -1 for name, path in images.items()}
    lines = [f"{name},{path.name},{sizes[name]}\n" for name, path in images.items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def same_as_list_images(folder: Path) -> None:
    twin, listing = list_images(folder), list_photos([folder])
    assert all_ids(listing) == list(twin)
    assert [listing.where(row) for row in range(len(listing))] == [str(path) for path in twin.values()]
    assert listing.sha256() == list_hash(twin)
    for row, path in enumerate(twin.values()):
        assert listing.data(row) == path.read_bytes()


def test_a_folder_lists_as_list_images_does(tmp_path):
    same_as_list_images(SAMPLE)
    names = [
        "b.jpg",
        "a/b.PNG",
        "a-b.jpg",
        "a.b.jpg",
        "a/c.d.jpeg",
        "é/日本.tif",
        "a b.bmp",
        "Z.jfif",
        "x.txt",
        ".h.jpg",
    ]
    same_as_list_images(
        fill(tmp_path / "p", *names, "\U0001f600.jpg", "\uffee.jpg")
    )  # UTF-16 would sort these otherwise


def test_a_folder_is_listed_however_it_is_written(tmp_path, monkeypatch):
    fill(tmp_path, "p/a.jpg", "p/s/b.jpg")
    monkeypatch.chdir(tmp_path)
    for text in ("p", "p/", "./p", "../" + tmp_path.name + "/p", str(tmp_path / "p")):
        same_as_list_images(Path(text))
        assert list_photos([text]).where(0) == str(Path(text, "a.jpg"))
    monkeypatch.chdir(tmp_path / "p")
    same_as_list_images(Path())
    assert list_photos(".").where(1) == "s/b.jpg"


def test_links_are_followed_without_loops(tmp_path):
    fill(tmp_path, "far/x.jpg", "p/a.jpg")
    (tmp_path / "p" / "more").symlink_to(tmp_path / "far")
    (tmp_path / "p" / "up").symlink_to(tmp_path)
    (tmp_path / "p" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    same = list_photos([tmp_path / "p"])
    assert all_ids(same) == ["a", "gone", "more/x"]
    assert same.sha256() == list_hash(list_images(tmp_path / "p"))
    with pytest.raises(InputError, match=r"gone\.jpg: cannot be decoded"):
        same.read(1)


def test_pictures_are_those_of_the_files():
    listing = list_photos(SAMPLE)
    for row in (0, 5, len(PHOTOS) - 1):
        assert (listing.read(row) == read_image(PHOTOS[row])).all()


def test_the_longest_id_is_counted_in_bytes(tmp_path):
    assert list_photos(fill(tmp_path, "a.jpg", "bäö.jpg", "abcd.jpg")).longest_id == 5


def test_rows_outside_are_an_error():
    listing = list_photos(SAMPLE)
    for row in (-1, len(PHOTOS)):
        for method in (listing.id_of, listing.where, listing.file, listing.read, listing.data):
            with pytest.raises(IndexError):
                method(row)


# --- packing ---------------------------------------------------------------------------------------------------------

PLACE = Place("/p", "p")
PIECES = ["aaaaaaaa", "b", "/", ".", "é", "日", "\U0001f600", "\uffee"]  # eight bytes are compared at a time
NAMES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(NAMES, st.sampled_from([".jpg", "\0other/file", ""])), unique_by=lambda pair: pair[0]))
def test_ids_are_sorted_as_python_sorts_them(pairs):
    listing = packed(ListedPhoto(name, tail, PLACE) for name, tail in pairs)
    assert all_ids(listing) == sorted(name for name, _ in pairs)
    files = {name: tail[1:] if tail.startswith("\0") else name + tail for name, tail in pairs}
    assert [listing.where(row) for row in range(len(pairs))] == [os.path.join("p", files[i]) for i in sorted(files)]  # noqa: PTH118 -- Path drops double slashes


@settings(deadline=None, max_examples=300)
@given(st.lists(NAMES, min_size=1), st.data())
def test_whatever_the_ids_a_repeated_one_is_found(names, data):
    distinct = list(dict.fromkeys(names))
    again = data.draw(st.sampled_from(distinct))
    photos = [ListedPhoto(name, ".jpg", PLACE) for name in distinct]
    photos.insert(data.draw(st.integers(0, len(photos))), ListedPhoto(again, ".png", PLACE))
    with pytest.raises(InputError) as caught:
        packed(photos)
    assert f"p/{again.lstrip('/')}.jpg" in str(caught.value) or f"{again}.jpg" in str(caught.value)
    assert f"{again}.png" in str(caught.value)
    assert repr(again) in str(caught.value)


def test_long_ids_that_differ_late_are_told_apart():
    names = ["x" * 1000 + end for end in ("b", "", "a", "aa")]
    listing = packed(ListedPhoto(name, ".jpg", PLACE) for name in names)
    assert all_ids(listing) == sorted(names)


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_the_size_of_blocks_changes_nothing(monkeypatch, block):
    rng = np.random.default_rng(1)
    names = [f"{number:x}" for number in rng.permutation(500)]
    whole = packed(ListedPhoto(name, ".jpg", PLACE) for name in names)
    identity = whole.sha256()  # in one block
    monkeypatch.setattr("isc.photos.listing.BLOCK", block)
    again = packed(ListedPhoto(name, ".jpg", PLACE) for name in names)
    assert all_ids(again) == all_ids(whole) == sorted(names)
    assert again.sha256() == identity


def mixed(tmp_path: Path):
    """Photos of a folder, a list, a table and two tars, with ids that interleave."""
    fill(tmp_path / "folder", "a.jpg", "k/l.jpg", "z.jpg")
    (tmp_path / "list.txt").write_text("folder/k/l.jpg\n")
    (tmp_path / "table.csv").write_text("id,file\nb,folder/a.jpg\n")
    pack(tmp_path / "0.tar", "c.jpg", "y.jpg")
    pack(tmp_path / "1.tar", "d.jpg", "aa.jpg")
    return list_photos([tmp_path / name for name in ("folder", "list.txt", "table.csv", "0.tar", "1.tar")])


def test_several_sources_are_one_list(tmp_path):
    listing = mixed(tmp_path)
    assert all_ids(listing) == ["a", "aa", "b", "c", "d", "folder/k/l", "k/l", "y", "z"]
    wanted = [0, 1, 0, 0, 0, 1, 1, 1, 2]
    assert [listing.data(row) for row in range(9)] == [PHOTOS[number].read_bytes() for number in wanted]
    for row in range(9):
        assert (listing.read(row) == read_image(PHOTOS[wanted[row]])).all()


def test_a_part_is_those_photos_and_pickles_small(tmp_path):
    listing = mixed(tmp_path)
    for start in range(len(listing) + 1):
        for stop in range(start, len(listing) + 1):
            part = pickle.loads(pickle.dumps(listing.part(range(start, stop))))
            assert len(part) == stop - start
            for row in range(len(part)):
                assert part.id_of(row) == listing.id_of(start + row)
                assert part.where(row) == listing.where(start + row)
                assert part.file(row) == listing.file(start + row)
                assert part.data(row) == listing.data(start + row)
    assert listing.part(range(9)).sha256() == listing.sha256() != listing.part(range(8)).sha256()
    assert listing.part(range(2, 9)).part(range(1, 3)).id_of(1) == listing.id_of(4)
    many = packed(ListedPhoto(f"{n:09d}", ".jpg", PLACE) for n in range(10_000))
    assert len(pickle.dumps(many.part(range(5000, 5010)))) < 2000


@pytest.mark.parametrize("rows", [range(-1, 1), range(0, 10), range(0, 4, 2), range(3, 0, -1)])
def test_a_part_lies_within(tmp_path, rows):
    with pytest.raises(ValueError, match="expected rows of step 1 within"):
        mixed(tmp_path).part(rows)


def test_the_hash_tells_ids_names_and_sizes_apart(tmp_path):
    fill(tmp_path / "a", "x.jpg", "y.jpg")
    pack(tmp_path / "a.tar", "x.jpg", "y.jpg")
    base = list_photos(tmp_path / "a").sha256()
    assert list_photos(tmp_path / "a.tar").sha256() == base  # the same ids, names and sizes
    (tmp_path / "a" / "y.jpg").write_bytes(b"")
    assert list_photos(tmp_path / "a").sha256() != base
    fill(tmp_path / "b", "x.jpg", "z.jpg")
    assert list_photos(tmp_path / "b").sha256() != base
    (tmp_path / "b" / "z.jpg").rename(tmp_path / "b" / "y.jpeg")
    assert list_photos(tmp_path / "b").sha256() != base


# --- lists -----------------------------------------------------------------------------------------------------------


def test_a_list_names_photos_relative_to_its_folder(tmp_path, monkeypatch):
    fill(tmp_path, "l/a.jpg", "l/s/b c.PNG", "other/d.jpg", "l/#e.jpg", "l/.f.jpg", "l/g.jpg")
    text = f"# photos\n\na.jpg\r\ns/b c.PNG\n{tmp_path}/other/d.jpg\n../other/x.jpg\n./#e.jpg\n.f.jpg\n  \n./g.jpg"
    (tmp_path / "l" / "list.TXT").write_bytes(b"\xef\xbb\xbf" + text.encode())
    monkeypatch.chdir(tmp_path)
    listing = list_photos(["l/list.TXT"])
    absolute = f"{tmp_path}/other/d".lstrip("/")
    assert all_ids(listing) == sorted(["a", "s/b c", absolute, "../other/x", "#e", ".f", "g"])
    at = {photo: row for row, photo in enumerate(all_ids(listing))}
    assert listing.where(at["a"]) == "l/a.jpg"
    assert listing.where(at[absolute]) == f"{tmp_path}/other/d.jpg"
    assert listing.data(at["s/b c"]) == PHOTOS[1].read_bytes()
    assert listing.data(at[absolute]) == PHOTOS[2].read_bytes()
    assert listing.data(at["#e"]) == PHOTOS[3].read_bytes()
    assert listing.data(at["g"]) == PHOTOS[5].read_bytes()
    with pytest.raises(InputError, match=r"l/\.\./other/x\.jpg: cannot be decoded"):
        listing.read(at["../other/x"])


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"a.jpg\n\n# x\nnotes.pdf\n", ["row 4", "'notes.pdf'", "expected a photo"]),
        (b"a.jpg\nfolder\n", ["row 2", "'folder'", "expected a photo"]),
        (b"a.jpg\n/\n", ["row 2", "'/'"]),
        (b" a.jpg\n", ["row 1", "' a'", "blanks"]),
        (b"a.jpg\n.jpg\n", ["row 2", "'.jpg'"]),
        (b"a.jpg\n\xff\xfe.jpg\n", ["UTF-8"]),
        (b"a.jpg\na.png\n", ["a.jpg and ", "a.png", "'a'", "rename one"]),
        (b"# nothing\n", ["holds no image"]),
        (b"", ["holds no image"]),
    ],
)
def test_a_bad_list_is_refused_by_file_and_row(tmp_path, content, parts):
    (tmp_path / "l.txt").write_bytes(content)
    refused([tmp_path / "l.txt"], tmp_path, *parts)


def test_a_table_names_ids_and_files(tmp_path):
    fill(tmp_path, "a.jpg", "s/noname")
    pack(tmp_path / "t.tar", "m/1.jpg", "m/2.jpg", "m/3.bin")
    rows = [
        "reason,id,file",
        "why,z,a.jpg",
        '"x, y",q/1,s/noname',
        "r,a,t.tar::m/2.jpg",
        f"r,b,{tmp_path}/t.tar::m/1.jpg",
    ]
    (tmp_path / "t.csv").write_text("\n".join([*rows, "", "r,gone,gone.jpg", "r,a.jpg,a.jpg"]))
    listing = list_photos(tmp_path / "t.csv")
    assert all_ids(listing) == ["a", "a.jpg", "b", "gone", "q/1", "z"]
    assert listing.where(0) == f"{tmp_path}/t.tar::m/2.jpg"
    wanted = {0: 1, 1: 0, 2: 0, 4: 1, 5: 0}
    assert all(listing.data(row) == PHOTOS[number].read_bytes() for row, number in wanted.items())
    with pytest.raises(InputError, match=r"gone\.jpg: cannot be decoded"):
        listing.read(3)


def test_what_a_listing_tells_of_its_files_makes_the_same_listing(tmp_path):
    listing = mixed(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    table = tmp_path / "elsewhere" / "failures.csv"
    table.write_text("id,file,reason\n" + "".join(f"{listing.id_of(r)},{listing.file(r)},x\n" for r in range(9)))
    again = list_photos(table)
    assert again.sha256() == listing.sha256()
    assert [again.file(row) for row in range(9)] == [listing.file(row) for row in range(9)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["row 1", "columns id and file"]),
        ("a,a.jpg\n", ["row 1", "'a,a.jpg'", "columns id and file"]),
        ("id,path\na,a.jpg\n", ["row 1", "columns id and file"]),
        ("id,file\na,a.jpg\n b,b.jpg\n", ["row 3", "' b'", "blanks"]),
        ("id,file\n,a.jpg\n", ["row 2", "is empty"]),
        ("id,file\na\n", ["row 2", "1 fields; expected 2"]),
        ("id,file\na,\n", ["row 2", "'a'", "expected a path"]),
        ('id,file\na,"b\n', ["row", "CSV"]),
        ("id,file\na,a.jpg\na,b.jpg\n", ["a.jpg and ", "b.jpg", "'a'", "rename one"]),
        ("id,file\na,no.tar::b.jpg\n", ["no.tar", "cannot be read"]),
        ("id,file\n", ["holds no image"]),
    ],
)
def test_a_bad_table_is_refused_by_file_and_row(tmp_path, text, parts):
    (tmp_path / "t.csv").write_text(text)
    refused([tmp_path / "t.csv"], tmp_path, *parts)


def test_a_table_that_names_no_member_is_refused(tmp_path):
    pack(tmp_path / "t.tar", "a.jpg")
    (tmp_path / "t.csv").write_text("id,file\na,t.tar::b.jpg\n")
    refused(tmp_path / "t.csv", "row 2", "t.tar", "'b.jpg'")


# --- tars ------------------------------------------------------------------------------------------------------------

LONG = "deep/" * 40 + "x" * 90  # longer than a plain header holds


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_shard_lists_its_photos(tmp_path, format):
    long = "deep/" * 20 + "x" if format == tarfile.USTAR_FORMAT else LONG
    names = ["b.jpg", "b.json", "b.cls", "./a/é.jpg", "c.d.jpg", "._b.jpg", "a/._x.jpg", ".h/x.jpg", f"{long}.jpg"]
    listing = list_photos([pack(tmp_path / "s.tar", *names, "../up.jpg", "/root.jpg", format=format)])
    assert all_ids(listing) == sorted(["b", "a/é", "c.d", long, "../up", "root"])
    at = {photo: row for row, photo in enumerate(all_ids(listing))}
    assert listing.where(at["a/é"]) == f"{tmp_path}/s.tar::./a/é.jpg"
    for photo, number in {"b": 0, "a/é": 3, "c.d": 4, long: 8, "../up": 9, "root": 10}.items():
        assert listing.data(at[photo]) == PHOTOS[number].read_bytes()
        assert (listing.read(at[photo]) == read_image(PHOTOS[number])).all()


def test_links_and_devices_are_no_photos(tmp_path):
    pack(tmp_path / "s.tar", "a.jpg")
    with tarfile.open(tmp_path / "s.tar", "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo(f"x{kind.decode()}.jpg")
            member.type, member.linkname = kind, "/etc/hostname"
            tar.addfile(member)
    assert all_ids(list_photos(tmp_path / "s.tar")) == ["a"]


def test_links_to_members_are_photos_and_other_links_are_named(tmp_path, caplog):
    """GNU tar stores the second name of a file as a link to the first."""
    pack(tmp_path / "s.tar", "p/a.jpg")
    links = (
        ("h.jpg", tarfile.LNKTYPE, "p/a.jpg"),
        ("q/s.jpg", tarfile.SYMTYPE, "../p/a.jpg"),
        ("etc.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        ("up.jpg", tarfile.SYMTYPE, "../../p/a.jpg"),
        ("loop.jpg", tarfile.SYMTYPE, "loop.jpg"),
    )
    with tarfile.open(tmp_path / "s.tar", "a") as tar:
        for name, kind, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    listing = list_photos(tmp_path / "s.tar")
    assert all_ids(listing) == ["h", "p/a", "q/s"]
    assert all((listing.read(row) == read_image(PHOTOS[0])).all() for row in range(3))
    for name in ("etc.jpg", "up.jpg", "loop.jpg"):
        assert f"left out: {tmp_path}/s.tar::{name}: a link to" in caplog.text
    (tmp_path / "t.csv").write_text("id,file\nx,s.tar::h.jpg\n")
    assert (list_photos(tmp_path / "t.csv").read(0) == read_image(PHOTOS[0])).all()


def test_unusable_and_repeated_members_are_refused(tmp_path):
    assert all_ids(list_photos(pack(tmp_path / "c.tar", "a,b.jpg", "a\nb.jpg"))) == ["a\nb", "a,b"]
    refused(pack(tmp_path / "e.tar", "caf\udce9.jpg", format=tarfile.GNU_FORMAT), "e.tar", "UTF-8")
    refused(pack(tmp_path / "f.tar", "s/a.jpg", "./s/a.jpg"), "f.tar::s/a.jpg", "f.tar::./s/a.jpg", "'s/a'", "rename")
    refused(pack(tmp_path / "g.tar", "a.json"), "g.tar", "holds no image")
    two = [pack(tmp_path / "1.tar", "a.jpg"), pack(tmp_path / "2.tar", "a.jpg")]
    refused(two, "1.tar::a.jpg", "2.tar::a.jpg")
    refused([two[0], fill(tmp_path / "p", "a.jpg")], "1.tar::a.jpg", "p/a.jpg", "'a'")


def data_of(path: Path) -> list[tuple[int, int]]:
    with tarfile.open(path) as tar:
        return [(member.offset_data, member.size) for member in tar]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_cut_anywhere_before_its_end_mark_is_refused(tmp_path, format):
    """A cut between two members too: nothing but the missing end mark shows that photos are gone."""
    path = pack(
        tmp_path / "s.tar", LONG + ".jpg" if format != tarfile.USTAR_FORMAT else "a.jpg", "b.jpg", format=format
    )
    whole, ((one, first), (two, second)) = path.read_bytes(), data_of(path)
    after = two + -(-second // 512) * 512
    boundary = one + -(-first // 512) * 512
    for cut in (1, 511):
        path.write_bytes(whole[:cut])
        refused(path, path, "is no tar file")
    for cut in (one, one + first // 2, one + first - 1):
        path.write_bytes(whole[:cut])
        refused(path, path, "the tar file ends after")
    for cut in (boundary - 1, boundary, boundary + 1, two - 1, after - 1, after, after + 511):
        path.write_bytes(whole[:cut])
        refused(path, path, "is cut short")
    for cut in (after + 512, after + 1000, len(whole)):  # the end mark is there
        path.write_bytes(whole[:cut])
        assert len(list_photos(path)) == 2


def test_a_cut_member_is_named_with_its_sizes(tmp_path):
    path = pack(tmp_path / "s.tar", "a.jpg", "b.jpg")
    whole, (at, size) = path.read_bytes(), data_of(path)[1]
    for left in (0, 1, size - 1):
        path.write_bytes(whole[: at + left])
        refused(path, f"s.tar::'b.jpg': the tar file ends after {left:,} of its {size:,} bytes; fetch it again")


def test_a_tar_that_ends_in_zeros_where_members_were_is_refused(tmp_path):
    """As downloads leave it that reserve the whole file first."""
    path = pack(tmp_path / "s.tar", "a.jpg", "b.jpg")
    whole, (at, _) = path.read_bytes(), data_of(path)[1]
    path.write_bytes(whole[: at - 1024] + bytes(6 << 20))
    refused(path, path, "zeros alone", "not whole")


def test_damage_in_a_header_does_not_end_the_tar_in_silence(tmp_path):
    path = pack(tmp_path / "s.tar", "a.jpg", "b.jpg", "c.jpg", format=tarfile.USTAR_FORMAT)
    data = bytearray(path.read_bytes())
    data[data_of(path)[1][0] - 512 + 3] ^= 1
    path.write_bytes(data)
    refused(path, path, "damaged", f"{data_of(path)[0][0] + 512 * -(-data_of(path)[0][1] // 512):,}")


def test_a_header_that_points_back_ends_no_run(tmp_path):
    path = pack(tmp_path / "s.tar", "a.jpg", "b.jpg", format=tarfile.USTAR_FORMAT)
    data, at = bytearray(path.read_bytes()), data_of(path)[1][0] - 512
    header = bytearray(data[at : at + 512])
    header[124:136] = (-512).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[at : at + 512] = header
    path.write_bytes(data)
    refused(path, path, "damaged")


def test_joined_tars_are_refused_instead_of_half_read(tmp_path):
    one, two = pack(tmp_path / "1.tar", "a.jpg"), pack(tmp_path / "2.tar", "b.jpg")
    (tmp_path / "s.tar").write_bytes(one.read_bytes() + two.read_bytes())
    refused(tmp_path / "s.tar", "s.tar", "joined")


@pytest.mark.parametrize("content", [b"", b"no tar at all", PHOTO.read_bytes(), gzip.compress(b"x" * 5000, mtime=0)])
def test_what_is_no_tar_is_refused(tmp_path, content):
    (tmp_path / "s.tar").write_bytes(content)
    refused(tmp_path / "s.tar", tmp_path / "s.tar", "no tar file")


@pytest.mark.parametrize("name", ["s.tar.gz", "s.TGZ", "s.tar.xz", "s.tar.zst"])
def test_a_packed_tar_is_refused_with_the_remedy(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path / name, name, "compressed", "unpack")


def test_a_tar_that_has_changed_is_noticed(tmp_path):
    listing = list_photos(pack(tmp_path / "s.tar", "a.jpg"))
    pack(tmp_path / "s.tar", "a.jpg", "b.jpg")
    with pytest.raises(InputError, match="has changed since it was listed"):
        listing.read(0)
    (tmp_path / "s.tar").unlink()
    assert len(list_photos(pack(tmp_path / "s.tar", "b.jpg")).data(0)) == PHOTOS[0].stat().st_size


@pytest.mark.parametrize("opened", [False, True])
def test_a_tar_of_the_same_size_that_has_changed_is_noticed(tmp_path, opened):
    """Other bytes in the same places, before or after the first photo was read."""
    path = pack(tmp_path / "s.tar", "a.jpg", "b.jpg")
    listing = list_photos(path)
    if opened:
        listing.read(0)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(700)
        file.write(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    assert path.stat().st_size == before.st_size
    for row, name in enumerate(("a.jpg", "b.jpg")):
        with pytest.raises(InputError, match=rf"s\.tar::{name}: the tar file has changed since it was listed"):
            listing.read(row)


def test_a_sparse_member_is_refused(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo("a.jpg")
        member.type = tarfile.GNUTYPE_SPARSE
        tar.addfile(member)
    refused(tmp_path / "s.tar", "s.tar::'a.jpg'", "sparse")


# --- patterns --------------------------------------------------------------------------------------------------------


def test_patterns_stand_for_several_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("s").mkdir()
    for number in range(8, 12):
        pack(Path(f"s/{number:03d}.tar"), f"{number}.jpg")
    fill(tmp_path, "p/a.jpg", "q/b.jpg", "q/c.png")
    assert all_ids(list_photos("s/{008..011}.tar")) == ["10", "11", "8", "9"]
    assert all_ids(list_photos("s/{009..010}.tar")) == ["10", "9"]
    assert all_ids(list_photos("s/*.tar")) == ["10", "11", "8", "9"]
    assert all_ids(list_photos("s/00[89].tar")) == ["8", "9"]
    assert all_ids(list_photos("{p,q}")) == ["a", "b", "c"]
    assert all_ids(list_photos(str(tmp_path / "{p,q}" / "*.jpg"))) == ["a", "b"]
    assert all_ids(list_photos("{s}/0{08..09}.tar")) == ["8", "9"]


RANGES = ["{008..011}", "{011..008}", "{9..11}", "{11..9}", "{8..011}", "{08..9}", "{0..10}", "{3..3}", "{00..0}"]


@pytest.mark.parametrize("text", RANGES)
def test_a_range_expands_as_in_bash(text):
    told = subprocess.run(["bash", "-c", f"echo s/{text}.tar"], capture_output=True, text=True, check=True).stdout
    assert sources._braces_expanded(f"s/{text}.tar", "images") == told.split()


def test_a_range_that_counts_down_is_the_one_that_counts_up(tmp_path):
    for number in range(3):
        pack(tmp_path / f"{number:03}.tar", f"{number}.jpg")
    up, down = (list_photos(tmp_path / text) for text in ("{000..002}.tar", "{002..000}.tar"))
    assert all_ids(up) == all_ids(down) == ["0", "1", "2"]


def test_a_file_that_has_the_name_of_a_pattern_comes_first(tmp_path):
    fill(tmp_path, "{1..2}/a.jpg", "1/b.jpg", "2/c.jpg", "x[1].jpg", "x1.jpg")
    assert all_ids(list_photos(tmp_path / "{1..2}")) == ["a"]
    assert all_ids(list_photos(tmp_path / "x[1].jpg")) == ["x[1]"]
    assert all_ids(list_photos(tmp_path / "{x[1],x1}.jpg")) == ["x1", "x[1]"]


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("nowhere", ["images=nowhere", "no such folder", "expected"]),
        ("", ["images=: no such folder"]),
        ("a.pdf/b", ["images=a.pdf/b", "no such folder"]),
        ("a\0b", ["no such folder"]),
        ("x" * 5000, ["cannot be read (File name too long)"]),
        ("s/{0..3}.tar", ["images=s/0.tar", "no such"]),
        ("s/*.tar", ["images=s/*.tar", "matches no file"]),
        ("{99999999..0}.tar", ["stands for more than 1,000,000"]),
        ("{0..99999999}.tar", ["stands for more than 1,000,000"]),
        ("{0..9999}{0..9999}.tar", ["stands for more than 1,000,000"]),
        ("a.pdf", ["images=a.pdf", "no known kind"]),
        ("pipe.jpg", ["pipe.jpg", "neither"]),
        ("empty", ["images=empty", "holds no image"]),
        ([], ["holds no image"]),
    ],
)
def test_what_is_no_source_is_refused(tmp_path, monkeypatch, given, parts):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("a.pdf").write_bytes(b"%PDF")
    os.mkfifo("pipe.jpg")
    refused(given, *parts)


def test_one_photo_is_a_source(tmp_path, monkeypatch):
    monkeypatch.chdir(fill(tmp_path, "s/a.b.jpg", "s/other.jpg"))
    listing = list_photos(["s/a.b.jpg"])
    assert all_ids(listing) == ["a.b"]
    assert listing.where(0) == "s/a.b.jpg"
    assert listing.data(0) == PHOTO.read_bytes()


# --- workers ---------------------------------------------------------------------------------------------------------


def read_all(listing) -> list[int]:
    return [int(listing.read(row).sum()) for row in range(len(listing))]


@pytest.fixture
def shard(tmp_path):
    names = [f"{number:03d}.jpg" for number in range(30)]
    return list_photos(pack(tmp_path / "s.tar", *names)), [int(read_image(path).sum()) for path in PHOTOS[:30]]


def test_threads_share_a_tar(shard):
    listing, wanted = shard
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read_all, [listing] * 8)) == [wanted] * 8


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_a_tar(shard, method):
    listing, wanted = shard
    listing.read(0)  # the parent has it open
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(read_all, [listing.part(range(0, 15)), listing.part(range(15, 30))]) == [
            wanted[:15],
            wanted[15:],
        ]


def test_many_tars_do_not_use_up_the_files_of_a_process(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_module, "_open_tar", functools.lru_cache(maxsize=3)(tar_module._OpenTar))
    for number in range(12):
        pack(tmp_path / f"{number:02d}.tar", f"{number:02d}.jpg")
    listing = list_photos(tmp_path / "*.tar")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for row in [*range(12), *range(12)]:
        assert listing.data(row) == PHOTO.read_bytes()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3


def test_a_worker_with_another_working_directory_finds_the_files(tmp_path, monkeypatch):
    fill(tmp_path, "p/a.jpg")
    pack(tmp_path / "s.tar", "b.jpg")
    monkeypatch.chdir(tmp_path)
    listing = list_photos(["p", "s.tar"])
    monkeypatch.chdir("/")
    assert [listing.data(row) for row in (0, 1)] == [PHOTO.read_bytes()] * 2
    assert [listing.where(row) for row in (0, 1)] == ["p/a.jpg", "s.tar::b.jpg"]
    assert [listing.file(row) for row in (0, 1)] == [f"{tmp_path}/p/a.jpg", f"{tmp_path}/s.tar::b.jpg"]
