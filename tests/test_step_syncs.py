"""No step of a training waits for the device: nothing of a tensor is read, nothing has a size that data decide."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from isc.config.choices import Contrast, Optimizer, Precision
from isc.config.train import LossConfig
from isc.errors import InputError
from isc.model.files import save_model
from isc.model.load import initial_model
from isc.photos.sources import list_photos
from isc.train import distillation
from isc.train import optimizer as optimizer_module
from isc.train.augment.augmenter import Augmenter
from isc.train.dataset import Source, TrainingViews, training_loader
from isc.train.distillation import _without_diagonal
from isc.train.losses import ABSENT
from isc.train.memory_bank import Memory
from isc.train.objective import total_loss
from isc.train.run import train
from isc.train.step_figures import EVERY, StepFigures
from isc.train.trainer import Trainer
from tests.test_train import CPU, SMALL, TINY, config, rows_of

READS = (
    "_local_scalar_dense", "nonzero", "nonzero_static", "masked_select", "is_nonzero", "equal", "unique_dim",
    "_unique2", "unique_consecutive", "repeat_interleave.Tensor", "histc",
)  # fmt: skip


class NoReads(TorchDispatchMode):
    """Raise where a GPU would have to answer the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix("aten.")
        if name.partition(".")[0] in READS or name in READS:
            raise AssertionError(f"{name} waits for the device")
        if name.startswith(("index.", "index_put")) and any(
            isinstance(one, Tensor) and one.dtype == torch.bool for one in args[1] if one is not None
        ):
            raise AssertionError(f"{name} with flags waits for the device")
        return func(*args, **(kwargs or {}))


def _raises(*_, **__):
    raise AssertionError("a tensor is copied to the host")


def _blocks(*_, **__):
    raise AssertionError("numbers of the host are copied to the device, which waits for it")


def _without_waiting(to):
    """Return `Tensor.to` that raises where it names a device and may wait; torch itself names that of its input."""

    def checked(x, *given, non_blocking=False, **options):
        names = any(isinstance(one, torch.device | str) for one in (*given, options.get("device")))
        if names and not non_blocking and not sys._getframe(1).f_globals["__name__"].startswith("torch."):
            _blocks()
        return to(x, *given, non_blocking=non_blocking, **options)

    return checked


@contextmanager
def no_reads() -> Iterator[None]:
    reads = dict.fromkeys(("cpu", "numpy", "tolist", "__array__"), _raises)
    with (
        mock.patch.multiple(Tensor, **reads, cuda=_blocks, to=_without_waiting(Tensor.to)),
        mock.patch.multiple(torch, tensor=_blocks, as_tensor=_blocks, from_numpy=_blocks),
        NoReads(),
    ):
        yield


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.item(),
        float,
        lambda x: bool((x > 0).all()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.to(CPU),
        lambda x: x.to("cpu", torch.float16),
        lambda x: x.to(device=CPU),
        lambda x: torch.tensor(1.0, device=x.device),
        lambda x: torch.as_tensor([1.0], device=x.device),
    ],
)
def test_the_watch_sees_every_way_to_read(read):
    x = torch.ones(())
    with pytest.raises(AssertionError, match=r"waits for|copied to the host"), no_reads():
        read(x)


@pytest.fixture(scope="module")
def photos():
    from tests.conftest import SAMPLE

    return SAMPLE


class Fused:
    """The optimisers as they are on a GPU."""

    def __init__(self, kind):
        self._kind = kind

    def __call__(self, groups, **options):
        return self._kind(groups, **(options | {"fused": True}))


def as_on_a_gpu(given, monkeypatch) -> Trainer:
    for name in ("AdamW", "SGD"):
        monkeypatch.setattr(optimizer_module.torch.optim, name, Fused(getattr(torch.optim, name)))
    trainer = Trainer(given, Path(given.output), CPU, Source(list_photos(given.images)))
    trainer.figures.every = EVERY
    monkeypatch.setattr(distillation, "answers_at_once", lambda device: False)
    return trainer


def batches(trainer: Trainer, *, steps: int, traced: bool):
    options = trainer.config
    views = TrainingViews(
        trainer.source, Augmenter(options.augment, size=32), seed=0, hard_views=options.train.hard_views, traced=traced
    )
    return list(training_loader(views, batch_size=4, steps=range(steps), workers=0))


@pytest.mark.parametrize(
    ("loss", "options", "teacher"),
    [
        ({}, {}, False),
        ({"memory": 6, "koleo_memory": True}, {"ema": 0.9}, False),
        ({"contrast": Contrast.contrastive, "copy_nce_weight": 1.0}, {"optimizer": Optimizer.sgd}, False),
        ({"memory": 8}, {"momentum_keys": True, "hard_views": 2, "ema": 0.9, "micro_batch": 3}, False),
        ({"teacher_weight": 0.5}, {}, True),
        ({}, {"optimizer": Optimizer.lars}, False),
    ],
)
def test_a_step_never_waits(loss, options, teacher, photos, tmp_path, monkeypatch):
    if teacher:
        save_model(tmp_path / "teacher.safetensors", initial_model(SMALL, seed=8), {})
        loss = loss | {"teacher": str(tmp_path / "teacher.safetensors")}
    given = config(
        photos, tmp_path / "run", loss=LossConfig(**loss), train=dataclasses.replace(TINY, steps=100, **options)
    )
    trainer = as_on_a_gpu(given, monkeypatch)
    first, *others = batches(trainer, steps=4, traced="copy_nce_weight" in loss)
    trainer.figures.put(trainer._one_step(first, 1.0))  # the optimiser makes its state
    with no_reads():
        for batch in others:
            trainer.figures.put(trainer._one_step(batch, 1.0))
    rows = trainer.figures.read(1.0)
    assert [row["loss"] > 0 for row in rows] == [True] * 4
    assert len({row["loss"] for row in rows}) == 4


@pytest.mark.parametrize("precision", [Precision.bfloat16, Precision.float32])
def test_the_teacher_computes_in_the_precision_of_the_run(precision, photos, tmp_path):
    """Its descriptors are float32 of unit length in either."""
    save_model(tmp_path / "teacher.safetensors", initial_model(SMALL, seed=8), {})
    loss = LossConfig(teacher=str(tmp_path / "teacher.safetensors"), teacher_weight=0.5)
    given = config(photos, tmp_path / "run", loss=loss, train=dataclasses.replace(TINY, precision=precision))
    trainer = Trainer(given, Path(given.output), CPU, Source(list_photos(given.images)))
    products, embed = [], trainer.teacher.embed
    watched = dataclasses.replace(trainer.teacher, embed=lambda x: products.append(x @ x.transpose(2, 3)) or embed(x))
    trainer.teacher = watched
    known = trainer._embed(batches(trainer, steps=1, traced=False)[0]).taught
    assert [one.dtype for one in products] == [getattr(torch, precision.value)]
    assert known.dtype == torch.float32
    torch.testing.assert_close(known.norm(dim=1), torch.ones(len(known)))


def test_steps_that_wait_less_are_the_same_steps(photos, tmp_path, monkeypatch):
    """Reading every 20 steps, or at each checkpoint, changes no weight and no line of the log but the speed."""
    options = dataclasses.replace(TINY, steps=6, checkpoint_every=4)
    train(config(photos, tmp_path / "each", train=options))
    monkeypatch.setattr("isc.train.step_figures.StepFigures.__init__", gathered)
    train(config(photos, tmp_path / "some", train=options))
    one, two = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("each", "some"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    logs = [[row[:-1] for row in rows_of(tmp_path / name / "log.csv")] for name in ("each", "some")]
    assert logs[0] == logs[1]
    speeds = [row[-1] for row in rows_of(tmp_path / "some" / "log.csv")[1:]]
    assert len(set(speeds[:4])) == len(set(speeds[4:])) == 1


def gathered(self, device):
    self.every, self._steps, self._checks = EVERY, [], []


def test_a_figure_that_is_not_finite_stops_the_run_before_it_is_saved(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("isc.train.step_figures.StepFigures.__init__", gathered)

    def breaking(rows, *given, **options):
        loss, terms = total_loss(rows, *given, **options)
        return (loss * math.nan, terms | {"loss": terms["loss"] * math.nan}) if calls.pop(0) else (loss, terms)

    calls = [False, False, True, False, False, False]
    monkeypatch.setattr("isc.train.trainer.total_loss", breaking)
    options = dataclasses.replace(TINY, steps=6, checkpoint_every=2)
    with pytest.raises(InputError, match=r"step 3: the loss is nan; .*the checkpoint of step 2 is kept"):
        train(config(photos, tmp_path / "run", train=options))
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    assert all(value.isfinite().all() for value in state["model"].values())
    for name, value in state["average"].items():  # without a decay those of the model, in memory of their own
        assert torch.equal(value, state["model"][name])
        assert value.data_ptr() != state["model"][name].data_ptr()


def test_figures_by_hand():
    figures = StepFigures(CPU)
    assert figures.every == 1
    with pytest.raises(InputError, match=r"step 7: the norm is inf; .*: a, b"):
        figures.check("norm", torch.tensor(math.inf), lambda: "a, b", step=7)
    figures.every = 2
    figures.put({"loss": torch.tensor(1.5), "lr": 0.1})
    assert not figures.due()
    figures.put({"loss": torch.tensor(2.5, dtype=torch.bfloat16), "lr": 0.2})
    assert figures.due()
    speed = {"photos_per_second": 6.0}
    assert figures.read(3.0) == [{"loss": 1.5, "lr": 0.1} | speed, {"loss": 2.5, "lr": 0.2} | speed]
    assert len(figures) == 0
    figures.check("norm", torch.tensor(math.nan), lambda: "c", step=3)
    figures.put({"loss": torch.tensor(1.0)})
    with pytest.raises(InputError, match="step 3: the norm is nan"):
        figures.read(1.0)


def test_a_gpu_is_read_every_twenty_steps():
    assert StepFigures(torch.device("cuda")).every == EVERY == 20


def test_the_memory_knows_its_length_without_asking(tmp_path):
    memory = Memory(4, 2)
    assert len(memory) == 0
    for count, filled in ((3, 3), (3, 4)):
        with no_reads():
            memory.push(torch.ones(count, 2), torch.full((count,), ABSENT))
            assert len(memory) == filled
    other = Memory(4, 2)
    other.load_state_dict(memory.state_dict())
    assert len(other) == 4


@pytest.mark.parametrize("count", [2, 3, 7])
def test_rows_without_the_diagonal(count):
    square = torch.arange(count * count).view(count, count)
    expected = [[value for column, value in enumerate(row) if column != at] for at, row in enumerate(square.tolist())]
    assert _without_diagonal(square).tolist() == expected
