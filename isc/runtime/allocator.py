"""The C library's memory allocator."""

from __future__ import annotations

import ctypes
import ctypes.util

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
GIB = 1 << 30


def keep_freed_memory() -> None:
    """Let this process keep freed large blocks, instead of requesting them again for every layer of every batch.

    glibc maps each block above 32 MB anew, and the page faults cost as much as the network's arithmetic (figures in
    docs/results.md). Does nothing if the C library has no mallopt.
    """
    library = ctypes.CDLL(ctypes.util.find_library("c"))
    if hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, GIB)
        library.mallopt(M_TRIM_THRESHOLD, 2 * GIB - 1)
