"""Photos → descriptors: the same whatever the batch, the workers, the order and the arithmetic."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import isc
import isc.extract.gpu_jpeg
from benchmarks.gpu.checks import checks
from benchmarks.gpu.rows import SMALL
from isc.config.choices import Combine, Precision, Runtime
from isc.errors import InputError
from isc.extract.batches import Files, read_batch
from isc.extract.blocks import joined
from isc.extract.embedding import embed, embed_batch, embed_photos
from isc.extract.gpu_pipeline import BatchDataset, TensorBatch, embed_on_gpu, loaded
from isc.extract.view_plan import ViewPlan
from isc.model.device import native_bfloat16
from isc.model.load import load_model
from isc.model.load_inference import load_inference_model
from isc.model.torch_inference import FAITHFUL, TorchModel, least_cosine, torch_inference_model
from isc.photos.decode import read_image
from isc.photos.regions import propose
from isc.photos.resizing import resize
from isc.photos.views import View, parse_views
from isc.runtime.cpus import worker_count

PATHS = sorted((Path(isc.__file__).parent / "sample").glob("*.jpg"))
CPU = torch.device("cpu")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SIZE = 64
VIEW_PLAN = ViewPlan(SIZE)
REDUCED = [
    Precision.float32,
    pytest.param(Precision.bfloat16, marks=pytest.mark.skipif(not native_bfloat16(CPU), reason="emulated: slow")),
]


@pytest.fixture(scope="module")
def model():
    return load_model("isc_small")


@pytest.fixture(scope="module")
def network(model):
    return torch_inference_model(model)


def everything(network, photos, rows=None, *, view_plan=VIEW_PLAN, **options):
    """One block of all photos."""
    rows = range(len(photos)) if rows is None else rows
    return joined(list(embed_photos(network, photos, rows, view_plan=view_plan, **options)))


@dataclass(frozen=True)
class Torn:
    """Photos of which some cannot be read."""

    torn: frozenset[int]
    count: int = 21

    def __len__(self):
        return self.count

    def data(self, row):
        if row in self.torn:
            raise InputError(f"photo {row} is torn")
        return PATHS[row].read_bytes()

    def read(self, row):
        return read_image(self.data(row))


@dataclass(frozen=True)
class InMemory:
    """Files by number."""

    files: dict[int, bytes]

    def __len__(self):
        return len(self.files)

    def data(self, row):
        return self.files[row]

    def read(self, row):
        return read_image(self.files[row], name=f"photo {row}")


# --- the same bits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", REDUCED)
def test_a_descriptor_depends_on_its_photo_alone(model, precision):
    """To the bit: in any order, in any company, by any number of processes."""
    network, photos = torch_inference_model(model, precision=precision), Files(PATHS[:37])
    plain = everything(network, photos).vectors
    order = np.random.default_rng(0).permutation(37)
    shuffled = everything(network, Files([PATHS[row] for row in order])).vectors
    np.testing.assert_array_equal(shuffled, plain[order])
    np.testing.assert_array_equal(everything(network, photos, workers=2).vectors, plain)
    for row in (0, 17, 36):
        np.testing.assert_array_equal(everything(network, photos, [row]).vectors[0], plain[row])


def test_the_machines_threads_change_no_bit(network):
    photos, before = Files(PATHS[:9]), torch.get_num_threads()
    plain = everything(network, photos).vectors
    try:
        torch.set_num_threads(2)
        np.testing.assert_array_equal(everything(network, photos).vectors, plain)
        assert torch.get_num_threads() == 2, "the caller's threads come back"
    finally:
        torch.set_num_threads(before)


def test_a_descriptor_is_what_the_model_gives(model, network):
    """The slow way: one photo, one call. Of another shape, so to rounding alone."""
    found = everything(network, Files(PATHS[:5])).vectors[:, 0]
    for path, vector in zip(PATHS, found, strict=False):
        picture = torch.from_numpy(resize(read_image(path), SIZE)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            np.testing.assert_allclose(vector, model(picture)[0].numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_the_way_to_a_gpu_gives_the_same_descriptors(network):
    """Run here without one: batches of any size, the last one filled up, results in order."""
    photos = Torn(frozenset({0, 7, 20}))
    plain = everything(network, photos)
    for size in (1, 4, 21, 50):
        for workers in (0, 2):
            batches = BatchDataset(photos, range(len(photos)), VIEW_PLAN, size=size)
            found = joined(list(embed_on_gpu(network, batches, workers=workers)))
            np.testing.assert_array_equal(found.rows, plain.rows)
            assert found.failures == plain.failures
            np.testing.assert_allclose(found.vectors, plain.vectors, rtol=0, atol=1e-6)


@pytest.mark.gpu
@NEEDS_GPU
def test_a_gpu_gives_the_same_descriptors(tmp_path):
    """In every precision, in batches of any size, and of JPEGs that it decodes."""
    assert [row for row in checks("cuda", SMALL, tmp_path) if not row.right] == []


@pytest.mark.gpu
@NEEDS_GPU
def test_cuda_graphs_give_the_same_descriptors(network):
    there = load_inference_model("isc_small", device=torch.device("cuda"), compile=True)
    plain, found = everything(network, Files(PATHS)), everything(there, Files(PATHS), batch_size=16)
    assert (plain.vectors * found.vectors).sum(axis=2).min() >= FAITHFUL


@pytest.mark.parametrize("size", [1, 4, 21])
def test_jpegs_decoded_beside_the_network_give_the_same_descriptors(network, size, monkeypatch):
    """By torchvision, on the CPU, with what it does not take: one too small, one that is no JPEG, one cut short."""
    files = {row: PATHS[row].read_bytes() for row in range(21)}
    small, png = io.BytesIO(), io.BytesIO()
    Image.fromarray(read_image(PATHS[4])[:40, :50]).save(small, "jpeg")
    Image.fromarray(read_image(PATHS[5])).save(png, "png")
    damaged = bytearray(files[6])
    damaged[300:600] = bytes(300)
    files |= {4: small.getvalue(), 5: png.getvalue(), 6: bytes(damaged), 7: files[7][:3000]}
    photos = InMemory(files)
    plain = everything(network, photos)
    decode, sent = isc.extract.gpu_jpeg.decode_jpeg, []
    counted = lambda data, **options: sent.extend(data) or decode(data, **options)  # noqa: E731
    monkeypatch.setattr(isc.extract.gpu_jpeg, "decode_jpeg", counted)
    found = joined(
        list(embed_on_gpu(network, BatchDataset(photos, range(21), VIEW_PLAN, size=size, jpegs=True), workers=0))
    )
    assert len(sent) >= 18, "all that look like sound JPEGs"
    np.testing.assert_array_equal(found.rows, plain.rows)
    assert found.failures == plain.failures
    assert {7} <= set(found.failures) <= {6, 7}
    np.testing.assert_allclose(found.vectors, plain.vectors, rtol=0, atol=1e-6)


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not native_bfloat16(CPU), reason="emulated: slow")
def test_bfloat16_stays_near_float32(network):
    """At the model's own size. Without the first layers in float32 the least cosine is 0.992."""
    there = load_inference_model("isc_small", device=CPU, precision=Precision.bfloat16)
    assert isinstance(there, TorchModel)
    assert there.precision is Precision.bfloat16
    plain, found = (everything(one, Files(PATHS), view_plan=ViewPlan(192)).vectors[:, 0] for one in (network, there))
    least = (plain * found).sum(axis=1).min()
    assert FAITHFUL <= least < 1 - 1e-6, "the same to rounding: was it bfloat16 at all?"


@pytest.mark.parametrize("precision", [Precision.float32, Precision.bfloat16])
def test_descriptors_have_unit_length_in_any_precision(model, precision):
    """isc_small whitens them and subtracts a background after its network; in bfloat16 lengths were 0.002 off."""
    network = torch_inference_model(model, precision=precision)
    found = network(
        torch.from_numpy(np.stack([resize(read_image(path), 64) for path in PATHS[:4]])).permute(0, 3, 1, 2)
    )
    assert found.dtype is torch.float32
    assert (found.double().norm(dim=1) - 1).abs().max() < 1e-6


def test_precision_auto_takes_what_is_faithful_and_says_so(model, monkeypatch):
    monkeypatch.setattr("isc.model.torch_inference.reduced_precision", lambda device: Precision.bfloat16)
    monkeypatch.setattr("isc.model.torch_inference.least_cosine", lambda *_: 0.9994)
    assert torch_inference_model(model, precision=Precision.auto).precision is Precision.float32
    monkeypatch.setattr("isc.model.torch_inference.least_cosine", lambda *_: 0.9996)
    assert torch_inference_model(model, precision=Precision.auto).precision is Precision.bfloat16


def test_the_cosine_of_two_networks_is_that_of_the_worst_photo(network):
    assert least_cosine(network, network, SIZE) == pytest.approx(1)
    turned = replace(
        network, forward=lambda x: torch.where(x[:, :1, 0, 0].float() == x[0, 0, 0, 0], -1, 1) * network(x)
    )
    assert least_cosine(network, turned, SIZE) == pytest.approx(-1)


def test_the_callers_model_stays_as_it_is(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = [type(layer) for layer in model.modules()]
    torch_inference_model(model, precision=Precision.bfloat16)
    assert [type(layer) for layer in model.modules()] == layers
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_numbers_that_are_not_finite_are_refused(network):
    broken = replace(network, forward=lambda x: network(x) / 0)
    with pytest.raises(InputError, match=r"photo 0: the network gives NaN or infinite.*precision=float32"):
        everything(broken, Files(PATHS[:3]))
    with pytest.raises(InputError) as told:
        everything(broken, Files(PATHS[:3]), workers=2)
    assert "\n" not in str(told.value), "nothing of the process that it was raised in"


@pytest.mark.parametrize("option", [{"compile": True}, {"runtime": Runtime.openvino, "precision": Precision.bfloat16}])
def test_what_a_cpu_cannot_do_is_refused(option):
    with pytest.raises(InputError, match=r"compile=true is for GPUs|precision=bfloat16: runtime=openvino"):
        load_inference_model("isc_small", device=CPU, **option)


# --- unreadable photos -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [{0}, {20}, set(range(8)), {3, 8, 9}, set(range(21))])
def test_failures_are_told_and_rows_stay_aligned(network, torn):
    whole, found = everything(network, Torn(frozenset())), everything(network, Torn(frozenset(torn)), workers=2)
    kept = [row for row in range(21) if row not in torn]
    assert found.rows.tolist() == kept
    assert found.failures == {row: f"photo {row} is torn" for row in torn}
    np.testing.assert_array_equal(found.vectors, whole.vectors[kept])


def test_embed_leaves_zero_rows_for_what_it_cannot_read(network, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"not a photo")
    vectors, failures = embed(network, [PATHS[0], tmp_path / "bad.jpg", PATHS[1]], image_size=SIZE)
    assert list(failures) == [1]
    assert not vectors[1].any()
    np.testing.assert_array_equal(vectors[[0, 2]], everything(network, Files(PATHS[:2])).vectors[:, 0])


@dataclass(frozen=True)
class Deadly:
    """Photos of which one ends the process that reads it, as the system does where memory is short."""

    parent: int

    def __len__(self):
        return 64

    def data(self, row):
        return PATHS[row].read_bytes()

    def read(self, row):
        if row == 40 and os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_image(PATHS[row])


def test_a_killed_worker_ends_in_one_line(network):
    with pytest.raises(InputError, match=r"a working process ended by itself.*fewer workers=.*same command again"):
        everything(network, Deadly(os.getpid()), workers=2)


# --- views -----------------------------------------------------------------------------------------------------------

VIEWS = parse_views("flip+scale:1.5+crop:0.5")


def slow_views(model, path):
    """Each view by hand, through the model alone."""
    picture = read_image(path)
    height, width = picture.shape[:2]
    left, top = width // 4, height // 4
    shown = [
        resize(picture, SIZE),
        resize(np.ascontiguousarray(picture[:, ::-1]), SIZE),
        resize(picture, 96),
        resize(VIEWS[3].pixels(picture), SIZE),
    ]
    assert abs(VIEWS[3].pixels(picture).shape[0] - (height - 2 * top)) <= 2
    assert abs(VIEWS[3].pixels(picture).shape[1] - (width - 2 * left)) <= 2
    with torch.inference_mode():
        return np.concatenate([model(torch.from_numpy(one).permute(2, 0, 1)[None]).numpy() for one in shown])


@pytest.mark.parametrize("gpu_way", [False, True])
def test_each_view_has_a_row_of_its_own_in_the_order_asked_for(model, network, gpu_way):
    view_plan, photos = ViewPlan(SIZE, VIEWS, Combine.rows), Torn(frozenset({1}), count=4)
    assert view_plan.sides == {64: [0, 1, 3], 96: [2]}
    if gpu_way:
        found = joined(list(embed_on_gpu(network, BatchDataset(photos, range(4), view_plan, size=3), workers=0)))
    else:
        found = everything(network, photos, view_plan=view_plan)
    assert found.rows.tolist() == [0, 2, 3]
    assert found.vectors.shape == (3, 4, 256)
    for row, vectors in zip(found.rows, found.vectors, strict=True):
        np.testing.assert_allclose(vectors, slow_views(model, PATHS[row]), rtol=0, atol=1e-6)


def test_averaged_views_are_one_row_of_unit_length(model, network):
    found = everything(network, Files(PATHS[:3]), view_plan=ViewPlan(SIZE, VIEWS)).vectors
    assert found.shape == (3, 1, 256)
    for path, vector in zip(PATHS, found[:, 0], strict=False):
        mean = slow_views(model, path).mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), rtol=0, atol=1e-6)


# --- regions found in each photo -------------------------------------------------------------------------------------

REGIONS = ViewPlan(SIZE, parse_views("regions:3+scale:1.5"), Combine.rows)


@pytest.mark.parametrize("gpu_way", [False, True])
def test_each_region_has_a_row_and_the_block_says_where_it_lies(model, network, gpu_way):
    photos = Torn(frozenset({1}), count=4)
    if gpu_way:
        found = joined(list(embed_on_gpu(network, BatchDataset(photos, range(4), REGIONS, size=3), workers=0)))
    else:
        found = everything(network, photos, view_plan=REGIONS)
    assert found.rows.tolist() == [0, 2, 3]
    assert found.regions.shape == (3, 3, 4)
    for row, regions, vectors in zip(found.rows, found.regions.tolist(), found.vectors, strict=True):
        picture = read_image(PATHS[row])
        assert [tuple(region) for region in regions] == list(propose(picture, count=3))
        shown = [View(region=region).pixels(picture) for region in regions]
        for place, side, pixels in zip(range(5), (SIZE, SIZE, SIZE, SIZE, 96), [picture, *shown, picture], strict=True):
            one = torch.from_numpy(resize(pixels, side)).permute(2, 0, 1)[None]
            with torch.inference_mode():
                np.testing.assert_allclose(vectors[place], model(one)[0].numpy(), rtol=0, atol=1e-6)


def test_regions_depend_on_their_photo_alone(network):
    plain = everything(network, Files(PATHS[:11]), view_plan=REGIONS)
    order = np.random.default_rng(0).permutation(11)
    shuffled = everything(network, Files([PATHS[row] for row in order]), view_plan=REGIONS, workers=2)
    np.testing.assert_array_equal(shuffled.vectors, plain.vectors[order])
    np.testing.assert_array_equal(shuffled.regions, plain.regions[order])
    assert everything(network, Files(PATHS[:2])).regions is None


def test_regions_are_looked_for_once_a_photo(network, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "isc.extract.view_plan.propose", lambda picture, count: asked.append(count) or propose(picture, count=1)
    )
    found = everything(network, Files(PATHS[:3]), view_plan=REGIONS)
    assert asked == [3, 3, 3]
    assert found.regions[:, 1:].tolist() == 3 * [[[0.15, 0.15, 0.85, 0.85], [0.25, 0.25, 0.75, 0.75]]]


def test_no_photo_that_can_be_read_has_no_regions(network):
    found = everything(network, Torn(frozenset({0, 1}), count=2), view_plan=REGIONS)
    assert (found.vectors.shape, found.regions.shape) == ((0, 5, 256), (0, 3, 4))


# --- the loader's processes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", [1, 8, 21, 100])
def test_pictures_come_in_order_and_failures_by_row(workers, size):
    photos = Torn(frozenset({2, 3, 20}))
    read = list(loaded(BatchDataset(photos, range(21), VIEW_PLAN, size=size), workers))
    found = [one.batch for one in read]
    assert len(found) == -(-21 // size)
    assert [row for batch in found for row in batch.rows] == [row for row in range(21) if row not in photos.torn]
    assert [row for batch in found for row in batch.failures] == [2, 3, 20]
    for one in read:
        for row, picture in zip(one.batch.rows, one.pictures[0] if one.pictures else [], strict=True):
            np.testing.assert_array_equal(picture[0].permute(1, 2, 0), resize(read_image(PATHS[row]), SIZE))


def test_no_photos(network):
    vectors, failures = embed(network, [], workers=2)
    assert (vectors.shape, failures) == ((0, 256), {})


def test_a_loader_draws_no_random_numbers(network):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    everything(network, Files(PATHS[:1]))
    assert torch.equal(torch.rand(1), expected)


AFTER_OTHERS = """
import sys
import numpy as np
import torch
from pathlib import Path
from isc.extract.batches import Files
from isc.extract.view_plan import ViewPlan
from isc.extract.embedding import embed_photos
from isc.photos.resizing import resize
from isc.model.load_inference import load_inference_model
torch.set_num_threads(2)
network = load_inference_model("imagenet", device="cpu")
with torch.inference_mode():
    network.forward(torch.zeros(8, 3, 96, 96))
resize(np.zeros((3000, 3000, 3), np.uint8), 500)
photos = Files([Path(path) for path in sys.argv[1:]])
for _ in range(5):
    found = list(embed_photos(network, photos, range(len(photos)), view_plan=ViewPlan(32), workers=2))
    assert sum(len(block.rows) for block in found) == len(photos)
"""


@pytest.mark.slow
def test_workers_start_after_the_threads_of_torch_and_opencv():
    """Both were used by the process before the workers are started: they must not hang."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", AFTER_OTHERS, *map(str, PATHS[:20])]
    with subprocess.Popen(command, start_new_session=True, env=environment) as run:
        try:
            assert run.wait(timeout=100) == 0
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)  # with its workers
            raise


# --- processes and threads -------------------------------------------------------------------------------------------


def test_a_cpu_is_used_whole_and_readers_before_a_gpu_are_bounded(monkeypatch):
    monkeypatch.setattr("isc.runtime.cpus.cores", lambda: 64)
    assert worker_count(-1) == 16
    assert worker_count(-1, most=None) == 64
    assert worker_count(3, most=None) == worker_count(3) == 3
    assert worker_count(0) == 0


def _told(data, queue):
    network, batch = pickle.loads(data)
    queue.put(embed_batch(network, batch, VIEW_PLAN).vectors)


@pytest.mark.slow
@pytest.mark.parametrize("precision", REDUCED)
def test_a_network_can_be_sent_to_a_process_that_shares_nothing(model, precision):
    network, batch = torch_inference_model(model, precision=precision), read_batch(Files(PATHS), [3, 5], VIEW_PLAN)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_told, args=(pickle.dumps((network, batch)), queue))
    process.start()
    try:
        np.testing.assert_array_equal(queue.get(timeout=60), embed_batch(network, batch, VIEW_PLAN).vectors)
    finally:
        process.join(timeout=20)


def test_a_network_may_be_used_by_several_threads(network):
    batch = read_batch(Files(PATHS), range(6), VIEW_PLAN)
    plain, found = embed_batch(network, batch, VIEW_PLAN).vectors, []
    threads = [
        threading.Thread(target=lambda: found.append(embed_batch(network, batch, VIEW_PLAN).vectors)) for _ in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for one in found:
        np.testing.assert_array_equal(one, plain)


def test_a_batch_pins_its_pictures(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    batch = TensorBatch.of(read_batch(Files(PATHS), [0, 1], ViewPlan(SIZE, VIEWS)))
    assert isinstance(batch.pin_memory(), TensorBatch)
    assert [tuple(part.shape) for part in pinned] == [(2, 3, 3, 64, 64), (2, 1, 3, 96, 96)]


def test_a_network_names_itself():
    network = load_inference_model("isc_small", device=CPU, runtime=Runtime.torch)
    assert isinstance(network, TorchModel)
    assert network.provenance["weights_sha256"] == isc.model.files.describe(load_model("isc_small"))["weights_sha256"]


# --- without torch ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_packages_onnx_file_gives_the_models_descriptors(network):
    """Of every sample photo at the model's size, to rounding; descriptors of both count as the same model's."""
    light = load_inference_model("isc_small", device="cpu")
    assert not isinstance(light, TorchModel)
    view_plan = ViewPlan(light.image_size)
    plain, found = (everything(one, Files(PATHS), view_plan=view_plan).vectors[:, 0] for one in (network, light))
    assert (plain * found).sum(axis=1).min() >= 0.9999
    np.testing.assert_allclose(found, plain, rtol=0, atol=1e-5)
    exact = load_inference_model("isc_small", device="cpu", runtime=Runtime.torch)
    assert light.provenance == exact.provenance
    assert (light.image_size, light.dim, light.precision) == (exact.image_size, exact.dim, exact.precision)


@pytest.mark.parametrize(
    "options",
    [{"runtime": Runtime.torch}, {"precision": Precision.bfloat16}, {"name": "imagenet"}],
    ids=["runtime", "precision", "another model"],
)
def test_what_needs_torch_gets_it(options):
    network = load_inference_model(**{"name": "isc_small", "device": "cpu"} | options)
    assert isinstance(network, TorchModel)


def test_a_machine_that_may_have_a_gpu_asks_torch(monkeypatch):
    monkeypatch.setattr("isc.model.load_inference.may_have_gpu", lambda: True)
    assert isinstance(load_inference_model("isc_small"), TorchModel)
    assert not isinstance(load_inference_model("isc_small", device="cpu"), TorchModel)


def test_without_torch_the_missing_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "isc.model.torch_inference")
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"model=imagenet needs torch; pip install 'isc\[train\]'"):
        load_inference_model("imagenet", device="cpu")


LIGHT = """
import sys
from pathlib import Path
from isc.extract.embedding import embed
from isc.model.load_inference import load_inference_model
vectors, failures = embed(load_inference_model("isc_small"), [Path(path) for path in sys.argv[1:]], workers=2)
assert len(vectors) == len(sys.argv) - 1 and not failures
heavy = {"torch", "torchvision", "timm", "albumentations", "safetensors", "faiss", "scipy", "hydra"} & set(sys.modules)
assert not heavy, heavy
"""


def test_photos_are_described_without_torch_timm_or_albumentations():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", LIGHT, *map(str, PATHS[:20])]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert run.returncode == 0, run.stderr
