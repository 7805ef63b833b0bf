"""Captioners as ONNX: the encoder of grids, and one step of the decoder, checked against the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isc.data.files import atomic_path
from isc.errors import InputError, needing
from isc.words.captioner_files import CaptionerParts
from isc.words.networks import AttentionLstm, CaptionNetwork

OPSET = 17
ENCODER, STEP = "encoder.onnx", "step.onnx"
MOST_APART = 1e-3  # of two logits, before the files are refused


class _Encoder(nn.Module):
    """The part of a network before the words: grids [B, C, F] → the decoder's memory, and an LSTM's first state."""

    def __init__(self, network: CaptionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, grids: Tensor) -> tuple[Tensor, ...]:
        memory = self.network.encode(grids)
        return (*memory, *self.network.begin(memory)) if isinstance(self.network, AttentionLstm) else memory


class _Step(nn.Module):
    """Memory, state and a word (the LSTM), or memory and all words so far (the transformer) → logits, and the state."""

    def __init__(self, network: CaptionNetwork, memories: int) -> None:
        super().__init__()
        self.network, self.memories, self.rows = network, memories, len(network.bias)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        memory, rest = given[: self.memories], given[self.memories :]
        if isinstance(self.network, AttentionLstm):
            vectors, state = self.network.step(memory, rest[:2], rest[2])
        else:
            words = rest[0]
            vectors, state = self.network.step(memory, (words[:, :-1],), words[:, -1])[0], ()
        return (self.network.outputs(vectors, (0, self.rows)), *state)


def export_captioner(parts: CaptionerParts, folder: Path) -> dict[str, float]:
    """Write encoder.onnx and step.onnx into `folder`; return the largest difference of each file's outputs.

    Batches of any size are taken; logits are those of all rows of the vocabulary. Raises InputError for a captioner
    without a network, and if onnxruntime's outputs differ by more than 0.001 from torch's.
    """
    if parts.writer is None:
        raise InputError("this captioner has no network, so nothing to export; expected one with writes=lstm or vlp")
    network = parts.writer.network.eval()
    grids = torch.rand(2, network.cells, network.features)
    with torch.inference_mode():
        memory = network.encode(grids)
    lstm = isinstance(network, AttentionLstm)
    names = [f"memory_{at}" for at in range(len(memory))]
    state = ["hidden", "cell"] if lstm else []
    words = torch.zeros(2, dtype=torch.int64) if lstm else torch.zeros(2, 3, dtype=torch.int64)
    first = network.begin(memory) if lstm else ()
    inputs = (*(one.clone() for one in memory), *(one.clone() for one in first), words)
    encoder = _written(_Encoder(network), (grids,), folder / ENCODER, ["grids"], [*names, *state])
    step = _written(
        _Step(network, len(memory)), inputs, folder / STEP, [*names, *state, "words"],
        ["logits", *(f"next_{one}" for one in state)],
    )  # fmt: skip
    return {ENCODER: encoder, STEP: step}


def _written(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, names: list[str], outputs: list[str]) -> float:
    """Write one file and return the largest difference of its outputs, for twice as many captions, from torch's."""
    with needing("export", extra="words"):
        import onnxruntime
    axes: dict[str, dict[int, str]] = {name: {0: "captions"} for name in (*names, *outputs)}
    if "words" in names and inputs[-1].ndim == 2:
        axes["words"] = {0: "captions", 1: "length"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as beside:
        torch.onnx.export(
            module.eval(), inputs, str(beside), input_names=names, output_names=outputs, dynamic_axes=axes,
            opset_version=OPSET, dynamo=False,
        )  # fmt: skip
        session = onnxruntime.InferenceSession(str(beside), providers=["CPUExecutionProvider"])
        larger = tuple(torch.cat((one, one)).detach() for one in inputs)
        with torch.inference_mode():
            wanted = module(*larger)
        fed: dict[str, Any] = {name: one.numpy() for name, one in zip(names, larger, strict=True)}
        found = session.run(None, fed)
        apart = max(float(np.abs(ours - theirs.numpy()).max()) for ours, theirs in zip(found, wanted, strict=True))
        if not apart <= MOST_APART:
            raise InputError(f"{path.name}: outputs differ by {apart:.4g} from torch's; expected at most {MOST_APART}")
    return apart
