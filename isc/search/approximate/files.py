"""Approximate indexes on disk: opened as memory maps, and built on disk if they are larger than memory."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from isc.config.choices import Device
from isc.data.files import atomic_folder
from isc.errors import InputError
from isc.runtime.progress import Report
from isc.search.approximate.arrays import BLOCK, Vectors, checked, parts_of
from isc.search.approximate.card import CARD, INDEX, LISTS, read_card, sha256_of, write_index
from isc.search.approximate.faiss_adapter import (
    faiss_module,
    has_plain_lists,
    inverted_file,
    one_line_errors,
    quiet_faiss,
)
from isc.search.approximate.index import Approximate

ROW_ID = 8  # bytes of a row number, stored beside each code in an inverted list


def load(folder: Path, *, mmap: bool = True, verify: bool = True) -> Approximate:
    """Open a saved index for search; with `mmap` its pages are read on access and shared by processes.

    Inverted lists on disk stay there. With `verify` the hash of each file is checked, which reads it once; without it
    only the sizes are compared. Raises InputError if the folder is no index, or a file is cut short, changed or
    replaced.
    """
    card, files = read_card(folder)
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: no such file; {CARD} names it: build the index again")
        if (found := path.stat().st_size) != size:
            raise InputError(f"{path}: has {found} bytes of {size}: cut short, or another's; build the index again")
        if verify and sha256_of(path) != digest:
            raise InputError(f"{path}: is not as it was written; build the index again")
    faiss = faiss_module()
    if LISTS in files:
        flags = faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY
    else:
        flags = faiss.IO_FLAG_MMAP_IFC if mmap else 0
    with (
        one_line_errors(f"{folder / INDEX}: this faiss cannot read it"),
        quiet_faiss() if LISTS in files else contextlib.nullcontext(),
    ):
        index = faiss.read_index(str(folder / INDEX), flags)
    if (index.ntotal, index.d) != (card.count, card.dim):
        raise InputError(f"{folder / INDEX}: holds {index.ntotal} × {index.d}, {CARD} says {card.count} × {card.dim}")
    return Approximate(index, card, sealed=f"{folder}: is a saved index")


def build_on_disk(
    folder: Path,
    trained: Approximate,
    blocks: Iterable[Vectors],
    *,
    memory_gb: float = 2.0,
    progress: Report | None = None,
) -> Approximate:
    """Build the index of `folder` with inverted lists that need not fit in memory; the folder may be moved as a whole.

    `trained` is empty, and stays empty. `blocks` are the references in order, in blocks of any size; rows that wait in
    memory take at most `memory_gb`. The disk needs twice the room of the result. `progress` is called with (rows added
    so far, the same number). Raises InputError if `trained` is no empty IVF index of plain lists, or the disk is too
    full.
    """
    lists = inverted_file(trained._index)
    if lists is None or not has_plain_lists(trained._index) or len(trained):
        factory = trained.card.factory
        raise InputError(f"index={factory}: expected an empty IVF index, without fs or refinement, for lists on disk")
    if not memory_gb > 0:
        raise InputError(f"memory_gb={memory_gb}: expected a size above 0")
    shard_rows = max(1, int(memory_gb * 1e9 / (2 * (lists.code_size + ROW_ID))))  # lists double as they grow
    faiss = faiss_module()
    with atomic_folder(folder) as beside:
        shards = beside / "shards"
        shards.mkdir()
        filled = Approximate(faiss.clone_index(trained._index), trained.card)
        paths: list[Path] = []
        for part in parts_of(blocks, min(BLOCK, -(-shard_rows // 8))):
            block = checked("references", part, trained.card.dim)
            filled._index.add_with_ids(block, np.arange(len(filled), len(filled) + len(block)))
            filled._count(block)
            if filled._index.ntotal >= shard_rows:
                paths.append(_flush(filled._index, shards))
            if progress:
                progress(len(filled), len(filled))
        if filled._index.ntotal:
            paths.append(_flush(filled._index, shards))
        filled._require(len(filled) > 0, "no references; expected at least one")
        _merge(filled._index, paths, beside / LISTS)
        shutil.rmtree(shards)
        write_index(beside, filled._index, filled.card)
        del filled
    return load(folder, verify=False)


def open_index(
    index: str,
    references: Vectors,
    *,
    training: Vectors | None = None,
    seed: int = 0,
    device: Device = Device.cpu,
    progress: Report | None = None,
) -> Approximate:
    """Return the index of these references that `index` names: a saved folder, or a factory string.

    An index of a factory string is trained on `training`. Raises InputError if the folder has other references, or a
    factory string comes without training descriptors.
    """
    if Path(index).exists():
        saved = load(Path(index))
        saved.check_references(references)
        return saved.to(device)
    if training is None:
        raise InputError(f"index={index}: no such folder; a factory text needs training=T.h5 to be trained on")
    made = Approximate.train(index, training, seed=seed, device=device)
    made.add(references, progress=progress)
    return made.to(device)


def _flush(index: Any, folder: Path) -> Path:
    """Write the rows of the index as a shard, and empty the index."""
    path = folder / f"{len(list(folder.iterdir())):06}.faiss"
    with one_line_errors(f"{folder}: a part of the index cannot be written"):
        faiss_module().write_index(index, str(path))
    index.reset()
    return path


def _merge(index: Any, shards: Iterable[Path], path: Path) -> None:
    """Replace the lists of `index` by those of all shards, merged in one memory-mapped file."""
    faiss = faiss_module()
    parts = [faiss.read_index(str(shard), faiss.IO_FLAG_MMAP) for shard in shards]
    pointers = faiss.InvertedListsPtrVector()
    for part in parts:
        pointers.push_back(faiss.extract_index_ivf(part).invlists)
    lists = faiss.extract_index_ivf(index)
    needed, free = sum(part.ntotal for part in parts) * (lists.code_size + ROW_ID), shutil.disk_usage(path.parent).free
    if needed > free:  # a full disk under a mapped file would kill the process
        raise InputError(f"{path.parent}: {free / 1e9:.3g} GB free; the lists need {needed / 1e9:.3g}")
    with one_line_errors(f"{path.parent}: the lists cannot be written"), quiet_faiss():
        on_disk = faiss.OnDiskInvertedLists(lists.nlist, lists.code_size, str(path))
        count = on_disk.merge_from_multiple(pointers.data(), pointers.size(), False)
    on_disk.filename = path.name  # relative to the index file
    lists.replace_invlists(on_disk, True)
    on_disk.this.disown()
    index.ntotal = lists.ntotal = count
