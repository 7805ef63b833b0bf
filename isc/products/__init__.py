"""Products: the item of a shop that a clip shows, by its frames and by what is said, with a probability."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
