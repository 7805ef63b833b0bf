"""The process that decodes pictures: python -m isc.serve.reading_process HANDLE IMAGE_SIZE MEMORY PIXELS."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from isc.serve.reading import serve


def main(handle: str, image_size: str, memory: str, pixels: str) -> None:
    """Answer requests from the pipe with this handle."""
    serve(Connection(int(handle)), int(image_size), int(memory), int(pixels))


if __name__ == "__main__":
    main(*sys.argv[1:])
