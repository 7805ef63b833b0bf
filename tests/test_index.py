"""The updatable index: beside a dictionary, through real kills, with many readers, and when it is damaged."""

import contextlib
import errno
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isc.data.descriptors import Descriptors
from isc.data.hdf5 import read_descriptors, read_provenance, write_descriptors
from isc.errors import InputError
from isc.search.index import storage, writer
from isc.search.index.index import Index, is_index, read_index

RAM = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # kills are no power cuts: there is no disk to wait for
MADE_BY = {"weights_sha256": "a1" * 32, "image_size": "64", "gem_power": "3.0", "preprocessing": "RGB", "model": "net"}


def described(ids, *values, dim=4):
    """Descriptors whose vectors hold one value each: the given ones, or 0, 1, 2 …"""
    vectors = np.repeat(np.array(values or range(len(ids)), np.float32)[:, None], dim, axis=1)
    return Descriptors(list(ids), vectors)


def contents(path):
    """{id: the value of its vector}"""
    index = Index.open(path)
    with index.snapshot() as snapshot:
        snapshot.verify()
        return {} if not len(snapshot) else content_of(snapshot.descriptors())


def content_of(found):
    assert (found.vectors == found.vectors[:, :1]).all(), "a vector is half there"
    return dict(zip(found.ids.tolist(), found.vectors[:, 0].tolist(), strict=True))


def answers(path, value, k=10):
    """(id, score) of the nearest images of one query, best first."""
    found = Index.open(path).knn(described(["q"], value), k=k, provenance=MADE_BY)
    return [(found.reference_ids[found.reference[at]], float(found.score[at])) for at in found.order()]


@pytest.fixture
def path(tmp_path):
    """An empty index for descriptors of four numbers."""
    return Index.create(tmp_path / "an.index", dim=4, provenance=MADE_BY, model="net").path


@contextlib.contextmanager
def written(path):
    with Index.open(path).writer() as one:
        yield one


def add(path, ids, *values, **options):
    with written(path) as one:
        return one.add(described(ids, *values), provenance=MADE_BY, **options)


def remove(path, *ids, **options):
    with written(path) as one:
        return one.remove(ids, **options)


# what it holds


def test_what_goes_in_comes_out(path):
    assert is_index(path)
    assert add(path, ["b", "a"], 1, 2) == writer.Added(2, 0, 0)
    assert add(path, ["c"], 3) == writer.Added(1, 0, 0)
    assert contents(path) == {"a": 2, "b": 1, "c": 3}
    assert remove(path, "b") == 1
    assert add(path, ["c", "d"], 4, 5, replace=True) == writer.Added(1, 1, 0)
    assert add(path, ["d", "e"], 6, 7, skip_existing=True) == writer.Added(1, 0, 1)
    assert contents(path) == {"a": 2, "c": 4, "d": 5, "e": 7}
    descriptors, provenance = read_index(path)
    assert descriptors.ids.tolist() == ["a", "c", "d", "e"]
    assert provenance == MADE_BY
    with written(path) as one:
        assert one.compact() == 2
        assert one.compact() == 0
    assert contents(path) == {"a": 2, "c": 4, "d": 5, "e": 7}


def test_stats_count_images_rows_and_bytes(path):
    add(path, "abc")
    add(path, "a", 9, replace=True)
    stats = Index.open(path).stats()
    assert (stats.images, stats.rows, stats.dead_rows, stats.generation, stats.dim) == (3, 4, 1, 0, 4)
    assert stats.model == "net"
    assert stats.provenance == MADE_BY
    assert stats.bytes == sum(file.stat().st_size for file in path.iterdir())
    assert stats.created <= stats.changed


def test_any_text_is_an_id(path):
    names = ["ünï/çødé 写真", "it's", 'a"b', "-", "%s", "1e3", "x" * 300, "x\u2028y", "Å", "🙂"]
    add(path, names)
    assert contents(path) == {name: float(at) for at, name in enumerate(names)}
    assert read_index(path)[0].ids.tolist() == sorted(names)
    add(path, names, *range(1, 11), replace=True)
    assert contents(path) == {name: at + 1.0 for at, name in enumerate(names)}
    assert remove(path, *names[5:]) == 5
    assert set(contents(path)) == set(names[:5])


def test_an_empty_index_answers_with_nothing(path):
    assert answers(path, 1) == []
    assert contents(path) == {}
    with pytest.raises(InputError, match="holds no images"):
        read_index(path)
    add(path, "ab")
    remove(path, "a", "b")
    assert answers(path, 1) == []


def test_only_what_makes_descriptors_comparable_is_kept_of_their_provenance(tmp_path):
    index = Index.create(tmp_path / "i", dim=4, provenance=MADE_BY | {"images": "12", "code_version": "0"})
    assert index.manifest.provenance == MADE_BY
    assert Index.open(tmp_path / "i") == index


ID = st.sampled_from("abcdefgh")
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(["new", "replace", "skip"]), st.lists(ID, min_size=1, max_size=8, unique=True)),
    st.tuples(st.sampled_from(["remove", "remove what is there"]), st.lists(ID, max_size=4)),
    st.tuples(st.just("compact"), st.just([])),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OPERATIONS, max_size=10), st.randoms(use_true_random=False))
def test_it_behaves_like_a_dictionary(operations, chance):
    with tempfile.TemporaryDirectory(dir=RAM) as folder:
        path = Index.create(Path(folder, "i"), dim=4, provenance=MADE_BY).path
        model = {}
        with (
            mock.patch.multiple(writer, BATCH=3, WORTH_COMPACTING=6),
            mock.patch.object(storage, "LOOKUP", 2),
            written(path) as one,
        ):
            for kind, ids in operations:
                values = [chance.randrange(4) for _ in ids]
                given = dict(zip(ids, values, strict=True))
                known = model.keys() & given.keys()
                if kind == "compact":
                    one.compact()
                elif kind == "remove" and known < given.keys():
                    with pytest.raises(InputError, match="nothing was removed"):
                        one.remove(ids)
                elif kind.startswith("remove"):
                    assert one.remove(ids, missing_ok=kind != "remove") == len(known)
                    model = {name: value for name, value in model.items() if name not in given}
                elif kind == "new" and known:
                    with pytest.raises(InputError, match="in the index already"):
                        one.add(described(ids, *values), provenance=MADE_BY)
                else:
                    options = {"replace": kind == "replace", "skip_existing": kind == "skip"}
                    added = one.add(described(ids, *values), provenance=MADE_BY, **options)
                    assert added.new == len(ids) - len(known)
                    assert (added.replaced, added.skipped) == ((0, len(known)) if kind == "skip" else (len(known), 0))
                    model = given | model if kind == "skip" else model | given
                assert contents(path) == model
                nearest = sorted((4 * (value - 1) ** 2, name) for name, value in model.items())
                for k in (1, 3, 99):
                    assert answers(path, 1, k) == [(name, -distance) for distance, name in nearest[:k]]
                assert one.state.rows < 6 or one.state.dead <= one.state.live


# searching


@pytest.mark.parametrize("order", ["abcdefghijklmnopqrst", "tsrqponmlkjihgfedcba", "kdmtalihjfgbcneoqspr"])
def test_equal_distances_go_by_id_however_the_images_came(path, order):
    for name in order:
        add(path, name, 5)
    add(path, order[7], 5, replace=True)
    assert answers(path, 5, k=3) == [("a", 0), ("b", 0), ("c", 0)]
    assert answers(path, 4, k=1) == [("a", -4)]


def test_replaced_rows_do_not_hide_what_is_there(path):
    add(path, "abcdef", *range(10, 16))
    for _ in range(50):
        add(path, "z", 0, replace=True)
    add(path, "z", 99, replace=True)
    assert Index.open(path).stats().dead_rows == 50
    assert [name for name, _ in answers(path, 0, k=3)] == ["a", "b", "c"]
    assert len(answers(path, 0, k=99)) == 7


def test_many_queries_are_answered_each_by_itself(path):
    rng = np.random.default_rng(0)
    ids = [f"r{i:03}" for i in rng.permutation(200)]
    references = Descriptors(ids, rng.integers(0, 3, (200, 4)).astype(np.float32))
    queries = Descriptors([f"q{i}" for i in range(40)], rng.integers(0, 3, (40, 4)).astype(np.float32))
    with written(path) as one:
        one.add(references, provenance=MADE_BY)
        one.remove(ids[::3])
    live = [name for name in ids if name not in ids[::3]]
    found = Index.open(path).knn(queries, k=7, provenance=MADE_BY)
    assert found.reference_ids.tolist() == sorted(set(found.reference_ids))
    pairs = {}
    for at in found.order():
        pairs.setdefault(found.query[at], []).append((-found.score[at], found.reference_ids[found.reference[at]]))
    for at, vector in enumerate(queries.vectors):
        distance = dict(zip(ids, ((references.vectors - vector) ** 2).sum(axis=1).tolist(), strict=True))
        assert pairs[at] == sorted((distance[name], name) for name in live)[:7]


# what is refused


def other(**changes):
    return {key: value for key, value in (MADE_BY | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("act", "parts"),
    [
        (lambda p: add(p, "xa"), ["id 'a' is in the index already", "--replace", "--skip-existing"]),
        (lambda p: add(p, "abc"), ["id 'a' and 1 more of those given are in"]),
        (lambda p: add(p, "x", replace=True, skip_existing=True), ["exclude one another"]),
        (lambda p: remove(p, "a", "y"), ["id 'y' not in the index", "nothing was removed"]),
        (lambda p: remove(p, "x", "y", "\udc80"), ["id 'x' and 2 more not in"]),
        (lambda p: Index.create(p, dim=4, provenance={}), ["is there already"]),
        (lambda p: Index.create(p.parent / "new", dim=0, provenance={}), ["dim=0; expected at least 1"]),
        (lambda p: answers(p, 1, k=0), ["k=0; expected at least 1"]),
        (lambda p: Index.open(p.parent / "none"), ["none: no such folder; expected an index"]),
        (lambda p: Index.open(p.parent), ["holds no manifest.json"]),
    ],
)
def test_refusals_name_what_is_wrong_and_change_nothing(path, act, parts):
    add(path, "ab")
    before = contents(path), sorted(path.parent.iterdir())
    with pytest.raises(InputError) as refusal:
        act(path)
    for part in parts:
        assert part in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert (contents(path), sorted(path.parent.iterdir())) == before


@pytest.mark.parametrize(
    ("provenance", "dim", "part"),
    [
        (MADE_BY, 3, "descriptors of 3 numbers; the index holds those of 4"),
        (
            other(weights_sha256="b2" * 32),
            4,
            "made with weights_sha256 b2b2b2b2b2b2, the index with weights_sha256 a1a1",
        ),
        (other(weights_sha256=None), 4, "made with no weights_sha256, the index with weights_sha256 a1a1a1a1a1a1"),
        (other(image_size="96"), 4, "made with image_size 96, the index with image_size 64"),
        ({}, 4, "made with no weights_sha256"),
    ],
)
def test_descriptors_of_another_model_are_refused(path, provenance, dim, part):
    add(path, "a")
    strange = described("x", dim=dim)
    with pytest.raises(InputError, match=part), written(path) as one:
        one.add(strange, provenance=provenance)
    with pytest.raises(InputError, match=part):
        Index.open(path).knn(strange, k=1, provenance=provenance)
    assert contents(path) == {"a": 0}


def test_descriptors_with_views_are_neither_taken_nor_compared(path):
    add(path, "ab")
    viewed = Descriptors(["c", "c"], np.eye(2, 4), ["whole", "flip"])
    with Index.open(path).writer() as writer, pytest.raises(InputError) as added:
        writer.add(viewed, provenance=MADE_BY)
    with pytest.raises(InputError) as asked:
        Index.open(path).knn(viewed, k=1, provenance=MADE_BY)
    for caught in (added, asked):
        for part in ("id 'c': view 'whole'", "expected one descriptor an image", "combine=average", "track=matching"):
            assert part in str(caught.value)
    assert contents(path) == {"a": 0, "b": 1}


def test_facts_that_one_side_alone_gives_are_no_difference(path):
    with written(path) as one:
        one.add(described("a"), provenance=other(gem_power=None, preprocessing=None) | {"new fact": "1"})
    assert contents(path) == {"a": 0}


def test_an_index_of_unnamed_descriptors_takes_unnamed_ones_alone(tmp_path):
    path = Index.create(tmp_path / "i", dim=4, provenance={}).path
    with written(path) as one:
        one.add(described("a"), provenance={})
        with pytest.raises(InputError, match="the index with no weights_sha256"):
            one.add(described("b"), provenance=MADE_BY)


# one writer, many readers


HOLDER = """
import sys; from pathlib import Path; from isc.search.index import Index; index = Index.open(Path(sys.argv[1]))
"""


@contextlib.contextmanager
def another_process(path, code):
    """A process that runs HOLDER and `code` and has printed its first line, which is given."""
    command = [sys.executable, "-c", HOLDER + code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_second_writer_is_refused_by_name(path):
    code = "with index.writer(): print('writing', flush=True); input()"
    with another_process(path, code) as (process, _):
        with pytest.raises(InputError) as refusal, written(path):
            pass
        assert f"process {process.pid} on " in str(refusal.value)
        assert "(-c " in str(refusal.value)
        assert "expected one writer at a time" in str(refusal.value)
        assert contents(path) == {}  # reading goes on
    add(path, "a")  # its lock died with it


def test_a_second_writer_in_the_same_process_is_refused(path):
    with written(path), pytest.raises(InputError, match=f"process {os.getpid()} on"), written(path):
        pass
    add(path, "a")


def test_a_child_of_a_killed_writer_does_not_hold_its_lock(path):
    code = (
        "import os, time\n"
        "with index.writer():\n"
        "    if not os.fork(): print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    with another_process(path, code) as (process, child):
        process.kill()
        process.wait()
        try:
            add(path, "a")
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_snapshot_stays_as_it_was(path):
    add(path, "abc")
    with Index.open(path).snapshot() as before:
        remove(path, "a")
        add(path, "bc", 7, 8, replace=True)
        with written(path) as one:
            assert one.compact() == 3
        add(path, "d", 9)
        assert content_of(before.descriptors()) == {"a": 0, "b": 1, "c": 2}
        assert len(before.knn(described("q"), k=9, provenance=MADE_BY)) == 3
    assert contents(path) == {"b": 7, "c": 8, "d": 9}


def test_readers_see_one_state_while_a_writer_adds_and_compacts(path):
    ids = [f"i{i}" for i in range(30)]
    add(path, ids, *[0] * 30)
    done = threading.Event()
    problems, seen = [], set()

    def read():
        try:
            while not done.is_set():
                with Index.open(path).snapshot() as snapshot:
                    values = set(content_of(snapshot.descriptors()).values())
                    assert len(snapshot) == 30
                    assert len(values) == 1, f"a mixture of {values}"
                    assert len(snapshot.knn(described("q"), k=30, provenance=MADE_BY)) == 30
                    seen.update(values)
        except Exception as error:
            problems.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        with written(path) as one:
            for value in range(1, 41):
                one.add(described(ids, *[value] * 30), provenance=MADE_BY, replace=True)
                if value % 4 == 0:
                    one.compact()
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert not problems
    assert len(seen) > 2
    assert Index.open(path).stats().generation == 10


# what survives


def random_operations(chance, count):
    """Operations as JSON takes them, and what the index holds before each and after the last."""
    states, operations = [{}], []
    for step in range(count):
        now = dict(states[-1])
        kind = chance.choice(["add", "replace", "remove", "compact"] if now else ["add"])
        if kind == "add":
            ids = [f"s{step}-{i}" for i in range(chance.randrange(1, 200))]
            now |= dict.fromkeys(ids, step)
        elif kind == "compact":
            ids = []
        else:
            ids = chance.sample(sorted(now), chance.randrange(1, 1 + len(now) // 2 or 2))
            now = {n: v for n, v in now.items() if n not in ids} if kind == "remove" else now | dict.fromkeys(ids, step)
        operations.append((kind, ids, step))
        states.append(now)
    return operations, states


OPERATOR = """
import json
import numpy as np
from isc.data.descriptors import Descriptors
operations, provenance = json.loads(Path(sys.argv[2]).read_text())
with index.writer() as writer:
    print(sys.argv[3], flush=True)
    for at in range(int(sys.argv[3]), len(operations)):
        kind, ids, value = operations[at]
        if kind == "compact":
            writer.compact()
        elif kind == "remove":
            writer.remove(ids)
        else:
            vectors = np.full((len(ids), 64), value, np.float32)
            writer.add(Descriptors(ids, vectors), provenance=provenance, replace=kind == "replace")
        print(at + 1, flush=True)
"""


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_and_halves_nothing(tmp_path):
    """A writer that acknowledges each operation is killed at random moments, until it has done them all."""
    path = Index.create(tmp_path / "i", dim=64, provenance=MADE_BY).path
    chance = random.Random(3)
    operations, states = random_operations(chance, 600)
    script = tmp_path / "operations.json"
    script.write_text(json.dumps((operations, MADE_BY)))
    at = kills = 0
    while at < len(operations) and kills < 10:
        command = [sys.executable, "-c", HOLDER + OPERATOR, str(path), str(script), str(at)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            time.sleep(chance.random() * 0.3)
            process.kill()
            acknowledged = int((process.stdout.read().split() or [at])[-1])
        kills += process.returncode == -signal.SIGKILL
        content = contents(path)
        assert content in states[acknowledged : acknowledged + 2], f"{at}: {acknowledged} were acknowledged"
        at = acknowledged + states[acknowledged : acknowledged + 2].index(content)
    assert kills > 3
    with written(path):
        pass
    assert_tidy(path)


def assert_tidy(path):
    stats = Index.open(path).stats()
    vectors = path / f"vectors-{stats.generation}.f32"
    assert {file.name for file in path.iterdir()} == {"manifest.json", "index.sqlite", "writer.lock", vectors.name}
    assert vectors.stat().st_size == stats.rows * stats.dim * 4


EVERY_MOMENT = """
import os, shutil, signal, itertools
from tests.test_index import contents, described, written, assert_tidy, MADE_BY

TOUCHING = {"fsync", "write", "open", "execute", "executemany", "unlink", "truncate", "ftruncate", "rename", "flock",
            "close", "mkdir", "connect", "seek", "pwrite"}

def run_until(moment, action):
    # True where the action was killed, in a process of its own, before its call number `moment` that touches the disk
    child = os.fork()
    if not child:
        calls = itertools.count()
        def profile(frame, event, function):
            if event == "c_call" and function.__name__ in TOUCHING and next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(profile)
        action()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL

def act(work, change):
    def action():
        with written(work) as writer:
            change(writer)
    return action

base = index.path
before = contents(base)
put = dict(provenance=MADE_BY)
after_replacing = before | dict(a=8, x=9)
CHANGES = [
    (lambda w: w.add(described("xyz", 7, 8, 9), **put), before | dict(x=7, y=8, z=9)),
    (lambda w: w.add(described("ax", 8, 9), replace=True, **put), after_replacing),
    (lambda w: w.remove("bc"), {name: value for name, value in before.items() if name not in "bc"}),
    (lambda w: w.compact(), before),
]
kills = 0
for change, after in CHANGES:
    work = base.with_name("work")
    for moment in itertools.count():
        shutil.copytree(base, work)
        killed = run_until(moment, act(work, change))
        kills += killed
        found = contents(work)
        assert found in ((before, after) if killed else (after,)), (moment, found)
        with written(work) as writer:
            writer.add(described(["later"], 5), **put)
        assert contents(work) == found | {"later": 5}
        assert_tidy(work)
        shutil.rmtree(work)
        if not killed:
            break
for moment in itertools.count():
    killed = run_until(moment, lambda: Index.create(work, dim=4, provenance=MADE_BY))
    kills += killed
    assert not work.exists() or contents(work) == {}
    shutil.rmtree(work, ignore_errors=True)
    for part in base.parent.glob(".work*"):
        shutil.rmtree(part)
    if not killed:
        break
print(kills)
"""


@pytest.mark.slow
def test_a_kill_before_each_call_that_touches_the_disk_leaves_the_state_before_or_after():
    with tempfile.TemporaryDirectory(dir=RAM) as folder:
        path = Index.create(Path(folder, "an.index"), dim=4, provenance=MADE_BY).path
        add(path, "abcde")
        add(path, "de", 7, 8, replace=True)
        command = [sys.executable, "-c", HOLDER + EVERY_MOMENT, str(path)]
        root = Path(__file__).resolve().parent.parent
        run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 60


def test_each_batch_is_on_the_disk_when_it_is_acknowledged(path):
    told = []

    def hear(done, total):
        told.append((done, total, len(contents(path))))

    with mock.patch.object(writer, "BATCH", 2):
        add(path, "abcde", progress=hear)
    assert told == [(2, 5, 2), (4, 5, 4), (5, 5, 5)]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["write", "fsync"])
def test_what_fails_half_way_did_not_happen_and_the_writer_goes_on(path, where, failure):
    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else InputError
    with written(path) as one:
        one.add(described("abc"), provenance=MADE_BY)
        one.remove("a")
        before = contents(path)
        for change in (lambda: one.add(described("xy"), provenance=MADE_BY), one.compact):
            with pytest.raises(expected), mock.patch.object(os, where, side_effect=failure):
                change()
            assert contents(path) == before
        one.add(described("z"), provenance=MADE_BY)
        assert contents(path) == before | {"z": 0}
    with written(path):
        pass
    assert_tidy(path)


def test_a_failure_within_the_transaction_rolls_it_back(path):
    add(path, "ab")
    with written(path) as one:
        broken = mock.patch.object(writer, "write_state", side_effect=sqlite3.OperationalError("disk I/O error"))
        with broken, pytest.raises(InputError, match=r"index\.sqlite: cannot be used \(disk I/O error\)"):
            one.remove("a")
        with mock.patch.object(writer, "write_state", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            one.add(described("c"), provenance=MADE_BY)
        assert contents(path) == {"a": 0, "b": 1}
        one.add(described("d"), provenance=MADE_BY)
    assert contents(path) == {"a": 0, "b": 1, "d": 0}


def test_many_dead_rows_are_compacted_away(path):
    with mock.patch.object(writer, "WORTH_COMPACTING", 6), written(path) as one:
        one.add(described("abcdef"), provenance=MADE_BY)
        one.remove("abc")
        assert one.state.dead == 3
        one.remove("d")
        assert (one.state.generation, one.state.rows, one.state.dead) == (1, 2, 0)
        one.add(described("ef", 7, 8), provenance=MADE_BY, replace=True)
    assert contents(path) == {"e": 7, "f": 8}
    assert_tidy(path)


# damage


def cut(name, size=10):
    return lambda path: os.truncate(path / name, size)


def delete(name):
    return lambda path: (path / name).unlink()


def overwrite(name, data):
    return lambda path: (path / name).write_bytes(data)


def manifest(**changes):
    def change(path):
        content = json.loads((path / "manifest.json").read_text()) | changes
        (path / "manifest.json").write_text(json.dumps({k: v for k, v in content.items() if v != "gone"}))

    return change


def sql(*statements):
    def change(path):
        with contextlib.closing(sqlite3.connect(path / "index.sqlite")) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    return change


def foreign(path):
    (path / "index.sqlite").unlink()
    sql("CREATE TABLE images (row INTEGER PRIMARY KEY, id TEXT)")(path)


# a view without an end
ENDLESS = (
    "CREATE VIEW {} AS WITH RECURSIVE n(row) AS (SELECT 0 UNION ALL SELECT row + 1 FROM n) SELECT row, 'x' AS id FROM n"
)


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (cut("vectors-0.f32"), ["vectors-0.f32: 10 bytes; expected at least 32 for 2 rows of 4 numbers", "cut short"]),
        (delete("vectors-0.f32"), ["vectors-0.f32: no such file"]),
        (cut("manifest.json"), ["manifest.json: not JSON, or cut short"]),
        (cut("manifest.json", 0), ["manifest.json: not JSON, or cut short"]),
        (delete("manifest.json"), ["holds no manifest.json; expected an index that isc index create made"]),
        (overwrite("manifest.json", b"[1]"), ["its format is [1]; this version of isc reads 'isc-index-1'"]),
        (overwrite("manifest.json", b"\xff"), ["manifest.json: not JSON"]),
        (manifest(format="isc-index-9"), ["its format is 'isc-index-9'"]),
        (manifest(dim="gone"), ["manifest.json: damaged", "dim"]),
        (manifest(dim="four"), ["dim, provenance, model or created cannot be used"]),
        (manifest(provenance={"weights_sha256": 1}), ["dim, provenance, model or created cannot be used"]),
        (delete("index.sqlite"), ["index.sqlite: no such file"]),
        (overwrite("index.sqlite", b"no database" * 99), ["index.sqlite: cannot be used", "not a database"]),
        (cut("index.sqlite", 5000), ["index.sqlite: cannot be used"]),
        (foreign, ["index.sqlite: an SQLite file of something else"]),
        (sql("DROP TABLE images"), ["index.sqlite: cannot be used (no such table: images)"]),
        (sql("DELETE FROM state"), ["index.sqlite: damaged (its state is [], not one row)"]),
        (sql("UPDATE state SET live = 3"), ["index.sqlite: damaged (generation 0 with 3 live of 2 rows)"]),
        (sql("UPDATE state SET live = -1"), ["index.sqlite: damaged (generation 0 with -1 live of 2 rows)"]),
        (sql("UPDATE state SET rows = -5"), ["index.sqlite: damaged (generation 0 with 2 live of -5 rows)"]),
        (sql("UPDATE state SET generation = -1"), ["index.sqlite: damaged (generation -1"]),
        (sql("UPDATE state SET rows = 2.5"), ["index.sqlite: damaged", "2.5 rows"]),
        (sql("UPDATE state SET live = x'00'"), ["index.sqlite: damaged", "live"]),
        (sql("UPDATE state SET changed = NULL"), ["index.sqlite: damaged (changed at None)"]),
        (sql("UPDATE state SET rows = 4611686018427387904"), ["vectors-0.f32", "was cut short"]),
        (sql("DROP TABLE images", ENDLESS.format("images")), ["index.sqlite: cannot be used", "view 'images'"]),
        (sql("CREATE TRIGGER t AFTER DELETE ON images BEGIN DELETE FROM state; END"), ["the trigger 't'"]),
    ],
)
def test_damage_is_named(path, damage, parts):
    add(path, "ab")
    damage(path)
    for act in (lambda: contents(path), lambda: add(path, "c"), lambda: answers(path, 1), lambda: read_index(path)):
        with pytest.raises(InputError) as refusal:
            act()
        for part in parts:
            assert part in str(refusal.value)
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (sql("UPDATE state SET live = 1"), ["2 images in rows 0…1; expected 1 in rows 0…1"]),
        (sql("UPDATE images SET row = 7 WHERE row = 0"), ["2 images in rows 1…7; expected 2 in rows 0…1"]),
        (sql("UPDATE images SET id = ' a' WHERE row = 0"), ["id ' a' has blanks round it"]),
        (overwrite("vectors-0.f32", np.full(8, np.nan, np.float32).tobytes()), ["row 0: id 'a' has NaN or infinite"]),
    ],
)
def test_verify_names_what_reading_would_not_notice(path, damage, parts):
    add(path, "ab")
    damage(path)
    with Index.open(path).snapshot() as snapshot, pytest.raises(InputError) as refusal:
        snapshot.verify()
    for part in parts:
        assert part in str(refusal.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_a_search_among_vectors_that_are_no_numbers_names_the_index(path, value):
    add(path, "ab")
    overwrite("vectors-0.f32", np.full(8, value, np.float32).tobytes())(path)
    with pytest.raises(InputError) as refusal:
        answers(path, 1)
    assert str(refusal.value).startswith(str(path))


@pytest.mark.parametrize("row", ["'x'", "NULL", "1.5"])
def test_rows_that_are_no_numbers_are_refused(row):
    """As a damaged schema gives them."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE images (row, id)")
        database.execute(f"INSERT INTO images VALUES (0, 'a'), ({row}, 'b')")
        with pytest.raises(sqlite3.DataError, match="is no whole number"):
            storage.live_rows(database, storage.State(0, 2, 2, "now"))


@pytest.mark.parametrize(("rows", "part"), [((1, 0), "not in order"), ((0, 0), "not in order"), ((0, 9), "rows 0…9")])
def test_rows_out_of_order_are_refused(rows, part):
    """A compaction would copy the wrong vectors, or read beyond them."""
    database = mock.Mock(execute=lambda statement: [(row,) for row in rows])
    with pytest.raises(sqlite3.DataError, match=part):
        storage.live_rows(database, storage.State(0, 2, 2, "now"))


def test_a_damaged_text_in_a_message_of_sqlite_is_refused_in_one_line(path):
    with (
        pytest.raises(InputError, match=r"index\.sqlite: damaged \(.*\); restore it from a copy$"),
        storage.named(path),
    ):
        b"\xf1".decode()


@pytest.mark.parametrize("value", ["x'ff'", "CAST(x'ff' AS TEXT)"])
def test_ids_that_are_no_text_are_refused(path, value):
    add(path, "ab")
    sql(f"UPDATE images SET id = {value} WHERE row = 0")(path)
    for act in (lambda: contents(path), lambda: answers(path, 1), lambda: read_index(path)):
        with pytest.raises(InputError, match=r"index\.sqlite: .*(bytes|UTF-8)"):
            act()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("live", [3, 6])
def test_a_table_with_fewer_images_than_it_promises_is_refused_and_not_searched_for_ever(path, live):
    add(path, "abcdef")
    remove(path, *"abcd")
    sql(f"UPDATE state SET live = {live}")(path)
    with pytest.raises(InputError, match=r"index\.sqlite: damaged \(fewer than \d of its \d images"):
        answers(path, 1)
    for act in (lambda: read_index(path), lambda: compacted(path))[: 1 if live == 6 else 2]:  # 6: no row is dead
        with pytest.raises(InputError, match=rf"2 images in rows 4…5; expected {live} in rows 0…5"):
            act()
    sql("UPDATE state SET live = 2")(path)
    assert contents(path) == {"e": 4, "f": 5}


@pytest.mark.parametrize("row", [-1, 7])
def test_rows_outside_the_vectors_are_refused(path, row):
    add(path, "abc")
    remove(path, "c")
    sql(f"UPDATE images SET row = {row} WHERE id = 'a'")(path)
    for act in (lambda: read_index(path), lambda: compacted(path)):
        with pytest.raises(InputError, match=r"2 images in rows -?\d…\d; expected 2 in rows 0…2"):
            act()


def compacted(path):
    with written(path) as one:
        return one.compact()


def test_a_folder_that_may_not_be_written_to_can_be_read(path):
    add(path, "ab")

    def denied(file, options):
        if "mode=rw" in options:
            raise sqlite3.OperationalError("unable to open database file")
        return checked(file, options)

    checked = storage._checked
    with mock.patch.object(storage, "_checked", denied), mock.patch.object(os, "access", return_value=False):
        assert contents(path) == {"a": 0, "b": 1}
        (path / "index.sqlite-wal").touch()
        with pytest.raises(InputError, match="unable to open database file"):
            contents(path)


# matching against it


def test_match_against_an_index_is_match_against_the_file(place, descriptors):
    references, provenance = descriptors / "references.h5", read_provenance(descriptors / "references.h5")
    known = read_descriptors(references)
    index = Index.create(place / "known.index", dim=known.dim, provenance=provenance)
    with index.writer() as one:
        half = len(known) // 2
        for rows in (slice(half, None), slice(None, half)):
            one.add(Descriptors(known.ids[rows], known.vectors[rows]), provenance=provenance)
        one.add(Descriptors(known.ids[:3], known.vectors[:3]), provenance=provenance, replace=True)
    queries = f"queries={descriptors / 'queries.h5'}"
    place.done("match", queries, f"references={references}", "output=file", script=False)
    place.done("match", queries, "references=known.index", "output=index", script=False)
    assert (place / "file/predictions.csv").read_bytes() == (place / "index/predictions.csv").read_bytes()
    write_descriptors(place / "strange.h5", described("ab", dim=known.dim), MADE_BY)
    place.refused(
        "match",
        "queries=strange.h5",
        "references=known.index",
        "output=x",
        naming=["known.index: made with", "weights"],
    )
    (place / "folder").mkdir()
    place.refused("match", queries, "references=folder", "output=x", naming=["folder: holds no manifest.json"])
