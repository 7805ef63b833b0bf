"""The network: its layers and weights, published checkpoints, ONNX files, and where it runs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
