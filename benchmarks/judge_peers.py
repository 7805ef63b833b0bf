"""A published ONNX network of pictures [B, H, W, 3], made to take [B, 3, H, W], as `model=` wants it.

    python -m benchmarks.judge_peers SSCD.onnx OUT.onnx --size 288
    python -m benchmarks.judge score JUDGE isc_small SSCD=OUT.onnx

What is written is the same network with a Transpose in front, its picture's side fixed, and `mean` 0 and `std` 1 in its
metadata, as it normalises for itself. extract.py then squeezes every photo to a square of that side, as for any model.
It is for measuring beside ours alone: nothing is trained by it, and its file is not part of this repository.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isc.data.files import atomic_path
from isc.errors import InputError

PICTURES = "pictures"  # the name of the new input


def wrap(source: Path, output: Path, *, size: int) -> None:
    """Write the network of `source` for pictures [B, 3, size, size] of the same element type.

    Raises InputError where it has another input than one [B, H, W, 3], or fixes another size.
    """
    import onnx
    from onnx import helper

    try:
        model = onnx.load(source)
    except Exception as error:  # of kinds of its own
        raise InputError(f"{source}: cannot be read as an ONNX file ({error})") from error
    weights = {initial.name for initial in model.graph.initializer}
    inputs = [given for given in model.graph.input if given.name not in weights]
    shape = _shape(inputs[0]) if inputs else []
    if len(inputs) != 1 or len(shape) != 4 or shape[3] != 3 or any(side not in (None, size) for side in shape[1:3]):
        found = ", ".join(f"{given.name} {_shape(given)}" for given in inputs)
        raise InputError(
            f"{source}: takes {found or 'nothing'}; expected one input [B, {size}, {size}, 3] or of any size"
        )
    old = inputs[0]
    new = helper.make_tensor_value_info(PICTURES, old.type.tensor_type.elem_type, ["batch", 3, size, size])
    model.graph.input.remove(old)
    model.graph.input.insert(0, new)
    turned = helper.make_node("Transpose", [PICTURES], [old.name], name="to_height_width_colour", perm=[0, 2, 3, 1])
    model.graph.node.insert(0, turned)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, {**kept, "image_size": str(size), "mean": "0, 0, 0", "std": "1, 1, 1"})
    onnx.checker.check_model(model)
    with atomic_path(output) as path:
        onnx.save(model, path)


def _shape(given: Any) -> list[int | None]:
    """None for a side that it leaves open."""
    return [side.dim_value or None for side in given.type.tensor_type.shape.dim]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.judge_peers", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("source", type=Path, metavar="FILE.onnx")
    parser.add_argument("output", type=Path, metavar="OUT.onnx")
    parser.add_argument("--size", type=int, default=288, help="side of its pictures in pixels (default: 288)")
    given = parser.parse_args(arguments)
    try:
        wrap(given.source, given.output, size=given.size)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
