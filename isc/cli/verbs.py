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
from isc.cli.verb_arguments import of_words, refuse_other_forms
from isc.cli.verb_help import help_text
from isc.config.benchmark import BenchmarkConfig
from isc.config.extract import ExtractConfig
from isc.config.match import MatchConfig
from isc.config.train import TrainConfig
from isc.config.words import WordsConfig
from isc.errors import InputError, needing

SCHEMAS: dict[str, type[Any]] = {
    "words": WordsConfig,
    "train": TrainConfig,
    "extract": ExtractConfig,
    "match": MatchConfig,
    "benchmark": BenchmarkConfig,
}


def train() -> None:
    """Run train: of a copy detector, or with task= of captions."""
    if of_words(sys.argv[1:]):
        _main("train", _train_words, config="words")
        return

    def verb(config: TrainConfig) -> None:
        with needing("train", extra="train"):
            from isc.train.run import train

        train(config)

    _main("train", verb)


def _train_words(config: WordsConfig) -> None:
    with needing("train task=", extra="words"):
        from isc.words.train import train_words

    train_words(config)


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


def _main(name: str, verb: Callable[[Any], None], *, config: str | None = None) -> None:
    """Run a verb; `config` is the name of its configuration, if that is not the verb's."""
    schema, arguments = SCHEMAS[config or name], sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(help_text(config or name, schema))
        return
    if "--version" in arguments:
        print(f"isc {__version__}")
        return
    try:
        refuse_other_forms(name, schema, arguments)
    except InputError as error:
        fail(str(error))
    from isc.cli.hydra_app import run

    run(name, schema, verb, config=config or name)
