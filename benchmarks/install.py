"""Megabytes and seconds of the light installation and of each extra, each in a fresh environment, where it is tried.

All wheels are fetched once, so that the seconds are those of pip without the network. An environment runs the commands
of the light installation and its own; the light one also has to refuse each command that needs more, by one line that
names the extra. Several GB are downloaded to a temporary folder (TMPDIR), and 20 GB are needed there.

    python -m benchmarks.install                 the light installation and every extra
    python -m benchmarks.install "" ray          these alone; the other rows stay
    python -m benchmarks.install --python python3.11 python3.12 python3.13

The last form tries and does not measure: every extra on each of these Pythons (names on the path, or files). The extras
that bring torch share an environment. Its table is saved if no extras are named. It needs uv, which links packages from
its cache instead of unpacking them again.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import save, saved
from benchmarks.install_commands import EXTRAS, LIGHT, REFUSED, SHARED, TABLES

ROOT = Path(__file__).parent.parent
SOURCES = ("setup.cfg", "pyproject.toml", "LICENSE", "THIRD_PARTY.md", "README.md")  # of a wheel, beside isc/
PYTHON = Path(sys.base_prefix) / "bin" / "python{}.{}".format(*sys.version_info)  # an environment may have no pip


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the package in it, and a folder of a few photos and tables to work in."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *requirements: str, base: Path | None = None) -> "Environment":
        """Make an environment in `folder` and install these requirements with the locked versions.

        With a Python `base` it is of that Python, and uv installs.
        """
        made = cls(folder)
        _done([str(base or PYTHON), "-m", "venv", "--without-pip", str(folder / "venv")])
        locked = ("install", *requirements, "-c", str(ROOT / "requirements.lock"))
        if base:
            _done(["uv", "pip", *locked, "--quiet", "--python", str(made.python)])
        else:
            pip(*locked, python=made.python)
        photos = sorted((ROOT / "isc" / "sample").glob("*.jpg"))
        for name, part in (("photos", photos[:8]), ("training", photos[8:16])):
            (folder / name).mkdir()
            for photo in part:
                shutil.copy(photo, folder / name)
        for name, text in TABLES.items():
            (folder / name).write_text(text, encoding="utf-8")
        return made

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    def run(self, command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the environment in its folder."""
        program, *arguments = shlex.split(command)
        return subprocess.run(
            [str(self.python.with_name(program)), *arguments],
            cwd=self.folder,
            env=_outside() | {"XDG_CACHE_HOME": str(self.folder / "cache")},
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


def _outside() -> dict[str, str]:
    """Return the environment without PYTHONPATH: what lies there would count as installed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _done(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_outside())
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: status {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """Build the package's wheel, from a copy of the sources, so that the checkout stays as it is."""
    source = folder / "source"
    shutil.copytree(ROOT / "isc", source / "isc", ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCES:
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
            "pip install": _named(extra),
            "packages": len(packages),
            "download, MB": f"{fetched / 1e6:,.0f}",
            "on disk, MB": f"{environment.megabytes():,.0f}",
            "of it NVIDIA's and Triton": f"{environment.megabytes('nvidia*') + environment.megabytes('triton'):,.0f}",
            "seconds to install": round(seconds),
            "commands tried": len(LIGHT) + len(EXTRAS[extra]) + (0 if extra else len(REFUSED)),
        }


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def tried(extras: Sequence[str], wheel: Path, base: Path) -> str:
    """Return what became of these extras, in one environment of a Python: packages and commands, or the failure."""
    commands = [*LIGHT, *dict.fromkeys(command for extra in extras for command in EXTRAS[extra])]
    named = ",".join(filter(None, extras))
    with tempfile.TemporaryDirectory() as folder:
        try:
            environment = Environment.make(Path(folder), f"isc[{named}] @ {wheel.as_uri()}", base=base)
            environment.try_out(*commands)
            packages = len(environment.packages())
        except RuntimeError as error:
            print(error, file=sys.stderr, flush=True)
            return f"failed: {str(error).splitlines()[0][:100]}"
    return f"{packages} packages, {len(commands)} commands"


def try_pythons(names: Sequence[str], extras: Sequence[str]) -> bool:
    """Try the extras on each of these Pythons, and return whether nothing failed.

    The table is saved if all extras were tried: all its rows are of one wheel.
    """
    rows: dict[str, dict[str, object]] = {_named(extra): {"pip install": _named(extra)} for extra in extras}
    shared = tuple(extra for extra in SHARED if extra in extras)
    groups = [(extra,) for extra in extras if extra not in SHARED] + ([shared] if shared else [])
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        for name in names:
            base = Path(_done([name, "-c", "import sys; print(sys.executable)"]).strip())
            version = _done([name, "-c", "import platform; print(platform.python_version())"]).strip()
            for group in groups:
                became = tried(group, wheel, base)
                print(version, ",".join(group), became, flush=True)
                for extra in group:
                    rows[_named(extra)][f"Python {version}"] = became
    if set(extras) == set(EXTRAS):
        save("install_pythons", list(rows.values()))
    return not any(str(cell).startswith("failed") for one in rows.values() for cell in one.values())


def _named(extra: str) -> str:
    return f"'.[{extra}]'" if extra else "."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="those to measure (default: all)")
    parser.add_argument("--python", nargs="+", metavar="PYTHON", help="try on each of these, without measuring")
    options = parser.parse_args()
    extras = options.extras or list(EXTRAS)
    if unknown := [extra for extra in extras if extra not in EXTRAS]:
        parser.error(f"{unknown[0]!r}: expected some of {', '.join(EXTRAS)}")
    if options.python:
        sys.exit(0 if try_pythons(options.python, extras) else 1)
    rows = {one["pip install"]: one for one in saved("install")}
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        wanted = ",".join(filter(None, extras))
        named = f"isc[{wanted}] @ {wheel.as_uri()}" if wanted else str(wheel)
        lock = str(ROOT / "requirements.lock")
        pip("wheel", "--quiet", "--no-cache-dir", "-c", lock, "--wheel-dir", str(wheel.parent), named)
        for extra in extras:
            one = row(extra, wheel.parent)
            rows[one["pip install"]] = one
            print(one, flush=True)
    save("install", [rows[_named(extra)] for extra in EXTRAS if _named(extra) in rows])


if __name__ == "__main__":
    main()
