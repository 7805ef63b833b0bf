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
from isc.cli.verb_arguments import refuse_other_forms, task_of
from isc.cli.verb_help import help_text
from isc.config.benchmark import BenchmarkConfig
from isc.config.extract import ExtractConfig
from isc.config.match import MatchConfig
from isc.config.products import ProductsConfig
from isc.config.train import TrainConfig
from isc.config.words import WordsConfig
from isc.errors import InputError, needing

SCHEMAS: dict[str, type[Any]] = {
    "words": WordsConfig,
    "products": ProductsConfig,
    "train": TrainConfig,
    "extract": ExtractConfig,
    "match": MatchConfig,
    "benchmark": BenchmarkConfig,
}


def train() -> None:
    """Run train: of a copy detector, or with task= of what TASKS names."""
    task = task_of(sys.argv[1:])
    if task is not None:
        if task not in TASKS:
            fail(f"task={task}: expected one of {', '.join(TASKS)}; without task= a copy detector is trained")
        config, verb_of_task = TASKS[task]
        _main("train", verb_of_task, config=config)
        return

    def verb(config: TrainConfig) -> None:
        with needing("train", extra="train"):
            from isc.train.run import train

        train(config)

    _main("train", verb)


def _train_words(config: WordsConfig) -> None:
    with needing(f"train task={config.task.value}", extra="words"):
        from isc.words.train import train_words

    train_words(config)


def _train_products(config: ProductsConfig) -> None:
    with needing("train task=products", extra="words"):
        from isc.products.train import train_products

    train_products(config)


TASKS: dict[str, tuple[str, Callable[[Any], None]]] = {  # task of train: its configuration and what it runs
    "captioning": ("words", _train_words),
    "captions": ("words", _train_words),
    "products": ("products", _train_products),
}


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
