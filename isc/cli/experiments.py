"""The check that an experiment of `isc/conf/experiment` fits its command: the command must take all its keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from isc.errors import InputError

KEY = "experiment="


def refuse_other_verbs(verb: str, arguments: Sequence[str], takes: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Raise InputError if an argument names an experiment of this folder with a key that `verb` does not take.

    `takes` holds the dotted keys of each verb. Experiments outside the folder are left to Hydra.
    """
    for name in _named(arguments):
        if not (folder / f"{name}.yaml").is_file():
            continue
        given = _keys_of(name, folder)
        wrong = next((key for key in given if key not in takes[verb]), None)
        if wrong is None:
            continue
        right = [other for other, known in takes.items() if set(given) <= set(known)]
        whose = f"it is for {' or '.join(right)}.py" if right else "no command takes all its keys"
        fit = ", ".join(_for(takes[verb], folder)) or "none"
        raise InputError(
            f"{KEY}{name}: sets {wrong}=, which {verb}.py does not take; {whose}; those for {verb}.py: {fit}"
        )


def _named(arguments: Sequence[str]) -> Iterator[str]:
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        if f"{key}=" == KEY:
            yield from (name.strip("'\" ") for name in value.strip("[]").split(","))


def _for(keys: Sequence[str], folder: Path) -> list[str]:
    """Return the experiments of the folder that set only these keys."""
    return [path.stem for path in sorted(folder.glob("*.yaml")) if set(_keys_of(path.stem, folder)) <= set(keys)]


def _keys_of(name: str, folder: Path) -> list[str]:
    """Return the dotted keys that an experiment sets, with the keys of the experiments in its `defaults`."""
    content = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml")))  # ${…} unresolved
    begins_with = [one for one in content.pop("defaults", []) if one != "_self_"]
    return [key for one in begins_with for key in _keys_of(one, folder)] + list(_flat(content))


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in content.items():
        yield from _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
