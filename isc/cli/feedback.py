"""The command isc feedback: what people decided, for the models."""

from __future__ import annotations

from pathlib import Path

import click

from isc.cli.console import Group
from isc.cli.serve import DATA, EXISTING, PATH, _settings


@click.group(cls=Group, short_help="what people decided, as labelled pairs for the models")
def feedback() -> None:
    """Write what people decided in isc serve, for train, calibrate and fusion."""


@feedback.command(short_help="write the decided pairs into a folder")
@click.option("--data", type=PATH, default=DATA, show_default=True, metavar="DIR", help="That of the service.")
@click.option("--database", metavar="URL", help="That of the service.  [default: SQLite in --data]")
@click.option("--config", type=EXISTING, metavar="FILE.toml", help="The settings of the service.")
@click.argument("output", type=PATH)
def export(config: Path | None, database: str | None, data: Path, *, output: Path) -> None:
    """Write into OUTPUT what the verbs read.

    \b
    pairs.csv         accepted copies among photos/, for    isc train images=OUTPUT/photos pairs=OUTPUT/pairs.csv
    ground_truth.csv  the same pairs, and predictions.csv the scores of all decided ones, for
                      isc calibrate --run OUTPUT --ground-truth OUTPUT/ground_truth.csv
    captions.csv      captions that people wrote, as (image, caption) pairs
    products.csv      accepted items of a shop, with their photos among photos/, for
                      isc train task=products images=OUTPUT/photos pairs=OUTPUT/products.csv catalogue=SHOP
    decisions.jsonl   every decision with its votes, of all kinds
    """
    from isc.serve.database import Database
    from isc.serve.labelled import write_labelled

    settings = _settings(config, database, data)
    print(write_labelled(Database(settings.database), settings, output))
