"""The network: its layers and weights, published checkpoints, ONNX files, and its devices."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
