"""Data types shared by the commands, and their files: HDF5, CSV, JSON.

Values are checked when they are built. Readers raise InputError with the file, row and id for malformed content.
Writers write a temporary file and rename it, so that a file is either complete or absent. Only this package imports
h5py.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
