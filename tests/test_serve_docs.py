"""docs/serve.md: its commands and its provider run, its settings are read, its picture is what the program draws."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
import sqlalchemy as sa

from isc.serve import schema
from isc.serve.settings import ProviderSettings, read_settings
from tests.serving import PHOTOS, Service, edited, free_port, settings_in

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


@pytest.mark.slow
def test_the_commands_of_the_first_quarter_of_an_hour_run_as_they_are_written(tmp_path):
    """From nothing to reviewing one's own folder; the port alone is another one, and the package is there already."""
    (commands,) = [text for kind, text in BLOCKS if kind == "sh" and "import my-photos" in text]
    install, serve, take_in = [line.split("#")[0].strip() for line in commands.splitlines()]
    (program,) = [text for kind, text in BLOCKS if kind == "python" and "with Client(" in text]
    assert install == "pip install 'isc[serve]'"
    port = free_port()
    (tmp_path / "my-photos").mkdir()
    for one in PHOTOS[:6]:
        shutil.copy(one, tmp_path / "my-photos")
    (tmp_path / "suspect.jpg").write_bytes(edited(PHOTOS[2], crop=0.05, mirror=False, quality=90))
    (tmp_path / "isc").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m isc.cli.main "$@"\n')
    (tmp_path / "isc").chmod(0o755)
    places = os.pathsep.join([str(DOCS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    here = {"cwd": tmp_path, "env": {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": places}}
    with (
        (tmp_path / "log").open("wb") as log,
        _ended(subprocess.Popen(["sh", "-c", f"exec {serve} --port {port}"], stdout=log, stderr=log, **here)),
    ):
        address = f"http://127.0.0.1:{port}"
        assert "http://127.0.0.1:8008" in PAGE
        _until(lambda: _answers(f"{address}/readyz"))
        done = subprocess.run(["sh", "-c", take_in], capture_output=True, text=True, check=True, **here)
        assert "6" in done.stdout + done.stderr
        _until(lambda: _described(address) == 6)
        assert "drop" in httpx.get(f"{address}/", timeout=60).text
        text = program.replace("http://127.0.0.1:8008", address) + "\nprint(len(decided))\n"
        ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False, **here)
        assert ran.returncode == 0, ran.stderr
        *found, decided = ran.stdout.splitlines()
        sure = [float(line.split()[0]) for line in found if line.endswith(PHOTOS[2].name) and line[0].isdigit()]
        assert max(sure) > 0.9, ran.stdout
        assert int(decided) == sum(one > 0.999 for one in sure)


@contextlib.contextmanager
def _ended(process):
    """End a process at the end of the block, as Ctrl-C would."""
    try:
        yield
    finally:
        process.terminate()
        process.wait(120)


def _until(look):
    end = time.monotonic() + 300
    while not look():
        assert time.monotonic() < end
        time.sleep(0.2)


def _answers(url):
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _described(address):
    """Return how many pictures copy detection has described, with none waiting."""
    for one in httpx.get(f"{address}/api/providers", timeout=60).json()["items"]:
        if one["provider"] == "copy":
            return one["states"].get("done", 0)
    return 0
