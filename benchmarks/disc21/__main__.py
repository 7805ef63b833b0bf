"""Command line of the DISC21 measurement: all parts in order, each only once, and the tables."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import save
from benchmarks.approximate import ROOT, real_descriptors
from benchmarks.disc21 import __doc__ as about
from benchmarks.disc21 import costs, parts
from benchmarks.disc21.made import GROUND_TRUTH, QUERIES, REFERENCES, Size, make
from benchmarks.disc21.processes import Cost, measured
from isc.cli.console import fail
from isc.data.files import write_json
from isc.errors import InputError
from isc.runtime.locks import sole_writer

FULL = Size(50_000, 1_000_000)
BOUND = 2.0  # seconds allowed to judge half a million predictions
SAME = 1e-12
OWN: dict[str, Callable[[Path, Size], None]] = {
    "check_descriptor": parts.check_descriptor,
    "products": parts.products,
    "rescore": parts.rescore,
    "check_matching": parts.check_matching,
}
ALIKE = {  # runs whose figures must equal those of plain Python
    "check_descriptor": ("descriptor", "judge_submission", "judge_predictions"),
    "check_matching": ("judge_matching",),
}
TOLD = {
    "descriptor": "match.py: descriptors → submission.h5, predictions.csv, figures, report",
    "judge_submission": "match.py submission=submission.h5: searched and judged anew",
    "judge_predictions": "match.py submission=predictions.csv: read and judged",
    "judge_matching": "match.py track=matching submission=matching.csv, ids checked against both sets of descriptors",
    "check_descriptor": "both files read by h5py and csv alone, 100 queries by brute force, judged in plain Python",
}


def commands(work: Path, size: Size, descriptors: Path | None) -> dict[str, list[str]]:
    """Return the command of each part, by name, in the order in which the parts run."""
    match = [sys.executable, str(ROOT / "match.py")]
    truth = f"ground_truth={work / GROUND_TRUTH}"
    sets = [f"queries={work / QUERIES}", f"references={work / REFERENCES}"]
    own = [sys.executable, "-m", "benchmarks.disc21", "--work", str(work)]
    own += ["--queries", str(size.queries), "--references", str(size.references)]
    own += ["--descriptors", str(descriptors)] if descriptors else []
    run, judged = work / "descriptor", work / "judged"
    return {
        "make": [*own, "--part", "make"],
        "descriptor": [*match, *sets, truth, f"output={run}"],
        "check_descriptor": [*own, "--part", "check_descriptor"],
        "judge_submission": [*match, f"submission={run / 'submission.h5'}", truth, f"output={judged / 'submission'}"],
        "judge_predictions": [
            *match, f"submission={run / 'predictions.csv'}", truth, f"output={judged / 'predictions'}",
        ],
        "products": [*own, "--part", "products"],
        "rescore": [*own, "--part", "rescore"],
        "check_matching": [*own, "--part", "check_matching"],
        "judge_matching": [
            *match, "track=matching", f"submission={work / parts.MATCHING}", *sets, truth,
            f"output={judged / 'matching'}",
        ],
    }  # fmt: skip


def run_parts(work: Path, size: Size, descriptors: Path | None) -> dict[str, Cost]:
    """Return the cost of each part; parts recorded as done for this size and descriptors do not run again."""
    made_of = {**asdict(size), "descriptors": str(descriptors)}
    done = _read_record(work / "done.json")
    if done.get("of") != made_of:
        done = {"of": made_of, "parts": {}}
    for name, command in commands(work, size, descriptors).items():
        if name not in done["parts"]:
            print(f"{name} …", flush=True)
            done["parts"][name] = asdict(measured(command))
            write_json(work / "done.json", done)
    return {name: Cost(**values) for name, values in done["parts"].items()}


def _read_record(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return record


def figures(work: Path) -> dict[str, dict[str, Any]]:
    """Return the metrics of every run, and those of plain Python. Raises SystemExit if they differ."""
    folders = {"descriptor": "descriptor", "judge_submission": "judged/submission"}
    folders |= {"judge_predictions": "judged/predictions", "judge_matching": "judged/matching"}
    found = {name: _read_record(work / folder / "metrics.json") for name, folder in folders.items()}
    for plain_name, names in ALIKE.items():
        plain = found[plain_name] = _read_record(work / f"{plain_name}.json")
        for name in names:
            _require_same(name, found[name], plain)
    return found


def _require_same(name: str, one: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    for key, value in plain.items():
        pairs = zip(value, one[key], strict=True) if isinstance(value, list) else [(value, one[key])]
        for expected, got in pairs:
            if expected != got and not (expected is not None and got is not None and abs(expected - got) <= SAME):
                raise SystemExit(f"{name}: {key} is {one[key]}; in plain Python {value}")


def cost_rows(work: Path, size: Size, cost: Mapping[str, Cost]) -> list[dict[str, object]]:
    run, vectors = work / "descriptor", 4 * 256 * (size.queries + size.references)
    bare = _read_record(work / "products.json")["seconds"]
    beside: dict[str, tuple[str, float]] = {
        "descriptor": ("the matrix products alone, 2,000 queries' time scaled", bare),
        "judge_submission": ("the run that wrote it", cost["descriptor"].seconds),
        "judge_predictions": ("bound", BOUND),
        "judge_matching": ("the same without the check", cost["judge_predictions"].seconds),
        "check_descriptor": ("the run that wrote them", cost["descriptor"].seconds),
    }
    rows: list[dict[str, object]] = [
        {
            "what": TOLD[name],
            "measured": f"{cost[name].seconds:,.1f} s",
            "peak memory": f"{cost[name].gb:.2f} GB",
            "beside": what,
            "there": f"{there:,.1f} s",
            "ratio": round(cost[name].seconds / there, 2),
        }
        for name, (what, there) in beside.items()
    ]
    ids = 6 * size.queries + 7 * size.references
    files = {
        run / "submission.h5": ("vectors and ids alone", vectors + ids),
        run / "predictions.csv": ("ids, and eight digits a score", size.pairs * len("Q00000,R000000,-1.2345678\n")),
        work / parts.MATCHING: (
            "ids, and sixteen digits a score", size.pairs * len("Q00000,R000000,0.1234567890123456\n"),
        ),
    }  # fmt: skip
    rows += [
        {
            "what": path.name,
            "measured": f"{path.stat().st_size / 1e6:,.1f} MB",
            "peak memory": "",
            "beside": what,
            "there": f"{there / 1e6:,.1f} MB",
            "ratio": round(path.stat().st_size / there, 3),
        }
        for path, (what, there) in files.items()
    ]
    held = cost["descriptor"].gb
    memory = {"what": "memory of the first run", "measured": f"{held:.2f} GB", "peak memory": f"{held:.2f} GB"}
    memory |= {"beside": "the descriptors of both sides", "there": f"{vectors / 1e9:.2f} GB"}
    return [*rows, memory | {"ratio": round(held * 1e9 / vectors, 2)}]


def score_rows(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, object]]:
    told = {
        "descriptor": "descriptor track, as match.py wrote it",
        "judge_submission": "its submission.h5, searched and judged anew",
        "judge_predictions": "its predictions.csv, read and judged",
        "check_descriptor": "its predictions.csv, in plain Python",
        "judge_matching": "matching track, made scores",
        "check_matching": "the same in plain Python",
    }
    return [
        {
            "file": what,
            "μAP": f"{found[name]['average_precision']:.6f}",
            "recall at 90 % precision": f"{found[name]['recall_at_p90']:.4f}",
            "predictions": f"{found[name]['num_predictions']:,}",
            "true pairs": f"{found[name]['num_positives']:,}",
        }
        for name, what in told.items()
    ]


def publish(name: str, rows: list[dict[str, object]], *, kept: bool) -> None:
    if kept:
        save(name, rows)
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--work", type=Path, help="folder for what is made; what is done there is not done again")
    made.add_argument("--queries", type=int, default=FULL.queries)
    made.add_argument("--references", type=int, default=FULL.references)
    made.add_argument("--descriptors", type=Path, help="of real photos, by isc_small; those of the sample if absent")
    made.add_argument("--rates", action="store_true", help="only measure the extraction of photos of the right size")
    made.add_argument("--costs", action="store_true", help="only add up the hours that the challenge takes")
    made.add_argument("--part", help=argparse.SUPPRESS)
    return made


def check_at_size(work: Path, size: Size, descriptors: Path | None) -> None:
    """Run the parts that are not done yet, compare all figures, and publish the tables."""
    work.mkdir(parents=True, exist_ok=True)
    with sole_writer(work / "lock"):
        cost = run_parts(work, size, descriptors)
        found = figures(work)
    publish("disc21", cost_rows(work, size, cost), kept=size == FULL)
    publish("disc21_scores", score_rows(found), kept=size == FULL)
    if size != FULL:
        print("smaller than the challenge: printed, not kept for docs/results.md")


def main() -> None:
    options = parser().parse_args()
    size = Size(options.queries, options.references)
    if options.costs:
        save("disc21_costs", costs.table())
        return
    if options.work is None or not (10 <= size.queries <= 100_000 and size.copies <= size.references <= 1_000_000):
        fail("--work DIR, 10 to 100,000 --queries, and --references from a fifth of the queries to 1,000,000")
    work, descriptors = options.work.absolute(), options.descriptors and options.descriptors.absolute()
    if options.rates:
        from benchmarks.disc21 import rates  # loads torch, whose memory would count for every child

        save("disc21_rates", rates.table(work))
    elif options.part == "make":
        make(work, size, real_descriptors(descriptors))
    elif options.part:
        OWN[options.part](work, size)
    else:
        try:
            check_at_size(work, size, descriptors)
        except InputError as error:
            fail(str(error))
        except KeyboardInterrupt:
            sys.exit(f"interrupted; the same command goes on in {work}")


if __name__ == "__main__":
    main()
