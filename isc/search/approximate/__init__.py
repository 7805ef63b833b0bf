"""Approximate search by faiss indexes of `index_factory` strings: train, fill, search, save and open them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
