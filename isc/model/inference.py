"""Networks that turn pictures into descriptors, with any runtime, on any device."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isc.config.choices import Precision, Runtime
from isc.errors import InputError
from isc.model.copy_model import CopyModel
from isc.model.device import choose_device, compiled, one_thread, place, reduced_precision
from isc.model.download import fetch, is_url
from isc.model.files import describe
from isc.model.load import load_model
from isc.model.onnx import OnnxModel, load_onnx
from isc.photos.decode import read_image
from isc.photos.folders import SAMPLE
from isc.photos.resizing import resize

log = logging.getLogger(__name__)

GROUPS = {Precision.bfloat16: (8, 2)}  # small, large pictures that a core embeds at a time (docs/decisions.md)
GROUP = (2, 2)  # the same for other precisions; larger groups are no faster
SMALL = 320  # the largest side of a small picture, in pixels
FAITHFUL = 0.9995  # cosine with the float32 descriptor that a reduced precision must keep
UNSAID = 224  # side in pixels for a network of any size whose file names none
TRIED = 16  # sample photos that this cosine is measured on


@dataclass(frozen=True)
class InferenceModel:
    """A network that turns pictures into descriptors.

    call: uint8 [B, 3, S, S] RGB in 0…255 → float32 [B, dim] of unit length, both on the device.
    """

    forward: Callable[[Tensor], Tensor]
    dim: int
    image_size: int  # default side of the pictures, in pixels
    device: torch.device
    precision: Precision = Precision.float32
    provenance: Mapping[str, str] = field(default_factory=dict)
    only_size: int | None = None  # the only possible side, in pixels, if fixed
    plain: Callable[[Tensor], Tensor] | None = None  # if `forward` is compiled, the function before
    groups: tuple[int, int] = GROUP  # small, large pictures that a CPU core embeds at a time

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        return self.forward(pictures.contiguous(memory_format=torch.channels_last)).float()

    def check_size(self, side: int) -> None:
        """Raise InputError unless the network takes squares of this side, in pixels."""
        if self.only_size not in (None, side):
            raise InputError(
                f"the model takes pictures of {self.only_size} px alone; expected no other, such as {side}"
            )

    def group(self, side: int) -> int:
        """Return how many pictures of this side, in pixels, one CPU core embeds at a time."""
        small, large = self.groups
        return small if side <= SMALL else large


def load_inference_model(
    name: str,
    *,
    device: torch.device | str = "auto",
    runtime: Runtime = Runtime.torch,
    precision: Precision = Precision.float32,
    compile: bool = False,
    image_size: int | None = None,
) -> InferenceModel:
    """Load the network of an ONNX file, or of anything that `isc.model.load.load_model` takes, with this runtime.

    `device` is `auto`, `cpu`, `cuda` or a device of torch. `image_size` is the side in pixels of the pictures to come,
    if it is not the model's. Raises InputError if the name, or an option, is not available.
    """
    device = choose_device(device) if isinstance(device, str) else device
    path = str(fetch(name)) if is_url(name) else name
    if path.lower().endswith(".onnx"):
        return _by_runtime(Path(path), runtime, precision, device)
    model = place(load_model(path), device)
    if runtime is Runtime.torch:
        network = torch_inference_model(model, precision=precision, image_size=image_size, compile=compile)
        return replace(network, provenance=describe(model))
    _refuse_reduced(runtime, precision)
    from isc.model.export import to_runtime

    size = image_size or model.config.image_size
    converted = to_runtime(model, runtime=runtime.value, image_size=size)
    network = _of_onnx(converted, model.config.image_size, converted.image_size if converted.size else None)
    return replace(network, provenance=describe(model))


def _by_runtime(path: Path, runtime: Runtime, precision: Precision, device: torch.device) -> InferenceModel:
    """Load the network of an ONNX file with OpenVINO if it is requested, else with ONNX Runtime."""
    _refuse_reduced(runtime, precision)
    chosen = Runtime.onnxruntime if runtime is Runtime.torch else runtime
    if device.type == "cuda":
        log.info("%s: ONNX files run on the CPU here", path)
    model = load_onnx(path, runtime=chosen.value)
    return _of_onnx(model, model.image_size or UNSAID, model.image_size if model.size else None)


def _of_onnx(model: OnnxModel, size: int, only_size: int | None) -> InferenceModel:
    cpu = torch.device("cpu")
    return InferenceModel(model, model.dim, size, cpu, provenance=model.describe(), only_size=only_size)


def _refuse_reduced(runtime: Runtime, precision: Precision) -> None:
    if precision not in (Precision.auto, Precision.float32):
        raise InputError(f"precision={precision.value}: runtime={runtime.value} computes in float32; leave it out")


def torch_inference_model(
    model: CopyModel,
    *,
    precision: Precision = Precision.float32,
    image_size: int | None = None,
    compile: bool = False,
) -> InferenceModel:
    """Return the network of a model that is already on its device; the model itself is not changed.

    precision auto is the fastest there (float16 on a GPU, bfloat16 on a CPU that multiplies it) if the descriptors of
    some photos at `image_size` keep a cosine of at least `FAITHFUL` with those of float32, else float32. Raises
    InputError for float16 on a CPU.
    """
    device = next(model.parameters()).device
    if precision is Precision.float16 and device.type == "cpu":
        raise InputError("precision=float16 is for GPUs; on a CPU use auto, bfloat16 or float32")
    exact = InferenceModel(place(model.eval(), device), model.config.dim, model.config.image_size, device)
    chosen = reduced_precision(device) if precision is Precision.auto else precision
    network = exact if chosen is Precision.float32 else _reduced(exact, model, chosen)
    if precision is Precision.auto and network is not exact:
        kept = least_cosine(exact, network, image_size or exact.image_size)
        if kept < FAITHFUL:
            log.info("precision=float32: %s would leave a cosine of only %.5f", chosen.value, kept)
            network = exact
    if not compile:
        return network
    return replace(network, forward=compiled(network.forward, device, key="compile"), plain=network.forward)


def least_cosine(one: InferenceModel, other: InferenceModel, image_size: int) -> float:
    """Return the smallest cosine between the two networks' descriptors of `TRIED` photos."""
    paths = sorted(SAMPLE.glob("*.jpg"))[:TRIED]
    pictures = torch.from_numpy(np.stack([resize(read_image(path), image_size) for path in paths])).permute(0, 3, 1, 2)
    with one_thread():
        a, b = (network(pictures.to(network.device)).cpu() for network in (one, other))
    return float(F.cosine_similarity(a, b).min())


def _reduced(exact: InferenceModel, model: CopyModel, precision: Precision) -> InferenceModel:
    """Return the network in float16 or bfloat16; with bfloat16 its first layers stay in float32."""
    dtype = torch.float16 if precision is Precision.float16 else torch.bfloat16
    reduced = copy.deepcopy(model).eval()
    if precision is Precision.bfloat16:
        _keep_early_layers(reduced)
    forward = _Autocast(place(reduced, exact.device), dtype)
    return replace(exact, forward=forward, precision=precision, groups=GROUPS.get(precision, GROUP))


class _Autocast(nn.Module):
    """Convolutions and products in less than float32; the model itself pools, normalises and ends in float32."""

    def __init__(self, model: CopyModel, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, pictures: Tensor) -> Tensor:
        with torch.autocast(pictures.device.type, self.dtype):
            found: Tensor = self.model(pictures)
        return found


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
