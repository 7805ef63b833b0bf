"""The one exception for bad input."""


class InputError(ValueError):
    """An error in the user's input.

    The message is one line: it names the file, row and id if they exist, says what was expected, and gives the remedy.
    The command line prints it on stderr and exits with status 2.
    """
