"""benchmarks/results/*.json → docs/results.md and the table of the README, so that no figure is typed by hand."""

import json
import re
from pathlib import Path

from benchmarks import RESULTS

ROOT = Path(__file__).parent.parent
TITLES = {
    "demo": "The demo: `make demo`",
    "demo_cost": "What the demo costs: `python -m benchmarks.demo`",
    "ship": "The shipped model: `python -m benchmarks.ship RUN_DIR`",
    "judge": "AugLy's edits of photos kept out of training: `python -m benchmarks.judge score JUDGE MODEL`",
    "judge_edits": "Of the copies with an edit in their chain, the share found at 90 % precision: the same command",
    "ablation": "What each part of the recipe is worth: `python -m benchmarks.ablation PHOTOS JUDGE RUNS`",
    "normalize": "Normalisation, fitted on training photos, its options found on dev: `python -m benchmarks.normalize`",
    "matching": "What each part of the matching track adds: `python -m benchmarks.matching JUDGE --work DIR`",
    "matching_edits": "Which copies it finds and why it misses the others: the same command",
    "matching_reliability": "How far its probabilities may be believed: the same command",
    "pair_matcher": "What a learned pair matcher would add (dev): `python -m benchmarks.pair_matcher judge JUDGE WORK`",
    "candidates": "What more looks at the queries add: `python -m benchmarks.candidates FOLDER … --work DIR`",
    "candidates_edits": "Copies among the ten nearest, by edit: the same command",
    "verify": "Comparing the pixels of ten candidates, one core: `python -m benchmarks.verify`",
    "verify_cores": "The same on several cores: the same command",
    "score": "Judging: `python -m benchmarks.score`",
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
    "index": "The index that lives: `python -m benchmarks.index`",
    "train_cpu": "Training on a CPU, sample photos: `python -m benchmarks.train`",
    "train_cpu_measures": "What each measure of speed is worth on a CPU, on ready tensors: the same command",
    "train_cuda": "Training on a GPU, sample photos: `python -m benchmarks.train`",
    "train_cuda_measures": "What each measure of speed is worth on a GPU, on ready tensors: the same command",
    "network": "The network on a CPU, keeping freed memory: `python -m benchmarks.network`",
}


def markdown_table(rows: list[dict[str, object]]) -> str:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def adopt(folder: Path, name: str) -> None:
    """Take over the table of a finished demo folder."""
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
    (RESULTS / f"{name}.json").write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    if (ROOT / "demo" / "demo.json").exists():
        adopt(ROOT / "demo", "demo")
    tables = {
        name: markdown_table(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))
        for name in TITLES
        if (RESULTS / f"{name}.json").exists()
    }
    parts = ["# Results", "Made by `python -m benchmarks.results` from the JSON files in `benchmarks/results`."]
    parts += [f"## {TITLES[name]}\n\n{table}" for name, table in tables.items()]
    (ROOT / "docs" / "results.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    pages = {"demo": "README.md", "normalize": "docs/normalization.md", "extract": "docs/extraction.md"}
    scale = ("approximate", "approximate_made", "growth", "growth_paper", "cluster", "cluster_run")
    pages |= dict.fromkeys(scale, "docs/scale.md")
    pages |= dict.fromkeys(
        ("matching", "matching_edits", "matching_reliability", "pair_matcher", "candidates", "verify"),
        "docs/matching.md",
    )
    for name, page in pages.items():
        if name in tables:
            fill(ROOT / page, name, tables[name])


def fill(page: Path, name: str, table: str) -> None:
    """Put the table where the page has `<!-- name -->`, up to `<!-- /name -->`."""
    marked = re.sub(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
        lambda found: found.group(1) + table + "\n" + found.group(2),
        page.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    page.write_text(marked, encoding="utf-8")


if __name__ == "__main__":
    main()
