"""isc-index from end to end: on real photos, on descriptors, and what it refuses."""

import csv
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

from isc.cli import index as index_cli
from isc.data.csv_files import read_predictions
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import write_descriptors
from isc.search.index import writer
from isc.search.index.index import Index, read_index
from tests.conftest import SAMPLE, Finished
from tests.test_index import MADE_BY, described

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """isc-index in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = 0
        try:
            index_cli.main([str(one) for one in arguments])
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
    index_cli.main(["create", str(index)])
    index_cli.main(["add", str(index), str(photos), "--workers", "0"])
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
    index, _ = photos
    assert ids_of(index) == ["S000", "S001", "sub/S002"]
    from PIL import Image, ImageOps

    ImageOps.posterize(Image.open(SAMPLE / "S001.jpg"), 4).crop((10, 10, 180, 130)).save("suspect.png")
    found = run("query", index, "suspect.png", "-k", 2, "--workers", 0)
    assert found.status == 0, found.err
    header, first, second = found.out.splitlines()
    assert header.split() == ["query", "reference", "distance", "score"]
    assert first.split()[:2] == ["suspect", "S001"]
    assert float(first.split()[3]) > float(second.split()[3]) + 0.2
    assert run("stats", index).out.splitlines()[2].startswith("model         isc_small (weights ")


def test_photos_that_cannot_be_read_are_named_and_counted(run, photos, caplog):
    index, folder = photos
    again = run("add", index, folder, "--replace", "--workers", 0)
    assert again.status == 0
    assert again.out.splitlines() == [
        "3 of 4 photos are on the disk",
        "photos: 0 added, 3 replaced, 0 left as they were, 1 unreadable",
        f"{index} holds 3 images",
    ]
    assert re.search(r"left out: \S+broken\.jpg: cannot be decoded", caplog.text)
    more = run("add", index, folder, SAMPLE / "S003.jpg", "--skip-existing", "--workers", 0)
    assert "photos: 1 added, 0 replaced, 3 left as they were, 1 unreadable" in more.out
    assert ids_of(index) == ["S000", "S001", "S003", "sub/S002"]
    for command in ("add", "query"):
        none = run(command, index, folder / "broken.jpg", "--workers", 0)
        assert none.status == 2
        assert "error: none of 1 photos can be read; the first: " in none.err


def test_known_photos_are_refused_before_any_is_read(refused, photos):
    index, folder = photos
    refused("add", index, folder, naming=["id 'S000' and 2 more of those given are in the index already"])


def test_photos_are_described_in_parts(run, photos, monkeypatch):
    index, _ = photos
    monkeypatch.setattr(index_cli, "PHOTOS", 2)
    finished = run("add", index, *(SAMPLE / f"S01{i}.jpg" for i in range(3)), "--workers", 0)
    assert finished.out.splitlines()[:2] == ["2 of 3 photos are on the disk", "3 of 3 photos are on the disk"]


def test_another_model_is_refused(refused, run, photos, known):
    refused("add", known, SAMPLE / "S000.jpg", naming=["--model isc_small: descriptors of 256 numbers; the index", "4"])
    wide = Descriptors(["x"], np.ones((1, 256), np.float32))
    write_descriptors(Path("wide.h5"), wide, MADE_BY)
    assert run("create", "wide.index", "--descriptors", "wide.h5").status == 0
    naming = ["--model isc_small: made with weights_sha256 ", "the index with weights_sha256 a1a1a1a1a1a1"]
    refused("query", "wide.index", SAMPLE / "S000.jpg", naming=naming)
    refused("add", "wide.index", SAMPLE / "S000.jpg", "--model", "nowhere", naming=["model=nowhere: no such model"])
    refused("query", photos[0], "wide.h5", naming=["wide.h5: made with weights_sha256 a1a1a1a1a1a1, the index with"])


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
    assert run("query", "copy.index", known, "-k", 1, "--format", "csv").out.count(",0.0\n") == 3


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
    monkeypatch.setattr(index_cli, "BATCH", 2)
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
    assert run(*ask).out.splitlines() == [
        "query  reference  distance     score",
        "p      b            0.0000    0.0000",
        "p      a            2.0000   -4.0000",
        "q      c           14.0000  -196.0000",
        "q      b           16.0000  -256.0000",
    ]
    near = ("--max-distance", "2")
    assert run(*ask, *near).out.splitlines()[1:] == [
        "p      b            0.0000    0.0000", "p      a            2.0000   -4.0000", "q      –"
    ]  # fmt: skip
    assert run(*ask, "--min-score", "-4", "--format", "csv").out == "query_id,reference_id,score\np,b,0.0\np,a,-4.0\n"
    found = json.loads(run(*ask, *near, "--format", "json").out)
    assert found == [
        {"query": "p", "matches": [{"reference": "b", "score": 0, "distance": 0},
                                   {"reference": "a", "score": -4, "distance": 2}]},
        {"query": "q", "matches": []},
    ]  # fmt: skip
    told = run(*ask, "--format", "csv", "--output", "found.csv")
    assert told.out == "4 matches of 2 queries: found.csv\n"
    assert len(read_predictions(Path("found.csv"))) == 4
    with Path("found.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["query_id", "reference_id", "score"]


def test_stats_are_for_people_and_for_programs(run, known):
    assert run("stats", known).out.splitlines()[:2] == ["images        3", "numbers each  4"]
    found = json.loads(run("stats", known, "--json").out)
    assert (found["images"], found["dim"], found["dead_rows"], found["provenance"]) == (3, 4, 0, MADE_BY)


@pytest.mark.parametrize("command", [[], *([name] for name in ("create", "add", "remove", "query", "stats", "verify"))])
def test_help_says_how(run, command):
    finished = run(*command, "--help")
    assert finished.status == 0
    assert f"usage: isc-index {' '.join(command)}".rstrip() in finished.out
    assert "INDEX" in finished.out or "examples:" in finished.out


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        ([], ["the following arguments are required: COMMAND", "see isc-index --help"]),
        (["ad"], ["invalid choice: 'ad'", "'add'"]),
        (["create", "known.index"], ["known.index: is there already; expected a new path"]),
        (["create", "new", "--descriptors", "none.h5"], ["none.h5: no such file"]),
        (["create", "new", "--descriptors", "abc.h5", "--model", "isc_small"], ["not allowed with argument"]),
        (["create", "new", "--descriptors", "abc.h5", "--image-size", "64"], ["--image-size goes with --model"]),
        (["create", "new", "--image-size", "9"], ["'9'; expected a whole number ≥ 32"]),
        (["create", "new", "--model", "none"], ["model=none: no such model"]),
        (["add", "known.index"], ["required: SOURCE"]),
        (["add", "none", "abc.h5"], ["none: no such folder; expected an index that isc-index create made"]),
        (["add", "known.index", "none.jpg"], ["none.jpg: no such file or folder; expected a folder of photos"]),
        (["add", "known.index", "text.txt"], ["text.txt: of no known kind; expected a folder"]),
        (["add", "known.index", "empty"], ["source=empty: holds no image"]),
        (["add", "known.index", "1/x.jpg", "2/x.png"], ["1/x.jpg and 2/x.png would both get the id 'x'"]),
        (["add", "known.index", "a,b.jpg"], ["a,b.jpg: id 'a,b' holds a comma"]),
        (["add", "known.index", "bd.h5"], ["id 'b' is in the index already", "--replace"]),
        (["add", "known.index", "strange.h5"], ["strange.h5: made with no weights_sha256, the index with"]),
        (["add", "known.index", "broken.h5"], ["broken.h5: not an HDF5 file"]),
        (["add", "known.index", "bd.h5", "--replace", "--skip-existing"], ["not allowed with argument --replace"]),
        (["remove", "known.index"], ["no ids to remove; expected some, or --from FILE"]),
        (["remove", "known.index", "a", "z"], ["id 'z' not in the index; nothing was removed"]),
        (["remove", "known.index", "--from", "none"], ["none: cannot be read"]),
        (["remove", "known.index", "--from", "text.txt"], ["text.txt: row 2: id ' x' has blanks round it"]),
        (["query", "known.index", "abc.h5", "-k", "0"], ["argument -k: '0'; expected a whole number ≥ 1"]),
        (["query", "known.index", "abc.h5", "--max-distance", "nan"], ["'nan'; expected a number ≥ 0"]),
        (["query", "known.index", "abc.h5", "--min-score", "x"], ["'x'; expected a number"]),
        (["query", "known.index", "abc.h5", "bd.h5"], ["id 'b' occurs twice"]),
        (["query", "known.index", "abc.h5", "--format", "xml"], ["invalid choice: 'xml'"]),
        (["query", "known.index", "abc.h5", "--output", "text.txt/x"], ["text.txt/x: cannot be written"]),
        (["stats", "1"], ["1: holds no manifest.json; expected an index"]),
        (["stats", "damaged.index"], ["manifest.json: not JSON, or cut short"]),
    ],
)
def test_what_is_refused_is_named_in_one_line(refused, known, arguments, naming):
    for name in ("1/x.jpg", "2/x.png", "a,b.jpg", "broken.h5", "damaged.index/manifest.json", "empty/none.txt"):
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
        "from isc.cli import index; from isc.search.index import writer; writer.BATCH = 1; index.main()"
    )
    command = [sys.executable, "-c", code, "add", "known.index", "big.h5"]
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
    command = [sys.executable, "-m", "isc.cli.index", "query", "known.index", "abc.h5"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        process.stdout.close()
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == b""


def test_descriptors_go_in_without_torch(known):
    code = (
        "import sys; from isc.cli import index; index.main(['add', 'known.index', 'bd.h5', '--replace']); "
        "assert not {'torch', 'faiss', 'cv2', 'hydra'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# an approximate index of the same images


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
