"""The command isc serve: the review service."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isc.cli.console import Group
from isc.errors import InputError

if TYPE_CHECKING:
    from isc.serve.settings import Settings

PATH = click.Path(path_type=Path)
EXISTING = click.Path(exists=True, path_type=Path)
DATA = Path("isc-serve")


class ServeGroup(Group):
    """A group that may be called without a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return click.Group.parse_args(self, ctx, args)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which service is meant."""
    for option in (
        click.option("--config", type=EXISTING, metavar="FILE.toml", help="Settings; see docs/serve.md."),
        click.option(
            "--database", metavar="URL", help="Database: postgresql://… or mysql://….  [default: SQLite in --data]"
        ),
        click.option("--data", type=PATH, default=DATA, show_default=True, metavar="DIR", help="Pictures and index."),
    ):
        command = option(command)
    return command


def _settings(config: Path | None, database: str | None, data: Path, **given: Any) -> Settings:
    for package in ("alembic", "fastapi", "sqlalchemy", "uvicorn"):  # looked for, not imported: that takes seconds
        try:
            distribution(package)
        except PackageNotFoundError as error:
            raise InputError(f"isc serve needs {package}; pip install 'isc[serve]'") from error
    from isc.serve.settings import read_settings, refuse_password

    if database is not None:
        refuse_password("--database", database)
    return read_settings(config, data=data, database=database, **given)


@click.group(cls=ServeGroup, invoke_without_command=True, short_help="review matches: pictures in, people decide")
@_options
@click.option("--host", metavar="ADDRESS", help="Where to listen.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="Port of the address.  [default: 8008]")
@click.option("--workers", type=click.IntRange(0, 64), metavar="N", help="Processes that compare.  [default: 1]")
@click.pass_context
def serve(
    ctx: click.Context,
    config: Path | None,
    database: str | None,
    data: Path,
    *,
    host: str | None,
    port: int | None,
    workers: int | None,
) -> None:
    """Take pictures in, find their copies, and let people decide: API and page in one process tree.

    \b
    isc serve                                   then open http://127.0.0.1:8008/
    isc serve import my-photos                  the collection that new pictures are compared with
    isc serve --database postgresql://me@db/isc --workers 2
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = (config, database, data)
        return
    settings = _settings(config, database, data, host=host, port=port, workers=workers)
    from isc.serve.logs import log_as_json
    from isc.serve.supervisor import run_all
    from isc.serve.tokens import refuse_without_token

    log_as_json("supervisor")
    refuse_without_token(settings)
    options = ["--data", str(settings.data), "--host", settings.host]
    run_all(settings, [*options, *(["--config", str(config.absolute())] if config else [])])


def _part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a process of the tree, which ends with its supervisor, if it has one."""

    @functools.wraps(function)
    def called(**options: Any) -> None:
        from isc.serve.parent import end_with_parent

        end_with_parent()
        function(**options)

    return _options(click.option("--host", hidden=True, help="Where the pages listen.")(called))


def _with_parent(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let options of `isc serve` before the command count for the command."""

    @functools.wraps(function)
    def called(config: Path | None, database: str | None, data: Path, **rest: Any) -> None:
        above = click.get_current_context().obj or (None, None, DATA)
        chosen = data if data != DATA else above[2]
        function(_settings(config or above[0], database or above[1], chosen, host=rest.pop("host", None)), **rest)

    return called


@serve.command(short_help="run one more worker, for all providers or these")
@_part
@click.argument("providers", nargs=-1)
@_with_parent
def worker(settings: Settings, providers: tuple[str, ...]) -> None:
    """Run one more worker, on this machine or another one that sees the same database and pictures."""
    from isc.serve.logs import log_as_json
    from isc.serve.worker import run_worker

    unknown = [one for one in providers if one not in settings.providers]
    if unknown:
        raise InputError(f"provider {unknown[0]!r}; expected some of {', '.join(settings.providers)}")
    log_as_json(f"worker {' '.join(providers) or 'all'}")
    run_worker(settings, providers or None)


@serve.command(short_help="run one more web process")
@_part
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="N", help="Port of the address.  [default: that of the settings]"
)
@click.option("--handle", type=int, hidden=True, help="File number of a listening socket.")
@click.option("--after", type=int, hidden=True, help="File number of a pipe that is closed when the tables are there.")
@_with_parent
def web(settings: Settings, *, port: int | None, handle: int | None, after: int | None) -> None:
    """Run one more web process."""
    from dataclasses import replace

    from isc.serve.api.app import run_web
    from isc.serve.logs import log_as_json
    from isc.serve.tokens import refuse_without_token

    log_as_json("web")
    if after is not None:
        os.read(after, 1)
    refuse_without_token(settings)
    run_web(settings if port is None else replace(settings, port=port), handle=handle)


@serve.command(short_help="deliver messages, do imports")
@_part
@_with_parent
def keeper(settings: Settings) -> None:
    """Deliver messages to the outside, do imports, and tidy up; one process is enough."""
    from isc.serve.keeper import run_keeper
    from isc.serve.logs import log_as_json

    log_as_json("keeper")
    run_keeper(settings)


@serve.command(short_help="make a token, or revoke one")
@_options
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(("upload", "review", "admin")),
    default="admin",
    show_default=True,
    help="What it may do.",
)
@click.option("--trusted", is_flag=True, help="Its votes verify alone where a trusted reviewer is required.")
@click.option("--revoke", is_flag=True, help="Revoke it instead.")
@_with_parent
def token(settings: Settings, name: str, *, role: str, trusted: bool, revoke: bool) -> None:
    """Make an API token, which is printed this once; only its hash is kept."""
    from isc.serve.database import Database
    from isc.serve.kinds import Role
    from isc.serve.tokens import create_token, revoke_token

    store = Database(settings.database)
    store.upgrade()
    if revoke:
        if not revoke_token(store, name):
            raise InputError(f"token {name!r}: there is none that is valid")
        return
    print(create_token(store, name, Role(role), trusted=trusted))


@serve.command("import", short_help="take in a folder of photos, or an index")
@_options
@click.argument("path", type=EXISTING)
@_with_parent
def import_(settings: Settings, path: Path) -> None:
    """Take in the photos of a folder, which stay where they are, or of an index, whose descriptors are taken over."""
    from isc.model.load_inference import load_inference_model
    from isc.serve.importing import import_path
    from isc.serve.providers.context import weights_of
    from isc.serve.supervisor import prepare_import

    database = prepare_import(settings)
    weights = weights_of(load_inference_model(settings.model))
    count = import_path(database, path.absolute(), weights=weights)
    print(f"{count:,} new photos; the workers describe them")


@serve.command(short_help="write everything into one file")
@_options
@click.argument("file", type=PATH)
@_with_parent
def backup(settings: Settings, file: Path) -> None:
    """Write all tables and uploaded pictures into FILE.tar, while the service runs."""
    from isc.serve.backup import write_backup
    from isc.serve.database import Database

    print(write_backup(Database(settings.database), settings, file))


@serve.command(short_help="read a backup into an empty service")
@_options
@click.argument("file", type=EXISTING)
@_with_parent
def restore(settings: Settings, file: Path) -> None:
    """Read FILE.tar into an empty database of any kind, and an empty data folder."""
    from isc.serve.backup import read_backup
    from isc.serve.database import Database

    print(read_backup(Database(settings.database), settings, file))
