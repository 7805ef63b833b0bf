"""Distillation: a frozen teacher model, and the loss that a student learns from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from isc.errors import InputError
from isc.model.device import place
from isc.model.download import fetch, is_url
from isc.model.load import load_model
from isc.model.onnx import load_onnx


@dataclass(frozen=True)
class Teacher:
    """A frozen model that computes descriptors of pictures.

    Call: uint8 or float [B, 3, S, S] RGB in 0…255 → float32 [B, dim] of unit length, without gradient, on the
    pictures' device. Pictures are first resized to `size` (bilinear, with antialiasing); size None means no resizing.
    """

    source: str  # file or name of the model
    dim: int
    size: tuple[int, int] | None  # height and width in pixels
    embed: Callable[[Tensor], Tensor]  # float32 [B, 3, H, W] in 0…255 → [B, dim] of any length

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        resized = pictures.float()
        if self.size not in (None, tuple(pictures.shape[2:])):
            resized = F.interpolate(resized, size=self.size, mode="bilinear", align_corners=False, antialias=True)
        vectors = self.embed(resized).float()
        if vectors.device != pictures.device:
            vectors = vectors.to(pictures.device)
        if answers_at_once(vectors.device) and not bool(torch.isfinite(vectors).all()):
            raise InputError(f"teacher={self.source}: gives descriptors that are not finite; expected another model")
        return F.normalize(vectors)


def answers_at_once(device: torch.device) -> bool:
    """Return whether a number can be read without waiting; else it is the loss that shows what is not finite."""
    return device.type == "cpu"


def load_teacher(name: str, *, device: torch.device | None = None, image_size: int | None = None) -> Teacher:
    """Load a teacher from an ONNX file, or from anything that `load_model` takes, onto `device` (default: CPU).

    The teacher resizes pictures to the input size of the ONNX file or of the model's configuration. `image_size`
    (pixels) replaces this size, if the model accepts it.
    """
    path = str(fetch(name)) if is_url(name) else name
    on = device or torch.device("cpu")
    if Path(path).suffix.lower() == ".onnx":
        return _onnx_teacher(Path(path), on, image_size)
    model = place(load_model(path), on).eval().requires_grad_(False)
    side = image_size or model.config.image_size
    return Teacher(name, model.config.dim, (side, side), lambda pictures: model(pictures.to(on, non_blocking=True)))


def _onnx_teacher(path: Path, device: torch.device, image_size: int | None) -> Teacher:
    model = load_onnx(path, cuda=device.type == "cuda", threads=torch.get_num_threads(), together=True, key="teacher")
    side = model.image_size if model.is_ours else None
    size = (side, side) if side else model.size
    if image_size is not None:
        model.check_size((image_size, image_size))
        size = (image_size, image_size)
    return Teacher(str(path), model.dim, size, lambda pictures: torch.from_numpy(model(pictures.cpu().numpy())))


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
    """Return the divergence of the student's neighbourhoods from the teacher's; ≥ 0, and 0 if they agree.

    student [N, D1] and teacher [N, D2] are unit vectors of the same pictures, row by row. The banks [M, D1] and
    [M, D2] are unit vectors of further pictures, also row by row. The anchors j of row i are all other rows and the
    bank: p_i(j) = softmax_j(t_i·t_j / τ_t), q_i(j) = softmax_j(z_i·z_j / τ_s),
    loss = mean_i Σ_j p_i(j) log(p_i(j) / q_i(j)).
    Each model is compared only with its own vectors, so D1 and D2 may differ. Only `student` receives a gradient.

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
    """Return the log softmax of each row's similarities to all other rows, then the bank: [N, D] → [N, N − 1 + M]."""
    z = rows.float()
    similarity = _without_diagonal(z @ z.T)
    if bank is not None:
        similarity = torch.cat([similarity, z @ bank.detach().float().T], dim=1)
    return F.log_softmax(similarity / temperature, dim=1)


def _without_diagonal(square: Tensor) -> Tensor:
    """Return [N, N − 1] of [N, N], in the same order; by views, as flags would make a GPU report how many there are."""
    count = len(square)
    return square.flatten()[1:].view(count - 1, count + 1)[:, :-1].reshape(count, count - 1)


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
