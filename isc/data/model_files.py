"""Files that belong to a model, in its run folder or beside its weights: their paths and their JSON reader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isc.data.json_files import Fields, read_json
from isc.errors import InputError

SHIPPED = Path(__file__).parents[1] / "model" / "weights"
RUN_MODEL = "model.safetensors"


def beside_model(model: str, file: str) -> Path:
    """Return the path of `file` (normalize.json): in the run folder, or as NAME.normalize.json beside a model file."""
    shipped = SHIPPED / f"{model}.safetensors"
    path = shipped if shipped.is_file() else Path(model)
    if path.is_dir() or path.name == RUN_MODEL:
        return (path if path.is_dir() else path.parent) / file
    return path.with_name(f"{path.stem}.{file}")


def require_model(model: str) -> None:
    """Raise InputError unless `model` is a run folder with a model, a model file, or the name of a shipped model."""
    path = Path(model)
    there = path / RUN_MODEL if path.is_dir() else path
    if not (there.is_file() or (SHIPPED / f"{model}.safetensors").is_file()):
        raise InputError(f"--model {model}: {there} is not there; expected a run folder or a model's file")


@contextmanager
def reading(path: Path, *, format: str, writer: str) -> Iterator[Fields]:
    """Yield the values of a JSON file of this `format`, written by the command `writer`.

    Raises InputError if the file cannot be read or has another format, and for errors in the block that uses them.
    """
    expected = f"what {writer} wrote"
    values = read_json(path, expected=expected)
    try:
        found = Fields(values)
        if found.value("format") != format:
            raise ValueError(f"format {found.value('format')!r}; expected {format}")
        yield found
    except (ValueError, KeyError, TypeError) as error:  # InputError is a ValueError
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: {reason}; expected {expected}") from error
