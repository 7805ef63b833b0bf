"""Export of a model to an ONNX file, for other programs and runtimes, and a check that the descriptors agree."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import torch

from isc.data.files import atomic_path
from isc.errors import InputError, needing
from isc.model.copy_model import CopyModel
from isc.model.device import one_thread
from isc.model.files import describe
from isc.model.inference import Pictures, Vectors
from isc.model.onnx import FORMAT, OnnxModel, load_onnx
from isc.photos.decode import read_image
from isc.photos.folders import SAMPLE, list_images
from isc.photos.resizing import resize

OPSET = 17
MIN_COSINE = 0.9999  # between the descriptors of a photo by the original and by its ONNX network
TOGETHER = 7  # pictures per batch in the comparison, besides single pictures
LARGER = (32, 41)  # pixels added to the size to test others, even and odd, because padding may depend on it
TRIED = 4  # photos to test a conversion in memory with


@dataclass(frozen=True)
class Parity:
    """Agreement of an exported network with its original, over all photos, batch sizes and sizes in pixels."""

    photos: int
    sizes: tuple[int, ...]
    any_size: bool  # True if it takes more sizes than the first
    min_cosine: float
    max_difference: float  # of one number of a descriptor
    worst: Path  # the photo of the smallest cosine
    num_bytes: int

    def __str__(self) -> str:
        sizes = " and ".join(str(size) for size in self.sizes)
        taken = "of any size" if self.any_size else f"of {self.sizes[0]}×{self.sizes[0]} alone"
        return (
            f"{self.num_bytes / 1e6:.1f} MB, takes pictures {taken}; {self.photos} photos at {sizes} px: cosine with "
            f"the original ≥ {self.min_cosine:.7f}, numbers within {self.max_difference:.1e}"
        )


def export(
    model: CopyModel,
    path: Path,
    *,
    image_size: int | None = None,
    photos: Sequence[Path] = (),
    min_cosine: float = MIN_COSINE,
    half: bool = False,
) -> Parity:
    """Write the model as an ONNX file, if ONNX Runtime makes the same descriptors of the photos from it.

    The default photos are those of the sample. `image_size`, in pixels, defaults to the model's. The file takes
    pictures of any size, or only of this one if the network supports no other. With `half` the weights are stored in
    float16, and computed with in float32. Raises InputError, and writes no file, if the descriptors of a photo have a
    cosine below `min_cosine`, or a package is missing.
    """
    size = image_size or model.config.image_size
    paths = list(photos) or list(list_images(SAMPLE).values())
    content, sizes = _converted(model, size, path=path, runtime="onnxruntime", fused=not half)
    content = _stored_in_half(content, path) if half else content
    network = load_onnx(path, content=content, together=True, key="output")
    parity = _parity(model, network, paths, sizes=sizes, num_bytes=len(content))
    if not parity.min_cosine >= min_cosine:
        raise InputError(
            f"{path}: not written: the network gives {parity.worst} a descriptor of cosine {parity.min_cosine:.6f} with"
            f" the original's; expected at least {min_cosine}: use the original, or another version of torch"
        )
    with atomic_path(path) as beside:
        beside.write_bytes(content)
    return parity


def to_runtime(model: CopyModel, *, runtime: str, image_size: int | None = None, threads: int = 1) -> OnnxModel:
    """Return the same model, run by `runtime` on the CPU: onnxruntime or openvino.

    Its descriptors count as those of the model, since they are compared on real photos first. It takes pictures of any
    size, or only of `image_size` pixels (by default the model's): see `OnnxModel.size`. Raises InputError if the
    conversion fails, the runtime is missing, or the descriptors differ.
    """
    size = image_size or model.config.image_size
    name = Path(model.config.backbone)
    content, _ = _converted(model, size, path=name, runtime=runtime)
    network = load_onnx(name, runtime=runtime, threads=threads, content=content)
    paths = list(list_images(SAMPLE).values())[:TRIED]
    pictures = _pictures(paths, size)
    cosines = _cosines(_original(model, pictures), network.apart([pictures])[0])
    if not cosines.min() >= MIN_COSINE:
        raise InputError(
            f"runtime={runtime}: gives {paths[int(cosines.argmin())]} a descriptor of cosine {cosines.min():.6f} with "
            f"the one by torch; expected at least {MIN_COSINE}: use runtime=torch"
        )
    return network


def _converted(
    model: CopyModel, size: int, *, path: Path, runtime: str, fused: bool = True
) -> tuple[bytes, tuple[int, ...]]:
    """Return the bytes of an ONNX file, and the sizes in pixels to compare it at: one, or two if it takes any size."""
    plain = copy.deepcopy(model).cpu().eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    others = [size + more for more in LARGER]
    if _does(plain, others):
        content = _traced(plain, size, path=path, any_size=True, fused=fused)
        if _same_at(plain, content, others, path=path, runtime=runtime):
            return content + _metadata_bytes(_metadata(model, size, any_size=True)), (size, others[-1])
    if getattr(plain.backbone, "pos_embed", None) is not None and hasattr(plain.backbone, "set_input_size"):
        # resizes a transformer's position embeddings now; tracing cannot follow the resizing at each call
        plain.backbone.set_input_size((size, size))
    content = _traced(plain, size, path=path, any_size=False, fused=fused)
    return content + _metadata_bytes(_metadata(model, size, any_size=False)), (size,)


def _does(model: CopyModel, sizes: Sequence[int]) -> bool:
    """Return whether the network itself takes pictures of these sizes."""
    try:
        for size in sizes:
            _original(model, np.zeros((1, 3, size, size), np.uint8))
    except (AssertionError, RuntimeError, ValueError):  # for sizes that do not fit the position embeddings
        return False
    return True


def _same_at(model: CopyModel, content: bytes, sizes: Sequence[int], *, path: Path, runtime: str) -> bool:
    """Return whether file and network agree at these sizes: tracing may have fixed a value that depends on the size."""
    paths = list(list_images(SAMPLE).values())[:TRIED]
    batches = [_pictures(paths, size) for size in sizes]
    try:
        found = load_onnx(path, runtime=runtime, content=content, key="output").apart(batches)
    except InputError:  # it fails at these sizes; errors at every size are raised for the file of one size
        return False
    cosines = [_cosines(_original(model, one), two) for one, two in zip(batches, found, strict=True)]
    return bool(np.concatenate(cosines).min() >= MIN_COSINE)


def _traced(model: CopyModel, size: int, *, path: Path, any_size: bool, fused: bool) -> bytes:
    """Return the ONNX file of a model on the CPU in evaluation mode, written by torch's tracing exporter.

    Not `fused`, batch normalisation stays a layer, so that the weights are those of the model to the last bit.
    """
    if "dynamo" not in inspect.signature(torch.onnx.export).parameters:
        _refuse_torch(path)
    with tempfile.TemporaryDirectory(prefix="isc export-") as folder:
        file = Path(folder) / "model.onnx"
        try:
            _write_traced(model, size, file, any_size=any_size, fused=fused)
        except ImportError as error:  # of packages that the other exporter needs
            _refuse_torch(path, error)
        except Exception as error:  # the exporter raises exception types of its own
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path}: {model.config.backbone} cannot be exported at {size} px ({reason}); expected another size, "
                "or another backbone"
            ) from error
        if len(list(file.parent.iterdir())) > 1:
            raise InputError(f"{path}: {model.config.backbone} is too large for one ONNX file; expected below 2 GB")
        return file.read_bytes()


def _write_traced(model: CopyModel, size: int, file: Path, *, any_size: bool, fused: bool) -> None:
    sides = {2: "height", 3: "width"} if any_size else {}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # a failure prints the whole graph
        warnings.simplefilter("ignore")  # about what tracing may miss: that is tested afterwards
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, size, size, dtype=torch.uint8),),
            str(file),
            input_names=["pictures"],
            output_names=["descriptors"],
            dynamic_axes={"pictures": {0: "batch"} | sides, "descriptors": {0: "batch"}},
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.EVAL if fused else torch.onnx.TrainingMode.PRESERVE,
            dynamo=False,
        )


def _stored_in_half(content: bytes, path: Path) -> bytes:
    """Return the ONNX file with its float32 weights stored as float16, each followed by a cast to float32.

    A matrix that is the transpose of another one is computed from it instead of being stored.
    """
    with needing(f"{path}: half precision", extra="export"):
        import onnx
    file, nodes, matrices = onnx.load_from_string(content), [], dict[bytes, str]()
    weights = list(file.graph.initializer)
    del file.graph.initializer[:]
    for weight in weights:
        values, name = onnx.numpy_helper.to_array(weight), weight.name
        if values.dtype != np.float32 or values.size < 2:
            file.graph.initializer.append(weight)
        elif values.ndim == 2 and (other := matrices.get(values.T.tobytes())):
            nodes.append(onnx.helper.make_node("Transpose", [other], [name], perm=[1, 0]))
        else:
            half = onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
            file.graph.initializer.append(half)
            nodes.append(onnx.helper.make_node("Cast", [half.name], [name], to=onnx.TensorProto.FLOAT))
            matrices[values.tobytes()] = name
    nodes += file.graph.node
    del file.graph.node[:]
    file.graph.node.extend(nodes)
    return bytes(file.SerializeToString())


def _refuse_torch(path: Path, cause: Exception | None = None) -> NoReturn:
    raise InputError(
        f"{path}: torch {torch.__version__} has no exporter to ONNX by tracing (dynamo=False); expected one that has, "
        "such as 2.11"
    ) from cause


def _metadata(model: CopyModel, size: int, *, any_size: bool) -> dict[str, str]:
    mean, std = ([round(v / 255, 6) for v in values.flatten().tolist()] for values in (model.mean, model.std))
    return {
        "isc_format": FORMAT,
        **describe(model),
        "image_size": str(size),
        "sizes": "any" if any_size else "image_size alone",
        "input": "pictures: uint8 [batch, 3, height, width], RGB in 0…255, each squeezed to a square",
        "output": "descriptors: float32 [batch, dim] of unit length, compared by Euclidean distance",
        "mean": json.dumps(mean),  # of values in 0…1; applied inside the network, not by its user
        "std": json.dumps(std),
    }


def _metadata_bytes(metadata: Mapping[str, str]) -> bytes:
    """Return the bytes that add these `metadata_props` to an ONNX file when they are appended to it.

    They are field 14 of its protocol buffer, {1: key, 2: value} each. A repeated field may continue anywhere in the
    message.
    """
    entries = (_field(1, key.encode()) + _field(2, value.encode()) for key, value in metadata.items())
    return b"".join(_field(14, entry) for entry in entries)


def _field(number: int, content: bytes) -> bytes:
    """Return a field of bytes of a protocol buffer: tag, length in base 128, lowest digits first, and content."""
    length, digits = len(content), []
    while length > 127:
        digits.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *digits, length]) + content


def _parity(
    model: CopyModel, network: OnnxModel, paths: Sequence[Path], *, sizes: tuple[int, ...], num_bytes: int
) -> Parity:
    """Measure the agreement on these photos, one by one and in batches of `TOGETHER`.

    Single photos are compared at the first size only.
    """
    cosines, differences = np.ones(len(paths)), 0.0
    for start in range(0, len(paths), TOGETHER):
        rows = slice(start, start + TOGETHER)
        for size in sizes:
            pictures = _pictures(paths[rows], size)
            wanted, batches = _original(model, pictures), [network(pictures)]
            if size == sizes[0]:
                batches.append(np.concatenate([network(picture[None]) for picture in pictures]))
            for found in batches:
                cosines[rows] = np.minimum(cosines[rows], _cosines(wanted, found))
                differences = max(differences, float(np.abs(wanted - found).max()))
    return Parity(
        photos=len(paths),
        sizes=sizes,
        any_size=len(sizes) > 1,
        min_cosine=float(cosines.min()),
        max_difference=differences,
        worst=paths[int(cosines.argmin())],
        num_bytes=num_bytes,
    )


def _pictures(paths: Sequence[Path], size: int) -> Pictures:
    """Return the photos as input of the network: uint8 [B, 3, size, size]."""
    return np.stack([resize(read_image(path), size) for path in paths]).transpose(0, 3, 1, 2)


def _original(model: CopyModel, pictures: Pictures) -> Vectors:
    """Return the model's descriptors; two pictures at a time stay in a core's cache."""
    with torch.inference_mode(), one_thread():
        pairs = [torch.from_numpy(pictures[at : at + 2]).to(model.mean.device) for at in range(0, len(pictures), 2)]
        found = [model(pair).float().cpu().numpy() for pair in pairs]
    return np.concatenate(found)


def _cosines(one: Vectors, other: Vectors) -> npt.NDArray[np.float64]:
    """Return the cosine of each row of `one` with the same row of `other`."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny))
