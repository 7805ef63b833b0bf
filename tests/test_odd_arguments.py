"""Odd arguments of every command but match: one line on stderr, status 2, and nothing written."""

from __future__ import annotations

import os
import shutil
import stat

import numpy as np
import pytest

from isc.cli.main import main
from isc.data.csv_files import write_csv
from isc.data.files import make_folder, write_text
from isc.errors import InputError
from tests.conftest import SAMPLE, Workplace

LONG = "x" * 300
HYDRA = {
    "train": ("images=p", "output=o", "train.batch_size=2"),
    "extract": ("images=p", "output=o.h5"),
    "benchmark": ("images=p", "output=o"),
}
CLICK = {
    "find": ("p", "s.jpg", "-o", "o"),
    "duplicates": ("p", "-o", "o"),
    "index create": ("i",),
    "index add": ("known", "p"),
    "index sync": ("known", "p"),
    "index remove": ("known", "--from", "names.txt"),
    "index query": ("known", "s.jpg", "-o", "o.csv"),
    "index stats": ("known",),
    "index verify": ("known",),
    "index compact": ("known",),
    "index approximate": ("q.h5", "--factory", "Flat", "--training", "q.h5", "--output", "o"),
    "calibrate": ("--run", "run", "--ground-truth", "g.csv", "--output", "o.json"),
    "fusion fit": (
        "--queries", "q.h5", "--references", "q.h5", "--query-images", "p", "--reference-images", "p",
        "--ground-truth", "g.csv", "--output", "o.json",
    ),
    "normalize search": (
        "--queries", "q.h5", "--references", "q.h5", "--training", "t.h5", "--ground-truth", "g.csv",
        "--output", "o.json",
    ),
    "export": ("isc_small", "o.onnx", "--images", "p"),
}  # fmt: skip
PATHS = ("p", "s.jpg", "q.h5", "t.h5", "g.csv", "run", "known", "names.txt", "o", "o.csv", "o.json", "o.onnx", "i")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Photos, descriptors, a ground truth, a run and an index, which no refused command changes."""
    place = Workplace(tmp_path_factory.mktemp("odd"))
    (place / "p").mkdir()
    for number in range(12):
        shutil.copy(SAMPLE / f"S{number:03}.jpg", place / "p")
    shutil.copy(SAMPLE / "S001.jpg", place / "s.jpg")
    place.hdf5("q.h5", vectors=np.eye(4, 8, dtype=np.float32), image_names=["a", "b", "c", "d"])
    place.hdf5("t.h5", vectors=np.eye(8, dtype=np.float32)[4:], image_names=["e", "f", "g", "h"])
    place.text("g.csv", "query_id,reference_id\na,b\n")
    os.mkfifo(place / PIPE)
    place.text("names.txt", "S000.jpg\n")
    place.done("match", "queries=q.h5", "references=q.h5", "output=run", script=False)
    assert place.called(main, "index", "create", "known")[0] == 0
    assert place.called(main, "index", "add", "known", "s.jpg")[0] == 0
    return place


def refused(place: Workplace, command: str, *arguments: str) -> str:
    """The one line of a refusal by a command that leaves every file as it was."""
    before = place.contents()
    if command in HYDRA:
        done = place.run(command, *arguments, script=False)
        status, said = done.status, done.err
    else:
        status, _, said = place.called(main, *command.split(), *arguments)
    assert status == 2, said
    lines = said.splitlines()
    assert lines[-1].startswith("error: ")
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert place.contents() == before
    return lines[-1]


@pytest.mark.parametrize(
    ("odd", "part"),
    [
        (("experiment=null",), "experiment=null: is no experiment"),
        (("+experiment=",), "+experiment=: is no experiment"),
        (("hydra=null",), "hydra=null: this command needs its own settings"),
        (("hydra/job_logging=null",), "hydra/job_logging=null: this command needs"),
        (("~output",), "~output: a key cannot be taken away"),
        (("--resolve",), "--resolve: goes with --cfg job alone"),
        (("--cfg",), "--cfg: has no value; expected --cfg job|hydra|all"),
        (("--config-name",), "--config-name: has no value"),
        (("hydra.searchpath=7",), "hydra.searchpath"),
        (("hydra/launcher=nosuch_slurm",), "no such launcher is installed; pip install hydra-nosuch-launcher"),
        (("nonsense\x1b[31m=1",), r"nonsense\x1b[31m"),
        (("images=/dev/zero",), "/dev/zero"),
        (("images=" + LONG,), "xxxx"),
        (("images=",), "images"),
        (("images=p\x1b[31m",), r"p\x1b[31m"),
        (("output=" + LONG,), "255 bytes"),
        (("output=/dev/null/o",), "/dev/null"),
    ],
)
@pytest.mark.parametrize("verb", HYDRA)
def test_odd_arguments_of_the_verbs_are_refused_in_one_line(scene, verb, odd, part):
    keys = {one.partition("=")[0] for one in odd}
    given = [one for one in HYDRA[verb] if one.partition("=")[0] not in keys]
    assert part in refused(scene, verb, *given, *odd)


@pytest.mark.parametrize(
    ("verb", "odd"),
    [
        ("train", "pairs=/dev/zero"),
        ("train", f"pairs={LONG}"),
        ("train", "validation=/dev/zero"),
        ("train", f"validation={LONG}"),
        ("train", "model.weights=/dev/zero"),
        ("train", f"model.weights={LONG}.safetensors"),
        ("train", "model.image_size=20000"),
        ("train", "train.stages=[{share: null}]"),
        ("train", "train.stages=7"),
        ("train", "train.steps=1e99"),
        ("extract", "model=/dev/zero"),
        ("extract", f"model={LONG}.onnx"),
        ("extract", "image_size=1e99"),
        ("extract", "views=" + "[" * 50),
        ("extract", "views=crop:1e999"),
        ("benchmark", f"preset={LONG}"),
        ("benchmark", "queries=1e99"),
        ("benchmark", "seed=-1"),
        ("benchmark", "max_side=null"),
    ],
)
def test_odd_values_of_other_keys_are_refused_by_the_key(scene, verb, odd):
    key = odd.partition("=")[0]
    said = refused(scene, verb, *HYDRA[verb], odd)
    assert key.rpartition(".")[2] in said or odd.partition("=")[2][:20] in said


WRITTEN = ("o", "o.csv", "o.json", "o.onnx", "i")  # what need not be there
ODD = (LONG, f"a/{LONG}/b", "s.jpg/x", "/dev/zero", "absent\x1b[31m")
PIPE = "pipe"  # never a device of this machine where a command may write: a test that fails would replace it


def odd_paths():
    """Yield (command, place, odd path) for each path among the arguments."""
    for name, given in CLICK.items():
        for at, one in enumerate(given):
            if one in WRITTEN or one == "known":
                yield from ((name, at, odd) for odd in (*ODD[:3], PIPE))
            elif one in PATHS:
                yield from ((name, at, odd) for odd in ODD)


@pytest.mark.parametrize(("command", "place_of", "odd"), list(odd_paths()))
def test_odd_paths_of_the_other_commands_are_refused_by_the_path(scene, command, place_of, odd):
    given = list(CLICK[command])
    given[place_of] = odd
    said = refused(scene, command, *given)
    assert odd[:5].replace("\x1b", r"\x1b") in said
    assert stat.S_ISFIFO((scene / PIPE).stat().st_mode)


@pytest.mark.parametrize("command", CLICK)
def test_odd_options_of_the_other_commands_are_refused(scene, command):
    assert r"--none\x1b[31m" in refused(scene, command, *CLICK[command], "--none\x1b[31m=1")


@pytest.mark.parametrize("write", [write_text, lambda path, text: write_csv(path, ("a",), [(text,)])])
def test_a_pipe_is_not_replaced_by_a_file(tmp_path, write):
    """An administrator would lose /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: is a device, pipe or socket; expected a path of a file"):
        write(tmp_path / "pipe", "x")
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_folder_is_made_with_its_parents_or_none_of_them(tmp_path):
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    with pytest.raises(OSError, match="name too long"):
        make_folder(tmp_path / "a" / "d" / LONG)
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["a", "b", "c"]
