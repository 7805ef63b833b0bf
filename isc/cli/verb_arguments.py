"""Arguments of a verb that have another form than KEY=VALUE: one line shows the right one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from isc.cli.keys import CONF, keys
from isc.data.option_texts import nearest_name
from isc.errors import InputError

# flags of Hydra, and those of them that take a value
VALUED = frozenset(
    (
        *("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--package", "-p", "--cfg", "-c"),
        *("--experimental-rerun", "--info", "-i"),
    )
)
OPTIONAL = frozenset(("--info", "-i"))  # their value may be missing
CFG, INFO = ("job", "hydra", "all"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
CHOICES = {"--cfg": CFG, "-c": CFG, "--info": INFO, "-i": INFO}
FLAGS = VALUED | {"--hydra-help", "--resolve", "--run", "-r", "--multirun", "-m", "--shell-completion", "-sc"}
GROUPS = frozenset(("experiment",))  # keys that choose files of the configuration
OF_HYDRA = frozenset(("hydra",))
LAUNCHER = "hydra/launcher"  # chooses where the jobs of --multirun run
WANTED = {  # the keys that paths without a key are meant for, in their order, and what stands for one that is missing
    "train": {"images": "PHOTOS", "output": "RUN_DIR"},
    "extract": {"images": "PHOTOS", "output": "FILE.h5"},
    "match": {"queries": "Q.h5", "references": "R.h5", "output": "DIR"},
    "benchmark": {"images": "PHOTOS", "output": "DIR"},
}


def refuse_other_forms(verb: str, schema: type[Any], arguments: Sequence[str]) -> None:
    """Raise InputError for an unknown --option, a key with dashes, a key without a value, and a path without a key."""
    known = keys(schema)
    _refuse_odd_overrides(arguments)
    paths: list[str] = []
    value_of = ""
    for at, argument in enumerate(arguments):
        if value_of and not argument.startswith("-"):
            _refuse_other_choice(value_of, argument)
            value_of = ""
        elif argument.startswith("-"):
            _refuse_no_value(value_of)
            flag, equals, value = argument.partition("=")
            if flag not in FLAGS:
                _refuse_dashes(argument, arguments[at + 1 : at + 2], known)
            if equals and flag not in VALUED:
                raise InputError(f"{argument}: takes no value; expected {flag}")
            if equals:
                _refuse_other_choice(flag, value)
            value_of = flag if flag in VALUED and not equals else ""
        elif "=" not in argument and not argument.startswith("~"):
            if argument in known:
                raise InputError(f"{argument}: has no value; expected {argument}=VALUE")
            paths.append(argument)
    _refuse_no_value(value_of)
    if paths:
        given = {argument.partition("=")[0] for argument in arguments}
        free = [(key, place) for key, place in WANTED[verb].items() if key not in given]
        form = [f"{key}={paths[at] if at < len(paths) else place}" for at, (key, place) in enumerate(free)]
        if len(paths) > len(free):
            raise InputError(f"{paths[len(free)]}: every argument is KEY=VALUE; see isc {verb} --help")
        raise InputError(f"{paths[0]}: every argument is KEY=VALUE; write {' '.join(form)}")


def _refuse_no_value(flag: str) -> None:
    """Raise InputError for a flag of Hydra that needs a value and has none."""
    if flag and flag not in OPTIONAL:
        raise InputError(f"{flag}: has no value; expected {flag} {'|'.join(CHOICES.get(flag, ('VALUE',)))}")


def _refuse_other_choice(flag: str, value: str) -> None:
    """Raise InputError for a value that a flag of Hydra does not take."""
    if flag in CHOICES and value not in CHOICES[flag]:
        raise InputError(f"{flag} {value}: expected one of {', '.join(CHOICES[flag])}")


def task_of(arguments: Sequence[str]) -> str | None:
    """Return the task that the arguments of train name, themselves or by an experiment of the package; else None."""
    found = None
    for argument in arguments:
        name, _, value = argument.lstrip("+").partition("=")
        if name == "task":
            return value
        path = CONF / "experiment" / f"{value}.yaml"
        if name == "experiment" and path.is_file():
            named = re.search(r"^task: (\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            found = named.group(1) if named else found
    return found


def _refuse_odd_overrides(arguments: Sequence[str]) -> None:
    """Raise InputError for what Hydra would answer with a traceback, or with the default of a required key."""
    for argument in arguments:
        key, equals, value = argument.lstrip("+").partition("=")
        if argument.startswith("~"):
            raise InputError(f"{argument}: a key cannot be taken away; leave {argument.lstrip('~')} out")
        if equals and key in GROUPS and value in ("", "null", "~"):
            raise InputError(f"{argument}: is no {key}; expected a name")
        if equals and (key in OF_HYDRA or (key.startswith("hydra/") and key != LAUNCHER)):
            raise InputError(f"{argument}: this command needs its own settings of Hydra; leave it out")
    if "--resolve" in arguments and not any(one.partition("=")[0] in ("--cfg", "-c") for one in arguments):
        raise InputError("--resolve: goes with --cfg job alone")


def _refuse_dashes(argument: str, following: Sequence[str], known: Sequence[str]) -> None:
    flag, equals, value = argument.partition("=")
    key = flag.lstrip("-").replace("-", "_")
    if key not in known:
        raise InputError(f"{flag}: no such option; keys have no dashes{nearest_name(key, known)}")
    if not equals and following and "=" not in following[0] and not following[0].startswith("-"):
        value = following[0]
    raise InputError(f"{flag}: keys have no dashes; write {key}={value or '…'}")
