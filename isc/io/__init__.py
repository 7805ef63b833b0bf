"""Reading and writing the challenge's files.

Readers refuse anything malformed with the file, row and id. Writers write beside the target and rename, so that a file
is either whole or absent.
"""

from isc.io.files import atomic_folder, atomic_path, write_json, write_text
from isc.io.hdf5 import (
    MAX_DIM,
    SAME_IN_BOTH,
    check_same_dim,
    check_submission,
    descriptor_blocks,
    one_row_each,
    read_descriptors,
    read_provenance,
    read_submission,
    write_descriptor_blocks,
    write_descriptors,
    write_submission,
)
from isc.io.tables import (
    read_ground_truth,
    read_predictions,
    write_csv,
    write_ground_truth,
    write_predictions,
)

__all__ = [
    "MAX_DIM",
    "SAME_IN_BOTH",
    "atomic_folder",
    "atomic_path",
    "check_same_dim",
    "check_submission",
    "descriptor_blocks",
    "one_row_each",
    "read_descriptors",
    "read_ground_truth",
    "read_predictions",
    "read_provenance",
    "read_submission",
    "write_csv",
    "write_descriptor_blocks",
    "write_descriptors",
    "write_ground_truth",
    "write_json",
    "write_predictions",
    "write_submission",
    "write_text",
]
