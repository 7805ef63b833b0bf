"""Image copy detection: photos → 256-d descriptors → Euclidean matching → micro-average precision.

Importing the package is cheap: neither torch nor faiss is loaded before a function needs it.
"""

__version__ = "0.1.0"
