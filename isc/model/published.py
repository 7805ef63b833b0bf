"""Published weights of the field, read without running any code of a file."""

from __future__ import annotations

import re
import zipfile
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isc.errors import InputError
from isc.model.download import PUBLISHED

SUFFIXES = (".pt", ".pth", ".pth.tar")
SSCD = {"backbone.conv1.weight", "backbone.fc.weight", "backbone.fc.bias"}  # tensor names that identify a layout
WINNER = {"backbone.conv_stem.weight", "fc.weight", "bn.weight"}
Settings = dict[str, Any]  # fields of ModelConfig
State = dict[str, Tensor]  # names as in CopyModel


def read_checkpoint(path: Path) -> tuple[Settings, State]:
    """Return the settings and the weights of a published file.

    Raises InputError if it is none, with the file to use instead.
    """
    loaded = _load(path)
    state = _state_of(loaded, path)
    if state.keys() >= SSCD:
        return _sscd(state, path=path)
    if state.keys() >= WINNER:
        return _isc21_winner(state, arch=loaded.get("arch"), path=path)
    if "embeddings.1.weight" in state:
        raise InputError(
            f"{path}: SSCD's weights in Classy Vision's names; expected the .torchvision.pt of the same name "
            "(sscd_disc_large has none)"
        )
    names = ", ".join(list(state)[:3])
    raise InputError(f"{path}: {len(state)} tensors named {names}, …, a layout not known; expected {PUBLISHED}")


def read_state(path: Path) -> State:
    """Return {name: tensor} of any torch.save file, from its `state_dict`, and without `module.` before the names."""
    return _state_of(_load(path), path)


def is_published(state: State) -> bool:
    """Return whether `read_checkpoint` knows a file with these tensors."""
    return state.keys() >= SSCD or state.keys() >= WINNER


def _state_of(loaded: Mapping[str, Any], path: Path) -> State:
    held = loaded.get("state_dict", loaded)
    if not isinstance(held, Mapping) or not held:
        raise InputError(f"{path}: no weights in it; expected {PUBLISHED}")
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{path}: {name} is {type(value).__name__}, no tensor; expected {PUBLISHED}")
    return {name.removeprefix("module."): value for name, value in held.items()}


def _sscd(state: State, *, path: Path) -> tuple[Settings, State]:
    settings = {
        "backbone": "resnet50",
        "dim": _length(state["backbone.fc.weight"], path=path),
        "gem_power": 3.0,
        "batch_norm": False,
        "conv_head": True,
        "image_size": 320,
    }
    return settings, _renamed(state, {"backbone.fc.": "linear."})


def _isc21_winner(state: State, *, arch: object, path: Path) -> tuple[Settings, State]:
    if arch not in (None, "tf_efficientnetv2_m_in21ft1k", "tf_efficientnetv2_m.in21k_ft_in1k"):
        raise InputError(f"{path}: arch={arch}; expected tf_efficientnetv2_m_in21ft1k, that of isc_ft_v107.pth.tar")
    settings = {
        "backbone": "tf_efficientnetv2_m",
        "dim": _length(state["fc.weight"], path=path),
        "gem_power": 1.0,  # of features clamped above 0, as in GeM, so not the plain mean
        "batch_norm": True,
        "conv_head": False,
        "image_size": 512,
    }
    return settings, _renamed(state, {"fc.": "linear.", "bn.": "norm."})


def _length(projection: Tensor, *, path: Path) -> int:
    """Return the output dimension of a projection [dim, channels]."""
    if projection.ndim != 2:
        raise InputError(f"{path}: its fc.weight has shape {tuple(projection.shape)}; expected [dim, channels]")
    return len(projection)


def _renamed(state: State, prefixes: Mapping[str, str]) -> State:
    """Return the same tensors, with the first prefix that fits a name replaced; other names stay."""
    renamed = {}
    for name, value in state.items():
        old = next((old for old in prefixes if name.startswith(old)), "")
        renamed[prefixes.get(old, "") + name.removeprefix(old)] = value
    return renamed


def _load(path: Path) -> Mapping[str, Any]:
    """Return the content of a torch.save file, if it has only tensors, numbers, strings and their containers.

    `argparse.Namespace`, a container of names and values that training scripts save beside their weights, is allowed.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"{path}: expected a file ending in {', '.join(SUFFIXES)}")
    if _is_torchscript(path):
        raise InputError(
            f"{path}: a TorchScript program, and programs are not run; expected weights alone, for SSCD the "
            ".torchvision.pt of the same name"
        )
    try:
        with torch.serialization.safe_globals([Namespace]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types, depending on the damage
        raise InputError(f"{path}: {_why_unreadable(error)}") from error
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path}: holds a {type(loaded).__name__}; expected {PUBLISHED}")
    return loaded


def _is_torchscript(path: Path) -> bool:
    """Return whether the file is a TorchScript archive: only those have a table of constants."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # of many types, depending on the damage; torch.load says what is wrong
        return False


def _why_unreadable(error: Exception) -> str:
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named:
        return (
            f"asks for {named[1]} to be run, and no code of a file is run; expected tensors alone, as "
            "torch.save(model.state_dict(), FILE) writes them"
        )
    return f"not a file of torch.save, or cut short ({type(error).__name__}); get the file again"


def without_conv_head(backbone: Any) -> Any:
    """Make a timm EfficientNet end with its last block: `conv_head` and `bn2` become identities.

    The given network is changed, as by `load_into`; `num_features` becomes that of the last block. Raises InputError
    for another network.
    """
    last = getattr(backbone, "conv_head", None)
    if not isinstance(last, nn.Conv2d | nn.Identity):
        raise InputError(
            f"model.conv_head=false: {type(backbone).__name__} has no such layer; expected an EfficientNet"
        )
    if isinstance(last, nn.Conv2d):
        backbone.num_features = last.in_channels
        backbone.conv_head, backbone.bn2 = nn.Identity(), nn.Identity()
    return backbone


def load_into(model: nn.Module, state: Mapping[str, Tensor], *, path: Path) -> None:
    """Load these weights into the model.

    Counters of batches, which some files leave out and no descriptor depends on, may be missing. Raises InputError that
    names missing tensors, unexpected tensors and wrong shapes.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in own]
    if missing or unknown:
        raise InputError(f"{path}: does not fit the model: missing {_some(missing)}; unexpected {_some(unknown)}")
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise InputError(f"{path}: {name} has shape {tuple(value.shape)}; expected {tuple(own[name].shape)}")
    try:
        require_numbers(own, state)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    model.load_state_dict(own | dict(state))


def require_numbers(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise ValueError for weights of another kind than the model's `own`, such as integers, or not all finite."""
    for name, value in state.items():
        if value.is_floating_point() != own[name].is_floating_point():
            raise ValueError(f"{name} is of type {value.dtype}; expected {own[name].dtype}")
        if not torch.isfinite(value.to(own[name].dtype)).all():
            raise ValueError(f"{name} has NaN or infinite values; expected finite numbers")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "") if listed else "nothing"
