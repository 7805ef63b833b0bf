"""The commands' common frame: groups of commands, error messages, exit statuses."""

from __future__ import annotations

import difflib
import errno
import io
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from isc import __version__
from isc.errors import InputError

INTERRUPTED = "isc.interrupted"  # key of a context's meta: what to say after Ctrl-C
NOTHING_HALF = "nothing was left half written"
SHOWN = 200  # letters of a path in a message about it


class Group(click.Group):
    """A group whose commands have --version too, and that names the command which a misspelt name may mean."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        return None if command is None else with_version(command)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
            ctx.fail(f"no such command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:  # the shell's completion parses what is there so far
            if ctx.parent is not None:
                ctx.fail(f"no command; expected one of {', '.join(self.list_commands(ctx))}")
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)


def with_version(command: click.Command) -> click.Command:
    """Add --version to a command that has none."""
    if not any(one.name == "version" for one in command.params):
        click.version_option(__version__, "--version", message="isc %(version)s", help="Show the version.")(command)
    return command


class FiniteRange(click.FloatRange):
    """A number in a range; not NaN, which click lets through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def at_most_one(**given: object) -> None:
    """Raise InputError if more than one of these options has a value."""
    named = [_option(name) for name, value in given.items() if value]
    if len(named) > 1:
        raise InputError(f"{' and '.join(named)} exclude each other; give one")


def exactly_one(**given: object) -> None:
    """Raise InputError unless one of these options has a value."""
    at_most_one(**given)
    if not any(given.values()):
        raise InputError(f"one of {' and '.join(map(_option, given))} is required; give one")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def say_after_interrupt(text: str) -> None:
    """Set what is said after Ctrl-C while the current command runs."""
    click.get_current_context().meta[INTERRUPTED] = text


def fail(message: str) -> NoReturn:
    """Print the error as one line on stderr, and exit with status 2."""
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)


def printable(text: str) -> str:
    """Return a text with its control characters written out: a name must not move the cursor or change colours."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in text
    )


class PlainFormatter(logging.Formatter):
    """A formatter of messages without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@contextmanager
def failing_by_system() -> Iterator[None]:
    """Turn errors of the operating system, such as a full disk, and a lack of memory into one line and status 2."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = str(error.filename or "")
        shown = where if len(where) <= SHOWN else f"{where[:SHOWN]}…"
        limit = "; expected at most 255 bytes between two slashes" if error.errno == errno.ENAMETOOLONG else ""
        fail(f"{shown}{': ' if shown else ''}{error.strerror or error}{limit}")
    except MemoryError as error:
        fail(f"out of memory ({error}); expected smaller inputs or more memory")


class LineHandler(logging.StreamHandler):  # type: ignore[type-arg]  # no generic class when it runs
    """A handler that raises BrokenPipeError once nobody reads its lines; logging would print a traceback for each."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            raise  # noqa: PLE0704  called while it is handled
        super().handleError(record)


@contextmanager
def reporting() -> Iterator[None]:
    """Turn the errors of a click command into one line on stderr and an exit status.

    Results go to stdout; progress, warnings and the error to stderr.
    """
    handler = LineHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("isc").setLevel(logging.INFO)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        with failing_by_system():
            yield
            sys.stdout.flush()
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.UsageError as error:
        where = f"; see {error.ctx.command_path} --help" if error.ctx else ""
        fail(error.format_message().rstrip(".") + where)
    except click.ClickException as error:
        fail(error.format_message())
    except InputError as error:
        fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        interrupted(NOTHING_HALF)
    except BrokenPipeError:
        sys.stdout = None  # otherwise Python reports the broken pipe again at exit
        sys.exit(1)


def interrupted(text: str) -> NoReturn:
    """Say that Ctrl-C ended the command, and exit with status 130."""
    print(f"interrupted; {text}", file=sys.stderr)
    sys.exit(130)
