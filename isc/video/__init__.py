"""Videos: their frames as pictures with a time, the segments in which a photo is seen, and their judgement."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
