"""Extraction of descriptors to a file, by blocks that are kept until the file is complete."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from isc import __version__
from isc.config.choices import Precision, Where
from isc.config.extract import ExtractConfig
from isc.data.csv_files import write_csv
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import read_provenance, write_descriptor_blocks
from isc.errors import InputError
from isc.extract.blocks import Block, Run, Store, block_size, clear_finished, joined, open_store, write_block
from isc.extract.embedding import embed_photos
from isc.extract.videos import with_frames
from isc.extract.view_plan import ViewPlan
from isc.model.inference import InferenceModel
from isc.model.load_inference import load_inference_model
from isc.photos.listing import Listing
from isc.photos.sources import list_photos
from isc.photos.views import LONGEST_NAME, View, parse_views, placed, views_text
from isc.runtime.allocator import keep_freed_memory
from isc.runtime.progress import Report, progress
from isc.runtime.ray_cluster import require_ray

log = logging.getLogger(__name__)

WHOLE = "whole.h5"  # the unfinished file, in the folder of its blocks
QUEUED = 2  # finished blocks that wait for the disk
ID_BYTES = 64  # approximate length of an id


def extract(config: ExtractConfig) -> Path:
    """Write the descriptors of all photos of `config.images` to `config.output`, and return that path.

    A file that the same model made of the same photos is kept; another file is refused unless config.overwrite. An
    interrupted run continues where it stopped. Raises InputError if the configuration or the photos cannot be used.
    """
    output = Path(config.output)
    if output.is_dir():
        raise InputError(f"output={output}: is a folder; expected a file, as {output / 'descriptors.h5'}")
    views = parse_views(config.views)
    photos = list_photos(with_frames(config.images, output))
    network = _network(config)
    view_plan = ViewPlan(config.image_size or network.image_size, views, config.combine)
    for side in view_plan.sides:
        network.check_size(side)
    if config.gpu_jpeg:
        _refuse_gpu_jpeg(network, view_plan)
    decoder = {"decoder": "GPU"} if config.gpu_jpeg else {}
    run = Run(len(photos), block_size(len(photos)), _provenance(network, photos, view_plan) | decoder)
    if output.exists() and not config.overwrite:
        _refuse_other(output, run, strict=config.strict)
        clear_finished(output, run)
        log.info("%s is there already, made the same way; overwrite=true makes it again", output)
        return output
    row_bytes = view_plan.rows * (4 * network.dim + ID_BYTES)
    with open_store(output, run, row_bytes=row_bytes, overwrite=config.overwrite) as store:
        _make_blocks(store, network, photos, view_plan, config)
        _put_together(store, output, photos, view_plan, config)
    return output


def _refuse_gpu_jpeg(network: InferenceModel, view_plan: ViewPlan) -> None:
    if not network.on_gpu:
        raise InputError("gpu_jpeg=true: there is no GPU; leave it out")
    if len(view_plan.views) > 1:
        raise InputError(f"gpu_jpeg=true shows whole photos; views={views_text(view_plan.views)} does not go with it")


def _provenance(network: InferenceModel, photos: Listing, view_plan: ViewPlan) -> dict[str, str]:
    """Return the facts that the descriptors depend on."""
    shown = (
        {"views": views_text(view_plan.views), "combine": view_plan.combine.value} if len(view_plan.views) > 1 else {}
    )
    return {
        **network.provenance,
        "image_size": str(view_plan.image_size),
        "precision": network.precision.value,
        "image_list_sha256": photos.sha256(),
        **shown,
    }


def _make_blocks(
    store: Store, network: InferenceModel, photos: Listing, view_plan: ViewPlan, config: ExtractConfig
) -> None:
    """Make the missing blocks; finished blocks stay after any error."""
    missing = store.missing()
    there = store.run.count - sum(len(store.run.rows(number)) for number in missing)
    what = (
        f"{store.run.count:,} photos at {view_plan.image_size} px on {network.device_name}, {network.precision.value}"
    )
    log.info("extracting %s%s", what, f"; {there:,} are done already" if there else "")
    if not missing:
        return
    if config.engine is Where.ray:
        _embed_on_cluster(store, photos, view_plan, network.precision, config)
        return
    keep_freed_memory()
    rows = np.concatenate([np.array(store.run.rows(number)) for number in missing])
    made = embed_photos(
        network,
        photos,
        rows,
        view_plan=view_plan,
        batch_size=config.batch_size,
        workers=config.workers,
        gpu_jpeg=config.gpu_jpeg,
    )
    try:
        with progress("extracting", "photos") as report:
            watched = _watched(made, done=there, total=store.run.count, report=report, strict=config.strict)
            _keep(store, missing, watched)
    except KeyboardInterrupt:
        log.info("what is finished stays in %s; the same command goes on from there", store.folder)
        raise


def _network(config: ExtractConfig) -> InferenceModel:
    """Load the network that embeds the photos; for a cluster, a network on the CPU that only describes it."""
    on_cluster = config.engine is Where.ray
    if on_cluster:
        require_ray()
    network = load_inference_model(
        config.model,
        device="cpu" if on_cluster else config.device.value,
        runtime=config.runtime,
        precision=Precision.float32 if on_cluster else config.precision,
        compile=config.compile and not on_cluster,
        image_size=config.image_size,
    )
    if on_cluster and config.precision is not Precision.auto:  # auto may differ between nodes
        return replace(network, precision=config.precision)
    return network


def _embed_on_cluster(
    store: Store, photos: Listing, view_plan: ViewPlan, precision: Precision, config: ExtractConfig
) -> None:
    from isc.extract.ray_extract import Recipe, embed_on_cluster

    recipe = Recipe(
        config.model,
        view_plan,
        device=config.device,
        runtime=config.runtime,
        precision=precision,
        compile=config.compile,
        batch_size=config.batch_size,
        strict=config.strict,
    )
    with progress("extracting", "photos") as report:
        embed_on_cluster(store, photos, recipe, address=config.address, actors=config.actors, progress=report)


def _watched(made: Iterable[Block], *, done: int, total: int, report: Report, strict: bool) -> Iterator[Block]:
    """Yield the blocks and report the progress; with `strict`, raise InputError at the first unreadable photo."""
    report(done, total)
    for block in made:
        if strict and block.failures:
            _refuse_unreadable(block.failures)
        done += len(block.rows) + len(block.failures)
        report(done, total)
        yield block


def _keep(store: Store, missing: list[int], made: Iterable[Block]) -> None:
    """Write the blocks of these numbers, in order, while the next blocks are made."""
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as disk:
        for number, block in regrouped(made, [(number, store.run.rows(number)) for number in missing]):
            pending.append(disk.submit(write_block, store.folder, number, block))
            while len(pending) > QUEUED:
                pending.popleft().result()
        for written in pending:
            written.result()


def regrouped(made: Iterable[Block], wanted: Iterable[tuple[int, range]]) -> Iterator[tuple[int, Block]]:
    """Regroup pieces of any size, in the order of photo numbers, to (number, block) for each wanted range."""
    pieces = iter(made)
    left: Block | None = None
    for number, rows in wanted:
        parts: list[Block] = []
        while sum(len(part.rows) + len(part.failures) for part in parts) < len(rows):
            piece = left or next(pieces)
            here, left = _split(piece, rows.stop)
            parts.append(here)
        yield number, joined(parts)


def _split(block: Block, stop: int) -> tuple[Block, Block | None]:
    """Return the photos before number `stop`, and the others, or None if there are no others."""
    before = block.rows < stop
    early = {row: why for row, why in block.failures.items() if row < stop}
    if before.all() and len(early) == len(block.failures):
        return block, None
    late = {row: why for row, why in block.failures.items() if row >= stop}
    return block.part(before, early), block.part(~before, late)


# --- the file --------------------------------------------------------------------------------------------------------


def _put_together(store: Store, output: Path, photos: Listing, view_plan: ViewPlan, config: ExtractConfig) -> None:
    """Write the blocks as one file, list unreadable photos beside it, and remove the blocks.

    Raises InputError if no photo is readable, or with config.strict if one is not.
    """
    failures = store.failures()
    if failures and config.strict:
        _refuse_unreadable(failures)
    kept = len(photos) - len(failures)
    if not kept:
        store.remove()
        raise InputError(
            f"images={config.images}: none of {len(photos):,} photos can be read; the first: {failures[min(failures)]}"
        )
    whole = store.folder / WHOLE
    several = view_plan.rows > 1
    longest = LONGEST_NAME if view_plan.regions else max(len(view.name) for view in view_plan.views)
    write_descriptor_blocks(
        whole,
        (
            _described(block, photos, view_plan.views if several else None)
            for block in store.blocks()
            if len(block.rows)
        ),
        rows=kept * view_plan.rows,
        id_bytes=photos.longest_id,
        view_bytes=longest if several else 0,
        provenance={
            **store.run.provenance,
            "images": str(len(photos)),
            "unreadable": str(len(failures)),
            "weights": config.model,
            "code_version": __version__,
        },
    )
    _list_failures(output, photos, failures)
    whole.replace(output)
    store.remove()
    log.info("wrote %s: %d photos, %d descriptors", output, kept, kept * view_plan.rows)


def _described(block: Block, photos: Listing, views: Sequence[View] | None) -> Descriptors:
    """Return the descriptors of a block with their ids and, if a photo has several, the names of their views."""
    ids = np.array(photos.ids(block.rows.tolist()), dtype=object)
    count, each, dim = block.vectors.shape
    vectors = block.vectors.reshape(count * each, dim)
    names = None if views is None else np.array(_names(block, views), dtype=object)
    return Descriptors(np.repeat(ids, each), vectors, names)


def _names(block: Block, views: Sequence[View]) -> list[str]:
    """Return the name of the view of each row of a block; the name of a proposed region is its position."""
    if block.regions is None:
        return [view.name for view in views] * len(block.rows)
    return [view.name for regions in block.regions.tolist() for view in placed(views, regions)]


def _list_failures(output: Path, photos: Listing, failures: Mapping[int, str]) -> None:
    """List the unreadable photos beside the output; without any, remove the list of an earlier run."""
    listing = output.with_name(f"{output.name}.failures.csv")
    if not failures:
        listing.unlink(missing_ok=True)
        return
    rows = ((photos.id_of(row), photos.file(row), why) for row, why in sorted(failures.items()))
    write_csv(listing, ("id", "file", "reason"), rows)
    log.warning("%d of %d photos cannot be read and were left out; see %s", len(failures), len(photos), listing)


def _refuse_unreadable(failures: Mapping[int, str]) -> NoReturn:
    raise InputError(f"{failures[min(failures)]} (strict=true)")


def _refuse_other(output: Path, run: Run, *, strict: bool) -> None:
    """Raise InputError unless the file is of this run and, with `strict`, has every photo."""
    before = read_provenance(output)
    if strict and before.get("unreadable") != "0":
        raise InputError(f"output={output}: leaves out {before.get('unreadable')} unreadable photos (strict=true)")
    for name, value in {"images": str(run.count), **run.provenance}.items():
        if before.get(name) != value:
            raise InputError(
                f"output={output}: was made with {name}={before.get(name)}, now {name}={value}; "
                "give another file or overwrite=true"
            )
