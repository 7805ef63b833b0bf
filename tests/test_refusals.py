"""Command lines that ended in tracebacks: one line on stderr, status 2, and nothing written."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from isc.cli.console import PlainFormatter, printable
from isc.data.hdf5 import read_descriptors
from isc.runtime.pool import sharing
from tests.conftest import REPOSITORY

LONG = "x" * 300


@pytest.fixture
def sets(place):
    vectors = np.eye(4, 8, dtype=np.float32)
    place.hdf5("q.h5", vectors=vectors, image_names=["a", "b", "c", "d"])
    return place


def refused(place, verb: str, *arguments: str) -> str:
    before = place.contents()
    done = place.run(verb, *arguments, script=False)
    assert done.status == 2, done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    assert place.contents() == before
    return done.err


BOTH = ("queries=q.h5", "references=q.h5")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((*BOTH, "output=o", "experiment=null"), "experiment=null: is no experiment"),
        ((*BOTH, "output=o", "+experiment="), "+experiment=: is no experiment"),
        ((*BOTH, "output=o", "hydra=null"), "hydra=null: this command needs its own settings"),
        ((*BOTH, "output=o", "hydra/job_logging=null"), "hydra/job_logging=null: this command needs"),
        ((*BOTH, "output=o", "~output"), "~output: a key cannot be taken away; leave output out"),
        ((*BOTH, "output=o", "--resolve"), "--resolve: goes with --cfg job alone"),
        ((*BOTH, "output=o", "--cfg"), "--cfg: has no value; expected --cfg job|hydra|all"),
        (("--cfg", *BOTH, "output=o"), "--cfg queries=q.h5: expected one of job, hydra, all"),
        ((*BOTH, "output=o", "--cfg", "--multirun"), "--cfg: has no value; expected --cfg job|hydra|all"),
        ((*BOTH, "output=o", "--cfg=jobs"), "--cfg jobs: expected one of job, hydra, all"),
        ((*BOTH, "output=o", "--config-name"), "--config-name: has no value; expected --config-name VALUE"),
        ((*BOTH, "output=o", "--cfg", "job", "--resolve="), "--resolve=: takes no value; expected --resolve"),
        ((*BOTH, "output=o", "hydra.searchpath=7"), "hydra.searchpath"),
        ((*BOTH, "output=o", "calibration=/dev/zero"), "/dev/zero: is no regular file"),
        ((*BOTH, "output=o", "ground_truth=/dev/zero"), "/dev/zero: is a device"),
        (("submission=/dev/zero", "ground_truth=/dev/zero", "output=o"), "/dev/zero: is a device"),
        ((*BOTH, "output=o", "edits=/dev/zero"), "/dev/zero: cannot be read"),
        ((*BOTH, "output=o", "compare=/dev/zero", "ground_truth=g.csv"), "g.csv"),
        ((*BOTH, "output=" + LONG), "at most 255 bytes"),
        (("queries=" + LONG, "references=q.h5", "output=o"), "255 bytes"),
        (("queries=q.h5", f"references=a/{LONG}/b.h5", "output=o"), "no such file"),
        ((*BOTH, "output=o", f"ground_truth={LONG}"), "File name too long"),
        ((*BOTH, "output=o", f"calibration={LONG}"), "ile name too long"),
        ((*BOTH, "output=o", f"training={LONG}", "normalize=score"), "255 bytes"),
        ((*BOTH, "output=o", f"edits={LONG}"), "ile name too long"),
        ((f"submission={LONG}", "ground_truth=g.csv", "output=o"), "ile name too long"),
    ],
)
def test_odd_arguments_of_match_are_refused_in_one_line(sets, arguments, part):
    assert part in refused(sets, "match", *arguments)


@pytest.mark.parametrize("key", ["images", "output", "model"])
def test_long_paths_of_extract_are_refused(place, key):
    given = {"images": "photos", "output": "o.h5", "model": "isc_small"} | {key: f"{LONG}.onnx"}
    (place / "photos").mkdir()
    assert refused(place, "extract", *(f"{name}={value}" for name, value in given.items()))


def test_control_characters_of_a_name_are_written_out(sets):
    said = refused(sets, "match", "queries=\x1b[31mred\x1b]0;title\x07.h5", "references=q.h5", "output=o")
    assert "\x1b" not in said
    assert r"\x1b[31mred\x1b]0;title\x07.h5" in said


def test_what_is_printable_stays_as_it_is():
    assert printable("é 写真 🙂\n-") == "é 写真 🙂\n-"
    assert printable("a\x1b\x9b\u202eb\udcff") == r"a\x1b\x9b\u202eb\udcff"
    record = logging.LogRecord("isc", logging.WARNING, "", 0, "left out: %s", ("\x1b[2J",), None)
    assert PlainFormatter("%(message)s").format(record) == r"left out: \x1b[2J"


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/full/file"), "/full/file: No space left on device"),
        (MemoryError("of 9 GB"), "out of memory (of 9 GB)"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_errors_of_the_system_are_one_line(sets, error, part):
    with mock.patch("isc.match.run.read_inputs", side_effect=error):
        assert part in refused(sets, "match", *BOTH, "output=o")


def test_a_program_may_catch_bad_input_as_a_value_error(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_descriptors(tmp_path / "absent.h5")


def test_a_reader_that_goes_away_ends_a_verb_without_a_word():
    """As in `python match.py --info | head -1`."""
    command = [sys.executable, str(REPOSITORY / "match.py"), "--info"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        told = running.stderr.read()
    assert (running.returncode, told) == (1, b"")


# --- full disks ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk, and not everywhere")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, leaving: int) -> Path:
    """Fill the disk up to so many free bytes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filling").write_bytes(b"x" * max(0, free - leaving))
    return disk / "filling"


@pytest.mark.parametrize("leaving", [0, 8192, 60_000, 300_000])
def test_match_on_a_full_disk_writes_all_or_nothing(place, small_disk, leaving):
    place.hdf5("q.h5", vectors=np.eye(64, 256, dtype=np.float32), image_names=[f"{row:03}" for row in range(64)])
    output = small_disk / "out"
    filling = fill(small_disk, leaving)
    done = place.run("match", *BOTH, f"output={output}", script=False)
    assert (done.status, output.exists()) in ((2, False), (0, True))
    assert "Traceback" not in done.err
    if leaving == 0:
        assert done.status == 2
    assert [one.name for one in small_disk.iterdir() if one not in (output, filling)] == []
    filling.unlink()
    assert place.run("match", *BOTH, f"output={output}", script=False).status == 0
    assert len(read_descriptors(output / "submission.h5")) == 64


CRASHING = """
import sys
from pathlib import Path
import h5py
import numpy as np
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import read_descriptors, write_descriptors
from isc.errors import InputError

full, room = Path(sys.argv[1]), Path(sys.argv[2])
rows = Descriptors([f"{row:03}" for row in range(64)], np.eye(64, 256, dtype=np.float32))
for number in range(4):
    try:
        write_descriptors(full / f"{number}.h5", rows, {"model": "m"})
    except InputError as error:
        print(error)
for number in range(8):  # the library closes what it still holds with one of the next files
    with h5py.File(room / f"{number}.h5", "w") as file:
        made = file.create_dataset("vectors", (3, 4), np.float32, chunks=(1, 4))
        made[0], made[2] = 1, 2
write_descriptors(room / "sound.h5", rows, {"model": "m"})
assert (read_descriptors(room / "sound.h5").vectors == rows.vectors).all()
"""


@pytest.mark.parametrize("leaving", [0, 4096, 20_000, 60_000])
def test_a_file_that_a_full_disk_cut_short_harms_no_other(small_disk, tmp_path, leaving):
    """HDF5 held on to it, and crashed with one of the next files of the process."""
    filling = fill(small_disk, leaving)
    command = [sys.executable, "-c", CRASHING, str(small_disk), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("No space left on device") == 4
    assert list(small_disk.iterdir()) == [filling]


def test_an_index_on_a_full_disk_can_be_made_smaller(small_disk):
    """`remove` and `compact` are what one turns to when a disk is full."""
    from isc.data.descriptors import Descriptors
    from isc.errors import InputError
    from isc.search.index import writer
    from isc.search.index.index import Index

    names = [f"{row:04}" for row in range(1200)]
    index = Index.create(small_disk / "i", dim=64, provenance={})
    with index.writer() as one:
        one.add(Descriptors(names, np.ones((1200, 64), np.float32)), provenance={})
    for leaving in (0, 4096, 40_000, 200_000):
        filling = fill(small_disk, leaving)
        for act in (lambda one: one.remove(names[:700]), lambda one: one.compact()):
            message = ""
            try:
                with index.writer() as one:
                    act(one)
            except InputError as error:
                message = str(error)
            assert not message or "No space" in message or "full" in message
        filling.unlink()
        with index.snapshot() as now:
            now.verify()
            held = now.descriptors().ids.tolist()
        assert held in (names, names[700:]), leaving
        if held != names:
            with index.writer() as one:
                one.compact()
                assert one.state.dead == 0
                one.add(Descriptors(names[:700], np.ones((700, 64), np.float32)), provenance={})
    assert writer.WORTH_COMPACTING < 1200


# --- workers of a killed process -------------------------------------------------------------------------------------


def sleep_long(item):
    time.sleep(60)
    return item


def lead():
    """Share long work among three workers."""
    with sharing(sleep_long, workers=3) as share:
        list(share(range(3)))


def test_workers_end_with_a_killed_leader_in_the_middle_of_their_work():
    """They lived on until their item was done and the pipe was found closed.

    The leader is no fork of this process, in which OpenCV may have threads: they would hang there.
    """
    code = "from tests.test_refusals import lead; lead()"
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY) as leader:
        deadline = time.monotonic() + 60
        while len(children := children_of(leader.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        leader.kill()
    assert len(children) == 3
    while any(alive(one) for one in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(one) for one in children)


def children_of(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_process_that_describes_query_views_ends_with_match():
    code = (
        "import os, subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', "
        "f'from isc.runtime.parent import end_with; end_with({os.getpid()}); print(1, flush=True); "
        "import time; time.sleep(60)'], stdout=subprocess.PIPE); "
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as leader:
        child = int(leader.stdout.readline())
        assert alive(child)
        leader.kill()
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)
