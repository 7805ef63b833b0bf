"""Option texts: what the chains of normalisation, the views and an index's search parameters have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isc.data.option_texts import nearest_name, split_options, split_steps
from isc.errors import InputError

NAMES = st.text("abcxyz_", min_size=1, max_size=5)
VALUES = st.text("abc0123456789.-:=", max_size=6)


@given(st.lists(st.tuples(NAMES, st.none() | VALUES), min_size=1, max_size=5))
def test_steps_come_back_as_they_were_joined(steps):
    text = "+".join(name if rest is None else f"{name}:{rest}" for name, rest in steps)
    assert split_steps(text, {name for name, _ in steps}, expected="") == steps


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=5))
def test_options_come_back_as_they_were_joined(options):
    text = ",".join(f"{name}={value}" for name, value in options.items())
    assert split_options(text) == split_options(text, options) == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dim", r"^dim: expected each option once, as dim=VALUE$"),
        ("dim=1,dim=2", r"^dim=2: expected each option once, as dim=VALUE$"),
        ("dmi=1", r"^dmi=1: unknown option 'dmi'; expected dim, ridge: did you mean dim\?$"),
        ("dim=1,", r"^: unknown option ''; expected dim, ridge$"),
    ],
)
def test_options_that_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        split_options(text, ["dim", "ridge"])


def test_steps_that_are_refused():
    with pytest.raises(InputError, match=r"^unknown step 'flop'; expected one of these: did you mean flip\?$"):
        split_steps("crop:0.5+flop", ["flip", "crop"], expected="one of these")


def test_nothing_is_proposed_for_what_is_like_no_name():
    assert nearest_name("zzz", ["flip", "crop"]) == ""
