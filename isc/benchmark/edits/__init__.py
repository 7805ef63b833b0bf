"""The edits that turn photos into the copies of a benchmark. They share no code with the attacks of the training."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
