"""Training: the run folder, going on after an interruption bit for bit, refusals by name, and that it learns at all."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
import signal
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import isc.train
from isc.augment import Augmenter
from isc.config import AugmentConfig, ExtractConfig, LossConfig, ModelConfig, OptimConfig, TrainConfig
from isc.data import TrainingViews, training_loader
from isc.errors import InputError
from isc.extract import extract
from isc.io import read_descriptors
from isc.model import initial_model
from isc.train import Trainer, parameter_groups, schedule, set_training, train

SAMPLE = Path(isc.__file__).parent / "sample"
STEPS = 4
TINY = OptimConfig(steps=STEPS, batch_size=4, image_size=64, checkpoint_every=1)
SCRIPT = (f"train.steps={STEPS}", "train.batch_size=4", "train.image_size=64", "train.checkpoint_every=1", "workers=0")
RUN_FILES = {"model.safetensors", "checkpoint.pt", "config.json", "log.csv", "provenance.json"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for source in sorted(SAMPLE.glob("*.jpg"))[:12]:
        shutil.copy(source, folder)
    return folder


def config(photos, output, **options):
    options = {"workers": 0, "train": TINY} | options
    return TrainConfig(images=str(photos), output=str(output), **options)


@pytest.fixture(scope="module")
def straight(photos, tmp_path_factory):
    """A run of STEPS steps without a break."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    train(config(photos, folder))
    return folder


def same_run(one: Path, two: Path) -> None:
    """Two runs ended with the same weights, bit for bit, and the same log but for the speed."""
    a, b = (safetensors.torch.load_file(run / "model.safetensors") for run in (one, two))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
    assert [row[:-1] for row in rows_of(one / "log.csv")] == [row[:-1] for row in rows_of(two / "log.csv")]


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def names(folder):
    return {path.name for path in folder.iterdir()}


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_writes_its_folder(straight):
    assert names(straight) == RUN_FILES
    header, *rows = rows_of(straight / "log.csv")
    assert header[:2] == ["step", "loss"]
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
    assert read_descriptors(written).vectors.shape == (12, 256)


def test_training_changes_the_model(straight):
    trained = safetensors.torch.load_file(straight / "model.safetensors")
    start = initial_model(ModelConfig(), seed=0).state_dict()
    assert trained.keys() == start.keys()
    assert not torch.equal(trained["linear.weight"], start["linear.weight"])


def test_the_seed_decides_and_nothing_else(straight, photos, tmp_path):
    torch.rand(3)  # whatever was drawn before
    train(config(photos, tmp_path / "again"))
    same_run(straight, tmp_path / "again")
    train(config(photos, tmp_path / "other", seed=1))
    assert rows_of(tmp_path / "other" / "log.csv")[1][1] != rows_of(straight / "log.csv")[1][1]


def test_the_loss_falls(photos, tmp_path):
    options = OptimConfig(steps=16, batch_size=6, image_size=64, lr=1e-3, warmup=0.0, checkpoint_every=100)
    mild = AugmentConfig(
        min_crop=0.8, **{field.name: 0.0 for field in dataclasses.fields(AugmentConfig) if field.name != "min_crop"}
    )
    train(config(photos, tmp_path / "run", train=options, augment=mild))
    loss = [float(row[1]) for row in rows_of(tmp_path / "run" / "log.csv")[1:]]
    assert sum(loss[-4:]) < 0.8 * sum(loss[:4]), loss


# --- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_run_goes_on_to_the_same_model(straight, photos, tmp_path, monkeypatch, after):
    one_step = Trainer._one_step

    def interrupted(self, batch):
        if self.step == after:
            raise KeyboardInterrupt
        return one_step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config(photos, tmp_path / "run"))
    assert names(tmp_path / "run") <= RUN_FILES - {"model.safetensors"}
    torch.rand(3)
    train(config(photos, tmp_path / "run", resume=True))
    same_run(straight, tmp_path / "run")


def test_what_was_done_since_the_last_checkpoint_is_done_again(photos, tmp_path, monkeypatch):
    """checkpoint_every=2, interrupted in step 4: steps 3 and 4 are repeated, and the log holds each once."""
    options = dataclasses.replace(TINY, checkpoint_every=2)
    train(config(photos, tmp_path / "straight", train=options))
    one_step = Trainer._one_step

    def interrupted(self, batch):
        if self.step == 3:
            raise KeyboardInterrupt
        return one_step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config(photos, tmp_path / "run", train=options))
    train(config(photos, tmp_path / "run", train=options, resume=True))
    same_run(tmp_path / "straight", tmp_path / "run")


def test_a_killed_run_goes_on_to_the_same_model(place, straight, photos):
    """SIGKILL as the first checkpoint appears; the run goes on in this process."""
    finished = place.signalled(
        signal.SIGKILL,
        "train",
        f"images={photos}",
        "output=run",
        *SCRIPT,
        when=lambda _: (place / "run" / "checkpoint.pt").exists(),
    )
    assert finished.status == -signal.SIGKILL
    train(config(photos, place / "run", resume=True))
    same_run(straight, place / "run")


def test_ctrl_c_leaves_whole_files_alone(place, photos):
    arguments = [f"images={photos}", "output=run", *SCRIPT, "train.steps=500", "workers=1"]
    finished = place.signalled(
        signal.SIGINT, "train", *arguments, when=lambda _: (place / "run" / "checkpoint.pt").exists()
    )
    assert finished.status == 130, finished.err
    assert "interrupted" in finished.err
    assert "Traceback" not in finished.err
    assert names(place / "run") <= {"checkpoint.pt", "config.json", "log.csv"}
    state = torch.load(place / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] >= 1
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


# --- refusals --------------------------------------------------------------------------------------------------------

OTHER = {
    "loss.temperature": {"loss": LossConfig(temperature=0.1)},
    "train.clip": {"train": dataclasses.replace(TINY, clip=0.5)},
    "train.batch_size": {"train": dataclasses.replace(TINY, batch_size=3)},
    "model.dim": {"model": ModelConfig(dim=64)},
    "augment.blur": {"augment": AugmentConfig(blur=0.0)},
    "seed": {"seed": 5},
}


@pytest.mark.parametrize(("key", "options"), OTHER.items(), ids=OTHER)
def test_a_run_made_otherwise_is_not_gone_on_with(straight, photos, key, options):
    before = (straight / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match=rf"run: was made with {key}=.*now {key}="):
        train(config(photos, straight, resume=True, **options))
    assert (straight / "checkpoint.pt").read_bytes() == before


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


def test_a_batch_larger_than_the_dataset_is_refused(photos, tmp_path):
    large = dataclasses.replace(TINY, batch_size=13)
    with pytest.raises(InputError, match=r"12 photos for batches of 13.*train\.batch_size"):
        train(config(photos, tmp_path / "run", train=large))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"model": ModelConfig(backbone="resnet999")}, "model.backbone=resnet999"),
        ({"model": ModelConfig(weights="nowhere")}, "nowhere"),
    ],
)
def test_an_unknown_backbone_or_start_is_refused_and_leaves_nothing(photos, tmp_path, options, named):
    with pytest.raises(InputError, match=named):
        train(config(photos, tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


# --- unreadable photos -----------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(photos, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(photos, folder)
    for name in ("S003.jpg", "S007.jpg"):
        (folder / name).write_bytes(b"not a photo")
    return folder


def test_unreadable_photos_are_counted_and_listed(damaged, tmp_path, caplog):
    train(config(damaged, tmp_path / "run", max_unreadable=0.2))
    header, *rows = rows_of(tmp_path / "run" / "failures.csv")
    assert header == ["file", "reason"]
    assert {row[0] for row in rows} == {str(damaged / "S003.jpg"), str(damaged / "S007.jpg")}
    assert len(rows) == 2
    assert "2 photos could not be read" in caplog.text


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


# --- a loss that runs away -------------------------------------------------------------------------------------------


@pytest.fixture
def breaks(monkeypatch):
    """The third loss is not a number."""
    total_loss = isc.train.total_loss
    calls = []

    def breaking(embeddings, instances, options):
        loss, terms = total_loss(embeddings, instances, options)
        calls.append(loss)
        return (loss * math.nan, terms | {"loss": math.nan}) if len(calls) == 3 else (loss, terms)

    monkeypatch.setattr(isc.train, "total_loss", breaking)


@pytest.mark.usefixtures("breaks")
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(photos, tmp_path):
    with pytest.raises(InputError, match=r"step \d: the loss is nan.*train\.lr.*resume=true.*S0\d\d\.jpg"):
        train(config(photos, tmp_path / "run"))
    assert names(tmp_path / "run") == {"checkpoint.pt", "config.json", "log.csv"}
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    assert all(value.isfinite().all() for value in state["model"].values())


@pytest.mark.usefixtures("breaks")
def test_the_remedy_of_that_message_works(photos, tmp_path):
    with pytest.raises(InputError, match=r"lower train\.lr and go on with resume=true"):
        train(config(photos, tmp_path / "run"))
    lower = dataclasses.replace(TINY, lr=TINY.lr / 10)
    train(config(photos, tmp_path / "run", train=lower, resume=True))
    assert len(rows_of(tmp_path / "run" / "log.csv")) == 1 + STEPS


def test_the_script_ends_with_status_2_when_the_loss_runs_away(place, photos):
    arguments = [f"images={photos}", "output=run", *SCRIPT, "train.lr=1e30", "train.warmup=0", "device=cpu"]
    finished = place.run("train", *arguments, script=False)
    assert finished.status == 2
    assert finished.err.count("\n") == 1
    assert "the loss is" in finished.err
    assert not (place / "run" / "model.safetensors").exists()


# --- the parts -------------------------------------------------------------------------------------------------------


def test_schedule_by_hand():
    options = OptimConfig(steps=100, warmup=0.04)
    assert [schedule(step, options) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert schedule(52, options) == pytest.approx(0.5)  # half of the 96 steps after the warm-up
    assert schedule(28, options) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert schedule(100, options) == pytest.approx(0.0)
    assert schedule(99, options) == pytest.approx(0.5 * (1 + math.cos(math.pi * 95 / 96)))
    rates = [schedule(step, options) for step in range(4, 101)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_schedule_stays_a_share(steps, warmup):
    options = OptimConfig(steps=steps, warmup=warmup)
    assert all(0 < schedule(step, options) <= 1 for step in range(steps))


@pytest.fixture(scope="module")
def model():
    return initial_model(ModelConfig(weights="none"))


def test_weight_decay_is_not_on_biases_and_norms(model):
    groups = parameter_groups(model, OptimConfig(weight_decay=0.05, backbone_lr=0.1))
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert {group["weight_decay"] for group in groups} == {0.05, 0.0}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            matrix = isinstance(module, nn.Linear | nn.Conv2d) and name == "weight"
            assert (id(parameter) in decayed) == matrix, (type(module).__name__, name)


def test_every_parameter_is_in_one_group_with_its_rate(model):
    groups = parameter_groups(model, OptimConfig(backbone_lr=0.1))
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    slow = {id(p) for group in groups if group["scale"] == 0.1 for p in group["params"]}
    assert slow == {id(p) for p in model.backbone.parameters()}


@pytest.mark.parametrize("freeze", [True, False])
def test_freeze_norms_keeps_the_statistics_of_the_backbone(photos, tmp_path, freeze):
    train(config(photos, tmp_path / "run", train=dataclasses.replace(TINY, steps=1, freeze_norms=freeze)))
    trained = safetensors.torch.load_file(tmp_path / "run" / "model.safetensors")
    start = initial_model(ModelConfig(), seed=0).state_dict()
    for name in start:
        if name.startswith("backbone.") and name.endswith(("running_mean", "running_var")):
            assert torch.equal(trained[name], start[name]) == freeze, name
    assert not torch.equal(trained["norm.running_mean"], start["norm.running_mean"])  # the head's own always learns


def test_set_training_freezes_the_backbone_alone(model):
    set_training(model, freeze_norms=True)
    assert not any(m.training for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d))
    assert model.norm.training
    assert model.linear.training
    set_training(model, freeze_norms=False)
    assert all(m.training for m in model.modules())


def test_batches_do_not_depend_on_workers_or_on_where_one_begins(photos):
    dataset = TrainingViews(sorted(photos.iterdir()), Augmenter(AugmentConfig(), size=64), seed=3)
    options = {"batch_size": 4, "last_step": 4}
    all_at_once = list(training_loader(dataset, first_step=0, workers=0, **options))
    later = list(training_loader(dataset, first_step=2, workers=2, **options))
    assert len(all_at_once) == 4
    assert len(later) == 2
    for one, two in zip(all_at_once[2:], later, strict=True):
        assert torch.equal(one.views, two.views)
        assert torch.equal(one.instances, two.instances)
    first_epoch = torch.cat([batch.instances[:4] for batch in all_at_once[:3]])
    assert sorted(first_epoch.tolist()) == list(range(12))
