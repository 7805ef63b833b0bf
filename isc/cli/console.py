"""The argparse commands' common frame: reading of arguments, error messages and exit statuses."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from isc.errors import InputError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises InputError, with a one-line message, for bad arguments."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def fail(message: str) -> NoReturn:
    """Print the error as one line on stderr, and exit with status 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def run_command(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    *,
    action: Callable[[argparse.Namespace], None],
    interrupted: str,
) -> None:
    """Parse the arguments (`argv` None: those of the process) and run the action on them.

    Results go to stdout; progress, warnings and the one-line error to stderr, and after Ctrl-C the text `interrupted`.
    """
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("isc").setLevel(logging.INFO)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        action(parser.parse_args(argv))
        sys.stdout.flush()
    except InputError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stdout = None  # otherwise Python reports the broken pipe again at exit
        sys.exit(1)


@contextmanager
def reporting(interrupted: str = "nothing was left half written") -> Iterator[None]:
    """Turn the errors of a click command into one line on stderr and an exit status.

    Results go to stdout; progress, warnings and the error to stderr, and after Ctrl-C the text `interrupted`.
    """
    import click

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("isc").setLevel(logging.INFO)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
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
        print(f"interrupted; {interrupted}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stdout = None  # otherwise Python reports the broken pipe again at exit
        sys.exit(1)
