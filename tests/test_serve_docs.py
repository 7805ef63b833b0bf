"""docs/serve.md: its provider runs, its settings are read, its picture is the one that the program draws."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import sqlalchemy as sa

from isc.serve import schema
from isc.serve.settings import ProviderSettings, read_settings
from tests.serving import PHOTOS, Service, settings_in

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "serve.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def test_the_provider_of_the_page_labels_a_dark_picture(tmp_path, monkeypatch):
    (code,) = [text for kind, text in BLOCKS if kind == "python" and "class Night" in text]
    assert len(code.splitlines()) <= 20
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    settings = settings_in(tmp_path, None, providers={"night": ProviderSettings("night", "mine:Night")})
    service = Service.made(settings)
    dark = cv2.imencode(".jpg", cv2.imread(str(PHOTOS[0])) // 6)[1].tobytes()
    bright = cv2.imencode(".jpg", np.full((200, 200, 3), 220, np.uint8))[1].tobytes()
    images = service.take(dark, bright)
    service.worker.drain()
    rows = service.rows(sa.select(schema.label.c.image_id, schema.label.c.name, schema.label.c.wikidata))
    assert [tuple(row) for row in rows] == [(images[0], "night", "Q575")]
    service.close()
    sys.modules.pop("mine", None)


def test_the_settings_of_the_page_are_read(tmp_path):
    (text,) = [text for kind, text in BLOCKS if kind == "toml" and "port = 8008" in text]
    path = tmp_path / "serve.toml"
    path.write_text(text)
    found = read_settings(path, data=tmp_path / "data")
    assert found.providers.keys() == {"copy", "quality", "vision", "tags", "slow", "shop"}
    assert found.rules("product").verified_by == "two"
    assert found.thresholds("vision", "copy") == (0.1, 0.5)


def test_the_picture_of_the_tables_is_the_one_that_the_program_draws():
    drawn = runpy.run_path(str(DOCS / "serve_schema.py"))["svg"]()
    assert (DOCS / "serve-schema.svg").read_text(encoding="utf-8") == drawn
