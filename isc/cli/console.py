"""What the commands share that take arguments of their own: how these are read, and how a command ends."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from isc.errors import InputError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose refusals are InputErrors, of one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def fail(message: str) -> NoReturn:
    """One line on stderr, and status 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def run_command(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    *,
    action: Callable[[argparse.Namespace], None],
    interrupted: str,
) -> None:
    """Read the arguments (those of the process where `argv` is None) and act on them. Results go to stdout; progress,
    warnings and the one line of a refusal to stderr, or what to know after Ctrl-C."""
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
        sys.stdout = None  # Python would complain about it once more on its way out
        sys.exit(1)
