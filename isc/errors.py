"""The one exception for bad input."""


class InputError(ValueError):
    """Error for input of the user that cannot be used.

    The message is one line: it names the file, row and id if they exist, says what was expected, and gives the remedy.
    The command line prints it on stderr and exits with status 2.
    """
