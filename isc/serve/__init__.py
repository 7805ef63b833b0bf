"""The review service: pictures arrive, providers describe them, people decide, and decisions reach the models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
