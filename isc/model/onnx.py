"""A network in an ONNX file: its input, its normalisation, and the engine that runs it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isc import __version__
from isc.config.train import MAX_IMAGE_SIZE
from isc.data.json_files import parse_json
from isc.errors import InputError
from isc.model.onnx_engines import (
    GROUPS,
    RUNTIMES,
    Array,
    Engine,
    Input,
    Runs,
    Signature,
    run_apart,
    run_engine,
    shape_text,
    size_text,
)

Vectors = npt.NDArray[np.float32]
FORMAT = "isc-onnx-1"  # `isc_format` in the metadata of the files that isc export writes
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PROBE_SIZE = 224  # side in pixels of the picture to try a network of any size with
MAX_BATCH = 1024  # pictures that a network may require at a time
UINT8 = np.dtype(np.uint8)
# element types of ONNX that are supported for pictures
ELEMENTS: Mapping[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(uint8)": UINT8,
}


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A network in an ONNX file that maps pictures to descriptors.

    call: uint8 or float [B, 3, H, W] RGB in 0…255 → float32 [B, dim] of unit length, all numpy arrays. Any
    process that is forked from this one, or that unpickles the object, may call it: each opens the network at its first
    call. OpenVINO hangs in a process forked after its first use, which is refused here; so a process that will fork
    workers must not call it before.
    """

    path: Path  # the file, or the name of the converted model
    dim: int
    size: tuple[int, int] | None  # height and width in pixels of its pictures, if fixed; None: any size
    metadata: Mapping[str, str]
    element: np.dtype[Any]  # type of its input: uint8 unchanged, floats normalised by `mean` and `std`
    runs: Runs
    batch: int | None  # pictures per run, padded if there are fewer; None: all at once
    _engines: dict[int, Engine] = field(default_factory=dict, repr=False, compare=False)  # by process id

    @property
    def image_size(self) -> int | None:
        """The side in pixels of its square input pictures: fixed by the network or named in its file, else None.

        Raises InputError if the fixed size is no square.
        """
        if self.size is None:
            return int(self.metadata["image_size"]) if "image_size" in self.metadata and self.is_ours else None
        if self.size[0] != self.size[1]:
            self.runs.refuse(f"takes pictures of {size_text(self.size)}; expected squares")
        return self.size[0]

    @property
    def is_ours(self) -> bool:
        """True if isc export wrote the file."""
        return self.metadata.get("isc_format") == FORMAT

    def __call__(self, pictures: Array) -> Vectors:
        self.check_size((pictures.shape[2], pictures.shape[3]))
        given = self._prepared(pictures)
        step = self.batch or max(1, len(given))
        found = [self._run(given[at : at + step], step) for at in range(0, len(given), step)]
        vectors = np.concatenate([np.zeros((0, self.dim), np.float32), *found])
        if not np.isfinite(vectors).all():
            self.runs.refuse("gives descriptors that are not finite; expected another model")
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(length, np.float32(1e-12)))

    def apart(self, batches: Sequence[Array]) -> list[Vectors]:
        """Return the descriptors of several batches, made in a separate process if possible.

        This process may then still be forked.
        """
        return run_apart(lambda: [self(pictures) for pictures in batches], self.runs)

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise InputError unless the network takes pictures of this height and width."""
        if self.size not in (None, size):
            self.runs.refuse(
                f"takes pictures of {size_text(self.size)} alone; expected no other size, such as {size_text(size)}"
            )

    def describe(self) -> dict[str, str]:
        """Return what identifies the output, in the form of `isc.model.files.describe`.

        For a file of isc export this is the description of the exported model, so that descriptors of both may be
        compared; for another file it is that of the file.
        """
        if self.is_ours:
            kept = ("model", "weights_sha256", "preprocessing", "gem_power")
            return {name: self.metadata[name] for name in kept} | {"dim": str(self.dim), "code_version": __version__}
        mean, std = ([round(v, 6) for v in values.flatten().tolist()] for values in self._normalisation)
        values = "0…255" if self.element == UINT8 else f"(x / 255 − {mean}) / {std}"
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
    def _normalisation(self) -> tuple[Vectors, Vectors]:
        return _normalisation(self.runs, self.metadata)

    def _prepared(self, pictures: Array) -> Array:
        x = np.ascontiguousarray(pictures)
        if self.element == UINT8:
            return x if x.dtype == UINT8 else x.round().clip(0, 255).astype(np.uint8)
        mean, std = self._normalisation
        return np.asarray(((x.astype(np.float32) / 255 - mean) / std).astype(self.element))

    def _run(self, pictures: Array, batch: int) -> Vectors:
        # engines of the parent processes are kept: closing them would wait for their threads
        if os.getpid() not in self._engines:
            self._engines[os.getpid()] = self.runs.open()
        return run_engine(self.runs, self._engines[os.getpid()], pictures, batch)


def load_onnx(
    path: Path,
    *,
    runtime: str = "onnxruntime",
    threads: int = 1,
    cuda: bool = False,
    together: bool | None = None,
    content: bytes | None = None,
    key: str = "model",
    trusted: bool = False,
) -> OnnxModel:
    """Load the network of an ONNX file: one input [B, 3, H, W] of floats or uint8, and a first output [B, D].

    On a CPU, pictures are run in groups of a fixed size, and with one thread the bits of a picture's descriptor do not
    depend on the rest of the batch. With `together` all pictures are run at once, which is faster on a GPU (its
    default) or with many threads. With `cuda` the first GPU is used, if onnxruntime supports it. `content` is the
    content of the file, if it is already in memory; then `path` is only its name. `key` is the name of its option in
    messages.

    The network is opened and tried once, on the CPU in a separate process: this one may then be forked, and a file that
    crashes the runtime does not end it. A `trusted` file is opened once, in this process. Raises InputError if the file
    cannot be used or the runtime is not installed.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"runtime={runtime}; expected one of {', '.join(RUNTIMES)}")
    if runtime == "openvino" and cuda:
        raise InputError("runtime=openvino: works on CPUs; expected device=cpu, or runtime=onnxruntime")
    if content is None and not path.is_file():
        raise InputError(f"{key}={path}: no such file; expected a .onnx file or a model")
    runs = Runs(path, key, runtime, threads, cuda, content)
    opened = runs.open() if trusted else None
    found = _signature(runs, opened) if opened else run_apart(lambda: _signature(runs, runs.open()), runs)
    everything = cuda if together is None else together
    batch = found.batch or (None if everything else GROUPS[runtime])
    model = OnnxModel(path, found.dim, found.size, found.metadata, found.element, runs, batch)
    if opened:
        model._engines[os.getpid()] = opened
    if model.is_ours and (missing := {"model", "weights_sha256", "preprocessing", "gem_power"} - set(found.metadata)):
        runs.refuse(f"its metadata lacks {', '.join(sorted(missing))}; export it again")
    return model


def _signature(runs: Runs, engine: Engine) -> Signature:
    """Return the input and the output of the network, found by a run on one black picture."""
    element, batch, size = _only_input(runs, engine.inputs)
    _normalisation(runs, engine.metadata)
    height, width = size or _named_size(runs, engine.metadata)
    found = run_engine(runs, engine, np.zeros((1, 3, height, width), element), batch or 1)
    return Signature(element, batch, size, found.shape[1], engine.metadata)


def _only_input(runs: Runs, inputs: Sequence[Input]) -> tuple[np.dtype[Any], int | None, tuple[int, int] | None]:
    """Return element type, batch size and (height, width) of the network's only input; None for those not fixed."""
    shape = inputs[0].shape if inputs else []
    if len(inputs) != 1 or len(shape) != 4 or shape[1] not in (3, None) or inputs[0].element not in ELEMENTS:
        found = ", ".join(f"{given.name} {given.element} {shape_text(given.shape)}" for given in inputs)
        runs.refuse(f"takes {found or 'nothing'}; expected one input [B, 3, H, W] of floats or uint8")
    batch, _, height, width = shape
    if (height is None) != (width is None):
        runs.refuse(f"fixes one side of its pictures, {shape_text(shape)}; expected both or neither")
    if max(height or 0, width or 0) > MAX_IMAGE_SIZE or (batch or 0) > MAX_BATCH:
        most = f"at most {MAX_BATCH} pictures of {MAX_IMAGE_SIZE} pixels a side"
        runs.refuse(f"takes {shape_text(shape)}; expected {most}")
    return ELEMENTS[inputs[0].element], batch, None if height is None or width is None else (height, width)


def _named_size(runs: Runs, metadata: Mapping[str, str]) -> tuple[int, int]:
    """Return (height, width) of the picture to try a network of any size with."""
    if metadata.get("isc_format") != FORMAT:
        return PROBE_SIZE, PROBE_SIZE
    text = metadata.get("image_size", "")
    if not re.fullmatch("[1-9][0-9]{0,3}", text, re.ASCII) or int(text) > MAX_IMAGE_SIZE:
        runs.refuse(f"its metadata has image_size={text[:20]}; expected pixels, at most {MAX_IMAGE_SIZE}")
    return int(text), int(text)


def _normalisation(runs: Runs, metadata: Mapping[str, str]) -> tuple[Vectors, Vectors]:
    """Return mean and standard deviation [1, 3, 1, 1] of pixels in 0…1: the file's `mean` and `std`, or ImageNet's."""
    values = {}
    for name, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        text = metadata.get(name)
        try:
            numbers: Sequence[float] = default if text is None else parse_json(f"[{text.strip().strip('[]()')}]")
            values[name] = np.array(numbers, np.float32).reshape(1, 3, 1, 1)
        except (ValueError, TypeError) as error:
            runs.refuse(f"its metadata has {name}={str(text)[:60]}; expected three numbers", error)
    if not (values["std"] > 0).all():
        runs.refuse(f"its metadata has std={metadata.get('std')}; expected numbers above 0")
    return values["mean"], values["std"]


def _digest(path: Path) -> str:
    """Return the SHA-256 of the file and of the files of weights that it names."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    for beside in sorted(_weight_files(path.read_bytes())):
        if (path.parent / beside).is_file():
            with (path.parent / beside).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _weight_files(content: bytes) -> Iterator[str]:
    """Return the names of files of weights: an ONNX tensor stored outside has an entry {1: "location", 2: its name}."""
    names = {
        content[found.end() + 1 : found.end() + 1 + content[found.end()]]
        for found in re.finditer(rb"\x0a\x08location\x12(?=[\x01-\x7f])", content)
    }
    return (name.decode("utf-8", "replace") for name in names if b"\0" not in name)
