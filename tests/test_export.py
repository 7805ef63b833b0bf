"""isc export: the file against its original on real photos, what it says of itself, and every refusal."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import isc
from isc.cli.main import main
from isc.config.choices import Pooling
from isc.config.train import ModelConfig
from isc.data.model_files import SHIPPED
from isc.errors import InputError
from isc.model import export as exporting
from isc.model.export import export, to_runtime
from isc.model.files import describe, save_model
from isc.model.load import initial_model, load_model
from isc.model.onnx import load_onnx
from isc.photos.decode import read_image
from isc.photos.folders import list_images
from isc.photos.resizing import resize

onnx = pytest.importorskip("onnx", reason="pip install onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")

SAMPLE = Path(isc.__file__).parent / "sample"
PHOTOS = list(list_images(SAMPLE).values())
PAGE = Path(__file__).parents[1] / "docs" / "onnx.md"
SMALL = ModelConfig(backbone="test_resnet", weights="none", dim=8, image_size=64)


def lively(config: ModelConfig, seed: int = 3):
    """A model whose norms let the picture through: new ones begin with a weight of 0."""
    model = initial_model(config, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.ndim == 1 and value.is_floating_point() and not name.endswith("mean"):
                value.uniform_(0.5, 1.5, generator=generator)
    if config.background:
        model.background.copy_(torch.nn.functional.normalize(torch.randn(config.background, config.dim)))
    return model


def squares(paths, size: int) -> np.ndarray:
    return np.stack([resize(read_image(path), size).transpose(2, 0, 1) for path in paths])


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """isc_small, its file, and what the export said."""
    path = tmp_path_factory.mktemp("export") / "isc_small.onnx"
    model = load_model("isc_small")
    return model, path, export(model, path, image_size=96)


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_shipped_model_on_all_sample_photos(shipped):
    _, path, parity = shipped
    assert (parity.photos, parity.sizes, parity.any_size) == (118, (96, 137), True)
    assert parity.min_cosine >= 0.9999
    assert parity.max_difference < 1e-4
    assert parity.num_bytes == path.stat().st_size


@pytest.mark.slow
def test_weights_in_half_precision_are_half_the_bytes_and_the_same_descriptors(tmp_path):
    """The shipped weights are float16 already: nothing is lost."""
    model = load_model("isc_small")
    given = {"photos": PHOTOS[:4], "image_size": 96}
    whole, half = (export(model, tmp_path / f"{half}.onnx", half=half, **given) for half in (False, True))
    assert half.num_bytes < 0.51 * whole.num_bytes
    assert half.max_difference < 1e-5


def test_the_packages_file_is_the_export_of_the_packages_model():
    """As `benchmarks.ship` writes it: the same description, and no other weights."""
    assert load_onnx(SHIPPED / "isc_small.onnx").describe() == describe(load_model("isc_small"))


@pytest.mark.slow
def test_imagenet_start(tmp_path):
    parity = export(load_model("imagenet"), tmp_path / "i.onnx", photos=PHOTOS[:12], image_size=64)
    assert (parity.photos, parity.any_size) == (12, True)
    assert parity.min_cosine >= 0.9999


@pytest.mark.parametrize("size", [64, 96, 111])
@pytest.mark.parametrize("batch", [1, 5])
def test_any_batch_and_size_in_plain_onnxruntime(batch, size, shipped):
    model, path, _ = shipped
    session = onnxruntime.InferenceSession(path)
    given = squares(PHOTOS[:batch], size)
    (found,) = session.run(["descriptors"], {"pictures": given})
    with torch.inference_mode():
        np.testing.assert_allclose(found, model(torch.from_numpy(given)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_what_it_says_of_itself(shipped):
    model, path, _ = shipped
    network = onnx.load(path)
    onnx.checker.check_model(network)
    said = {entry.key: entry.value for entry in network.metadata_props}
    assert said.items() >= describe(model).items()
    assert (said["isc_format"], said["image_size"], said["sizes"]) == ("isc-onnx-1", "96", "any")
    assert json.loads(said["mean"]) == pytest.approx((model.mean / 255).flatten().tolist())
    assert json.loads(said["std"]) == pytest.approx((model.std / 255).flatten().tolist())
    assert "uint8 [batch, 3, height, width], RGB in 0…255" in said["input"]


def test_its_descriptors_count_as_the_models_own(shipped):
    model, path, _ = shipped
    network = load_onnx(path)
    assert network.describe() == describe(model)
    assert (network.is_ours, network.image_size, network.size, network.dim) == (True, 96, None, 256)


OTHERS = {
    "another power, background": dataclasses.replace(SMALL, gem_power=4.0, background=16),
    "class token": ModelConfig(backbone="test_vit", weights="none", dim=8, pooling=Pooling.token, image_size=160),
    "tokens at another size": ModelConfig(backbone="test_vit", weights="none", dim=8, image_size=192),
    "mean": dataclasses.replace(SMALL, pooling=Pooling.mean, batch_norm=False),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks(name, tmp_path):
    model = lively(OTHERS[name])
    before = describe(model)
    parity = export(model, tmp_path / "n.onnx", photos=PHOTOS[:8])
    assert parity.min_cosine >= 0.9999
    assert parity.any_size is ("vit" not in model.config.backbone)
    network = load_onnx(tmp_path / "n.onnx")
    size = model.config.image_size
    assert network.size == (None if parity.any_size else (size, size))
    assert network.image_size == size
    assert network.describe() == before == describe(model)


class Sized(torch.nn.Module):
    """A network that knows the size of its pictures in a way that tracing does not follow."""

    def __init__(self, network, *, silent: bool):
        super().__init__()
        self.network, self.silent, self.num_features = network, silent, network.num_features

    def forward(self, x):
        side = int(x.shape[2])
        stripes = torch.arange(side * side, dtype=torch.float32).view(side, side) % 3
        return self.network(x + (side - 64 if self.silent else stripes))


@pytest.mark.parametrize("silent", [False, True])
def test_a_size_that_tracing_fixed_is_found_out(silent, tmp_path):
    model = lively(SMALL)
    model.backbone = Sized(model.backbone, silent=silent)
    parity = export(model, tmp_path / "n.onnx", photos=PHOTOS[:3])
    assert (parity.sizes, parity.any_size) == ((64,), False)
    assert load_onnx(tmp_path / "n.onnx").size == (64, 64)
    assert str(parity).split("; ")[0].endswith("takes pictures of 64×64 alone")


# --- on the fly ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_on_the_fly(runtime):
    pytest.importorskip(runtime, reason="an optional extra")
    model = lively(dataclasses.replace(SMALL, background=16))
    network = to_runtime(model, runtime=runtime, image_size=80)
    given = squares(PHOTOS[:5], 80)
    with torch.inference_mode():
        np.testing.assert_allclose(network(given), model(torch.from_numpy(given)), atol=1e-5, rtol=0)
    assert network.describe() == describe(model)
    assert (network.image_size, network.size) == (80, None)


def test_on_the_fly_is_held_against_the_original(monkeypatch):
    monkeypatch.setattr(exporting, "MIN_COSINE", 1.5)
    with pytest.raises(InputError, match=r"runtime=onnxruntime: gives .*\.jpg a descriptor of cosine 1\.0"):
        to_runtime(lively(SMALL), runtime="onnxruntime")


# --- refusals --------------------------------------------------------------------------------------------------------


def test_another_networks_descriptors_are_not_written(tmp_path, monkeypatch):
    """The graph of one model and the descriptors of another."""
    other = lively(SMALL, seed=4)
    real = exporting._traced
    monkeypatch.setattr(exporting, "_traced", lambda model, *rest, **more: real(other, *rest, **more))
    with pytest.raises(InputError, match=r"n\.onnx: not written: the network gives .*S\d+\.jpg a descriptor of cosine"):
        export(lively(SMALL), tmp_path / "n.onnx", photos=PHOTOS[:4])
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_finite_are_not_written(tmp_path):
    model = lively(SMALL)
    with torch.no_grad():
        model.linear.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        export(model, tmp_path / "n.onnx", photos=PHOTOS[:2])
    assert not list(tmp_path.iterdir())


def test_what_the_exporter_cannot_do(tmp_path, capsys):
    model = lively(OTHERS["class token"])
    with pytest.raises(
        InputError, match=r"n\.onnx: test_vit cannot be exported at 150 px \(.*\); expected another size"
    ):
        export(model, tmp_path / "n.onnx", image_size=150)
    assert capsys.readouterr().out == ""


def test_a_torch_without_the_exporter(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda model, args, f: None)
    with pytest.raises(InputError, match=rf"torch {re.escape(torch.__version__)} has no exporter to ONNX by tracing"):
        export(lively(SMALL), tmp_path / "n.onnx")

    def needs_more(*args, dynamo=True, **more):
        raise ModuleNotFoundError("onnxscript")

    monkeypatch.setattr(torch.onnx, "export", needs_more)
    with pytest.raises(InputError, match="has no exporter to ONNX by tracing"):
        export(lively(SMALL), tmp_path / "n.onnx")


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    save_model(path, lively(SMALL), {})
    return path


def command(capsys, *arguments):
    """Status, stdout and stderr of isc export, in this process."""
    status = 0
    try:
        main(["export", *map(str, arguments)])
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


@pytest.mark.slow
def test_the_command(saved, tmp_path, capsys):
    output = tmp_path / "deeper" / "n.onnx"
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in PHOTOS[:3]:
        shutil.copy(photo, folder)
    status, out, err = command(capsys, saved, output, "--image-size", 96, "--images", folder)
    assert (status, err) == (0, "")
    size = output.stat().st_size / 1e6
    assert out.startswith(
        f"wrote {output}: {size:.1f} MB, takes pictures of any size; 3 photos at 96 and 137 px: cosine"
    )
    assert out.count("\n") == 1
    assert [path.name for path in output.parent.iterdir()] == ["n.onnx"]
    assert load_onnx(output).image_size == 96
    before = output.read_bytes()
    status, _, err = command(capsys, saved, output, "--images", folder)
    assert (status, err) == (2, f"error: {output}: is there already; give another name or --overwrite\n")
    assert output.read_bytes() == before
    assert command(capsys, saved, output, "--images", folder, "--overwrite")[0] == 0
    assert load_onnx(output).image_size == 64


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["isc_small", "n.pt"], "n.pt: expected a name that ends in .onnx"),
        (["nowhere", "n.onnx"], "nowhere: no such model"),
        (["m.onnx", "n.onnx"], "m.onnx: is an ONNX file"),
        (["isc_small", "n.onnx", "--image-size", "8"], "'--image-size': 8 is not in the range x>=32"),
        (["isc_small", "n.onnx", "--images", "nowhere"], "nowhere"),
        (["isc_small", "n.onnx", "--float16"], "No such option '--float16'"),
    ],
)
def test_command_lines_refused(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, out, err = command(capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert said in err
    assert not list(tmp_path.iterdir())


def test_as_a_process_of_its_own(tmp_path):
    (tmp_path / "file").touch()
    words = [
        sys.executable,
        "-m",
        "isc.cli.main",
        "export",
        "isc_small",
        tmp_path / "file" / "n.onnx",
        "--image-size",
        "32",
    ]
    run = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, cwd=PAGE.parents[1])
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1


def test_the_pages_example(shipped, tmp_path):
    """Nothing of ours is imported by it."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert "isc." not in code.replace("isc_small.onnx", "")
    model, path, _ = shipped
    shutil.copy(path, tmp_path / "isc_small.onnx")
    for name, photo in (("one.jpg", PHOTOS[0]), ("two.jpg", PHOTOS[1])):
        shutil.copy(photo, tmp_path / name)
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    with torch.inference_mode():
        one, two = model(torch.from_numpy(squares(PHOTOS[:2], 96))).double()
    assert float(run.stdout) == pytest.approx(float((one - two).norm()), abs=1e-4), run.stderr
