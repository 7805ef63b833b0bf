"""What a pair matcher learns from: tokens of a frozen backbone, kept on disk, of photos and of attacked views."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from isc.augment import Augmenter
from isc.config import AugmentConfig
from isc.device import one_thread
from isc.errors import InputError
from isc.images import Pixels, read_image, resize
from isc.io import atomic_path
from isc.model import CopyModel
from isc.network import Network
from isc.progress import progress

Halves = npt.NDArray[np.float16]

SIZE = 224  # pixels: a stride of 32 leaves 7 × 7, of 16 leaves 14 × 14
SIDE = SIZE // 32
PART = 1000  # pictures in a file, and what a killed run loses at most
FINE_BLOCK = 4  # of an EfficientNet's seven: the last of stride 16


@dataclass(frozen=True)
class Pictures:
    """Of N pictures `tokens` [N, 49, D + 4 · C], row by row: the descriptor of each place of the last map, not of unit
    length, then the four places of the map of stride 16 that lie in it; and `descriptors` [N, D] of unit length."""

    tokens: Halves
    descriptors: Halves

    def __len__(self) -> int:
        return len(self.descriptors)


class TokenMaker:
    """Pictures uint8 [B, SIZE, SIZE, 3] → `Pictures`, by one pass through a network made by `isc.network.load_network`.

    A coarse token is what the model would say of a picture that consists of that place alone: pooling one place
    changes nothing, so it is the last map through the projection and the norm.
    """

    def __init__(self, network: Network) -> None:
        module = network.forward
        found = [m for m in module.modules() if isinstance(m, CopyModel)] if isinstance(module, nn.Module) else []
        if not found or not hasattr(found[0].backbone, "blocks"):
            raise InputError("a pair matcher needs a model of torch whose backbone is an EfficientNet; use isc_small")
        self._network, self._model = network, found[0]
        self._seen: dict[str, Tensor] = {}
        self._model.backbone.blocks[FINE_BLOCK].register_forward_hook(self._keep("fine"))
        self._model.backbone.register_forward_hook(self._keep("coarse"))

    def _keep(self, name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _given: object, found: Tensor) -> None:
            self._seen[name] = found

        return hook

    @torch.inference_mode()
    def __call__(self, pictures: npt.NDArray[np.uint8]) -> Pictures:
        descriptors = self._network(torch.from_numpy(pictures).permute(0, 3, 1, 2).to(self._network.device))
        last = self._seen["coarse"].flatten(2).transpose(1, 2).float()
        coarse = self._model.norm(self._model.linear(last).float().flatten(0, 1)).unflatten(0, last.shape[:2])
        fine = self._seen["fine"].flatten(2).transpose(1, 2)
        halves = [x.float().cpu().numpy().astype(np.float16) for x in (coarse, fine, descriptors)]
        return Pictures(pack(halves[0], halves[1]), halves[2])


def pack(coarse: Halves, fine: Halves) -> Halves:
    """Maps [N, 49, D] and [N, 196, C] → tokens [N, 49, D + 4 · C]."""
    inside = fine.reshape(len(fine), SIDE, 2, SIDE, 2, -1).transpose(0, 1, 3, 2, 4, 5)
    return np.concatenate([coarse, inside.reshape(len(fine), SIDE * SIDE, -1)], axis=2)


def make_tokens(
    maker: TokenMaker, count: int, picture: Callable[[int], Pixels], folder: Path, *, group: int = 8
) -> None:
    """Write the tokens of pictures 0…count − 1 into `folder`, in files of PART; those that are there already stay."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = [start for start in range(0, count, PART) if not _part(folder, start).is_file()]
    with one_thread(), progress(f"tokens of {folder.name}", "pictures") as report:
        for start in starts:
            rows, found = range(start, min(start + PART, count)), []
            for at in range(rows.start, rows.stop, group):
                taken = range(at, min(at + group, rows.stop))
                found.append(maker(np.stack([picture(row) for row in taken])))
                report(taken.stop, count)
            with atomic_path(_part(folder, start)) as beside, beside.open("wb") as file:
                tokens, descriptors = ([one.tokens for one in found], [one.descriptors for one in found])
                np.savez(file, tokens=np.concatenate(tokens), descriptors=np.concatenate(descriptors))


def read_tokens(folder: Path, count: int) -> Pictures:
    """What `make_tokens` wrote there; InputError where it is not all of `count` pictures."""
    try:
        opened = [dict(np.load(_part(folder, start))) for start in range(0, count, PART)]
        tokens, descriptors = (np.concatenate([part[name] for part in opened]) for name in ("tokens", "descriptors"))
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: is not there; end what makes the tokens first") from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{folder}: holds tokens that cannot be read ({error}); delete it and make it again"
        ) from error
    if len(tokens) != count:
        raise InputError(f"{folder}: holds {len(tokens)} pictures; expected {count}: delete it and make it again")
    return Pictures(tokens, descriptors)


def _part(folder: Path, start: int) -> Path:
    return folder / f"{start:08d}.npz"


def photo(paths: Sequence[Path], row: int) -> Pixels:
    """The picture of that row, squeezed to [SIZE, SIZE, 3]."""
    return resize(read_image(paths[row]), SIZE)


def shown_by(views: int, *, photos: int, seed: int) -> npt.NDArray[np.int64]:
    """The row of the photo that each view shows: each photo once, in a random order, before any comes again."""
    laps = [np.random.default_rng([seed, 0, lap]).permutation(photos) for lap in range(-(-views // photos))]
    return np.concatenate(laps)[:views]


def view(paths: Sequence[Path], number: int, *, shows: int, seed: int) -> Pixels:
    """Attacked view `number`, of the photo in row `shows`: the same whenever it is made."""
    rng = np.random.default_rng([seed, 1, number])
    other = paths[int(rng.integers(len(paths)))]
    augmenter = Augmenter(AugmentConfig(), size=SIZE)
    return augmenter.hard(read_image(paths[shows]), lambda: read_image(other), rng, strength=1.0)
