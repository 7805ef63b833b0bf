"""The commands and the program of docs/words.md, as they are written, on sample photos with made captions."""

from __future__ import annotations

import contextlib
import re
import shlex

import pytest

from tests import forked
from tests.conftest import REPOSITORY, SAMPLE
from tests.words_data import PHOTOS, write_captions

pytestmark = pytest.mark.slow

PAGE = (REPOSITORY / "docs" / "words.md").read_text(encoding="utf-8")
CAPTION = "caption_title_and_reference_description"
QUICK = {"experiment=captions_small": ["train.epochs=1"]}  # added to the commands with these words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that the page's commands name."""
    folder = tmp_path_factory.mktemp("page")
    names = PHOTOS[:24]
    (folder / "photos").mkdir()
    for name in names:
        (folder / "photos" / f"{name}.jpg").symlink_to(SAMPLE / f"{name}.jpg")
    (folder / "photo.jpg").symlink_to(SAMPLE / f"{PHOTOS[30]}.jpg")
    write_captions(folder / "captions.csv", names)
    text = {name: f"{name} [SEP] A photo of something" for name in names}
    (folder / "test.tsv").write_text("id\timage_url\n" + "".join(f"{one}\thttps://h/{one}.jpg\n" for one in names))
    (folder / "test_caption_list.csv").write_text(f"{CAPTION}\n" + "".join(f"{text[one]}\n" for one in names))
    (folder / "truth.csv").write_text(f"id,{CAPTION}\n" + "".join(f"{one},{text[one]}\n" for one in names))
    return folder


def test_the_commands_of_the_page(folder):
    commands = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 11
    printed = {}
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "isc"
        extra = [one for word in words for one in QUICK.get(word, [])]
        done = forked.run(REPOSITORY / "tests" / "isc_command.py", ["-1", "/", *words, *extra], folder=folder)
        assert done.status == 0, f"{command}: {done.err}"
        printed[command] = done.out
    assert "ndcg_at_5" in printed["isc words judge submission.csv truth.csv"]
    assert "photo.jpg" in printed["isc caption photo.jpg --model captioner"]
    assert len(printed["isc caption photos --model captioner --language de --format csv"].splitlines()) > 24
    for name in ("submission.csv", "by-names.csv", "by-meaning.csv", "any-language.csv"):
        assert (folder / name).read_text(encoding="utf-8").count("\n") == 1 + 5 * 24
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    with contextlib.chdir(folder):
        exec(compile(code, "docs/words.md", "exec"), {})
