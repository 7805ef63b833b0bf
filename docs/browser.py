"""Pictures of pages for docs/, drawn by chromium."""

import base64
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from isc.photos.decode import Pixels

STYLE = """<!doctype html><meta charset="utf-8"><style>
body { margin: 16px; font: 15px/1.35 "Noto Sans", "DejaVu Sans", sans-serif; color: #222; background: #fff }
main { display: grid; grid-template-columns: repeat(4, 1fr); gap: 18px 16px }
figure { margin: 0 } img { width: 100%; height: 190px; object-fit: cover; border-radius: 4px }
p { margin: 5px 0 0 } small { color: #777 } h2 { grid-column: 1 / -1; margin: 8px 0 0; font-size: 17px }
.right { color: #0a6b2d } .wrong { color: #9a1c1c }
</style>"""
WIDTH = 1100


def image_tag(pixels: Pixels) -> str:
    """Return an <img> that holds the picture."""
    shown = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(shown, "JPEG", quality=90)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(shown.getvalue()).decode()}">'


def draw(main: str, output: Path) -> None:
    """Write the page with this content of <main> as a JPEG, WIDTH pixels wide."""
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 10})
        page.set_content(f"{STYLE}<main>{main}</main>")
        picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
        browser.close()
    picture.save(output, quality=80, optimize=True)
