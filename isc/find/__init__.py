"""Finding for people: copies of known photos, groups of duplicates, an index of files, two pictures compared."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
