"""The model file model.safetensors: weights, configuration and provenance."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from isc import __version__
from isc.config.choices import Pooling
from isc.config.train import GONE, ModelConfig
from isc.data.files import atomic_path
from isc.errors import InputError
from isc.model.copy_model import CopyModel

MODEL_FILE = "model.safetensors"  # the name of the file in a run folder
FORMAT = "isc-model-1"


def save_model(path: Path, model: CopyModel, provenance: dict[str, str], *, half: bool = False) -> None:
    """Write weights and configuration as one safetensors file, completely or not at all; with `half` in float16."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    metadata = {"format": FORMAT, "config": _written_config(model.config), **provenance}
    with atomic_path(path) as beside:
        beside.write_bytes(safetensors.torch.save(state, metadata))  # its own writer hides the cause of an error


def _written_config(config: ModelConfig) -> str:
    return json.dumps(dataclasses.asdict(config) | {"pooling": config.pooling.value})


def _read_config(text: str) -> ModelConfig:
    """Parse the configuration in a model file. Raises InputError if a key that is gone has another value than now."""
    values = json.loads(text)
    for name, now in GONE.items():
        if (value := values.pop(name.removeprefix("model."), now)) != now:
            raise InputError(f"{name}={value}, a key that is gone; expected {now}")
    return ModelConfig(**values | {"pooling": Pooling(values.get("pooling", "gem"))})


def load_run(path: Path) -> CopyModel:
    metadata, state = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: its metadata does not say {FORMAT}; expected a model that train.py wrote")
    try:
        model = CopyModel(_read_config(metadata["config"]))
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: its configuration and weights cannot be used ({reason}); train it again") from error
    return model.eval()


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return metadata and tensors, float16 ones as float32. Raises InputError if the file is damaged."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no mapping
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file, or cut short ({error}); write it again") from error
    return metadata, {k: v.float() if v.dtype is torch.float16 else v for k, v in tensors.items()}


def describe(model: CopyModel) -> dict[str, str]:
    """Return what identifies a model's output: name, weight hash, preprocessing, dimension, GeM power, code version."""
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
