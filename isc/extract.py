"""Photos → descriptors."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from isc.config import ExtractConfig, Precision
from isc.data import Photos, photo_loader
from isc.descriptors import Descriptors
from isc.device import arithmetic, choose_device, keep_freed_memory, place
from isc.errors import InputError
from isc.images import list_hash, list_images
from isc.io import read_provenance, write_csv, write_descriptors
from isc.model import CopyModel, describe, load_model
from isc.progress import progress

log = logging.getLogger(__name__)


def extract(config: ExtractConfig) -> Path:
    """Write the descriptors of all photos below `config.images` to `config.output`; the path written.

    A file that was made by the same model from the same folder is left as it is; one made differently is refused
    unless config.overwrite.
    """
    output = Path(config.output)
    images = list_images(Path(config.images))
    model = load_model(config.model)
    size = config.image_size or model.config.image_size
    device = choose_device(config.device.value)
    precision = arithmetic(config.precision, device)
    provenance = describe(model) | {
        "image_size": str(size),
        "precision": precision.value,
        "images": str(len(images)),
        "image_list_sha256": list_hash(images),
    }
    if output.exists() and not config.overwrite:
        _refuse_other(output, provenance, strict=config.strict)
        log.info("%s is there already, made the same way; overwrite=true makes it again", output)
        return output
    keep_freed_memory()
    log.info("extracting %d photos at %d px on %s", len(images), size, device)
    ids, paths = list(images), list(images.values())
    vectors, failures = embed(
        place(model, device),
        paths,
        image_size=size,
        batch_size=config.batch_size,
        workers=config.workers,
        precision=precision,
    )
    if failures and config.strict:
        raise InputError(f"{next(iter(failures.values()))} (strict=true)")
    kept = [row for row in range(len(ids)) if row not in failures]
    if not kept:
        raise InputError(f"images={config.images}: none of {len(ids)} photos can be read; the first: {failures[0]}")
    found = Descriptors(np.array(ids, dtype=object)[kept], vectors[kept])
    write_descriptors(output, found, provenance | {"unreadable": str(len(failures)), "weights": config.model})
    _report_failures(output, ids, paths, failures)
    log.info("wrote %s: %d descriptors of %d dimensions", output, len(kept), vectors.shape[1])
    return output


def embed(
    model: CopyModel,
    paths: list[Path],
    *,
    image_size: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    precision: Precision = Precision.float32,
) -> tuple[np.ndarray, dict[int, str]]:
    """Descriptors float32 [N, D] of unit length for the N files, and {row: reason} of those that cannot be read.

    The rows of unreadable files are zero. The model runs where its weights are.
    """
    device = next(model.parameters()).device
    model = place(model.eval(), device)
    vectors = np.zeros((len(paths), model.config.dim), np.float32)
    failures: dict[int, str] = {}
    done = 0
    photos = Photos(paths, size=image_size or model.config.image_size)
    with torch.inference_mode(), progress("extracting", "photos") as report:
        for batch in photo_loader(photos, batch_size=batch_size, workers=workers):
            failures |= dict(batch.failures)
            if batch.rows:
                pixels = batch.pixels.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
                with torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.bfloat16):
                    vectors[batch.rows] = model(pixels).float().cpu().numpy()
            done += len(batch.rows) + len(batch.failures)
            report(done, len(paths))
    return vectors, failures


def _report_failures(output: Path, ids: list[str], paths: list[Path], failures: dict[int, str]) -> None:
    """List the photos left out beside the output; remove the list of an earlier run when there are none."""
    listing = output.with_name(output.name + ".failures.csv")
    listing.unlink(missing_ok=True)
    if failures:
        write_csv(listing, ("id", "file", "reason"), ((ids[r], paths[r], why) for r, why in sorted(failures.items())))
        log.warning("%d of %d photos cannot be read and were left out; see %s", len(failures), len(ids), listing)


def _refuse_other(output: Path, provenance: dict[str, str], *, strict: bool) -> None:
    """InputError unless the file was made as `provenance` says, and if `strict`, of every photo."""
    before = read_provenance(output)
    if strict and before.get("unreadable") != "0":
        raise InputError(f"output={output}: leaves out {before.get('unreadable')} unreadable photos (strict=true)")
    for name, value in provenance.items():
        if before.get(name) != value:
            raise InputError(
                f"output={output}: was made with {name}={before.get(name)}, now {name}={value}; "
                "give another file or overwrite=true"
            )
