"""ONNX Runtime and OpenVINO behind one interface."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from isc.data.limited import StoppedError, limited
from isc.errors import InputError

Result = TypeVar("Result")
Array = npt.NDArray[Any]
# the fastest number of pictures per run on a CPU (docs/onnx.md); constant, because the last bits may depend on it
GROUPS = {"onnxruntime": 1, "openvino": 2}
RUNTIMES = tuple(GROUPS)
SECONDS = 600.0  # of one CPU, to try a network
MOST_MEMORY = 8 << 30  # bytes, of all networks of a process on the CPU together
MEMORY, TIMES = 4 << 30, 16  # bytes, and times the size of the file, that trying it may take
log = logging.getLogger(__name__)


class Input(NamedTuple):
    name: str
    element: str  # in ONNX Runtime's notation
    shape: list[int | None]  # None: any size


class Signature(NamedTuple):
    element: np.dtype[Any]
    batch: int | None
    size: tuple[int, int] | None
    dim: int
    metadata: dict[str, str]


class Engine(Protocol):
    """An opened network; `run` maps pictures [B, 3, H, W] to the network's first output."""

    inputs: list[Input]
    metadata: dict[str, str]

    def run(self, pictures: Array) -> Array: ...


@dataclass(frozen=True)
class Runs:
    """The settings that open a network, in any process."""

    path: Path
    key: str
    runtime: str
    threads: int
    cuda: bool
    content: bytes | None = field(repr=False)

    def open(self) -> Engine:
        return _OnnxRuntime(self) if self.runtime == "onnxruntime" else _OpenVino(self)

    def refuse(self, what: str, cause: Exception | None = None) -> NoReturn:
        raise InputError(f"{self.key}={self.path}: {what}") from cause


def run_engine(runs: Runs, engine: Engine, pictures: Array, batch: int) -> npt.NDArray[np.float32]:
    """Return the first output for at most `batch` pictures: [B, 3, H, W] → float32 [B, D].

    A smaller batch is padded with zeros. Raises InputError if the network fails, or its output has another shape.
    """
    full = pictures
    if len(pictures) < batch:
        full = np.zeros((batch, *pictures.shape[1:]), pictures.dtype)
        full[: len(pictures)] = pictures
    try:
        found = engine.run(full)
    except InputError:
        raise
    except Exception as error:  # runtimes raise exception types of their own
        runs.refuse(f"fails on {full.shape} ({_line(error)}); export it again", error)
    if found.ndim != 2 or len(found) != len(full):
        runs.refuse(f"gives {found.shape} for {len(full)} pictures; expected [{len(full)}, D]")
    return found[: len(pictures)].astype(np.float32, copy=False)


def shape_text(shape: Sequence[int | None]) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"


def size_text(size: tuple[int, int] | None) -> str:
    return "any size" if size is None else f"{size[0]}×{size[1]}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class _OnnxRuntime:
    def __init__(self, runs: Runs) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            runs.refuse("ONNX files need onnxruntime; pip install onnxruntime", error)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = runs.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised as well
        _limit_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
        providers = ["CPUExecutionProvider"]
        if runs.cuda and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        elif runs.cuda:
            log.warning("%s runs on the CPU: this onnxruntime has no CUDA; pip install onnxruntime-gpu", runs.path)
        try:
            self.session = onnxruntime.InferenceSession(runs.content or str(runs.path), options, providers=providers)
        except Exception as error:  # runtimes raise exception types of their own
            runs.refuse(f"cannot be used as an ONNX model ({_line(error)}); export it again", error)
        self.inputs = [
            Input(one.name, one.type, [side if isinstance(side, int) and side > 0 else None for side in one.shape])
            for one in self.session.get_inputs()
        ]
        self.metadata = dict(self.session.get_modelmeta().custom_metadata_map)
        self.output = self.session.get_outputs()[0].name

    def run(self, pictures: Array) -> Array:
        return np.asarray(self.session.run([self.output], {self.inputs[0].name: pictures})[0])


@cache
def _limit_memory() -> None:
    """Let the networks of this process take at most MOST_MEMORY between them, whatever a file asks for."""
    import onnxruntime

    where = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    usual = -1  # as onnxruntime has it
    settings = {"max_mem": MOST_MEMORY, "arena_extend_strategy": usual, "initial_chunk_size_bytes": usual}
    onnxruntime.create_and_register_allocator(
        where, onnxruntime.OrtArenaCfg({**settings, "max_dead_bytes_per_chunk": usual})
    )


# OpenVINO cores of this process and of its parents, by process id; never deleted, since OpenVINO crashes if ended early
_CORES: dict[int, Any] = {}
_OPENVINO_ELEMENTS = {"f32": "tensor(float)", "f16": "tensor(float16)", "u8": "tensor(uint8)"}


class _OpenVino:
    def __init__(self, runs: Runs) -> None:
        if _CORES and os.getpid() not in _CORES:
            runs.refuse("this process was forked after OpenVINO had been used, and would hang; spawn it, or fork first")
        try:
            import openvino
        except ImportError as error:
            runs.refuse("runtime=openvino needs openvino; pip install 'isc[openvino]'", error)
        if os.getpid() not in _CORES:
            _CORES[os.getpid()] = openvino.Core()
        self.runs, self.core = runs, _CORES[os.getpid()]
        try:
            network = self._read()
            self.inputs = [
                Input(
                    given.any_name,
                    _OPENVINO_ELEMENTS.get(given.element_type.get_type_name(), f"tensor({given.element_type})"),
                    [side.get_length() if side.is_static else None for side in given.partial_shape],
                )
                for given in network.inputs
            ]
            named = network.get_rt_info()
            self.metadata = {k: v.astype(str) for k, v in named["framework"].items()} if "framework" in named else {}
        except Exception as error:  # runtimes raise exception types of their own
            runs.refuse(f"cannot be used as an ONNX model ({_line(error)}); export it again", error)
        self.here = threading.local()  # compiled networks per thread: each serves one call at a time

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
        """Return the network compiled for pictures of this shape: a sixth faster than for any shape."""
        network = self._read()
        network.reshape(list(shape))
        options = {
            "INFERENCE_PRECISION_HINT": "f32",  # otherwise bfloat16 on CPUs that support it
            "INFERENCE_NUM_THREADS": self.runs.threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # otherwise all processes use the same core
            "SNIPPETS_MODE": "DISABLE",  # not faster, and a crash for a softmax between two products
        }
        return self.core.compile_model(network, "CPU", options)


def run_apart(function: Callable[[], Result], runs: Runs) -> Result:
    """Return or raise what the function does, from a forked process, with which the threads of a runtime end.

    It runs in this process if a fork would break CUDA or OpenVINO, already in use. Raises InputError if the runtime
    crashes, or takes more than SECONDS of a CPU or more memory than MEMORY and some times the file.
    """
    if runs.cuda or os.getpid() in _CORES:
        return function()
    size = len(runs.content) if runs.content else runs.path.stat().st_size
    try:
        return limited(function, seconds=SECONDS, memory=MEMORY + TIMES * size)
    except StoppedError as error:
        runs.refuse(f"{runs.runtime} {error} on it; export it again", error)
