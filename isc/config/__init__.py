"""Every key of the commands: dataclasses with defaults, units and checks, one file a verb.

A value that cannot be is refused here, by name, before the first photo is read; the YAML files of `isc.conf` hold only
what differs from these defaults.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
