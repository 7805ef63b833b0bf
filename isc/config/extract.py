"""The configuration of extract.py: defaults, units and checks."""

from __future__ import annotations

from dataclasses import dataclass

from isc.config.checks import REQUIRED, check, check_at_least, check_texts
from isc.config.choices import Combine, Device, Precision, Runtime, Where


@dataclass
class ExtractConfig:
    """Options of `extract.py`: photos → descriptors."""

    images: list[str] = REQUIRED  # type: ignore[assignment]  # folders, list files, .tar shards, patterns of them
    output: str = REQUIRED
    model: str = "isc_small"  # a NAME, a RUN_DIR, a FILE.safetensors or .onnx, or a published .pt or .pth
    image_size: int | None = None  # pixels; None: the model's own
    views: str = "whole"  # views of each photo besides the whole, joined by +: flip+crop:0.8 (docs/extraction.md)
    combine: Combine = Combine.average  # rows: match with track=matching
    engine: Where = Where.local
    runtime: Runtime = Runtime.auto
    batch_size: int | None = None  # photos per batch on a GPU; None: as many as are fast and fit its memory
    workers: int = -1  # processes that read photos, and on a CPU embed them; −1: one per core, with a GPU at most 16
    device: Device = Device.auto
    precision: Precision = Precision.auto
    compile: bool = False  # torch.compile, on a GPU with CUDA graphs: for long runs
    gpu_jpeg: bool = False  # let the GPU decode JPEGs
    address: str | None = None  # of a running Ray cluster; None: that of RAY_ADDRESS, or one that is started here
    actors: int | None = None  # number for engine=ray; None: as many as the cluster has room for
    overwrite: bool = False
    strict: bool = False  # an unreadable photo ends the run instead of being skipped and listed

    def __post_init__(self) -> None:
        check_texts(self)
        check(all(self.images), "images", self.images, "folders, list files or .tar files")
        check_at_least(-1, workers=self.workers)
        for name in ("batch_size", "actors"):
            if (value := getattr(self, name)) is not None:
                check_at_least(1, **{name: value})
        if self.image_size is not None:
            check_at_least(32, image_size=self.image_size)
        if self.engine is Where.local:
            for name in ("address", "actors"):
                check(getattr(self, name) is None, name, getattr(self, name), "engine=ray beside it")
        else:
            check(not self.gpu_jpeg, "gpu_jpeg", "true", "engine=local beside it")
            check(self.workers == -1, "workers", self.workers, "none with engine=ray, whose actors= share the cores")
        if self.runtime not in (Runtime.auto, Runtime.torch):
            for name in ("compile", "gpu_jpeg"):
                check(not getattr(self, name), name, "true", "runtime=torch beside it")
