"""The rows of the table, their files, and the limits that no program can beat on a device."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

NONE = "–"


@dataclass(frozen=True)
class Row:
    """A figure of a step beside its limit; `right` says whether the result was compared and equal."""

    what: str
    measured: float
    unit: str
    limit: float | None = None
    limited_by: str = NONE
    right: bool | None = None

    @property
    def ratio(self) -> float | None:
        """The measured figure as a share of its limit; both are rates, or both are times."""
        if self.limit is None:
            return None
        return self.limit / self.measured if self.unit in ("s", "GB") else self.measured / self.limit


@dataclass(frozen=True)
class Size:
    """The size of a run: that of a GPU, or a small one for the rehearsal."""

    queries: int
    references: int
    pairs: int
    checked: int  # references of the search that is compared with a CPU's
    photos: int
    side: int  # of a photo, in pixels
    networks: tuple[tuple[str, int], ...]  # backbone and pixels, of extraction
    trained: tuple[tuple[str, int, int], ...]  # backbone, pixels and photos a step
    repeats: int
    steps: int


FULL = Size(
    50_000, 1_000_000, 500_000, 100_000, 4096, 1024,
    (("tf_efficientnet_lite0", 224), ("resnet50", 288), ("tf_efficientnetv2_m", 512)),
    (("tf_efficientnet_lite0", 160, 256), ("resnet50", 224, 256), ("tf_efficientnetv2_m", 384, 64)), 3, 20,
)  # fmt: skip
SMALL = Size(120, 1500, 300, 700, 24, 96, (("test_efficientnet", 64),), (("test_efficientnet", 32, 4),), 1, 2)


def write(folder: Path, step: str, rows: list[Row], *, seconds: float, problem: str = "") -> None:
    """Write a step's rows, and what kept it from its end if it has none."""
    where = device_name()
    content = {"step": step, "device": where, "seconds": round(seconds, 2), "problem": problem}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content | {"rows": [asdict(row) for row in rows]}, indent=1, ensure_ascii=False)
    (folder / f"{step}.json").write_text(text + "\n", encoding="utf-8")


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def table(folder: Path, steps: list[str]) -> str:
    """Return the table of a run as Markdown: measured, limit, ratio, right or not; a step without rows says why."""
    lines = ["| step | what | measured | limit | ratio | right |", "|---|---|--:|--:|--:|---|"]
    for step in steps:
        path = folder / f"{step}.json"
        if not path.is_file():
            lines.append(f"| {step} | not run | | | | |")
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        for values in found["rows"]:
            row = Row(**values)
            limit = NONE if row.limit is None else f"{shown(row.limit)} {row.unit} ({row.limited_by})"
            ratio = NONE if row.ratio is None else f"{row.ratio:.2f}"
            right = {True: "yes", False: "**no**", None: NONE}[row.right]
            lines.append(f"| {step} | {row.what} | {shown(row.measured)} {row.unit} | {limit} | {ratio} | {right} |")
        if found["problem"]:
            lines.append(f"| {step} | **{found['problem']}** | | | | |")
    return "\n".join(lines)


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def seconds_of(action: Callable[[], object], *, repeats: int, warm: int = 1) -> float:
    """Return the shortest wall-clock time of an action, after `warm` calls, with all work of the GPU done."""
    times = []
    for number in range(warm + repeats):
        wait()
        start = time.perf_counter()
        action()
        wait()
        if number >= warm:
            times.append(time.perf_counter() - start)
    return min(times)


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
