"""A short run of the fuzzer; `make fuzz` runs it for minutes."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from benchmarks.fuzz_kinds import Kind

SLOW = ("command line", "model: header", "index: tables", "HDF5: descriptors", "HDF5: submission")


@pytest.mark.parametrize("name", fuzz.KINDS)
def test_sound_files_are_read(name):
    """Else the fuzzer would only find refusals; the third HDF5 file is one whose numbers are elsewhere."""
    found = [fuzz.outcome(name, data) for data in fuzz.sound(name)]
    if name in ("command line", "index: tables"):
        assert set(found) <= {fuzz.READ, fuzz.REFUSED}
    elif name == "HDF5: descriptors":
        assert found == [fuzz.READ, fuzz.READ, fuzz.REFUSED]
    else:
        assert set(found) == {fuzz.READ}


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz.KINDS)
def test_changed_files_are_read_or_refused_in_one_line(name):
    examples = 5 if name in SLOW else 25

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(number=st.integers(100, 1 << 30))
    def check(number):
        assert fuzz.outcome(name, fuzz.case(name, number)) in (fuzz.READ, fuzz.REFUSED)

    check()


def test_a_case_is_made_from_its_number_alone():
    for name in ("tar", "picture", "JSON: fusion"):
        assert fuzz.case(name, 1234) == fuzz.case(name, 1234)
        assert fuzz.case(name, 1234) != fuzz.case(name, 1235)


def test_what_goes_wrong_is_a_failure(monkeypatch):
    kind = fuzz.KINDS["tar"]
    for read, part in (
        (lambda path: 1 / 0, "ZeroDivisionError"),
        (lambda path: bytearray(1 << 34), "MemoryError"),
        (lambda path: Path("/nowhere").stat(), "FileNotFoundError"),
    ):
        broken = Kind(kind.sound, read, kind.suffix, kind.change)
        monkeypatch.setitem(fuzz.KINDS, "tar", broken)
        assert part in fuzz.outcome("tar", b"")
