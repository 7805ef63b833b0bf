"""Approximate search by faiss's own `index_factory` texts: an index trained, filled, searched, saved and opened."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
