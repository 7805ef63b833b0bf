"""YOLOv3-tiny in numpy, from the files of Darknet: OpenCV 5 no longer reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
HEADER = 5  # 32-bit words before the weights
EPSILON = 1e-6  # of Darknet's batch normalisation


@dataclass(frozen=True)
class Layer:
    """A layer of a Darknet configuration: its kind, its options, and for a convolution its matrix and bias."""

    kind: str
    options: Mapping[str, str]
    matrix: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    bias: Floats = field(default_factory=lambda: np.zeros(0, np.float32))

    def number(self, name: str, default: int = 1) -> int:
        return int(self.options.get(name, default))


def read_layers(configuration: Path, weights: Path) -> list[Layer]:
    """Read a network; batch normalisation is folded into the convolutions."""
    values = np.fromfile(weights, "<f4", offset=4 * HEADER)
    at, channels = 0, 3
    found: list[Layer] = []
    widths: list[int] = []
    for kind, options in _sections(configuration):
        layer = Layer(kind, options)
        if kind == "convolutional":
            count, side = layer.number("filters"), layer.number("size")
            normalised = layer.number("batch_normalize", 0)
            head = values[at : at + count * (4 if normalised else 1)].reshape(-1, count)
            at += head.size
            size = count * channels * side * side
            matrix = values[at : at + size].reshape(count, channels * side * side)
            at += size
            bias = head[0]
            if normalised:
                gain = head[1] / np.sqrt(head[3] + EPSILON)
                matrix, bias = matrix * gain[:, None], bias - head[2] * gain
            layer = Layer(kind, options, np.asarray(matrix, np.float32), np.asarray(bias, np.float32))
            channels = count
        elif kind == "route":
            channels = int(sum(widths[one] for one in _places(layer, len(found))))
        widths.append(channels)
        found.append(layer)
    return found


def _sections(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (kind, options) of each layer; the section of the network itself is left out."""
    kind = ""
    options: dict[str, str] = {}
    for line in [*path.read_text(encoding="utf-8").splitlines(), "[end]"]:
        text = line.partition("#")[0].strip()
        if text.startswith("["):
            if kind not in ("", "net"):
                yield kind, options
            kind, options = text.strip("[]"), {}
        elif text:
            name, _, value = text.partition("=")
            options[name.strip()] = value.strip()


def _places(layer: Layer, here: int) -> list[int]:
    numbers = [int(one) for one in layer.options["layers"].split(",")]
    return [one if one >= 0 else here + one for one in numbers]


def forward(layers: list[Layer], picture: Floats) -> list[Floats]:
    """Return the inputs of the detection layers, float32 [C, h, w], for a picture [3, S, S] of values 0…1."""
    outputs: list[Floats] = []
    found: list[Floats] = []
    values = picture
    for here, layer in enumerate(layers):
        if layer.kind == "convolutional":
            values = _convolved(layer, values)
        elif layer.kind == "maxpool":
            values = _pooled(values, layer.number("stride"))
        elif layer.kind == "upsample":
            values = values.repeat(2, axis=1).repeat(2, axis=2)
        elif layer.kind == "route":
            values = np.concatenate([outputs[one] for one in _places(layer, here)])
        elif layer.kind == "yolo":
            found.append(values)
        outputs.append(values)
    return found


def _convolved(layer: Layer, values: Floats) -> Floats:
    side = layer.number("size")
    channels, height, width = values.shape
    edge = side // 2
    padded = np.pad(values, ((0, 0), (edge, edge), (edge, edge)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))
    columns = windows.transpose(0, 3, 4, 1, 2).reshape(channels * side * side, height * width)
    result = (layer.matrix @ columns + layer.bias[:, None]).reshape(-1, height, width)
    return np.where(result > 0, result, result * np.float32(0.1)) if layer.options["activation"] == "leaky" else result


def _pooled(values: Floats, stride: int) -> Floats:
    """Return the largest of each 2 × 2 values, `stride` apart; at the end the edge alone."""
    padded = np.pad(values, ((0, 0), (0, 1), (0, 1)), constant_values=-np.inf)
    most = np.maximum(
        np.maximum(padded[:, :-1, :-1], padded[:, 1:, :-1]), np.maximum(padded[:, :-1, 1:], padded[:, 1:, 1:])
    )
    return np.asarray(most[:, ::stride, ::stride], np.float32)
