"""The previews of pictures, which are made when they are first shown."""

from __future__ import annotations

from pathlib import Path

SIDES = (320, 1024)  # pixels of the longest side


def preview_path(data: Path, image_id: int, side: int) -> Path:
    """Return the place of a preview in the data folder."""
    return data / "previews" / f"{image_id % 1000:03d}" / f"{image_id}-{side}.jpg"


def forget_previews(data: Path, image_id: int) -> None:
    """Remove the previews of a picture."""
    for side in SIDES:
        preview_path(data, image_id, side).unlink(missing_ok=True)
