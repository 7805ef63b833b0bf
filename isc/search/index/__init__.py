"""An updatable index: a folder of descriptors whose images can be added, replaced and removed at any time."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
