"""The report on a run: one HTML page that opens from disk, and the comparison of two runs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
