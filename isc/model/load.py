"""Models by name, run folder, file or URL; and the initial model of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isc.config.train import ModelConfig
from isc.data.model_files import SHIPPED
from isc.errors import InputError
from isc.model.copy_model import CopyModel
from isc.model.download import fetch, is_url
from isc.model.files import FORMAT, MODEL_FILE, load_run, read_safetensors
from isc.model.imagenet import load_imagenet
from isc.model.published import SUFFIXES, is_published, load_into, read_checkpoint, read_state

NAMES = ("isc_small", "imagenet")


def initial_model(config: ModelConfig, *, seed: int = 0) -> CopyModel:
    """Return the model before training: the backbone with `config.weights`, and a random orthogonal projection.

    An orthogonal projection nearly keeps the angles between the backbone's features (Johnson and Lindenstrauss), so
    this is the backbone's own descriptor in fewer dimensions. If `config.weights` names a model of ours or a published
    one, that model is returned.
    """
    if config.weights in ("imagenet", "none"):
        model = _random_head(config, seed)
        if config.weights == "imagenet":
            load_imagenet(model)
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


def _backbone_state(name: str) -> dict[str, Tensor] | None:
    """Return the tensors of a file with a timm backbone; None for a model of ours or a published one."""
    path = Path(name)
    if name in NAMES or is_url(name) or not path.is_file():
        return None
    if name.lower().endswith(SUFFIXES):
        state = read_state(path)
        return None if is_published(state) else state
    metadata, state = read_safetensors(path)
    return None if metadata.get("format") == FORMAT else state


def _without_classifier(state: dict[str, Tensor], backbone: Any) -> dict[str, Tensor]:
    """Return the tensors without the last layers of a whole network that this backbone does not have."""
    parts = {name.split(".", maxsplit=1)[0] for name in backbone.state_dict()}
    spare = {"fc", "classifier", "head", "conv_head", "bn2"} - parts
    return {name: value for name, value in state.items() if name.split(".", maxsplit=1)[0] not in spare}


def _load_start(config: ModelConfig) -> CopyModel:
    """Load the model that model.weights names. Raises InputError if it differs from the other options.

    Its background is kept if size and use of whitening agree; its whitening is kept if both use whitening.
    """
    start = load_model(config.weights)
    for name in ("backbone", "dim", "pooling", "gem_power", "batch_norm", "conv_head"):
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
    """Return the name of a backbone without timm's tag of its weights, as .in21k_ft_in1k; other values unchanged."""
    return value.partition(".")[0] if isinstance(value, str) else value


def load_model(name: str) -> CopyModel:
    """Load a model in evaluation mode; no code of a file is run.

    `name` is a NAME, a run folder, a safetensors file of ours, or a published checkpoint (`isc.model.published`) as a
    file or a URL#sha256=…. Raises InputError if there is no such model.
    """
    if name == "imagenet":
        return initial_model(ModelConfig()).eval()
    if name in NAMES:
        return load_run(SHIPPED / f"{name}.safetensors")
    path = fetch(name) if is_url(name) else Path(name)
    path = path / MODEL_FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(
            f"model={name}: no such model; expected {', '.join(NAMES)}, a run folder holding {MODEL_FILE}, a "
            ".safetensors file, or a published .pt or .pth"
        )
    return _load_published(path) if path.name.lower().endswith(SUFFIXES) else load_run(path)


def _load_published(path: Path) -> CopyModel:
    settings, state = read_checkpoint(path)
    model = CopyModel(ModelConfig(**settings))
    load_into(model, state, path=path)
    return model.eval()
