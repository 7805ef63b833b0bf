"""Networks of torch that turn pictures into descriptors, on any device, in any precision."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isc.config.choices import Precision
from isc.errors import InputError
from isc.model.copy_model import CopyModel
from isc.model.device import compiled, one_thread, place, reduced_precision
from isc.model.fusing import fused
from isc.model.inference import InferenceModel, Pictures, Vectors
from isc.photos.decode import read_image
from isc.photos.folders import SAMPLE
from isc.photos.resizing import resize

log = logging.getLogger(__name__)

CPU = torch.device("cpu")
GROUPS = {Precision.bfloat16: (8, 2)}  # small, large pictures that a core embeds at a time (docs/decisions.md)
FAITHFUL = 0.9995  # cosine with the float32 descriptor that a reduced precision must keep
TRIED = 16  # sample photos that this cosine is measured on


@dataclass(frozen=True)
class TorchModel(InferenceModel):
    """A network of torch, on any of its devices.

    call, forward: uint8 [B, 3, S, S] RGB in 0…255 → float32 [B, dim] of unit length, tensors on the device.
    """

    device: torch.device = CPU
    plain: Callable[[Tensor], Tensor] | None = None  # if `forward` is compiled, the function before

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def device_name(self) -> str:
        return str(self.device)

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        with _fastest_convolutions(self.device):
            found: Tensor = self.forward(pictures.contiguous(memory_format=torch.channels_last))
        return found.float()

    def embed(self, pictures: Pictures) -> Vectors:
        with one_thread():
            return super().embed(pictures)

    def _run(self, pictures: Pictures) -> Vectors:
        return self(torch.from_numpy(pictures).to(self.device)).cpu().numpy()


def _fastest_convolutions(device: torch.device) -> AbstractContextManager[None]:
    """Let cuDNN try its kernels once for each shape, and keep float32 whole: by itself it multiplies in TF32."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)


def torch_inference_model(
    model: CopyModel,
    *,
    precision: Precision = Precision.float32,
    image_size: int | None = None,
    compile: bool = False,
) -> TorchModel:
    """Return the network of a model that is already on its device; the model itself is not changed.

    precision auto is the fastest there (float16 on a GPU, bfloat16 on a CPU that multiplies it) if the descriptors of
    some photos at `image_size` keep a cosine of at least `FAITHFUL` with those of float32, else float32. Raises
    InputError for float16 on a CPU.
    """
    device = next(model.parameters()).device
    if precision is Precision.float16 and device.type == "cpu":
        raise InputError("precision=float16 is for GPUs; on a CPU use auto, bfloat16 or float32")
    chosen = reduced_precision(device) if precision is Precision.auto else precision
    placed = place(model.eval(), device)
    if device.type == "cuda" and chosen is not Precision.bfloat16:  # whose 8 digits are too few for folded weights
        model = placed = place(fused(placed), device)
    exact = TorchModel(placed, model.config.dim, model.config.image_size, device=device)
    network = exact if chosen is Precision.float32 else _reduced(exact, model, chosen)
    if precision is Precision.auto and network is not exact:
        kept = least_cosine(exact, network, image_size or exact.image_size)
        if not kept >= FAITHFUL:  # NaN too, after an overflow
            log.info("precision=float32: %s would leave a cosine of only %.5f", chosen.value, kept)
            network = exact
    if not compile:
        return network
    return replace(network, forward=compiled(network.forward, device, key="compile"), plain=network.forward)


def least_cosine(one: TorchModel, other: TorchModel, image_size: int) -> float:
    """Return the smallest cosine between the two networks' descriptors of `TRIED` photos."""
    paths = sorted(SAMPLE.glob("*.jpg"))[:TRIED]
    pictures = torch.from_numpy(np.stack([resize(read_image(path), image_size) for path in paths])).permute(0, 3, 1, 2)
    with one_thread():
        a, b = (network(pictures.to(network.device)).cpu() for network in (one, other))
    return float(F.cosine_similarity(a, b).min())


def _reduced(exact: TorchModel, model: CopyModel, precision: Precision) -> TorchModel:
    """Return the network in float16 or bfloat16; with bfloat16 its first layers stay in float32."""
    dtype = torch.float16 if precision is Precision.float16 else torch.bfloat16
    reduced = copy.deepcopy(model).eval()
    if precision is Precision.bfloat16:
        _keep_early_layers(reduced)
    if exact.on_gpu:
        cast_weights(reduced.backbone, dtype)
    forward = _Autocast(place(reduced, exact.device), dtype)
    return replace(exact, forward=forward, precision=precision, groups=GROUPS.get(precision, exact.groups))


def cast_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Store the weights of convolutions and products as autocast would cast them for every batch."""
    kept = {id(module.layer) for module in network.modules() if isinstance(module, _InFloat32)}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and id(module) not in kept:
            module.to(dtype)


class _Autocast(nn.Module):
    """The backbone and its projection in less than float32; pooling, whitening, background and norm in float32."""

    def __init__(self, model: CopyModel, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, pictures: Tensor) -> Tensor:
        with torch.autocast(pictures.device.type, self.dtype):
            projected = self.model.project(pictures)
        return self.model.described(projected)


class _InFloat32(nn.Module):
    """A layer that autocast does not change."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            found: Tensor = self.layer(x.float())
        return found


def _keep_early_layers(model: CopyModel) -> None:
    """Keep the convolutions and products of the stem and of the first blocks, and the last product, in float32.

    The 8 binary digits of bfloat16 cost the most accuracy there (docs/decisions.md).
    """
    early = {id(parameter) for parameter in model.early_parameters()} | {id(model.linear.weight)}
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d | nn.Linear) and id(layer.weight) in early:
                setattr(parent, name, _InFloat32(layer))
