"""The command isc-export: write a model as an ONNX file, after a check against the original."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from isc.cli.console import Parser, run_command
from isc.errors import InputError
from isc.model.export import export
from isc.model.load import load_model
from isc.photos.folders import list_images

EXAMPLES = """\
examples:
  isc-export isc_small isc_small.onnx
  isc-export runs/first first.onnx --image-size 288 --images my-photos
  isc-extract model=first.onnx images=my-photos output=descriptors.h5

The network takes `pictures`, uint8 [batch, 3, height, width] RGB in 0…255, each photo squeezed to a square, and gives
`descriptors`, float32 [batch, dim] of unit length: normalisation and background subtraction are inside. It is compared
with the original on real photos, and written only if it agrees. docs/onnx.md shows how to use it.
"""
SMALLEST = 32  # pixels, the minimum of image_size=


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command isc-export."""
    run_command(_parser(), argv, action=_export, interrupted="nothing was left half written")


def _export(given: argparse.Namespace) -> None:
    path: Path = given.output
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: expected a name that ends in .onnx")
    if path.exists() and not given.overwrite:
        raise InputError(f"{path}: is there already; give another name or --overwrite")
    if given.model.lower().endswith(".onnx"):
        raise InputError(f"{given.model}: is an ONNX file; expected a run folder, a .safetensors file or a NAME")
    if given.image_size is not None and given.image_size < SMALLEST:
        raise InputError(f"--image-size {given.image_size}: expected at least {SMALLEST} pixels")
    photos = list(list_images(given.images, key="--images").values()) if given.images else []
    model = load_model(given.model)
    print(f"wrote {path}: {export(model, path, image_size=given.image_size, photos=photos)}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="isc-export",
        description="Write a model as an ONNX file, for other programs, ONNX Runtime and OpenVINO.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a NAME, a run folder, a .safetensors file, what model= takes")
    parser.add_argument("output", type=Path, metavar="OUTPUT.onnx")
    parser.add_argument(
        "--image-size", type=int, metavar="S", help="side of the pictures in pixels (default: the model's own)"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="photos to compare it with the original on (default: the sample's)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT.onnx")
    return parser


if __name__ == "__main__":
    main()
