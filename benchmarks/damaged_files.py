"""Makers of files by hand, with fields that a library never writes: headers of tars, TIFFs, BMPs, HDF5 files, JSON."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.generic]

# --- tars ------------------------------------------------------------------------------------------------------------

BLOCK = 512
END = bytes(2 * BLOCK)


def tar_block(
    name: bytes = b"a.jpg", *, size: bytes = b"%011o\0" % 700, kind: bytes = b"0", magic: bytes = b"ustar\x0000"
) -> bytes:
    """Return a header with a right sum; `size` is the field as it stands."""
    header = bytearray(BLOCK)
    header[: len(name)] = name
    header[100:108] = b"0000644\0"
    header[124 : 124 + len(size)] = size
    header[156:157] = kind
    header[257:265] = magic
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def tar_padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def tar_extension(kind: bytes, content: bytes) -> bytes:
    """Return a header that describes the next one: `x` and `g` of pax, `L` and `K` of GNU."""
    return tar_block(b"././@x", size=b"%011o\0" % len(content), kind=kind) + tar_padded(content)


def pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = next(n for n in range(len(rest), len(rest) + 20) if n == len(rest) + len(str(n)))
    return str(length).encode() + rest


def damaged_tars(photo: bytes) -> dict[str, bytes]:
    """Return tars that hold a photo behind headers that no reader can believe, without their end mark."""
    block = tar_block(size=b"%011o\0" % len(photo))
    data = tar_padded(photo)
    member = block + data

    def described(*records: bytes) -> bytes:
        return tar_extension(b"x", b"".join(records)) + member

    return {
        "size above 2^63": tar_block(size=b"\x80" + bytes(2) + (1 << 63).to_bytes(9, "big")) + data,
        "size 2^80": tar_block(size=b"\x80" + (1 << 80).to_bytes(11, "big")) + data,
        "size below 0": tar_block(size=b"\xff" * 12) + data,
        "size no number": tar_block(size=b"00x00000000\0") + data,
        "size with digits of another script": tar_block(size="٣".encode() + b"000\0") + data,
        "long name of 2^40 bytes": tar_block(kind=b"L", size=b"\x80" + (1 << 40).to_bytes(11, "big")) + data,
        "long name of 1 GiB that ends": tar_block(kind=b"L", size=b"%011o\0" % (1 << 30)) + data,
        "pax size of 5,000 digits": described(pax_record(b"size", b"9" * 5000)),
        "pax size 10^18 as text": described(pax_record(b"size", b"1e18")),
        "pax size below 0": described(pax_record(b"size", b"-512")),
        "pax record of 5,000 digits": described(b"9" * 5000 + b" path=a\n"),
        "pax record that is longer": described(b"99999999999999999999 path=a\n"),
        "pax record of no length": described(b"0 path=a\n"),
        "pax record without =": described(b"8 path\n\n"),
        "a chain of 5,000 pax headers": tar_extension(b"x", pax_record(b"path", b"a.jpg")) * 5000 + member,
        "a chain of 5,000 long names": tar_extension(b"L", b"a.jpg\0") * 5000 + member,
        "a sparse file": tar_block(kind=b"S", size=b"%011o\0" % len(photo)) + data,
        "a sparse file of pax": described(pax_record(b"GNU.sparse.major", b"1")),
        "sparse with a map that is none": described(
            pax_record(b"GNU.sparse.map", b"a,b") + pax_record(b"GNU.sparse.size", b"x" * 9)
        ),
        "digits without an end": described(b"1" * (1 << 20)),
        "a wrong sum": block[:300] + b"x" + block[301:] + data,
        "a name without its member": member + tar_extension(b"L", b"b.jpg\0"),
        "a pipe's worth of zeros": member + bytes(5 << 20),
    }


# --- pictures --------------------------------------------------------------------------------------------------------


def tiff(
    values: Array, *, order: str = "<", planes: int = 1, photometric: int = 2, packed: bool = False, **more: bool
) -> bytes:
    """Return a TIFF of the values [H, W] or [H, W, C] in strips of 20 rows, each of which zlib packs if wanted."""
    values = values if values.ndim == 3 else values[:, :, None]
    height, width, channels = values.shape
    values = values.astype(values.dtype.newbyteorder(order))
    parts = [values] if planes == 1 else [values[:, :, one : one + 1] for one in range(channels)]
    strips = [np.ascontiguousarray(part[top : top + 20]).tobytes() for part in parts for top in range(0, height, 20)]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [8 * values.dtype.itemsize] * channels),
        259: ("H", [8 if packed else 1]), 262: ("H", [photometric]), 273: ("I", [0] * len(strips)),
        277: ("H", [channels]), 278: ("I", [20]), 279: ("I", [len(strip) for strip in strips]), 284: ("H", [planes]),
    }  # fmt: skip
    if more.get("alpha"):
        tags[338] = ("H", [2])
    if values.dtype.kind == "f":
        tags[339] = ("H", [3] * channels)
    if more.get("signed"):
        tags[339] = ("H", [2] * channels)
    begin = 8 + 2 + 12 * len(tags) + 4
    data = begin + sum(len(struct.pack(order + kind * len(held), *held)) for kind, held in tags.values())
    tags[273] = ("I", [data + sum(map(len, strips[:at])) for at in range(len(strips))])
    table, beside = b"", b""
    for tag, (kind, held) in sorted(tags.items()):
        raw = struct.pack(order + kind * len(held), *held)
        at = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack(order + "I", begin + len(beside))
        table += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[kind], len(held)) + at
        beside += raw if len(raw) > 4 else b""
    beside = beside.ljust(data - begin, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "IH", 8, len(tags)) + table + bytes(4) + beside + b"".join(strips)


MASKS = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)


def bmp(pixels: npt.NDArray[np.uint8], alpha: Array | int, header: int) -> bytes:
    """Return a BMP of 32 bits a pixel with masks, as headers of 56, 108 and 124 bytes have them."""
    height, width = pixels.shape[:2]
    rows = np.dstack([pixels[::-1, :, ::-1], np.broadcast_to(np.uint8(alpha), (height, width))[::-1]])
    head = struct.pack("<IiiHHIIiiII", header, width, height, 1, 32, 3, rows.size, 2835, 2835, 0, 0) + MASKS
    head = head.ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + header + rows.size, 0, 0, 14 + header) + head + rows.tobytes()


def odd_pictures(pixels: npt.NDArray[np.uint8]) -> list[bytes]:
    """Return pictures [H, W, 3] of layouts that libraries read wrongly: they are read, or refused whole."""
    wide = pixels.astype(np.uint16) * 257
    grey = wide[:, :, 1]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", progressive=True)
    plain = io.BytesIO()
    Image.fromarray(pixels).save(plain, "JPEG")
    return [
        *(tiff(wide, order=order, planes=2, packed=packed) for order in "<>" for packed in (False, True)),
        *(tiff(65535 - grey, order=order, photometric=0) for order in "<>"),
        tiff((pixels[:, :, 1] / np.float32(255)).astype(np.float32), photometric=1, packed=True),
        *(bmp(pixels, 0, header) for header in (56, 108, 124)),
        plain.getvalue()[:-2],
        file.getvalue()[:-2],
    ]


# --- HDF5 ------------------------------------------------------------------------------------------------------------


def hdf5_of(write: Callable[[h5py.File], object]) -> bytes:
    """Return the bytes of the file that `write` fills."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.h5")
        with h5py.File(path, "w") as file:
            write(file)
        return path.read_bytes()


def odd_hdf5() -> list[bytes]:
    """Return files with numbers elsewhere, a heap in which the library loops, and headers of a size beyond reason."""
    values, ids = np.arange(12, dtype=np.float32).reshape(3, 4) + 1, np.array([b"a", b"b", b"c"])

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((3, 4), np.float32)
        layout[:] = h5py.VirtualSource("missing.h5", "vectors", (3, 4))
        file.create_virtual_dataset("vectors", layout)
        file["image_names"] = ids

    def elsewhere(file: h5py.File) -> None:
        file["vectors"] = values
        file.create_dataset("image_names", (3,), "S8", external=[("/etc/hostname", 0, 24)])

    def linked(file: h5py.File) -> None:
        file["image_names"] = ids
        file["vectors"] = h5py.ExternalLink("other.h5", "/vectors")
        file["query"] = h5py.SoftLink("/nowhere")

    def texts(file: h5py.File) -> None:
        file["vectors"], file["image_names"] = values, ids
        for number in range(9):
            file.attrs[f"a{number}"] = "x" * 100

    def unwritten(file: h5py.File) -> None:
        file.create_dataset("vectors", (1_000_000, 256), np.float32, chunks=(1000, 256), compression="gzip")
        file.create_dataset("image_names", (1_000_000,), "S8", chunks=(100_000,), compression="gzip")

    def large(file: h5py.File) -> None:
        texts(file)
        for number in range(300):
            file.attrs[f"b{number}"] = np.zeros(1000, np.float64)

    heap = hdf5_of(texts)
    at = heap.index(b"GCOL")
    looping = heap[: at + 16] + bytes(600) + heap[at + 616 :]
    return [*map(hdf5_of, (virtual, elsewhere, linked, unwritten, large)), looping]


# --- JSON ------------------------------------------------------------------------------------------------------------


def nested_json(keys: Sequence[str] = ("format",)) -> list[bytes]:
    """Return JSON of the wrong shape: nested without end, lists for objects, and for each key a deep value."""
    deep = "[" * 3000 + "]" * 3000
    return [
        b"[" * 200_000,
        b'{"a":' * 20_000,
        deep.encode(),
        b"[]",
        b"null",
        b"3",
        *(b'{"%s": %s}' % (key.encode(), deep.encode()) for key in keys),
    ]
