"""The comparison of candidate pairs with a device: three stages that work at the same time on three blocks of queries.

Processes describe the queries of a block while a thread reads its references from the store; a thread has the device
search for the maps of the block before; and the processes make the evidence of the block before that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from isc.config.choices import Device
from isc.errors import InputError
from isc.match.verification.affine_fit import Fit, paired
from isc.match.verification.alignment import Alignment, evidence_of
from isc.match.verification.batched_fit import PAIR, Fits, best_fits
from isc.match.verification.drawings import may_be_a_drawing
from isc.match.verification.feature_rows import FeatureRows
from isc.match.verification.feature_store import FeatureStore, PhotoKey, photo_key
from isc.match.verification.features import LocalFeatures
from isc.match.verification.tasks import Compare, Compared, Describe, Described, Finish, Floats
from isc.runtime.cpus import cores
from isc.runtime.pool import Share
from isc.search.kernels.device_search import cuda_devices

Task = Describe | Compare | Finish
QUERIES = 64  # of a block
PHOTOS = 4  # photos in one task of making features
READERS = 4  # threads that read from the store
MOST = 1024  # pairs that the device compares at a time
SHARE = 0.25  # of the device's free memory
CPU_PAIRS = 16  # pairs at a time on a CPU: what its caches hold
ENOUGH = 20_000  # pairs; fewer are compared on the CPU sooner than torch and CUDA have started


def device_for(choice: Device, pairs: int) -> str | None:
    """Return the device of torch that compares this number of pairs, None for the CPU without torch.

    Raises InputError for `cuda` without a GPU.
    """
    if choice is Device.cpu or (choice is Device.auto and (pairs < ENOUGH or not Path("/dev/nvidiactl").exists())):
        return None
    devices = cuda_devices()
    if choice is Device.cuda and not devices:
        raise InputError("device=cuda: no CUDA device is visible; use device=cpu or device=auto")
    return devices[0] if devices else None


def compared_on(
    device: str, items: Iterable[Compare], share: Share[Task, Described | Compared], store: FeatureStore | None
) -> Iterator[Compared]:
    """Yield the results of the tasks, in any order, with the maps found on a device of torch."""
    todo = iter(items)
    described: _Block | None = None
    fitted: _Block | None = None
    stores = [] if store is None else [FeatureStore(store.folder) for _ in range(min(READERS, cores()))]
    with ThreadPoolExecutor(len(stores) + 2) as threads:
        while True:
            tasks = list(islice(todo, QUERIES))
            block = _Block(tasks) if tasks else None
            if block is described is fitted is None:
                break
            reading = [threads.submit(one.get_many, keys) for one, keys in block.wanted(stores)] if block else []
            fitting = threads.submit(_fit, described, device) if described else None
            finishing = fitted.finish() if fitted else iter(())
            for result in share(chain(block.describe() if block else (), finishing)):
                if isinstance(result, Described):
                    assert block is not None
                    block.put_queries(result)
                else:
                    assert fitted is not None
                    yield fitted.whole(result)
            yield from fitted.rest() if fitted else ()
            if block:
                _complete(block, reading, share)
            if fitting:
                fitting.result()
            described, fitted = block, described
    for one in stores:
        one.close()


def _complete(
    block: _Block,
    reading: Sequence[Future[dict[PhotoKey, LocalFeatures]]],
    share: Share[Task, Described | Compared],
) -> None:
    """Put the references that were read into the block, and make those that the store does not have."""
    block.put_references({key: one for future in reading for key, one in future.result().items()})
    for result in share(block.missing()):
        assert isinstance(result, Described)
        block.put_made(result)


@dataclass
class _Block:
    """Some queries with their candidates, and what is known of them so far; numbers are those of the tasks."""

    items: Sequence[Compare]
    queries: dict[int, LocalFeatures | str] = field(default_factory=dict)
    references: dict[int, LocalFeatures | str] = field(default_factory=dict)
    keys: dict[int, PhotoKey] = field(default_factory=dict)
    fits: Fits | None = None
    found: dict[int, Compared] = field(default_factory=dict)  # by query, what needs no process

    def wanted(self, stores: Sequence[FeatureStore]) -> Iterator[tuple[FeatureStore, list[PhotoKey]]]:
        """Yield each store with its part of the references to read; each is read once for all queries of the block."""
        for one in chain.from_iterable(item.references for item in self.items):
            if one.features is not None:
                self.references[one.number] = one.features
            elif stores and one.number not in self.keys and (key := photo_key(one.file)) is not None:
                self.keys[one.number] = key
        keys = list(self.keys.values())
        yield from ((one, keys[start :: len(stores)]) for start, one in enumerate(stores))

    def describe(self) -> Iterator[Describe]:
        photos = [(item.query, item.file) for item in self.items]
        yield from (Describe(photos[start : start + PHOTOS], queries=True) for start in range(0, len(photos), PHOTOS))

    def put_queries(self, made: Described) -> None:
        self.queries |= {number: features for number, _, features in made.photos}

    def put_references(self, stored: dict[PhotoKey, LocalFeatures]) -> None:
        self.references |= {number: stored[key] for number, key in self.keys.items() if key in stored}

    def missing(self) -> list[Describe]:
        files = {one.number: one.file for item in self.items for one in item.references}
        photos = [(number, file) for number, file in files.items() if number not in self.references]
        return [Describe(photos[start : start + PHOTOS]) for start in range(0, len(photos), PHOTOS)]

    def put_made(self, made: Described) -> None:
        self.references |= {number: features for number, _, features in made.photos}

    def pairs(self) -> Iterator[tuple[Compare, int, LocalFeatures, LocalFeatures]]:
        """Yield the pairs with features on both sides: task, number of the reference, features of both pictures."""
        for item in self.items:
            query = self.queries[item.query]
            for one in () if isinstance(query, str) else item.references:
                reference = self.references[one.number]
                if not isinstance(reference, str) and not isinstance(query, str):
                    yield item, one.number, query, reference

    def finish(self) -> Iterator[Finish]:
        """Yield a task for each query with a map; note what is known of all others."""
        assert self.fits is not None
        found: dict[int, dict[int, tuple[Floats, Alignment | None]]] = {item.query: {} for item in self.items}
        left: dict[int, list[tuple[int, LocalFeatures, Fit | None]]] = {item.query: [] for item in self.items}
        for row, (item, number, query, reference) in enumerate(self.pairs()):
            if self.fits.unsolved[row]:
                left[item.query].append((number, reference, None))
            elif self.fits.fitted[row]:
                fit = _fit_of(self.fits, row, query, reference)
                left[item.query].append((number, _without_descriptors(reference), fit))
            else:
                found[item.query][number] = evidence_of(query, reference, None)
        self.found = {item.query: self._known(item, found[item.query]) for item in self.items}
        for number, references in left.items():
            features = self.queries[number]
            if references and not isinstance(features, str):
                whole = any(fit is None for _, _, fit in references)
                yield Finish(number, features if whole else _without_descriptors(features), references)

    def _known(self, item: Compare, found: Mapping[int, tuple[Floats, Alignment | None]]) -> Compared:
        """Return the result of a query without the pairs that a process finishes."""
        query = self.queries[item.query]
        if isinstance(query, str):
            return Compared(item.query, query)
        problems = {one.number: why for one in item.references if isinstance(why := self.references[one.number], str)}
        return Compared(item.query, None, found, problems, drawing=may_be_a_drawing(query))

    def whole(self, result: Compared) -> Compared:
        """Return a query's result of `finish` with what needed no process."""
        known = self.found.pop(result.query)
        return replace(known, found={**known.found, **result.found}, pair_problems=result.pair_problems)

    def rest(self) -> Iterator[Compared]:
        """Yield the results of the queries that needed no process."""
        yield from self.found.values()
        self.found = {}


def _without_descriptors(features: LocalFeatures) -> LocalFeatures:
    """Return the features without their descriptors, which `evidence_of` does not need."""
    return replace(features, descriptors=features.descriptors[:, :0])


def _fit(block: _Block, device: str) -> None:
    """Have the device search for the maps of all pairs of a block."""
    import torch

    on = torch.device(device)
    pairs = list(block.pairs())
    numbers: dict[str, dict[int, int]] = {"query": {}, "reference": {}}
    pictures: dict[str, list[LocalFeatures]] = {"query": [], "reference": []}

    def row(side: str, number: int, features: LocalFeatures) -> int:
        if number not in numbers[side]:
            numbers[side][number] = len(pictures[side])
            pictures[side].append(features)
        return numbers[side][number]

    query = np.array([row("query", item.query, features) for item, _, features, _ in pairs], np.int64)
    reference = np.array([row("reference", number, features) for _, number, _, features in pairs], np.int64)
    queries, references = (FeatureRows.of(pictures[side], on) for side in ("query", "reference"))
    step = CPU_PAIRS if on.type == "cpu" else max(1, min(MOST, int(SHARE * torch.cuda.mem_get_info(on)[0]) // PAIR))
    parts = [slice(start, start + step) for start in range(0, len(pairs), step)] or [slice(0, 0)]
    block.fits = Fits.joined([best_fits(queries, references, query[part], reference[part]) for part in parts])


def _fit_of(fits: Fits, row: int, query: LocalFeatures, reference: LocalFeatures) -> Fit:
    number, flip = int(fits.number[row]), bool(fits.flip[row])
    rows = fits.query[row, :number], fits.reference[row, :number]
    pairs = paired(query, reference, rows, flip=flip)
    return Fit(pairs, fits.affine[row], fits.inside[row, :number], int(fits.inliers[row]), float(fits.log_nfa[row]))
