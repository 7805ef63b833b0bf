"""The command isc export: write a model as an ONNX file, after a check against the original."""

from __future__ import annotations

from pathlib import Path

import click

from isc.errors import InputError, needing

PATH = click.Path(path_type=Path)
SMALLEST = 32  # pixels, the minimum of image_size=


@click.command(short_help="write a model as an ONNX file")
@click.argument("model")
@click.argument("output", type=PATH, metavar="OUTPUT.onnx")
@click.option(
    "--image-size", type=click.IntRange(min=SMALLEST), metavar="S",
    help="Side of the pictures in pixels.  [default: the model's own]",
)  # fmt: skip
@click.option("--images", type=PATH, metavar="DIR", help="Photos to compare on.  [default: the sample's]")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT.onnx.")
def export(model: str, output: Path, *, image_size: int | None, images: Path | None, overwrite: bool) -> None:
    """Write a model as an ONNX file, for other programs, ONNX Runtime and OpenVINO.

    MODEL is a name, a run folder or a .safetensors file, as model= takes it. The network takes `pictures`, uint8
    [batch, 3, height, width] RGB in 0…255, each photo squeezed to a square, and gives `descriptors`, float32
    [batch, dim] of unit length: normalisation and background subtraction are inside. It is compared with the original
    on real photos, and written only if it agrees. docs/onnx.md shows how to use it.

    \b
    isc export isc_small isc_small.onnx
    isc export runs/first first.onnx --image-size 288 --images my-photos
    isc extract model=first.onnx images=my-photos output=descriptors.h5
    """
    if output.suffix.lower() != ".onnx":
        raise InputError(f"{output}: expected a name that ends in .onnx")
    if output.exists() and not overwrite:
        raise InputError(f"{output}: is there already; give another name or --overwrite")
    if not (above := next(folder for folder in output.absolute().parents if folder.exists())).is_dir():
        raise InputError(f"{output}: {above} is a file; expected a folder")
    with needing("export", extra="export"):
        from isc.model.export import export as write
        from isc.model.load import load_model
    from isc.photos.folders import list_images

    if model.lower().endswith(".onnx"):
        raise InputError(f"{model}: is an ONNX file; expected a run folder, a .safetensors file or a NAME")
    photos = list(list_images(images, key="--images").values()) if images else []
    print(f"wrote {output}: {write(load_model(model), output, image_size=image_size, photos=photos)}")
