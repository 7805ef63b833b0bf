"""An index that lives: a folder of descriptors that takes, replaces and removes images at any time."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
