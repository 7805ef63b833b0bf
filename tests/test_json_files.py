"""JSON of strangers: bounds, types, and every reader of a stored file against values of every wrong shape."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isc.data.json_files import MAX_DEPTH, Fields, parse_json, read_json
from isc.data.model_files import SHIPPED
from isc.errors import InputError
from isc.evaluate.calibration.files import read_calibration
from isc.evaluate.calibration.maps import Logistic
from isc.evaluate.calibration.score_origin import read_made
from isc.match.verification.fusion_files import read_fusion
from isc.model.files import load_run
from isc.model.load import load_model
from isc.search.index.manifest import read_manifest
from isc.search.normalize.files import read_stored


@pytest.mark.parametrize(
    "text",
    ["", "{", "NaN", "[Infinity]", "[-Infinity]", "1e999", "[" * 200_000, "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2),
     "9" * 5000, '{"a":' * 100 + "1" + "}" * 100, "nul", b"\xff", '"\\ud800', "[1,]"],
)  # fmt: skip
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(text)


def test_usual_json_is_parsed():
    value = {"a": [1, 2.5, None, True, "é"], "deep": json.loads("[" * 60 + "]" * 60)}
    assert parse_json(json.dumps(value)) == value


def test_a_device_is_not_read(tmp_path):
    for path in (Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match="is no regular file"):
            read_json(path, expected="a file")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / "gone", expected="a file")


@pytest.mark.parametrize(
    ("method", "good", "bad"),
    [
        ("text", ["", "a"], [None, 1, ["a"], {}]),
        ("flag", [True, False], [0, 1, None, "true"]),
        ("count", [0, 7, 1 << 53], [-1, 1.0, True, "1", None, 1 << 60, [1]]),
        ("number", [0, -1.5, 1e200], [True, "1", None, 10**400, [1.0]]),
        ("numbers", [[], [1, 2.5]], ["123", [True], [None], {"0": 1}, [[1]], None]),
        ("fields", [{}, {"a": 1}], [[], None, 1, "a", True]),
        ("list", [[], [{}]], [{}, None, [1], "a"]),
    ],
)
def test_values_are_taken_by_type(method, good, bad):
    for value in good:
        getattr(Fields({"x": value}), method)("x")
    for value in bad:
        with pytest.raises(ValueError, match=r"at\.x"):
            getattr(Fields({"x": value}, "at."), method)("x")
    with pytest.raises(ValueError, match=r"no at\.y"):
        getattr(Fields({}, "at."), method)("y")


# --- every stored file -----------------------------------------------------------------------------------------------

CALIBRATION = json.loads((SHIPPED / "isc_small.calibration.json").read_text(encoding="utf-8"))
FUSION = json.loads((SHIPPED / "isc_small.fusion.json").read_text(encoding="utf-8"))
CHAIN = {"format": "isc-normalize-1", "normalize": "whiten", "weights_sha256": "a1", "training_rows": 9}
MANIFEST = {"dim": 4, "provenance": {"model": "m"}, "model": None, "created": "now", "format": "isc-index-1"}
MATCH = {"format": "isc-match-1"} | CALIBRATION["made"]
READERS = {
    "calibration": (CALIBRATION, "c.json", read_calibration),
    "fusion": (FUSION, "f.json", read_fusion),
    "normalize": (CHAIN, "n.json", read_stored),
    "manifest": (MANIFEST, "manifest.json", lambda path: read_manifest(path.parent)),
    "match": (MATCH, "match.json", lambda path: read_made(path.parent)),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_sound_file_is_read(tmp_path, kind):
    values, name, read = READERS[kind]
    (tmp_path / name).write_text(json.dumps(values), encoding="utf-8")
    assert read(tmp_path / name)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    "text", ["[" * 200_000, "[]", "null", "true", '"isc"', "1", '{"format": {}}', "9" * 5000, "\0"]
)
def test_json_of_another_shape_is_refused(tmp_path, kind, text):
    _, name, read = READERS[kind]
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read(tmp_path / name)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value[:3]):
            yield from places(inner, (*path, key))


WRONG = st.sampled_from(
    [None, True, -1, 0, 1 << 70, -0.5, 1e308, "", "12", [], [1], [[]], {}, {"a": 1}, "gone", "é" * 300, [None] * 3]
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_one_value_of_another_kind_is_read_or_refused_in_one_line(tmp_path, kind, data):
    values, name, read = READERS[kind]
    spoilt = copy.deepcopy(values)
    path = data.draw(st.sampled_from([one for one in places(values) if one]))
    holder = spoilt
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = data.draw(WRONG)
    (tmp_path / name).write_text(json.dumps(spoilt), encoding="utf-8")
    message = ""
    try:
        read(tmp_path / name)
    except InputError as error:
        message = str(error)
    assert not message or (str(tmp_path) in message and "\n" not in message)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["runs", 0, "copies"], 12_001), (["runs", 0, "with_copies"], 1_201), (["runs", 0, "queries"], 0),
        (["runs", 0, "pairs"], -1), (["runs", 0, "copies"], 1.5), (["runs", 0, "queries"], "1200"),
        (["runs", 0, "queries"], True), (["prior", "copies"], 0), (["wanted", "precision"], 1.5),
        (["wanted", "recall"], -0.1),
        (["wanted", "pairs"], -4), (["wanted", "interval"], [1, 0]), (["wanted", "interval"], [1]),
        (["wanted", "interval"], "12"), (["made", "descriptors"], True), (["made", "queries"], 10**30),
        (["made", "k"], 0), (["prior", "references"], "123"), (["map", "bias"], "1"), (["reliability", 0, "mean"], 2),
        (["reliability", 0], 7), (["thresholds"], {"a": 1}),
    ],
)  # fmt: skip
def test_impossible_values_of_a_calibration_are_refused(tmp_path, path, value):
    spoilt = copy.deepcopy(CALIBRATION) | {"map": Logistic(bias=1.0, slope=2.0, on="score").as_dict()}
    holder = spoilt
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    (tmp_path / "c.json").write_text(json.dumps(spoilt), encoding="utf-8")
    with pytest.raises(InputError, match=r"c\.json: .*expected"):
        read_calibration(tmp_path / "c.json")


# --- models ----------------------------------------------------------------------------------------------------------


def model_file(path: Path, *, config: object = None, change=None, text: str | None = None) -> Path:
    """The shipped model with keys of its configuration, or tensors, changed."""
    shipped = SHIPPED / "isc_small.safetensors"
    state = safetensors.torch.load_file(shipped)
    with safetensors.safe_open(shipped, "pt") as file:
        metadata = dict(file.metadata())
    if isinstance(config, dict):
        config = json.loads(metadata["config"]) | config
    metadata["config"] = text if text is not None else json.dumps(config)
    safetensors.torch.save_file(change(state) if change else state, path, metadata)
    return path


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ([], "config is []"), (None, "config is null"), ("gem", "config is"), (7, "config is 7"),
        ({"dim": "256"}, "dim"), ({"dim": 1 << 40}, "linear.weight has shape"), ({"dim": True}, "dim"),
        ({"image_size": 20_000}, "model.image_size=20000"), ({"image_size": 96.5}, "image_size"),
        ({"gem_power": "3"}, "gem_power"), ({"gem_power": [3]}, "gem_power"), ({"batch_norm": 1}, "batch_norm"),
        ({"background": 1 << 50}, "background has shape"), ({"backbone": ["a"]}, "backbone"),
        ({"pooling": 3}, "pooling"), ({"pooling": []}, "pooling"), ({"unknown": 1}, "unknown"),
        ({"whiten": None}, "whiten"), ({"weights": {}}, "weights"),
    ],
)  # fmt: skip
def test_a_configuration_of_the_wrong_kind_is_refused(tmp_path, config, part):
    with pytest.raises(InputError) as caught:
        load_run(model_file(tmp_path / "m.safetensors", config=config))
    assert "m.safetensors: its configuration and weights cannot be used" in str(caught.value)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_without_an_end_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be used"):
        load_run(model_file(tmp_path / "m.safetensors", text="[" * 200_000))


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (lambda w: torch.ones(w.shape, dtype=torch.int8), "linear.weight is of type torch.int8"),
        (lambda w: torch.ones(w.shape, dtype=torch.int64), "linear.weight is of type torch.int64"),
        (lambda w: torch.ones(w.shape, dtype=torch.bool), "linear.weight is of type torch.bool"),
        (lambda w: w.float() * float("nan"), "linear.weight has NaN or infinite values"),
        (lambda w: w[:, :5].contiguous(), "linear.weight"),
    ],
)
def test_weights_of_another_kind_are_refused(tmp_path, value, part):
    def change(state):
        return state | {"linear.weight": value(state["linear.weight"])}

    with pytest.raises(InputError) as caught:
        load_run(model_file(tmp_path / "m.safetensors", config={}, change=change))
    assert part in str(caught.value)


def test_the_weights_of_a_published_file_are_checked_too(tmp_path):
    timm = pytest.importorskip("timm")
    backbone = timm.create_model("resnet50", pretrained=False, num_classes=0)
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    state |= {"backbone.fc.weight": torch.ones(8, 2048, dtype=torch.int8), "backbone.fc.bias": torch.zeros(8)}
    torch.save(state, tmp_path / "sscd.torchvision.pt")
    with pytest.raises(InputError, match=r"linear\.weight is of type torch\.int8"):
        load_model(str(tmp_path / "sscd.torchvision.pt"))
