"""Generator of docs/figure.jpg from a finished demo: a hard copy and its region, and the best wrong pair, rejected.

python docs/figure.py demo docs/figure.jpg             as `make results` does
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from isc.benchmark.edit_log import read_edits
from isc.data.csv_files import read_ground_truth, read_predictions
from isc.photos.decode import read_image
from isc.photos.folders import list_images

HEIGHT, GAP, INK, MARK = 240, 16, (40, 40, 40), (0, 200, 120)


def panel(path: Path, region: list[list[float]] | None) -> Image.Image:
    """Return the picture, HEIGHT pixels high, with the region outlined."""
    picture = Image.fromarray(read_image(path))
    picture = picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT), Image.Resampling.LANCZOS)
    if region:
        corners = [(x * (picture.width - 1), y * (picture.height - 1)) for x, y in region]
        ImageDraw.Draw(picture).line([*corners, corners[0]], fill=MARK, width=5, joint="curve")
    return picture


def row(pictures: list[Image.Image], caption: str) -> Image.Image:
    width = sum(p.width for p in pictures) + GAP * (len(pictures) - 1)
    font = ImageFont.load_default(size=18)
    width = max(width, int(font.getlength(caption)))
    result = Image.new("RGB", (width, HEIGHT + 34), "white")
    left = 0
    for picture in pictures:
        result.paste(picture, (left, 0))
        left += picture.width + GAP
    ImageDraw.Draw(result).text((0, HEIGHT + 6), caption, fill=INK, font=font)
    return result


def main(demo: Path, output: Path) -> None:
    benchmark, matching = demo / "benchmark", demo / "matching"
    truth = read_ground_truth(benchmark / "ground_truth.csv")
    edits = read_edits(benchmark / "edits.jsonl")
    queries, references = list_images(benchmark / "queries"), list_images(benchmark / "references")
    threshold = json.loads((matching / "metrics.json").read_text(encoding="utf-8"))["threshold_at_p90"]
    lines = (matching / "evidence.jsonl").read_text(encoding="utf-8").splitlines()
    evidence = {(e["query_id"], e["reference_id"]): e for e in map(json.loads, lines)}
    matches = read_predictions(matching / "predictions.csv")
    correct, order = truth.correct(matches), matches.order()

    def pair(at: int) -> tuple[str, str]:
        return str(matches.query_ids[matches.query[at]]), str(matches.reference_ids[matches.reference[at]])

    found = [at for at in order if correct[at] and matches.score[at] >= threshold and pair(at) in evidence]
    copy = max(found, key=lambda at: (len(edits[pair(at)[0]]), evidence[pair(at)]["inliers"]))
    miss = next(at for at in order if not correct[at] and matches.score[at] < threshold)
    rows = []
    for at, verdict in ((copy, "found"), (miss, "rejected")):
        query, reference = pair(at)
        mark = evidence.get((query, reference), {}) if at == copy else {}
        how = ", ".join(edit.describe() for edit in edits[query]) if at == copy else "another photo"
        pictures = [
            panel(queries[query], mark.get("query_region")),
            panel(references[reference], mark.get("reference_region")),
        ]
        rows.append(row(pictures, f"{verdict}: score {matches.score[at]:.3f}, threshold {threshold:.3f} · {how}"))
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows) + GAP), "white")
    for top, one in zip(np.cumsum([0, rows[0].height + GAP]), rows, strict=True):
        sheet.paste(one, (0, int(top)))
    sheet.save(output, quality=90)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
