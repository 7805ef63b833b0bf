"""The run for a machine with a GPU, rehearsed here: the same steps on a CPU, in small, and what travels there."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from benchmarks.gpu import checks
from benchmarks.gpu import pack as packing
from benchmarks.gpu.__main__ import LIMITS, NAMES, main
from benchmarks.gpu.predictions import predicted
from benchmarks.gpu.rows import SMALL, Row, table, write
from isc.config.choices import Engine
from isc.errors import InputError
from tests.conftest import REPOSITORY

# not on that machine, and not in the pack
ABSENT = (
    "hydra",
    "omegaconf",
    "faiss",
    "onnx",
    "onnxruntime",
    "openvino",
    "tensorboard",
    "click",
    "rich",
    "jinja2",
    "ray",
)
WITHOUT = f"""
import runpy, sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *given):
        return None if name.partition(".")[0] in {ABSENT!r} else self.finder.find_spec(name, *given)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
sys.argv = ["benchmarks.gpu", *sys.argv[1:]]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


@pytest.mark.slow
def test_every_step_runs_on_a_cpu_without_what_that_machine_lacks(tmp_path):
    """Among them the processes, the group and the queue of two that share their norms."""
    command = [sys.executable, "-c", WITHOUT, "step", *NAMES, "--device", "cpu", "--small", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = {}
    for name in NAMES:
        found = json.loads((tmp_path / f"{name}.json").read_text())
        assert found["problem"] == ""
        assert found["rows"]
        answers |= {f"{name}: {row['what']}": row["right"] for row in found["rows"]}
        assert all(row["measured"] > 0 for row in found["rows"])
    assert False not in answers.values(), answers
    assert sum(value is True for value in answers.values()) >= 6
    assert answers["norms: norms of two processes"] is True
    lines = table(tmp_path, list(NAMES)).splitlines()
    assert len(lines) == 2 + len(answers)


def test_the_checks_of_a_gpu_see_what_is_wrong(monkeypatch, tmp_path):
    """Another order of equal distances, and descriptors that are turned a little."""
    monkeypatch.setattr(checks, "PHOTOS", 4)
    assert all(row.right for row in checks.checks("cpu", SMALL, tmp_path))
    find, embed = checks.best_pairs, checks.described
    spoilt = {"query": lambda found: found.query[::-1], "score": lambda found: np.nextafter(found.score, 0)}
    for name, change in spoilt.items():
        monkeypatch.setattr(
            checks, "best_pairs",
            lambda *given, name=name, change=change, **options: (
                find(*given, **options) if options["engine"] is Engine.numpy
                else dataclasses.replace(found := find(*given, **options), **{name: change(found)})
            ),
        )  # fmt: skip
        assert not checks.equal_search(Engine.torch)
    monkeypatch.setattr(checks, "equal_search", lambda _: True)
    monkeypatch.setattr(checks, "described", lambda *given, **options: embed(*given, **options)[:, ::-1])
    monkeypatch.setattr(checks, "described_from_jpegs", embed)
    assert [row.what for row in checks.checks("cpu", SMALL, tmp_path) if not row.right] == [
        "isc_small, gpu_jpeg=true: least cosine"
    ]


def test_the_time_limits_are_ten_minutes():
    assert sum(LIMITS.values()) == 600


def test_a_step_that_fails_or_hangs_is_in_the_table_and_the_others_too(tmp_path, monkeypatch, capsys):
    """Steps that end well, with an error, and not in time, as their processes would."""

    def ended(command, timeout, **_):
        name = command[command.index("step") + 1]
        assert timeout == LIMITS[name]
        if name == "maxima":
            raise subprocess.TimeoutExpired(command, timeout)
        if name == "product":
            write(tmp_path, name, [Row("a rate", 80, "photos/s")], seconds=1)
        status = 0 if name == "product" else 1
        return subprocess.CompletedProcess(command, status, "", "Traceback …\nRuntimeError: a | b\n")

    monkeypatch.setattr("benchmarks.gpu.__main__.subprocess.run", ended)
    monkeypatch.setattr(sys, "argv", ["gpu", "run", "product", "maxima", "norms", "--output", str(tmp_path)])
    main()
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "| product | a rate | 80 photos/s | – | – | – |",
        "| maxima | **not finished within 40 s** | | | | |",
        "| norms | **RuntimeError: a / b** | | | | |",
    ]


def test_ratios_and_the_table_by_hand(tmp_path):
    rows = [
        Row("a rate", 80, "photos/s", 100, "loader", True),
        Row("a time", 2.0, "s", 1.0, "products alone", False),
        Row("alone", 5000, "photos/s"),
    ]
    assert [row.ratio for row in rows] == [0.8, 0.5, None]
    write(tmp_path, "one", rows, seconds=1)
    assert table(tmp_path, ["one", "two"]).splitlines()[2:] == [
        "| one | a rate | 80 photos/s | 100 photos/s (loader) | 0.80 | yes |",
        "| one | a time | 2 s | 1 s (products alone) | 0.50 | **no** |",
        "| one | alone | 5,000 photos/s | – | – | – |",
        "| two | not run | | | | |",
    ]


@pytest.mark.slow
def test_what_travels_runs_where_it_is_unpacked(tmp_path):
    archive = tmp_path / "gpu.tar.gz"
    assert packing.pack(archive, wheels=()) == archive.stat().st_size < packing.MOST
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    there = tmp_path / "isc-gpu"
    assert os.access(there / "run.sh", os.X_OK)
    command = [sys.executable, "-m", "benchmarks.gpu", "step", "jpeg", "--device", "cpu", "--small", "--output", "out"]
    own = os.environ | {"PYTHONPATH": str(there)}
    subprocess.run(command, cwd=there, capture_output=True, timeout=500, check=True, env=own)
    assert json.loads((there / "out" / "jpeg.json").read_text())["rows"]


@pytest.mark.slow
def test_the_whole_pack_is_small_and_made_for_its_python(tmp_path):
    """Every wheel, for Python 3.12; a bare one imports those that need no numpy, from where run.sh puts them."""
    archive = tmp_path / "gpu.tar.gz"
    try:
        size = packing.pack(archive)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no wheels without a network: {error}")
    assert size == archive.stat().st_size < packing.MOST
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    there = tmp_path / "isc-gpu"
    wheels = [path.name for path in there.glob("wheels/*.whl")]
    assert {name.split("-")[0].lower().replace("_", "-") for name in wheels} == set(packing.WHEELS)
    for name in wheels:
        python, abi, platform = name.removesuffix(".whl").split("-")[-3:]
        assert "cp312" in python or abi in ("abi3", "none"), name
        assert platform == "any" or "x86_64" in platform, name
    python = shutil.which("python3.12")
    if python is None or subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("the wheels are there, and no Python 3.12 is here to import them")
    script = there / "run.sh"
    own = next(line for line in script.read_text().splitlines() if line.startswith("PYTHONPATH="))
    names = ("pydantic", "pydantic_core", "stringzilla", "simsimd", "lazy_loader", "threadpoolctl", "tqdm", "packaging")
    places = "; ".join(f"import {name}; print({name}.__file__)" for name in names)
    lines = [line.replace("python3", python) for line in script.read_text().splitlines() if line.startswith("for ")]
    path = own.split()[0]
    command = "\n".join([f"cd {there}", *lines, f"{path} {python} -c '{places}; import isc; print(isc.__file__)'"])
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    *packed, source = done.stdout.split()
    assert all(place.startswith(str(there / "packages")) for place in packed), packed
    assert source == str(there / "isc" / "__init__.py")


def test_too_much_to_travel_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "MOST", 1000)
    with pytest.raises(InputError, match=r"gpu\.tar\.gz: would have \d+ MB; expected at most 0 MB"):
        packing.pack(tmp_path / "gpu.tar.gz", wheels=())
    assert not (tmp_path / "gpu.tar.gz").exists()


@pytest.mark.slow
def test_the_page_holds_the_predictions_and_calls_them_so():
    page = (REPOSITORY / "docs" / "gpu.md").read_text()
    assert predicted() in page
    assert "measured" not in predicted()
    cells = [cell for line in predicted().splitlines()[2:] for cell in line.split("|")[2:4]]
    assert cells
    assert all(cell.strip().startswith("predicted: ") for cell in cells)
