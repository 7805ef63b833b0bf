"""Networks in ONNX files: both runtimes against numpy and torch, the same bits in any batch, processes, refusals."""

from __future__ import annotations

import builtins
import hashlib
import os
import pickle
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import isc
from isc.errors import InputError
from isc.model.export import _metadata_bytes, to_runtime
from isc.model.files import describe
from isc.model.load import load_model
from isc.model.onnx import FORMAT, load_onnx
from isc.model.onnx_engines import RUNTIMES
from isc.photos.decode import read_image
from isc.photos.folders import list_images
from isc.photos.resizing import resize
from tests.test_teacher import MATRIX, save_onnx
from tests.test_teacher import expected as expected_of_tensors
from tests.test_teacher import pictures as tensors

SAMPLE = Path(isc.__file__).parent / "sample"


def pictures(num, *size):
    return tensors(num, *size).numpy()


def expected(of, **options):
    return expected_of_tensors(torch.from_numpy(of), **options)


PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "'isc[openvino]'"}  # what brings each runtime


@pytest.fixture(params=RUNTIMES)
def runtime(request):
    pytest.importorskip(request.param, reason=f"pip install {PACKAGES[request.param]}")
    return request.param


@pytest.fixture(scope="module")
def photos():
    paths = list(list_images(SAMPLE).values())
    return np.stack([resize(read_image(path), 96) for path in paths]).transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def small():
    return load_model("isc_small")


@pytest.fixture(scope="module")
def converted(small):
    """isc_small by each runtime that is installed."""
    made = {}

    def by(runtime):
        if runtime not in made:
            made[runtime] = to_runtime(small, runtime=runtime, image_size=96)
        return made[runtime]

    return by


# --- any network -----------------------------------------------------------------------------------------------------


def test_against_numpy(runtime, tmp_path):
    model = load_onnx(Path(save_onnx(tmp_path / "n.onnx")), runtime=runtime)
    assert (model.dim, model.size, model.image_size, model.is_ours) == (5, None, None, False)
    for asked in (pictures(3, 8), pictures(1, 8, 12), pictures(4, 16)):
        found = model(asked)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected(asked), atol=1e-5)
        np.testing.assert_allclose(model(asked.astype(np.float32)), expected(asked), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_bytes_and_halves(runtime, tmp_path):
    raw = {"mean": (0, 0, 0), "std": (1, 1, 1), "scale": 1}
    model = load_onnx(Path(save_onnx(tmp_path / "u.onnx", kind="UINT8")), runtime=runtime)
    np.testing.assert_allclose(model(pictures(3)), expected(pictures(3), **raw), atol=1e-5)
    np.testing.assert_allclose(model(pictures(3).astype(np.float32) + 0.3), expected(pictures(3), **raw), atol=1e-5)
    model = load_onnx(Path(save_onnx(tmp_path / "h.onnx", kind="FLOAT16")), runtime=runtime)
    np.testing.assert_allclose(model(pictures(3)), expected(pictures(3)), atol=1e-2)


@pytest.mark.parametrize("num", [0, 1, 3, 4])
def test_a_fixed_batch_is_filled_up(num, runtime, tmp_path):
    model = load_onnx(Path(save_onnx(tmp_path / "n.onnx", shape=(3, 3, 8, 8))), runtime=runtime)
    assert (model.batch, model.size, model.image_size) == (3, (8, 8), 8)
    np.testing.assert_allclose(model(pictures(num)), expected(pictures(num)).reshape(num, 5), atol=1e-5)


def test_its_own_mean_and_deviation(runtime, tmp_path):
    path = Path(save_onnx(tmp_path / "n.onnx", metadata={"mean": "[0.5, 0.4, 0.3]", "std": "0.2,0.3,0.4"}))
    model = load_onnx(path, runtime=runtime)
    wanted = expected(pictures(3), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    np.testing.assert_allclose(model(pictures(3)), wanted, atol=1e-5)
    assert model.describe()["preprocessing"].endswith("(x / 255 − [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]")


def test_a_foreign_file_is_known_by_its_bytes(tmp_path):
    path = Path(save_onnx(tmp_path / "n.onnx"))
    said = load_onnx(path).describe()
    assert set(said) == set(describe(load_model("isc_small")))
    assert said["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (said["model"], said["dim"]) == ("n.onnx", "5")


def test_a_foreign_file_is_known_by_the_weights_kept_beside_it(tmp_path):
    onnx = pytest.importorskip("onnx", reason="pip install onnx")
    network = onnx.load(save_onnx(tmp_path / "n.onnx"))
    onnx.save(network, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = load_onnx(tmp_path / "m.onnx")
    np.testing.assert_allclose(model(pictures(2)), expected(pictures(2)), atol=1e-5)
    before = model.describe()["weights_sha256"]
    (tmp_path / "weights.bin").write_bytes((2 * MATRIX).tobytes())
    assert load_onnx(tmp_path / "m.onnx").describe()["weights_sha256"] != before


def test_metadata_may_be_appended(runtime, tmp_path):
    path = Path(save_onnx(tmp_path / "n.onnx", metadata={"one": "1"}))
    more = {"two": "−" * 60, "three": "x" * 20_000, "four": ""}
    path.write_bytes(path.read_bytes() + _metadata_bytes(more))
    assert load_onnx(path, runtime=runtime).metadata == {"one": "1"} | more


# --- the same bits ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_bits_whatever_else_is_in_the_batch(runtime, converted, photos):
    model, rng = converted(runtime), np.random.default_rng(0)
    alone = np.concatenate([model(photo[None]) for photo in photos[:15]])
    for _ in range(3):
        order = rng.permutation(15)
        for size in (15, 4, 2):
            found = np.concatenate([model(photos[order[at : at + size]]) for at in range(0, 15, size)])
            np.testing.assert_array_equal(found, alone[order])


def test_every_run_is_of_as_many_pictures_unless_told_otherwise(runtime, tmp_path):
    path = Path(save_onnx(tmp_path / "n.onnx"))
    usual = {"onnxruntime": [1] * 5, "openvino": [2] * 3}[runtime]
    for options, wanted in (({}, usual), ({"together": True}, [5])):
        model, seen = load_onnx(path, runtime=runtime, **options), []
        engine = model.runs.open()
        real = engine.run
        engine.run = lambda given, real=real, seen=seen: (seen.append(len(given)), real(given))[1]
        model._engines[os.getpid()] = engine
        np.testing.assert_allclose(model(pictures(5)), expected(pictures(5)), atol=1e-5)
        assert seen == wanted


@pytest.mark.slow
def test_the_descriptors_of_the_original(runtime, converted, small, photos):
    with torch.inference_mode():
        wanted = np.concatenate([small(torch.from_numpy(photos[at : at + 2])) for at in range(0, len(photos), 2)])
    found = converted(runtime)(photos)
    assert (wanted.astype(float) * found).sum(axis=1).min() >= 0.9999
    assert converted(runtime).describe() == describe(small)


def test_threads_of_one_process(runtime, converted, photos):
    model, found = converted(runtime), {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: model(photos[n : n + 8])})) for n in (0, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.concatenate([found[0], found[8]]), model(photos[:16]))


def test_pickled(runtime, converted, photos):
    model = converted(runtime)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again(photos[:3]), model(photos[:3]))
    assert again.describe() == model.describe()


FORKED = """
import sys, numpy as np
from pathlib import Path
from torch.utils.data import DataLoader
from isc.model.onnx import load_onnx
from tests.test_onnx_model import Described, pictures
models = [load_onnx(Path(sys.argv[1]), runtime=runtime) for runtime in sys.argv[2:]]
assert not {"onnxruntime", "openvino"} & set(sys.modules), "loading left a runtime in this process"
found = []
for model in models:
    given = Described(model, pictures(6))
    found.append(np.stack(list(DataLoader(given, batch_size=None, num_workers=2, multiprocessing_context="fork"))))
for model, rows in zip(models, found, strict=True):
    assert (rows == model(pictures(6))).all()
"""


class Described(torch.utils.data.Dataset):
    """Descriptors, made by the workers of a loader."""

    def __init__(self, model, given):
        self.model, self.given = model, given

    def __len__(self):
        return len(self.given)

    def __getitem__(self, number):
        return self.model(self.given[number][None])[0]


@pytest.mark.slow
def test_forked_workers(tmp_path):
    """In a process of its own: this one may have used OpenVINO before."""
    there = [name for name in RUNTIMES if find_spec(name)]
    command = [sys.executable, "-c", FORKED, save_onnx(tmp_path / "n.onnx"), *there]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=Path(__file__).parents[1]
    )
    assert run.returncode == 0, run.stderr


def test_a_fork_after_openvino_was_used_is_refused(tmp_path):
    pytest.importorskip("openvino", reason="pip install 'isc[openvino]'")
    model = load_onnx(Path(save_onnx(tmp_path / "n.onnx")), runtime="openvino")
    model(pictures(2))
    workers = DataLoader(Described(model, pictures(2)), batch_size=None, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(InputError, match="forked after OpenVINO had been used"):
        list(workers)


# --- refusals --------------------------------------------------------------------------------------------------------


def refused(path, runtime="onnxruntime", **options):
    with pytest.raises(InputError) as error:
        load_onnx(Path(path), runtime=runtime, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.slow
def test_damaged_files(runtime, tmp_path):
    whole = Path(save_onnx(tmp_path / "n.onnx")).read_bytes()
    for content in (b"hello", b"\xff" * 50, whole[: len(whole) // 2], whole[: len(whole) * 9 // 10]):
        (tmp_path / "d.onnx").write_bytes(content)
        assert refused(tmp_path / "d.onnx", runtime).startswith(f"model={tmp_path / 'd.onnx'}: ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shape": ("B", 8, 8, 3)}, "expected one input [B, 3, H, W] of floats or uint8"),
        ({"shape": ("B", 3, 8, "W")}, "fixes one side of its pictures, [?, 3, 8, ?]"),
        ({"kind": "INT64"}, "expected one input [B, 3, H, W] of floats or uint8"),
        ({}, "gives (1, 3, 224, 224) for 1 pictures; expected [1, D]"),
    ],
)
def test_other_inputs_and_outputs(changes, said, runtime, tmp_path):
    assert said in refused(save_onnx(tmp_path / "n.onnx", flat=False, **changes), runtime)


def test_pictures_of_another_size(runtime, tmp_path):
    model = load_onnx(Path(save_onnx(tmp_path / "n.onnx", shape=("B", 3, 8, 12))), runtime=runtime)
    with pytest.raises(
        InputError, match=r"n\.onnx: takes pictures of 8×12 alone; expected no other size, such as 16×16"
    ):
        model(pictures(2, 16))
    with pytest.raises(InputError, match="expected squares"):
        _ = model.image_size


def test_values_that_are_not_finite(runtime, tmp_path):
    metadata = {"std": "1e-38, 1, 1"}
    model = load_onnx(Path(save_onnx(tmp_path / "n.onnx", metadata=metadata)), runtime=runtime)
    with pytest.raises(InputError, match="not finite"):
        model(np.full((1, 3, 8, 8), 255, np.uint8))


def test_ours_without_its_description(tmp_path):
    path = save_onnx(tmp_path / "n.onnx", metadata={"isc_format": FORMAT, "image_size": "8", "model": "m"})
    assert "its metadata lacks gem_power, preprocessing, weights_sha256" in refused(path)
    path = save_onnx(tmp_path / "n.onnx", metadata={"isc_format": FORMAT, "image_size": "eight"})
    assert "its metadata has image_size=eight; expected pixels" in refused(path)


def test_no_such_file_or_runtime(tmp_path):
    assert "no such file" in refused(tmp_path / "n.onnx")
    assert "runtime=tensorrt; expected one of onnxruntime, openvino" in refused(tmp_path / "n.onnx", "tensorrt")
    said = refused(tmp_path / "n.onnx", "openvino", cuda=True)
    assert said == "runtime=openvino: works on CPUs; expected device=cpu, or runtime=onnxruntime"


@pytest.mark.parametrize("absent", RUNTIMES)
def test_without_the_runtime(absent, tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name == absent:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    (tmp_path / "n.onnx").touch()
    assert f"pip install {PACKAGES[absent]}" in refused(tmp_path / "n.onnx", absent)


def test_a_runtime_that_crashes_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("isc.model.onnx_engines.Runs.open", lambda runs: os._exit(9))
    monkeypatch.setattr("isc.model.onnx_engines._CORES", {})
    (tmp_path / "n.onnx").touch()
    assert "onnxruntime crashed (status 9) on it" in refused(tmp_path / "n.onnx")
