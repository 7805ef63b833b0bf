"""A fixed model that another one learns from, and the loss it learns by."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isc.checkpoints import fetch, is_url
from isc.device import place
from isc.errors import InputError
from isc.model import load_model

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PROBE_SIZE = 224  # pixels of the picture that a model without a size of its own is tried with
# element types of ONNX that pictures can be given as
ELEMENTS = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(uint8)": torch.uint8}


@dataclass(frozen=True)
class Teacher:
    """Pictures → descriptors of a model that does not learn.

    call: uint8 or float [B, 3, S, S] RGB in 0…255 → float32 [B, dim] of unit length, without gradient, on the
    pictures' device. Pictures are resized to `size`, bilinear and smoothed where they shrink, before the model sees
    them; with size None they are not.
    """

    source: str  # the file or name it came from
    dim: int
    size: tuple[int, int] | None  # height and width in pixels
    embed: Callable[[Tensor], Tensor]  # float32 [B, 3, H, W] in 0…255 → [B, dim] of any length

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        resized = pictures.float()
        if self.size not in (None, tuple(pictures.shape[2:])):
            resized = F.interpolate(resized, size=self.size, mode="bilinear", align_corners=False, antialias=True)
        vectors = self.embed(resized).float().to(pictures.device)
        if not bool(torch.isfinite(vectors).all()):
            raise InputError(f"teacher={self.source}: gives descriptors that are not finite; expected another model")
        return F.normalize(vectors)


def load_teacher(name: str, *, device: torch.device | None = None, image_size: int | None = None) -> Teacher:
    """The teacher of an ONNX file, or of anything that `load_model` takes; on `device`, the CPU where not given.

    It sees pictures at its own size: that of an ONNX file's input, or the one in a model's configuration.
    `image_size` replaces it, in pixels, where the model takes any.
    """
    path = str(fetch(name)) if is_url(name) else name
    on = device or torch.device("cpu")
    if Path(path).suffix.lower() == ".onnx":
        return _onnx_teacher(Path(path), on, image_size)
    model = place(load_model(path), on).eval().requires_grad_(False)
    side = image_size or model.config.image_size
    return Teacher(name, model.config.dim, (side, side), lambda pictures: model(pictures.to(on)))


# --- ONNX ------------------------------------------------------------------------------------------------------------


def _onnx_teacher(path: Path, device: torch.device, image_size: int | None) -> Teacher:
    session = _open_session(path, device)
    kind, batch, size = _onnx_input(path, session)
    if image_size is not None:
        if size not in (None, (image_size, image_size)):
            raise InputError(f"teacher={path}: takes pictures of {size[0]}×{size[1]} alone; expected no other size")
        size = (image_size, image_size)
    mean, std = _normalisation(path, session.get_modelmeta().custom_metadata_map)

    def embed(pictures: Tensor) -> Tensor:
        x = pictures.cpu()
        x = (x.round().clamp(0, 255) if kind == torch.uint8 else (x / 255 - mean) / std).to(kind)
        step = batch or len(x)
        return torch.cat([_run(path, session, x[at : at + step], step) for at in range(0, len(x), step)])

    dim = embed(torch.zeros(1, 3, *(size or (PROBE_SIZE, PROBE_SIZE)))).shape[1]
    return Teacher(str(path), dim, size, embed)


def _open_session(path: Path, device: torch.device) -> Any:
    if not path.is_file():
        raise InputError(f"teacher={path}: no such file; expected a .onnx file or a model")
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"teacher={path}: ONNX files need onnxruntime; pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; its warnings are about the graph's own making
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # of kinds of its own
        raise InputError(
            f"teacher={path}: cannot be used as an ONNX model ({_line(error)}); export it again"
        ) from error


def _onnx_input(path: Path, session: Any) -> tuple[torch.dtype, int | None, tuple[int, int] | None]:
    """Element type, batch size and (height, width) of the model's one input; None for those that it leaves open."""
    inputs = session.get_inputs()
    shape = [size if isinstance(size, int) and size > 0 else None for size in inputs[0].shape] if inputs else []
    if len(inputs) != 1 or len(shape) != 4 or shape[1] not in (3, None) or inputs[0].type not in ELEMENTS:
        found = ", ".join(f"{given.name} {given.type} {given.shape}" for given in inputs)
        raise InputError(
            f"teacher={path}: takes {found or 'nothing'}; expected one input [B, 3, H, W] of floats or uint8"
        )
    batch, _, height, width = shape
    if (height is None) != (width is None):
        raise InputError(f"teacher={path}: fixes one side of its pictures, {inputs[0].shape}; expected both or neither")
    size = None if height is None or width is None else (height, width)
    return ELEMENTS[inputs[0].type], batch, size


def _normalisation(path: Path, metadata: Mapping[str, str]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [1, 3, 1, 1] of pixels in 0…1: the file's `mean` and `std`, or ImageNet's."""
    values = {}
    for name, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        text = metadata.get(name)
        try:
            numbers: Sequence[float] = default if text is None else json.loads(f"[{text.strip().strip('[]()')}]")
            values[name] = torch.tensor(numbers, dtype=torch.float32).view(1, 3, 1, 1)
        except (ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"teacher={path}: its metadata has {name}={text}; expected three numbers") from error
    if not bool((values["std"] > 0).all()):
        raise InputError(f"teacher={path}: its metadata has std={metadata.get('std')}; expected numbers above 0")
    return values["mean"], values["std"]


def _run(path: Path, session: Any, pictures: Tensor, batch: int) -> Tensor:
    """The first output for at most `batch` pictures, [B, 3, H, W] → float32 [B, D]; a fixed batch is filled with 0."""
    full = pictures.new_zeros(batch, *pictures.shape[1:])
    full[: len(pictures)] = pictures
    try:
        found = session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: full.numpy()})[0]
    except Exception as error:  # of kinds of its own
        raise InputError(f"teacher={path}: fails on {tuple(full.shape)} ({_line(error)}); export it again") from error
    if found.ndim != 2 or len(found) != len(full):
        raise InputError(f"teacher={path}: gives {found.shape} for {len(full)} pictures; expected [{len(full)}, D]")
    return torch.from_numpy(found[: len(pictures)]).float()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# --- the loss --------------------------------------------------------------------------------------------------------


def relational_distillation(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature_student: float,
    temperature_teacher: float,
    bank_student: Tensor | None = None,
    bank_teacher: Tensor | None = None,
) -> Tensor:
    """How far the student's neighbourhoods are from the teacher's; ≥ 0, and 0 where they agree.

    student [N, D1] and teacher [N, D2] are unit vectors of the same pictures, row by row; so are the banks [M, D1] and
    [M, D2], further pictures to compare with. With the anchors j, all rows but i itself and the bank:
    p_i(j) = softmax_j(t_i·t_j / τ_t), q_i(j) = softmax_j(z_i·z_j / τ_s), loss = mean_i Σ_j p_i(j) log(p_i(j) / q_i(j)).
    Each side is compared with vectors of its own, so D1 and D2 may differ. The gradient reaches `student` alone.

    Relational self-supervised distillation as in RDCD (Kim et al., arXiv:2405.17928), whose anchors are a queue; the
    divergence of two softmaxes over similarities is that of ReSSL (Zheng et al., arXiv:2107.09282), which sharpens the
    teacher's: τ_t < τ_s.
    """
    _check_rows(student, teacher, bank_student, bank_teacher)
    log_q = _log_relations(student, bank_student, temperature=temperature_student)
    with torch.no_grad():
        log_p = _log_relations(teacher, bank_teacher, temperature=temperature_teacher)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()


def _log_relations(rows: Tensor, bank: Tensor | None, *, temperature: float) -> Tensor:
    """log softmax over the similarities of each row with all other rows, then the bank: [N, D] → [N, N − 1 + M]."""
    z = rows.float()
    others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = (z @ z.T)[others].view(len(z), len(z) - 1)
    if bank is not None:
        similarity = torch.cat([similarity, z @ bank.detach().float().T], dim=1)
    return F.log_softmax(similarity / temperature, dim=1)


def _check_rows(student: Tensor, teacher: Tensor, bank_student: Tensor | None, bank_teacher: Tensor | None) -> None:
    if len(student) != len(teacher):
        raise ValueError(f"{len(student)} student rows and {len(teacher)} teacher rows; expected those of one batch")
    banks = [0 if bank is None else len(bank) for bank in (bank_student, bank_teacher)]
    if banks[0] != banks[1]:
        raise ValueError(
            f"banks of {banks[0]} student and {banks[1]} teacher rows; expected those of the same pictures"
        )
    if len(student) - 1 + banks[0] < 1:
        raise ValueError(f"{len(student)} rows and no bank; expected something to compare each row with")
