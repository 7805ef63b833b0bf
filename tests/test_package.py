"""The wheel: everything is in it, and its commands work where there is no checkout."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import isc
from benchmarks.install import SOURCES
from isc.cli.main import COMMANDS

REPOSITORY = Path(__file__).resolve().parent.parent
COMMAND = (
    "import sys; from importlib.metadata import distribution; import isc; assert isc.__file__.startswith(sys.argv[1]); "
    "sys.argv = sys.argv[2:]; "
    "[entry] = [e for e in distribution('isc').entry_points if e.name == sys.argv[0]]; "
    "entry.load()()"
)


def data_files():
    """Every file of the package in the checkout, as a path below it."""
    return {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "isc").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the sources, so that the checkout stays as it is."""
    pytest.importorskip("build")
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(REPOSITORY / "isc", source / "isc", ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCES:
        shutil.copy(REPOSITORY / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = (source / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def command(installed, tmp_path):
    """Runs a console command of the installed wheel, far from the checkout."""

    def run(name, *arguments):
        return subprocess.run(
            [sys.executable, "-c", COMMAND, str(installed), name, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def test_the_whole_package_is_in_the_wheel_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    assert {name for name in names if ".dist-info/" not in name} == data_files()
    licences = {name.rpartition(".dist-info/")[2] for name in names if "/licenses/" in name}
    assert licences == {"licenses/LICENSE", "licenses/THIRD_PARTY.md"}


def test_what_a_user_needs_is_among_it(installed):
    for name in (
        "isc/conf/train.yaml",
        "isc/conf/extract.yaml",
        "isc/conf/match.yaml",
        "isc/conf/benchmark.yaml",
        "isc/conf/quiet.yaml",
        "isc/conf/experiment/demo.yaml",
        "isc/evaluate/report/templates/report.html",
        "isc/benchmark/edits/chain.py",
        "isc/sample/sample.csv",
        "isc/sample/S000.jpg",
    ):
        assert (installed / name).is_file(), name
    photos = {path.name for path in (installed / "isc" / "sample").glob("*.jpg")}
    listed = (installed / "isc" / "sample" / "sample.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert {line.partition(",")[0] for line in listed} == photos


def test_every_file_of_the_tree_is_installed(installed):
    files = {p.relative_to(REPOSITORY) for p in (REPOSITORY / "isc").rglob("*") if p.is_file()}
    wanted = {path.as_posix() for path in files if "__pycache__" not in path.parts}
    found = {p.relative_to(installed).as_posix() for p in (installed / "isc").rglob("*") if p.is_file()}
    assert wanted - found == set()


def test_the_commands_are_declared(installed):
    [path] = installed.glob("*.dist-info/entry_points.txt")
    config = configparser.ConfigParser()
    config.read(path, encoding="utf-8")
    assert dict(config["console_scripts"]) == {"isc": "isc.cli.main:main"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(command, tmp_path, name):
    done = command("isc", name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"isc {name}" in done.stdout
    assert command("isc", name, "--version").stdout == f"isc {isc.__version__}\n"
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_extract_and_match_work_from_the_wheel(command, installed, tmp_path):
    (tmp_path / "photos").mkdir()
    for source in sorted((installed / "isc" / "sample").glob("*.jpg"))[:8]:
        shutil.copy(source, tmp_path / "photos")
    done = command("isc", "extract", "images=photos", "output=d.h5", "model=imagenet", "image_size=64", "workers=0")
    assert done.returncode == 0, done.stderr
    (tmp_path / "gt.csv").write_text("".join(f"S00{i},S00{i}\n" for i in range(8)), encoding="utf-8")
    done = command("isc", "match", "queries=d.h5", "references=d.h5", "ground_truth=gt.csv", "output=out")
    assert done.returncode == 0, done.stderr
    assert '"average_precision": 1.0' in (tmp_path / "out" / "metrics.json").read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "d.h5", "gt.csv", "out"}


def test_a_refusal_from_the_wheel(command):
    done = command("isc", "match", "outptu=x")
    assert done.returncode == 2
    assert done.stderr == "error: unknown key 'outptu'; expected one of those that --help lists: did you mean output?\n"


def test_the_dockerfile_installs_as_make_setup_does():
    """The same two steps; the images leave out the development tools and install the package itself."""
    make, docker = ((REPOSITORY / name).read_text() for name in ("Makefile", "Dockerfile"))
    assert re.search(r"-m venv --without-pip \.venv", make)
    assert re.search(r"^INSTALL = .*-m pip --python \S+ install -c requirements\.lock$", make, re.MULTILINE)
    light, full = docker.split("FROM light AS full")
    assert "-m venv --without-pip .venv" in light
    install = r"-m pip --python \.venv/bin/python install --no-cache-dir -c requirements\.lock"
    assert re.search(rf"{install} \.$", light, re.MULTILINE)
    assert re.search(rf"{install} '\.\[gpu\]'$", full, re.MULTILINE)
    assert len(re.findall(r"/usr/local/bin/python -m pip", docker)) == docker.count("-m pip")  # that of .venv has none
    for image in (light, full):
        assert re.findall(r"^USER (.*)$", image, re.MULTILINE)[-1] == "1000"  # not root
    assert "useradd --uid 1000" in light
    copied = re.search(r"^COPY (.*) \./$", docker, re.MULTILINE)
    assert copied
    assert set(SOURCES) < set(copied[1].split())
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied[1].split()} <= set(ignored)
