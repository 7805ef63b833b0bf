"""Extraction on a Ray cluster: each actor has a model on its GPU or core; Ray Data gives it blocks of photos."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.config.choices import Device, Precision, Runtime
from isc.errors import InputError, needing
from isc.extract.blocks import RUN, Block, Run, Store, joined, write_block
from isc.extract.embedding import embed_photos
from isc.extract.view_plan import ViewPlan
from isc.model.inference import InferenceModel
from isc.model.load_inference import load_inference_model
from isc.photos.listing import Listing
from isc.runtime.allocator import keep_freed_memory
from isc.runtime.progress import Report
from isc.runtime.ray_cluster import (
    RETRIES,
    Node,
    as_input_errors,
    check_nodes,
    connected,
    named_node,
    require_ray,
    working_nodes,
)

Rows = Mapping[str, npt.NDArray[Any]]  # a batch of Ray Data: {column: array}


@dataclass(frozen=True)
class Recipe:
    """Settings of the actors.

    `model` is loaded on the nodes of the actors, as by `load_inference_model`; `precision` should not be auto, so that
    all nodes compute the same.
    """

    model: str
    view_plan: ViewPlan
    device: Device = Device.auto
    runtime: Runtime = Runtime.auto
    precision: Precision = Precision.float32
    compile: bool = False
    batch_size: int | None = None  # on a GPU
    strict: bool = False  # an unreadable photo ends the run


def embed_on_cluster(
    store: Store,
    photos: Listing,
    recipe: Recipe,
    *,
    address: str | None = None,
    actors: int | None = None,
    progress: Report | None = None,
) -> None:
    """Make all missing blocks of the run, by actors that write them into the store's folder, which all nodes must see.

    An actor has a GPU and its share of the cores of its node or, if the cluster has no GPU or device=cpu, one core. The
    default of `actors` is as many as there is room for. A dead actor is restarted and makes its block again; finished
    blocks stay after any error. `address` is that of `connected`; `progress` is called with (photos done, including
    earlier runs, photos in total).

    Raises InputError if an actor does, if the cluster cannot run the work, and if `RETRIES` + 1 actors died at the same
    block.
    """
    missing = store.missing()
    done = store.run.count - sum(len(store.run.rows(number)) for number in missing)
    if not missing:
        return
    for path in store.folder.glob("*.tries"):  # of an earlier run
        path.unlink()
    with connected(address):
        nodes = working_nodes()
        check_nodes(nodes, (store.folder / RUN).absolute())
        place = place_for(nodes, recipe.device)
        count = min(len(missing), place.room if actors is None else actors)
        left = f"what is finished stays in {store.folder}; the same command goes on from there"
        if progress:
            progress(done, store.run.count)
        made = _made(store, photos, recipe, missing=missing, place=place, actors=count)
        with as_input_errors(lambda: left), closing(made):
            for photos_done in made:
                done += photos_done
                if progress:
                    progress(done, store.run.count)


# --- the actors -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """The resources of an actor, and the number of such actors that the cluster has room for."""

    cpus: int
    gpus: int
    room: int


def place_for(nodes: list[Node], device: Device) -> Place:
    """Return a GPU for each actor if the cluster has GPUs and `device` allows them, otherwise a core.

    Raises InputError for device=cuda without a GPU.
    """
    cpus = [int(node["Resources"]["CPU"]) for node in nodes]
    gpus = [int(node["Resources"].get("GPU", 0)) for node in nodes]
    if device is Device.cpu or (device is Device.auto and not any(gpus)):
        return Place(1, 0, sum(cpus))
    if not any(gpus):
        raise InputError("device=cuda: no node of the Ray cluster has a GPU; expected one, or device=cpu")
    share = max(1, min(cores // number for cores, number in zip(cpus, gpus, strict=True) if number))
    return Place(share, 1, sum(min(number, cores // share) for cores, number in zip(cpus, gpus, strict=True)))


# --- the work --------------------------------------------------------------------------------------------------------


def _made(
    store: Store, photos: Listing, recipe: Recipe, *, missing: list[int], place: Place, actors: int
) -> Generator[int, None, None]:
    """Make these blocks on the cluster, and yield the number of photos of each finished block."""
    data = _quiet_ray_data()
    context = data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.target_max_block_size = 1  # one of our blocks per block of Ray: the unit of work of an actor
    with data.DataContext.current(context):
        made = (
            data.from_items([{"names": 0}])
            .map_batches(
                block_names,
                fn_kwargs={"photos": require_ray().put(photos), "run": store.run, "missing": missing},
                num_cpus=0,
            )
            .map_batches(
                Embedder,
                fn_constructor_args=(store, recipe, place),
                batch_size=1,
                compute=data.ActorPoolStrategy(size=actors),
                num_cpus=place.cpus,
                num_gpus=place.gpus or None,
            )
        )
        for row in made.iter_rows():
            yield int(row["photos"])


def block_names(_start: Rows, *, photos: Any, run: Run, missing: list[int]) -> Iterator[Rows]:
    """Yield (number, pickled `Listing` of its photos) of each missing block, one by one as there is room for them.

    `photos` is the whole listing, or Ray's reference to it, so that it is sent only once.
    """
    listing: Listing = photos if isinstance(photos, Listing) else require_ray().get(photos)
    for number in missing:
        part = pickle.dumps(listing.part(run.rows(number)))
        yield {"number": np.array([number]), "photos": np.array([part], dtype=object)}


class Embedder:
    """An actor that makes blocks; it loads the network with its first block, so that load errors are reported."""

    def __init__(self, store: Store, recipe: Recipe, place: Place) -> None:
        self._store, self._recipe, self._place = store, recipe, place
        self._network: InferenceModel | None = None

    def __call__(self, batch: Rows) -> Rows:
        number, photos = int(batch["number"][0]), pickle.loads(batch["photos"][0])
        with named_node(), counted(self._store.folder.absolute(), number, photos):
            self._network = self._network or load_checked(self._recipe, self._place, self._store.run)
            block = self._embed(self._network, photos, self._store.run.rows(number).start)
        if self._recipe.strict and block.failures:
            raise InputError(f"{block.failures[min(block.failures)]} (strict=true)")
        with named_node():
            write_block(self._store.folder.absolute(), number, block)
        return {"photos": np.array([len(photos)]), "failures": np.array([len(block.failures)])}

    def _embed(self, network: InferenceModel, photos: Listing, first: int) -> Block:
        """Return the block of these photos; the first photo has the number `first` in the run."""
        recipe = self._recipe
        parts = list(
            embed_photos(
                network,
                photos,
                range(len(photos)),
                view_plan=recipe.view_plan,
                batch_size=recipe.batch_size,
                workers=self._place.cpus if self._place.gpus else 0,
            )
        )
        whole = joined(parts)
        failures = {row + first: why for row, why in whole.failures.items()}
        return replace(whole, rows=whole.rows + first, failures=failures)


@contextmanager
def counted(folder: Path, number: int, photos: Listing) -> Iterator[None]:
    """Count, in a file of the folder, the actors that began this block and did not finish it.

    Ray restarts them without limit. Raises InputError after `RETRIES` + 1 deaths.
    """
    path = folder / f"{number:08d}.tries"
    with path.open("ab") as file:
        file.write(b".")
    if path.stat().st_size > RETRIES + 1:
        raise InputError(
            f"photos {photos.id_of(0)!r} to {photos.id_of(len(photos) - 1)!r}: {RETRIES + 1} actors died over them; "
            "with too little memory? Try fewer actors=, and run the same command again"
        )
    yield
    path.unlink(missing_ok=True)


def load_checked(recipe: Recipe, place: Place, run: Run) -> InferenceModel:
    """Load the recipe's network on a node. Raises InputError if it is not the network that the run began with."""
    keep_freed_memory()
    network = load_inference_model(
        recipe.model,
        device="cuda" if place.gpus else "cpu",
        runtime=recipe.runtime,
        precision=recipe.precision,
        compile=recipe.compile,
        image_size=recipe.view_plan.image_size,
    )
    for name, value in network.provenance.items():
        if run.provenance.get(name, value) != value:
            raise InputError(
                f"model={recipe.model}: has {name}={value} here, {run.provenance[name]} where the run was begun; "
                "expected the same file on all nodes"
            )
    return network


def _quiet_ray_data() -> Any:
    """Import ray.data, and reduce its log to warnings that are not also exceptions.

    Raises InputError if it is not installed.
    """
    with needing("engine=ray", extra="ray"):
        from ray import data
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    for name in ("_internal.progress", "_internal.execution.streaming_executor_state", "exceptions"):
        logging.getLogger(f"ray.data.{name}").setLevel(logging.CRITICAL)
    return data
