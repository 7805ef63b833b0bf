"""Several Ray nodes on this machine: what they find is what one process finds, whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isc.config.choices import Combine, Device
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import write_descriptors
from isc.data.matches import Matches
from isc.errors import InputError
from isc.extract.blocks import Run, Store, block_path, joined, open_store
from isc.extract.embedding import embed, embed_photos
from isc.extract.ray_extract import (
    Embedder,
    Place,
    Recipe,
    block_names,
    counted,
    embed_on_cluster,
    load_checked,
    place_for,
)
from isc.extract.view_plan import ViewPlan
from isc.model.inference import InferenceModel
from isc.model.load_inference import load_inference_model
from isc.photos.listing import Listing
from isc.photos.sources import list_photos
from isc.photos.views import parse_views
from isc.runtime.ray_cluster import RETRIES, check_nodes, connected, require_ray, working_nodes
from isc.search import ray_search as search
from isc.search.exact import best_pairs, knn
from isc.search.ray_search import ShardAnswer, cluster_pairs, merge, plan, read_shard
from tests.conftest import SAMPLE

pytestmark = pytest.mark.slow

pytest.importorskip("ray")

GIB = 1 << 30
SIDE, BLOCK = 64, 16  # pixels; photos in a block


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """A cluster of a head that does no work and two nodes of one core."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options = {"object_store_memory": 100 << 20, "include_dashboard": False}
    there = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    for _ in range(2):
        there.add_node(num_cpus=1, object_store_memory=100 << 20)
    with connected(there.address):
        yield there
    there.shutdown()


@pytest.fixture(scope="module")
def cluster(machines: Any) -> str:
    """The address of the cluster."""
    return str(machines.address)


# --- search ----------------------------------------------------------------------------------------------------------


def made(count: int, letter: str, *, values: int = 3, dim: int = 16) -> Descriptors:
    """Descriptors of small whole numbers, so that many distances are equal."""
    vectors = np.random.default_rng(ord(letter)).integers(0, values, (count, dim)).astype(np.float32)
    return Descriptors([f"{letter}{row:06d}" for row in range(count)], vectors)


def assert_same(found: Matches, expected: Matches) -> None:
    for name in ("query_ids", "reference_ids"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    for name in ("query", "reference", "score"):
        one, two = getattr(found, name), getattr(expected, name)
        assert (one.dtype, one.tobytes()) == (two.dtype, two.tobytes()), name


def test_the_best_pairs_are_those_of_one_process(cluster: str) -> None:
    queries, references = made(40, "q"), made(700, "r")
    told: list[tuple[int, int]] = []
    found = cluster_pairs(
        queries, references, num_pairs=300, k=None, address=cluster, progress=lambda *done: told.append(done)
    )
    assert_same(found, best_pairs(queries, references, num_pairs=300))
    assert found.score[299] in found.score[:299]  # there are ties
    assert told[-1] == (28_000, 28_000)
    assert told == sorted(told)


def test_references_may_stay_in_their_file(cluster: str, tmp_path: Path) -> None:
    queries, references = made(40, "q"), made(701, "r")
    write_descriptors(tmp_path / "r.h5", references, {})
    found = cluster_pairs(queries, tmp_path / "r.h5", num_pairs=None, k=5, actors=3, address=cluster)
    assert_same(found, knn(queries, references, k=5))


def test_more_neighbours_than_a_shard_holds_and_more_actors_than_references(cluster: str) -> None:
    queries, references = made(6, "q"), made(3, "r")
    assert_same(cluster_pairs(queries, references, num_pairs=None, k=3, actors=4), knn(queries, references, k=3))
    same = Descriptors(references.ids, np.zeros_like(references.vectors))  # all distances of a query are equal
    found = cluster_pairs(queries, same, num_pairs=7, k=None, actors=2)
    assert_same(found, best_pairs(queries, same, num_pairs=7))


class Watching:
    """Ray, with the options of its actors written down."""

    def __init__(self, ray: Any, asked: list[tuple[int, int]]) -> None:
        self._ray, self._asked = ray, asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ray, name)

    def remote(self, kind: type) -> Any:
        self._actor = self._ray.remote(kind)
        return self

    def options(self, **options: Any) -> Any:
        self._asked.append((options["num_cpus"], options["num_gpus"]))
        return self._actor.options(**options)


def test_actors_ask_for_the_gpus_of_a_node(machines: Any, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One actor for each of two GPUs that Ray is told of; without them, numpy's bytes from the same places."""
    queries, references, asked = made(40, "q"), made(700, "r"), list[tuple[int, int]]()
    ray = require_ray()
    monkeypatch.setattr(search, "require_ray", lambda: Watching(ray, asked))
    node = machines.add_node(num_cpus=4, num_gpus=2, object_store_memory=100 << 20)
    try:
        found = cluster_pairs(queries, references, num_pairs=300, k=None, address=cluster)
    finally:
        machines.remove_node(node)
    assert asked == [(2, 1), (2, 1)]
    assert_same(found, best_pairs(queries, references, num_pairs=300))


def test_an_actor_that_is_killed_costs_time_alone(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, references = made(3000, "q", values=50, dim=128), made(60_000, "r", values=50, dim=128)
    told: list[int] = []
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        told.append(done)
        if not killed and 0 < done < total:
            killed.extend(workers("ray::Searcher"))
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(search, "POLL", 0.02)
    found = cluster_pairs(queries, references, num_pairs=500, k=None, actors=1, progress=kill)
    assert killed
    assert any(later < earlier for earlier, later in itertools.pairwise(told)), "its work was not lost"
    assert_same(found, best_pairs(queries, references, num_pairs=500))


def workers(title: str) -> list[int]:
    """Processes of the cluster that this process began, by what they are doing."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text()
            parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            grandparent = Path(f"/proc/{parent}/stat").read_text().rsplit(")", 1)[1].split()[1]
        except (OSError, IndexError):  # it ended meanwhile
            continue
        if command.startswith(title) and int(grandparent) == os.getpid():
            found.append(int(folder.name))
    return found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_pairs": 121, "k": None}, "num_pairs=121: there are 120 pairs; expected at most that many"),
        ({"num_pairs": None, "k": 21}, "k=21: there are 20 references; expected at most that many"),
        ({"num_pairs": 0, "k": None}, "num_pairs=0; expected at least 1"),
        ({"num_pairs": 3, "k": 3}, "num_pairs=3 and k=3; expected one of the two"),
        ({"num_pairs": 3, "k": None, "actors": 0}, "actors=0; expected at least 1"),
        ({"num_pairs": 3, "k": None, "address": "127.0.0.1:1"}, "address=127.0.0.1:1: this program is connected to"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(cluster: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cluster_pairs(made(6, "q"), made(20, "r"), **{"address": cluster, **options})


def test_a_refusal_of_an_actor_is_one_line_that_names_the_node(cluster: str) -> None:
    with pytest.raises(InputError, match=r"^memory_gb=1e-09: num_pairs=20 needs .* \(on node \S+\)$"):
        cluster_pairs(made(6, "q"), made(20, "r"), num_pairs=20, k=None, memory_gb=1e-9, actors=1)


def test_sets_that_do_not_fit_are_refused(cluster: str, tmp_path: Path) -> None:
    write_descriptors(tmp_path / "r.h5", made(20, "r", dim=8), {})
    with pytest.raises(InputError, match=r"r\.h5: 8 dimensions, queries have 16"):
        cluster_pairs(made(6, "q"), tmp_path / "r.h5", num_pairs=3, k=None, address=cluster)
    with pytest.raises(InputError, match="references: has views"):
        cluster_pairs(made(6, "q"), replace(made(2, "r"), views=np.array(["whole"] * 2, object)), num_pairs=3, k=None)


def test_merged_shards_are_the_whole() -> None:
    """All pairs in shards of one reference to all, against one sort."""
    draw = np.random.default_rng(0)
    distance = draw.integers(0, 4, (5, 12)).astype(np.float64)
    query, reference = (axis.ravel() for axis in np.indices(distance.shape))
    for num_pairs, k in ((17, None), (None, 3)):
        for rows in (1, 5, 12):
            best = ShardAnswer(query[:0], reference[:0], distance.ravel()[:0])
            for first in draw.permutation(np.arange(0, 12, rows)):
                inside = np.flatnonzero((reference >= first) & (reference < first + rows))
                shard = ShardAnswer(query[inside], reference[inside], distance.ravel()[inside])
                nothing = ShardAnswer(query[:0], reference[:0], distance.ravel()[:0])
                best = merge(best, merge(shard, nothing, num_pairs=num_pairs, k=k), num_pairs=num_pairs, k=k)
            found = sorted(zip(best.distance, best.query, best.reference, strict=True))
            everything = sorted(zip(distance.ravel(), query, reference, strict=True))
            expected = everything[:17] if k is None else sorted(
                pair for q in range(5) for pair in [one for one in everything if one[1] == q][:k]
            )  # fmt: skip
            assert found == expected


def node(name: str, cpus: int, *, gpus: int = 0, machine: str | None = None, memory: int = GIB) -> dict[str, object]:
    resources = {"CPU": float(cpus), "memory": float(memory), **({"GPU": float(gpus)} if gpus else {})}
    return {"NodeID": name, "NodeManagerAddress": machine or name, "Resources": resources}


def test_a_plan_covers_all_references_once_and_no_core_twice() -> None:
    nodes = [node("a", 4), node("b", 8), node("c", 4, machine="b")]
    shards = plan(nodes, 1001, None, row_bytes=1024)
    assert [(one.node, one.core, one.cores) for one in shards] == [("a", 0, 4), ("b", 0, 4), ("b", 4, 4), ("c", 8, 4)]
    assert [one.first for one in shards] == [0, 251, 502, 753]
    assert len(plan(nodes, 1_000_000, None, row_bytes=8 * 1024)) == 4 * 6  # 8 GB in rounds of 1.5 GiB
    assert [one.cores for one in plan(nodes, 1000, 2, row_bytes=1)] == [4, 4]
    assert [one.cores for one in plan(nodes, 1000, 16, row_bytes=1)] == [1] * 16
    assert len(plan(nodes, 3, 100, row_bytes=1)) == 3


def test_shards_of_a_file_are_its_rows(tmp_path: Path) -> None:
    whole = made(10, "r")
    write_descriptors(tmp_path / "r.h5", whole, {})
    shards = [read_shard(tmp_path / "r.h5", number, rows=4) for number in range(3)]
    assert [name for shard in shards for name in shard.ids] == whole.ids.tolist()
    assert np.concatenate([shard.vectors for shard in shards]).tobytes() == whole.vectors.tobytes()


# --- extraction ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> InferenceModel:
    return load_inference_model("isc_small", device=torch.device("cpu"), image_size=SIDE)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Listing:
    """48 sample photos, of which one is empty."""
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted(SAMPLE.glob("*.jpg"))[:48]:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "S020.jpg").write_bytes(b"")
    return list_photos([folder])


@pytest.fixture
def store(network: InferenceModel, photos: Listing, tmp_path: Path) -> Iterator[Store]:
    run = Run(len(photos), BLOCK, dict(network.provenance))
    with open_store(tmp_path / "out.h5", run, row_bytes=2000, overwrite=False) as store:
        yield store


def test_blocks_are_those_of_one_process_and_a_killed_actor_costs_time_alone(
    cluster: str, store: Store, photos: Listing, network: InferenceModel
) -> None:
    killed: list[int] = []

    def kill() -> None:
        """As soon as an actor is at its first block."""
        while not list(store.folder.glob("*.tries")) and not ended.wait(0.01):
            pass
        busy = workers("ray::MapWorker")
        os.kill(busy[0], signal.SIGKILL)
        killed.append(busy[0])

    ended, told = threading.Event(), list[tuple[int, int]]()
    thread = threading.Thread(target=kill)
    thread.start()
    try:
        embed_on_cluster(store, photos, Recipe("isc_small", ViewPlan(SIDE)), progress=lambda *done: told.append(done))
    finally:
        ended.set()
        thread.join()
    assert killed
    assert told[-1] == (48, 48)
    assert sorted(path.name for path in store.folder.iterdir()) == [
        *(f"{n:08d}.npz" for n in range(3)),
        "run.json",
        "run.lock",
    ]
    vectors, failures = embed(network, photos, image_size=SIDE)
    blocks = list(store.blocks())
    rows = np.concatenate([block.rows for block in blocks])
    assert sorted(set(range(48)) - set(rows.tolist())) == [20]
    assert np.concatenate([block.vectors for block in blocks])[:, 0].tobytes() == vectors[rows].tobytes()
    assert {row: why for block in blocks for row, why in block.failures.items()} == failures

    # again, with one block missing: nothing else is made
    before = {path: path.stat().st_mtime_ns for path in store.folder.glob("*.npz")}
    last = block_path(store.folder, 2)
    last.unlink()
    embed_on_cluster(store, photos, Recipe("isc_small", ViewPlan(SIDE)), progress=lambda *done: told.append(done))
    after = {path: path.stat().st_mtime_ns for path in store.folder.glob("*.npz")}
    assert {path for path in after if after[path] != before[path]} == {last}
    assert told[-1] == (48, 48)


def test_regions_found_by_actors_are_those_of_one_process(
    cluster: str, store: Store, photos: Listing, network: InferenceModel
) -> None:
    view_plan = ViewPlan(SIDE, parse_views("regions:2"), Combine.rows)
    embed_on_cluster(store, photos, Recipe("isc_small", view_plan))
    made, alone = (
        joined(list(store.blocks())),
        joined(list(embed_photos(network, photos, range(48), view_plan=view_plan))),
    )
    assert made.regions is not None
    assert alone.regions is not None
    assert made.rows.tolist() == alone.rows.tolist()
    assert made.regions.tobytes() == alone.regions.tobytes()
    assert made.vectors.tobytes() == alone.vectors.tobytes()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("nonsense", ViewPlan(SIDE)), r"^model=nonsense: no such model; .* \(on node \S+\)$"),
        (Recipe("isc_small", ViewPlan(SIDE), device=Device.cuda), "^device=cuda: no node of the Ray cluster has a GPU"),
    ],
)
def test_an_error_of_the_user_ends_the_run_with_one_line(
    cluster: str, store: Store, photos: Listing, recipe: Recipe, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        embed_on_cluster(store, photos, recipe, actors=1)
    assert "\n" not in str(caught.value)


def test_strict_ends_the_run_at_a_photo_that_cannot_be_read(store: Store, photos: Listing) -> None:
    actor = Embedder(store, Recipe("isc_small", ViewPlan(SIDE), strict=True), Place(1, 0, 1))
    batches = block_names({}, photos=photos, run=store.run, missing=[1])
    with pytest.raises(InputError, match=r"S020\.jpg.* \(strict=true\)$"):
        actor(next(batches))
    assert not block_path(store.folder, 1).exists()


def test_another_model_than_the_run_was_begun_with_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match=r"^model=imagenet: has weights_sha256=.* where the run was begun"):
        load_checked(Recipe("imagenet", ViewPlan(SIDE)), Place(1, 0, 1), store.run)


def test_a_block_that_costs_four_actors_their_lives_ends_the_run(photos: Listing, tmp_path: Path) -> None:
    def begin() -> AbstractContextManager[None]:
        return counted(tmp_path, 7, photos.part(range(16)))

    for _ in range(RETRIES):
        with contextlib.suppress(MemoryError), begin():
            raise MemoryError
    with begin():  # the last attempt succeeds, so that the next run has all of them again
        pass
    for _ in range(RETRIES + 1):
        with contextlib.suppress(MemoryError), begin():
            raise MemoryError
    with pytest.raises(InputError, match=r"^photos 'S000' to 'S015': 4 actors died over them"), begin():
        pass


def test_an_actor_gets_a_gpu_where_there_are_some() -> None:
    nodes = [node("a", 16), node("b", 32, gpus=8), node("c", 12, gpus=2)]
    assert vars(place_for(nodes, Device.auto)) == {"cpus": 4, "gpus": 1, "room": 10}
    assert vars(place_for(nodes, Device.cpu)) == {"cpus": 1, "gpus": 0, "room": 60}
    assert vars(place_for(nodes[:1], Device.auto)) == {"cpus": 1, "gpus": 0, "room": 16}


# --- the connection --------------------------------------------------------------------------------------------------


def test_a_folder_that_a_node_does_not_see_is_refused(cluster: str, tmp_path: Path) -> None:
    nodes = working_nodes()
    assert len(nodes) == 2
    with pytest.raises(InputError, match=r"^node \S+: does not see .*run\.json; expected a file system"):
        check_nodes(nodes, tmp_path / "run.json")


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"^engine=ray needs ray; pip install 'isc\[ray\]'"):
        require_ray()
