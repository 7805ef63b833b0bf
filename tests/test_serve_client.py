"""The Python client against a real service in processes of its own, and the types that it is written with."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

from isc.errors import InputError
from isc.serve import Client, client_types
from tests.serving import PHOTOS, edited
from tests.test_serve_faults import Running

PROGRAM = Path(__file__).resolve().parents[1] / "docs" / "serve_types.py"


def test_the_types_are_those_of_the_api():
    program = runpy.run_path(str(PROGRAM))
    stored = Path(client_types.__file__).read_text(encoding="utf-8")
    assert ast.unparse(ast.parse(program["types"](program["described"]()))) == ast.unparse(ast.parse(stored))


@pytest.mark.slow
def test_a_program_uploads_waits_reviews_and_exports(tmp_path):
    running = Running(tmp_path / "data", None)
    copy = tmp_path / "suspect.jpg"
    copy.write_bytes(edited(PHOTOS[0]))
    (tmp_path / "text.jpg").write_text("no picture")
    try:
        with Client(running.address) as service:
            known = service.upload(PHOTOS[0])
            assert service.results(known["id"])["copies"] == []
            found = service.results(service.upload(copy)["id"])
            (match,) = [one for one in found["copies"] if one["provider"] == "copy"]
            assert match["result"]["other"]["id"] == known["id"]
            assert not service.upload(copy)["new"]
            asked = [one for one in service.queue(kind="copy", limit=1) if one["provider"] == "copy"]
            assert [one["id"] for one in asked] == [match["suggestion"]]
            (voted,) = service.vote({asked[0]["id"]: "accept"})
            assert (voted["state"], voted["new"]) == ("accepted", True)
            assert [one["suggestion"] for one in service.export()] == [asked[0]["id"]]
            assert service.statistics()[0]["acceptance"]["accepted"] == 1
            assert service.write_caption(known["id"], "A fish", language="en")["writer"] == "local"
            with pytest.raises(InputError, match=r"415 .*no picture"):
                service.upload(tmp_path / "text.jpg")
            with pytest.raises(InputError, match="404"):
                service.results(99)
            with pytest.raises(InputError, match="404"):
                service.vote({99: "accept"})
    finally:
        assert running.stop() == 0
