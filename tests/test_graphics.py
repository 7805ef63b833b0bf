"""What the stored probabilities say of pictures that are no photos: each was once called a copy of what it is not."""

from __future__ import annotations

import csv
import subprocess
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks import graphics
from isc.photos.decode import read_image
from isc.photos.folders import list_images
from tests.conftest import SAMPLE

pytestmark = pytest.mark.slow

KINDS = ("page", "table", "chart", "window", "logo", "drawing")
TRACKS = ("descriptor", "matching")


def drawn(kind: str, number: int) -> Image.Image:
    return graphics.KINDS[kind](np.random.default_rng([97, number]), [])


@cache
def dejavu() -> tuple[str, ...]:
    """Return the file of DejaVu Sans, if it is installed."""
    asked = ["fc-list", ":family=DejaVu Sans:style=Book", "file"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
    return tuple(sorted(line.rstrip(": ") for line in found))[:1]


def has_letters() -> bool:
    return bool(dejavu())


@pytest.fixture(autouse=True)
def one_font(monkeypatch):
    """The same letters on every machine, whatever fonts it has."""
    monkeypatch.setattr(graphics, "fonts", lambda script: dejavu())


@pytest.fixture(scope="module")
def photos() -> list[Path]:
    return list(list_images(SAMPLE).values())


def dark(path: Path) -> Image.Image:
    return Image.fromarray((read_image(path) * 0.1).astype(np.uint8))


def accepted(place, queries, references, track):
    """Match two sets of pictures by name; return the accepted pairs, and the probability of every pair."""
    for side, pictures in (("queries", queries), ("references", references)):
        folder = place / side
        folder.mkdir()
        for name, picture in pictures.items():
            picture.save(folder / f"{name}.png")
        place.done("extract", f"images={side}", f"output={side}.h5", "model=isc_small", script=False)
    files = ["queries=queries.h5", "references=references.h5", "output=out", f"track={track}"]
    if track == "matching":
        files += ["query_images=queries", "reference_images=references"]
    place.done("match", *files, script=False)
    with (place / "out/probabilities.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = {(row["query_id"], row["reference_id"]): float(row["probability"]) for row in rows}
    return {(row["query_id"], row["reference_id"]) for row in rows if row["accepted"] == "true"}, told


@pytest.mark.skipif(not has_letters(), reason="needs fonts (Debian: fonts-dejavu-core)")
@pytest.mark.parametrize("track", TRACKS)
def test_new_pages_charts_and_windows_are_no_copies(place, photos, track):
    """Nine copies and nine new pictures of the same kinds: once, all 180 pairs were called copies, and nine were."""
    references = {f"R{at}": drawn(KINDS[at % len(KINDS)], at) for at in range(9)}
    references |= {f"P{at}": Image.open(path) for at, path in enumerate(photos[:31])}
    queries = {f"C{at}": references[f"R{at}"].resize((300, 300)) for at in range(9)}
    queries |= {f"N{at}": drawn(KINDS[at % len(KINDS)], 100 + at) for at in range(9)}
    kept, _ = accepted(place, queries, references, track)
    true = {(f"C{at}", f"R{at}") for at in range(9)}
    assert kept <= true
    if track == "matching":
        assert len(kept) >= 5


@pytest.mark.skipif(not has_letters(), reason="needs fonts (Debian: fonts-dejavu-core)")
def test_a_squeezed_page_is_not_a_black_wallpaper(place, photos):
    page = drawn("page", 3).convert("RGB").resize((620, 877))
    black = Image.new("RGB", (640, 400), (3, 3, 4))
    references = {"page": page, "black": black} | {f"P{at}": Image.open(path) for at, path in enumerate(photos[:20])}
    kept, told = accepted(place, {"squeezed": page.resize((400, 300))}, references, "matching")
    assert told["squeezed", "page"] == max(told.values()) > 0.5
    assert told.get(("squeezed", "black"), 0.0) < 0.1
    assert ("squeezed", "black") not in kept


@pytest.mark.parametrize("track", TRACKS)
def test_sheets_of_other_colours_are_no_copies(place, photos, track):
    colours = {"red": (200, 20, 20), "green": (20, 160, 40), "grey": (128, 128, 128)}
    sheets = {name: Image.new("RGB", (400, 300), value) for name, value in colours.items()}
    references = {"green": sheets["green"]} | {f"P{at}": Image.open(path) for at, path in enumerate(photos[:20])}
    kept, told = accepted(place, {name: sheets[name] for name in ("red", "grey")}, references, track)
    assert not kept
    assert max(told.values()) < 0.5


@pytest.mark.parametrize(("track", "most"), [("descriptor", 1), ("matching", 0)])
def test_very_dark_photos_are_no_copies_of_others(place, photos, track, most):
    """Thirty photos at a tenth of their light against thirty others: eight pairs were accepted once."""
    queries = {f"Q{at}": dark(path) for at, path in enumerate(photos[:30])}
    references = {f"R{at}": dark(path) for at, path in enumerate(photos[30:60])}
    kept, _ = accepted(place, queries, references, track)
    assert len(kept) <= most


@pytest.mark.parametrize("kind", [kind for kind in graphics.KINDS if kind not in ("night", "dark")])
def test_a_kind_is_drawn_from_its_seed_alone(kind):
    if kind not in ("gradient", "sheet", "drawing") and not has_letters():
        pytest.skip("needs fonts (Debian: fonts-dejavu-core)")
    one, again, other = drawn(kind, 1), drawn(kind, 1), drawn(kind, 2)
    assert one.tobytes() == again.tobytes()
    assert one.size != other.size or one.tobytes() != other.tobytes()


def test_real_graphics_are_linked_and_never_darkened(tmp_path, photos):
    folder, table = tmp_path / "photos", tmp_path / "photos.csv"
    folder.mkdir()
    for path in photos[:4]:
        (folder / path.name).symlink_to(path)
    ids = list(list_images(folder))
    sources = ["a photo", "Screenshots of a game", "a photo", "Maps"]
    table.write_text("id,source\n" + "".join(f"{one},{of}\n" for one, of in zip(ids, sources, strict=True)))
    real = graphics.real_graphics(table)
    assert real == {ids[1], ids[3]}
    graphics.make(folder, tmp_path / "out", count=3, seed=1, kinds=("dark",), real=real)
    made = sorted((tmp_path / "out").iterdir())
    assert sorted(path.name for path in made if path.is_symlink()) == sorted(photos[at].name for at in (1, 3))
    night = [read_image(path) for path in made if not path.is_symlink()]
    assert len(night) == 3
    assert all(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY).mean() < 0.15 * 255 for one in night)
