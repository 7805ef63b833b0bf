"""Several processes: they give the gradients, and write the run, that one process gives on the same batches."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

import isc.train.checks
from isc.config.choices import Device, Optimizer
from isc.config.train import AugmentConfig, LossConfig, ModelConfig, OptimConfig, TrainConfig
from isc.errors import InputError
from isc.model.files import save_model
from isc.model.load import initial_model
from isc.photos.sources import list_photos
from isc.train.dataset import Source
from isc.train.distributed import (
    average_gradients,
    gather,
    gather_objects,
    join_group,
    leave_group,
    rank,
    wait_for_all,
    world_size,
)
from isc.train.run import train
from isc.train.trainer import Trainer
from tests import forked
from tests.conftest import REPOSITORY
from tests.test_train import SAMPLE, SMALL, column, rows_of

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
RANKS = 2


def options(images: Path, output: Path, teacher: Path | None, *, batch_size: int = 4) -> TrainConfig:
    """Two steps that take everything along which ranks share: memory, teacher, mixed views, neighbours, head's norm.

    The memory holds no whole number of batches, so the order of its rows matters; plain SGD, since AdamW makes whole
    steps out of rounding errors.
    """
    optim = OptimConfig(
        steps=2,
        batch_size=batch_size,
        image_size=32,
        optimizer=Optimizer.sgd,
        lr=0.01,
        warmup=0.0,
        clip=1e9,
        freeze_norms=True,
        hard_negatives=2,
    )
    loss = LossConfig(memory=2 * batch_size - 3, teacher=None if teacher is None else str(teacher))
    return TrainConfig(
        images=str(images),
        output=str(output),
        workers=0,
        device=Device.cpu,
        model=SMALL,
        train=optim,
        loss=loss,
        augment=AugmentConfig(mix=0.7),
    )


def last_step(given: TrainConfig) -> dict[str, Any]:
    """Gradients and memory after the run's last step, by the trainer's own way."""
    trainer = Trainer(given, Path(given.output), CPU, Source(list_photos(given.images)))
    trainer.run_steps()
    return {
        "gradients": {name: p.grad for name, p in trainer.model.named_parameters()},
        "memory": trainer.memory.state_dict(),
        "neighbours": torch.from_numpy(trainer.neighbours),
        "statistics": dict(trainer.model.norm.named_buffers()),
    }


def parts() -> dict[str, Any]:
    """What the small functions give on this rank."""
    rows = (10.0 * rank() + torch.arange(4.0)).view(4, 1).requires_grad_()
    gathered = gather(rows)
    (gathered[:, 0] * torch.arange(1.0, 9.0)).sum().backward()
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    weight.grad = torch.full((2, 3), float(rank()))
    untouched = torch.nn.Parameter(torch.zeros(2))
    average_gradients([weight, untouched])
    wait_for_all()
    return {
        "gathered": gathered.flatten().tolist(),
        "slopes": rows.grad.flatten().tolist(),
        "numbers": gather(torch.tensor([[rank(), 1], [rank(), 2]])).tolist(),
        "objects": gather_objects({"rank": rank()}),
        "mean": weight.grad.tolist(),
        "untouched": untouched.grad,
        "size": world_size(),
    }


def one_rank(number: int, port: int, folder: Path, images: Path, teacher: Path) -> None:
    """What a spawned process does: its results become a file."""
    os.environ |= {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    assert join_group(CPU) == CPU
    found = {"parts": parts()}
    for batch_size in (4, 6):  # shares of 2 and of 3
        run = folder / f"run{batch_size}"
        found[str(batch_size)] = last_step(options(images, run, teacher, batch_size=batch_size))
    leave_group()
    torch.save(found, folder / f"{number}.pt")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for source in sorted(SAMPLE.glob("*.jpg"))[:12]:
        shutil.copy(source, folder)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "model.safetensors"
    save_model(path, initial_model(dataclasses.replace(SMALL, dim=8), seed=5), {})
    return path


@pytest.fixture(scope="module")
def ranks(photos, teacher, tmp_path_factory):
    """What two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    forked.start_ranks(one_rank, (free_port(), folder, photos, teacher), RANKS)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(RANKS)]


# --- two processes ---------------------------------------------------------------------------------------------------


def test_gathering_by_hand(ranks):
    """First views 0, 1 and 10, 11, then second views 2, 3 and 12, 13; own slopes twice, as they are averaged later."""
    for number, found in enumerate(ranks):
        assert found["parts"]["gathered"] == [0, 1, 10, 11, 2, 3, 12, 13]
        assert found["parts"]["slopes"] == [[2, 4, 10, 12], [6, 8, 14, 16]][number]
        assert found["parts"]["numbers"] == [[0, 1], [1, 1], [0, 2], [1, 2]]
        assert found["parts"]["objects"] == [{"rank": 0}, {"rank": 1}]
        assert found["parts"]["mean"] == [[0.5] * 3] * 2
        assert found["parts"]["untouched"] is None
        assert found["parts"]["size"] == 2


@pytest.mark.parametrize("batch_size", [4, 6], ids=["even shares", "odd shares"])
def test_two_processes_give_the_gradients_of_one(ranks, photos, teacher, tmp_path, batch_size):
    alone = last_step(options(photos, tmp_path / "run", teacher, batch_size=batch_size))
    one, two = (found[str(batch_size)] for found in ranks)
    assert torch.equal(one["neighbours"], alone["neighbours"])
    for found in (one, two):
        for name, slope in alone["gradients"].items():
            assert torch.equal(one["gradients"][name], two["gradients"][name]), name
            assert slope.norm() > 0, name
            assert (found["gradients"][name] - slope).norm() < 1e-3 * slope.norm(), name
        assert torch.equal(found["memory"]["instances"], alone["memory"]["instances"])
        torch.testing.assert_close(found["memory"]["embeddings"], alone["memory"]["embeddings"], atol=1e-5, rtol=0)
        for name, value in alone["statistics"].items():
            torch.testing.assert_close(found["statistics"][name], value, msg=name)


def test_torchrun_writes_the_run_of_one_process(photos, benchmark, tmp_path):
    """By the command of the README; then one process alone goes on with it."""
    arguments = [
        f"images={photos}",
        f"validation={benchmark}",
        "model.backbone=test_efficientnet",
        "model.weights=none",
        "model.dim=16",
        "model.image_size=32",
        "train.steps=4",
        "train.batch_size=4",
        "train.image_size=32",
        "train.optimizer=sgd",
        "train.lr=0.01",
        "train.ema=0.5",
        "train.freeze_norms=true",
        "train.checkpoint_every=2",
        "train.validate_every=2",
        "loss.memory=5",
        "workers=0",
        "device=cpu",
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={RANKS}"]
    done = subprocess.run(
        [*command, str(REPOSITORY / "train.py"), *arguments, f"output={tmp_path / 'two'}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    given = TrainConfig(
        images=[str(photos)],
        output=str(tmp_path / "one"),
        validation=str(benchmark),
        workers=0,
        device=Device.cpu,
        model=ModelConfig(backbone="test_efficientnet", weights="none", dim=16, image_size=32),
        train=OptimConfig(
            steps=4,
            batch_size=4,
            image_size=32,
            optimizer=Optimizer.sgd,
            lr=0.01,
            ema=0.5,
            freeze_norms=True,
            checkpoint_every=2,
            validate_every=2,
        ),
        loss=LossConfig(memory=5),
    )
    train(given)
    one, two = tmp_path / "one", tmp_path / "two"
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    assert len(list((two / "tensorboard").iterdir())) == 1
    models = [safetensors.torch.load_file(run / "model.safetensors") for run in (one, two)]
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, rtol=1e-4, atol=1e-5, msg=name)
    for name in ("step", "loss", "contrast", "koleo", "lr"):
        assert column(two, name) == pytest.approx(column(one, name), rel=1e-4), name
    assert [row[0] for row in rows_of(two / "validation.csv")] == ["step", "2", "4"]
    states = [torch.load(run / "checkpoint.pt", weights_only=True) for run in (one, two)]
    assert torch.equal(states[0]["memory"]["instances"], states[1]["memory"]["instances"])
    flat = [json.loads((run / "config.json").read_text(encoding="utf-8")) for run in (one, two)]
    assert {name for name in flat[0] if flat[0][name] != flat[1][name]} == {"output"}
    assert json.loads((two / "provenance.json").read_text(encoding="utf-8"))["machine"].endswith("cpu × 2")
    assert done.stdout.count("step 2/4") == 1  # the first process alone tells what happens
    longer = dataclasses.replace(given.train, steps=5)
    train(dataclasses.replace(given, output=str(two), resume=True, train=longer))
    assert len(column(two, "step")) == 5


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_batch_that_cannot_be_shared_is_refused(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(isc.train.checks, "world_size", lambda: 3)
    with pytest.raises(
        InputError, match=r"train\.batch_size=4: does not divide among 3 processes; expected a multiple"
    ):
        train(options(photos, tmp_path / "run", None))
    assert not (tmp_path / "run").exists()


def test_norms_that_cannot_be_kept_in_step_are_refused(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(isc.train.checks, "world_size", lambda: 2)
    given = options(photos, tmp_path / "run", None)
    learned = dataclasses.replace(given.train, freeze_norms=False)
    with pytest.raises(InputError, match=r"train\.freeze_norms=false: batch norms are kept in step on GPUs alone"):
        train(dataclasses.replace(given, train=learned))
    assert not (tmp_path / "run").exists()


def test_one_process_alone_is_a_group_of_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_group(CPU) == CPU
    assert (rank(), world_size()) == (0, 1)
    z = F.normalize(torch.randn(4, 3))
    assert gather(z) is z
    assert gather_objects(7) == [7]
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    average_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 2.0]
    wait_for_all()
    leave_group()
