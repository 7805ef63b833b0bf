"""The verbs train, extract, match and benchmark, whose keys Hydra reads.

What needs no Hydra is answered before it is loaded: --help, --version, and arguments of another form.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from isc import __version__
from isc.cli.console import fail
from isc.cli.verb_arguments import refuse_other_forms
from isc.cli.verb_help import help_text
from isc.config.benchmark import BenchmarkConfig
from isc.config.extract import ExtractConfig
from isc.config.match import MatchConfig
from isc.config.train import TrainConfig
from isc.errors import InputError


def train() -> None:
    def verb(config: TrainConfig) -> None:
        from isc.train.run import train

        train(config)

    _main("train", TrainConfig, verb)


def extract() -> None:
    def verb(config: ExtractConfig) -> None:
        from isc.extract.run import extract

        extract(config)

    _main("extract", ExtractConfig, verb)


def match() -> None:
    def verb(config: MatchConfig) -> None:
        from isc.match.run import match

        match(config)

    _main("match", MatchConfig, verb)


def benchmark() -> None:
    def verb(config: BenchmarkConfig) -> None:
        from isc.benchmark.make import benchmark

        benchmark(config)

    _main("benchmark", BenchmarkConfig, verb)


def _main(name: str, schema: type[Any], verb: Callable[[Any], None]) -> None:
    arguments = sys.argv[1:]
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
