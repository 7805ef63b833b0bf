"""A bill of materials (CycloneDX JSON) of the wheel and of all that its extras bring, checked against its schema.

`make release` runs it after the build; it needs cyclonedx-python-lib, and what `make licences` asked pip for:

    python -m benchmarks.sbom REPORT.json dist/isc-0.3.0-py3-none-any.whl
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclonedx.contrib.hash.factories import HashTypeFactory
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from benchmarks.licences import asked_by, brought_by, extras, licence, plain

TOOLS = {"dev", "docs", "baselines"}  # extras that no user needs
VERSION = SchemaVersion.V1_6


def component(metadata: Mapping[str, Any], sha256: str, *, scope: ComponentScope) -> Component:
    """Return a package with its licence and the hash of its wheel."""
    name, version = plain(metadata["name"]), metadata["version"]
    return Component(
        name=name, version=version, type=ComponentType.LIBRARY, scope=scope, bom_ref=f"{name}=={version}",
        purl=PackageURL("pypi", None, name, version), description=metadata.get("summary"),
        licenses=[LicenseFactory().make_from_string(licence(metadata))],
        hashes=[HashTypeFactory().from_hashlib_alg("sha256", sha256)],
    )  # fmt: skip


def bill(report: Mapping[str, Any], wheel: Path) -> Bom:
    """Return the wheel, the packages of its extras, and which needs which. A package of an extra alone is optional."""
    packages = {plain(one["metadata"]["name"]): one for one in report["install"]}
    metadata = {name: one["metadata"] for name, one in packages.items()}
    parts: dict[str, Component] = {}
    for name, bringing in brought_by(metadata).items():
        if set(bringing) - TOOLS:
            scope = ComponentScope.REQUIRED if bringing == [""] else ComponentScope.OPTIONAL
            sha256 = packages[name]["download_info"]["archive_info"]["hashes"]["sha256"]
            parts[name] = component(metadata[name], sha256, scope=scope)
    about = {"name": "isc", "version": wheel.name.split("-")[1], "license_expression": "MIT"}
    root = component(about, hashlib.sha256(wheel.read_bytes()).hexdigest(), scope=ComponentScope.REQUIRED)
    bom = Bom(components=parts.values())
    bom.metadata.component = root
    wanted = {plain(line.name) for name, lines in extras().items() if name not in TOOLS for line in lines}
    bom.register_dependency(root, [part for name, part in parts.items() if name in wanted])
    for name, part in parts.items():
        needed = {plain(line.name) for line in asked_by(metadata[name])}
        bom.register_dependency(part, [parts[one] for one in sorted(needed & parts.keys())])
    return bom


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path, metavar="REPORT.json", help="of pip install --dry-run --report")
    parser.add_argument("wheel", type=Path, metavar="WHEEL", help="of this package; the bill lies beside it")
    options = parser.parse_args()
    bom = bill(json.loads(options.report.read_text(encoding="utf-8")), options.wheel)
    text = make_outputter(bom, OutputFormat.JSON, VERSION).output_as_string(indent=2)
    if wrong := JsonStrictValidator(VERSION).validate_str(text):
        sys.exit(f"not as the schema of CycloneDX {VERSION.to_version()} asks: {wrong}")
    path = options.wheel.with_suffix(".cdx.json")
    path.write_text(text + "\n", encoding="utf-8")
    print(f"{path}: {len(bom.components)} packages, valid CycloneDX {VERSION.to_version()}")


if __name__ == "__main__":
    main()
