"""docs/results.md and the figures of the other pages are what the benchmarks' JSON files say."""

from __future__ import annotations

import json
import re
import runpy

import pytest

from benchmarks import RESULTS
from benchmarks.results import (
    FIGURES,
    PICTURES,
    PICTURES_MADE,
    ROOT,
    TABLES,
    TITLES,
    WITH_FIGURES,
    adopt,
    fill,
    markdown_table,
    pages,
    read_tables,
    sha256,
)

UNPUBLISHED = {"demo_sizes", "judge_sizes", "peers", "pictures"}  # figures within sentences or a picture


def test_no_page_holds_a_figure_that_no_program_printed():
    for page, text in pages(read_tables()).items():
        assert (ROOT / page).read_text(encoding="utf-8") == text, f"{page}: run python -m benchmarks.results"


def test_the_pictures_show_the_demo_whose_figures_the_pages_hold():
    made = json.loads(PICTURES_MADE.read_text(encoding="utf-8"))
    now = {"demo": sha256(RESULTS / "demo.json"), **{name: sha256(ROOT / name) for name in PICTURES}}
    assert made == now, "run make demo, then make results"


def test_every_result_has_its_place():
    made = {path.stem for path in RESULTS.glob("*.json")}
    assert made - UNPUBLISHED <= TITLES.keys()
    for name, page in TABLES.items():
        if name in made:
            assert f"<!-- {name} -->" in (ROOT / page).read_text(encoding="utf-8"), (name, page)


def test_every_figure_is_used():
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in WITH_FIGURES]
    used = {name for text in texts for name in re.findall(r"<!--=(.*?)-->", text)}
    assert used == FIGURES.keys()


def test_a_changed_result_changes_the_pages():
    tables = read_tables()
    before = pages(tables)
    changed = tables | {"demo": [{"": "another", "μAP": "0.123"}]}
    after = pages(changed)
    assert {page.name for page in before if before[page] != after[page]} == {"README.md", "results.md"}
    assert "| another | 0.123 |" in after[next(page for page in after if page.name == "README.md")]


def test_fill_puts_the_value_between_the_marks():
    text = "a <!--=x-->old<!--/--> b <!--=y-->kept<!--/--> c <!--=x--><!--/-->"
    assert fill(text, "<!--=x-->", "new", "<!--/-->") == (
        "a <!--=x-->new<!--/--> b <!--=y-->kept<!--/--> c <!--=x-->new<!--/-->"
    )


def test_markdown_table():
    assert markdown_table([{"a": 1, "b": "x"}]) == "| a | b |\n|---|---|\n| 1 | x |"


def test_adopt_takes_what_the_demo_wrote(tmp_path):
    with pytest.raises(FileNotFoundError):
        adopt(tmp_path)
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "demo.json").write_text(
        '{"one": {"average_precision": 0.5, "recall_at_p90": 0.25, "recall_at_rank1": 1.0}}', encoding="utf-8"
    )
    (tmp_path / "benchmark" / "benchmark.json").write_text(
        '{"made": {"sizes": {"positive_queries": 2, "distractor_queries": 8}}}', encoding="utf-8"
    )
    tables = adopt(tmp_path)
    assert tables["demo"] == [
        {"": "one", "μAP": "0.500", "recall at 90 % precision": "0.250", "recall at rank 1": "1.000"}
    ]
    assert tables["demo_sizes"][0]["queries"] == 10


@pytest.mark.slow
def test_the_picture_of_the_house_is_that_of_the_imports():
    drawn = runpy.run_path(str(ROOT / "docs" / "architecture.py"))["svg"]()
    assert (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8") == drawn
