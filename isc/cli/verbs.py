"""The verbs train, extract, match and benchmark, whose keys Hydra reads.

What needs no Hydra is answered before it is loaded: --help, --version, and arguments of another form.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from isc import __version__
from isc.cli.console import fail
from isc.cli.keys import keys
from isc.cli.verb_arguments import refuse_other_forms
from isc.cli.verb_help import help_text
from isc.config.benchmark import BenchmarkConfig
from isc.config.extract import ExtractConfig
from isc.config.match import MatchConfig
from isc.config.train import TrainConfig
from isc.errors import InputError, needing

SCHEMAS: dict[str, type[Any]] = {
    "train": TrainConfig,
    "extract": ExtractConfig,
    "match": MatchConfig,
    "benchmark": BenchmarkConfig,
}


def train() -> None:
    def verb(config: TrainConfig) -> None:
        with needing("train", extra="train"):
            from isc.train.run import train

        train(config)

    _main("train", verb)


def extract() -> None:
    def verb(config: ExtractConfig) -> None:
        from isc.extract.run import extract

        extract(config)

    _main("extract", verb)


def match() -> None:
    def verb(config: MatchConfig) -> None:
        from isc.match.run import match

        match(config)

    _main("match", verb)


def benchmark() -> None:
    def verb(config: BenchmarkConfig) -> None:
        from isc.benchmark.make import benchmark

        benchmark(config)

    _main("benchmark", verb)


def complete(name: str, beginning: str) -> list[str]:
    """Return the keys of a verb that begin so, for the shell's completion."""
    return [f"{key}=" for key in keys(SCHEMAS[name]) if key.startswith(beginning)]


def _main(name: str, verb: Callable[[Any], None]) -> None:
    schema, arguments = SCHEMAS[name], sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(help_text(name, schema))
        return
    if "--version" in arguments:
        print(f"isc {__version__}")
        return
    try:
        refuse_other_forms(name, schema, arguments)
    except InputError as error:
        fail(str(error))
    from isc.cli.hydra_app import run

    run(name, schema, verb)
