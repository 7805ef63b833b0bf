"""Run `isc`, killed before its Nth change of a name below a folder, or wait for the disk; with N = -1 never.

Use it as `python isc_command.py N FOLDER command…`. To remove what is not there changes nothing, and is not counted.
"""

import os
import signal
import sys

from isc.cli.main import main
from isc.data import swap

LEFT, FOLDER, FIRST = [int(sys.argv.pop(1))], sys.argv.pop(1), os.getpid()


def counts(name, path):
    if os.getpid() != FIRST:  # a forked process changes nothing of its own
        return False
    if name == "fsync":
        return True
    path = os.path.abspath(path)  # noqa: PTH100 — a link is not followed
    return path.startswith(FOLDER) and (name != "unlink" or os.path.lexists(path))


def counted(name, function):
    def call(path, *args, **kwargs):
        if counts(name, path):
            if LEFT[0] == 0:
                os.kill(FIRST, signal.SIGKILL)
            LEFT[0] -= 1
        return function(path, *args, **kwargs)

    return call


for called in ("rename", "replace", "link", "unlink", "fsync"):
    setattr(os, called, counted(called, getattr(os, called)))
swap._exchange = counted("exchange", swap._exchange)
main(sys.argv[1:])
