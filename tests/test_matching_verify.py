"""All candidate pairs compared: the same answer by any number of processes, whatever happens to files and processes.

What a pair's evidence is worth is not looked at here.
"""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from isc.data.matches import Matches
from isc.errors import InputError
from isc.match.verification import compare as module
from isc.match.verification import drawings, shelf, tasks
from isc.match.verification.alignment import Alignment, compare
from isc.match.verification.compare import Problem, Verified, verify, write_not_compared
from isc.match.verification.feature_store import FeatureStore, photo_key
from isc.match.verification.features import local_features
from isc.match.verification.quantities import EVIDENCE
from isc.photos.decode import read_image
from isc.photos.folders import SAMPLE, list_images

PHOTOS = list_images(SAMPLE)
EACH = 3  # candidates of a query, and the true one


def pairs(*rows: tuple[str, str]) -> Matches:
    return Matches.from_ids([query for query, _ in rows], [reference for _, reference in rows], np.zeros(len(rows)))


@pytest.fixture(scope="module")
def made(benchmark):
    """Queries and references of a benchmark, with candidates of all copies and some others; one row in seven is gone,
    so that queries have unequal numbers."""
    queries, references = (list_images(benchmark / name) for name in ("queries", "references"))
    with (benchmark / "ground_truth.csv").open() as file:
        true = {(row["query_id"], row["reference_id"]) for row in csv.DictReader(file) if row["reference_id"]}
    names, some = list(references), sorted({query for query, _ in true} | set(list(queries)[:3]))
    others = [(query, names[(i + j) % len(names)]) for i, query in enumerate(some) for j in range(EACH)]
    rows = [row for number, row in enumerate(dict.fromkeys([*sorted(true), *others])) if number % 7]
    order = np.random.default_rng(0).permutation(len(rows))
    return pairs(*(rows[i] for i in order)), queries, references


@pytest.fixture(scope="module")
def plain(made):
    """The slow obvious twin: one pair after the other."""
    candidates, queries, references = made
    found = []
    for row in range(len(candidates)):
        query, reference = candidates.pair(row).split(",")
        found.append(
            compare(local_features(read_image(queries[query])), local_features(read_image(references[reference])))
        )
    return found


def agrees(found: Verified, plain: list[tuple[np.ndarray, Alignment | None]]) -> None:
    assert found.evidence.dtype == np.float32
    assert found.evidence.shape == (len(plain), len(EVIDENCE))
    assert found.evidence.tolist() == [values.tolist() for values, _ in plain]
    wanted = {row: alignment for row, (_, alignment) in enumerate(plain) if alignment is not None}
    assert list(found.alignments) == sorted(wanted)
    for row, alignment in wanted.items():
        assert (found.alignments[row].matrix == alignment.matrix).all()
        assert (found.alignments[row].query_region == alignment.query_region).all()
    assert found.problems == ()
    assert found.not_compared == 0


def same(one: Verified, two: Verified) -> None:
    np.testing.assert_array_equal(one.evidence, two.evidence)
    assert one.problems == two.problems
    assert list(one.alignments) == list(two.alignments)
    assert all((one.alignments[row].matrix == two.alignments[row].matrix).all() for row in one.alignments)


# --- the same answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "stored"), [(1, False), (2, False), (1, True), (3, True)])
def test_the_answer_is_that_of_one_pair_after_the_other(workers, stored, made, plain, tmp_path):
    store = FeatureStore(tmp_path / "store") if stored else None
    agrees(verify(*made, workers=workers, store=store), plain)
    assert sum(alignment is not None for _, alignment in plain) >= 5
    if store is not None:
        candidates, _, references = made
        keys = {photo_key(references[name]) for name in candidates.reference_ids}
        assert store.present(keys) == keys
        agrees(verify(*made, workers=workers, store=FeatureStore(tmp_path / "store")), plain)


def test_stored_features_are_read_and_not_made_again(made, plain, tmp_path, monkeypatch):
    verify(*made, workers=2, store=FeatureStore(tmp_path))
    queries = {path.read_bytes() for path in made[1].values()}

    def only_queries(path: Path) -> np.ndarray:
        assert path.read_bytes() in queries
        return read_image(path)

    monkeypatch.setattr(tasks, "read_image", only_queries)
    agrees(verify(*made, workers=1, store=FeatureStore(tmp_path)), plain)


@pytest.mark.parametrize("room", [0, 150_000])
def test_the_answer_is_the_same_where_memory_ends(room, made, plain, monkeypatch):
    monkeypatch.setattr(shelf, "HELD", room)
    agrees(verify(*made, workers=1), plain)
    agrees(verify(*made, workers=2), plain)


def test_the_answer_is_the_same_where_nothing_can_be_stored(made, plain, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    store = FeatureStore(tmp_path / "file" / "store")
    agrees(verify(*made, workers=2, store=store), plain)
    assert ["cannot be kept" in record.message for record in caplog.records] == [True]


@pytest.mark.slow
def test_how_often_a_reference_is_read(made, tmp_path, monkeypatch):
    """Once where its features can be kept, in a store or in memory; for every pair where they cannot."""
    monkeypatch.setattr(drawings, "COLOURLESS", 0.0)
    candidates, queries, references = made
    read: list[Path] = []
    monkeypatch.setattr(tasks, "read_image", lambda path: read.append(path) or read_image(path))
    (tmp_path / "file").write_text("in the way")
    in_the_way = FeatureStore(tmp_path / "file" / "store")
    once, each = len(np.unique(candidates.reference)), len(candidates)
    ways = [(None, 1 << 30, once), (in_the_way, 1 << 30, once), (FeatureStore(tmp_path / "store"), 0, once),
            (None, 0, each), (FeatureStore(tmp_path / "file" / "store"), 0, each)]  # fmt: skip
    for store, room, times in ways:
        read.clear()
        monkeypatch.setattr(shelf, "HELD", room)
        verify(*made, workers=1, store=store)
        assert len([path for path in read if path in references.values()]) == times
        assert len([path for path in read if path in queries.values()]) == len(np.unique(candidates.query))


def test_what_is_held_does_not_grow(made, monkeypatch):
    describe, held = module._describe, {}

    def watched(*args, **options):
        held.update(describe(*args, **options))
        return held

    monkeypatch.setattr(module, "_describe", watched)
    verify(*made, workers=1)
    assert len(held) == 10
    names = {one.name for one in fields(next(iter(held.values())))}
    assert all(vars(features).keys() == names for features in held.values())


@pytest.mark.slow
def test_stale_features_are_made_again(made, plain, tmp_path):
    candidates, queries, references = made
    mine = {name: tmp_path / f"{name}.jpg" for name in references}
    for number, path in enumerate(mine.values()):
        path.write_bytes(list(PHOTOS.values())[number].read_bytes())
    store = FeatureStore(tmp_path / "store")
    other = verify(candidates, queries, mine, workers=2, store=store)
    for name, path in references.items():
        mine[name].write_bytes(path.read_bytes())
    found = verify(candidates, queries, mine, workers=2, store=store)
    assert other.evidence.tolist() != found.evidence.tolist()
    agrees(found, plain)


def test_a_photo_that_changes_while_it_is_read_is_made_again(tmp_path, monkeypatch):
    mine = {"mine": tmp_path / "mine.jpg"}
    mine["mine"].write_bytes(PHOTOS["S000"].read_bytes())

    def overtaken(path: Path) -> np.ndarray:
        pixels = read_image(path)
        mine["mine"].write_bytes(PHOTOS["S001"].read_bytes())
        return pixels

    store, candidates = FeatureStore(tmp_path / "store"), pairs(("S001", "mine"))
    monkeypatch.setattr(tasks, "read_image", overtaken)
    verify(candidates, PHOTOS, mine, workers=1, store=store)
    monkeypatch.undo()
    found = verify(candidates, PHOTOS, mine, workers=1, store=store)
    same(found, verify(candidates, PHOTOS, {"mine": PHOTOS["S001"]}, workers=1))


def test_no_candidates():
    none = np.zeros(0, np.int64)
    empty = Matches(np.array(["Q"], object), np.array(["R"], object), none, none, np.zeros(0, np.float32))
    found = verify(empty, {}, {})
    assert (found.evidence.shape, found.alignments, found.problems) == ((0, len(EVIDENCE)), {}, ())


def test_settings_of_opencv_are_left_as_they_were(made):
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        verify(*made, workers=1)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("workers", [0, -1])
def test_too_few_workers(workers, made):
    with pytest.raises(InputError, match=f"workers={workers}; expected at least 1"):
        verify(*made, workers=workers)


def test_bars_count_photos_and_queries(made):
    heard: dict[tuple[str, str], list[tuple[int, int]]] = {}

    @contextlib.contextmanager
    def bars(what, units):
        yield lambda done, total: heard.setdefault((what, units), []).append((done, total))

    candidates, _, _ = made
    verify(*made, workers=2, bars=bars)
    photos, queries = heard["local features of references", "photos"], heard["comparing pixels", "queries"]
    number = len(np.unique(candidates.query))
    assert queries == [(done, number) for done in range(1, number + 1)]
    assert (10, 10) in photos


# --- pictures that are not as they should be -------------------------------------------------------------------------


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kept", ["in memory", "nowhere", "in a store"])
def test_pictures_that_cannot_be_read_are_listed_and_the_rest_is_compared(workers, kept, tmp_path, monkeypatch):
    monkeypatch.setattr(shelf, "HELD", 0 if kept == "nowhere" else shelf.HELD)
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(PHOTOS["S000"].read_bytes()[:2000])
    gone = tmp_path / "gone.jpg"
    queries = {"good": PHOTOS["S000"], "torn": torn, "gone": gone}
    references = {"S000": PHOTOS["S000"], "torn": torn, "gone": gone, "unused": gone}
    candidates = pairs(
        ("good", "S000"), ("good", "absent"), ("good", "torn"), ("good", "gone"),
        ("torn", "S000"), ("gone", "S000"), ("nowhere", "S000"), ("nowhere", "torn"), ("nowhere", "alone"),
    )  # fmt: skip
    store = FeatureStore(tmp_path / "store") if kept == "in a store" else None
    for _ in range(2):  # the second time the store knows what it can
        found = verify(candidates, queries, references, workers=workers, store=store)
        assert np.isfinite(found.evidence[0]).all()
        assert np.isnan(found.evidence[1:]).all()
        assert found.not_compared == 8
        assert list(found.alignments) == [0]
        assert [(one.side, one.id, one.file, one.pairs) for one in found.problems] == [
            ("query", "gone", gone, 1),
            ("query", "nowhere", None, 3),
            ("query", "torn", torn, 1),
            ("reference", "absent", None, 1),
            ("reference", "alone", None, 1),
            ("reference", "gone", gone, 1),
            ("reference", "torn", torn, 2),
        ]
        reasons = {(one.side, one.id): one.reason for one in found.problems}
        assert "No such file" in reasons["query", "gone"]
        assert "No such file" in reasons["reference", "gone"]
        assert reasons["query", "nowhere"] == "id 'nowhere' has no image file; expected one of 3 listed"
        assert reasons["reference", "torn"] == reasons["query", "torn"]
        assert reasons["query", "torn"].startswith("cannot be decoded")


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (64, 64), (300, 200)])
def test_blank_pictures_are_compared_and_agree_in_nothing(shape, tmp_path):
    blank = save(tmp_path / "blank.png", np.full((*shape, 3), 128, np.uint8))
    candidates = pairs(("blank", "S000"), ("blank", "blank"), ("S000", "blank"))
    images = {"blank": blank, "S000": PHOTOS["S000"]}
    found = verify(candidates, images, images, workers=1, store=FeatureStore(tmp_path / "store"))
    assert np.isfinite(found.evidence).all()
    assert (found.alignments, found.problems) == ({}, ())


def test_features_of_a_blank_reference_are_taken_from_where_they_are(tmp_path, monkeypatch):
    images = {"blank": save(tmp_path / "blank.png", np.full((50, 50, 3), 128, np.uint8)), "S000": PHOTOS["S000"]}
    read: list[Path] = []
    monkeypatch.setattr(tasks, "read_image", lambda path: read.append(path) or read_image(path))
    for store in (None, FeatureStore(tmp_path / "store")):
        read.clear()
        verify(pairs(("S000", "blank")), images, images, workers=1, store=store)
        assert sorted(read) == sorted(images.values())


def failing(wanted: Callable[[object, object], bool], error: Exception) -> Callable[..., object]:
    def instead(query, reference):
        if wanted(query, reference):
            raise error
        return compare(query, reference)

    return instead


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pair_that_cannot_be_compared_is_listed_and_the_rest_is(workers, monkeypatch):
    odd = failing(lambda q, r: not np.array_equal(q.points, r.points), cv2.error("(-215:Assertion\nfailed)"))
    monkeypatch.setattr(tasks, "compare", odd)
    candidates = pairs(("S000", "S000"), ("S000", "S001"), ("S001", "S001"))
    found = verify(candidates, PHOTOS, PHOTOS, workers=workers)
    assert found.problems == (
        Problem("pair", "S000,S001", None, "cannot be compared (error: (-215:Assertion failed))", 1),
    )
    assert found.not_compared == 1
    assert np.isnan(found.evidence).all(axis=1).tolist() == [False, True, False]
    assert sorted(found.alignments) == [0, 2]


def test_a_picture_without_features_by_an_error_is_listed(monkeypatch):
    def broken(pixels):
        raise cv2.error("out of luck")

    monkeypatch.setattr(module, "WITH_NEGATIVES", tasks.Looks(broken, broken))
    found = verify(pairs(("S000", "S001")), PHOTOS, PHOTOS, workers=1)
    assert [(one.side, one.id, one.reason) for one in found.problems] == [
        ("query", "S000", "has no local features (error: out of luck)"),
        ("reference", "S001", "has no local features (error: out of luck)"),
    ]


def test_what_was_not_compared_as_a_table(tmp_path):
    problems = [
        Problem("pair", "Q1,R1", None, "cannot be compared (error: odd)", 1),
        Problem("reference", "R2", Path("photos/R2.jpg"), "cannot be decoded (is empty); replace or remove it", 17),
    ]
    write_not_compared(tmp_path / "not_compared.csv", problems)
    assert (tmp_path / "not_compared.csv").read_text() == (
        "side,id,file,reason,pairs\n"
        'pair,"Q1,R1",,cannot be compared (error: odd),1\n'
        "reference,R2,photos/R2.jpg,cannot be decoded (is empty); replace or remove it,17\n"
    )


# --- processes that end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store_name", [None, "store"])
def test_a_process_that_ends_by_itself_is_named(store_name, made, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "compare", lambda query, reference: os._exit(1))
    store = FeatureStore(tmp_path / store_name) if store_name else None
    with pytest.raises(InputError, match="with too little memory"):
        verify(*made, workers=2, store=store)


def test_a_damaged_store_is_named_by_any_process(made, plain, tmp_path, monkeypatch):
    store = FeatureStore(tmp_path)
    verify(*made, workers=2, store=store)
    content = store.path.read_bytes()
    monkeypatch.setattr(module, "_missing", lambda plan, store: [])
    store.path.write_bytes(content[:16384] + b"\xff" * (len(content) - 16384))
    with pytest.raises(InputError, match="is damaged"):
        verify(*made, workers=2, store=store)
    monkeypatch.undo()
    store.path.unlink()
    agrees(verify(*made, workers=2, store=store), plain)


RUN = """
import contextlib, csv, signal, sys
from pathlib import Path
import numpy as np
from isc.data.matches import Matches
from isc.photos.folders import list_images
from isc.match.verification.feature_store import FeatureStore
from isc.match.verification.compare import verify
from isc.match.verification import compare as module
from isc.match.verification import shelf
signal.signal(signal.SIGINT, signal.default_int_handler)
shelf.BATCH = 2
module.PHOTOS = 1
benchmark, store, pairs, output = map(Path, sys.argv[1:5])
rows = [tuple(row) for row in csv.reader(pairs.open())]
candidates = Matches.from_ids([q for q, _ in rows], [r for _, r in rows], np.zeros(len(rows)))
@contextlib.contextmanager
def bars(what, units):
    yield lambda done, total: print(what, done, flush=True)
images = [list_images(benchmark / name) for name in ("queries", "references")]
found = verify(candidates, *images, store=FeatureStore(store), workers=2, bars=bars)
assert not found.problems
np.save(output, found.evidence)
"""


def start(made, benchmark: Path, place: Path, *, name: str = "run") -> subprocess.Popen[str]:
    candidates = made[0]
    table = place / f"{name}.csv"
    table.write_text("".join(f"{candidates.pair(row)}\n" for row in range(len(candidates))))
    command = [sys.executable, "-c", RUN, str(benchmark), str(place / "store"), str(table), str(place / f"{name}.npy")]
    streams: Mapping[str, int] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, start_new_session=True, **streams)


def alive(session: int) -> list[str]:
    """The processes of a session, but those that nobody has buried yet."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, its_session = entry.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state not in "ZX":
                found.append(entry.parent.name)
    return found


def await_end(session: int) -> None:
    deadline = time.monotonic() + 30
    while left := alive(session):
        if time.monotonic() > deadline:
            for process in left:
                os.kill(int(process), signal.SIGKILL)
            pytest.fail(f"{len(left)} processes went on")
        time.sleep(0.01)


def finish(process: subprocess.Popen[str]) -> str:
    """What it said on stderr."""
    err = process.communicate(timeout=120)[1]
    await_end(process.pid)
    return err


MOMENTS = {"local features of references 5\n", "comparing pixels 7\n"}


@pytest.mark.parametrize("moment", sorted(MOMENTS))
def test_killed_in_the_middle_and_run_again(moment, made, plain, benchmark, tmp_path):
    process = start(made, benchmark, tmp_path)
    assert moment in iter(process.stdout.readline, "")
    assert len(alive(process.pid)) == 3
    process.kill()
    finish(process)
    assert not (tmp_path / "run.npy").exists()
    references = made[2]
    keys = {photo_key(path): path for path in references.values()}
    stored = FeatureStore(tmp_path / "store").get_many(keys)
    assert len(stored) >= 2
    for key, value in stored.items():
        assert (value.descriptors == local_features(read_image(keys[key])).descriptors).all()
    agrees(verify(*made, workers=2, store=FeatureStore(tmp_path / "store")), plain)


@pytest.mark.parametrize("whole_group", [True, False])
def test_ctrl_c_ends_all_processes_and_keeps_what_is_stored(whole_group, made, plain, benchmark, tmp_path):
    process = start(made, benchmark, tmp_path)
    assert "comparing pixels 3\n" in iter(process.stdout.readline, "")
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    err = finish(process)
    assert process.returncode != 0
    assert err.count("KeyboardInterrupt") == err.count("Traceback") == 1
    assert len(FeatureStore(tmp_path / "store").present(photo_key(path) for path in made[2].values())) == 10
    agrees(verify(*made, workers=2, store=FeatureStore(tmp_path / "store")), plain)


def test_two_runs_at_once_share_a_store(made, plain, benchmark, tmp_path):
    processes = [start(made, benchmark, tmp_path, name=name) for name in ("one", "two")]
    assert [finish(process) for process in processes] == ["", ""]
    for name in ("one", "two"):
        assert np.load(tmp_path / f"{name}.npy").tolist() == [values.tolist() for values, _ in plain]
