"""Libraries that the server of `tests.forked` loads before it forks; none of them may start a thread."""

import isc.cli.hydra_app
import isc.cli.verbs
import isc.extract.run
import isc.match.run
import isc.train.run  # noqa: F401
