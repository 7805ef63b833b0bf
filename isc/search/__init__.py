"""Search by Euclidean distance: exact, approximate or multi-view; normalisation, updatable indexes, and Ray."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
