"""The configuration of the commands: dataclasses with defaults, units and checks, one file per command.

An invalid value raises InputError with its key before the first photo is read. The YAML files of `isc.conf` hold only
the differences from these defaults.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
