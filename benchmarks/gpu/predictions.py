"""What the roofline of a GPU allows: limits computed from its data sheet, before any GPU has run the steps."""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Gpu:
    """Rates of a data sheet: float16 products in TFLOP/s without sparsity, memory in TB/s, link to the host in GB/s."""

    name: str
    half: float
    memory: float
    link: float


GPUS = (Gpu("H100 SXM", 989, 3.35, 50), Gpu("H200", 989, 4.8, 50))
REACHED = 0.7  # share of the data sheet's products that large matrices reach
NETWORKS = (("tf_efficientnet_lite0", 224), ("resnet50", 288), ("tf_efficientnetv2_m", 512))
HALF = 2  # bytes of a number in float16
SEARCH = (50_000, 1_000_000, 256)


def costs(name: str, side: int) -> tuple[float, float]:
    """Return the operations of a picture, and the bytes that its layers read and write in float16, by shapes alone.

    Layers are convolutions, products and activations: batch norms are folded, and other layers are few.
    """
    moved = 0

    def count(_layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        moved += HALF * (given[0].numel() + output.numel())

    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0, global_pool="").eval()
        picture = torch.zeros(1, 3, side, side)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.SiLU | nn.ReLU | nn.ReLU6):
            layer.register_forward_hook(count)
    with FlopCounterMode(display=False) as counter:
        network(picture)
    return float(counter.get_total_flops()), float(moved)


def predicted() -> str:
    """Return the table of docs/gpu.md."""
    lines = ["| what | " + " | ".join(gpu.name for gpu in GPUS) + " | from |", "|---|" + "--:|" * len(GPUS) + "---|"]
    queries, references, dim = SEARCH
    operations = 2 * queries * references * dim
    rows = [
        ("products of 50,000 × 1,000,000 × 256, float16", "ms",
         [operations / (gpu.half * REACHED * 1e12) * 1e3 for gpu in GPUS], f"{REACHED:.0%} of the data sheet"),
        ("writing the maxima of chunks of 64", "ms",
         [queries * references / 64 * 4 / (gpu.memory * 1e12) * 1e3 for gpu in GPUS], "memory"),
        ("sending the references, 1 GB", "ms",
         [references * dim * 4 / (gpu.link * 1e9) * 1e3 for gpu in GPUS], "link, while the products run"),
    ]  # fmt: skip
    for name, side in NETWORKS:
        operations, moved = costs(name, side)
        rates = [1 / max(operations / (REACHED * gpu.half * 1e12), moved / (gpu.memory * 1e12)) for gpu in GPUS]
        by_memory = moved / GPUS[0].memory > operations / (REACHED * GPUS[0].half)
        bound = "memory, each layer a pass" if by_memory else f"{REACHED:.0%} of the data sheet"
        rows.append((f"network alone, {name} at {side} px, float16, at most", "photos/s", rates, bound))
    for what, of, values, source in rows:
        shown = " | ".join(f"{value:,.0f} {of}" for value in values)
        lines.append(f"| {what} | predicted: {shown.replace(' | ', ' | predicted: ')} | {source} |")
    return "\n".join(lines)
