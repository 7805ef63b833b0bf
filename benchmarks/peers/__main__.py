"""Command line of the robustness table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import benchmarks.peers
from benchmarks import RESULTS, save
from benchmarks.heat_map import heat_map
from benchmarks.judge import text_table
from benchmarks.peers.cells import Bench, figures_by_cell, read_bench
from benchmarks.peers.models import Judged, has_fusion, judge, judge_matching, models
from benchmarks.peers.tables import ByModel, Rows, by_kind, by_model, long_form
from isc.data.files import write_json, write_text
from isc.errors import InputError

PICTURE = Path(__file__).parents[2] / "docs" / "robustness.svg"


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    try:
        run(
            given.bench,
            given.models,
            matching=given.matching,
            work=given.work or given.bench / "peers",
            publish=given.publish,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def run(folder: Path, arguments: Sequence[str], *, matching: bool, work: Path, publish: bool) -> None:
    """Judge the models, print the tables, and write them and the picture below `work`.

    With `publish`, write them also to the places from which docs/results.md and docs/robustness.md show them.
    """
    bench = read_bench(folder)
    judged = _judge_all(arguments, folder, work, matching=matching)
    found = {one.name: figures_by_cell(one.matches, bench) for one in judged}
    tables = {"peers_models": by_model(judged, bench, found), "peers_kinds": by_kind(found)}
    for name, table in tables.items():
        print(f"\n{text_table(table)}")
        write_json(work / "tables" / f"{name}.json", table)
    print(f"\n{_described(bench)}")
    write_json(work / "tables" / "peers.json", long_form(found))
    write_text(work / "tables" / "robustness.svg", heat_map(found, title=_described(bench)))
    if publish:
        _publish(bench, found, tables)


def _judge_all(arguments: Sequence[str], folder: Path, work: Path, *, matching: bool) -> list[Judged]:
    wanted = models(arguments)
    if matching and not any(map(has_fusion, wanted)):
        raise InputError("--matching: none of these models has a fusion stored with it; isc fusion fit makes one")
    judged = []
    for model in wanted:
        for what, how in (("", judge), (", local verification", judge_matching)):
            if what and not (matching and has_fusion(model)):
                continue
            started = time.monotonic()
            print(f"{model.name}{what} …", end=" ", flush=True)
            judged.append(how(model, folder, work))
            print(f"{time.monotonic() - started:.0f} s", flush=True)
    return judged


def _described(bench: Bench) -> str:
    copies, queries = len(bench.truth.pairs), len(bench.truth.queries)
    cells = len(set(bench.cells.values()))
    return f"{copies:,} copies by one edit each, {cells} kinds and strengths, {queries - copies:,} distractors"


def _publish(bench: Bench, found: ByModel, tables: dict[str, Rows]) -> None:
    for name, table in tables.items():
        save(name, table)
    write_json(RESULTS / "peers.json", long_form(found))
    write_text(PICTURE, heat_map(found, title=_described(bench)))


def _parser() -> argparse.ArgumentParser:
    text = benchmarks.peers.__doc__ or ""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=text.splitlines()[0])
    parser.add_argument("bench", type=Path, help="what isc benchmark wrote with preset=each")
    parser.add_argument("models", nargs="+", metavar="[NAME=]MODEL", help="see docs/robustness.md")
    parser.add_argument("--matching", action="store_true", help="the matching track too, of models with a fusion")
    parser.add_argument("--work", type=Path, help="folder that keeps descriptors and tables (default: BENCH/peers)")
    parser.add_argument("--publish", action="store_true", help="keep tables and picture for the docs")
    return parser


if __name__ == "__main__":
    main()
