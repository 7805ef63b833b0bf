"""The one exception for bad input, and its use for packages that are not installed."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """An error in the user's input.

    The message is one line: it names the file, row and id if they exist, says what was expected, and gives the remedy.
    The command line prints it on stderr and exits with status 2.
    """


@contextmanager
def needing(what: str, *, extra: str) -> Iterator[None]:
    """Import packages of an extra, for `what`: a command, a key with its value, or a file.

    Raises InputError, which names the package and the extra, if one is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{what} needs {error.name}; pip install 'isc[{extra}]'") from error
