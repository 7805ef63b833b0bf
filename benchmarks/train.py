"""Speed of the training loop, compared with its network alone and its loader alone; gain from each measure of speed.

A photo gives two views. `forward + backward + optimiser` has no memory, no clipping and no averaged weights: the
trainer's extra work counts against the loop.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in isc.cli.hydra_app, before torch is loaded

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from benchmarks import save
from isc.cli.hydra_app import to_config
from isc.cli.keys import CONF
from isc.config.choices import Precision
from isc.config.train import Stage, TrainConfig
from isc.model.device import choose_device, compiled, depthwise_in_float32, native_bfloat16, place
from isc.model.load import initial_model
from isc.photos.folders import SAMPLE
from isc.photos.sources import list_photos
from isc.runtime.allocator import keep_freed_memory
from isc.runtime.cpus import cores, worker_count
from isc.train.dataset import Batch, Source
from isc.train.objective import Rows, total_loss
from isc.train.optimizer import Span, blocks_kept, freeze, make_optimizer, plan, set_training
from isc.train.tensorboard_log import Board
from isc.train.trainer import Trainer

EXPERIMENT = "isc_small"
WINDOWS = 5  # the median of them is reported
AHEAD = 4  # batches that a loader process may prepare in advance; the loop is timed only after them
ROUNDS, ROUND_SECONDS = 7, 0.5  # turns of each measure, and their minimum length
FOREVER = 1_000_000  # steps, so that no checkpoint and no end is timed

Step = Callable[[Batch], object]


class LoaderAlone(Trainer):
    """The trainer's loop without training; only the last batch is kept."""

    batch: Batch

    def _one_step(self, batch: Batch, lr_scale: float) -> dict[str, float]:
        del lr_scale
        self.batch = batch
        self.step += 1
        return {}


@dataclass(frozen=True)
class Measures:
    """Settings that may make a step faster."""

    precision: Precision
    depthwise: bool = False  # depthwise_in_float32
    freeze_blocks: int = 0
    freeze_depthwise: bool = False


@dataclass(frozen=True)
class Speeds:
    """Speeds in photos per second."""

    loop: float
    network: float  # forward + backward + optimiser on ready tensors
    loader: float  # all its processes
    one_core: float  # the loader's work per second of processor time

    @property
    def slower(self) -> float:
        """The speed that the loop could reach if network and loader shared nothing."""
        return min(self.network, self.loader)

    @property
    def shared(self) -> float:
        """The speed that the loop could reach on shared cores: a photo takes core seconds of network and loader."""
        core_seconds = torch.get_num_threads() / self.network + 1 / self.one_core
        return min(self.slower, cores() / core_seconds)


class _Enough(Exception):  # noqa: N818  no error
    """Signal that all windows are timed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", help=f"of train.py, KEY=VALUE, on top of experiment={EXPERIMENT}")
    parser.add_argument("--images", default=SAMPLE, type=Path, help="folder of photos (default: the shipped ones)")
    parser.add_argument("--steps", default=20, type=int, help="steps of the loop to time (default: 20)")
    parser.add_argument("--batch-size", type=int, help="photos a step (default: the experiment's)")
    parser.add_argument("--image-size", type=int, help="pixels (default: those of the experiment's longest stage)")
    given = parser.parse_args()
    batch = [] if given.batch_size is None else [f"train.batch_size={given.batch_size}"]
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as run:
        config = configured(given.images, Path(run), [*given.overrides, *batch])
        stage = max(plan(config.train), key=lambda span: span.last - span.first).stage
        if given.image_size is not None:
            stage = replace(stage, image_size=given.image_size)
        measure(config, stage, steps=given.steps)


def configured(images: Path, run: Path, overrides: list[str]) -> TrainConfig:
    """Return the experiment with the overrides, without an end or checkpoints, and with the memory always in use.

    The background costs nothing during training and needs more photos than are shipped, so it is off.
    """
    ConfigStore.instance().store(name="train_defaults", node=TrainConfig)
    given = ["images=[-]", "output=-", f"experiment={EXPERIMENT}", "model.background=0", "model.whiten=0", *overrides]
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        config: TrainConfig = to_config(compose("train", given))
    return replace(
        config,
        images=[str(images)],
        output=str(run),
        train=replace(config.train, steps=FOREVER, checkpoint_every=FOREVER, validate_every=FOREVER),
        loss=replace(config.loss, memory_after=0.0),
    )


def measure(config: TrainConfig, stage: Stage, *, steps: int) -> None:
    """Print and save both tables."""
    device = choose_device(config.device.value)
    turn = max(1, worker_count(config.workers))  # a window has the same number of batches of each process
    each = turn * -(-steps // (WINDOWS * turn))
    trainer = _trainer(Trainer, config, device)
    _fill_memory(trainer)
    print(f"{WINDOWS * each} steps of the loop on {device}, then of the loader alone, then the network …", flush=True)
    loop = rates(trainer, stage, warm=AHEAD * turn, each=each)
    alone = _trainer(LoaderAlone, config, device)
    loader = rates(alone, stage, warm=2 * turn, each=each)
    single = _trainer(LoaderAlone, replace(config, workers=0), device)
    one_core = rates(single, stage, warm=1, each=1, clock=time.process_time)

    on_cpu = device.type == "cpu"
    own = Measures(
        trainer.precision,
        depthwise=on_cpu and trainer.precision is Precision.bfloat16,
        freeze_blocks=blocks_kept(stage, config.train),
        freeze_depthwise=config.train.freeze_depthwise,
    )
    compared = comparison(device)
    actions: dict[object, Step] = {one: network_step(config, device, one) for one in dict.fromkeys([own, *compared])}
    actions["trainer"] = lambda batch: trainer._one_step(batch, stage.lr)
    views = alone.batch.views.to(device).contiguous(memory_format=torch.channels_last)
    took = seconds_in_turns(actions, Batch(views, alone.batch.instances.to(device), []), device)

    photos = config.train.batch_size
    found = Speeds(
        loop=statistics.median(loop),
        network=photos / statistics.median(took[own]),
        loader=statistics.median(loader),
        one_core=statistics.median(one_core),
    )
    where = f"CPU, {cores()} cores" if on_cpu else torch.cuda.get_device_name()
    setting = f"{where}; {config.model.backbone}, {stage.image_size} px, {photos} photos a step, {_named(own)}"
    step = _row(
        "the trainer's step on ready tensors",
        photos / statistics.median(took["trainer"]),
        "forward + backward + optimiser",
        _ratio(took["trainer"], took[own]),
    )
    save(f"train_{device.type}", [*loop_rows(found, setting, on_cpu=on_cpu), step])
    print()
    (plain, name), *_ = compared.items()
    rows = [
        _row(what, photos / statistics.median(took[one]), name, _ratio(took[one], took[plain]))
        for one, what in compared.items()
    ]
    save(f"train_{device.type}_measures", rows)
    print("\n" + verdict(found, on_cpu=on_cpu))


def comparison(device: torch.device) -> dict[Measures, str]:
    """Return the settings to compare on this device, float32 first; a + adds to the settings before."""
    best = Measures(Precision.float32)
    found = {best: "float32"}
    if native_bfloat16(device):
        best = Measures(Precision.bfloat16)
        found[best] = "bfloat16"
        if device.type == "cpu":
            best = replace(best, depthwise=True)
            found[best] = "bfloat16, depthwise convolutions in float32"
    frozen = replace(best, freeze_blocks=3)
    return found | {
        frozen: "+ train.freeze_blocks=3",
        replace(frozen, freeze_depthwise=True): "+ train.freeze_depthwise=true",
    }


def _named(measures: Measures) -> str:
    parts = [measures.precision.value]
    parts += [f"freeze_blocks={measures.freeze_blocks}"] if measures.freeze_blocks else []
    parts += ["freeze_depthwise"] if measures.freeze_depthwise else []
    return ", ".join(parts)


def _trainer(kind: type[Trainer], config: TrainConfig, device: torch.device) -> Trainer:
    torch.manual_seed(config.seed)
    return kind(config, Path(config.output), device, Source(list_photos(config.images)))


def _fill_memory(trainer: Trainer) -> None:
    """Fill the memory with random embeddings, so that it costs as much as in a long run."""
    rows = torch.randn(trainer.memory.embeddings.shape, device=trainer.device)
    trainer.memory.push(F.normalize(rows), trainer.memory.instances.clone())


def rates(
    trainer: Trainer, stage: Stage, *, warm: int, each: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Return the photos per second of the trainer's loop in WINDOWS windows of `each` steps, after `warm` steps."""
    marks: list[float] = []

    def report(step: int, _total: int) -> None:
        if step >= warm and (step - warm) % each == 0:
            _finish(trainer.device)
            marks.append(clock())
            if len(marks) > WINDOWS:
                raise _Enough

    with suppress(_Enough), Board.of(trainer.run, 0) as board:
        trainer._run_span(Span(0, FOREVER, stage), report, board)
    return [each * trainer.config.train.batch_size / (after - before) for before, after in pairwise(marks)]


def network_step(config: TrainConfig, device: torch.device, measures: Measures) -> Step:
    """Return a step of forward, loss, backward and optimiser, and nothing else."""
    model = place(initial_model(config.model, seed=config.seed), device)
    optimizer = make_optimizer(model, config.train)
    if measures.depthwise:
        depthwise_in_float32(model.backbone)
    freeze(model, blocks=measures.freeze_blocks, depthwise=measures.freeze_depthwise)
    set_training(model, freeze_norms=config.train.freeze_norms)
    project = compiled(model.project) if config.train.compile else model.project

    def step(batch: Batch) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=measures.precision is Precision.bfloat16):
            projected = project(batch.views)
        loss, _ = total_loss(Rows(model.finish(projected), batch.instances), config.loss)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def seconds_in_turns(actions: Mapping[object, Step], batch: Batch, device: torch.device) -> dict[object, list[float]]:
    """Return the seconds per step of each action in ROUNDS rounds.

    The actions take turns, so that a slow minute slows all of them.
    """

    def seconds(action: Step, times: int) -> float:
        _finish(device)
        start = time.perf_counter()
        for _ in range(times):
            action(batch)
        _finish(device)
        return (time.perf_counter() - start) / times

    times = {}
    for key, action in actions.items():
        action(batch)  # the first call chooses the kernels
        times[key] = max(1, round(ROUND_SECONDS / seconds(action, 1)))
    took: dict[object, list[float]] = {key: [] for key in actions}
    for _ in range(ROUNDS):
        for key, action in actions.items():
            took[key].append(seconds(action, times[key]))
    return took


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _ratio(took: list[float], beside: list[float]) -> float:
    """Return the speed of `took` divided by that of `beside`, in the median round."""
    return statistics.median(other / own for own, other in zip(took, beside, strict=True))


def loop_rows(found: Speeds, setting: str, *, on_cpu: bool) -> list[dict[str, object]]:
    rows = [_row(f"the whole loop ({setting})", found.loop, "the slower of the next two", found.loop / found.slower)]
    rows += [_row("forward + backward + optimiser on ready tensors", found.network)]
    rows += [_row("the loader alone", found.loader)]
    if on_cpu:
        rows += [_row("one core that does the loader's work", found.one_core)]
        rows += [_row("network and loader on the same cores, by their core seconds", found.shared)]
        rows += [_row("the whole loop", found.loop, "both on the same cores", found.loop / found.shared)]
    return rows


def verdict(found: Speeds, *, on_cpu: bool) -> str:
    share = f"{found.loop:.1f} photos a second, {found.loop / found.slower:.2f} of the slower of network and loader"
    if not on_cpu:
        return f"The loop makes {share}."
    return (
        f"The loop makes {share}. Both need the same {cores()} cores, {torch.get_num_threads() / found.network:.4f} "
        f"and {1 / found.one_core:.4f} core seconds a photo: together they can make {found.shared:.1f} photos a "
        f"second, {found.shared / found.slower:.2f} of the slower one; the loop makes "
        f"{found.loop / found.shared:.2f} of that."
    )


def _row(what: str, rate: float, beside: str = "—", ratio: float | None = None) -> dict[str, object]:
    shown = "—" if ratio is None else round(ratio, 2)
    return {"what": what, "photos a second": round(rate, 1), "beside": beside, "ratio": shown}


if __name__ == "__main__":
    main()
