"""Search by Euclidean distance: exact, approximate, over many views, normalised, in an index that lives, over Ray."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
