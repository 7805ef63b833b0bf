"""The parts of match.py's keys: each knows its own keys only, and cannot be built wrong."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from isc.config.choices import Engine
from isc.config.match import InputOptions, MatchConfig, SearchOptions, VerifyOptions
from isc.errors import InputError

PARTS = (InputOptions, SearchOptions, VerifyOptions)
GIVEN = {"output": "out", "queries": "q.h5", "references": "r.h5"}
JUDGED = {"output": "out", "submission": "s.h5", "ground_truth": "gt.csv"}


def test_each_key_belongs_to_one_part_at_most():
    names = [one.name for part in PARTS for one in fields(part)]
    assert len(names) == len(set(names))
    assert set(names) < {one.name for one in fields(MatchConfig)}


def test_a_part_has_the_values_of_the_configuration_and_keeps_them():
    config = MatchConfig(**GIVEN, k=3, engine=Engine.ray, actors=2, candidates=7, strict=False)
    for part in PARTS:
        options = part.of(config)
        assert vars(options) == {one.name: getattr(config, one.name) for one in fields(part)}
        with pytest.raises(FrozenInstanceError):
            setattr(options, fields(part)[0].name, None)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (SearchOptions, {"k": 0}, "k=0: expected a finite number, at least 1"),
        (SearchOptions, {"k": 1, "num_pairs": 2}, "num_pairs=2 and k=1 exclude each other"),
        (SearchOptions, {"memory_gb": 0}, "memory_gb=0: expected a size above 0"),
        (SearchOptions, {"address": "auto"}, "address=auto: expected engine=ray beside it"),
        (SearchOptions, {"engine": Engine.ray, "index": "HNSW32"}, "engine=ray compares all pairs"),
        (SearchOptions, {"index_search": "nprobe=2"}, "index_search=nprobe=2 goes with index="),
        (VerifyOptions, {"candidates": 0}, "candidates=0: expected a finite number, at least 1"),
        (VerifyOptions, {"workers": 0}, "workers=0: expected a finite number, at least 1"),
        (VerifyOptions, {"query_views": "sideways"}, "sideways"),
        (VerifyOptions, {"second_views": "sideways"}, "sideways"),
        (VerifyOptions, {"second_views": "tiles:2+regions:1"}, r"second_views=tiles:2\+regions:1: has regions"),
        (InputOptions, {"references": None}, "references=FILE.h5 missing"),
        (InputOptions, {"normalize": "whiten"}, "normalize=whiten needs training=T.h5"),
        (InputOptions, {"submission": "s.h5"}, "queries= and references= go, both"),
        (InputOptions, {"max_predictions": 0}, "max_predictions=0: expected a finite number, at least 1"),
    ],
)
def test_neither_a_part_nor_the_configuration_can_be_built_wrong(part, values, message):
    config = MatchConfig(**GIVEN)
    with pytest.raises(InputError, match=message):
        replace(part.of(config), **values)
    with pytest.raises(InputError, match=message):
        replace(config, **values)


@pytest.mark.parametrize("values", [{"actors": 2}, {"index_search": "nprobe=2"}])
def test_what_no_search_uses_is_refused_beside_a_submission_too(values):
    with pytest.raises(InputError, match=next(iter(values))):
        MatchConfig(**JUDGED, **values)
