"""A network in an ONNX file, run by ONNX Runtime or by OpenVINO."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from isc import __version__
from isc.errors import InputError

Result = TypeVar("Result")
Array = npt.NDArray[Any]

FORMAT = "isc-onnx-1"  # `isc_format` in the metadata of the files that isc-export writes
# pictures a run on a CPU, the quickest (docs/onnx.md); always as many, as the last bits may depend on it
GROUPS = {"onnxruntime": 1, "openvino": 2}
RUNTIMES = tuple(GROUPS)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PROBE_SIZE = 224  # pixels of the picture that a network without a size of its own is tried with
# element types of ONNX that pictures can be given as
ELEMENTS = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(uint8)": torch.uint8}

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """Pictures → descriptors, by a network in an ONNX file.

    call: uint8 or float [B, 3, H, W] RGB in 0…255 → float32 [B, dim] of unit length, on the CPU, without gradient.
    It may be called in any process that this one forks or that it is pickled to: each opens the network for itself, on
    its first call. OpenVINO hangs in a process forked after it was used, which is refused here; so let a process that
    will fork workers not call it before.
    """

    path: Path  # the file, or the name of what it was converted from
    dim: int
    size: tuple[int, int] | None  # height and width in pixels of the only pictures it takes; None where any will do
    metadata: Mapping[str, str]
    element: torch.dtype  # what it is given: uint8 as they are, floats normalised by `mean` and `std`
    runs: _Runs
    batch: int | None  # pictures a run; fewer are filled up; None: all that are given
    _engines: dict[int, _Engine] = field(default_factory=dict, repr=False, compare=False)  # by process

    @property
    def image_size(self) -> int | None:
        """Side in pixels of the squares it is meant for: the one it takes, or the one its file names; None where it
        says neither. InputError where it takes no squares."""
        if self.size is None:
            return int(self.metadata["image_size"]) if "image_size" in self.metadata and self.is_ours else None
        if self.size[0] != self.size[1]:
            self.runs.refuse(f"takes pictures of {_by(self.size)}; expected squares")
        return self.size[0]

    @property
    def is_ours(self) -> bool:
        """Whether isc-export wrote it."""
        return self.metadata.get("isc_format") == FORMAT

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        self.check_size((pictures.shape[2], pictures.shape[3]))
        given = self._prepared(pictures).numpy()
        step = self.batch or max(1, len(given))
        found = [self._run(given[at : at + step], step) for at in range(0, len(given), step)]
        vectors = torch.from_numpy(np.concatenate([np.zeros((0, self.dim), np.float32), *found]))
        if not bool(torch.isfinite(vectors).all()):
            self.runs.refuse("gives descriptors that are not finite; expected another model")
        return F.normalize(vectors)

    def apart(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """The same for several batches, in a process of its own where that can be: this one may still be forked."""
        return _apart(lambda: [self(pictures) for pictures in batches], self.runs)

    def check_size(self, size: tuple[int, int]) -> None:
        """InputError unless it takes pictures of this height and width."""
        if self.size not in (None, size):
            self.runs.refuse(f"takes pictures of {_by(self.size)} alone; expected no other size, such as {_by(size)}")

    def describe(self) -> dict[str, str]:
        """What identifies its output, as `isc.model.describe` says it: of a file of ours that of the model which was
        exported, so that the descriptors of both may be compared; of another one that of the file."""
        if self.is_ours:
            kept = ("model", "weights_sha256", "preprocessing", "gem_power")
            return {name: self.metadata[name] for name in kept} | {"dim": str(self.dim), "code_version": __version__}
        mean, std = ([round(v, 6) for v in values.flatten().tolist()] for values in self._normalisation)
        values = "0…255" if self.element is torch.uint8 else f"(x / 255 − {mean}) / {std}"
        return {
            "model": self.path.name,
            "weights_sha256": _digest(self.path),
            "preprocessing": f"RGB, squeezed to a square (area-averaged or bilinear), {values}",
            "dim": str(self.dim),
            "gem_power": "unknown",
            "code_version": __version__,
        }

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_engines": {}}

    @property
    def _normalisation(self) -> tuple[Tensor, Tensor]:
        return _normalisation(self.runs, self.metadata)

    def _prepared(self, pictures: Tensor) -> Tensor:
        x = pictures.cpu().contiguous()
        if self.element is torch.uint8:
            return x if x.dtype is torch.uint8 else x.float().round().clamp(0, 255).to(torch.uint8)
        mean, std = self._normalisation
        return ((x.float() / 255 - mean) / std).to(self.element)

    def _run(self, pictures: Array, batch: int) -> npt.NDArray[np.float32]:
        # engines of the processes that this one was forked from are kept: closing them would wait for their threads
        if os.getpid() not in self._engines:
            self._engines[os.getpid()] = self.runs.open()
        return _run(self.runs, self._engines[os.getpid()], pictures, batch)


def load_onnx(
    path: Path,
    *,
    runtime: str = "onnxruntime",
    threads: int = 1,
    device: torch.device | None = None,
    together: bool | None = None,
    content: bytes | None = None,
    key: str = "model",
) -> OnnxModel:
    """The network of an ONNX file: one input [B, 3, H, W] of floats or uint8, whose first output is [B, D].

    On a CPU, pictures are given to it a fixed few at a time, and with one thread a picture's descriptor has the same
    bits whatever else is in the batch. With `together` they are given to it all at once, which is faster on a GPU
    (where it is the default) or with many threads. CUDA is used where `device` is one and onnxruntime has it. `content`
    are the bytes of the file where they are at hand; then `path` only names it. `key` is the option that names it in
    messages.

    It is opened and tried once, on the CPU in a process of its own, so that this one may be forked. InputError where
    the file cannot be used or the runtime is not installed.
    """
    cuda = device is not None and device.type == "cuda"
    if runtime not in RUNTIMES:
        raise InputError(f"runtime={runtime}; expected one of {', '.join(RUNTIMES)}")
    if runtime == "openvino" and cuda:
        raise InputError("runtime=openvino: works on CPUs; expected device=cpu, or runtime=onnxruntime")
    if content is None and not path.is_file():
        raise InputError(f"{key}={path}: no such file; expected a .onnx file or a model")
    runs = _Runs(path, key, runtime, threads, cuda, content)
    found = _apart(lambda: _signature(runs), runs)
    everything = cuda if together is None else together
    batch = found.batch or (None if everything else GROUPS[runtime])
    model = OnnxModel(path, found.dim, found.size, found.metadata, found.element, runs, batch)
    if model.is_ours and (missing := {"model", "weights_sha256", "preprocessing", "gem_power"} - set(found.metadata)):
        runs.refuse(f"its metadata lacks {', '.join(sorted(missing))}; export it again")
    return model


# --- what a file takes and gives -------------------------------------------------------------------------------------


class _Input(NamedTuple):
    name: str
    element: str  # as ONNX Runtime writes it
    shape: list[int | None]  # None where any size will do


class _Signature(NamedTuple):
    element: torch.dtype
    batch: int | None
    size: tuple[int, int] | None
    dim: int
    metadata: dict[str, str]


class _Engine(Protocol):
    """An opened network. `run` takes pictures [B, 3, H, W] and gives the first output."""

    inputs: list[_Input]
    metadata: dict[str, str]

    def run(self, pictures: Array) -> Array: ...


@dataclass(frozen=True)
class _Runs:
    """How a network is opened: everything but the process that does it."""

    path: Path
    key: str
    runtime: str
    threads: int
    cuda: bool
    content: bytes | None = field(repr=False)

    def open(self) -> _Engine:
        return _OnnxRuntime(self) if self.runtime == "onnxruntime" else _OpenVino(self)

    def refuse(self, what: str, cause: Exception | None = None) -> NoReturn:
        raise InputError(f"{self.key}={self.path}: {what}") from cause


def _signature(runs: _Runs) -> _Signature:
    """What the network takes and gives, found by opening it and trying it on one black picture."""
    engine = runs.open()
    element, batch, size = _only_input(runs, engine.inputs)
    _normalisation(runs, engine.metadata)
    height, width = size or _named_size(runs, engine.metadata)
    kind = torch.zeros(0, dtype=element).numpy().dtype
    found = _run(runs, engine, np.zeros((1, 3, height, width), kind), batch or 1)
    return _Signature(element, batch, size, found.shape[1], engine.metadata)


def _only_input(runs: _Runs, inputs: Sequence[_Input]) -> tuple[torch.dtype, int | None, tuple[int, int] | None]:
    """Element type, batch size and (height, width) of the network's one input; None for those that it leaves open."""
    shape = inputs[0].shape if inputs else []
    if len(inputs) != 1 or len(shape) != 4 or shape[1] not in (3, None) or inputs[0].element not in ELEMENTS:
        found = ", ".join(f"{given.name} {given.element} {_shown(given.shape)}" for given in inputs)
        runs.refuse(f"takes {found or 'nothing'}; expected one input [B, 3, H, W] of floats or uint8")
    batch, _, height, width = shape
    if (height is None) != (width is None):
        runs.refuse(f"fixes one side of its pictures, {_shown(shape)}; expected both or neither")
    return ELEMENTS[inputs[0].element], batch, None if height is None or width is None else (height, width)


def _named_size(runs: _Runs, metadata: Mapping[str, str]) -> tuple[int, int]:
    """Of a picture to try it with, where it takes any."""
    if metadata.get("isc_format") != FORMAT:
        return PROBE_SIZE, PROBE_SIZE
    text = metadata.get("image_size", "")
    if not re.fullmatch("[1-9][0-9]{0,4}", text):
        runs.refuse(f"its metadata has image_size={text}; expected pixels")
    return int(text), int(text)


def _normalisation(runs: _Runs, metadata: Mapping[str, str]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [1, 3, 1, 1] of pixels in 0…1: the file's `mean` and `std`, or ImageNet's."""
    values = {}
    for name, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        text = metadata.get(name)
        try:
            numbers: Sequence[float] = default if text is None else json.loads(f"[{text.strip().strip('[]()')}]")
            values[name] = torch.tensor(numbers, dtype=torch.float32).view(1, 3, 1, 1)
        except (ValueError, TypeError, RuntimeError) as error:
            runs.refuse(f"its metadata has {name}={text}; expected three numbers", error)
    if not bool((values["std"] > 0).all()):
        runs.refuse(f"its metadata has std={metadata.get('std')}; expected numbers above 0")
    return values["mean"], values["std"]


def _run(runs: _Runs, engine: _Engine, pictures: Array, batch: int) -> npt.NDArray[np.float32]:
    """The first output for at most `batch` pictures, [B, 3, H, W] → float32 [B, D]; fewer are filled up with zeros."""
    full = pictures
    if len(pictures) < batch:
        full = np.zeros((batch, *pictures.shape[1:]), pictures.dtype)
        full[: len(pictures)] = pictures
    try:
        found = engine.run(full)
    except InputError:
        raise
    except Exception as error:  # of kinds of its own
        runs.refuse(f"fails on {full.shape} ({_line(error)}); export it again", error)
    if found.ndim != 2 or len(found) != len(full):
        runs.refuse(f"gives {found.shape} for {len(full)} pictures; expected [{len(full)}, D]")
    return found[: len(pictures)].astype(np.float32, copy=False)


def _digest(path: Path) -> str:
    """SHA-256 of the file, and of those beside it that hold its weights where it names such."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    for beside in sorted(_weight_files(path.read_bytes())):
        if (path.parent / beside).is_file():
            with (path.parent / beside).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _weight_files(content: bytes) -> Iterator[str]:
    """Names of files of weights: an ONNX tensor kept elsewhere has an entry {1: "location", 2: its name}."""
    names = {
        content[found.end() + 1 : found.end() + 1 + content[found.end()]]
        for found in re.finditer(rb"\x0a\x08location\x12(?=[\x01-\x7f])", content)
    }
    return (name.decode("utf-8", "replace") for name in names if b"\0" not in name)


def _shown(shape: Sequence[int | None]) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"


def _by(size: tuple[int, int] | None) -> str:
    return "any size" if size is None else f"{size[0]}×{size[1]}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# --- the runtimes ----------------------------------------------------------------------------------------------------


class _OnnxRuntime:
    def __init__(self, runs: _Runs) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            runs.refuse("ONNX files need onnxruntime; pip install onnxruntime, or 'isc[onnx]'", error)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = runs.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised as well
        providers = ["CPUExecutionProvider"]
        if runs.cuda and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        elif runs.cuda:
            log.warning("%s runs on the CPU: this onnxruntime has no CUDA; pip install onnxruntime-gpu", runs.path)
        try:
            self.session = onnxruntime.InferenceSession(runs.content or str(runs.path), options, providers=providers)
        except Exception as error:  # of kinds of its own
            runs.refuse(f"cannot be used as an ONNX model ({_line(error)}); export it again", error)
        self.inputs = [
            _Input(one.name, one.type, [side if isinstance(side, int) and side > 0 else None for side in one.shape])
            for one in self.session.get_inputs()
        ]
        self.metadata = dict(self.session.get_modelmeta().custom_metadata_map)
        self.output = self.session.get_outputs()[0].name

    def run(self, pictures: Array) -> Array:
        return np.asarray(self.session.run([self.output], {self.inputs[0].name: pictures})[0])


# of this process and those it was forked from, where they started OpenVINO; kept, as it crashes when it ends too early
_CORES: dict[int, Any] = {}
_OPENVINO_ELEMENTS = {"f32": "tensor(float)", "f16": "tensor(float16)", "u8": "tensor(uint8)"}


class _OpenVino:
    def __init__(self, runs: _Runs) -> None:
        if _CORES and os.getpid() not in _CORES:
            runs.refuse("this process was forked after OpenVINO had been used, and would hang; spawn it, or fork first")
        try:
            import openvino
        except ImportError as error:
            runs.refuse("runtime=openvino needs OpenVINO; pip install openvino, or 'isc[openvino]'", error)
        if os.getpid() not in _CORES:
            _CORES[os.getpid()] = openvino.Core()
        self.runs, self.core = runs, _CORES[os.getpid()]
        try:
            network = self._read()
            self.inputs = [
                _Input(
                    given.any_name,
                    _OPENVINO_ELEMENTS.get(given.element_type.get_type_name(), f"tensor({given.element_type})"),
                    [side.get_length() if side.is_static else None for side in given.partial_shape],
                )
                for given in network.inputs
            ]
            named = network.get_rt_info()
            self.metadata = {k: v.astype(str) for k, v in named["framework"].items()} if "framework" in named else {}
        except Exception as error:  # of kinds of its own
            runs.refuse(f"cannot be used as an ONNX model ({_line(error)}); export it again", error)
        self.here = threading.local()  # each thread has compiled networks of its own: one works on one at a time

    def _read(self) -> Any:
        return self.core.read_model(self.runs.content or str(self.runs.path))

    def run(self, pictures: Array) -> Array:
        if not hasattr(self.here, "requests"):
            self.here.requests = {}
        if pictures.shape not in self.here.requests:
            compiled = self._compiled(pictures.shape)
            self.here.requests[pictures.shape] = (compiled, compiled.create_infer_request())
        _, request = self.here.requests[pictures.shape]
        return np.array(request.infer({0: pictures})[0])

    def _compiled(self, shape: Sequence[int]) -> Any:
        """The network for pictures of this shape: known sizes are a sixth faster than open ones."""
        network = self._read()
        network.reshape(list(shape))
        options = {
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 on the CPUs that have it
            "INFERENCE_NUM_THREADS": self.runs.threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # else every process takes the same core
            "SNIPPETS_MODE": "DISABLE",  # no faster, and where softmax stands between products a crash
        }
        return self.core.compile_model(network, "CPU", options)


# --- processes -------------------------------------------------------------------------------------------------------


def _apart(function: Callable[[], Result], runs: _Runs) -> Result:
    """What the function returns, or raises, in a forked process of its own, with which the threads of a runtime end;
    in this one where a fork would break what it has begun: CUDA or OpenVINO."""
    if runs.cuda or os.getpid() in _CORES:
        return function()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)  # the threads of this process's pool were not forked
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(pickle.dumps(_outcome(function)))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        runs.refuse(f"{runs.runtime} crashed on it (status {os.waitstatus_to_exitcode(status)}); export it again")
    result, error = pickle.loads(answer)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _outcome(function: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
    try:
        return function(), None
    except Exception as error:  # raised again by the parent
        return None, error
