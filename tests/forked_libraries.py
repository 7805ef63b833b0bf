"""What the server of `tests.forked` loads before it forks; nothing of it may start a thread."""

import isc.cli.verbs
import isc.extract.run
import isc.match.run
import isc.train.run  # noqa: F401
