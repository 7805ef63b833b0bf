"""How often the right item is found: in single photos, and in clips with and without words.

    python -m benchmarks.products RUN_DIR SHOP PHOTOS LABELS.csv CLIPS

RUN_DIR is what train.py experiment=products_small wrote from SHOP, PHOTOS and LABELS.csv, CLIPS what
benchmarks.products_clips made of the photos of the split val. For each model and each choice of evidence, the fusion is
fitted anew on clips simulated from the photos that the network did not learn from; nothing is fitted on val or CLIPS.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import save
from isc.config.products import ProductsConfig, ProductsTask
from isc.model.load_inference import load_inference_model
from isc.products.answers import Answer
from isc.products.evidence import NAMES, PIXELS, WORDS
from isc.products.find import Look, ProductFinder
from isc.products.fusion import Judged, ProductFusion, fit_fusion
from isc.products.judge import judge
from isc.products.regions import best_of_pictures, describe_regions, describe_whole
from isc.products.simulated import simulated_clips
from isc.products.submission import read_truth
from isc.products.train import CLIPS
from isc.products.training_data import ProductData, product_data
from isc.products.transcripts import Spoken, read_transcript
from isc.words.ranking import Figure, ranking_figures, ranks_of_right

WITHOUT_MEANING = tuple(one for one in NAMES if one != "meaning")
CHOICES = {  # of evidence
    "words alone": tuple(one for one in WORDS if one in WITHOUT_MEANING),
    "words alone, and what they mean": WORDS,
    "pixels, best region of any frame": ("best",),
    "pixels, mean of the three best frames": ("top",),
    "pixels, mean over time": ("mean",),
    "pixels, mean by attention": ("attention",),
    "pixels": PIXELS,
    "pixels and words": WITHOUT_MEANING,
    "pixels, words and what they mean": NAMES,
}
SURE = 0.9  # a promised probability
BASELINES = ("imagenet", "isc_small")


def shown(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f}–{figure.high:.3f})"


def held_clips(model: str, data: ProductData) -> list[Judged]:
    """Return clips simulated from the photos that the network did not learn from."""
    network = load_inference_model(model)
    shop = describe_whole(network, data.shop.pixels)
    cosines = best_of_pictures(describe_regions(network, data.held.pixels) @ shop.T, np.array(data.shop.items))
    return simulated_clips(cosines, data.held.items, data.catalogue.items, count=CLIPS, seed=0, sentences=True)


def photo_row(name: str, model: str, data: ProductData) -> dict[str, str]:
    """Return the figures of single photos against the shop's pictures."""
    network = load_inference_model(model)
    shop = describe_whole(network, data.shop.pixels)
    cosines = best_of_pictures(describe_whole(network, data.val.pixels) @ shop.T, np.array(data.shop.items))
    right = np.array(data.val.items)[:, None] == np.arange(len(data.catalogue))
    found = ranking_figures(ranks_of_right(cosines, right))
    return {
        "model": name,
        "R@1": shown(found.recall_at_1),
        "R@5": shown(found.recall_at_5),
        "mAP": shown(found.reciprocal_rank),
        "photos": str(len(data.val)),
    }


def clip_row(
    fusion: ProductFusion, looks: dict[str, Look], finder: ProductFinder, clips: Path, *, model: str, evidence: str
) -> dict[str, str]:
    """Return the figures of clips, answered by this fusion."""
    truth, items = read_truth(clips / "truth.json"), finder.catalogue.items
    answers, ranking, sure = {}, {}, []
    for clip, look in looks.items():
        chances = fusion.probabilities(look.evidence, said=bool(look.said))
        order = np.argsort(-chances[:-1], kind="stable")
        ranking[clip] = [(items[at].item_id, float(chances[at])) for at in order]
        best = int(chances.argmax())
        item_id = None if best == len(items) else items[best].item_id
        answers[clip] = Answer(item_id)
        if chances.max() >= SURE:
            sure.append(item_id == truth[clip].item_id)
    scores = judge(answers, truth, ranking=ranking).overall
    assert scores.ranking is not None
    return {
        "model": model,
        "evidence": evidence,
        "R@1": shown(scores.ranking.recall_at_1),
        "R@5": shown(scores.ranking.recall_at_5),
        "F1 of items": shown(scores.items.f1),
        "none said rightly": shown(scores.specificity),
        f"right at {SURE} or more": f"{np.mean(sure):.3f} of {len(sure)}" if sure else "–",
    }


def whole_scores(finder: ProductFinder, clips: Path, names: Sequence[str]) -> str:
    """Return the scores of whole answers, frames and boxes too."""
    answers = {one: finder.find(clips / "clips" / f"{one}.mp4", spoken(clips, one)).answer for one in names}
    scores = judge(answers, read_truth(clips / "truth.json")).overall
    return f"items {shown(scores.items.f1)}, pairs {shown(scores.pairs.f1)}, boxes {shown(scores.boxes.f1)}"


def spoken(clips: Path, name: str) -> tuple[Spoken, ...]:
    """Return what is said in a clip."""
    files = [clips / "transcripts" / f"{name}{suffix}" for suffix in (".srt", ".json")]
    path = next((one for one in files if one.is_file()), None)
    return () if path is None else read_transcript(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "shop", "photos", "labels", "clips"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    config = ProductsConfig(
        task=ProductsTask.products, images=[str(given.photos)], pairs=str(given.labels), catalogue=str(given.shop),
        output=str(given.run),
    )  # fmt: skip
    data = product_data(config)
    names = {**{one: one for one in BASELINES}, "products_small": str(given.run)}
    save("products_photos", [photo_row(name, model, data) for name, model in names.items()])
    videos = list(read_truth(given.clips / "truth.json"))
    table: list[dict[str, str]] = []
    for name, model in names.items():
        simulated = held_clips(model, data)
        finder = ProductFinder(model, data.catalogue, fusion=fit_fusion(simulated))
        looks = {one: finder.look(given.clips / "clips" / f"{one}.mp4", spoken(given.clips, one)) for one in videos}
        trained = name == "products_small"
        for evidence, use in CHOICES.items():
            if trained or evidence == "pixels":
                fusion = fit_fusion(simulated, use=use)
                row = clip_row(
                    fusion,
                    looks,
                    finder,
                    given.clips,
                    model="" if evidence.startswith("words") else name,
                    evidence=evidence,
                )
                table.append(row)
                print(row, flush=True)
    save("products_clips", table)
    print(whole_scores(ProductFinder(str(given.run), data.catalogue), given.clips, videos))


if __name__ == "__main__":
    main()
