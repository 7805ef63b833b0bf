"""Published weights: the mapped network equals one written here from the papers, and nothing of a file is run."""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import http.server
import os
import pickle
import threading
import zipfile
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from isc.errors import InputError
from isc.model import download as checkpoints
from isc.model.download import cache_folder, fetch, is_url
from isc.model.load import load_model
from isc.model.published import is_published, load_into, read_checkpoint, read_state, without_conv_head

NOTHING = hashlib.sha256(b"").hexdigest()


def pictures(num: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (num, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def settle(network: nn.Module) -> nn.Module:
    """Norms that differ from channel to channel, and let features neither vanish nor explode in 57 blocks."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(5)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.weight.uniform_(0.85, 1.05)
                norm.bias.uniform_(-0.05, 0.05)
                norm.running_mean.uniform_(-0.05, 0.05)
                norm.running_var.uniform_(0.8, 1.2)
    return network.eval()


# --- SSCD ------------------------------------------------------------------------------------------------------------


def published_gem(features: torch.Tensor, power: float) -> torch.Tensor:
    return features.clamp(min=1e-6).pow(power).mean(dim=(2, 3)).pow(1 / power)


class PublishedSscd(nn.Module):
    """What SSCD's files are weights of: torchvision's ResNet-50 with 512 outputs, GeM before its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet50(num_classes=512)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        net = self.backbone
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        return F.normalize(net.fc(published_gem(x, 3.0)))


@pytest.fixture(scope="module")
def sscd() -> PublishedSscd:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return settle(PublishedSscd())


@pytest.fixture
def sscd_file(sscd, tmp_path) -> Path:
    path = tmp_path / "sscd_disc_mixup.torchvision.pt"
    torch.save(sscd.state_dict(), path)
    return path


def test_sscd_gives_the_descriptors_of_the_published_network(sscd, sscd_file):
    model = load_model(str(sscd_file))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        theirs = sscd((pictures() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        ours = model(pictures())
    assert ours.shape == (2, 512)
    assert theirs.diff(dim=0).norm() > 0.01, "the pictures must differ for the test to say something"
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_sscd_settings(sscd_file):
    settings, state = read_checkpoint(sscd_file)
    assert settings == {
        "backbone": "resnet50",
        "dim": 512,
        "gem_power": 3.0,
        "batch_norm": False,
        "conv_head": True,
        "image_size": 320,
    }
    assert {name for name in state if not name.startswith("backbone.")} == {"linear.weight", "linear.bias"}
    assert not any(name.startswith("backbone.fc") for name in state)


def test_sscd_of_another_length_and_without_counters(sscd, tmp_path):
    state = {name: value for name, value in sscd.state_dict().items() if not name.endswith("num_batches_tracked")}
    state |= {"backbone.fc.weight": torch.ones(16, 2048), "backbone.fc.bias": torch.zeros(16)}
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    model = load_model(str(path))
    assert model.config.dim == 16
    assert torch.equal(model.linear.weight, torch.ones(16, 2048))


def test_a_projection_that_is_none(sscd, tmp_path):
    path = tmp_path / "sscd.pt"
    torch.save(sscd.state_dict() | {"backbone.fc.weight": torch.tensor(1.0)}, path)
    assert "its fc.weight has shape (); expected [dim, channels]" in refused(path)


# --- the ISC21 winner ------------------------------------------------------------------------------------------------


class PublishedWinner(nn.Module):
    """What isc_ft_v107 is weights of: the last stage of an EfficientNetV2-M, averaged; linear; batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("tf_efficientnetv2_m", features_only=True)
        self.fc = nn.Linear(512, 256, bias=False)
        self.bn = nn.BatchNorm1d(256)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.bn(self.fc(published_gem(self.backbone(images)[-1], 1.0))))


@pytest.fixture(scope="module")
def winner() -> PublishedWinner:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return settle(PublishedWinner())


def save_winner(winner: nn.Module, path: Path, **changes: object) -> Path:
    """A file as the winner's trainer wrote it: a wrapped model, its optimiser and the options of the run."""
    held = {
        "epoch": 10,
        "arch": "tf_efficientnetv2_m_in21ft1k",
        "state_dict": {f"module.{name}": value for name, value in winner.state_dict().items()},
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "args": argparse.Namespace(input_size=512, gem_p=1.0, gem_eval_p=4.0, rank=0, weight=None, dist_url="tcp://x"),
    }
    torch.save(held | changes, path)
    return path


@pytest.mark.slow
def test_the_winner_gives_the_descriptors_of_the_published_network(winner, tmp_path):
    path = save_winner(winner, tmp_path / "isc_ft_v107.pth.tar")
    assert read_checkpoint(path)[0] == {
        "backbone": "tf_efficientnetv2_m",
        "dim": 256,
        "gem_power": 1.0,
        "batch_norm": True,
        "conv_head": False,
        "image_size": 512,
    }
    model = load_model(str(path))
    with torch.inference_mode():
        theirs = winner((pictures() / 255 - 0.5) / 0.5)
        ours = model(pictures())
    assert theirs.diff(dim=0).norm() > 0.01, "the pictures must differ for the test to say something"
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_another_network_of_the_winner_is_refused(winner, tmp_path):
    path = save_winner(winner, tmp_path / "old.pth.tar", arch="tf_efficientnet_b5_ns")
    with pytest.raises(InputError, match=r"old\.pth\.tar: arch=tf_efficientnet_b5_ns; expected tf_efficientnetv2_m"):
        read_checkpoint(path)


def test_without_conv_head():
    backbone = timm.create_model("tf_efficientnet_lite0", num_classes=0, global_pool="").eval()
    with torch.inference_mode():
        x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        before = backbone.blocks(backbone.bn1(backbone.conv_stem(x)))
        for _ in range(2):  # once more changes nothing
            short = without_conv_head(backbone)
            assert short.num_features == 320
            torch.testing.assert_close(short(x), before)
    assert not any(name.startswith(("conv_head", "bn2")) for name in short.state_dict())
    with pytest.raises(InputError, match=r"model\.conv_head=false: ResNet has no such layer"):
        without_conv_head(timm.create_model("test_resnet", num_classes=0))


# --- files that are not ----------------------------------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


class Payload:
    """Makes a folder of the name when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_that_would_run_code_is_refused_and_runs_none(whole, tmp_path):
    made, path = tmp_path / "made", tmp_path / "evil.pth"
    if whole:
        path.write_bytes(pickle.dumps(Payload(made), protocol=2))
    else:
        torch.save({"state_dict": {"weight": torch.zeros(2)}, "extra": Payload(made)}, path)
    message = refused(path)
    assert "posix.mkdir" in message
    assert "no code of a file is run" in message
    assert not made.exists()
    with contextlib.suppress(RuntimeError), path.open("rb") as file:  # and it is what the test says it is
        torch.load(file, weights_only=False)
    assert made.is_dir()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused_by_what_it_is(tmp_path):
    path = tmp_path / "sscd_disc_mixup.torchscript.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    assert ".torchvision.pt of the same name" in refused(path)
    renamed = path.rename(tmp_path / "sscd_disc_mixup.torchvision.pt")
    assert "TorchScript" in refused(renamed)


def test_classy_vision_weights_are_refused(tmp_path):
    path = tmp_path / "sscd_disc_mixup.classy.pt"
    torch.save({"backbone.initial_block.0.weight": torch.zeros(1), "embeddings.1.weight": torch.zeros(512, 2048)}, path)
    message = refused(path)
    assert "Classy Vision" in message
    assert ".torchvision.pt" in message


def test_an_unknown_layout_names_some_of_its_tensors(tmp_path):
    path = tmp_path / "resnet50.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    message = refused(path)
    assert "122 tensors named conv1.weight, bn1.weight, bn1.bias, …" in message
    assert "expected an SSCD *.torchvision.pt or an isc_*.pth.tar" in message


def test_the_state_of_any_file(sscd_file, winner, tmp_path):
    torch.save({"state_dict": {"module.conv.weight": torch.ones(2), "bias": torch.zeros(1)}}, tmp_path / "any.pth")
    state = read_state(tmp_path / "any.pth")
    assert {name: value.tolist() for name, value in state.items()} == {"conv.weight": [1, 1], "bias": [0]}
    assert not is_published(state)
    assert is_published(read_state(sscd_file))
    assert is_published(read_state(save_winner(winner, tmp_path / "isc_ft_v107.pth.tar")))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.zeros(2)], "holds a list"),
        ({}, "no weights in it"),
        ({"state_dict": torch.zeros(2)}, "no weights in it"),
        ({"epoch": 3}, "epoch is int, no tensor"),
        ({7: torch.zeros(2)}, "7 is Tensor"),
    ],
)
def test_other_contents(content, said, tmp_path):
    torch.save(content, tmp_path / "file.pt")
    assert said in refused(tmp_path / "file.pt")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and more", b"\x80\x02}q\x00.", b"\xff" * 100])
def test_bytes_of_something_else(content, tmp_path):
    path = tmp_path / "file.pth.tar"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_file(share, tmp_path):
    path = tmp_path / "file.pt"
    torch.save({"weight": torch.zeros(5000)}, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "cut short" in refused(path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin", "model.tar", "model"])
def test_other_endings(name, tmp_path):
    torch.save({}, tmp_path / name)
    assert "expected a file ending in .pt, .pth, .pth.tar" in refused(tmp_path / name)


def test_zip_without_tensors(tmp_path):
    path = tmp_path / "file.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(path)


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.fixture
def little() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_missing_and_unexpected_tensors_are_named(little):
    state = little.state_dict()
    del state["0.bias"]
    state["2.weight"] = torch.zeros(1)
    with pytest.raises(InputError, match=r"f\.pt: does not fit the model: missing 0\.bias; unexpected 2\.weight"):
        load_into(little, state, path=Path("f.pt"))
    state |= {f"x{number}": torch.zeros(1) for number in range(9)}
    with pytest.raises(InputError, match=r"unexpected 2\.weight, x0, x1, x2, x3 and 5 more$"):
        load_into(little, state, path=Path("f.pt"))
    with pytest.raises(InputError, match=r"missing 0\.weight, .*1\.running_mean and 1 more; unexpected nothing$"):
        load_into(little, {}, path=Path("f.pt"))


def test_a_tensor_of_another_shape_is_named_with_both(little):
    before = little[0].weight.clone()
    state = little.state_dict() | {"0.weight": torch.zeros(3, 4)}
    with pytest.raises(InputError, match=r"f\.pt: 0\.weight has shape \(3, 4\); expected \(3, 2\)"):
        load_into(little, state, path=Path("f.pt"))
    assert torch.equal(little[0].weight, before)


def test_half_precision_is_widened_and_the_argument_left_alone(little):
    state = {name: value.half() for name, value in little.state_dict().items() if value.is_floating_point()}
    names = list(state)
    load_into(little, state, path=Path("f.pt"))
    assert little[0].weight.dtype == torch.float32
    assert list(state) == names


# --- getting a file --------------------------------------------------------------------------------------------------

CONTENT = b"weights, let us say" * 100_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Served(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("Location", "http://example.org/weights.pt")
            self.end_headers()
        elif self.path.startswith("/short"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"less")
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of a folder on this machine, and an empty cache: (address, paths asked for)."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "weights.pt").write_bytes(CONTENT)
    handler = type("Handler", (Served,), {"asked": []})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=tmp_path / "www")
    ) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", handler.asked
        running.shutdown()
        thread.join()


def cached() -> list[str]:
    return sorted(path.name for path in cache_folder().iterdir()) if cache_folder().is_dir() else []


def test_a_download_is_kept_and_asked_for_once(server):
    address, asked = server
    path = fetch(f"{address}/weights.pt#sha256={SHA256.upper()}")
    assert path.read_bytes() == CONTENT
    assert path.name.endswith("weights.pt")
    assert fetch(f"{address}/weights.pt?token=1#sha256={SHA256}") == path
    assert asked == ["/weights.pt"]
    assert cached() == [path.name]


def test_a_changed_cache_is_fetched_again(server):
    address, asked = server
    path = fetch(f"{address}/weights.pt#sha256={SHA256}")
    path.write_bytes(b"changed since")
    assert fetch(f"{address}/weights.pt#sha256={SHA256}").read_bytes() == CONTENT
    assert len(asked) == 2


def test_a_wrong_checksum_names_both_and_leaves_nothing(server):
    address, _ = server
    with pytest.raises(InputError, match=f"SHA-256 is {SHA256}; expected {NOTHING}"):
        fetch(f"{address}/weights.pt#sha256={NOTHING}")
    assert cached() == []


@pytest.mark.parametrize(
    ("path", "said"), [("/none.pt", "404"), ("/short.pt", "SHA-256 is"), ("/away.pt", "only https is fetched")]
)
def test_a_download_that_fails_leaves_nothing(path, said, server):
    address, _ = server
    with pytest.raises(InputError, match=said) as error:
        fetch(f"{address}{path}#sha256={SHA256}")
    assert "\n" not in str(error.value)
    assert cached() == []


def test_nobody_answers(server):
    with http.server.HTTPServer(("127.0.0.1", 0), Served) as unused:
        port = unused.server_port
    with pytest.raises(InputError, match=r"cannot be fetched \(.*refused.*\); download the file yourself"):
        fetch(f"http://127.0.0.1:{port}/weights.pt#sha256={SHA256}")
    assert cached() == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/w.pt",
        "ftp://example.org/w.pt",
        "file:///etc/hostname",
        "http://127.0.0.1.example.org/w.pt",
        "http://localhost@example.org/w.pt",
    ],
)
def test_only_https_is_fetched(url):
    with pytest.raises(InputError, match="only https is fetched"):
        fetch(f"{url}#sha256={SHA256}")


def test_an_address_that_is_none():
    with pytest.raises(InputError, match="cannot be fetched"):
        fetch(f"https://[::1/w.pt#sha256={SHA256}")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_this_machine_may_be_asked_without_https(host):
    checkpoints._check_scheme(f"http://{host}:8000/w.pt")


def test_an_url_needs_its_checksum():
    with pytest.raises(InputError, match=r"no checksum; add #sha256=HEX"):
        fetch("https://example.org/w.pt")
    for wrong in ("abc", SHA256[:-1], SHA256 + "0", "g" * 64):
        with pytest.raises(InputError, match="expected 64 hexadecimal digits"):
            fetch(f"https://example.org/w.pt#sha256={wrong}")


def test_a_local_file_is_taken_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "w #1.pt"
    path.write_bytes(CONTENT)
    assert fetch(str(path)) == path
    assert fetch(f"{path}#sha256={SHA256}") == path
    with pytest.raises(InputError, match=f"SHA-256 is {SHA256}; expected {NOTHING}"):
        fetch(f"{path}#sha256={NOTHING}")
    assert path.read_bytes() == CONTENT
    with pytest.raises(InputError, match="no such file"):
        fetch(str(tmp_path / "absent.pt"))
    assert cached() == []


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "isc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "isc"


def test_what_an_url_is():
    assert is_url("https://example.org/w.pt")
    assert not is_url("runs/model.pt")
    assert not is_url("imagenet")


def test_a_damaged_name_in_the_table_of_a_checkpoint_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/é.pkl", b"x")
    data = path.read_bytes()
    at = data.rindex("é".encode())
    path.write_bytes(data[:at] + b"\x85\x85" + data[at + 2 :])
    with pytest.raises(InputError, match=r"a\.pt"):
        read_state(path)
