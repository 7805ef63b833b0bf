"""A short run of the fuzzer; `make fuzz` runs it for minutes."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from benchmarks.fuzz_kept import KEPT
from benchmarks.fuzz_kinds import Kind

OTHERS = ("command line: verbs", "command line: isc", "index: tables", "model: tensors")  # may be refused when sound
QUICK = ("CSV: predictions", "CSV: ground truth", "tar", "picture")


@pytest.mark.parametrize("name", fuzz.KINDS)
def test_sound_files_are_read(name):
    """Else the fuzzer would only find refusals."""
    found = [fuzz.outcome(name, data) for data in fuzz.sound(name)]
    assert set(found) <= ({fuzz.READ, fuzz.REFUSED} if name in OTHERS else {fuzz.READ})


@pytest.mark.parametrize("name", [name for name, kind in fuzz.KINDS.items() if kind.odd is not tuple])
def test_odd_files_are_read_or_refused_in_one_line(name):
    """Chains and maps of tars, HDF5 with numbers elsewhere, planar TIFFs, nested JSON: also of these there are some."""
    found = [fuzz.outcome(name, data) for data in fuzz.odd(name)]
    assert len(found) >= 6
    assert set(found) <= {fuzz.READ, fuzz.REFUSED}
    if name != "picture":
        assert fuzz.REFUSED in found


@pytest.mark.parametrize(("name", "number", "was"), KEPT)
def test_what_failed_once_is_read_or_refused(name, number, was):
    assert fuzz.outcome(name, fuzz.case(name, number)) in (fuzz.READ, fuzz.REFUSED), was


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz.KINDS)
def test_changed_files_are_read_or_refused_in_one_line(name):
    examples = 25 if name in QUICK else 5

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(number=st.integers(100, 1 << 30))
    def check(number):
        assert fuzz.outcome(name, fuzz.case(name, number)) in (fuzz.READ, fuzz.REFUSED)

    check()


def test_a_case_is_made_from_its_number_alone():
    for name in ("tar", "picture", "JSON: fusion"):
        assert fuzz.case(name, 1234) == fuzz.case(name, 1234)
        assert fuzz.case(name, 1234) != fuzz.case(name, 1235)


def test_a_timed_run_has_cases_of_every_class(monkeypatch):
    monkeypatch.setattr(fuzz, "LEAST", 3)
    rows, failures = fuzz.run(["CSV: ground truth", "JSON: chain"], minutes=0)
    given = {name: len(fuzz.sound(name) + fuzz.odd(name)) for name in ("CSV: ground truth", "JSON: chain")}
    assert [(row["input"], row["cases"] - given[row["input"]]) for row in rows] == [(name, 3) for name in given]
    assert failures == []


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
