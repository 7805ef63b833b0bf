"""isc index from end to end: on real photos, on descriptors, and what it refuses."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image, ImageOps

from isc import __version__
from isc.cli import index_sources
from isc.cli.main import main
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import write_descriptors
from isc.data.model_files import SHIPPED
from isc.find import photo_index as photo_index_module
from isc.search.index import writer
from isc.search.index.index import Index, read_index
from tests.conftest import SAMPLE, Finished
from tests.test_index import MADE_BY, described

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """isc index in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = 0
        try:
            main(["index", *map(str, arguments)])
        except SystemExit as end:
            status = end.code
        return Finished(status, *capsys.readouterr())

    return run


@pytest.fixture
def refused(run):
    def refused(*arguments, naming=()):
        finished = run(*arguments)
        assert (finished.status, finished.out) == (2, ""), finished
        assert re.fullmatch(r"error: [^\n]+\n", finished.err), finished.err
        for part in naming:
            assert part in finished.err
        return finished.err

    return refused


@pytest.fixture
def known(run):
    """known.index with a, b and c (values 0, 1, 2), and the files abc.h5, bd.h5 and strange.h5."""
    for name, ids, provenance in (("abc", "abc", MADE_BY), ("bd", "bd", MADE_BY), ("strange", "xy", {})):
        write_descriptors(Path(f"{name}.h5"), described(ids), provenance)
    assert run("create", "known.index", "--descriptors", "abc.h5").status == 0
    assert run("add", "known.index", "abc.h5").status == 0
    return Path("known.index")


@pytest.fixture(scope="module")
def photo_index(tmp_path_factory):
    """(index of five sample photos, one of them unreadable, by the shipped model; their folder)"""
    folder = tmp_path_factory.mktemp("photos")
    photos = folder / "photos"
    (photos / "sub").mkdir(parents=True)
    for name in ("S000", "S001", "sub/S002"):
        shutil.copy(SAMPLE / f"{Path(name).name}.jpg", photos / f"{name}.jpg")
    (photos / "broken.jpg").write_bytes(b"no picture")
    index = folder / "photos.index"
    main(["index", "create", str(index)])
    main(["index", "add", str(index), str(photos)])
    return index, photos


@pytest.fixture
def photos(photo_index, tmp_path):
    """The same, to change."""
    index = shutil.copytree(photo_index[0], tmp_path / "photos.index")
    return index, photo_index[1]


def ids_of(path):
    return read_index(Path(path))[0].ids.tolist()


# photos


def test_photos_come_in_under_their_paths_and_are_found_by_an_edited_copy(run, photos):
    index, folder = photos
    assert ids_of(index) == [str(folder / name) for name in ("S000.jpg", "S001.jpg", "sub/S002.jpg")]
    ImageOps.posterize(Image.open(SAMPLE / "S001.jpg"), 4).crop((10, 10, 180, 130)).save("suspect.png")
    found = run("query", index, "suspect.png", "-k", 2)
    assert found.status == 0, found.err
    header, first, second = found.out.splitlines()
    assert header.split() == ["verdict", "suspect", "photo", "probability", "distance", "points", "flags"]
    assert first.split()[:3] == ["copy", "suspect.png", str(folder / "S001.jpg")]
    assert second.startswith("none"), "the second nearest is named too, and is no copy"
    assert float(first.split()[-2]) < float(second.split()[-2]) - 0.2
    assert run("stats", index).out.splitlines()[2].startswith("model         isc_small (weights ")


def test_photos_that_cannot_be_read_are_named_and_counted(run, photos, caplog):
    index, folder = photos
    again = run("add", index, folder)
    assert again.status == 0
    assert again.out.splitlines() == ["photos: 3 unchanged, 1 unreadable", f"{index} holds 3 images"]
    assert re.search(r"left out: \S+broken\.jpg: cannot be decoded", caplog.text)
    more = run("add", index, folder, SAMPLE / "S003.jpg")
    assert more.out.splitlines()[:2] == [
        "1 of 1 photos are on the disk", "photos: 1 added, 3 unchanged, 1 unreadable"
    ]  # fmt: skip
    assert len(ids_of(index)) == 4
    for command, what in (("add", "photos"), ("query", "suspects")):
        none = run(command, index, folder / "broken.jpg")
        assert none.status == 2
        assert f"error: none of 1 {what} can be read; the first: " in none.err


def test_photos_are_described_in_parts(run, photos, monkeypatch):
    index, _ = photos
    monkeypatch.setattr(photo_index_module, "GROUP", 2)
    finished = run("add", index, *(SAMPLE / f"S01{i}.jpg" for i in range(3)))
    assert finished.out.splitlines()[:2] == ["2 of 3 photos are on the disk", "3 of 3 photos are on the disk"]


def test_a_changed_folder_is_followed_and_said(run, photos, tmp_path):
    index, folder = photos[0], tmp_path / "own"
    folder.mkdir()
    for number in range(3):
        shutil.copy(SAMPLE / f"S02{number}.jpg", folder)
    assert run("sync", index, folder).out.splitlines() == [
        "3 of 3 photos are on the disk", f"{folder}: 3 added", f"{index} holds 6 images"
    ]  # fmt: skip
    (folder / "S020.jpg").unlink()
    shutil.copy(SAMPLE / "S030.jpg", folder / "S021.jpg")
    shutil.copy(SAMPLE / "S031.jpg", folder / "S031.jpg")
    assert run("sync", index, folder).out.splitlines() == [
        "2 of 2 photos are on the disk",
        f"{folder}: 1 added, 1 changed, 1 removed, 1 unchanged",
        f"{index} holds 6 images",
    ]
    assert run("sync", index, folder).out.splitlines()[0] == f"{folder}: 3 unchanged"


def test_a_photo_is_removed_by_file_name_path_or_id(run, refused, photos, monkeypatch):
    index, folder = photos
    assert run("remove", index, "S001.jpg").out == f"removed 1 images; {index} holds 2\n"
    monkeypatch.chdir(folder)
    assert run("remove", index, "sub/S002.jpg").status == 0
    assert run("remove", index, folder / "S000.jpg").out.endswith("holds 0\n")
    assert run("add", index, "S000.jpg").out.splitlines()[1] == "photos: 1 added", "it is known no longer"


def test_a_file_name_of_several_photos_is_refused(run, refused, photos, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(SAMPLE / "S005.jpg", tmp_path / "other" / "S001.jpg")
    assert run("add", photos[0], tmp_path / "other").status == 0
    refused("remove", photos[0], "S001.jpg", naming=["'S001.jpg': 2 photos have this name, such as /", "give the path"])


def test_a_killed_removal_leaves_no_photo_that_is_known_but_not_described(run, photos, monkeypatch):
    index, folder = photos

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer.Writer, "remove", killed)
        assert run("remove", index, "S001.jpg").status == 130
    assert "1 added, 2 unchanged" in run("add", index, folder).out
    assert len(ids_of(index)) == 3


def test_suspects_are_files_folders_and_a_picture_on_standard_input(run, refused, photos, monkeypatch):
    index, _ = photos
    Path("inbox").mkdir()
    Image.open(SAMPLE / "S002.jpg").crop((20, 10, 200, 130)).save("inbox/part.png")
    ImageOps.mirror(Image.open(SAMPLE / "S000.jpg")).save("mirror.png")
    data = (SAMPLE / "S001.jpg").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    told = json.loads(run("query", index, "inbox", "mirror.png", "-", "-k", 1, "--format", "json").out)["matches"]
    found = {one["suspect"]: (one["verdict"], Path(one["photo"]).name) for one in told}
    assert found == {
        "inbox/part.png": ("copy", "S002.jpg"),
        "mirror.png": ("copy", "S000.jpg"),
        "standard input": ("copy", "S001.jpg"),
    }
    assert all(one["probability"] >= 0.9 for one in told)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    refused("query", index, "-", naming=["-: nothing on standard input; expected a picture's file"])


def test_an_address_is_fetched_only_if_that_is_allowed(run, refused, photos, monkeypatch):
    index, _ = photos
    url = "http://example.org/suspect.jpg"
    refused("query", index, url, naming=[f"{url}: nothing is fetched from the web without --allow-url"])
    monkeypatch.setattr("isc.find.fetch.fetch_picture", lambda _: (SAMPLE / "S000.jpg").read_bytes())
    found = run("query", index, url, "-k", 1, "--allow-url", "--format", "csv")
    row = next(csv.DictReader(io.StringIO(found.out)))
    assert (row["suspect"], Path(row["photo"]).name, row["verdict"]) == (url, "S000.jpg", "copy")


def test_an_empty_index_is_refused(run, refused, known):
    assert run("create", "empty.index", "--descriptors", "abc.h5").status == 0
    for suspect in ("abc.h5", SAMPLE / "S000.jpg"):
        refused("query", "empty.index", suspect, naming=["empty.index: holds no photos; add some first"])


def test_more_photos_than_there_are_is_said(run, photos, caplog):
    found = run("query", photos[0], SAMPLE / "S000.jpg", "-k", 500, "--fast")
    assert len(found.out.splitlines()) == 1 + 3
    assert "-k 500: the index holds 3 images; each suspect gets 3" in caplog.text


def test_photos_whose_files_are_gone_are_judged_by_distance(run, photos, tmp_path):
    index, folder = photos[0], tmp_path / "gone"
    folder.mkdir()
    shutil.copy(SAMPLE / "S040.jpg", folder)
    assert run("add", index, folder).status == 0
    (folder / "S040.jpg").unlink()
    told = json.loads(run("query", index, SAMPLE / "S040.jpg", "--format", "json").out)["matches"]
    assert (told[0]["photo"], told[0]["verdict"], told[0]["inliers"]) == (str(folder / "S040.jpg"), "copy", None)
    assert told[0]["flags"] == ["pixels not compared"]


def test_another_model_is_refused(refused, run, photos, known):
    refused("add", known, SAMPLE / "S000.jpg", naming=["model isc_small: descriptors of 256 numbers; the index", "4"])
    wide = Descriptors(["x"], np.ones((1, 256), np.float32))
    write_descriptors(Path("wide.h5"), wide, MADE_BY)
    assert run("create", "wide.index", "--descriptors", "wide.h5").status == 0
    assert run("add", "wide.index", "wide.h5").status == 0
    naming = ["model isc_small: made with weights_sha256 ", "the index with weights_sha256 a1a1a1a1a1a1"]
    refused("query", "wide.index", SAMPLE / "S000.jpg", naming=naming)
    refused("add", "wide.index", SAMPLE / "S000.jpg", "--model", "nowhere", naming=["model=nowhere: no such model"])
    refused("query", photos[0], "wide.h5", naming=["wide.h5: made with weights_sha256 a1a1a1a1a1a1, the index with"])
    refused("query", photos[0], SAMPLE / "S000.jpg", "--model", "nowhere", naming=["model=nowhere: no such model"])


@pytest.mark.slow
def test_a_model_that_has_moved_is_named_where_it_is(run, refused, tmp_path):
    shutil.copy(SHIPPED / "isc_small.onnx", tmp_path / "before.onnx")
    assert run("create", "moved.index", "--model", "before.onnx").status == 0
    (tmp_path / "before.onnx").rename(tmp_path / "now.onnx")
    refused("add", "moved.index", SAMPLE / "S000.jpg", naming=["before.onnx"])
    assert run("add", "moved.index", SAMPLE / "S000.jpg", "--model", "now.onnx").status == 0
    found = run("query", "moved.index", SAMPLE / "S000.jpg", "--model", "now.onnx", "-k", 1)
    assert found.out.splitlines()[1].startswith("copy"), found.err


def test_a_folder_that_only_the_reader_may_read_is_searched(run, photos):
    index, _ = photos
    before = {path: path.stat().st_mtime_ns for path in index.iterdir() if "sqlite-" not in path.name}
    assert run("query", index, SAMPLE / "S000.jpg", "-k", 1).status == 0
    assert {path: path.stat().st_mtime_ns for path in index.iterdir() if "sqlite-" not in path.name} == before


# descriptors


def test_descriptors_are_added_replaced_and_skipped(run, known):
    assert run("add", known, "bd.h5", "--skip-existing").out.splitlines() == [
        "2 of 2 descriptors of bd.h5 are on the disk",
        "bd.h5: 1 added, 0 replaced, 1 left as they were",
        "known.index holds 4 images",
    ]
    assert "bd.h5: 0 added, 2 replaced" in run("add", known, "bd.h5", "--replace").out
    assert run("remove", known, "a", "b").out == "removed 2 images; known.index holds 2\n"
    assert run("compact", known).out == "dropped 4 dead rows; known.index holds 2 images\n"
    assert run("verify", known).out == "known.index is whole: 2 images, 0 dead rows\n"
    assert ids_of(known) == ["c", "d"]


def test_an_index_is_a_source_too(run, known):
    assert run("create", "copy.index", "--descriptors", known).status == 0
    assert run("add", "copy.index", known).status == 0
    assert ids_of("copy.index") == ["a", "b", "c"]
    assert (
        run("query", "copy.index", known, "-k", 1, "--format", "csv").out.count(
            ",0.0000,,pixels not compared;uncalibrated\n"
        )
        == 3
    )


def test_ids_to_remove_come_from_a_file(run, known):
    Path("ids.txt").write_text("\ufeffa\n\r\nc\n", encoding="utf-8")
    assert run("remove", known, "--from", "ids.txt").out.startswith("removed 2 images")
    assert ids_of(known) == ["b"]
    assert run("remove", known, "a", "b", "--missing-ok").out.startswith("removed 1 images")


def test_every_batch_is_acknowledged(run, known, monkeypatch):
    monkeypatch.setattr(writer, "BATCH", 2)
    finished = run("add", known, "abc.h5", "--replace")
    assert finished.out.startswith("2 of 3 descriptors of abc.h5 are on the disk\n3 of 3 descriptors")


def test_a_file_is_read_in_blocks_and_refused_before_the_first_is_added(run, refused, known, monkeypatch):
    monkeypatch.setattr(index_sources, "BATCH", 2)
    write_descriptors(Path("five.h5"), described("vwxyz"), MADE_BY)
    with h5py.File("five.h5", "r+") as file:
        file["image_names"][4] = b"v"
    refused("add", known, "five.h5", naming=["five.h5: id 'v' occurs twice"])
    write_descriptors(Path("five.h5"), described("vwxya"), MADE_BY)
    refused("add", known, "five.h5", naming=["id 'a' is in the index already"])
    assert run("add", known, "five.h5", "--replace").out.splitlines() == [
        "2 of 5 descriptors of five.h5 are on the disk",
        "4 of 5 descriptors of five.h5 are on the disk",
        "5 of 5 descriptors of five.h5 are on the disk",
        "five.h5: 4 added, 1 replaced, 0 left as they were",
        "known.index holds 7 images",
    ]


def test_answers_come_as_table_csv_and_json(run, known):
    write_descriptors(Path("q.h5"), described("pq", 1, 9), MADE_BY)
    ask = ("query", known, "q.h5", "-k", "2")
    rows = [re.split("  +", line) for line in run(*ask).out.splitlines()]
    assert rows[0] == ["verdict", "suspect", "photo", "probability", "distance", "points", "flags"]
    assert [(row[1], row[2], row[4]) for row in rows[1:]] == [
        ("p", "b", "0.000"), ("p", "a", "2.000"), ("q", "c", "14.000"), ("q", "b", "16.000")
    ]  # fmt: skip
    assert rows[1][0] == "perhaps"  # without a calibration of its own nothing is sure
    near = ("--max-distance", "2")
    found = list(csv.DictReader(io.StringIO(run(*ask, *near, "--format", "csv").out)))
    assert list(found[0]) == ["suspect", "photo", "verdict", "probability", "distance", "inliers", "flags"]
    assert [(row["suspect"], row["photo"], row["distance"]) for row in found] == [
        ("p", "b", "0.0000"), ("p", "a", "2.0000"), ("q", "", "")
    ]  # fmt: skip
    told = json.loads(run(*ask, *near, "--format", "json").out)
    assert [(one["suspect"], one["photo"], one["verdict"]) for one in told["matches"]][1:] == [
        ("p", "a", "none"), ("q", None, "none")
    ]  # fmt: skip
    assert "uncalibrated" in told["matches"][0]["flags"], "of another model than the calibrations"
    assert run(*ask, "--format", "csv", "--output", "found.csv").out == "4 rows: found.csv\n"
    assert Path("found.csv").read_text() == run(*ask, "--format", "csv").out
    assert run(*ask, "--output", "found.txt").out == "4 rows: found.txt\n"
    assert Path("found.txt").read_text() == run(*ask).out


def test_stats_are_for_people_and_for_programs(run, known):
    assert run("stats", known).out.splitlines()[:2] == ["images        3", "numbers each  4"]
    found = json.loads(run("stats", known, "--json").out)
    assert (found["images"], found["dim"], found["dead_rows"], found["provenance"]) == (3, 4, 0, MADE_BY)


@pytest.mark.parametrize("command", [[], *([name] for name in ("create", "add", "sync", "remove", "query", "stats"))])
def test_help_says_how(run, command):
    finished = run(*command, "--help")
    assert finished.status == 0
    assert f"Usage: isc index {' '.join(command)}".rstrip() in finished.out
    assert "INDEX" in finished.out or "isc index create known.index" in finished.out
    assert run(*command, "--version").out == f"isc {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        ([], ["no command; expected one of", "query", "see isc index --help"]),
        (["ad"], ["no such command 'ad'", "did you mean add?"]),
        (["create", "known.index"], ["known.index: is there already; expected a new path"]),
        (["create", "new", "--descriptors", "none.h5"], ["none.h5: no such file"]),
        (
            ["create", "new", "--descriptors", "abc.h5", "--model", "isc_small"],
            ["--model does not go with --descriptors"],
        ),
        (["create", "new", "--descriptors", "abc.h5", "--image-size", "64"], ["--image-size does not go with"]),
        (["create", "new", "--image-size", "9"], ["'--image-size': 9 is not in the range x>=32"]),
        (["create", "new", "--model", "none"], ["model=none: no such model"]),
        (["add", "known.index"], ["Missing argument 'SOURCE...'"]),
        (["add", "none", "abc.h5"], ["none: no such folder; expected an index that isc index create made"]),
        (["add", "known.index", "none.jpg"], ["none.jpg: no such file or folder; expected photos: a photo"]),
        (["add", "known.index", "text.txt"], ["text.txt: of no known kind; expected a photo"]),
        (["add", "known.index", "empty"], ["photos empty: no photo there"]),
        (["add", "known.index", "bd.h5"], ["id 'b' is in the index already", "--replace"]),
        (["add", "known.index", "strange.h5"], ["strange.h5: made with no weights_sha256, the index with"]),
        (["add", "known.index", "broken.h5"], ["broken.h5: not an HDF5 file"]),
        (
            ["add", "known.index", "bd.h5", "--replace", "--skip-existing"],
            ["--replace and --skip-existing exclude each other"],
        ),
        (["add", "known.index", "1/x.jpg", "--replace"], ["--replace and --skip-existing are for descriptors"]),
        (["sync", "known.index", "none"], ["none: no such folder; expected one of photos"]),
        (["sync", "none", "1"], ["none: no such folder; expected an index that isc index create made"]),
        (["remove", "known.index"], ["no names to remove; expected some, or --from FILE"]),
        (["remove", "known.index", "a", "z"], ["id 'z' not in the index; nothing was removed"]),
        (["remove", "known.index", "--from", "none"], ["none: cannot be read"]),
        (["remove", "known.index", "--from", "text.txt"], ["text.txt: row 2: id ' x' has blanks round it"]),
        (["query", "known.index", "abc.h5", "-k", "0"], ["'-k': 0 is not in the range x>=1"]),
        (
            ["query", "known.index", "abc.h5", "--max-distance", "nan"],
            ["'--max-distance': nan is not a finite number"],
        ),
        (["query", "known.index", "nowhere.jpg"], ["nowhere.jpg: no such file or folder; expected suspects"]),
        (["query", "known.index", "ftp://h/x.jpg", "--allow-url"], ["ftp://h/x.jpg: expected http:// or https://"]),
        (["query", "known.index", "abc.h5", "bd.h5"], ["id 'b' occurs twice"]),
        (["query", "known.index", "abc.h5", "--format", "xml"], ["'xml' is not one of 'table', 'csv', 'json'"]),
        (["query", "known.index", "abc.h5", "--output", "text.txt/x"], ["text.txt/x: cannot be written"]),
        (["stats", "1"], ["1: holds no manifest.json; expected an index"]),
        (["stats", "damaged.index"], ["manifest.json: not JSON, or cut short"]),
    ],
)
def test_what_is_refused_is_named_in_one_line(refused, known, arguments, naming):
    for name in ("1/x.jpg", "broken.h5", "damaged.index/manifest.json", "empty/none.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("{")
    Path("text.txt").write_text("a\n x\n")
    before = sorted(Path().rglob("*")), read_index(known)[0].ids.tolist()
    refused(*arguments, naming=naming)
    assert (sorted(Path().rglob("*")), read_index(known)[0].ids.tolist()) == before


def test_a_second_writer_is_refused(refused, known):
    with Index.open(known).writer():
        naming = [f"known.index: process {os.getpid()} on ", "has been writing since", "expected one writer at a time"]
        refused("add", known, "bd.h5", "--replace", naming=naming)
        refused("remove", known, "a", naming=naming)
        refused("compact", known, naming=naming)


def test_ctrl_c_keeps_what_was_acknowledged(known, tmp_path):
    big = Descriptors([f"i{i}" for i in range(400)], np.zeros((400, 4), np.float32))
    write_descriptors(tmp_path / "big.h5", big, MADE_BY)
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from isc.cli.main import main; from isc.search.index import writer; writer.BATCH = 1; main()"
    )
    command = [sys.executable, "-c", code, "index", "add", "known.index", "big.h5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert first == "1 of 400 descriptors of big.h5 are on the disk\n"
    assert process.returncode == 130
    assert err == "interrupted; what was acknowledged is kept, and nothing half\n"
    acknowledged = 1 + out.count("are on the disk")
    with Index.open(known).snapshot() as snapshot:
        snapshot.verify()
        assert 3 + acknowledged <= len(snapshot) <= 4 + acknowledged


def test_a_reader_that_goes_away_is_no_error(known):
    command = [sys.executable, "-m", "isc.cli.main", "index", "query", "known.index", "abc.h5"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        process.stdout.close()
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == b""


def test_descriptors_go_in_without_torch(known):
    code = (
        "import sys; from isc.cli.main import main; main(['index', 'add', 'known.index', 'bd.h5', '--replace']); "
        "assert not {'torch', 'faiss', 'cv2', 'hydra'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_photos_go_in_and_are_found_without_torch(tmp_path):
    code = (
        "import sys; from isc.cli.main import main; place, photo = sys.argv[1:]; main(['index', 'create', place]); "
        "main(['index', 'add', place, photo]); main(['index', 'query', place, photo]); "
        "assert not {'torch', 'faiss', 'hydra', 'timm'} & sys.modules.keys()"
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code, str(tmp_path / "i"), str(SAMPLE / "S000.jpg")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert "copy" in done.stdout


# an approximate index of the same images


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--on-disk", "--memory-gb", "0.001")])
def test_an_approximate_index_serves_match(run, options):
    rng = np.random.default_rng(0)
    for name, letter, count in (("references", "R", 300), ("training", "T", 200), ("queries", "Q", 12)):
        ids = [f"{letter}{i:03d}" for i in rng.permutation(count)]
        write_descriptors(Path(f"{name}.h5"), Descriptors(ids, rng.normal(size=(count, 4))), MADE_BY)
    assert run("create", "known.index", "--descriptors", "references.h5").status == 0
    assert run("add", "known.index", "references.h5").status == 0
    made = ("approximate", "known.index", "--factory", "IVF4,Flat", "--training", "training.h5", "--output", "saved")
    assert "made saved: 300 descriptors" in run(*made, *options).out
    common = ("queries=queries.h5", "k=3")
    for output, *rest in (
        ("exact", "references=references.h5"),
        ("near", "references=known.index", "index=saved", "index_search=nprobe=4"),
    ):
        command = [sys.executable, str(ROOT / "match.py"), *common, *rest, f"output={output}"]
        subprocess.run(command, check=True, capture_output=True)
    assert Path("near/predictions.csv").read_bytes() == Path("exact/predictions.csv").read_bytes()


def test_an_approximate_index_that_cannot_be(run, refused, known):
    common = ("approximate", known, "--training")
    refused(
        *common, "bd.h5", "--factory", "IVF99,Flat", "--output", "new", naming=["index=IVF99,Flat", "99 lists from 2"]
    )
    refused(*common, "strange.h5", "--factory", "Flat", "--output", "new", naming=["strange.h5: made with no weights"])
    refused(*common, "bd.h5", "--factory", "Flat", "--output", known, naming=["known.index: is there already"])
    refused(*common, "bd.h5", "--factory", "Abacus", "--output", "new", naming=["index=Abacus", "expected one like"])
    refused(*common, "bd.h5", "--factory", "Flat", "--on-disk", "--output", "new", naming=["index=Flat", "empty IVF"])
    assert not Path("new").exists()
