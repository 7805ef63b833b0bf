"""The values that travel between the verbs, and their files: HDF5, CSV, JSON.

Values check themselves when they are built. Readers refuse anything malformed with the file, row and id. Writers write
beside the target and rename, so that a file is either whole or absent. The only room that opens h5py.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
