"""Networks for inference by name: with ONNX Runtime where that is possible, so that torch need not be loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from isc.config.choices import Precision, Runtime
from isc.data.model_files import SHIPPED
from isc.errors import InputError, needing
from isc.model.download import fetch, is_url
from isc.model.inference import InferenceModel
from isc.model.onnx import OnnxModel, load_onnx
from isc.runtime.gpus import may_have_gpu

if TYPE_CHECKING:
    import torch

DEFAULT_MODEL = "isc_small"
UNSAID = 224  # side in pixels for a network of any size whose file names none


def load_inference_model(
    name: str,
    *,
    device: torch.device | str = "auto",
    runtime: Runtime = Runtime.auto,
    precision: Precision = Precision.float32,
    compile: bool = False,
    image_size: int | None = None,
) -> InferenceModel:
    """Load the network of an ONNX file, or of anything that `isc.model.load.load_model` takes, with this runtime.

    `device` is `auto`, `cpu`, `cuda`, `cuda:N` or a device of torch. `image_size` is the side in pixels of the pictures
    to come, if it is not the model's. On a CPU, `isc_small` is the package's own ONNX file unless runtime is torch: it
    has the descriptors of the original (cosine ≥ 0.9999), starts without torch, and is faster. Raises InputError if the
    name, or an option, is not available.
    """
    path = str(fetch(name)) if is_url(name) else name
    if path.lower().endswith(".onnx"):
        _refuse_reduced(runtime, precision)
        return _by_runtime(Path(path), runtime)
    if runtime is not Runtime.torch and _runs_without_torch(name, device, precision, compile):
        return _by_runtime(SHIPPED / f"{name}.onnx", runtime, trusted=True)
    return _with_torch(path, device, runtime, precision, compile=compile, image_size=image_size)


def _runs_without_torch(name: str, device: torch.device | str, precision: Precision, compile: bool) -> bool:
    """Return whether the package has an ONNX file of this model, and no option asks for more than a CPU."""
    if not (SHIPPED / f"{name}.onnx").is_file() or compile or precision not in (Precision.auto, Precision.float32):
        return False
    return str(device) == "cpu" or (str(device) == "auto" and not may_have_gpu())


def _with_torch(
    path: str,
    device: torch.device | str,
    runtime: Runtime,
    precision: Precision,
    *,
    compile: bool,
    image_size: int | None,
) -> InferenceModel:
    with needing("runtime=torch" if runtime is Runtime.torch else f"model={path}", extra="train"):
        from isc.model.device import choose_device, place
        from isc.model.files import describe
        from isc.model.load import load_model
        from isc.model.torch_inference import torch_inference_model

    on = choose_device(device) if isinstance(device, str) else device
    model = place(load_model(path), on)
    if runtime in (Runtime.auto, Runtime.torch):
        network = torch_inference_model(model, precision=precision, image_size=image_size, compile=compile)
        return replace(network, provenance=describe(model))
    _refuse_reduced(runtime, precision)
    from isc.model.export import to_runtime

    size = image_size or model.config.image_size
    converted = to_runtime(model, runtime=runtime.value, image_size=size)
    found = _of_onnx(converted, model.config.image_size, converted.image_size if converted.size else None)
    return replace(found, provenance=describe(model))


def _by_runtime(path: Path, runtime: Runtime, *, trusted: bool = False) -> InferenceModel:
    """Load the network of an ONNX file with OpenVINO if it is requested, else with ONNX Runtime."""
    chosen = Runtime.openvino if runtime is Runtime.openvino else Runtime.onnxruntime
    model = load_onnx(path, runtime=chosen.value, trusted=trusted)
    return _of_onnx(model, model.image_size or UNSAID, model.image_size if model.size else None)


def _of_onnx(model: OnnxModel, size: int, only_size: int | None) -> InferenceModel:
    return InferenceModel(model, model.dim, size, provenance=model.describe(), only_size=only_size)


def _refuse_reduced(runtime: Runtime, precision: Precision) -> None:
    if precision not in (Precision.auto, Precision.float32):
        raise InputError(f"precision={precision.value}: runtime={runtime.value} computes in float32; leave it out")
