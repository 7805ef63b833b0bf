"""Where a file that belongs to a model lies: in its run folder, or beside the model's own file."""

from __future__ import annotations

from pathlib import Path

from isc.errors import InputError

SHIPPED = Path(__file__).parent / "weights"
RUN_MODEL = "model.safetensors"


def beside_model(model: str, file: str) -> Path:
    """`file`, normalize.json say, in a model's run folder; NAME.normalize.json beside a model's own file."""
    shipped = SHIPPED / f"{model}.safetensors"
    path = shipped if shipped.is_file() else Path(model)
    if path.is_dir() or path.name == RUN_MODEL:
        return (path if path.is_dir() else path.parent) / file
    return path.with_name(f"{path.stem}.{file}")


def require_model(model: str) -> None:
    """InputError unless `model` is a run folder that holds one, a model's file, or what comes with the package."""
    path = Path(model)
    there = path / RUN_MODEL if path.is_dir() else path
    if not (there.is_file() or (SHIPPED / f"{model}.safetensors").is_file()):
        raise InputError(f"--model {model}: {there} is not there; expected a run folder or a model's file")
