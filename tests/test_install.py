"""The light installation: in a fresh environment it finds, matches and judges, and names what it lacks."""

from __future__ import annotations

import configparser
import os
import re
import sys
from unittest import mock

import pytest

from benchmarks.install import ROOT, Environment, build_wheel
from benchmarks.install_commands import EXTRAS, LIGHT, REFUSED
from isc import __version__
from isc.errors import InputError, needing

MEGABYTES = 600  # the bound of the light installation


def setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """Installed from the package index; skipped without one, except in CI."""
    folder = tmp_path_factory.mktemp("light")
    checkout = tmp_path_factory.mktemp("checkout")  # as pip finds one that was installed with -e
    (checkout / "isc.egg-info").mkdir()
    (checkout / "isc.egg-info" / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: isc\nVersion: {__version__}\n")
    try:
        with mock.patch.dict(os.environ, PYTHONPATH=str(checkout)):
            return Environment.make(folder, str(build_wheel(folder)))
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"pip cannot install here: {str(error).splitlines()[-1]}")


@pytest.fixture(scope="module")
def tried(light):
    """The light installation, after its commands."""
    light.try_out(*LIGHT)
    return light


@pytest.mark.slow
def test_the_light_installation_is_small(light):
    assert light.megabytes() < MEGABYTES
    assert not {"torch", "timm", "faiss-cpu", "faiss-gpu", "ray", "openvino", "playwright"} & light.packages().keys()


@pytest.mark.slow
def test_the_light_installation_finds_indexes_and_matches(tried):
    found = tried.run("isc find photos photos/S003.jpg --index known --format csv")
    assert found.stdout.splitlines()[1].startswith("photos/S003.jpg,photos/S003.jpg,copy,")


@pytest.mark.slow
def test_the_light_installation_names_the_extra_of_what_it_lacks(tried):
    for command, extra in REFUSED.items():
        tried.refuse(command, extra)


def test_every_extra_is_measured_and_locked():
    extras = setup_cfg()["options.extras_require"]
    assert {extra.partition(",")[0] for extra in EXTRAS} == {"", *extras}
    locked = {re.split("[=;<> ]", line)[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    for lines in (setup_cfg()["options"]["install_requires"], *extras.values()):
        for line in filter(None, lines.splitlines()):
            name = re.split(r"[\[=;<> ]", line)[0].replace("_", "-").lower()
            assert name == "isc" or name in locked, name


def test_an_absent_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(InputError, match=r"^engine=ray needs ray; pip install 'isc\[ray\]'$"),
        needing("engine=ray", extra="ray"),
    ):
        import ray  # noqa: F401
