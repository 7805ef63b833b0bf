"""The search of GPUs, run on a CPU: the bytes of numpy's, its proof, its kernel interpreted and compiled."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from isc.config.choices import Engine
from isc.data.descriptors import Descriptors
from isc.errors import InputError
from isc.search import exact
from isc.search.kernels import chunk_maxima, device_rows, device_search
from isc.search.kernels.device_rows import Rows, bounds, keeping_references
from isc.search.kernels.device_search import DeviceSearch, distances
from isc.search.kernels.numpy_kernel import U32, squared_distances
from isc.search.ray_search import Searcher, _Wanted
from isc.search.shards import Shard, plan
from tests.test_search import KINDS, nasty, unit

CPU = torch.device("cpu")
MEMORY = 1 << 28


def both(queries, references, *, num_pairs, k, devices=1, half=True, memory=MEMORY):
    """The answers of numpy and of the search on devices, as (query, reference, distance) each."""
    search = DeviceSearch(["cpu"] * devices, half=half, memory=memory)
    row, distance = exact.nearest(queries, references, k=k, engine=Engine.numpy)
    here = descriptors(queries), descriptors(references)
    best = exact.best_pairs(*here, num_pairs=num_pairs, engine=Engine.numpy)
    known = squared_distances(queries, references, best.query, best.reference)
    each = search.nearest(queries, references, k=k)
    return [
        ((best.query, best.reference, known), vars(search.best_pairs(queries, references, num_pairs=num_pairs))),
        ((np.repeat(np.arange(len(queries)), k), row.ravel(), distance.ravel()), vars(each)),
    ]


def descriptors(vectors):
    return Descriptors([str(i) for i in range(len(vectors))], vectors)


def assert_bytes(answers):
    for expected, found in answers:
        for one, two in zip(expected, found.values(), strict=True):
            assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("kind", [*KINDS, "unit", "tiny"])
@pytest.mark.parametrize("half", [True, False])
def test_the_bytes_are_those_of_numpy(kind, half):
    rng = np.random.default_rng(3)
    references = nasty(kind, rng, 700).astype(np.float32)
    queries = references[rng.permutation(700)[:60]] * np.float32(1 + 1e-7)
    if half and np.linalg.norm(references, axis=1).max() > 3e4:
        scale = np.float32(100 / np.linalg.norm(references, axis=1).max())
        references, queries = references * scale, queries * scale
    assert_bytes(both(queries, references, num_pairs=500, k=9, half=half))


@pytest.mark.parametrize("dim", [1, 3, 17, 256, 300])
def test_any_dimension(dim):
    rng = np.random.default_rng(4)
    queries, references = (rng.standard_normal((n, dim)).astype(np.float32) for n in (33, 400))
    assert_bytes(both(queries, references, num_pairs=300, k=70))


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize("memory", [1 << 28, 1 << 16])
def test_shares_blocks_and_pieces_change_nothing(devices, memory, monkeypatch):
    """Several devices, references in blocks, queries in blocks, candidates and uploads in small pieces."""
    monkeypatch.setattr(device_search, "CANDIDATES", 50)
    monkeypatch.setattr(device_search, "PAIRS", 7)
    monkeypatch.setattr(device_rows, "PIECE", 1)
    rng = np.random.default_rng(5)
    queries, references = unit(rng, 90, 32).astype(np.float32), unit(rng, 1500, 32).astype(np.float32)
    references[700:900] = references[:200]  # equal distances, far from each other
    queries[:40] = references[100:140]
    assert_bytes(both(queries, references, num_pairs=400, k=5, devices=devices, memory=memory))


@pytest.mark.parametrize(("queries", "references"), [(5, 2000), (300, 64), (1, 1), (7, 63), (2, 129)])
def test_copies_alone(queries, references, monkeypatch):
    """All distances are 0: the first references are the answer, and the rest is not scored again and again."""
    monkeypatch.setattr(device_search, "CANDIDATES", 8)
    ones = np.ones((max(queries, references), 8), np.float32)
    number = min(30, queries * references)
    assert_bytes(both(ones[:queries], ones[:references], num_pairs=number, k=min(11, references)))


def test_late_copies_are_left_out(monkeypatch):
    monkeypatch.setattr(device_search, "CANDIDATES", 16)
    scored = []
    monkeypatch.setattr(device_search, "distances", lambda q, r, i, j: scored.append(len(i)) or distances(q, r, i, j))
    ones = np.ones((400, 8), np.float32)
    DeviceSearch(["cpu"], half=True, memory=MEMORY).best_pairs(ones, ones, num_pairs=10)
    assert sum(scored) < 400 * 400 / 50


@pytest.mark.parametrize("error", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_exact_with_the_worst_maxima_the_bound_allows(error, seed, monkeypatch):
    """The proof itself: maxima that err by up to `error`, either way."""
    rng = np.random.default_rng(seed)

    def erring(queries, query_half, references, reference_half, out):
        chunk_maxima.maxima_by_torch(queries, query_half, references, reference_half, out)
        out += torch.from_numpy(rng.uniform(-error, error, out.shape).astype(np.float32))

    true = device_search.bounds
    monkeypatch.setattr(device_search, "chunk_maxima", erring)
    monkeypatch.setattr(
        device_search, "bounds", lambda *given: device_rows.Bounds(true(*given).maxima + error, true(*given).float32)
    )
    queries, references = (rng.integers(-2, 3, (n, 4)).astype(np.float32) for n in (30, 700))
    assert_bytes(both(queries, references, num_pairs=77, k=6))


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "unit", "tiny"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_maxima_lie_within_their_bound(kind, dtype):
    rng = np.random.default_rng(6)
    vectors = nasty(kind, rng, 300).astype(np.float32)
    vectors *= np.float32(min(1, 100 / np.linalg.norm(vectors, axis=1).max()))
    q, r = filled(vectors[:40], dtype, multiple=1), filled(vectors, dtype)
    out = torch.empty(40, len(r.vectors) // chunk_maxima.CHUNK)
    chunk_maxima.chunk_maxima(q.operand, q.half, r.operand, r.half, out)
    true = np.full((40, out.shape[1] * chunk_maxima.CHUNK), -np.inf)
    true[:, :300] = -0.5 * ((vectors[:40, None].astype(np.float64) - vectors) ** 2).sum(axis=2)
    expected = true.reshape(40, -1, chunk_maxima.CHUNK).max(axis=2)
    assert np.abs(out.numpy()[:, :4] - expected[:, :4]).max() <= bounds(q, r).maxima


def filled(vectors, dtype, *, multiple=128):
    rows = Rows.empty(len(vectors), vectors.shape[1], device=CPU, kind=dtype, multiple=multiple)
    for _ in rows.ready(vectors):
        pass
    return rows


def test_the_bound_counts_the_additions_of_the_accumulator():
    """Numbers without rounding: what is left is one truncation for each product, and one for each group of 16."""
    ones = np.ones((1, 256), np.float32)
    q, r = filled(ones, torch.float16, multiple=1), filled(ones, torch.float16)
    assert float(q.lengths[1]) == float(r.lengths[1]) == 0
    additions = 256 + 4 + 256 // 16
    assert bounds(q, r).maxima >= additions * 2 * U32 * (16 + 16) ** 2 / 2


def test_vectors_too_long_for_float16_are_refused_by_name():
    long = np.full((2, 4), 4e4, np.float32)
    with pytest.raises(InputError, match=r"descriptors are 8\.0e\+04 long; float16 expects at most 60000: use engine="):
        DeviceSearch(["cpu"], half=True, memory=MEMORY).best_pairs(long, long, num_pairs=1)


@pytest.mark.parametrize("dim", [1, 2, 31, 256, 300])
def test_distances_have_one_order_of_additions_everywhere(dim):
    rng = np.random.default_rng(7)
    queries, references = (rng.standard_normal((50, dim)).astype(np.float32) for _ in range(2))
    i, j = rng.integers(0, 50, (2, 3000))
    here = squared_distances(queries, references, i, j)
    there = distances(*(torch.from_numpy(one) for one in (queries, references, i, j)))
    assert here.tobytes() == there.numpy().tobytes()
    np.testing.assert_allclose(here, ((queries[i].astype(float) - references[j]) ** 2).sum(axis=1), rtol=1e-13)


# --- the way to the device -------------------------------------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Counts what would make a host wait for a GPU: values that are read, and results of unknown size."""

    number = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.number += 1
        return function(*arguments, **(options or {}))


def test_the_pass_over_all_pairs_never_waits(monkeypatch):
    """However many pieces the references come in, the host waits as often: after the pass."""
    rng = np.random.default_rng(8)
    queries, references = unit(rng, 20, 16).astype(np.float32), unit(rng, 4000, 16).astype(np.float32)
    counted = []
    for piece in (1 << 13, 1 << 20):
        monkeypatch.setattr(device_rows, "PIECE", piece)
        with Waits() as waits:
            DeviceSearch(["cpu"], half=True, memory=MEMORY).best_pairs(queries, references, num_pairs=20)
        counted.append(waits.number)
    assert counted[0] == counted[1] <= 12


class LateCopies:
    """A GPU that copies nothing before the host waits for the copy's event, as one that is far behind would."""

    def __init__(self, monkeypatch):
        self.pending, self.waited, empty = [], [], torch.empty
        monkeypatch.setattr(torch, "empty", lambda shape, pin_memory: empty(shape) if pin_memory else None)
        monkeypatch.setattr(torch.Tensor, "to", lambda buffer, *_, **__: self.copy(buffer))
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
        monkeypatch.setattr(torch.cuda, "Stream", lambda _: self)
        monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: self)

    def copy(self, buffer):
        there = torch.zeros_like(buffer)
        self.pending.append((buffer, there))
        return there

    def wait_stream(self, other):
        self.waited.append(other)


class Event:
    """The copies that were queued when it was recorded."""

    def __init__(self, gpu):
        self.gpu, self.copies = gpu, []

    def record(self, _stream):
        self.copies, self.gpu.pending = self.gpu.pending, []

    def synchronize(self):
        for buffer, there in self.copies:
            there.copy_(buffer)
        self.copies = []


@pytest.mark.parametrize("writeable", [True, False])
def test_no_buffer_is_filled_again_before_its_copy_is_made(writeable, monkeypatch):
    """Seven pieces through two buffers: an array in memory, and one of a read-only map."""
    monkeypatch.setattr(device_rows, "PIECE", 128 * 4)
    vectors = np.random.default_rng(0).standard_normal((6 * 128 + 50, 4)).astype(np.float32)
    vectors.flags.writeable = writeable
    gpu, events = LateCopies(monkeypatch), []
    monkeypatch.setattr(torch.cuda, "Event", lambda: events.append(Event(gpu)) or events[-1])
    there = list(device_rows._uploaded(vectors, torch.device("cuda")))
    for event in events:
        event.synchronize()
    assert [first for first, _ in there] == list(range(0, len(vectors), 128))
    assert len(gpu.waited) == len(there)
    np.testing.assert_array_equal(np.concatenate([part.numpy() for _, part in there]), vectors)


def test_references_are_sent_once_for_two_searches(monkeypatch):
    sent, upload = [], device_rows._uploaded
    monkeypatch.setattr(device_rows, "_uploaded", lambda v, d: sent.append(len(v)) or upload(v, d))
    rng = np.random.default_rng(9)
    queries, references = unit(rng, 20, 16).astype(np.float32), unit(rng, 500, 16).astype(np.float32)
    search = DeviceSearch(["cpu"], half=True, memory=MEMORY)
    with keeping_references():
        first = search.best_pairs(queries, references, num_pairs=30)
        second = search.nearest(queries, references, k=3)
        other = search.nearest(queries, references[::-1].copy(), k=3)
    again = search.best_pairs(queries, references, num_pairs=30)
    assert sent == [20, 500, 20, 20, 500, 20, 500]
    assert vars(first)["reference"].tobytes() == vars(again)["reference"].tobytes()
    assert (second.reference == 499 - other.reference).all()


def test_the_room_of_a_gpu_counts_what_an_earlier_search_holds(monkeypatch):
    """Else a second search would divide the references otherwise, and send them again beside the kept ones."""
    device = torch.device("cuda:0")
    for name, value in (("mem_get_info", (1000, 9000)), ("memory_reserved", 700), ("memory_allocated", 600)):
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    search = DeviceSearch(["cuda:0"], half=True, memory=MEMORY)
    assert search._room(device) == 1100
    vectors = np.ones((128, 16), np.float32)
    with keeping_references():
        for name, here in (("cuda:0", True), ("cuda:1", False)):
            before = search._room(device)
            rows = Rows.empty(128, 16, device=CPU, kind=torch.float16, multiple=128)
            device_rows._KEPT.rows[name, 0, 128, "torch.float16"] = (vectors, rows)
            assert search._room(device) - before == (128 * (16 * 4 + 16 * 2 + 4) if here else 0)
    assert search._room(device) == 1100


def test_a_search_in_several_parts_sends_its_references_once(monkeypatch):
    """The queries of `best_pairs` in three blocks, and those of `nearest` in parts that fit into little memory."""
    monkeypatch.setattr(exact, "cuda_devices", list)
    sent, upload = [], device_rows._uploaded
    monkeypatch.setattr(device_rows, "_uploaded", lambda v, d: sent.append(len(v)) or upload(v, d))
    rng = np.random.default_rng(9)
    queries, references = (descriptors(unit(rng, n, 16).astype(np.float32)) for n in (30, 500))
    blocks = [Descriptors(queries.ids[at : at + 10], queries.vectors[at : at + 10]) for at in (0, 10, 20)]
    found = exact.best_pairs(blocks, references, num_pairs=40, engine=Engine.torch)
    assert sent == [10, 500, 10, 10]
    assert found.score.tobytes() == exact.best_pairs(queries, references, num_pairs=40).score.tobytes()
    sent.clear()
    few = references.vectors[:120]
    row, _ = exact.nearest(queries.vectors, few, k=5, engine=Engine.torch, memory_gb=6e-5)
    assert sent == [15, 120, 15]
    assert (row == exact.nearest(queries.vectors, few, k=5)[0]).all()


@pytest.mark.parametrize("kind", ["unit", "copies"])
def test_pairs_that_come_in_order_are_not_sorted_again(kind, monkeypatch):
    rng = np.random.default_rng(9)
    vectors = unit(rng, 200, 16).astype(np.float32) if kind == "unit" else np.ones((200, 16), np.float32)
    queries, references = descriptors(vectors[:40]), descriptors(vectors)
    expected = [exact.best_pairs(queries, references, num_pairs=90), exact.knn(queries, references, k=4)]
    monkeypatch.setattr(exact, "cuda_devices", list)
    monkeypatch.setattr(np, "lexsort", _refused)
    found = [
        exact.best_pairs(queries, references, num_pairs=90, engine=Engine.torch),
        exact.knn(queries, references, k=4, engine=Engine.torch),
    ]
    for one, two in zip(expected, found, strict=True):
        for name in ("query", "reference", "score"):
            assert getattr(one, name).tobytes() == getattr(two, name).tobytes()


def _refused(*_given):
    raise AssertionError("work that was done already")


def test_references_in_several_blocks_are_not_kept():
    """Each block takes half of the memory: a second one beside it would fill it."""
    rng = np.random.default_rng(9)
    queries, references = unit(rng, 20, 16).astype(np.float32), unit(rng, 1500, 16).astype(np.float32)
    small, large = (DeviceSearch(["cpu"], half=True, memory=memory) for memory in (1 << 16, MEMORY))
    with keeping_references():
        found = small.best_pairs(queries, references, num_pairs=30)
        assert not device_rows._KEPT.rows
        again = large.best_pairs(queries, references, num_pairs=30)
        assert len(device_rows._KEPT.rows) == 1
    assert found.reference.tobytes() == again.reference.tobytes()
    assert not device_rows._KEPT.rows


@pytest.mark.parametrize("work", [None, 10**10, 10**12])
def test_a_small_search_does_not_wake_the_gpu(work, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(exact, "cuda_devices", lambda: ["cuda:0"])
    assert exact.fastest(work) is (Engine.numpy if work == 10**10 else Engine.torch_half)


def test_a_small_search_does_not_load_torch():
    script = (
        "import sys, numpy as np\nfrom isc.search.exact import nearest\n"
        "nearest(np.ones((2, 3), 'f4'), np.ones((4, 3), 'f4'), k=2)\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_cluster_with_gpus_has_an_actor_a_gpu():
    nodes = [
        {"NodeID": name, "NodeManagerAddress": name, "Resources": resources}
        for name, resources in (("a", {"CPU": 16.0, "GPU": 2.0}), ("b", {"CPU": 64.0}), ("c", {"CPU": 8.0, "GPU": 1.0}))
    ]
    shards = plan(nodes, 1000, None, row_bytes=4)
    assert [(one.node, one.core, one.cores, one.gpu) for one in shards] == [
        ("a", 0, 8, True), ("a", 8, 8, True), ("c", 0, 8, True),
    ]  # fmt: skip
    assert [one.rows for one in shards] == [334] * 3
    assert len(plan(nodes, 1000, 7, row_bytes=4)) == 7


def test_shards_of_gpus_fit_into_the_memory_of_their_nodes():
    """Half of the nodes with GPUs, 3,000 bytes in all, holds 375 references of 4 bytes; the third does not count."""
    nodes = [
        {"NodeID": name, "NodeManagerAddress": name, "Resources": {"CPU": 8.0, "memory": memory} | gpus}
        for name, memory, gpus in (("a", 2000.0, {"GPU": 2.0}), ("b", 1e9, {}), ("c", 1000.0, {"GPU": 1.0}))
    ]
    shards = plan(nodes, 1000, None, row_bytes=4)
    assert [one.node for one in shards] == ["a", "a", "c"] * 3
    assert sum(one.rows for one in shards[:3]) <= 375 < 1000 / 2
    assert len(plan(nodes, 1000, 2, row_bytes=4)) == 2


def test_an_actor_with_a_gpu_searches_on_it(monkeypatch):
    """With the bytes of one without; here the device is a CPU."""
    rng = np.random.default_rng(2)
    queries, references = (descriptors(unit(rng, n, 16).astype(np.float32)) for n in (30, 400))
    monkeypatch.setattr("isc.search.ray_search._stay_on", lambda *_: None)
    monkeypatch.setattr("isc.search.ray_search.cuda_devices", lambda: ["cuda:0"])
    found, used = [], []
    search = DeviceSearch._found
    monkeypatch.setattr(DeviceSearch, "_found", lambda self, *given: used.append(self._kind) or search(self, *given))
    monkeypatch.setattr("isc.search.ray_search.squared_distances", _refused, raising=False)
    for gpu in (False, True):
        shard = Shard(0, 400, "node", 0, 1, gpu=gpu)
        found.append(
            [Searcher().search(queries, references, shard, _Wanted(*size, 1.0)) for size in ((50, None), (None, 4))]
        )
    assert used == [torch.float16] * 2
    for one, two in zip(*found, strict=True):
        for name, value in vars(one).items():
            assert value.tobytes() == vars(two)[name].tobytes()


# --- the kernel ------------------------------------------------------------------------------------------------------

INTERPRETED = """
import numpy as np, torch
from isc.search.kernels import triton_maxima
from isc.search.kernels.chunk_maxima import _by_triton, maxima_by_torch
from isc.search.kernels.device_search import DeviceSearch
from tests.test_device_search import assert_bytes, both, filled
from tests.test_search import unit

assert _by_triton("cpu")
launched, launch = [], triton_maxima.launch
triton_maxima.launch = lambda *given: launched.append(1) or launch(*given)
rng = np.random.default_rng(1)
for dim, number in ((64, 2500), (5, 300), (512, 300)):
    queries, references = (rng.standard_normal((n, dim)).astype(np.float32) for n in (150, number))
    q, r = filled(queries, torch.float16, multiple=1), filled(references, torch.float16)
    one, two = (torch.full((150, 2 + len(r.vectors) // 64), 7.0) for _ in range(2))
    triton_maxima.launch(q.operand, q.half, r.operand, r.half, one[:, 1:-1])
    maxima_by_torch(q.operand, q.half, r.operand, r.half, two[:, 1:-1])
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-4)
before = len(launched)
queries, references = (unit(rng, n, 64).astype(np.float32) for n in (70, 900))
assert_bytes(both(queries, references, num_pairs=200, k=5))
assert len(launched) > before
"""


@pytest.mark.slow
def test_the_kernel_by_tritons_interpreter():
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True,
        timeout=300, check=False, cwd=Path(__file__).resolve().parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of GPU: its capability, the product of its tensor cores, its assembler, and registers a thread."""

    capability: int
    product: str
    assembler: str
    registers: int


TARGETS = (Target(90, "wgmma.mma_async", "ptxas", 168), Target(100, "tcgen05.mma", "ptxas-blackwell", 192))


def test_the_kernel_is_compiled_for_every_gpu_that_takes_it():
    assert {target.capability // 10 for target in TARGETS} == set(chunk_maxima.LARGE)


@pytest.mark.parametrize("target", TARGETS, ids=["H100", "B200"])
@pytest.mark.parametrize("dim", [256, 64, 512])
def test_the_compiled_kernel_keeps_everything_in_registers(dim, target, tmp_path):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from isc.search.kernels import triton_maxima as kernel

    vectors = dict.fromkeys(("queries", "references"), "*fp16")
    numbers = dict.fromkeys(("query_half", "reference_half", "out"), "*fp32")
    sizes = dict.fromkeys(("num_queries", "num_references", "out_stride"), "i32")
    constants = kernel.constants(dim)
    source = ASTSource(
        kernel.maxima_kernel, vectors | numbers | sizes | dict.fromkeys(constants, "constexpr"), constants,
        {(place,): [["tt.divisibility", 16]] for place in range(5)},
    )  # fmt: skip
    options = {"num_warps": kernel.WARPS, "num_stages": kernel.STAGES}
    made = triton.compile(source, target=GPUTarget("cuda", target.capability, 32), options=options)
    assert target.product in made.asm["ptx"], "the tensor cores' product"
    assert made.metadata.shared <= 227 * 1024
    (tmp_path / "kernel.ptx").write_text(made.asm["ptx"])
    ptxas = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / target.assembler
    command = [
        ptxas,
        "-v",
        "--gpu-name",
        f"sm_{target.capability}a",
        tmp_path / "kernel.ptx",
        "-o",
        tmp_path / "kernel.o",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert re.search(r"\b0 bytes spill stores, 0 bytes spill loads", told), told
    assert int(re.search(r"Used (\d+) registers", told)[1]) <= target.registers
