"""Photos: listing, decoding, resizing, and the views and regions of a photo. Only this package opens images."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
