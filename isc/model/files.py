"""The model file model.safetensors: weights, configuration and provenance."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from isc import __version__
from isc.config.choices import Pooling
from isc.config.train import GONE, ModelConfig
from isc.data.files import atomic_path
from isc.data.json_files import Fields, parse_json
from isc.errors import InputError
from isc.model.copy_model import CopyModel
from isc.model.published import require_numbers

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
    values = dict(Fields(parse_json(text), "config").values)
    for name, now in GONE.items():
        if (value := values.pop(name.removeprefix("model."), now)) != now:
            raise InputError(f"{name}={value}, a key that is gone; expected {now}")
    values.setdefault("pooling", Pooling.gem.value)
    known = {one.name: one.default for one in dataclasses.fields(ModelConfig)}
    for name, value in values.items():
        wanted = str if name == "pooling" else type(known.get(name))
        if name not in known or not (type(value) is wanted or (wanted is float and type(value) is int)):
            raise ValueError(
                f"config.{name} is {value!r}; expected {'no such key' if name not in known else wanted.__name__}"
            )
    return ModelConfig(**values | {"pooling": Pooling(values["pooling"])})


def _check_sizes(config: ModelConfig, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the tensors have the sizes of the configuration, before memory is taken for these."""
    for name, size in (("linear.weight", config.dim), ("background", config.background), ("center", config.dim)):
        if name in state and (not state[name].ndim or len(state[name]) != size):
            raise ValueError(f"{name} has shape {tuple(state[name].shape)}; expected {size} rows by the configuration")
    if "linear.weight" not in state:
        raise ValueError("it has no linear.weight")
    if ("background" in state) != bool(config.background):
        raise ValueError(f"config.background is {config.background}; expected it as in the tensors")


def load_run(path: Path) -> CopyModel:
    metadata, state = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: its metadata does not say {FORMAT}; expected a model that train.py wrote")
    try:
        config = _read_config(metadata["config"])
        _check_sizes(config, state)
        model = CopyModel(config)
        model.load_state_dict(state)
        require_numbers(model.state_dict(), state)
    except (KeyError, TypeError, ValueError, RuntimeError, MemoryError) as error:
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
