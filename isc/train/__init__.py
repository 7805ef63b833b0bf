"""Training of a descriptor model on photos: the trainer, its losses and its augmentations."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
