"""Conversion of a published ONNX network from input [B, H, W, 3] to [B, 3, H, W], as `model=` expects.

    python -m benchmarks.judge_peers SSCD.onnx OUT.onnx --size 288
    python -m benchmarks.judge score JUDGE isc_small SSCD=OUT.onnx

The output is the same network with a Transpose in front, a fixed side of its pictures, and `mean` 0 and `std` 1 in its
metadata, because it normalises its input itself. extract.py then resizes every photo to a square of that side, as for
any model. The file is only for comparison with our models: nothing is trained with it, and it is not part of this
repository.
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

    Raises InputError if the file has another input than one [B, H, W, 3], or fixes another size.
    """
    import onnx
    from onnx import helper

    try:
        model = onnx.load(source)
    except Exception as error:  # onnx has its own exception classes
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
    """Return the sides of an input; None for a side that is not fixed."""
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
