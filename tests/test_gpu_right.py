"""What would go wrong on a GPU alone, shown on a CPU: synchronised norms, file descriptors, memory, lists, overflow."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from timm.layers import BatchNormAct2d
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

import isc
from isc.config.choices import Precision
from isc.config.train import LossConfig, ModelConfig
from isc.errors import InputError
from isc.model.copy_model import CopyModel
from isc.model.load import initial_model, load_model
from isc.model.torch_inference import torch_inference_model
from isc.photos.sources import list_photos
from isc.search.approximate.index import Approximate
from isc.search.kernels.faiss_kernel import GPU_MAX_K, FaissKernel
from isc.train.dataset import Source
from isc.train.distributed import synchronised
from isc.train.memory_use import in_parts, naming_memory, unchanged_statistics
from isc.train.run import train
from isc.train.trainer import Trainer
from tests.conftest import REPOSITORY
from tests.test_train import SMALL, TINY, config

PHOTOS = Path(isc.__file__).parent / "sample"
CPU = torch.device("cpu")
GPU_BYTES = 80e9


def pictures(count: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed)).float()


# --- norms of several GPUs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_efficientnet", "resnet18"])
def test_synchronised_norms_compute_what_the_backbone_computed(name):
    """torch's own converter drops the activations inside timm's norms."""
    backbone = initial_model(ModelConfig(backbone=name, weights="none"), seed=1).backbone.eval()
    x = pictures(2, 64)
    expected, keys = backbone(x), list(backbone.state_dict())
    found = synchronised(backbone)
    norms = [module for module in found.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert norms
    assert not any(isinstance(module, nn.BatchNorm2d | BatchNormAct2d) for module in found.modules())
    assert torch.equal(found.eval()(x), expected)
    assert list(found.state_dict()) == keys


def test_a_trainer_of_several_gpus_converts_by_that(photos, tmp_path, monkeypatch):
    """The trainer itself, with a device that is called a GPU until the model is made."""
    converted = []
    monkeypatch.setattr("isc.train.trainer.world_size", lambda: 2)
    monkeypatch.setattr("isc.train.trainer.synchronised", lambda backbone: converted.append(backbone) or backbone)
    monkeypatch.setattr("isc.train.trainer.place", lambda model, device: model)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)
    Trainer(config(photos, tmp_path / "run"), tmp_path / "run", torch.device("cuda"), Source(list_photos(str(photos))))
    assert len(converted) == 1


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for source in sorted(PHOTOS.glob("*.jpg"))[:12]:
        (folder / source.name).symlink_to(source)
    return folder


# --- file descriptors ------------------------------------------------------------------------------------------------

MANY_JPEGS = """
import resource
from pathlib import Path
from isc.extract.batches import Files
from isc.extract.gpu_pipeline import BatchDataset, loaded
from isc.extract.view_plan import ViewPlan

resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))
paths = sorted(Path({folder!r}).glob("*.jpg"))[:20] * 20
dataset = BatchDataset(Files(paths), range(len(paths)), ViewPlan(32), size=100, jpegs=True)
batches = list(loaded(dataset, 2))
print(sum(len(batch.jpegs()) for batch in batches), sum(len(one) for batch in batches for one in batch.jpegs()))
"""


@pytest.mark.slow
def test_jpegs_on_their_way_take_few_file_descriptors():
    """400 files of 160 that may be open: a descriptor for each file would end the run."""
    script = MANY_JPEGS.format(folder=str(PHOTOS))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    number, size = map(int, done.stdout.split())
    assert number == 400
    assert size == 20 * sum(path.stat().st_size for path in sorted(PHOTOS.glob("*.jpg"))[:20])


# --- precision -------------------------------------------------------------------------------------------------------


def test_a_precision_that_overflows_is_not_kept(monkeypatch):
    model = load_model("isc_small")
    monkeypatch.setattr("isc.model.torch_inference.reduced_precision", lambda device: Precision.bfloat16)
    monkeypatch.setattr("isc.model.torch_inference.least_cosine", lambda *_: float("nan"))
    assert torch_inference_model(model, precision=Precision.auto, image_size=64).precision is Precision.float32


# --- memory of a training step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("size", [3, 4, 100])
def test_gradients_of_parts_are_those_of_the_whole_batch(frozen, size):
    """With frozen statistics; else those of a part count, and are counted once."""
    whole, parts = (initial_model(SMALL, seed=3) for _ in range(2))
    x = pictures(7)
    outcomes = []
    for model, count in ((whole, 0), (parts, size)):
        model.train()
        model.backbone.train(not frozen)
        z = model.finish(in_parts(model.project, x, model, size=count))
        (z @ z.T).square().sum().backward()
        outcomes.append((z.detach(), {name: p.grad for name, p in model.named_parameters()}))
    if frozen or size >= len(x):
        torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(whole.state_dict(), parts.state_dict())
    tracked = [m.num_batches_tracked.item() for m in parts.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert set(tracked) == {0 if frozen else -(-7 // min(size, 7))}


def test_cells_of_parts_are_those_of_the_whole_batch():
    model = initial_model(SMALL, seed=3).eval()
    x = pictures(5, 96)
    torch.testing.assert_close(in_parts(model.project_cells, x, model, size=2), model.project_cells(x))


def test_running_statistics_stay_and_move_again():
    norm = nn.BatchNorm2d(3).train()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with unchanged_statistics(norm):
        norm(pictures(4))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    norm(pictures(4))
    assert norm.num_batches_tracked == 1
    assert not torch.equal(norm.running_mean, before["running_mean"])


def test_a_micro_batch_holds_fewer_activations():
    model = initial_model(SMALL, seed=3).train()
    kept = [saved_bytes(lambda size=size: in_parts(model.project, pictures(16), model, size=size)) for size in (0, 4)]
    assert kept[1] < kept[0] / 20


class _Project(nn.Module):
    """The model's `project` as a module of its own."""

    def __init__(self, model: CopyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.project(x)


def saved_bytes(forward) -> int:
    """Bytes of the tensors that a forward pass keeps for the gradient, each memory once."""
    kept: dict[int, int] = {}

    def pack(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        alive.append(tensor)
        return tensor

    alive: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(kept.values())


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["isc_winner", "sscd"])
def test_the_published_recipes_fit_one_gpu(experiment):
    """Activations of the largest stage by shapes alone, a fifth more for the backward pass, and weights."""
    given = OmegaConf.load(REPOSITORY / "isc" / "conf" / "experiment" / f"{experiment}.yaml")
    options = given.train
    size = max([stage.image_size for stage in options.get("stages", [])] or [options.image_size])
    model, kept = CopyModel(ModelConfig(**given.model)).train(), []
    with FakeTensorMode(allow_non_fake_inputs=True) as shapes, torch.autocast("cpu", torch.bfloat16):
        copied = {
            f"model.{name}": shapes.from_tensor(value) for name, value in model.state_dict(keep_vars=True).items()
        }
        copied |= {f"model.{name}": shapes.from_tensor(value) for name, value in model.named_buffers()}
        for count in (2, 4):
            x = torch.zeros(count, 3, size, size, dtype=torch.uint8)
            kept.append(saved_bytes(lambda x=x: functional_call(_Project(model), copied, (x,))))
    each = (kept[1] - kept[0]) / 2
    views = 2 * options.batch_size
    assert each * views > GPU_BYTES, "else no micro-batch is needed"
    weights = 4 * sum(parameter.numel() for parameter in model.parameters()) * 4
    needed = 1.2 * each * options.micro_batch + weights + 3 * views * size**2 + 12 * views**2
    assert 0.3 * GPU_BYTES < needed < 0.95 * GPU_BYTES, f"{each / 1e6:.0f} MB a picture, {needed / 1e9:.0f} GB"


def test_the_largest_step_is_tried_and_leaves_no_trace(photos, tmp_path):
    options = {
        "train": dataclasses.replace(TINY, momentum_keys=True, hard_views=2, ema=0.5, image_size=96, micro_batch=5),
        "loss": LossConfig(memory=16, copy_nce_weight=1.0),
    }
    trainer = Trainer(
        config(photos, tmp_path / "run", **options), tmp_path / "run", CPU, Source(list_photos(str(photos)))
    )
    before = [
        {name: value.clone() for name, value in part.state_dict().items()} for part in (trainer.model, trainer.memory)
    ]
    random = torch.get_rng_state()
    trainer.try_largest_step()
    for part, kept in zip((trainer.model, trainer.memory), before, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in part.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_a_run_whose_largest_step_does_not_fit_ends_at_its_start(photos, tmp_path, monkeypatch):
    def full(_pictures):
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer = Trainer(config(photos, tmp_path / "run"), tmp_path / "run", CPU, Source(list_photos(str(photos))))
    trainer.project = full
    with pytest.raises(InputError, match=r"^test_efficientnet at 32 px: 8 pictures do not fit .*train\.micro_batch=4 "):
        trainer.try_largest_step()
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    monkeypatch.setattr("isc.train.trainer.Trainer._embed", lambda *_: full(None))
    with pytest.raises(
        InputError, match=r"^step 1: 8 pictures do not fit into the GPU's memory; set train\.micro_batch"
    ):
        train(config(photos, tmp_path / "run"))


@pytest.mark.parametrize(("views", "micro", "advice"), [(256, 0, 128), (256, 64, 32), (200, 0, 128), (2, 1, 1)])
def test_the_advice_is_half_of_what_did_not_fit(views, micro, advice):
    with (
        pytest.raises(InputError, match=rf"train\.micro_batch={advice} "),
        naming_memory("x", pictures=views, micro_batch=micro),
    ):
        raise torch.OutOfMemoryError


# --- lists of faiss on a GPU -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 900, 12_000])
def test_thresholds_beyond_the_longest_list_of_a_gpu(count):
    """Lists of 8 references here: more pairs than they hold must still give a threshold, near the best."""
    rng = np.random.default_rng(0)
    queries, references = (rng.standard_normal((n, 8)).astype(np.float32) for n in (40, 300))
    kernel = FaissKernel(half=False, cells=1000, memory=1 << 20)
    kernel.load(queries)
    tile = dataclasses.replace(kernel.tile(slice(0, 40), kernel.prepare(references, 0), 0), longest=8)
    scores = np.sort(-((queries[:, None].astype(float) - references) ** 2).sum(axis=2).ravel() / 2)[::-1]
    assert scores[count - 1] - 1e-3 <= tile.nth(count) <= scores[count - 1] + 1e-4
    assert tile.nth(12_001) is None
    of_rows = np.sort(-((queries[:, None].astype(float) - references) ** 2).sum(axis=2) / 2, axis=1)[:, ::-1]
    for k in (4, 100, 300):
        np.testing.assert_allclose(tile.nth_of_rows(k), of_rows[:, k - 1], atol=1e-3)
    assert tile.nth_of_rows(301) is None


class ShortLists:
    """An index whose lists have faiss's limit on a GPU."""

    def __init__(self, index):
        self._index = index

    def __getattr__(self, name):
        return getattr(self._index, name)

    def search(self, queries, k):
        assert k <= GPU_MAX_K, f"{k} on a GPU"
        return self._index.search(queries, k)


def test_more_candidates_than_a_gpu_lists_come_from_the_cpu(monkeypatch):
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((3000, 8)).astype(np.float32)
    here = Approximate.train("Flat", vectors)
    here.add(vectors)
    there = Approximate(ShortLists(here._index), here.card, sealed="on the GPUs")
    there._on_gpu, there._origin = True, here
    monkeypatch.setattr(there, "_configure", lambda search: None)
    for k, given in ((10, None), (600, vectors), (2500, None)):
        found, expected = (one.knn(vectors[:3], k=k, vectors=given) for one in (there, here))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


# --- the image -------------------------------------------------------------------------------------------------------


def test_the_image_can_compile_and_its_commands_share_memory():
    docker = (REPOSITORY / "Dockerfile").read_text()
    _, full = docker.split("FROM light AS full")
    assert " g++ " in full[: full.index("rm -rf /var/lib/apt/lists")]
    for page in ("Dockerfile", "docs/gpu.md"):
        commands = [line for line in (REPOSITORY / page).read_text().splitlines() if "docker run" in line]
        assert any("--gpus" in line for line in commands)
        assert all("--ipc=host" in line for line in commands if "--gpus" in line)
    assert re.search(r"container needs `--ipc=host` or `--shm-size=\d+g`", (REPOSITORY / "README.md").read_text())
