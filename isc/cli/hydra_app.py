"""A verb run by Hydra: arguments → configuration → dataclass → verb. Only this module imports hydra.

Bad input ends with one line on stderr and status 2; Ctrl-C ends with status 130. No output is left half written,
because every verb writes to a temporary name and renames.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from isc.cli.console import LineHandler, PlainFormatter, fail, failing_by_system
from isc.cli.experiments import refuse_other_verbs
from isc.cli.keys import CONF, items_of, keys, keys_of, type_of
from isc.config.extract import ExtractConfig
from isc.config.match import MatchConfig
from isc.config.products import ProductsConfig
from isc.config.train import GONE, TrainConfig
from isc.config.words import WordsConfig
from isc.data.option_texts import nearest_name
from isc.errors import InputError

RENAMED_KEYS = {"looks": "query_views"}  # of the release before this one
WITH_EXPERIMENTS: dict[str, type[Any]] = {"train": TrainConfig, "extract": ExtractConfig, "match": MatchConfig}


def run(name: str, schema: type[Any], verb: Callable[[Any], None], *, config: str) -> None:
    """Run a verb on the configuration `config` that Hydra makes of the arguments of the process."""
    ConfigStore.instance().store(name=f"{config}_defaults", node=schema)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises errors instead of printing them
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # waiting threads that spin would take CPU time from the loader's processes
    start_logging()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without μ must not make a finished run fail
    _refuse_shared_output(sys.argv[1:])
    _run(lambda: _refuse_other_experiments(name, schema, sys.argv[1:]), schema)
    sys.argv[1:] = [_quoted(argument, schema) for argument in sys.argv[1:]]

    if (raw := plain(sys.argv[1:], schema, config)) is not None:
        _run(lambda: verb(to_config(raw)), schema)
        return
    begun = False

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=config)
    def job(raw: DictConfig) -> None:
        nonlocal begun
        begun = True
        # Hydra reports an Exception itself, but lets SystemExit pass
        _run(lambda: verb(to_config(raw)), schema)

    try:
        _run(job, schema)
    except Exception as error:  # Hydra has many kinds for arguments that it does not take
        if begun:
            raise
        fail(f"{' '.join(sys.argv[1:])}: {error}")


def plain(arguments: Sequence[str], schema: type[Any], config: str) -> DictConfig | None:
    """Return the configuration that Hydra composes of arguments that are all KEY=VALUE, in a sixth of its time.

    Flags, experiments, interpolations and sweeps are left to Hydra, and so is what cannot be read, which it explains:
    then the answer is None.
    """
    known = set(keys(schema))
    if not all("=" in one and one.partition("=")[0] in known and "${" not in one for one in arguments):
        return None
    try:
        overrides = OverridesParser.create().parse_overrides(list(arguments))
        if any(one.is_sweep_override() for one in overrides):
            return None
        own = cast(DictConfig, OmegaConf.load(CONF / f"{config}.yaml"))
        own.pop("defaults")
        raw = cast(DictConfig, OmegaConf.merge(OmegaConf.structured(schema), own))
        OmegaConf.set_struct(raw, True)
        ConfigLoaderImpl._apply_overrides_to_config(overrides, raw)
    except Exception:
        return None
    return raw


def start_logging() -> None:
    """Log messages to stdout and warnings to stderr; of other libraries log only warnings."""
    what_happens, warnings = LineHandler(sys.stdout), LineHandler(sys.stderr)
    what_happens.addFilter(lambda record: record.levelno < logging.WARNING)
    warnings.setLevel(logging.WARNING)
    for handler in (what_happens, warnings):
        handler.setFormatter(PlainFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[what_happens, warnings])
    logging.getLogger("isc").setLevel(logging.INFO)


def to_config(raw: DictConfig) -> Any:
    """Convert a composed Hydra configuration to its checked dataclass.

    Raises InputError for an unknown key or a missing value.
    """
    unknown = sorted(_flat_keys(raw) - set(keys(cast(type[Any], OmegaConf.get_type(raw)))))
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r}; expected one of those that --help lists")
    try:
        return OmegaConf.to_object(raw)
    except MissingMandatoryValue as error:
        name = error.full_key or ""
        raise InputError(f"{name}= is missing; expected {name}={name.upper()} (see --help)") from error


def _flat_keys(raw: DictConfig, prefix: str = "") -> set[str]:
    """Return the dotted keys of a configuration, without reading its values."""
    found: set[str] = set()
    for name in map(str, raw):
        nested = None if OmegaConf.is_missing(raw, name) else raw._get_node(name)
        found |= _flat_keys(nested, f"{prefix}{name}.") if isinstance(nested, DictConfig) else {f"{prefix}{name}"}
    return found


def _run(action: Callable[[], None], schema: type[Any]) -> None:
    """Run the action; turn user errors into one line on stderr and an exit status."""
    try:
        with failing_by_system():
            _explained(action, schema)
    except InputError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("interrupted; nothing was left half written", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stdout = None  # otherwise Python reports the broken pipe again at exit
        sys.exit(1)


def _explained(action: Callable[[], None], schema: type[Any]) -> None:
    """Run the action; explain an error of Hydra, some of which are errors of the system too."""
    try:
        action()
    except (HydraException, OmegaConfBaseException) as error:
        fail(explain(error, schema))


def explain(error: Exception, schema: type[Any]) -> str:
    """Return a one-line message for an error of Hydra or OmegaConf; for an unknown key, suggest the nearest one."""
    messages = [str(part) for part in (error, error.__cause__, error.__cause__ and error.__cause__.__cause__) if part]
    text = "\n".join(messages)
    inner = re.search(r"(InputError: |^)([\w.]+=.*: expected .*)", text)
    if inner:
        return inner.group(2)
    if unknown := re.search(r"Key '([^']+)' (?:is )?not in '?(\w+)'?(?:\n\s*full_key: (\S+))?", text):
        return _unknown(unknown.group(3) or unknown.group(1), unknown.group(2), schema)
    if wrong := re.search(r"override (\S+?)=(.*)\n.*(?:not a ListConfig|not a subclass of|with ListConfig)", text):
        return f"{wrong.group(1)}={wrong.group(2)}: expected a list such as [{{share: 1}}, {{share: 2}}]"
    if wrong := re.search(r"In '(\S+)': .*\n.*not a ListConfig.*\n\s*full_key: (\S+)", text):
        return f"{wrong.group(1)}.yaml: {wrong.group(2)} is a single value; expected a list, such as [a, b]"
    if absent := re.search(r"Could not find '(\w+)/([^']*)'", text):
        return _absent(*absent.groups())
    return re.sub(r"\s*(full_key|object_type|reference_type)[:=].*", "", text.replace("\n", " "))


def _absent(group: str, name: str) -> str:
    """Return a one-line message for a file of a group of the configuration that is not there."""
    if group == "hydra" and (launcher := name.removeprefix("launcher/")) != name:
        package = f"hydra-{launcher.partition('_')[0]}-launcher"
        return f"hydra/launcher={launcher}: no such launcher is installed; pip install {package}"
    known = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    return f"{group}={name}: no such {group}; expected one of {', '.join(known)}, or a file of --config-dir"


def _unknown(key: str, holder: str, schema: type[Any]) -> str:
    """Return a one-line message for an unknown key of the dataclass `holder`, the configuration or a list item."""
    if key in RENAMED_KEYS:
        return f"{key}= is now {RENAMED_KEYS[key]}="
    if key in GONE:
        return f"{key}= is gone: it is always {GONE[key]}; leave it out".replace("False", "false")
    items = _keys_of_items(schema).get(holder)
    if items:
        key = f"{items[0].rpartition('.')[0]}.{key}"
    known = items or keys(schema)
    expected = f"one of {', '.join(items)}" if items else "one of those that --help lists"
    return f"unknown key {key!r}; expected {expected}{nearest_name(key, known)}"


def _keys_of_items(schema: type[Any]) -> dict[str, list[str]]:
    """Return {dataclass name: its dotted keys} for each list of dataclasses."""
    lists = {key.name: item for key in keys_of(schema) if (item := items_of(key.type)) is not None}
    return {item.__name__: keys(item, f"{name}.") for name, item in lists.items()}


def _quoted(argument: str, schema: type[Any]) -> str:
    """Quote the text value of an argument, so that Hydra accepts any path: `1e3`, `a,b (1)`, `x=y`, `it's`.

    For a list of texts, each item is quoted; a single text becomes a list. Values that are quoted, empty, null or hold
    an interpolation stay unchanged.
    """
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in keys(schema) or value in ("", "null", "???") or "${" in value:
        return argument
    kind = type_of(schema, key.lstrip("+"))
    if kind in (str, str | None):
        return f"{key}={_in_quotes(value)}"
    if kind != list[str]:
        return argument
    several = value.startswith("[") and value.endswith("]") and not Path(value).exists()
    if several and re.search("['\"]", value):
        return argument
    items = re.findall(r"(?:\{[^{}]*\}|[^,])+", value[1:-1]) if several else [value]  # commas in {a,b} stay
    return f"{key}=[{','.join(_in_quotes(item.strip()) for item in items)}]"


def _in_quotes(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return f"'{escaped}'"


def _refuse_other_experiments(verb: str, schema: type[Any], arguments: Sequence[str]) -> None:
    """Raise InputError for an experiment of another verb; Hydra would report a key that the user did not type."""
    if verb in WITH_EXPERIMENTS:
        takes = {name: keys(one) for name, one in WITH_EXPERIMENTS.items()}
        takes["train"] += keys(WordsConfig) + keys(ProductsConfig)
        takes[verb] = keys(schema)
        refuse_other_verbs(verb, arguments, takes, CONF / "experiment")


def _refuse_shared_output(arguments: Sequence[str]) -> None:
    """Fail if the jobs of one --multirun call would overwrite each other's output."""
    if {"-m", "--multirun"} & set(arguments) and not any(a.startswith("output=") and "${" in a for a in arguments):
        fail("--multirun: every job needs an output of its own; expected output='DIR/${hydra:job.num}'")
