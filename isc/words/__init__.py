"""Words for pictures: captions written by our own models, and texts matched with the pictures they belong to."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
