"""Trains the pair matcher on stored tokens: an attacked view with its own photo, with a near one, and with any one."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.pair_matcher.data import Halves, Pictures
from benchmarks.pair_matcher.model import PairConfig, PairNetwork, save_pair_network
from isc.errors import InputError
from isc.io import atomic_path
from isc.optim import Average
from isc.progress import progress

WEIGHTS_FILE = "pair.npz"
CHECKPOINT_FILE = "checkpoint.pt"
KINDS = 3  # of pairs for a view: its own photo, a near photo, any photo
NEAR = 10  # photos among which a view's near one is drawn
SAME_PHOTO = 0.8  # cosine of two photos' descriptors from which on they may show the same
SAID_EVERY, SAVED_EVERY = 20, 50  # steps


@dataclass(frozen=True)
class Settings:
    """`batch` counts views, each of which makes KINDS pairs; `lr` rises over `warmup` steps, then falls by a cosine."""

    steps: int = 1500
    batch: int = 16
    lr: float = 1.5e-3
    warmup: int = 60
    weight_decay: float = 0.02
    average: float = 0.995
    clip: float = 1.0
    seed: int = 0
    network: PairConfig = field(default_factory=PairConfig)

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 2)):  # a view's any photo is that of another view
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)}; expected at least {least}")
        if not 0 < self.lr < math.inf:
            raise InputError(f"lr={self.lr}; expected more than 0")


@dataclass(frozen=True)
class Source:
    """Tokens of attacked `views` [V, T, C] and of `photos` [N, T, C]; the photo that each view `shows` [V], and others
    `near` it [V, K], its hard negatives."""

    views: Halves
    photos: Halves
    shows: npt.NDArray[np.int64]
    near: npt.NDArray[np.int64]

    @classmethod
    def of(cls, views: Pictures, photos: Pictures, shows: npt.NDArray[np.int64]) -> Source:
        near = near_photos(views.descriptors, photos.descriptors, shows, count=NEAR)
        return cls(views.tokens, photos.tokens, shows, near)

    def identity(self) -> str:
        """The SHA-256 of what is paired with what, and of some tokens."""
        digest = hashlib.sha256()
        for part in (self.shows, self.near, self.views[:: max(1, len(self.views) // 16)], self.photos[:1]):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def near_photos(
    views: npt.NDArray[np.floating], photos: npt.NDArray[np.floating], shows: npt.NDArray[np.int64], *, count: int
) -> npt.NDArray[np.int64]:
    """The `count` photos [V, count] nearest to each view, by descriptors of unit length, that show something else."""
    if count >= len(photos):
        raise InputError(f"{len(photos)} photos; expected more than {count}, from which a view's near one is drawn")
    found = []
    stored = photos.astype(np.float32)
    for start in range(0, len(views), 1024):
        rows = shows[start : start + 1024]
        likeness = views[start : start + 1024].astype(np.float32) @ stored.T
        likeness[stored[rows] @ stored.T > SAME_PHOTO] = -np.inf
        likeness[np.arange(len(rows)), rows] = -np.inf
        found.append(np.argpartition(-likeness, count - 1, axis=1)[:, :count])
    return np.concatenate(found).astype(np.int64)


def batch_of(source: Source, step: int, settings: Settings) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The batch of a step: views [B] and their photos [B, KINDS], of which the first column is right, the second near,
    and the third another view's. It depends on the source, the settings and the step alone.
    """
    numbers = np.arange(step * settings.batch, (step + 1) * settings.batch)
    laps, places = numbers // len(source.views), numbers % len(source.views)
    lap = int(laps[0])
    now, then = (np.random.default_rng([settings.seed, 1, n]).permutation(len(source.views)) for n in (lap, lap + 1))
    views = np.where(laps == lap, now[places], then[places])
    rng = np.random.default_rng([settings.seed, 2, step])
    near = source.near[views, rng.integers(source.near.shape[1], size=len(views))]
    shown = source.shows[views]
    other = np.roll(shown, 1)
    other = np.where(other == shown, near, other)  # two views of the same photo may meet
    return views, np.stack([shown, near, other], axis=1)


def train(settings: Settings, source: Source, folder: Path) -> Path:
    """Train, or go on training, in `folder`; the path of the weights, averaged over the steps."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(settings, source, folder)
    trainer.load()
    losses: list[float] = []
    with progress("pairs", "steps") as report:
        while trainer.step < settings.steps:
            losses.append(trainer.take_step())
            report(trainer.step, settings.steps)
            if trainer.step % SAID_EVERY == 0:
                print(f"step {trainer.step}  loss {np.mean(losses[-SAID_EVERY:]):.4f}", flush=True)
            if trainer.step % SAVED_EVERY == 0:
                trainer.save()
    return trainer.save()


class Trainer:
    """A run: `step` steps are done."""

    def __init__(self, settings: Settings, source: Source, folder: Path) -> None:
        if len(source.views) < settings.batch:
            raise InputError(f"{len(source.views)} views for batches of {settings.batch}; expected as many at least")
        torch.manual_seed(settings.seed)
        self.settings, self.source, self.folder = settings, source, folder
        self.network = PairNetwork(settings.network)
        self.optimizer = torch.optim.AdamW(_groups(self.network, settings.weight_decay), lr=settings.lr)
        self.average = Average(self.network, settings.average)
        self.step = 0

    def take_step(self) -> float:
        """One step; its loss. One that is not finite ends the run before it spoils the weights."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * _schedule(self.step, self.settings)
        views, photos = batch_of(self.source, self.step, self.settings)
        query = torch.from_numpy(self.source.views[views].repeat(KINDS, axis=0)).float()
        logits = self.network(query, torch.from_numpy(self.source.photos[photos.ravel()]).float()).view(-1, KINDS)
        loss = pair_loss(logits)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        if not math.isfinite(loss.item() + norm.item()):
            raise InputError(f"step {self.step + 1}: loss {loss.item()}, gradient {norm.item()}; lower --lr")
        self.optimizer.step()
        self.average.update(self.network, self.step)
        self.step += 1
        return loss.item()

    def save(self) -> Path:
        """Write weights and checkpoint, each whole or not at all."""
        averaged = PairNetwork(self.settings.network)
        averaged.load_state_dict(self.average.state)
        save_pair_network(self.folder / WEIGHTS_FILE, averaged)
        state = {
            "settings": asdict(self.settings),
            "source": self.source.identity(),
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state,
            "optimizer": self.optimizer.state_dict(),
        }
        data = io.BytesIO()  # torch's own writer would hide why the file cannot be written
        torch.save(state, data)
        with atomic_path(self.folder / CHECKPOINT_FILE) as beside:
            beside.write_bytes(data.getvalue())
        return self.folder / WEIGHTS_FILE

    def load(self) -> None:
        """Go on from the folder's checkpoint, if there is one; InputError where it was made otherwise."""
        path = self.folder / CHECKPOINT_FILE
        if not path.exists():
            return
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # torch raises many kinds for a damaged file
            raise InputError(f"{path}: cannot be read ({type(error).__name__}); remove it to start again") from error
        for name, asked in asdict(self.settings).items():
            if (made := state["settings"].get(name)) != asked:
                raise InputError(f"{path}: was made with {name}={made}, now {name}={asked}; expected the same")
        if state["source"] != self.source.identity():
            raise InputError(f"{path}: was made with other views or photos; remove it to start again")
        self.network.load_state_dict(state["network"])
        self.average.state = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def pair_loss(logits: Tensor) -> Tensor:
    """Binary cross-entropy of logits [B, KINDS], of which the first column shows the same photo."""
    same = torch.zeros_like(logits)
    same[:, 0] = 1
    return F.binary_cross_entropy_with_logits(logits, same)


def _schedule(step: int, settings: Settings) -> float:
    """Share of the full rate at this step."""
    if step < settings.warmup:
        return (step + 1) / (settings.warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - settings.warmup) / max(1, settings.steps - settings.warmup)))


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices, none on biases, norms, places and scales."""
    plain = {"place", "side", "code", "scale"}
    named = list(network.named_parameters())
    matrices = [p for name, p in named if p.ndim > 1 and name not in plain]
    others = [p for name, p in named if p.ndim <= 1 or name in plain]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
