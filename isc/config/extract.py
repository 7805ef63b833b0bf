"""The configuration of extract.py: defaults, units and checks."""

from __future__ import annotations

from dataclasses import dataclass

from isc.config.checks import REQUIRED, check, check_at_least, check_texts, key
from isc.config.choices import Combine, Device, Precision, Runtime, Where


@dataclass
class ExtractConfig:
    """Options of `extract.py`: photos → descriptors."""

    images: list[str] = key(REQUIRED, "folders, list files, .tar shards, videos, patterns of them")
    output: str = key(REQUIRED, "FILE.h5 to write")
    model: str = key("isc_small", "a NAME, a RUN_DIR, a FILE.safetensors or .onnx, or a published .pt or .pth")
    image_size: int | None = key(None, "side in pixels; null: the model's own")
    views: str = key("whole", "views of each photo besides the whole, joined by +: flip+crop:0.8 (docs/extraction.md)")
    combine: Combine = key(
        Combine.average,
        "use of the views: their mean, or one row a view, to be matched with track=matching",
    )
    engine: Where = key(Where.local, "where it runs: on this machine, or on the actors of a Ray cluster")
    runtime: Runtime = key(
        Runtime.auto,
        "library that runs the network; auto: onnxruntime for isc_small and ONNX files on a CPU, else torch",
    )
    batch_size: int | None = key(None, "photos per batch on a GPU; null: as many as are fast and fit its memory")
    workers: int = key(
        -1,
        "processes that read photos, and on a CPU embed them; −1: one per core, with a GPU at most 16",
    )
    device: Device = key(Device.auto, "auto takes the GPU if there is one")
    precision: Precision = key(
        Precision.auto,
        "arithmetic of the network; auto: float16 on GPUs, if the descriptors hardly change, else float32",
    )
    compile: bool = key(False, "torch.compile, on a GPU with CUDA graphs: for long runs")
    gpu_jpeg: bool = key(False, "let the GPU decode JPEGs")
    address: str | None = key(None, "a running Ray cluster; null: that of RAY_ADDRESS, or one that is started here")
    actors: int | None = key(None, "actors of engine=ray; null: as many as the cluster has room for")
    overwrite: bool = key(False, "replace FILE.h5, and begin anew")
    strict: bool = key(False, "an unreadable photo ends the run instead of being skipped and listed")

    def __post_init__(self) -> None:
        check_texts(self)
        check(all(self.images), "images", self.images, "folders, list files, .tar files or videos")
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
