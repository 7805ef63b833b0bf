"""Normalisation of descriptors between extraction and search, fitted on training descriptors only."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
