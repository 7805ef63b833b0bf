"""docs/results.md, and the tables and figures of other pages, filled from benchmarks/results/*.json.

A page has a table between `<!-- NAME -->` and `<!-- /NAME -->`, and a figure in a sentence between `<!--=NAME-->` and
`<!--/-->`. `python -m benchmarks.results` fills them all. A test fails if a page shows anything else.
If there is a finished demo in demo/, its tables are adopted and the pictures of it drawn anew.
"""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import RESULTS

ROOT = Path(__file__).parent.parent
PICTURES = {"docs/figure.jpg": "docs/figure.py", "docs/report.jpg": "docs/report.py"}  # picture: its program
PICTURES_MADE = RESULTS / "pictures.json"
TITLES = {
    "demo": "The demo: `make demo`",
    "disc21": "DISC21 at full size, made descriptors: `python -m benchmarks.disc21 --work DIR --descriptors PHOTOS.h5`",
    "disc21_scores": "What its files score: the same command",
    "disc21_rates": "Extraction of photos of the challenge's size: `python -m benchmarks.disc21 --work DIR --rates`",
    "disc21_costs": "What the challenge takes, from measured rates: `python -m benchmarks.disc21 --costs`",
    "demo_cost": "What the demo costs: `python -m benchmarks.demo`",
    "ship": "The shipped model: `python -m benchmarks.ship RUN_DIR`",
    "judge": "AugLy's edits of photos kept out of training: `python -m benchmarks.judge score JUDGE MODEL`",
    "judge_edits": "Of the copies with an edit in their chain, the share found at 90 % precision: the same command",
    "judge_tools": "Edits by ImageMagick, ffmpeg and others: the same with a judge of `make --edits tools`",
    "judge_tools_edits": "Of the copies with such an edit, the share found at 90 % precision: the same command",
    "peers_models": "Which edits a model withstands: `python -m benchmarks.peers BENCH MODEL … --matching`",
    "peers_kinds": "Recall at 90 % precision by edit, per cent, light · medium · strong: the same command",
    "ablation": "What each part of the recipe is worth: `python -m benchmarks.ablation PHOTOS RUNS JUDGE JUDGE`",
    "normalize": "Normalisation, fitted on training photos, its options found on dev: `python -m benchmarks.normalize`",
    "matching": "What each part of the matching track adds: `python -m benchmarks.matching JUDGE --work DIR`",
    "matching_edits": "Which copies it finds and why it misses the others: the same command",
    "matching_reliability": "How far its probabilities may be believed: the same command",
    "matching_tools": "The same by other tools' edits: `python -m benchmarks.matching JUDGE --work DIR`",
    "matching_tools_edits": "Which of these copies it finds and why it misses the others: the same command",
    "matching_tools_reliability": "How far its probabilities may be believed on these: the same command",
    "candidates": "What more views of the queries add: `python -m benchmarks.candidates FOLDER … --work DIR`",
    "candidates_edits": "Copies among the ten nearest, by edit: the same command",
    "verify": "Comparing the pixels of ten candidates, one core: `python -m benchmarks.verify`",
    "verify_cores": "The same on several cores: the same command",
    "start": "From a cold start: `python -m benchmarks.start`",
    "tests": "What the tests take: `python -m benchmarks.tests`",
    "install": "What each way to install takes: `python -m benchmarks.install`",
    "install_pythons": "Every extra on each Python, those with torch as one: `python -m benchmarks.install --python …`",
    "find": "The verdicts of isc find: `python -m benchmarks.find JUDGE …`",
    "calibration": "Do probabilities and thresholds hold: `python -m benchmarks.calibration NAME=RUN_DIR:GT.csv …`",
    "versions": "Versions of one picture among references: `python -m benchmarks.versions PHOTOS ALIKE`",
    "video": "Photos in videos: `python -m benchmarks.video PHOTOS WORK`",
    "video_reading": "Reading frames: the same command",
    "duplicates": "Duplicates in a folder, beside other programs: `python -m benchmarks.duplicates JUDGE …`",
    "words": "Captions of photos: `python -m benchmarks.words CAPTIONS.csv FOLDER …`",
    "words_pixels": "Captions found by pixels alone: `python -m benchmarks.words_pixels PHOTOS CAPTIONS.csv TOWERS`",
    "words_scale": "Texts found at the size of the competition, synthetic: `python -m benchmarks.words_scale`",
    "words_names": "Captions found by file names and pixels, NDCG@5: `python -m benchmarks.words_names STAMPS TOWERS`",
    "products_photos": "Items in single photos: `python -m benchmarks.products RUN_DIR SHOP PHOTOS LABELS.csv CLIPS`",
    "products_clips": "Items in clips: the same command",
    "score": "Judging: `python -m benchmarks.score`",
    "report": "The report: `python -m benchmarks.report`",
    "search": "Search: `python -m benchmarks.search`",
    "search_cuda": "Search on a GPU: the same command",
    "extract": "Extraction on a CPU: `python -m benchmarks.extract`",
    "extract_cuda": "Extraction on a GPU: the same command",
    "extract_groups": "The network alone, by pictures a core embeds at once: `python -m benchmarks.extract --groups`",
    "extract_precision": "What bfloat16 leaves of the descriptors: the same command",
    "extract_names": "Listing photos: `python -m benchmarks.extract --names 10000000`",
    "cluster_run": "A cluster on one machine beside one process: `python -m benchmarks.cluster`",
    "cluster": "What more photos would take on a cluster, by those constants: the same command",
    "approximate": "Approximate search beside exact: `python -m benchmarks.approximate --descriptors PHOTOS.h5`",
    "approximate_made": "The made descriptors of these measurements beside real ones: the same command",
    "growth": "How search grows (docs/scale.md): `python -m benchmarks.growth --descriptors PHOTOS.h5`",
    "growth_paper": "What more references would take, by those constants: the same command",
    "index": "The updatable index: `python -m benchmarks.index`",
    "train_cpu": "Training on a CPU, sample photos: `python -m benchmarks.train`",
    "train_cpu_measures": "What each measure of speed is worth on a CPU, on ready tensors: the same command",
    "train_loader": "CPU time of a view of training, photos of 1,024 px: `python -m benchmarks.train_loader`",
    "train_cuda": "Training on a GPU, sample photos: `python -m benchmarks.train`",
    "train_cuda_measures": "What each measure of speed is worth on a GPU, on ready tensors: the same command",
    "fuzz": "Changed files that were read, refused in one line, or failed: `make fuzz`",
    "kills": "Kills; outputs were whole or absent after each: `ISC_KILLS=30 ISC_SAVE=1 pytest tests/test_kills.py`",
    "serve": "The review service under load: `python -m benchmarks.serve --images 10000 1000000 --workers 1 2`",
    "serve_knee": "The knee of the review service, and what one more worker adds: the same command",
    "feedback": "What verdicts of reviewers change: `python -m benchmarks.feedback JUDGE=RUN:GT.csv …`",
    "serve_backlog": "A backlog of the review service, answered: `python -m benchmarks.serve_backlog --workers 1 2`",
    "serve_memory": "The PDQ hashes of a worker in memory: `python -m benchmarks.serve_memory --hashes 10000000`",
    "network": "The network on a CPU, keeping freed memory: `python -m benchmarks.network`",
}


Rows = Sequence[Mapping[str, Any]]

_DISC21 = ("disc21", "disc21_scores", "disc21_rates", "disc21_costs")
_SCALE = ("approximate", "approximate_made", "growth", "growth_paper", "cluster", "cluster_run")
_MATCHING = (
    "matching", "matching_edits", "matching_reliability", "matching_tools", "matching_tools_edits",
    "matching_tools_reliability", "candidates", "verify",
)  # fmt: skip
TABLES = {  # the page that shows a table besides docs/results.md
    "demo": "README.md",
    "headline": "README.md",
    "find": "docs/find.md",
    **dict.fromkeys(("video", "video_reading"), "docs/video.md"),
    **dict.fromkeys(("fuzz", "kills"), "docs/reliability.md"),
    "peers_models": "docs/robustness.md",
    **dict.fromkeys(("calibration", "versions"), "docs/calibration.md"),
    **dict.fromkeys(_DISC21, "docs/disc21.md"),
    "normalize": "docs/normalization.md",
    "words": "docs/words.md",
    "words_pixels": "docs/words.md",
    "words_names": "docs/words.md",
    "words_scale": "docs/words.md",
    "products_photos": "docs/products.md",
    "products_clips": "docs/products.md",
    "extract": "docs/extraction.md",
    **dict.fromkeys(("serve", "serve_knee", "serve_backlog", "serve_memory"), "docs/serve.md"),
    "train_loader": "docs/gpu.md",
    **dict.fromkeys(_SCALE, "docs/scale.md"),
    **dict.fromkeys(_MATCHING, "docs/matching.md"),
}
SHIPPED = "isc_small, as shipped"
MATCHED = "as match.py does it"  # the row of benchmarks.matching


def _found(edits: str) -> Callable[[Mapping[str, Rows]], str]:
    """Return a figure: the share of the copies with this number of edits that the shipped model finds."""
    return lambda tables: f"{float(_row(tables['judge_edits'], edits)[SHIPPED]):.0%}".replace("%", " %")


def _size(name: str) -> Callable[[Mapping[str, Rows]], str]:
    return lambda tables: f"{tables['demo_sizes'][0][name]:,}"


def _peers(what: str) -> Callable[[Mapping[str, Rows]], str]:
    """Return a figure of the robustness table: its copies, or its kinds and strengths of edits."""

    def figure(tables: Mapping[str, Rows]) -> str:
        cells = [row for row in tables["peers"] if row["model"] == tables["peers"][0]["model"]]
        return f"{sum(row['copies'] for row in cells) if what == 'copies' else len(cells):,}"

    return figure


WITH_FIGURES = ("README.md", "docs/research.md")  # pages with figures in their sentences
FIGURES: dict[str, Callable[[Mapping[str, Rows]], str]] = {
    "demo copies": _size("positive_queries"),
    "demo copied": _size("copied"),
    "demo queries": _size("queries"),
    "demo training": _size("training"),
    "peers copies": _peers("copies"),
    "peers cells": _peers("cells"),
    "judge references": lambda tables: f"{tables['judge_sizes'][0]['references']:,}",
    "model MB": lambda tables: f"{int(tables['ship'][0]['value'].replace(',', '')) / 1e6:.1f} MB",
    "one edit": _found("one edit"),
    "four edits": _found("4 edits"),
}


def _row(rows: Rows, name: str) -> Mapping[str, Any]:
    """Return the row whose first column is `name`."""
    return next(row for row in rows if next(iter(row.values())) == name)


def _headline(name: str, row: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "": name,
        "AugLy's edits: μAP": row["μAP"],
        "95 %": row["μAP, 95 %"],
        "recall at 90 % precision": row["recall at 90 % precision"],
        "other tools' edits: μAP": other["μAP"],
        "95 % ": other["μAP, 95 %"],
        "recall at 90 % precision ": other["recall at 90 % precision"],
    }


def _with_pixels(rows: Rows) -> Mapping[str, Any]:
    """Return the row of match.py, with an interval of 1.96 standard errors to either side."""
    row = _row(rows, MATCHED)
    value, error = float(row["μAP"]), 1.96 * float(row["standard error"])
    return {**row, "μAP, 95 %": f"{value - error:.3f} … {value + error:.3f}"}


def headline(tables: Mapping[str, Rows]) -> Rows:
    """Return both judges' figures side by side: descriptors alone, and the shipped model with pixels compared."""
    other = {row[""]: row for row in tables["judge_tools"]}
    rows = []
    for row in tables["judge"]:
        if (name := row[""]) in other:
            rows.append(_headline(name, row, other[name]))
        if name == SHIPPED:
            pixels = (_with_pixels(tables[track]) for track in ("matching", "matching_tools"))
            rows.append(_headline(f"{name}, pixels compared", *pixels))
    return rows


def markdown_table(rows: Rows) -> str:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def adopt(folder: Path) -> dict[str, Rows]:
    """Return the tables of a finished demo: its metrics, and the sizes of its benchmark."""
    rows = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    table = [
        {
            "": what,
            "μAP": f"{row['average_precision']:.3f}",
            "recall at 90 % precision": f"{row['recall_at_p90']:.3f}",
            "recall at rank 1": f"{row['recall_at_rank1']:.3f}",
        }
        for what, row in rows.items()
    ]
    sizes = json.loads((folder / "benchmark" / "benchmark.json").read_text(encoding="utf-8"))["made"]["sizes"]
    sizes["queries"] = sizes["positive_queries"] + sizes["distractor_queries"]
    return {"demo": table, "demo_sizes": [sizes]}


def pages(tables: Mapping[str, Rows]) -> dict[Path, str]:
    """Return every page with figures, by its path in the repository, filled from the tables."""
    parts = ["# Results", "Made by `python -m benchmarks.results` from the JSON files in `benchmarks/results`."]
    parts += [f"## {title}\n\n{markdown_table(tables[name])}" for name, title in TITLES.items() if name in tables]
    tables = {**tables, "headline": headline(tables)}
    made = {Path("docs/results.md"): "\n\n".join(parts) + "\n"}
    for page in sorted({*map(Path, TABLES.values()), *map(Path, WITH_FIGURES)}):
        text = (ROOT / page).read_text(encoding="utf-8")
        for name in (name for name, where in TABLES.items() if Path(where) == page and name in tables):
            text = fill(text, f"<!-- {name} -->\n", markdown_table(tables[name]) + "\n", f"<!-- /{name} -->")
        for name in set(re.findall(r"<!--=(.*?)-->", text)):
            text = fill(text, f"<!--={name}-->", FIGURES[name](tables), "<!--/-->")
        made[page] = text
    return made


def fill(text: str, start: str, value: str, end: str) -> str:
    """Return the text with `value` between each pair of marks."""
    pattern = rf"({re.escape(start)}).*?({re.escape(end)})"
    return re.sub(pattern, lambda found: found.group(1) + value + found.group(2), text, flags=re.DOTALL)


def read_tables() -> dict[str, Rows]:
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(RESULTS.glob("*.json"))
        if path != PICTURES_MADE
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def draw(demo: Path) -> None:
    """Make the pictures of the demo anew, and keep of which demo and which bytes they are."""
    for program in PICTURES.values():
        subprocess.run([sys.executable, ROOT / program, demo, (ROOT / program).with_suffix(".jpg")], check=True)
    made = {"demo": sha256(RESULTS / "demo.json"), **{name: sha256(ROOT / name) for name in PICTURES}}
    PICTURES_MADE.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    demo = ROOT / "demo"
    if (demo / "demo.json").exists():
        for name, table in adopt(demo).items():
            text = json.dumps(table, indent=2, ensure_ascii=False) + "\n"
            (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")
        draw(demo)
    for page, text in pages(read_tables()).items():
        (ROOT / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
