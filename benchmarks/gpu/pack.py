"""What must travel to a machine without a network: sources, a few wheels and the sample photos, in one archive."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from isc.errors import InputError

MOST = 60e6  # bytes
PYTHON = "3.12"
# what the steps import and a machine with torch, timm, h5py and OpenCV lacks, or has in a version that is too old;
# run.sh puts them before the machine's own
WHEELS = (
    "albumentations", "albucore", "stringzilla", "simsimd", "pydantic", "pydantic-core", "annotated-types",
    "typing-inspection", "typing-extensions", "scipy", "lazy-loader", "packaging", "threadpoolctl", "tqdm",
)  # fmt: skip
SOURCES = ("isc", "benchmarks/__init__.py", "benchmarks/gpu")
LEFT_OUT = (".onnx", ".html", ".css", ".js")  # not needed by a step
RUN = """#!/bin/sh
# Unpacked anywhere: python3 with torch, torchvision, timm, h5py and OpenCV is all that is needed.
cd "$(dirname "$0")" || exit 1
for wheel in wheels/*.whl; do python3 -m zipfile -e "$wheel" packages; done
PYTHONPATH="$PWD:$PWD/packages" NO_ALBUMENTATIONS_UPDATE=1 exec python3 -m benchmarks.gpu run --output results "$@"
"""


def pack(archive: Path, *, wheels: tuple[str, ...] = WHEELS) -> int:
    """Write the archive and return its bytes. Raises InputError if it is larger than MOST, and removes it."""
    root = Path(__file__).resolve().parents[2]
    listed = subprocess.run(["git", "ls-files", *SOURCES], cwd=root, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.splitlines() if not name.endswith(LEFT_OUT)]
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for path in _downloaded(Path(folder), wheels, root):
            tar.add(path, f"isc-gpu/wheels/{path.name}")
        for name in names:
            tar.add(root / name, f"isc-gpu/{name}")
        script = Path(folder) / "run.sh"
        script.write_text(RUN, encoding="utf-8")
        script.chmod(0o755)
        tar.add(script, "isc-gpu/run.sh")
    size = archive.stat().st_size
    if size > MOST:
        archive.unlink()
        raise InputError(f"{archive}: would have {size / 1e6:.0f} MB; expected at most {MOST / 1e6:.0f} MB")
    return size


def _downloaded(folder: Path, wheels: tuple[str, ...], root: Path) -> list[Path]:
    """Download the wheels of the locked versions for the other machine's Python."""
    if not wheels:
        return []
    locked = {
        line.split("==")[0]: line.split(" ;")[0].strip()
        for line in (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    wanted = [locked.get(name, name) for name in wheels]
    command = [
        str(Path(sys.base_prefix) / "bin" / "python3"), "-m", "pip", "download", "--quiet", "--no-deps",
        "--only-binary=:all:", "--dest", str(folder),
        "--python-version", PYTHON, "--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64",
        "--platform", "manylinux_2_27_x86_64", "--platform", "manylinux_2_17_x86_64",
    ]  # fmt: skip
    subprocess.run([*command, *wanted], check=True)
    return sorted(folder.glob("*.whl"))
