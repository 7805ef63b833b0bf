"""The tables of a run folder: file names, columns and number formats."""

from __future__ import annotations

from collections.abc import Iterator

BEST_FILE = "best.safetensors"
LOG_FILE = "log.csv"
VALIDATION_FILE = "validation.csv"
LOG_COLUMNS = (
    "step",
    "loss",
    "contrast",
    "koleo",
    "copy_nce",
    "teacher",
    "nearest_negative",
    "lr",
    "photos_per_second",
)
VALIDATION_COLUMNS = ("step", "average_precision", "recall_at_p90", "recall_at_rank1")


def printed(rows: list[list[float]]) -> Iterator[list[str]]:
    return ([f"{value:.6g}" for value in row] for row in rows)


def log_line(values: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())
