"""The --help of a verb: its text, its keys with type, default and sentence, and examples."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from isc.cli.keys import CONF, Key, items_of, keys_of
from isc.cli.verb_texts import TEXTS

WIDTH, COLUMN = 118, 36  # of the page, and where the sentences begin


def help_text(verb: str, schema: type[Any]) -> str:
    """Return the --help of a verb."""
    about, examples = (text.replace("PROGRAM", _program(verb)) for text in TEXTS[verb])
    lines = [about]
    if verb != "benchmark":
        names = f"experiment: {', '.join(experiments())}"
        lines += ["experiment=NAME takes the keys of a file, with --config-dir=DIR of DIR/experiment/NAME.yaml:", ""]
        lines += [textwrap.fill(names, WIDTH, initial_indent="  ", subsequent_indent="    "), ""]
    lines += ["All keys, with default, type and meaning (??? must be given; null is none):", ""]
    lines += _keys(schema)
    lines += ["", "Examples:", examples.rstrip(), ""]
    lines += ["--cfg job shows all values as they would be used, --hydra-help what else Hydra takes."]
    return "\n".join(lines) + "\n"


def experiments() -> list[str]:
    """Return the names of the experiments that come with the package."""
    return sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def _program(verb: str) -> str:
    verb = "train" if verb in ("words", "products") else verb
    return f"python {verb}.py" if Path(sys.argv[0]).name == f"{verb}.py" else f"isc {verb}"


def _keys(schema: type[Any]) -> Iterator[str]:
    """Yield the lines of all keys; a group of keys begins with what it is about."""
    group = ""
    for key in keys_of(schema):
        head = key.name.rpartition(".")[0]
        if head != group:
            group = head
            about = inspect.cleandoc(get_type_hints(schema)[head].__doc__ or "").splitlines()
            yield from ("", *(f"  # {line}" for line in about if line))
        yield from _entry(f"  {key.name}={key.default}", key)
        item = items_of(key.type)
        if item is not None:
            for one in keys_of(item):
                yield from _entry(f"    {{{one.name}: {one.default}}}", one)


def _entry(shown: str, key: Key) -> list[str]:
    """Return the lines of a key: its default, then type and sentence, indented."""
    text = textwrap.wrap(f"{key.kind}; {key.sentence}", WIDTH - COLUMN, break_on_hyphens=False)
    if len(shown) > COLUMN - 2:
        return [shown, *(" " * COLUMN + line for line in text)]
    return [f"{shown:{COLUMN}}{text[0]}", *(" " * COLUMN + line for line in text[1:])]
