"""The tools' judge: what is drawn, what every kind does to real photos, the layout, and peers in ONNX files."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import isc
from benchmarks import judge, judge_make, judge_peers, judge_score, tool_judge
from benchmarks.tool_judge import chain, tools
from benchmarks.tool_judge.draws import Draws
from isc.data.csv_files import read_ground_truth, read_predictions, write_ground_truth
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import write_descriptors
from isc.errors import InputError
from isc.photos.decode import read_image
from isc.photos.folders import list_images

pytestmark = pytest.mark.slow

SAMPLE = Path(isc.__file__).parent / "sample"
FOLDER = Path(tool_judge.__file__).parent
FOREIGN = ("isc.train.augment.augmenter", "isc.benchmark.edits.chain", "albumentations", "augly")
COMMANDS = {tool: any(map(shutil.which, names)) for tool, (names, _) in tools.TOOLS.items()}
BY_FFMPEG = frozenset({"video_frame", "video_filter", "scaled_small"})
BY_MAGICK = frozenset({*chain.FILTERS, *chain.DISTORTIONS})


def without(*names):
    """A mark that skips where a tool is missing, and says which package has it."""
    missing = [tool for tool in names if not COMMANDS[tool]]
    packages = " ".join(tools.TOOLS[tool][1] for tool in missing)
    return pytest.mark.skipif(bool(missing), reason=f"no {' and no '.join(missing)}: apt-get install {packages}")


needs_tools = without("ImageMagick", "ffmpeg")


def kinds():
    for name in tool_judge.KINDS:
        needed = [tool for tool, these in (("ImageMagick", BY_MAGICK), ("ffmpeg", BY_FFMPEG)) if name in these]
        yield pytest.param(name, marks=without(*needed))


def photo(name):
    return Image.fromarray(read_image(SAMPLE / f"{name}.jpg"))


def draws(*seed):
    ids = [f"S{number:03d}" for number in range(60, 90)]
    return Draws(np.random.default_rng(seed), ids, lambda name: chain.brought_to_size(photo(name)))


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# independence


def test_no_module_imports_what_trains_or_judges_elsewhere():
    imported = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported |= {f"{node.module}.{name.name}" for name in node.names} | {str(node.module)}
    assert "isc.errors" in imported
    assert not [name for name in imported if name.startswith(FOREIGN)]


def test_nothing_of_it_is_loaded_on_the_way_either():
    code = f"import sys, benchmarks.tool_judge; print([m for m in sys.modules if m.startswith({FOREIGN})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# what is drawn


def test_chains_are_of_different_kinds_that_go_together_in_the_order_of_the_stages():
    rng, order = np.random.default_rng(0), list(tool_judge.EDITS)
    seen = set()
    for number in (1, 2, 3):
        for _ in range(300):
            names = chain.draw_names(rng, number)
            assert len(set(names)) == len(names) == number
            assert all(len(group & set(names)) <= 1 for group in chain.ALTERNATIVES)
            assert sorted(names, key=order.index) == list(names)
            seen |= set(names)
    assert seen == set(tool_judge.KINDS)
    assert set().union(*chain.ALTERNATIVES, chain.FREQUENT, chain.RARE) <= seen


@pytest.mark.parametrize("name", list(kinds()))
def test_every_kind_changes_a_photo_leaves_it_to_be_seen_and_does_it_again(name):
    image = photo("S024")
    before = chain.brought_to_size(image)
    found = [(seed, made) for seed in range(3) if (made := chain.apply(image, (name,), draws(seed)))]
    assert len(found) >= 2  # few are drawn anew
    for _, (copy, (edit,)) in found:
        assert edit.name == name
        assert json.loads(json.dumps(edit.params)) == edit.params
        assert copy.mode == "RGB"
        assert 48 <= min(copy.size) <= max(copy.size) <= 640
        assert np.asarray(copy).std((0, 1)).mean() >= chain.MIN_CONTRAST / 2
        assert copy.size != before.size or np.abs(np.asarray(copy, int) - np.asarray(before)).mean() > 0.5
    assert len({copy.tobytes() for _, (copy, _) in found}) > 1
    seed, (copy, edits) = found[0]
    again = chain.apply(image, (name,), draws(seed))
    assert again is not None
    assert again[1] == edits
    assert again[0].tobytes() == copy.tobytes()
    assert image.tobytes() == photo("S024").tobytes()  # the argument is left as it was


def test_a_blank_picture_is_refused():
    blank = Image.fromarray(np.full((60, 80, 3), 200, np.uint8))
    with pytest.raises(InputError, match="no chain of edits leaves enough of a picture of 80 × 60"):
        chain.edit_chain(blank, np.random.default_rng(0), ["S060"], photo)


@without("ImageMagick")
def test_a_failing_command_is_told_in_one_line():
    with pytest.raises(InputError, match=r"-no-such-option") as failed:
        tools.magick(photo("S000"), "-no-such-option")
    assert "\n" not in str(failed.value)


# the judge


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge") / "made"
    judge_make.make(SAMPLE, folder, seed=3, queries=30, workers=2, edits="tools")
    return folder


@needs_tools
def test_the_layout_is_that_of_the_other_judge(made):
    references, queries = list_images(made / "references"), list_images(made / "queries")
    truth = read_ground_truth(made / "ground_truth.csv")
    assert sorted(path.name for path in made.iterdir()) == [
        "edits.jsonl", "ground_truth.csv", "judge.json", "photos.csv", "queries", "references",
    ]  # fmt: skip
    assert list(references) == [f"R{i:06d}" for i in range(round(0.66 * 118))]
    assert list(queries) == [f"Q{i:05d}" for i in range(30)] == sorted(truth.queries)
    assert len(truth.pairs) == 15
    assert all(max(read_image(path).shape) <= 320 for path in queries.values())
    lines = [json.loads(line) for line in (made / "edits.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["query_id"] for line in lines] == list(queries)
    assert all(1 <= len(line["edits"]) <= 3 for line in lines)
    assert {edit["name"] for line in lines for edit in line["edits"]} <= set(tool_judge.KINDS)
    about = json.loads((made / "judge.json").read_text(encoding="utf-8"))
    assert about["edits"] == "tools"
    assert about["imagemagick"][0].isdigit()
    assert about["ffmpeg"]


@needs_tools
def test_no_photo_has_two_roles(made):
    lines = [json.loads(line) for line in (made / "edits.jsonl").read_text(encoding="utf-8").splitlines()]
    copied = {line["source"] for line in lines if line["reference_id"]}
    distractors = {line["source"] for line in lines if not line["reference_id"]}
    params = [edit["params"] for line in lines for edit in line["edits"]]
    others = {name for each in params for name in [each.get("photo"), *each.get("photos", [])] if name}
    assert others
    assert len(copied) == len(distractors) == 15
    assert not copied & distractors
    assert not others & (copied | distractors)


@needs_tools
def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(made, tmp_path):
    judge_make.make(SAMPLE, tmp_path / "again", seed=3, queries=30, workers=1, edits="tools")
    assert contents(tmp_path / "again") == contents(made)
    judge_make.make(SAMPLE, tmp_path / "other", seed=4, queries=4, workers=1, edits="tools")
    assert contents(tmp_path / "other")["queries/Q00000.jpg"] != contents(made)["queries/Q00000.jpg"]


@needs_tools
def test_its_tables_have_names_of_their_own(made, tmp_path):
    assert judge_score.judge_name(made) == "judge_tools"
    (tmp_path / "judge.json").write_text('{"version": 1, "augly": "1.0.0"}')
    assert judge_score.judge_name(tmp_path) == "judge"


@pytest.mark.parametrize("tool", tools.TOOLS)
def test_without_a_tool_one_line_names_its_package(tool, tmp_path, monkeypatch, capsys):
    for other, (names, _) in tools.TOOLS.items():
        if other != tool:  # a file that may be run; it never is
            (tmp_path / names[0]).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        judge.main(["make", str(SAMPLE), str(tmp_path / "judge"), "--seed", "1", "--edits", "tools"])
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message.count("\n") == 1
    assert message.startswith(f"error: {tool} not installed")
    assert f"apt-get install {tools.TOOLS[tool][1]}" in message
    assert not (tmp_path / "judge").exists()


# peers


def small_network(path, *, side="side", channels=3):
    """Bytes [B, H, W, C] → the mean of each channel and that of its squares, [B, 2C]."""
    onnx = pytest.importorskip("onnx", reason="pip install onnx")
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceL2", ["x"], ["size"], axes=[1, 2], keepdims=0),
        helper.make_node("Concat", ["mean", "size"], ["embedding"], axis=1),
    ]
    given = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", side, side, channels])
    wanted = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 2 * channels])
    model = helper.make_model(
        helper.make_graph(nodes, "small", [given], [wanted]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    helper.set_model_props(model, {"made_by": "a test"})
    onnx.save(model, path)
    return path


def test_a_wrapped_network_gives_what_the_unwrapped_one_gives(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    from isc.model.onnx import load_onnx

    source = small_network(tmp_path / "small.onnx")
    judge_peers.main([str(source), str(tmp_path / "wrapped.onnx"), "--size", "24"])
    pictures = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    (wanted,) = onnxruntime.InferenceSession(str(source)).run(None, {"image": pictures})
    model = load_onnx(tmp_path / "wrapped.onnx")
    assert (model.image_size, model.dim, model.element) == (24, 6, np.uint8)
    assert model.metadata["made_by"] == "a test"
    assert model.metadata["image_size"] == "24"
    found = model(pictures.transpose(0, 3, 1, 2))
    assert np.allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)


def test_descriptors_wider_than_a_submission_are_judged_by_their_distances(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [[f"{letter}{number}" for number in range(6)] for letter in "QR"]
    for role, names in zip(judge_score.ROLES, ids, strict=True):
        write_descriptors(tmp_path / f"{role}.h5", Descriptors(np.array(names, dtype=object), vectors), {})
    write_ground_truth(tmp_path / "ground_truth.csv", list(zip(*ids, strict=True)))
    (tmp_path / "edits.jsonl").touch()
    scored = judge_score._match("wide", tmp_path, tmp_path, tmp_path / "matched")
    assert scored.metrics["average_precision"] == 1
    best = read_predictions(tmp_path / "matched" / "predictions.csv").score.max()
    assert best == pytest.approx(0, abs=1e-5)  # minus the squared distance of a descriptor to itself


@pytest.mark.parametrize("wrong", [{"side": 32}, {"channels": 4}])
def test_a_network_of_other_pictures_is_not_wrapped(wrong, tmp_path, capsys):
    source = small_network(tmp_path / "small.onnx", **wrong)
    with pytest.raises(SystemExit) as stopped:
        judge_peers.main([str(source), str(tmp_path / "wrapped.onnx"), "--size", "24"])
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message.count("\n") == 1
    assert "expected one input [B, 24, 24, 3]" in message
    assert not (tmp_path / "wrapped.onnx").exists()


def test_a_file_that_is_no_network_is_not_wrapped(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"no network")
    pytest.importorskip("onnx", reason="pip install onnx")
    with pytest.raises(InputError, match=r"no\.onnx: cannot be read as an ONNX file"):
        judge_peers.wrap(tmp_path / "no.onnx", tmp_path / "out.onnx", size=24)
