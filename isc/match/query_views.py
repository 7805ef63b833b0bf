"""Further views of the queries, such as regions and turns, to find candidates with; by the model of their descriptors.

extract.py makes them in a separate process and writes them to a file, so that torch is not loaded here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from isc.data.csv_files import write_csv
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import SAME_IN_BOTH, read_descriptors, read_provenance
from isc.errors import InputError
from isc.photos.views import parse_views
from isc.runtime.children import python

PROGRESS = " extracting "  # part of each progress line of extract.py
EXTRACT = "from isc.cli.verbs import extract; sys.argv[0] = 'isc extract'; extract()"


def with_query_views(
    queries: Descriptors, images: Mapping[str, Path], *, views: str, provenance: Mapping[str, str]
) -> Descriptors:
    """Return the descriptors of `queries`, one row each, with further rows for the `views` of those with an image.

    Raises InputError if the model is not available or did not make these descriptors, or if no image can be read.
    """
    weights = provenance.get("weights")
    if weights is None or "weights_sha256" not in provenance:
        raise InputError("the queries' file does not say which model made it; expected one that extract.py wrote")
    ids = [name for name in queries.ids if name in images]
    if not ids:
        raise InputError("no query has an image")
    with tempfile.TemporaryDirectory(prefix="isc-views-") as folder:
        listing, made = Path(folder) / "queries.csv", Path(folder) / "queries.h5"
        write_csv(listing, ("id", "file"), ((name, images[name].absolute()) for name in ids))
        size = [f"image_size={provenance['image_size']}"] if "image_size" in provenance else []
        run_extract(f"images={listing}", f"output={made}", f"model={weights}", f"views={views}", "combine=rows", *size)
        _refuse_other_model(weights, read_provenance(made), provenance)
        rows = read_descriptors(made)
    if rows.views is None or rows.dim != queries.dim:
        raise InputError(f"{weights} gives {rows.dim} dimensions, the queries have {queries.dim}")
    more = rows.take(np.flatnonzero(rows.views != "whole"))
    return Descriptors(
        np.r_[queries.ids, more.ids],
        np.concatenate([queries.vectors, more.vectors]),
        np.r_[np.full(len(queries.ids), "whole", object), more.views],
    )


def without_views(rows: Descriptors, views: str) -> tuple[Descriptors, Descriptors | None]:
    """Part the rows into those of other views, and those of these `views`, the same for all pictures; None: no rows."""
    names = [view.name for view in parse_views(views)[1:]]
    apart = np.isin(rows.views if rows.views is not None else np.full(len(rows), "whole", object), names)
    return rows.take(np.flatnonzero(~apart)), rows.take(np.flatnonzero(apart)) if apart.any() else None


def _refuse_other_model(weights: str, here: Mapping[str, str], queries: Mapping[str, str]) -> None:
    for key in SAME_IN_BOTH:
        has, had = str(here.get(key))[:12], str(queries.get(key, here.get(key)))[:12]
        if has != had:
            raise InputError(f"{weights} has {key} {has}, the queries were made with {had}")


def run_extract(*arguments: str) -> None:
    """Run extract.py and show its progress. Raises InputError with its last message if it fails."""
    code = f"from isc.runtime.parent import end_with; end_with({os.getpid()}); {EXTRACT}"
    said = "nothing"
    with subprocess.Popen(
        python(code, *arguments), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stderr is not None
        try:
            for line in child.stderr:
                said = line.strip() or said
                if PROGRESS in line:
                    print(line, end="", file=sys.stderr, flush=True)
        except BaseException:
            child.terminate()  # Ctrl-C may have reached this process only
            raise
    if child.returncode != 0:
        raise InputError(said.removeprefix("error: "))
