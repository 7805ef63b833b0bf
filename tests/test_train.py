"""Training: the run folder, going on after an interruption bit for bit, refusals by name, and that it learns at all."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
import resource
import shutil
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import safetensors
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import isc.train.run
import isc.train.trainer
from isc.config.choices import Contrast, Device, Optimizer, Precision
from isc.config.extract import ExtractConfig
from isc.config.train import GONE, AugmentConfig, LossConfig, ModelConfig, OptimConfig, Stage, TrainConfig
from isc.data.hdf5 import read_descriptors
from isc.errors import InputError
from isc.evaluate.metrics import Metrics
from isc.extract.embedding import embed
from isc.extract.run import extract
from isc.model.checkpoint import flat_config
from isc.model.copy_model import CopyModel
from isc.model.files import save_model
from isc.model.load import initial_model, load_model
from isc.model.pooling import whitening_of
from isc.model.torch_inference import torch_inference_model
from isc.photos.folders import list_images
from isc.photos.sources import list_photos
from isc.train.dataset import Source, TrainingViews
from isc.train.neighbours import nearest_rows
from isc.train.objective import Rows, total_loss
from isc.train.optimizer import schedule
from isc.train.run import train
from isc.train.run_files import LOG_COLUMNS
from isc.train.trainer import Trainer
from isc.train.validation import Validation

SAMPLE = Path(isc.__file__).parent / "sample"
CPU = torch.device("cpu")
STEPS = 4
SMALL = ModelConfig(backbone="test_efficientnet", weights="none", dim=16, image_size=32)  # for timm's own tests
TINY = OptimConfig(steps=STEPS, batch_size=4, image_size=32, checkpoint_every=1)
SCRIPT = (
    "model.backbone=test_efficientnet",
    "model.weights=none",
    "model.dim=16",
    "model.image_size=32",
    "train.steps=4",
    "train.batch_size=4",
    "train.image_size=32",
    "train.checkpoint_every=1",
    "workers=0",
    "device=cpu",
)
RUN_FILES = {"model.safetensors", "checkpoint.pt", "config.json", "log.csv", "provenance.json", "tensorboard"}
UNFINISHED = RUN_FILES - {"model.safetensors", "provenance.json"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for source in sorted(SAMPLE.glob("*.jpg"))[:12]:
        shutil.copy(source, folder)
    return folder


def config(photos, output, **options):
    options = {"workers": 0, "device": Device.cpu, "model": SMALL, "train": TINY} | options
    return TrainConfig(images=str(photos), output=str(output), **options)


@pytest.fixture(scope="module")
def straight(photos, tmp_path_factory):
    """A run of STEPS steps without a break."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    train(config(photos, folder))
    return folder


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def column(run: Path, name: str) -> list[float]:
    header, *rows = rows_of(run / "log.csv")
    return [float(row[header.index(name)]) for row in rows]


def checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoint.pt", weights_only=True)


def names(folder):
    return {path.name for path in folder.iterdir()}


def same(one: Any, two: Any, where: str = "") -> None:
    """Two values out of checkpoints agree bit for bit, whatever they are made of."""
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert list(one) == list(two), where
        for name in one:
            same(one[name], two[name], f"{where}.{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), where
        for place, (a, b) in enumerate(zip(one, two, strict=True)):
            same(a, b, f"{where}.{place}")
    else:
        assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two, where


def same_run(one: Path, two: Path) -> None:
    """Two runs ended with the same model and checkpoint, bit for bit, and the same log but for the speed."""
    a, b = (safetensors.torch.load_file(run / "model.safetensors") for run in (one, two))
    same(a, b)
    states = [checkpoint(run) for run in (one, two)]
    for state in states:
        state["rows"] = [row[:-1] for row in state["rows"]]
        del state["seconds"]
        state["config"] = {name: value for name, value in state["config"].items() if name not in {"output", "resume"}}
    same(*states)
    assert [row[:-1] for row in rows_of(one / "log.csv")] == [row[:-1] for row in rows_of(two / "log.csv")]


def interrupted(run_config: TrainConfig, monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """The run up to Ctrl-C in the step after this one."""
    one_step = Trainer._one_step

    def broken(self, *given):
        if self.step == after:
            raise KeyboardInterrupt
        return one_step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", broken)
        with pytest.raises(KeyboardInterrupt):
            train(run_config)


def trainer_of(given: TrainConfig) -> Trainer:
    return Trainer(given, Path(given.output), CPU, Source(list_photos(given.images)))


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_writes_its_folder(straight):
    assert names(straight) == RUN_FILES
    header, *rows = rows_of(straight / "log.csv")
    assert tuple(header) == LOG_COLUMNS
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4]
    assert all(math.isfinite(float(value)) for row in rows for value in row)
    flat = json.loads((straight / "config.json").read_text(encoding="utf-8"))
    assert (flat["train.steps"], flat["loss.temperature"], flat["train.precision"]) == (STEPS, 0.05, "float32")
    provenance = json.loads((straight / "provenance.json").read_text(encoding="utf-8"))
    assert {"model", "weights_sha256", "seed", "steps", "photos", "code_version", "torch"} <= provenance.keys()
    assert (provenance["steps"], provenance["photos"], provenance["seed"]) == ("4", "12", "0")


def test_help_names_the_files_of_a_run(place, straight):
    shown = place.done("train", "--help", script=False).out
    for name in names(straight):
        assert name in shown


@pytest.mark.parametrize("model", ["", "model.safetensors"])
def test_extract_takes_the_run_folder_and_the_file(straight, photos, tmp_path, model):
    options = {"images": str(photos), "image_size": 64, "workers": 0}
    written = extract(ExtractConfig(output=str(tmp_path / "d.h5"), model=str(straight / model), **options))
    assert read_descriptors(written).vectors.shape == (12, 16)


def test_training_changes_the_model(straight):
    trained = safetensors.torch.load_file(straight / "model.safetensors")
    start = initial_model(SMALL, seed=0).state_dict()
    assert trained.keys() == start.keys()
    assert not torch.equal(trained["linear.weight"], start["linear.weight"])


def test_the_seed_decides_and_nothing_else(straight, photos, tmp_path):
    torch.rand(3)  # whatever was drawn before
    train(config(photos, tmp_path / "again"))
    same_run(straight, tmp_path / "again")
    train(config(photos, tmp_path / "other", seed=1))
    assert column(tmp_path / "other", "loss") != column(straight, "loss")


PLAIN = AugmentConfig(
    min_crop=0.8, **{field.name: 0.0 for field in dataclasses.fields(AugmentConfig) if field.name != "min_crop"}
)


@pytest.mark.parametrize("contrast", Contrast)
def test_the_loss_falls(photos, tmp_path, contrast):
    options = OptimConfig(steps=16, batch_size=6, image_size=32, lr=3e-3, warmup=0.0, checkpoint_every=100)
    train(config(photos, tmp_path / "run", train=options, augment=PLAIN, loss=LossConfig(contrast=contrast)))
    loss = column(tmp_path / "run", "contrast")
    assert sum(loss[-4:]) < 0.9 * sum(loss[:4]), loss


def test_tensorboard_shows_what_the_log_holds(straight):
    events = EventAccumulator(str(straight / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {f"training/{name}" for name in LOG_COLUMNS if name != "step"}
    for name in LOG_COLUMNS[1:]:
        shown = events.Scalars(f"training/{name}")
        assert [event.step for event in shown] == [1, 2, 3, 4]
        assert [event.value for event in shown] == pytest.approx(column(straight, name), rel=1e-4)


# --- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_run_goes_on_to_the_same_model(straight, photos, tmp_path, monkeypatch, after):
    interrupted(config(photos, tmp_path / "run"), monkeypatch, after=after)
    assert names(tmp_path / "run") <= UNFINISHED
    torch.rand(3)
    train(config(photos, tmp_path / "run", resume=True))
    same_run(straight, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("training/loss")] == [1, 2, 3, 4]


RICH = {
    "model": dataclasses.replace(SMALL, gem_power=2.5, background=5, whiten=0.1),
    "train": OptimConfig(
        steps=6,
        batch_size=4,
        stages=[Stage(share=1, image_size=32, strength=0.5), Stage(share=1, image_size=48, lr=0.5, freeze_blocks=1)],
        ema=0.9,
        precision=Precision.bfloat16,
        hard_negatives=2,
        checkpoint_every=1,
    ),
    "augment": AugmentConfig(mix=0.9),
    "loss": LossConfig(memory=12, memory_after=0.2),
}
RICH_SCRIPT = (
    *SCRIPT,
    "model.gem_power=2.5",
    "model.background=5",
    "model.whiten=0.1",
    "train.steps=6",
    "train.stages=[{share:1,image_size:32,strength:0.5},{share:1,image_size:48,lr:0.5,freeze_blocks:1}]",
    "train.image_size=160",
    "train.ema=0.9",
    "train.precision=bfloat16",
    "train.hard_negatives=2",
    "augment.mix=0.9",
    "loss.memory=12",
    "loss.memory_after=0.2",
)


@pytest.fixture(scope="module")
def rich(photos, tmp_path_factory):
    """Stages, average, bfloat16, hard negatives, mixed views and a memory, without a break."""
    folder = tmp_path_factory.mktemp("rich") / "run"
    train(config(photos, folder, **RICH))
    state = checkpoint(folder)
    assert state["memory"]["written"].item() == 6 * 8
    assert state["neighbours"].shape == (12, 2)
    assert (state["memory"]["instances"] >= 0).all(dim=1).any(), "no view was mixed"
    assert not torch.equal(state["model"]["linear.weight"], state["average"]["linear.weight"])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("after", [2, 3, 5], ids=["in stage 1", "between the stages", "in stage 2"])
def test_every_part_of_the_state_goes_on(rich, photos, tmp_path, monkeypatch, after):
    interrupted(config(photos, tmp_path / "run", **RICH), monkeypatch, after=after)
    torch.rand(3)
    train(config(photos, tmp_path / "run", resume=True, **RICH))
    same_run(rich, tmp_path / "run")


def test_what_a_network_drops_is_the_same_after_an_interruption(photos, tmp_path, monkeypatch):
    """Its random numbers go on where they were, also past a loader that starts anew and a search for neighbours."""
    pool = CopyModel.pool
    monkeypatch.setattr(CopyModel, "pool", lambda self, x: nn.functional.dropout(pool(self, x), 0.5, self.training))
    options = {"train": dataclasses.replace(TINY, steps=3, hard_negatives=1)}
    train(config(photos, tmp_path / "straight", **options))
    interrupted(config(photos, tmp_path / "run", **options), monkeypatch, after=2)
    torch.rand(3)
    train(config(photos, tmp_path / "run", resume=True, **options))
    same_run(tmp_path / "straight", tmp_path / "run")


@pytest.mark.parametrize("optimizer", [Optimizer.sgd, Optimizer.lars])
def test_other_optimisers_go_on_too(photos, tmp_path, monkeypatch, optimizer):
    options = {"train": dataclasses.replace(TINY, optimizer=optimizer, lr=0.1, steps=3)}
    train(config(photos, tmp_path / "straight", **options))
    interrupted(config(photos, tmp_path / "run", **options), monkeypatch, after=2)
    train(config(photos, tmp_path / "run", resume=True, **options))
    same_run(tmp_path / "straight", tmp_path / "run")


def test_what_was_done_since_the_last_checkpoint_is_done_again(photos, tmp_path, monkeypatch):
    """checkpoint_every=2, interrupted in step 4: steps 3 and 4 are repeated, and the log holds each once."""
    options = dataclasses.replace(TINY, checkpoint_every=2)
    train(config(photos, tmp_path / "straight", train=options))
    interrupted(config(photos, tmp_path / "run", train=options), monkeypatch, after=3)
    assert checkpoint(tmp_path / "run")["step"] == 2
    train(config(photos, tmp_path / "run", train=options, resume=True))
    same_run(tmp_path / "straight", tmp_path / "run")


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_model(place, rich, photos):
    """SIGKILL as the first checkpoint appears; the run goes on in this process."""
    finished = place.signalled(
        signal.SIGKILL,
        "train",
        f"images={photos}",
        "output=run",
        *RICH_SCRIPT,
        when=lambda _: (place / "run" / "checkpoint.pt").exists(),
    )
    assert finished.status == -signal.SIGKILL
    train(config(photos, place / "run", resume=True, **RICH))
    same_run(rich, place / "run")


def test_ctrl_c_leaves_whole_files_alone(place, photos):
    arguments = [f"images={photos}", "output=run", *SCRIPT, "train.steps=500", "workers=1"]
    finished = place.signalled(
        signal.SIGINT, "train", *arguments, when=lambda _: (place / "run" / "checkpoint.pt").exists()
    )
    assert finished.status == 130, finished.err
    assert "interrupted" in finished.err
    assert "Traceback" not in finished.err, finished.err
    assert names(place / "run") <= UNFINISHED
    assert checkpoint(place / "run")["step"] >= 1
    assert {path.name for path in place.folder.iterdir()} == {"run"}


def test_a_finished_run_can_be_made_longer(straight, photos, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    longer = dataclasses.replace(TINY, steps=STEPS + 1)
    train(config(photos, tmp_path / "run", train=longer, resume=True))
    log = rows_of(tmp_path / "run" / "log.csv")
    assert [int(row[0]) for row in log[1:]] == [1, 2, 3, 4, 5]
    assert [row[:-1] for row in log[:5]] == [row[:-1] for row in rows_of(straight / "log.csv")]
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["steps"] == "5"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train.steps"] == 5


def test_a_finished_run_taken_up_again_is_the_same(straight, photos, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    train(config(photos, tmp_path / "run", resume=True))
    same_run(straight, tmp_path / "run")


# --- a full disk -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(*, saves: int = 0) -> Iterator[None]:
    """No file grows beyond 20 kB, as on a disk that is full, from the checkpoint after so many on (0: from now on).

    For as long as the block lasts and no longer: what pytest itself prints may well go to a longer file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    save, made = Trainer.save, []

    def fill() -> None:
        if len(made) == saves:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    def filling(self):
        fill()
        made.append(self.step)
        save(self)

    try:
        fill()
        with mock.patch.object(Trainer, "save", filling):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_checkpoint_before_it(straight, photos, tmp_path):
    run = tmp_path / "run"
    told = r"checkpoint\.pt: cannot be written \(File too large\); the checkpoint of step 2 is kept, and resume=true"
    with pytest.raises(InputError, match=told), full_disk(saves=2):
        train(config(photos, run))
    assert names(run) <= UNFINISHED  # nothing half written beside them
    assert checkpoint(run)["step"] == 2
    train(config(photos, run, resume=True))
    same_run(straight, run)


def test_a_disk_that_is_full_from_the_start(photos, tmp_path):
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be written \(File too large\)") as told, full_disk():
        train(config(photos, tmp_path / "run"))
    assert "is kept" not in str(told.value)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_disk_that_is_full_at_the_end(straight, photos, tmp_path):
    """The checkpoint is there; the model is written when there is room again."""
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    (run / "model.safetensors").unlink()
    told = r"model\.safetensors: cannot be written .*; the checkpoint of step 4 is kept"
    with pytest.raises(InputError, match=told), full_disk():
        train(config(photos, run, resume=True))
    train(config(photos, run, resume=True))
    same_run(straight, run)


# --- refusals --------------------------------------------------------------------------------------------------------

OTHER = {
    "loss.temperature": {"loss": LossConfig(temperature=0.1)},
    "loss.memory": {"loss": LossConfig(memory=8)},
    "train.clip": {"train": dataclasses.replace(TINY, clip=0.5)},
    "train.batch_size": {"train": dataclasses.replace(TINY, batch_size=3)},
    "train.optimizer": {"train": dataclasses.replace(TINY, optimizer=Optimizer.sgd)},
    "train.ema": {"train": dataclasses.replace(TINY, ema=0.5)},
    "train.precision": {"train": dataclasses.replace(TINY, precision=Precision.bfloat16)},
    "train.stages.0.share": {"train": dataclasses.replace(TINY, stages=[Stage()])},
    "model.dim": {"model": dataclasses.replace(SMALL, dim=64)},
    "augment.blur": {"augment": AugmentConfig(blur=0.0)},
    "seed": {"seed": 5},
}


@pytest.mark.parametrize(("key", "options"), OTHER.items(), ids=OTHER)
def test_a_run_made_otherwise_is_not_gone_on_with(straight, photos, key, options):
    before = (straight / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match=rf"run: was made with {key}=.*now {key}="):
        train(config(photos, straight, resume=True, **options))
    assert (straight / "checkpoint.pt").read_bytes() == before


def test_a_run_of_other_stages_is_not_gone_on_with(rich, photos):
    stages = [RICH["train"].stages[0], dataclasses.replace(RICH["train"].stages[1], image_size=64)]
    other = RICH | {"train": dataclasses.replace(RICH["train"], stages=stages)}
    named = r"run: was made with train\.stages\.1\.image_size=48, now train\.stages\.1\.image_size=64"
    with pytest.raises(InputError, match=named):
        train(config(photos, rich, resume=True, **other))
    fewer = RICH | {"train": dataclasses.replace(RICH["train"], stages=stages[:1])}
    with pytest.raises(InputError, match=r"train\.stages\.1\.share=1.*, now train\.stages\.1\.share=None"):
        train(config(photos, rich, resume=True, **fewer))


def packed_in_two(photos: Path, folder: Path) -> str:
    """The photos in two tar shards; the pattern that names both."""
    folder.mkdir()
    for number in range(2):
        with tarfile.open(folder / f"{number:03}.tar", "w") as tar:
            for path in sorted(photos.iterdir())[number::2]:
                tar.add(path, path.name)
    return f"{folder}/{{000..001}}.tar"


def test_a_run_on_tars_is_that_on_their_folder(photos, tmp_path):
    """With a background and hard negatives, which read the photos too."""
    options = {
        "model": dataclasses.replace(SMALL, background=5),
        "train": dataclasses.replace(TINY, hard_negatives=2),
    }
    train(config(photos, tmp_path / "one", **options))
    train(config(packed_in_two(photos, tmp_path / "shards"), tmp_path / "two", **options))
    for run in ("one", "two"):
        flat = json.loads((tmp_path / run / "config.json").read_text(encoding="utf-8"))
        assert flat.pop("images") == str(photos if run == "one" else tmp_path / "shards" / "{000..001}.tar")
    a, b = (checkpoint(tmp_path / run) for run in ("one", "two"))
    assert a["photos_sha256"] == b["photos_sha256"]
    for name in ("model", "average", "neighbours"):
        same(a[name], b[name])
    same(*(safetensors.torch.load_file(tmp_path / run / "model.safetensors") for run in ("one", "two")))


@pytest.mark.slow
def test_the_script_trains_on_several_sources_and_goes_on_with_a_folder(place, photos):
    """Tars and a list: `images=[…]`; the hash of the photos decides, not where they lie."""
    first, second = sorted(photos.iterdir())[:6], sorted(photos.iterdir())[6:]
    with tarfile.open(place / "a.tar", "w") as tar:
        for path in first:
            tar.add(path, path.name)
    (place / "table.csv").write_text("id,file\n" + "".join(f"{path.stem},{path}\n" for path in second))
    place.done("train", "images=[a.tar,table.csv]", "output=run", *SCRIPT)
    before = checkpoint(place / "run")
    assert (before["config"]["images.0"], before["config"]["images.1"]) == ("a.tar", "table.csv")
    place.done("train", f"images={photos}", "output=run", *SCRIPT, "train.steps=5", "resume=true")
    assert checkpoint(place / "run")["photos_sha256"] == before["photos_sha256"]


def test_a_run_of_one_folder_as_text_goes_on(straight, photos, tmp_path):
    """Checkpoints of earlier versions hold `images` as one text."""
    shutil.copytree(straight, tmp_path / "run")
    assert checkpoint(tmp_path / "run")["config"]["images"] == str(photos)
    longer = dataclasses.replace(config(photos, tmp_path / "run", resume=True), images=[str(photos)])
    longer.train = dataclasses.replace(TINY, steps=STEPS + 1)
    train(longer)
    assert checkpoint(tmp_path / "run")["step"] == STEPS + 1


def rewrite(run: Path, **values: Any) -> None:
    """Change the configuration in a checkpoint."""
    state = checkpoint(run)
    state["config"] |= values
    torch.save(state, run / "checkpoint.pt")


def test_a_run_of_an_earlier_version_goes_on_without_its_keys_that_are_gone(straight, photos, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    rewrite(tmp_path / "run", **GONE)
    longer = dataclasses.replace(TINY, steps=STEPS + 1)
    train(config(photos, tmp_path / "run", train=longer, resume=True))
    assert not GONE.keys() & checkpoint(tmp_path / "run")["config"].keys()
    rewrite(tmp_path / "run", **{"loss.copy_nce_power": 2.0})
    with pytest.raises(InputError, match=r"made with loss\.copy_nce_power=2\.0, now loss\.copy_nce_power=3\.0"):
        train(config(photos, tmp_path / "run", train=longer, resume=True))
    rewrite(tmp_path / "run", **{"loss.copy_nce_power": 3.0, "loss.copy_nce": 3.0})
    with pytest.raises(InputError, match=r"made with loss\.copy_nce=3\.0, now loss\.copy_nce=None"):
        train(config(photos, tmp_path / "run", train=longer, resume=True))


def test_other_photos_are_not_gone_on_with(straight, photos, tmp_path):
    """The order of the photos depends on their number, so another folder would be another run under the same log."""
    fewer = tmp_path / "fewer"
    shutil.copytree(photos, fewer)
    next(iter(fewer.iterdir())).unlink()
    shutil.copytree(straight, tmp_path / "run")
    longer = dataclasses.replace(TINY, steps=STEPS + 1)
    with pytest.raises(InputError, match=r"12.*11|11.*12"):
        train(config(fewer, tmp_path / "run", train=longer, resume=True))


def test_fewer_steps_than_were_made_are_refused(straight, photos, tmp_path):
    """A model of four steps must not be given for one of two."""
    shutil.copytree(straight, tmp_path / "run")
    with pytest.raises(InputError, match=r"train\.steps=2"):
        train(config(photos, tmp_path / "run", resume=True, train=dataclasses.replace(TINY, steps=2)))


def test_an_existing_run_is_not_overwritten(straight, photos):
    with pytest.raises(InputError, match=r"holds a run already; go on with resume=true"):
        train(config(photos, straight))
    assert names(straight) == RUN_FILES


def test_a_run_folder_that_is_a_file_is_refused(photos, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InputError, match="run"):
        train(config(photos, tmp_path / "run"))
    assert (tmp_path / "run").read_text() == "mine"


def test_a_damaged_checkpoint_is_refused_by_file(straight, photos, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be read"):
        train(config(photos, tmp_path / "run", resume=True))


AT_THE_START = {
    "dataset smaller than a batch": ("train.batch_size=13", "12 photos for batches of 13", "train.batch_size"),
    "unknown backbone": ("model.backbone=resnet999", "model.backbone=resnet999: timm has no such model"),
    "unknown start": ("model.weights=nowhere", "nowhere: no such model"),
    "too many frozen blocks": ("train.freeze_blocks=9", "train.freeze_blocks=9: test_efficientnet has 5 blocks"),
    "too many in a stage": ("train.stages=[{},{freeze_blocks: 9}]", "freeze_blocks=9: test_efficientnet has 5"),
    "too many neighbours": ("train.hard_negatives=12", "train.hard_negatives=12: there are 12 photos; expected fewer"),
    "too large a background": ("model.background=13", "model.background=13: there are 12 photos"),
    "no class token": ("model.pooling=token", "model.pooling=token: test_efficientnet has no class token"),
    "no teacher": ("loss.teacher=nowhere", "nowhere: no such model"),
    "no benchmark": ("validation=nowhere", "validation=nowhere: no queries; expected queries/"),
    "no list of pairs": ("pairs=nowhere.csv", "nowhere.csv: cannot be read"),
    "no photos": ("images=nowhere", "images=nowhere: no such folder"),
    "no compiler": ("train.compile=true", "train.compile=true: no C++ compiler"),
}


@pytest.mark.parametrize(("argument", "naming"), [(a, n) for a, *n in AT_THE_START.values()], ids=AT_THE_START)
def test_what_cannot_work_is_refused_at_the_start(place, photos, argument, naming, monkeypatch):
    """One line, status 2, no run folder."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    place.refused("train", f"images={photos}", "output=run", *SCRIPT, argument, naming=naming)


def test_a_size_that_the_backbone_cannot_take_is_refused_at_the_start(photos, tmp_path):
    """A mixer has a weight for each place of the picture."""
    mixer = ModelConfig(backbone="mixer_s32_224", weights="none", dim=8, image_size=224)
    stages = [Stage(image_size=224), Stage(image_size=256)]
    with pytest.raises(
        InputError, match=r"model\.backbone=mixer_s32_224: cannot take 256 × 256 pixels .*train\.stages"
    ):
        train(config(photos, tmp_path / "run", model=mixer, train=dataclasses.replace(TINY, stages=stages)))
    assert not (tmp_path / "run").exists()


# --- unreadable photos -----------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(photos, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(photos, folder)
    for name in ("S003.jpg", "S007.jpg"):
        (folder / name).write_bytes(b"not a photo")
    return folder


@pytest.mark.parametrize("options", [{}, {"hard_negatives": 2}], ids=["", "hard negatives"])
def test_unreadable_photos_are_counted_and_listed(damaged, tmp_path, caplog, options):
    train(config(damaged, tmp_path / "run", max_unreadable=0.2, train=dataclasses.replace(TINY, **options)))
    header, *rows = rows_of(tmp_path / "run" / "failures.csv")
    assert header == ["file", "reason"]
    assert {row[0] for row in rows} == {str(damaged / "S003.jpg"), str(damaged / "S007.jpg")}
    assert len(rows) == 2
    assert "2 photos could not be read" in caplog.text
    assert caplog.text.count("S003.jpg: cannot be decoded") == 1  # each is told once


def test_more_unreadable_photos_than_allowed_stop_the_run(damaged, tmp_path):
    with pytest.raises(InputError, match=r"1 of 12 photos cannot be read.*max_unreadable=0\.05.*S00[37]\.jpg"):
        train(config(damaged, tmp_path / "run"))
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_nothing_readable_stops_the_run(photos, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(b"not a photo")
    with pytest.raises(InputError, match="none of the 5 photos can be read"):
        train(config(folder, tmp_path / "run", max_unreadable=1.0))


def test_what_could_not_be_read_is_known_after_an_interruption(damaged, tmp_path, monkeypatch):
    options = {"max_unreadable": 0.2, "train": dataclasses.replace(TINY, steps=5)}
    interrupted(config(damaged, tmp_path / "run", **options), monkeypatch, after=3)
    found = checkpoint(tmp_path / "run")["failures"]
    assert found
    train(config(damaged, tmp_path / "run", resume=True, **options))
    listed = {row[0] for row in rows_of(tmp_path / "run" / "failures.csv")[1:]}
    assert found.keys() <= listed <= {str(damaged / "S003.jpg"), str(damaged / "S007.jpg")}


# --- a loss that runs away -------------------------------------------------------------------------------------------


@pytest.fixture(params=["loss", "gradient"])
def breaks(monkeypatch, request):
    """The third loss, or its gradient alone, is not a number."""
    calls = []

    def breaking(rows, *given, **options):
        loss, terms = total_loss(rows, *given, **options)
        calls.append(loss)
        if len(calls) != 3:
            return loss, terms
        if request.param == "loss":
            return loss * math.nan, terms | {"loss": math.nan}
        return loss + (0 * rows.embeddings).sum().abs().sqrt(), terms  # the root has no slope at 0

    monkeypatch.setattr(isc.train.trainer, "total_loss", breaking)


@pytest.mark.usefixtures("breaks")
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(photos, tmp_path):
    told = (
        r"step 3: the .* is nan; lower train\.lr\. Photos of the batch: S0\d\d\.jpg.*; the checkpoint of step 2 is kept"
    )
    with pytest.raises(InputError, match=told):
        train(config(photos, tmp_path / "run"))
    assert names(tmp_path / "run") == UNFINISHED
    state = checkpoint(tmp_path / "run")
    assert state["step"] == 2
    for part in ("model", "average", "memory"):
        assert all(value.isfinite().all() for value in state[part].values())
    # the remedy of the message works
    lower = dataclasses.replace(TINY, lr=TINY.lr / 10)
    train(config(photos, tmp_path / "run", train=lower, resume=True))
    assert len(rows_of(tmp_path / "run" / "log.csv")) == 1 + STEPS


def test_the_photos_of_a_bad_batch_are_those_that_it_showed(photos, tmp_path, monkeypatch):
    shown = []

    def breaking(rows, *given, **options):
        shown.extend(rows.instances.flatten().tolist())
        return rows.embeddings.sum() * math.nan, {"loss": math.inf}

    monkeypatch.setattr(isc.train.trainer, "total_loss", breaking)
    with pytest.raises(InputError) as told:
        train(config(photos, tmp_path / "run", augment=AugmentConfig(mix=1.0)))
    listed = list(list_images(photos).values())
    named = str(told.value).rpartition(": ")[2].split(", ")
    assert set(named) == {listed[number].name for number in shown if number >= 0}
    assert len(named) == len(set(named))


def test_the_script_ends_with_status_2_when_the_loss_runs_away(place, photos):
    arguments = [f"images={photos}", "output=run", *SCRIPT, "train.lr=1e30", "train.warmup=0"]
    finished = place.run("train", *arguments, script=False)
    assert finished.status == 2
    assert finished.err.count("\n") == 1
    assert "is nan" in finished.err or "is inf" in finished.err
    assert not (place / "run" / "model.safetensors").exists()


# --- stages, rates, averages -----------------------------------------------------------------------------------------


def test_stages_decide_sizes_strength_rates_and_blocks(photos, tmp_path, monkeypatch):
    """Two steps at 32 pixels, two at 48: what the loader makes and what the optimiser does."""
    stages = [
        Stage(image_size=32, strength=0.25, lr=1.0, freeze_blocks=2),
        Stage(image_size=48, strength=1.0, lr=0.5),
    ]
    options = dataclasses.replace(TINY, stages=stages, warmup=0.5, lr=0.01)
    made, seen, one_step = [], [], Trainer._one_step

    class Told(TrainingViews):
        def __init__(self, *given, **options):
            super().__init__(*given, **options)
            made.append((self.augmenter.size, self.strength))

    def watched(self, batch, scale):
        learned = sum(p.requires_grad for p in self.model.parameters())
        kept = sum(not m.training for m in self.model.backbone.modules() if isinstance(m, nn.BatchNorm2d))
        values = one_step(self, batch, scale)
        seen.append((tuple(batch.views.shape), learned, kept))
        return values

    monkeypatch.setattr(isc.train.trainer, "TrainingViews", Told)
    monkeypatch.setattr(Trainer, "_one_step", watched)
    train(config(photos, tmp_path / "run", train=options))
    assert made == [(32, 0.25), (48, 1.0)]
    assert [shape for shape, _, _ in seen] == [(8, 3, 32, 32)] * 2 + [(8, 3, 48, 48)] * 2
    whole = len(list(initial_model(SMALL).parameters()))
    assert [learned == whole for _, learned, _ in seen] == [False, False, True, True]
    assert [kept > 0 for _, _, kept in seen] == [True, True, False, False]
    rates = [0.01 * scale * schedule(step, options) for step, scale in enumerate((1, 1, 0.5, 0.5))]
    assert column(tmp_path / "run", "lr") == pytest.approx(rates, rel=1e-5)


def test_frozen_blocks_stay_as_they_are_bit_for_bit(photos, tmp_path):
    """Weights and statistics; the others move."""
    options = dataclasses.replace(TINY, freeze_blocks=2, weight_decay=0.5, backbone_lr=0.5)
    train(config(photos, tmp_path / "run", train=options))
    trained, start = checkpoint(tmp_path / "run")["model"], initial_model(SMALL, seed=0).state_dict()
    frozen = ("backbone.conv_stem", "backbone.bn1", "backbone.blocks.0", "backbone.blocks.1")
    for name, value in start.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(trained[name], value) == name.startswith(frozen), name


@pytest.mark.parametrize("freeze", [True, False])
def test_freeze_norms_keeps_the_statistics_of_the_backbone(photos, tmp_path, freeze):
    train(config(photos, tmp_path / "run", train=dataclasses.replace(TINY, steps=1, freeze_norms=freeze)))
    trained = safetensors.torch.load_file(tmp_path / "run" / "model.safetensors")
    start = initial_model(SMALL, seed=0).state_dict()
    for name in start:
        if name.startswith("backbone.") and name.endswith(("running_mean", "running_var")):
            assert torch.equal(trained[name], start[name]) == freeze, name
    assert not torch.equal(trained["norm.running_mean"], start["norm.running_mean"])  # the head's own always learns


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_model_is_the_average(photos, tmp_path, ema):
    train(config(photos, tmp_path / "run", train=dataclasses.replace(TINY, ema=ema)))
    written = safetensors.torch.load_file(tmp_path / "run" / "model.safetensors")
    state = checkpoint(tmp_path / "run")
    assert all(torch.equal(value, state["average"][name]) for name, value in written.items())
    assert torch.equal(written["linear.weight"], state["model"]["linear.weight"]) == (ema == 0)


@pytest.mark.parametrize("clip", [1e-3, 1e9])
def test_the_gradient_is_clipped(photos, tmp_path, clip):
    trainer = trainer_of(config(photos, tmp_path / "run", train=dataclasses.replace(TINY, clip=clip, steps=1)))
    trainer.run_steps()
    norm = torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-3) if clip < 1 else norm > 0.01


def test_the_background_is_of_photos_spread_over_the_training_photos(photos, tmp_path):
    """Photos 0, 2, 4, 7 and 9 of 12, as the finished model describes them before anything is subtracted."""
    train(config(photos, tmp_path / "run", model=dataclasses.replace(SMALL, background=5)))
    model = load_model(str(tmp_path / "run"))
    listed = list(list_images(photos).values())
    found = model.background.clone()
    model.background.zero_()
    expected, _ = embed(torch_inference_model(model), [listed[row] for row in (0, 2, 4, 7, 9)])
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_whitening_and_background_are_of_the_same_photos(photos, tmp_path):
    train(config(photos, tmp_path / "run", model=dataclasses.replace(SMALL, background=6, whiten=0.1)))
    model = load_model(str(tmp_path / "run"))
    kept, center, whitening = (value.clone() for value in (model.background, model.center, model.whitening))
    model.background.zero_()
    model.center.zero_()
    model.whitening.copy_(torch.eye(16))
    listed = list(list_images(photos).values())
    plain = torch.from_numpy(embed(torch_inference_model(model), [listed[row] for row in range(0, 12, 2)])[0])
    expected = whitening_of(plain, ridge=0.1)
    torch.testing.assert_close(center, expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(whitening @ whitening.T, expected[1] @ expected[1].T, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(kept, nn.functional.normalize((plain - center) @ whitening), atol=1e-4, rtol=0)


def test_with_few_photos_the_background_of_the_start_stays(photos, tmp_path):
    start = initial_model(dataclasses.replace(SMALL, background=40))
    start.background.copy_(units(40, 16, 9))
    save_model(tmp_path / "start.safetensors", start, {})
    model = dataclasses.replace(SMALL, background=40, weights=str(tmp_path / "start.safetensors"))
    train(config(photos, tmp_path / "run", model=model))
    torch.testing.assert_close(load_model(str(tmp_path / "run")).background, units(40, 16, 9))


# --- the loss in the trainer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "expected"), [(0.0, [0, 8, 12, 12]), (0.5, [0, 0, 12, 12])])
def test_the_memory_serves_from_the_asked_share_of_the_steps_on(photos, tmp_path, monkeypatch, after, expected):
    given = []

    def watched(*parts, memory, **options):
        given.append(0 if memory is None else len(memory[0]))
        return total_loss(*parts, memory=memory, **options)

    monkeypatch.setattr(isc.train.trainer, "total_loss", watched)
    train(config(photos, tmp_path / "run", loss=LossConfig(memory=12, memory_after=after)))
    assert given == expected


@pytest.mark.parametrize("ema", [0.5, 0.0])
def test_momentum_keys_are_the_mild_views_by_the_averaged_weights(ema, photos, tmp_path, monkeypatch):
    """The memory holds them, of this step as well; the rows of the loss are the hard views alone."""
    given, networks = [], []

    def watched(rows, options, *, memory):
        given.append((len(rows.embeddings), rows.instances.tolist(), memory[1][-4:, 0].tolist(), len(memory[0])))
        return total_loss(rows, options, memory=memory)

    monkeypatch.setattr(isc.train.trainer, "total_loss", watched)
    made = Trainer._averaged_module
    monkeypatch.setattr(
        Trainer, "_averaged_module", lambda self: networks.append((self, made(self))) or networks[-1][1]
    )
    options = dataclasses.replace(TINY, momentum_keys=True, hard_views=2, ema=ema)
    train(config(photos, tmp_path / "run", train=options, loss=LossConfig(memory=40)))
    for step, (rows, shown, newest, kept) in enumerate(given):
        assert (rows, kept) == (8, 4 * (1 + step))
        assert [row[0] for row in shown] == newest * 2
    trainer, network = networks[0]
    for name, value in network.state_dict().items():
        assert torch.equal(value, trainer.average.state[name]), name
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_run_with_momentum_keys_and_cells_that_was_broken_off_ends_at_the_same_weights(photos, tmp_path, monkeypatch):
    options = {
        "train": dataclasses.replace(TINY, momentum_keys=True, hard_views=2, ema=0.5, image_size=96),
        "loss": LossConfig(memory=16, copy_nce_weight=1.0, koleo_memory=True),
    }
    train(config(photos, tmp_path / "whole", **options))
    assert all(value > 0 for value in column(tmp_path / "whole", "copy_nce"))
    one_step = Trainer._one_step

    def broken(self, batch, lr_scale):
        if self.step == 2:
            raise KeyboardInterrupt
        return one_step(self, batch, lr_scale)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", broken)
        with pytest.raises(KeyboardInterrupt):
            train(config(photos, tmp_path / "parts", **options))
    train(config(photos, tmp_path / "parts", resume=True, **options))
    whole, parts = (load_model(str(tmp_path / name)).state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_momentum_keys_without_room_in_the_memory_are_refused():
    with pytest.raises(InputError, match=r"train\.momentum_keys=true, loss\.memory=0: .*at least train\.batch_size=64"):
        TrainConfig(images="x", output="y", train=OptimConfig(momentum_keys=True))


def units(num: int, dim: int, seed: int) -> torch.Tensor:
    z = torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))
    return nn.functional.normalize(z)


@pytest.mark.parametrize("contrast", Contrast)
def test_the_terms_add_up(contrast):
    options = LossConfig(contrast=contrast, koleo_weight=3.0, teacher_weight=0.5)
    z, numbers = units(6, 4, 0), torch.tensor([0, 1, 2, 0, 1, 2])

    def total(rows: Rows) -> tuple[torch.Tensor, dict[str, float]]:
        loss, terms = total_loss(rows, options)
        return loss, {name: value.item() for name, value in terms.items()}

    loss, terms = total(Rows(z, numbers, taught=units(6, 9, 1)))
    assert terms["loss"] == pytest.approx(terms["contrast"] + 3 * terms["koleo"] + 0.5 * terms["teacher"], rel=1e-6)
    assert loss.item() == terms["loss"]
    assert terms["teacher"] > 0
    assert terms["nearest_negative"] == pytest.approx(math.exp(-terms["koleo"]), rel=1e-6)
    _, alone = total(Rows(z, numbers))
    assert alone["teacher"] == 0
    assert alone["contrast"] == terms["contrast"]
    more, _ = total_loss(Rows(z, numbers), options, memory=(units(3, 4, 2), torch.tensor([7, 8, 0])))
    assert more.item() != alone["loss"]


def test_a_teacher_is_learned_from(photos, tmp_path):
    """The log holds its term, which counts with its weight and falls."""
    teacher = initial_model(dataclasses.replace(SMALL, dim=24), seed=8)
    save_model(tmp_path / "teacher.safetensors", teacher, {})
    options = OptimConfig(steps=12, batch_size=6, image_size=32, lr=3e-3, warmup=0.0)
    loss = LossConfig(teacher=str(tmp_path / "teacher.safetensors"), teacher_weight=4.0, koleo_weight=0.5)
    train(config(photos, tmp_path / "run", train=options, loss=loss, augment=PLAIN))
    parts = {name: column(tmp_path / "run", name) for name in ("loss", "contrast", "koleo", "teacher")}
    assert all(value > 0 for value in parts["teacher"])
    for row in zip(*parts.values(), strict=True):
        total, contrast, koleo, taught = row
        assert total == pytest.approx(contrast + 0.5 * koleo + 4 * taught, rel=1e-4)
    assert sum(parts["teacher"][-4:]) < sum(parts["teacher"][:4])


def test_compiling_wraps_what_looks_at_one_picture_alone(straight, photos, tmp_path, monkeypatch):
    calls = []

    def compiling(function):
        def wrapped(pictures):
            calls.append(len(pictures))
            return function(pictures)

        return wrapped

    monkeypatch.setattr(isc.train.trainer, "compiled", compiling)
    train(config(photos, tmp_path / "run", train=dataclasses.replace(TINY, compile=True)))
    assert calls == [8] * STEPS
    assert column(tmp_path / "run", "loss") == column(straight, "loss")


# --- hard negatives --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 3, 100])
def test_nearest_rows_against_a_slow_search(block):
    z = units(11, 4, 3)
    found = nearest_rows(z, 3, block=block)
    assert found.shape == (11, 3)
    for row in range(11):
        others = sorted((other for other in range(11) if other != row), key=lambda o: -(z[row] @ z[o]).item())
        assert found[row].tolist() == others[:3]


def test_neighbours_are_found_anew_in_each_stage(photos, tmp_path, monkeypatch):
    """By the descriptors of then, at the stage's size."""
    sizes, nearest = [], Trainer._nearest_photos
    monkeypatch.setattr(
        Trainer, "_nearest_photos", lambda self, size: sizes.append((self.step, size)) or nearest(self, size)
    )
    stages = [Stage(image_size=32), Stage(image_size=48)]
    train(config(photos, tmp_path / "run", train=dataclasses.replace(TINY, stages=stages, hard_negatives=2)))
    assert sizes == [(0, 32), (2, 48)]
    neighbours = checkpoint(tmp_path / "run")["neighbours"]
    assert neighbours.shape == (12, 2)
    assert all(row not in near for row, near in enumerate(neighbours.tolist()))


# --- known copies ----------------------------------------------------------------------------------------------------


@pytest.fixture
def copies(photos, tmp_path):
    """images/references/R0 … R5 and images/queries/Q0 … Q5, and which are copies of which."""
    listed = list(list_images(photos).values())
    for role, letter, some in (("references", "R", listed[:6]), ("queries", "Q", listed[6:])):
        (tmp_path / "images" / role).mkdir(parents=True)
        for number, path in enumerate(some):
            shutil.copy(path, tmp_path / "images" / role / f"{letter}{number}.jpg")
    return tmp_path / "images"


def pairs_of(folder: Path, rows: list[str]) -> list[tuple[str, str]]:
    """(reference, query) as they are understood."""
    table = folder.parent / "gt.csv"
    table.write_text("\n".join(["query_id,reference_id", *rows]) + "\n", encoding="utf-8")
    given = config(folder, folder.parent / "run", pairs=str(table))
    listed = list_photos(folder)
    return [tuple(listed.ids(pair)) for pair in isc.train.run._pairs(given, listed)]


def test_ids_of_pairs_by_their_whole_or_their_last_part(copies):
    found = pairs_of(copies, ["Q0,R1", "queries/Q2,references/R0", "Q3,", "Q1,R1"])
    assert sorted(found) == [
        ("references/R0", "queries/Q2"),
        ("references/R1", "queries/Q0"),
        ("references/R1", "queries/Q1"),
    ]


def test_ids_of_pairs_that_no_photo_or_several_have(copies):
    with pytest.raises(
        InputError, match=r"pairs=.*gt\.csv: 'R9': no photo of this id in images=.*images; expected one"
    ):
        pairs_of(copies, ["Q0,R9"])
    shutil.copy(copies / "queries" / "Q0.jpg", copies / "references" / "Q0.jpg")
    several = r"'Q0': several photos end so \(queries/Q0, references/Q0\)"
    with pytest.raises(InputError, match=several):
        pairs_of(copies, ["Q0,R1"])
    assert pairs_of(copies, ["queries/Q0,R1"]) == [("references/R1", "queries/Q0")]


def test_training_on_pairs_shows_the_query_photos(copies, tmp_path, monkeypatch):
    """Photo n of references with photo n of queries; the embeddings of one pair have the reference's number."""
    made = []

    class Told(TrainingViews):
        def _readable(self, number, failures):
            made.append(Path(self.source.photos.where(number)).stem)
            return super()._readable(number, failures)

    monkeypatch.setattr(isc.train.trainer, "TrainingViews", Told)
    table = tmp_path / "gt.csv"
    table.write_text("".join(f"Q{n},R{n}\n" for n in range(6)), encoding="utf-8")
    train(config(copies, tmp_path / "run", pairs=str(table)))
    read = list(zip(made[::2], made[1::2], strict=True))
    assert len(read) == 4 * STEPS
    assert all(photo == f"R{copy[1]}" and copy[0] == "Q" for photo, copy in read)
    instances = checkpoint(tmp_path / "run")
    assert instances["num_photos"] == 12


def test_too_few_pairs_or_other_ones_are_refused(copies, tmp_path):
    table = tmp_path / "gt.csv"
    table.write_text("Q0,R0\nQ1,R1\n", encoding="utf-8")
    options = {"pairs": str(table), "train": dataclasses.replace(TINY, batch_size=2, steps=1)}
    with pytest.raises(InputError, match=r"pairs=.*gt\.csv: 2 pairs for batches of 4"):
        train(config(copies, tmp_path / "run", pairs=str(table)))
    train(config(copies, tmp_path / "run", **options))
    table.write_text("Q0,R0\nQ1,R2\n", encoding="utf-8")
    options["train"] = dataclasses.replace(options["train"], steps=2)
    with pytest.raises(InputError, match=r"pairs=.*gt\.csv: not the pairs that the run began with"):
        train(config(copies, tmp_path / "run", resume=True, **options))


def test_unreadable_photos_count_among_those_of_the_pairs(copies, tmp_path):
    """One of four photos, though the folder holds twelve."""
    (copies / "queries" / "Q1.jpg").write_bytes(b"no photo")
    table = tmp_path / "gt.csv"
    table.write_text("Q0,R0\nQ1,R1\n", encoding="utf-8")
    options = {"pairs": str(table), "train": dataclasses.replace(TINY, batch_size=2)}
    with pytest.raises(InputError, match=r"1 of 4 photos cannot be read, more than max_unreadable=0\.2"):
        train(config(copies, tmp_path / "run", max_unreadable=0.2, **options))


# --- validation ------------------------------------------------------------------------------------------------------


def test_validation_is_logged_and_the_best_model_is_kept(photos, benchmark, tmp_path):
    """Each row of validation.csv is what the model of that step gets; the best one's file gets the best figure."""
    options = {"validation": str(benchmark), "train": dataclasses.replace(TINY, validate_every=3, lr=0.01)}
    train(config(photos, tmp_path / "run", **options))
    header, *rows = rows_of(tmp_path / "run" / "validation.csv")
    assert header == ["step", "average_precision", "recall_at_p90", "recall_at_rank1"]
    assert [int(row[0]) for row in rows] == [3, 4]
    judged = {"image_size": 32, "workers": 0, "precision": Precision.float32}
    validation = Validation.of(str(benchmark))
    for name, expected in (("model", float(rows[-1][1])), ("best", max(float(row[1]) for row in rows))):
        found = validation.judge(load_model(str(tmp_path / "run" / f"{name}.safetensors")), **judged)
        assert found.average_precision == pytest.approx(expected, rel=1e-4)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    shown = [(e.step, e.value) for e in events.Scalars("validation/average_precision")]
    assert shown == [(int(row[0]), pytest.approx(float(row[1]), rel=1e-4)) for row in rows]
    assert names(tmp_path / "run") == RUN_FILES | {"validation.csv", "best.safetensors"}


def test_the_best_is_the_best_after_an_interruption_too(photos, benchmark, tmp_path, monkeypatch):
    scores = iter([0.2, 0.6, 0.6, 0.4, 0.6])  # the third step is made twice

    def judge(self, model, **options):
        score = next(scores)
        return Metrics(score, 0.0, None, 0.0, 0.0, 1, 0, 1, (score, score))

    monkeypatch.setattr(Validation, "judge", judge)
    options = {"validation": str(benchmark), "train": dataclasses.replace(TINY, validate_every=1, checkpoint_every=2)}
    interrupted(config(photos, tmp_path / "run", **options), monkeypatch, after=3)
    train(config(photos, tmp_path / "run", resume=True, **options))
    rows = rows_of(tmp_path / "run" / "validation.csv")[1:]
    assert [(int(row[0]), float(row[1])) for row in rows] == [(1, 0.2), (2, 0.6), (3, 0.4), (4, 0.6)]
    with safetensors.safe_open(tmp_path / "run" / "best.safetensors", "pt") as file:
        assert file.metadata()["steps"] == "2"  # an equal figure later does not replace it


def test_validating_does_not_change_the_run(straight, photos, benchmark, tmp_path):
    options = dataclasses.replace(TINY, validate_every=2)
    train(config(photos, tmp_path / "run", validation=str(benchmark), train=options))
    a, b = (safetensors.torch.load_file(run / "model.safetensors") for run in (straight, tmp_path / "run"))
    same(a, b)
    same(checkpoint(straight)["rng"], checkpoint(tmp_path / "run")["rng"])


# --- the configuration -----------------------------------------------------------------------------------------------


def test_a_flat_configuration_by_hand(photos):
    flat = flat_config(config("i", "o", train=OptimConfig(stages=[Stage(), Stage(share=2.0)])))
    assert flat["images"] == "i"
    assert flat["device"] == "cpu"
    assert flat["train.optimizer"] == "adamw"
    assert flat["train.stages.1.share"] == 2.0
    assert flat["pairs"] is None
    assert json.loads(json.dumps(flat)) == flat
