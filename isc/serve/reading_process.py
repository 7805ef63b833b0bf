"""The process that decodes pictures."""

from __future__ import annotations

from multiprocessing.connection import Connection

from isc.serve.reading import serve


def main(handle: str, image_size: str, memory: str, pixels: str) -> None:
    """Answer requests from the pipe with this handle."""
    serve(Connection(int(handle)), int(image_size), int(memory), int(pixels))
