"""Grids of a frozen backbone: the features of the cells of a picture, computed once and kept in one .npy file."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from tqdm import tqdm

from isc.config.train import ModelConfig
from isc.data.files import atomic_path, write_json
from isc.errors import InputError
from isc.model.load import initial_model
from isc.model.pooling import as_grid
from isc.photos.decode import Pixels
from isc.photos.resizing import resize

log = logging.getLogger(__name__)
Grids = npt.NDArray[np.float16]
AT_A_TIME = 16  # pictures that the backbone reads at a time


@dataclass(frozen=True)
class GridShape:
    """The shape of grids: timm backbone with its ImageNet weights, side of the input in pixels, and cells a side."""

    backbone: str = "tf_efficientnet_lite0"
    image_size: int = 224
    side: int = 4

    def __post_init__(self) -> None:
        if self.side < 1 or self.image_size < 32:
            raise InputError(f"{self}; expected at least 1 cell a side and 32 pixels")

    @property
    def cells(self) -> int:
        return self.side * self.side


class GridNetwork:
    """The frozen backbone: uint8 pictures [B, S, S, 3] → float16 grids [B, side², F]."""

    def __init__(self, shape: GridShape) -> None:
        self.shape = shape
        self._model = initial_model(ModelConfig(backbone=shape.backbone)).eval()

    @property
    def features(self) -> int:
        return int(self._model.backbone.num_features)

    @torch.inference_mode()
    def grids(self, pictures: Sequence[Pixels]) -> Grids:
        """Return the grids of pictures of any size; each is squeezed to a square, and cells are means."""
        model, size = self._model, self.shape.image_size
        squares = torch.from_numpy(np.stack([resize(one, size) for one in pictures])).permute(0, 3, 1, 2)
        features = model.backbone((squares.float() - model.mean) / model.std)
        cells = F.adaptive_avg_pool2d(as_grid(features, model.backbone).float(), self.shape.side)
        return np.asarray(cells.flatten(2).transpose(1, 2).half().numpy())


def kept_grids(
    path: Path, read: Callable[[int], Pixels], *, count: int, identity: str, shape: GridShape
) -> tuple[Grids, list[tuple[int, str]]]:
    """Return the grids [count, cells, F] of pictures, memory-mapped, and (row, reason) of those that cannot be read.

    They are taken from `path` if its card, PATH.json, says the same `identity` and shape; else they are computed and
    written, whole or not at all. The grid of an unreadable picture is 0.
    """
    card = path.with_name(f"{path.name}.json")
    made = {"identity": identity, "backbone": shape.backbone, "image_size": shape.image_size, "side": shape.side}
    if path.is_file() and card.is_file():
        said = json.loads(card.read_text(encoding="utf-8"))
        if {key: said.get(key) for key in made} == made:
            log.info("%s: grids of %d pictures are taken from there", path, count)
            return np.load(path, mmap_mode="r"), [(int(row), str(why)) for row, why in said.get("unreadable", [])]
    network, unreadable = GridNetwork(shape), []
    with atomic_path(path) as beside:
        size = (count, shape.cells, network.features)
        kept = np.lib.format.open_memmap(beside, mode="w+", dtype=np.float16, shape=size)
        for first in tqdm(range(0, count, AT_A_TIME), desc="grids", unit="batch", leave=False):
            rows, pictures = [], []
            for row in range(first, min(first + AT_A_TIME, count)):
                try:
                    pictures.append(read(row))
                    rows.append(row)
                except InputError as error:
                    unreadable.append((row, str(error)))
            if rows:
                kept[rows] = network.grids(pictures)
        kept.flush()
    write_json(card, {**made, "unreadable": unreadable})
    return np.load(path, mmap_mode="r"), unreadable
