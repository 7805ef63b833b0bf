"""Our signal type in the package that hasher-matcher-actioner uses, from PyPI: hashing, matching, its own commands."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "threatexchange", reason="needs threatexchange (pip install isc[threatexchange]), which compiles pdqhash"
)

from threatexchange.extensions.manifest import ThreatExchangeExtensionManifest

from isc.find.model import load
from isc.serve.threatexchange_signal import IscCopySignal, IscIndex, threshold, to_vector
from tests.serving import PHOTOS, edited

HASHES = {}


def _signal(at):
    if at not in HASHES:
        HASHES[at] = IscCopySignal.hash_from_file(PHOTOS[at])
    return HASHES[at]


def test_the_extension_is_found_by_its_manifest():
    manifest = ThreatExchangeExtensionManifest.load_from_module_name("isc.serve.threatexchange_signal")
    assert [one.get_name() for one in manifest.signal_types] == ["isc_copy"]


def test_a_signal_is_the_descriptor_of_the_model():
    vector = to_vector(_signal(0))
    assert np.abs(vector - load().embed([PHOTOS[0]])[0]).max() < 1e-3
    assert IscCopySignal.validate_signal_str(f" {_signal(0).upper()} ") == _signal(0)


def test_copies_match_and_other_photos_do_not():
    copy = IscCopySignal.hash_from_bytes(edited(PHOTOS[0], crop=0.1, mirror=False))
    assert IscCopySignal.compare_hash(_signal(0), copy).match
    others = [IscCopySignal.compare_hash(_signal(at), copy).match for at in range(1, 12)]
    assert sum(others) <= 1


def test_an_index_finds_what_comparing_each_pair_finds_and_survives_its_file():
    index = IscIndex.build([(_signal(at), at) for at in range(12)] + [(_signal(0), "again")])
    file = io.BytesIO()
    index.serialize(file)
    file.seek(0)
    read = IscIndex.deserialize(file)
    query = IscCopySignal.hash_from_bytes(edited(PHOTOS[0], crop=0.1, mirror=False))
    slow = {at for at in range(12) if IscCopySignal.compare_hash(_signal(at), query).match}
    for one in (index, read):
        found = one.query(query)
        assert {match.metadata for match in found} == slow | {"again"}
        distances = [match.similarity_info.distance for match in found]
        assert distances == sorted(distances)
        assert distances[-1] <= threshold(to_vector(query))


@pytest.mark.parametrize("text", ["", "xyz", "0" * 1023, "g" * 1024, "00fc" * 256])
def test_another_text_is_no_signal(text):
    with pytest.raises(ValueError, match="signal"):
        IscCopySignal.validate_signal_str(text)


def test_a_file_that_is_no_picture_has_an_empty_signal():
    assert IscCopySignal.hash_from_bytes(b"no picture") == ""


@pytest.mark.slow
def test_the_packages_own_commands_use_it(tmp_path):
    def threatexchange(*arguments):
        command = [sys.executable, "-m", "threatexchange.cli.main", *arguments]
        environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    threatexchange("config", "extensions", "add", "isc.serve.threatexchange_signal")
    said = threatexchange("hash", "--signal-type", "isc_copy", "photo", str(PHOTOS[0]))
    assert said.split()[-1] == _signal(0)
