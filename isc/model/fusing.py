"""Batch norms folded into the convolutions before them, for inference on a GPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from isc.model.copy_model import CopyModel

CLOSE = 0.99999  # cosine with the descriptors of the layers as they were


def fused(model: CopyModel) -> CopyModel:
    """Return a copy of a model in evaluation mode, with each batch norm folded into the convolution whose output it is.

    Which convolution that is, a run on one picture shows. The model itself is returned if the descriptors would differ,
    as they do if the output of such a convolution is used elsewhere too.
    """
    device = next(model.parameters()).device
    size = model.config.image_size
    pictures = torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(0)).to(device)
    changed = copy.deepcopy(model).eval()
    with torch.inference_mode():
        pairs = _pairs(changed, pictures)
    with torch.no_grad():
        for convolution, norm in pairs:
            if getattr(changed.get_submodule(norm), "affine", False):
                _fold(changed, convolution, norm)
    with torch.inference_mode():
        cosine = F.cosine_similarity(model(pictures), changed(pictures)).min()
    return changed if bool(cosine >= CLOSE) else model


def _pairs(model: CopyModel, pictures: Tensor) -> list[tuple[str, str]]:
    """Return the names of each convolution and of the batch norm that receives its output."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors themselves, so that no memory is used again
    found: list[tuple[str, str]] = []

    def after(name: str) -> object:
        return lambda _module, _given, output: made.__setitem__(id(output), (name, output))

    def before(name: str) -> object:
        return lambda _module, given: found.append((made[id(given[0])][0], name)) if id(given[0]) in made else None

    hooks = [module.register_forward_hook(after(name)) for name, module in _of(model, nn.Conv2d)]  # type: ignore[arg-type]
    hooks += [module.register_forward_pre_hook(before(name)) for name, module in _of(model, _BatchNorm)]  # type: ignore[arg-type]
    try:
        model(pictures)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _of(model: nn.Module, kind: type[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, kind))


def _fold(model: nn.Module, convolution: str, norm: str) -> None:
    """Replace both layers; what timm's batch norm does besides, dropping and activating, stays."""
    old = model.get_submodule(norm)
    assert isinstance(old, _BatchNorm)
    one = model.get_submodule(convolution)
    assert isinstance(one, nn.Conv2d)
    plain = nn.BatchNorm2d(old.num_features, eps=old.eps, device=one.weight.device).eval()
    plain.load_state_dict(old.state_dict())
    _put(model, convolution, _like(one, fuse_conv_bn_eval(one, plain)))
    rest = [getattr(old, name) for name in ("drop", "act") if hasattr(old, name)]
    _put(model, norm, nn.Sequential(*rest) if rest else nn.Identity())


def _like(one: nn.Conv2d, folded: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution of the first one's class, whose padding may be its own, with the folded weights."""
    one.weight, one.bias = folded.weight, folded.bias
    return one


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
