"""Captioning from photos to sentences: the chain learns, writes, refuses bad input by name, and exports."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from isc.cli.words import caption, words
from isc.config.words import GridConfig, Task, WordsConfig, Writes
from isc.errors import InputError
from isc.model.checkpoint import write_checkpoint
from isc.photos.decode import read_image
from isc.serve.providers.captions import CaptionProvider
from isc.words.beam import beam_search
from isc.words.caption_batches import batches, numbered
from isc.words.caption_files import read_captions
from isc.words.caption_losses import masked_loss, matching_loss
from isc.words.caption_metrics import caption_figures
from isc.words.caption_model import Writer, network_evidence
from isc.words.captioner import ALT_TEXT, Caption, Captioner, shortened
from isc.words.captioner_files import load_captioner, network_of
from isc.words.evidence import NAMES, fit_fusion
from isc.words.export import export_captioner
from isc.words.fit_captions import Schedule, fit, grid_tensor
from isc.words.grids import GridNetwork, GridShape, kept_grids
from isc.words.retrieval import pooled
from isc.words.train import train_words
from isc.words.vocabulary import Vocabulary, tokens_of, words_of
from tests.conftest import REPOSITORY, SAMPLE
from tests.words_data import PHOTOS, write_captions

SHAPE = GridShape(image_size=96, side=2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in PHOTOS[:60]:
        (folder / f"{name}.jpg").symlink_to(SAMPLE / f"{name}.jpg")
    return folder


@pytest.fixture(scope="module")
def grids(photos):
    network = GridNetwork(SHAPE)
    return np.concatenate([network.grids([read_image(photos / f"{name}.jpg")]) for name in PHOTOS[:50]])


@pytest.fixture(scope="module")
def model(photos, tmp_path_factory):
    """A captioner of the sample photos, trained by the task itself: retrieval and a small LSTM."""
    folder = tmp_path_factory.mktemp("model")
    pairs = write_captions(folder / "captions.csv", PHOTOS[:60])
    config = WordsConfig(
        task=Task.captioning, images=[str(photos)], pairs=str(pairs), output=str(folder / "captioner"),
        languages=["en", "de"], writes=Writes.lstm, least=1, grid=GridConfig(image_size=96, side=2),
    )  # fmt: skip
    config.train.epochs, config.train.width = 3, 32
    return train_words(config)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lstm", "vlp"])
def test_fifty_pictures_are_learned_by_heart(kind, grids, tmp_path):
    """The loss comes near 0, and beam search writes the captions word for word: the whole chain learns."""
    captions = read_captions(write_captions(tmp_path / "c.csv", PHOTOS[:50], dev=0, each=1)).of(language="en")
    vocabulary = Vocabulary({"en": words_of(captions.texts, "en", least=1)})
    torch.manual_seed(0)
    network = network_of(kind, features=grids.shape[2], shape=SHAPE, rows=len(vocabulary), width=48)
    for part in network.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    learned = numbered(captions, vocabulary, {name: at for at, name in enumerate(PHOTOS[:50])})
    schedule = Schedule(epochs=70, captions=25, lr=6e-3, smoothing=0.0, weight_decay=0.0, matching=0.0)
    loss = fit(network, grids, learned, vocabulary, schedule=schedule)
    assert loss < 0.05
    found = beam_search(network, torch.from_numpy(grids.astype(np.float32)), vocabulary, language="en", beams=3)
    right = [tuple(tokens_of(text, "en")) for text in captions.texts]
    assert sum(one[0].tokens == wanted for one, wanted in zip(found, right, strict=True)) >= 49


def test_a_beam_of_all_captions_finds_the_most_probable_ones(grids, tmp_path):
    """The slow twin: every caption of up to two words, scored by reading it whole."""
    vocabulary = Vocabulary({"en": words_of(["dog cat boat"], "en", least=1)})
    torch.manual_seed(1)
    network = network_of("lstm", features=grids.shape[2], shape=SHAPE, rows=len(vocabulary), width=16).eval()
    grid = torch.from_numpy(grids[:1].astype(np.float32))
    found = beam_search(network, grid, vocabulary, language="en", beams=12, longest=3)[0]
    every = [[2], [3], [4], *([one, two] for one in (2, 3, 4) for two in (2, 3, 4) if one != two)]
    scores = {}
    with torch.inference_mode():
        for row in every:
            read = network.read(network.encode(grid), torch.tensor([[[0, *row]]]), torch.tensor([[len(row) + 1]]))
            logs = network.outputs(read, vocabulary.span("en")).log_softmax(-1)[0, 0]
            scores[tuple(vocabulary.of("en").decode(row))] = float(sum(logs[i, w] for i, w in enumerate([*row, 0])))
    ours = {one.tokens: one.log_probability for one in found if len(one.tokens) < 3}
    assert ours == pytest.approx(scores, rel=1e-4)
    assert found == sorted(found, key=lambda one: -one.score)


def test_the_captions_of_a_picture_do_not_depend_on_its_company(grids):
    """The search goes on for the slowest of a batch, and must not find more for the others meanwhile: so it was."""
    vocabulary = Vocabulary({"en": words_of(["a dog near water and two cats"], "en", least=1)})
    torch.manual_seed(0)
    network = network_of("lstm", features=grids.shape[2], shape=SHAPE, rows=len(vocabulary), width=24).eval()
    with torch.no_grad():
        network.words.weight *= 8  # a network that is sure of its words, so that they differ from picture to picture
    pictures = torch.from_numpy(grids.astype(np.float32)) * 4
    together = beam_search(network, pictures, vocabulary, language="en", beams=4)
    lengths = {len(found[0].tokens) for found in together}
    assert len(lengths) > 2, lengths
    for at, found in enumerate(together):
        [alone] = beam_search(network, pictures[at : at + 1], vocabulary, language="en", beams=4)
        assert [one.tokens for one in alone] == [one.tokens for one in found]


@pytest.mark.parametrize("kind", ["lstm", "vlp"])
def test_a_picture_is_read_the_same_alone_and_in_a_batch(kind, grids):
    vocabulary = Vocabulary({"en": words_of(["a dog near water"], "en", least=1)})
    network = network_of(kind, features=grids.shape[2], shape=SHAPE, rows=len(vocabulary), width=16).eval()
    grid = torch.from_numpy(grids[:3].astype(np.float32))
    rows, lengths = torch.tensor([[[0, 2, 3, 4], [0, 3, 0, 0]]] * 3), torch.tensor([[4, 2]] * 3)
    with torch.inference_mode():
        together = network.read(network.encode(grid), rows, lengths)
        alone = network.read(network.encode(grid[1:2]), rows[:1, :1], lengths[:1, :1])
        state, memory = network.begin(network.encode(grid[1:2])), network.encode(grid[1:2])
        steps = []
        for word in (0, 2, 3, 4):
            vector, state = network.step(memory, state, torch.tensor([word]))
            steps.append(vector)
    assert torch.allclose(together[1, 0], alone[0, 0], atol=1e-5)
    assert torch.allclose(torch.stack(steps, 1)[0], alone[0, 0], atol=1e-5)


@pytest.mark.slow
def test_the_transformer_is_trained_in_three_ways(grids, tmp_path):
    captions = read_captions(write_captions(tmp_path / "c.csv", PHOTOS[:50], dev=0, each=2)).of(language="en")
    vocabulary = Vocabulary({"en": words_of(captions.texts, "en", least=1)})
    learned = numbered(captions, vocabulary, {name: at for at, name in enumerate(PHOTOS[:50])})
    torch.manual_seed(0)
    network = network_of("vlp", features=grids.shape[2], shape=SHAPE, rows=len(vocabulary), width=32)

    def hidden_words():
        torch.manual_seed(5)  # hides the same words
        [batch] = batches(learned, vocabulary, captions=100, rng=np.random.default_rng(0))
        with torch.inference_mode():
            memory = network.eval().encode(grid_tensor(grids, batch.pictures))
            return float(masked_loss(network, memory, batch, vocabulary))

    before = hidden_words()
    fit(network, grids, learned, vocabulary, schedule=Schedule(epochs=1, pretrain=20, captions=20, lr=3e-3))
    assert hidden_words() < 0.7 * before
    batch = next(batches(learned, vocabulary, captions=16, rng=np.random.default_rng(0)))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(80):
        loss = matching_loss(network, network.encode(grid_tensor(grids, batch.pictures)), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.35  # of telling eight pictures' captions apart; guessing has log 2 = 0.69


def test_grids_are_kept_and_made_again_for_other_pictures(photos, tmp_path):
    names = PHOTOS[:3]
    calls = []

    def read(row):
        calls.append(row)
        if row == 1:
            raise InputError("broken.jpg: cut short")
        return read_image(photos / f"{names[row]}.jpg")

    def made(identity):
        return kept_grids(tmp_path / "g.npy", read, count=3, identity=identity, shape=SHAPE)

    first, unreadable = made("a")
    assert unreadable == [(1, "broken.jpg: cut short")]
    assert first.shape == (3, 4, 1280)
    assert not first[1].any()
    again, same = made("a")
    assert (again == first).all()
    assert same == unreadable
    assert len(calls) == 3
    made("b")
    assert len(calls) == 6


def test_the_command_writes_captions(model, photos):
    names = [str(photos / f"{name}.jpg") for name in PHOTOS[:2]]
    done = CliRunner().invoke(caption, [*names, "--model", str(model), "--format", "csv", "--language", "de"])
    rows = list(csv.DictReader(io.StringIO(done.output)))
    assert [row["photo"] for row in rows[::3]] == names
    assert all(0 <= float(row["probability"]) <= 1 and len(row["alt_text"]) <= ALT_TEXT for row in rows)
    nouns = {"Hund", "Baum", "Mann", "Vogel"}
    assert all(nouns & set(row["caption"].split()) for row in rows)  # as Germans write them
    said = json.loads(
        CliRunner().invoke(caption, [names[0], "--model", str(model), "--format", "json", "--count", "2"]).output
    )
    assert len(said[0]["captions"]) == 2
    text = CliRunner().invoke(caption, [names[0], "--model", str(model)]).output
    assert text.splitlines()[0] == names[0]
    assert "alt " in text


def test_a_picture_unlike_all_that_was_learned_from_says_so(model, photos, tmp_path):
    """Probabilities were fitted on photos like those of the training: noise gets none that is believed."""
    noise = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)).save(noise)
    captioner = Captioner(model)
    [strange], [known] = captioner.caption(noise, photos / f"{PHOTOS[0]}.jpg", count=1)
    assert (strange.familiar, known.familiar) == (False, True)
    assert not replace(strange, probability=0.99).sure
    assert strange.shown.startswith("May show: ")
    text = CliRunner().invoke(caption, [str(noise), "--model", str(model)]).output
    assert "flag  unfamiliar: unlike the photos that were learned from" in text
    said = json.loads(CliRunner().invoke(caption, [str(noise), "--model", str(model), "--format", "json"]).output)
    assert said[0]["flags"] == ["unfamiliar"]
    table = CliRunner().invoke(caption, [str(noise), "--model", str(model), "--format", "csv", "--count", "1"]).output
    assert next(csv.DictReader(io.StringIO(table)))["flags"] == "unfamiliar"
    card = json.loads((model / "captioner.json").read_text())
    for path in model.iterdir():
        if path.name != "captioner.json":
            (tmp_path / path.name).symlink_to(path)
    for language in card["languages"].values():
        del language["familiar"]  # a captioner from before
    (tmp_path / "captioner.json").write_text(json.dumps(card))
    assert Captioner(tmp_path).caption(noise, count=1)[0][0].familiar


def test_figures_of_the_training_are_written(model):
    said = json.loads((model / "metrics.json").read_text())
    english = said["languages"]["en"]
    assert {"retrieval", "retrieval_and_network", "network", "shown", "reliability"} <= english.keys()
    assert english["shown"]["pictures"] == 4
    assert 0 <= english["shown"]["bleu_4"][0] <= 1
    assert said["loss"]["dev"].keys() == {"en", "de"}
    assert 100 < said["memory_mb"] < 10_000


def test_the_captions_that_were_judged_give_the_figures(model):
    english = json.loads((model / "metrics.json").read_text())["languages"]["en"]
    with (model / "judged.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["language"] for row in rows} == {"en", "de"}
    answers = read_captions(model.parent / "captions.csv").of(language="en", split="dev").by_picture()
    assert {row["photo_id"] for row in rows} == set(list(answers)[1::2])
    for by in ("retrieval", "retrieval_and_network", "network"):
        said = {row["photo_id"]: row["caption"] for row in rows if (row["language"], row["by"]) == ("en", by)}
        ours = [tokens_of(text, "en") for text in said.values()]
        figures = caption_figures(ours, [[tokens_of(one, "en") for one in answers[name]] for name in said])
        assert figures.as_dict()["bleu_1"] == english[by]["bleu_1"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_the_picture_of_the_page_is_drawn_from_a_captioner(model, tmp_path):
    command = [sys.executable, REPOSITORY / "docs" / "captions.py", model, tmp_path / "captions.jpg"]
    subprocess.run(command, check=True, cwd=REPOSITORY)
    with Image.open(tmp_path / "captions.jpg") as picture:
        assert picture.width == 1100
        assert picture.height > 400


def test_the_library_takes_paths_and_pixels(model, photos):
    captioner = Captioner(model)
    path = photos / f"{PHOTOS[0]}.jpg"
    assert captioner.caption(path, read_image(path)) == captioner.caption(path) * 2
    assert captioner.languages == ("en", "de")


def test_bad_input_is_refused_by_name(model, photos, tmp_path):
    captioner = Captioner(model)
    with pytest.raises(InputError, match="language=xx: unknown; expected one of en, de"):
        captioner.caption(photos / f"{PHOTOS[0]}.jpg", language="xx")
    with pytest.raises(InputError, match="language=zh: not learned"):
        captioner.caption(photos / f"{PHOTOS[0]}.jpg", language="zh")
    with pytest.raises(InputError, match="isc train experiment=captioning_retrieval"):
        Captioner()
    with pytest.raises(InputError, match="isc train experiment=captioning_retrieval"):
        Captioner(tmp_path)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    done = CliRunner().invoke(caption, [str(broken), "--model", str(model)])
    assert isinstance(done.exception, InputError)
    assert "broken.jpg" in str(done.exception)


@pytest.mark.parametrize("name", ["captioner.json", "retrieval.safetensors", "network.safetensors", "captions.csv"])
def test_a_damaged_folder_is_refused(name, model, tmp_path):
    for path in model.iterdir():
        if path.name != name:
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / name).write_bytes((model / name).read_bytes()[:100])
    with pytest.raises(InputError):
        Captioner(tmp_path)


def test_training_refuses_what_it_cannot_learn(photos, tmp_path):
    pairs = write_captions(tmp_path / "c.csv", [*PHOTOS[:60], "absent"])
    config = WordsConfig(
        task=Task.captioning, images=[str(photos)], pairs=str(pairs), output=str(tmp_path / "out"), writes=Writes.none
    )
    with pytest.raises(InputError, match="picture 'absent' is not among the photos"):
        train_words(config)
    config.languages = ["xx"]
    with pytest.raises(InputError, match="languages=xx: unknown"):
        train_words(config)
    config.languages = ["zh"]
    with pytest.raises(InputError, match="holds no caption in Chinese"):
        train_words(config)


@pytest.mark.parametrize(
    ("task", "name"), [(Task.captioning, "network.safetensors"), (Task.captions, "matcher.safetensors")]
)
def test_a_training_that_was_broken_off_goes_on_to_the_same_weights(task, name, photos, tmp_path, monkeypatch):
    pairs = write_captions(tmp_path / "c.csv", PHOTOS[:60])

    def config(output, **more):
        made = WordsConfig(
            task=task, images=[str(photos)], pairs=str(pairs), output=str(tmp_path / output), least=1,
            grids=str(tmp_path / "grids.npy"), grid=GridConfig(image_size=96, side=2), **more,
        )  # fmt: skip
        made.train.epochs, made.train.width = 3, 32
        return made

    def break_off(path, state):
        write_checkpoint(path, state)
        if state["epoch"] == 2:
            raise KeyboardInterrupt

    whole = train_words(config("whole"))
    monkeypatch.setattr("isc.words.epoch_states.write_checkpoint", break_off)
    with pytest.raises(KeyboardInterrupt):
        train_words(config("broken"))
    monkeypatch.setattr("isc.words.epoch_states.write_checkpoint", write_checkpoint)
    with pytest.raises(InputError, match="go on with resume=true"):
        train_words(config("broken"))
    with pytest.raises(InputError, match=r"was made with seed=0, now seed=1"):
        train_words(config("broken", resume=True, seed=1))
    broken = train_words(config("broken", resume=True))
    assert (broken / name).read_bytes() == (whole / name).read_bytes()
    write_captions(pairs, PHOTOS[1:60])
    with pytest.raises(InputError, match=r"other captions than those of the checkpoint"):
        train_words(config("broken", resume=True))


def test_a_caption_that_is_not_sure_says_so_and_fits_a_screen_reader():
    sure, unsure = Caption("A dog", 0.7, "en"), Caption("Ein Hund", 0.2, "de")
    assert (sure.shown, unsure.shown) == ("A dog", "Zeigt vielleicht: Ein Hund")
    long = Caption("A dog " + "and a cat " * 30, 0.9, "en")
    assert len(long.alt_text) <= ALT_TEXT
    assert long.alt_text.endswith(("cat…", "a…", "and…"))
    assert len(shortened("狗" * 300, ALT_TEXT)) == ALT_TEXT
    with pytest.raises(InputError):
        Caption("", 0.5, "en")


def test_words_come_back_as_people_write_them():
    words = words_of(["Der Hund läuft.", "Ein Hund am Wasser"], "de", least=1)
    assert words.sentence(["ein", "hund", "am", "wasser"]) == "Ein Hund am Wasser"
    assert tokens_of("A dog's t-shirt, wet .", "en") == ["a", "dog's", "t-shirt", "wet"]
    assert tokens_of("在木头上的 2 只狗。", "zh") == ["在", "木", "头", "上", "的", "2", "只", "狗"]
    assert tokens_of("حِفَلات", "ar") == ["حفلات"]
    chinese = words_of(["一只狗"], "zh", least=1)
    assert chinese.sentence(["狗", "只"]) == "狗只"


def test_the_fusion_finds_what_tells_good_captions():
    rng = np.random.default_rng(0)
    rows = [rng.random((8, len(NAMES))) for _ in range(200)]
    quality = [np.clip(2 * one[:, 0] - 0.5 * one[:, 3] + rng.normal(0, 0.1, 8), 0, None) for one in rows]
    fusion = fit_fusion(rows[:100], quality[:100], good=1.5)
    picked = [values[fusion.expected(one).argmax()] for one, values in zip(rows[100:], quality[100:], strict=True)]
    best = [values.max() for values in quality[100:]]
    assert np.mean(picked) > 0.95 * np.mean(best)
    probability = np.array([fusion.probability(one).max() for one in rows[100:]])
    assert probability.mean() == pytest.approx(np.mean(np.array(picked) >= 1.5), abs=0.1)


def test_the_matching_head_judges_each_caption_for_itself(grids):
    """Padding to the longest of the captions changes nothing, and an LSTM, which has no such head, says nothing."""
    vocabulary = Vocabulary({"en": words_of(["a dog near water"], "en", least=1)})
    captions = [("a", "dog", "near", "water"), ("water",), ("a", "cat")]
    for kind in ("vlp", "lstm"):
        torch.manual_seed(0)
        network = network_of(kind, features=grids.shape[2], shape=SHAPE, rows=len(vocabulary), width=16).eval()
        writer = Writer(network, vocabulary)
        mean, matching = network_evidence(writer, grids[:1], captions, language="en")
        for at, one in enumerate(captions):
            alone = network_evidence(writer, grids[:1], [one], language="en")
            assert alone[0][0] == pytest.approx(mean[at], abs=1e-5)
            if matching is not None:
                assert alone[1][0] == pytest.approx(matching[at], abs=1e-5)
        assert (matching is not None) == (kind == "vlp")
    assert len(set(mean)) == 3


def test_a_captioner_from_before_the_matching_head_orders_as_it_did(model, tmp_path):
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    card = json.loads((tmp_path / "captioner.json").read_text())
    for language in card["languages"].values():
        del language["fusion"]["weights"][NAMES.index("matching") :]
    (tmp_path / "captioner.json").write_text(json.dumps(card))
    older, newer = load_captioner(tmp_path).languages, load_captioner(model).languages
    assert older["en"].fusion == newer["en"].fusion  # an LSTM gives the head no weight


def test_pooled_features_have_unit_length(grids):
    assert np.linalg.norm(pooled(grids), axis=1) == pytest.approx(np.ones(50), abs=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "vlp"])
def test_networks_become_onnx_files_that_write_the_same(kind, grids, model, tmp_path):
    vocabulary = Vocabulary({"en": words_of(["a dog near water"], "en", least=1)})
    network = network_of(kind, features=grids.shape[2], shape=SHAPE, rows=len(vocabulary), width=16).eval()
    parts = replace(load_captioner(model), writer=Writer(network, vocabulary), kind=kind)
    apart = export_captioner(parts, tmp_path)
    assert max(apart.values()) < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.onnx", "step.onnx"]
    with pytest.raises(InputError, match="has no network"):
        export_captioner(replace(parts, writer=None), tmp_path)


def test_the_command_exports_the_network(model, tmp_path):
    done = CliRunner().invoke(words, ["export", str(model), str(tmp_path / "onnx")], standalone_mode=False)
    assert done.exception is None, done.exception
    written = sorted(path.name for path in (tmp_path / "onnx").iterdir())
    assert written == sorted(line.split(":")[0].split("/")[-1] for line in done.output.splitlines())
    assert all(name.endswith(".onnx") for name in written)
    refused = CliRunner().invoke(words, ["export", str(tmp_path), str(tmp_path / "none")], standalone_mode=False)
    assert isinstance(refused.exception, InputError)
    assert not (tmp_path / "none").exists()


def test_the_service_gets_captions(model, photos):
    context = mock.Mock()
    provider = CaptionProvider(context=context, model=str(model), languages=("en", "de"), count=2)
    picture = mock.Mock(pixels=read_image(photos / f"{PHOTOS[0]}.jpg"))
    [answer] = provider.describe([picture])
    assert [one.language for one in answer] == ["en", "en", "de", "de"]
    assert all(0 <= one.certainty <= 1 for one in answer)
    assert provider.version == CaptionProvider(context=context, model=str(model)).version
    with pytest.raises(InputError, match="language=xx"):
        CaptionProvider(context=context, model=str(model), languages=("xx",))
