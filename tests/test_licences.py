"""THIRD_PARTY.md has all that ships and all that is locked, and names what its licences ask for."""

from __future__ import annotations

import csv
import re

import pytest

from benchmarks.licences import PAGE, ROOT, Locked, brought_by, extras, fill, licence, locked

TEXT = PAGE.read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in re.findall(r"<!-- packages -->\n(.*?)<!-- /packages -->", TEXT, re.DOTALL)[0].splitlines()[2:]
]
ABOVE = TEXT.partition("<!-- packages -->")[0]


def test_each_locked_package_has_its_row():
    assert [(name, version) for name, version, *_ in ROWS] == [(one.name, one.version) for one in locked()]
    assert "?" not in {what for _, _, what, *_ in ROWS}


def test_each_requirement_comes_with_its_extra():
    rows = {name: comes.split(", ") for name, _, _, _, comes in ROWS}
    for extra, lines in extras().items():
        for line in lines:
            if line.name != "isc":
                assert {extra or "every installation", "every installation"} & set(rows[line.name.replace("_", "-")])


def test_licences_that_ask_for_more_are_explained():
    for name, _, what, inside, _ in ROWS:
        if re.search("GPL|MPL", what + inside):
            assert f"`{name}`" in ABOVE, name
    assert "NVIDIA's own" in ABOVE


def test_all_that_ships_is_named():
    """Files that are not text of ours: scripts of others, photos, weights."""
    for path in (ROOT / "isc").rglob("*"):
        if path.name.endswith((".min.js", "LICENSE.txt")):
            assert f"`{path.relative_to(ROOT).as_posix()}`" in ABOVE
        if path.suffix in (".woff", ".woff2", ".ttf", ".otf"):
            pytest.fail(f"{path}: a font; name it in {PAGE.name}")
    photos = list((ROOT / "isc" / "sample").glob("*.jpg"))
    assert f"{len(photos)} photos" in ABOVE
    with (ROOT / "isc" / "sample" / "sample.csv").open(encoding="utf-8", newline="") as file:
        used = {row["licence"] for row in csv.DictReader(file)}
    linked = re.findall(r"creativecommons.org/(licenses|publicdomain)/([\w-]+)/([\d.]+)/", ABOVE)
    known = {
        f"CC-{name.upper()}-{version}" if part == "licenses" else f"CC0-{version}" for part, name, version in linked
    }
    assert known == used - {"public-domain"}


def test_lines_for_other_systems_are_left_out():
    assert not Locked.read("pywin32==312 ; sys_platform == 'win32'").on_linux()
    assert Locked.read("av==19.0.2 ; python_full_version >= '3.12'").on_linux()


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"license_expression": "MIT OR Apache-2.0", "license": "x"}, "MIT OR Apache-2.0"),
        ({"license": "Apache 2.0"}, "Apache-2.0"),
        ({"license": "a text\nof many lines", "classifier": ["License :: OSI Approved :: MIT License"]}, "MIT"),
        ({"license": "UNKNOWN"}, "?"),
    ],
)
def test_the_licence_of_metadata(metadata, says):
    assert licence({"name": "one", **metadata}) == says


def test_an_extra_within_another_one_is_named_alone():
    packages = {"torch": {"requires_dist": ["sympy"]}, "sympy": {}, "numpy": {}, "onnx": {}, "stranger": {}}
    assert brought_by(packages) == {
        "torch": ["train"], "sympy": ["train"], "numpy": [""], "onnx": ["export"], "stranger": [],
    }  # fmt: skip


def test_a_page_without_a_table_is_refused():
    with pytest.raises(SystemExit, match="expected one table"):
        fill("nothing", "| |")
