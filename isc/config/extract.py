"""Every key of extract.py: defaults, units and checks."""

from __future__ import annotations

from dataclasses import dataclass

from isc.config.checks import REQUIRED, check, check_at_least, check_texts
from isc.config.choices import Combine, Device, Precision, Runtime, Where


@dataclass
class ExtractConfig:
    """`extract.py`: photos → descriptors."""

    images: list[str] = REQUIRED  # type: ignore[assignment]  # folders, list files, .tar shards, patterns of them
    output: str = REQUIRED
    model: str = "isc_small"  # a NAME, a RUN_DIR, a FILE.safetensors or .onnx, or a published .pt or .pth
    image_size: int | None = None  # pixels; the model's own where not given
    views: str = "whole"  # looks at each photo beside the whole, joined by +, as flip+crop:0.8 (docs/extraction.md)
    combine: Combine = Combine.average  # rows: match with track=matching
    engine: Where = Where.local
    runtime: Runtime = Runtime.torch
    batch_size: int | None = None  # photos on a GPU at once; as many as are quick and fit its memory where not given
    workers: int = -1  # processes that read photos, and on a CPU embed them; −1: one a core, 16 at most before a GPU
    device: Device = Device.auto
    precision: Precision = Precision.auto
    compile: bool = False  # torch.compile, on a GPU with CUDA graphs: for long runs
    gpu_jpeg: bool = False  # let the GPU decode JPEGs
    address: str | None = None  # of a running Ray cluster; its own where not given, or one that is started here
    actors: int | None = None  # of engine=ray; as many as the cluster has room for where not given
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
        if self.runtime is not Runtime.torch:
            for name in ("compile", "gpu_jpeg"):
                check(not getattr(self, name), name, "true", "runtime=torch beside it")
