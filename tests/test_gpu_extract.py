"""Extraction for a GPU, run on a CPU: pieces of batches, pictures in full size, fused networks, shared memory."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import isc
from isc.config.choices import Precision
from isc.config.train import ModelConfig
from isc.errors import InputError
from isc.extract import gpu_jpeg, gpu_pipeline
from isc.extract.batches import Files
from isc.extract.blocks import joined
from isc.extract.embedding import embed_photos
from isc.extract.gpu_jpeg import in_full_size, jpeg_size, shrunk_by_size
from isc.extract.gpu_pipeline import BatchDataset, embed_on_gpu, loaded
from isc.extract.loaders import AHEAD, in_flight
from isc.extract.view_plan import ViewPlan
from isc.model.fusing import fused
from isc.model.load import initial_model, load_model
from isc.model.load_inference import load_inference_model
from isc.model.torch_inference import FAITHFUL, _reduced, cast_weights, torch_inference_model
from isc.photos.decode import read_image
from isc.photos.resizing import resize

PATHS = sorted((Path(isc.__file__).parent / "sample").glob("*.jpg"))
CPU = torch.device("cpu")
PLAN = ViewPlan(64)


@pytest.fixture(scope="module")
def network():
    return torch_inference_model(load_model("isc_small"))


# --- pieces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("photos", "size", "piece"), [(21, 8, 3), (21, 21, 4), (20, 5, 32), (3, 8, 2), (16, 8, 4)])
@pytest.mark.parametrize("workers", [0, 2])
def test_pieces_make_up_the_batches(network, photos, size, piece, workers, monkeypatch):
    """Every photo once, in order, in batches of that size; an unreadable one in the middle counts as read."""
    monkeypatch.setattr(gpu_pipeline, "PIECE", piece)
    paths = [*PATHS[:photos]]
    paths[1] = Path("missing.jpg")
    batches = BatchDataset(Files(paths), range(photos), PLAN, size=size)
    pieces = list(loaded(batches, workers))
    assert len(pieces) == len(batches)
    read = [sorted([*one.batch.rows, *one.batch.failures]) for one in pieces]
    assert [row for rows in read for row in rows] == list(range(photos))
    assert max(map(len, read)) <= piece
    blocks = list(embed_on_gpu(network, batches, workers=workers))
    assert [len(one.rows) + len(one.failures) for one in blocks] == [size] * (photos // size) + [photos % size] * (
        photos % size > 0
    )
    plain = joined(list(embed_photos(network, Files(paths), range(photos), view_plan=PLAN)))
    found = joined(blocks)
    np.testing.assert_array_equal(found.rows, plain.rows)
    assert found.failures == plain.failures
    np.testing.assert_allclose(found.vectors, plain.vectors, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("workers", "item", "room", "expected"), [(2, 1000, 10**9, AHEAD), (16, 10**6, 64 * 10**6, 3)])
def test_batches_on_their_way_fit_into_shared_memory(workers, item, room, expected):
    assert in_flight(workers, item, room=room) == expected


def test_a_container_without_shared_memory_is_told_the_option():
    with pytest.raises(InputError, match=r"^workers=16: .*3\.2 GB of shared memory.* --ipc=host \(or --shm-size\)"):
        in_flight(16, 2 * 10**8, room=64 << 20)


# --- pictures in full size -------------------------------------------------------------------------------------------


def test_pictures_shrunk_beside_the_network_give_the_same_descriptors(network):
    """Pixels within a rounding step of the core's; upright, and with what a core reads better left to it."""
    small, turned, png = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(read_image(PATHS[4])[:40, :50]).save(small, "jpeg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(read_image(PATHS[5])).save(turned, "jpeg", exif=exif, quality=95)
    Image.fromarray(read_image(PATHS[6])).save(png, "png")
    files = [path.read_bytes() for path in PATHS[:12]]
    files[4], files[5], files[6], files[7] = small.getvalue(), turned.getvalue(), png.getvalue(), files[7][:3000]
    photos = InMemory(files)
    plain = joined(list(embed_photos(network, photos, range(12), view_plan=PLAN)))
    batches = BatchDataset(photos, range(12), PLAN, size=5, full_size=True)
    sent = [len(one.batch.jpegs) for one in loaded(batches, 0)]
    assert sum(sent) == 9
    found = joined(list(embed_on_gpu(network, batches, workers=2)))
    np.testing.assert_array_equal(found.rows, plain.rows)
    assert found.failures == plain.failures
    assert (found.vectors * plain.vectors).sum(axis=2).min() > 0.9999


class InMemory:
    """Photos as bytes."""

    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def data(self, row):
        return self.files[row]

    def read(self, row):
        return read_image(self.files[row])


def test_large_pictures_are_shrunk_by_their_core(monkeypatch):
    data = PATHS[0].read_bytes()
    height, width = read_image(PATHS[0]).shape[:2]
    assert jpeg_size(data) == (height, width)
    assert in_full_size(64)(data).size == (height, width)
    assert in_full_size(min(height, width) + 1)(data) is None
    monkeypatch.setattr(gpu_jpeg, "LARGEST", height * width - 1)
    assert in_full_size(64)(data) is None
    assert in_full_size(64)(b"no photo") is None
    assert jpeg_size(b"") is None


def test_pictures_of_one_size_are_shrunk_together(monkeypatch):
    pictures = [torch.from_numpy(read_image(path)).permute(2, 0, 1) for path in PATHS[:8]]
    pictures = [*pictures, None, pictures[0][:, :10]]
    calls, shrunk = [], gpu_jpeg.shrunk
    monkeypatch.setattr(gpu_jpeg, "shrunk", lambda some, side: calls.append(len(some)) or shrunk(some, side))
    found = shrunk_by_size(pictures, 64)
    assert len(calls) == len({tuple(picture.shape) for picture in pictures[:8]})
    assert sum(calls) == 8
    assert found[8] is found[9] is None
    for path, picture in zip(PATHS, found[:8], strict=False):
        assert np.abs(picture.permute(1, 2, 0).numpy().astype(int) - resize(read_image(path), 64)).max() <= 1


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_efficientnet", "resnet18", "test_vit"])
def test_fused_networks_compute_the_same(name):
    model = initial_model(ModelConfig(backbone=name, weights="none", image_size=96, dim=32), seed=2)
    x = torch.randint(0, 256, (6, 3, 96, 96), generator=torch.Generator().manual_seed(1))
    for norm in (module for module in model.backbone.modules() if isinstance(module, _BatchNorm)):
        nn.init.uniform_(norm.running_mean, -0.1, 0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 2)
    model.eval()
    with torch.inference_mode():
        expected, found = model(x), fused(model)(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    left = [module for module in fused(model).backbone.modules() if isinstance(module, _BatchNorm)]
    assert not left
    assert name == "test_vit" or any(isinstance(module, _BatchNorm) for module in model.backbone.modules())


def test_a_convolution_that_is_used_twice_is_not_folded():
    model = initial_model(ModelConfig(backbone="resnet18", weights="none", image_size=64, dim=8), seed=2).eval()

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_features = 512
            self.one, self.norm = nn.Conv2d(3, 512, 8, stride=8), nn.BatchNorm2d(512)
            nn.init.uniform_(self.norm.running_mean, -9, 9)

        def forward(self, x):
            y = self.one(x)
            return torch.relu(self.norm(y)) + torch.relu(y)

    model.backbone = Twice().eval()
    assert fused(model) is model


def test_weights_are_cast_once_to_what_autocast_computes():
    import copy

    model = load_model("isc_small").eval()
    other = copy.deepcopy(model)
    cast_weights(other.backbone, torch.bfloat16)
    assert other.backbone.conv_stem.weight.dtype == torch.bfloat16
    x = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), other(x))


@pytest.mark.slow
def test_a_gpus_network_is_fused_and_faithful(network, monkeypatch):
    """The steps of a GPU, on a CPU in float16: fused, weights cast."""
    model = fused(load_model("isc_small"))
    exact = torch_inference_model(model)
    monkeypatch.setattr(type(exact), "on_gpu", property(lambda self: True))
    reduced = _reduced(exact, model, Precision.float16)
    kinds = {module.weight.dtype for module in reduced.forward.modules() if isinstance(module, nn.Conv2d)}
    assert kinds == {torch.float16}
    x = torch.stack([torch.from_numpy(resize(read_image(path), 192)).permute(2, 0, 1) for path in PATHS[:2]])
    cosine = (network(x) * reduced(x)).sum(dim=1).min()
    assert FAITHFUL < cosine < 1 - 1e-7
    assert (network(x) * exact(x)).sum(dim=1).min() > FAITHFUL


def test_a_cpu_keeps_its_bits(network):
    """No fusing, no cast: the file's own weights."""
    here = load_inference_model("isc_small", device=CPU, runtime=isc.config.choices.Runtime.torch)
    assert any(isinstance(module, _BatchNorm) for module in here.forward.modules())
    x = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert torch.equal(here(x), network(x))
