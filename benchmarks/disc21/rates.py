"""Extraction speed of three models on photos of the challenge's size, by extract.py itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.approximate import ROOT
from benchmarks.disc21.processes import measured
from isc.config.choices import Precision
from isc.config.train import ModelConfig
from isc.model.device import choose_device, native_bfloat16
from isc.photos.decode import encode_jpeg, read_image
from isc.photos.folders import SAMPLE, list_images

SIDE, QUALITY = 1024, 90  # pixels, and JPEG quality; bytes as in the challenge, 350 GB for 2.1 million photos
FILES = 60  # different photos, which are read again and again


@dataclass(frozen=True)
class Model:
    """A model whose speed is measured; its weights are random, except those of isc_small."""

    name: str
    size: int  # pixels
    config: ModelConfig | None
    few: int  # photos of the first run, whose time is subtracted
    many: int


MODELS = (
    Model("isc_small", 192, None, 64, 1600),
    Model("SSCD's, ResNet-50", 288, ModelConfig(backbone="resnet50", weights="none", image_size=288), 32, 320),
    Model(
        "the winner's, EfficientNetV2-M",
        512,
        ModelConfig("tf_efficientnetv2_m", "none", gem_power=1, conv_head=False, image_size=512),
        16,
        80,
    ),
)


def table(work: Path) -> list[dict[str, object]]:
    files = _photos(work / "photos")
    size = sum(path.stat().st_size for path in files) / len(files)
    rows: list[dict[str, object]] = []
    for model in MODELS:
        weights = _weights(work, model)
        few, many = (measured(_command(work, files, weights, count)) for count in (model.few, model.many))
        rows.append(
            {
                "model": model.name,
                "input": f"{model.size} px",
                "photos": f"{SIDE} px, {size / 1000:.0f} KB",
                "device": choose_device("auto").type,
                "photos a second": float(f"{(model.many - model.few) / (many.seconds - few.seconds):.3g}"),
                "largest process, GB": round(many.gb, 2),
            }
        )
    return rows


def _photos(folder: Path) -> list[Path]:
    """Write enlarged sample photos with grain, so that they have as many bytes as photos of that size."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    made: list[Path] = []
    for name, path in list(list_images(SAMPLE).items())[:FILES]:
        pixels = read_image(path)
        scale = SIDE / max(pixels.shape[:2])
        large = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        grain = rng.normal(0, 2, (*large.shape[:2], 1))
        photo = folder / f"{name}.jpg"
        photo.write_bytes(encode_jpeg(np.clip(large + grain, 0, 255).astype(np.uint8), quality=QUALITY))
        made.append(photo)
    return made


def _weights(work: Path, model: Model) -> str:
    if model.config is None:
        return model.name
    from isc.model.files import save_model
    from isc.model.load import initial_model

    path = work / f"{model.config.backbone}.safetensors"
    if not path.exists():
        save_model(path, initial_model(model.config), {"model": model.name})
    return str(path)


def _command(work: Path, files: list[Path], weights: str, count: int) -> list[str]:
    listed, output = work / f"{count}.csv", work / f"{count}.h5"
    listed.write_text("".join(_lines(files, count)), encoding="utf-8")
    output.unlink(missing_ok=True)
    command = [sys.executable, str(ROOT / "extract.py"), f"images={listed}", f"output={output}", f"model={weights}"]
    # precision=auto tests whether the descriptors stay the same, which fails with random weights
    return command if weights == "isc_small" else [*command, f"precision={_quick().value}"]


def _quick() -> Precision:
    """Return the precision that `auto` takes if a trained model's descriptors allow it."""
    if choose_device("auto").type == "cuda":
        return Precision.float16
    return Precision.bfloat16 if native_bfloat16(choose_device("cpu")) else Precision.float32


def _lines(files: list[Path], count: int) -> Iterator[str]:
    yield "id,file\n"
    for number in range(count):
        yield f"T{number:06d},{files[number % len(files)]}\n"
