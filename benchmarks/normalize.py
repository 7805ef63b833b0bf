"""Gain from each normalisation over none, with its published options and with those that isc normalize finds.

    python -m benchmarks.normalize FOLDER …

Each FOLDER is named after a model and holds its descriptors by extract.py: training.h5, and in dev and in test
queries.h5, references.h5 and ground_truth.csv (of `benchmarks.judge`). Options are searched on dev and kept in
FOLDER/found.json; test is only reported.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import save
from isc.config.chain import Chain, parse
from isc.data.csv_files import read_ground_truth
from isc.data.hdf5 import MAX_DIM
from isc.match.inputs import read_sides, read_training
from isc.search.normalize.files import read_stored
from isc.search.normalize.tune import Bench, standard_error

PUBLISHED = (
    "none", "pca", "whiten", "subtract:smooth=false", "subtract", "stretch", "ssquare", "score", "pca:dim=255+score",
)  # fmt: skip


def read_bench(folder: Path, part: str) -> Bench:
    sides = folder / part / "queries.h5", folder / part / "references.h5"
    sets = read_sides(*sides)
    training, _ = read_training(folder / "training.h5", sets, sides)
    truth = read_ground_truth(folder / part / "ground_truth.csv")
    return Bench(sets.queries, sets.references, training, truth)


def found_on_dev(folder: Path) -> Chain:
    """Return the chain that isc normalize finds on dev, or found before."""
    if not (folder / "found.json").exists():
        files = {name: folder / "dev" / f"{name}.h5" for name in ("queries", "references")}
        files |= {"training": folder / "training.h5", "ground-truth": folder / "dev" / "ground_truth.csv"}
        options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
        command = [sys.executable, "-m", "isc.cli.main", "normalize", "search", *options]
        subprocess.run([*command, "--output", str(folder / "found.json")], check=True)
    return read_stored(folder / "found.json").chain


def rows_of(folder: Path) -> list[dict[str, object]]:
    chains = {text: parse(text) for text in PUBLISHED}
    found = found_on_dev(folder)
    chains[f"found: {found}"] = found
    dev, test = read_bench(folder, "dev"), read_bench(folder, "test")
    none = test.trial(Chain())
    rows: list[dict[str, object]] = []
    for text, chain in chains.items():
        trial = test.trial(chain)
        error = standard_error(test.matches(chain), test.matches(Chain()), test.truth)
        rows.append(
            {
                "model": folder.name,
                "normalize=": text,
                "numbers": f"{trial.dim}" + (" (matching track)" if trial.dim > MAX_DIM else ""),
                "dev μAP": f"{dev.trial(chain).average_precision:.3f}",
                "test μAP": f"{trial.average_precision:.3f}",
                "over none": f"{trial.average_precision - none.average_precision:+.3f} ± {error:.3f}",
                "test recall at 90 % precision": f"{trial.recall_at_p90:.3f}",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.normalize", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    save("normalize", [row for folder in parser.parse_args().folders for row in rows_of(folder)])


if __name__ == "__main__":
    main()
