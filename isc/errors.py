"""The one exception for bad input."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the file, row and id where they exist, says what was expected, and names the
    remedy. The command line prints it on stderr and exits with status 2.
    """
