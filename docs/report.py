"""Generator of docs/report.jpg: the page of the demo's matching run beside a phone's view of its misses.

    python docs/report.py demo docs/report.jpg             as `make results` does

It needs playwright, and chromium on PATH. The run is that of isc demo with compare=demo/finetuned.
"""

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

HEIGHT, MARGIN, SCALE = 1000, 12, 0.85
GREY = (208, 211, 214)


def view(browser: Any, page_file: Path, *, width: int, scheme: str, part: str) -> Image.Image:
    """Return a screenshot of the page from `part` on, HEIGHT of its pixels high."""
    context = browser.new_context(
        viewport={"width": width, "height": HEIGHT}, color_scheme=scheme, device_scale_factor=SCALE
    )
    page = context.new_page()
    page.goto(page_file.resolve().as_uri())
    top = page.evaluate("part => document.querySelector(part).getBoundingClientRect().top + scrollY - 16", part)
    area = {"x": 0, "y": max(0, top), "width": width, "height": HEIGHT}
    picture = Image.open(io.BytesIO(page.screenshot(clip=area, full_page=True))).convert("RGB")
    context.close()
    return picture


def main() -> None:
    page_file, output = Path(sys.argv[1]) / "matching" / "report" / "index.html", Path(sys.argv[2])
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        views = [
            view(browser, page_file, width=1160, scheme="light", part="main"),
            view(browser, page_file, width=390, scheme="dark", part="#missed"),
        ]
        browser.close()
    width = sum(one.width + MARGIN for one in views) + MARGIN
    picture = Image.new("RGB", (width, views[0].height + 2 * MARGIN), GREY)
    left = MARGIN
    for one in views:
        picture.paste(one, (left, MARGIN))
        left += one.width + MARGIN
    picture.save(output, quality=72, optimize=True)


if __name__ == "__main__":
    main()
