"""Augmentation: the copy attacks of the training. They share no code with the edits of `isc.benchmark`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
