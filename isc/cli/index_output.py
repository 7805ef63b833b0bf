"""Messages of isc index about an index: its statistics, its model, its changes."""

from __future__ import annotations

from isc.search.index.index import Stats
from isc.search.index.manifest import Manifest
from isc.search.index.writer import Added


def added_text(added: Added) -> str:
    return f"{added.new:,} added, {added.replaced:,} replaced, {added.skipped:,} left as they were"


def as_text(stats: Stats) -> str:
    weights = stats.provenance.get("weights_sha256", "not said")[:12]
    lines = {
        "images": f"{stats.images:,}",
        "numbers each": f"{stats.dim}",
        "model": f"{stats.model or stats.provenance.get('model', 'not said')} (weights {weights})",
        "on the disk": f"{stats.bytes:,} bytes",
        "rows": f"{stats.rows:,}, {stats.dead_rows:,} of them dead",
        "generation": f"{stats.generation}",
        "created": stats.created,
        "changed": stats.changed,
    }
    return "\n".join(f"{name:14}{value}" for name, value in lines.items())


def model_text(manifest: Manifest) -> str:
    model = manifest.model or manifest.provenance.get("model", "a model that is not named")
    return f"descriptors of {manifest.dim} numbers by {model}"
